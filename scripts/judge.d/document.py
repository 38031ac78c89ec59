# SPDX-License-Identifier: MIT
"""The results as text, and their place in docs/testing.md: between two markers, all else there is a person's."""

import datetime as dt
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from judging import Finding, Verdict

_BEGIN = "<!-- written by scripts/judge: begin -->"
_END = "<!-- written by scripts/judge: end -->"
_LISTED = 20
"""Kinds of findings of each judge that the document lists."""
_NAMED = 8
"""Cases that are named beside the first of a kind."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one judge said, and how long it took."""

    name: str
    verdict: Verdict
    seconds: float


def render_table(results: Sequence[Result]) -> str:
    """A line for each judge."""
    lines = ["| judge | what ran | cases | differences | seconds |", "|---|---|---:|---:|---:|"]
    for result in results:
        verdict = result.verdict
        lines.append(f"| {result.name} | {verdict.ran} | {verdict.cases:,} | {len(verdict.findings):,} | {result.seconds:.0f} |")
    return "\n".join(lines)


def render_findings(results: Sequence[Result], *, limit: int) -> str:
    """What was found, at most `limit` kinds of each judge, then the notes of all; empty if there is nothing of either."""
    parts = []
    for result in results:
        kinds = _by_kind(result.verdict.findings)
        for first, *others in kinds[:limit]:
            names = "; ".join(finding.case for finding in others[:_NAMED])
            more = f"\n\n      and {len(others):,} more like it: {_readable(names)}" if others else ""
            parts.append(f"- {result.name}, {_readable(first.case)}:\n\n{_indented(first.text)}{more}\n")
        if len(kinds) > limit:
            parts.append(f"- {result.name}: and {sum(map(len, kinds[limit:])):,} more of {len(kinds) - limit} kinds\n")
    parts += ["\n".join(result.verdict.notes) + "\n" for result in results if result.verdict.notes]
    return "\n".join(parts).rstrip("\n")


def _by_kind(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings that look alike together, the most numerous first; one without a kind is alone."""
    groups: dict[str, list[Finding]] = {}
    for number, finding in enumerate(findings):
        groups.setdefault(finding.kind or f"{number}", []).append(finding)
    return sorted(groups.values(), key=len, reverse=True)


def _indented(text: str) -> str:
    """As a block of code in a list."""
    return "\n".join(f"      {line}" for line in _readable(text).splitlines())


def _readable(text: str) -> str:
    """Names may be of any bytes."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def write_section(path: Path, setting: str, results: Sequence[Result]) -> None:
    """Replace what stands between the markers of a document.

    Raises:
        ValueError: it has no markers.
    """
    date = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    parts = [f"{date}, Linux {platform.release()}: {setting}.", render_table(results), render_findings(results, limit=_LISTED)]
    section = "\n\n".join(part for part in parts if part)
    text = path.read_text()
    pattern = re.compile(f"{_BEGIN}.*{_END}", re.DOTALL)
    if not pattern.search(text):
        message = f"{path} has no markers"
        raise ValueError(message)
    path.write_text(pattern.sub(lambda _: f"{_BEGIN}\n{section}\n{_END}", text))

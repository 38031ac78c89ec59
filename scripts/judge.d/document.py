# SPDX-License-Identifier: MIT
"""The results as text, and their place in docs/testing.md: between two markers, all else there is a person's."""

import datetime as dt
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from judging import Verdict

_BEGIN = "<!-- written by scripts/judge: begin -->"
_END = "<!-- written by scripts/judge: end -->"
_LISTED = 20
"""Findings of each judge that the document lists; all are printed."""


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
    """What was found, at most `limit` of each judge, then the notes of all; empty if there is nothing of either."""
    parts = []
    for result in results:
        findings = result.verdict.findings
        parts += [f"- {result.name}, {finding.case}:\n\n{_indented(finding.text)}\n" for finding in findings[:limit]]
        if len(findings) > limit:
            parts.append(f"- {result.name}: and {len(findings) - limit:,} more\n")
    for result in results:
        if result.verdict.notes:
            parts.append("\n".join(result.verdict.notes) + "\n")
    return "\n".join(parts).rstrip("\n")


def _indented(text: str) -> str:
    """As a block of code in a list; names may be of any bytes."""
    readable = text.encode(errors="backslashreplace").decode()
    return "\n".join(f"      {line}" for line in readable.replace("\0", "\\0").splitlines())


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

# SPDX-License-Identifier: MIT
"""The document that is written: docs/benchmarks.md. One section of it is a person's, and is kept."""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rows import BORG, PLAIN, RESTIC, ROWS, YESTER, Results, Row

_BEGIN = "<!-- written by hand, kept by scripts/bench: begin -->"
_END = "<!-- written by hand, kept by scripts/bench: end -->"
_COLUMNS = (YESTER, RESTIC, BORG, PLAIN)


@dataclass(frozen=True, slots=True)
class Setting:
    """On what and how it was run, as lines of text; `private` are folders of this machine that are not to be named."""

    lines: tuple[str, ...]
    file_system: str
    private: dict[str, str]


def render_table(results: Results) -> str:
    """The table with the medians, a line for each row that was wanted of any tool."""
    lines = [
        f"| work | {' | '.join(_COLUMNS)} | yester / restic | reach | reached |",
        "|---|" + "---:|" * len(_COLUMNS) + "---:|---|---|",
    ]
    for row in _rows_of(results):
        value, restic = _median(results, row, YESTER), _median(results, row, RESTIC)
        ratio = value / restic if value is not None and restic else None
        reached = row.target.is_reached(value, ratio)
        cells = [
            row.title,
            *(_cell(results, row, tool) for tool in _COLUMNS),
            "" if ratio is None else f"{ratio:.2f}",
            row.target.show(row.unit),
            "" if not row.target.show(row.unit) else {True: "yes", False: "**no**", None: "unknown"}[reached],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def render_failures(results: Results, setting: Setting) -> str:
    """Why there is no value where there is none; empty if there are all."""
    rows_of_reason: dict[tuple[str, str], list[str]] = {}
    for row in _rows_of(results):
        for tool in _COLUMNS:
            if reason := results.failures.get((row.id, tool)):
                rows_of_reason.setdefault((tool, reason), []).append(row.title)
    return "\n".join(f"- {tool}: {'; '.join(rows)}: `{_public(reason, setting)}`" for (tool, reason), rows in rows_of_reason.items())


def _public(text: str, setting: Setting) -> str:
    """Text for between backticks that names no folder of this machine."""
    for folder, name in setting.private.items():
        text = text.replace(folder, name)
    return text.replace("`", "'")


def write_document(path: Path, results: Results, setting: Setting) -> None:
    """Write the document, keeping what a person wrote in it."""
    by_hand = "\nNothing is written here yet.\n"
    if path.exists() and (found := re.search(f"{_BEGIN}(.*){_END}", path.read_text(), re.DOTALL)):
        by_hand = found[1]
    failures = render_failures(results, setting)
    parts = [
        "# How fast yester is, beside restic and borg",
        _INTRODUCTION,
        "\n".join(f"- {line}" for line in setting.lines),
        render_table(results),
        _BELOW_TABLE.format(setting.file_system),
        f"These failed:\n\n{failures}" if failures else "",
        "## What bounds it",
        f"{_BEGIN}{by_hand}{_END}",
        _HOW,
        "## All values",
        "In the order of the rounds.",
        _render_values(results),
    ]
    path.write_text("\n\n".join(part for part in parts if part) + "\n")


_INTRODUCTION = """\
Written by `scripts/bench`, which runs all tools on one machine in one run, each step with one tool after the other. A time by
itself depends on the machine; the ratio is what to look at. Only “What bounds it” is written by hand."""

_BELOW_TABLE = """\
Medians of the rounds. *plain* is no backup but the tree itself on {}: `cp -a` as the restore, and `find`, `ls` and `tar` without
any mount. Empty: not measured there."""

_HOW = """\
## What the rows mean

What a step reads, the files or the store, is read into the page cache before, and the disk is given time to finish writing what
came before. Every round starts with new stores and empty caches of the tools. All tools have their defaults, but borg: it does not
encrypt, and compresses with `zstd,3`, the level of yester. restic always encrypts.

- **store size**: blocks on the disk (`du`), without the tools' caches elsewhere.
- **restore**: into an empty folder on the same disk. It is checked that all entries are there.
- **1 % changed**: every hundredth file, in place; by turns some bytes in the middle are replaced, or some are appended.
- **mount ready**: from the start of the command until the mount point lists something and, where the command goes into the
  background, it has returned.
- **first** `find`, `ls -lR`, `tar`: in this order in a new mount, each for the first time. `tar` writes into a pipe that is read
  (into /dev/null it would read no files). It is checked that all names and all bytes come.
- **cold 1 GiB file**: `dd bs=1M` through another new mount. Half of its 64 KiB blocks are random, half compress well.
- **second snapshot**: the one with 1 % changed. Two hundred files at a time are opened in both, then read in the first, then in
  the second; counted are the answers that the process which serves the mount gives (its write calls, from /proc/PID/io) while they
  are read in the second. The changed files show that the count counts. In the first round only.
- **peak memory**: of a backup, the most resident memory of its largest process; of a mount, VmHWM of the process that serves it,
  after all that is above and reading the 1 GiB file, in the first round. Both count pages of mapped files, as LMDB's, which the
  kernel takes back when it needs them; the lines after them do not: RssAnon, for the backup the highest of samples 50 ms apart,
  for the mount what it was in the end."""


def _rows_of(results: Results) -> list[Row]:
    known = {row for row, _ in [*results.values, *results.failures]}
    return [row for row in ROWS if row.id in known]


def _median(results: Results, row: Row, tool: str) -> float | None:
    values = results.values.get((row.id, tool))
    return median(values) if values else None


def _cell(results: Results, row: Row, tool: str) -> str:
    value = _median(results, row, tool)
    failed = "failed" if (row.id, tool) in results.failures else ""
    if value is None:
        return failed
    return row.unit.show(value) + (f" (once {failed})" if failed else "")


def _render_values(results: Results) -> str:
    lines = [f"| work | {' | '.join(_COLUMNS)} |", "|---|" + "---|" * len(_COLUMNS)]
    for row in _rows_of(results):
        cells = [" · ".join(row.unit.show(value) for value in results.values.get((row.id, tool), [])) for tool in _COLUMNS]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)

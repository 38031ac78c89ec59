# SPDX-License-Identifier: MIT
"""The document that is written: docs/benchmarks.md. What a person, `scripts/bench live` or `scripts/bench store` wrote in it is kept."""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rows import BORG, PLAIN, RESTIC, ROWS, YESTER, Results, Row, Unit
from setting import Setting


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a document, between two comments that say whose it is."""

    owner: str

    def render(self, text: str) -> str:
        """The part with this text."""
        return f"<!-- {self.owner}: begin -->{text}<!-- {self.owner}: end -->"

    def find(self, document: str) -> str | None:
        """Its text in a document; None if it is not there."""
        found = re.search(self._pattern(), document, re.DOTALL)
        return found[1] if found else None

    def put(self, document: str, text: str) -> str:
        """The document with this text in the part; one that has no such part gets it at its end."""
        part = self.render(text)
        if self.find(document) is None:
            return f"{document.rstrip()}\n\n{part}\n".lstrip()
        return re.sub(self._pattern(), lambda _: part, document, count=1, flags=re.DOTALL)

    def _pattern(self) -> str:
        return "(.*?)".join(re.escape(f"<!-- {self.owner}: {edge} -->") for edge in ("begin", "end"))


LIVE_SECTION = Part("written by scripts/bench live")
STORE_SECTION = Part("written by scripts/bench store")
_BY_HAND = Part("written by hand, kept by scripts/bench")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and columns. The first column is the one that is to reach something; it is divided by those in `beside`."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    beside: tuple[str, ...]

    def render(self, results: Results) -> str:
        """The table with the medians, a line for each row that was wanted in any column."""
        first = self.columns[0]
        heads = ["work", *self.columns, *(f"{first} / {name}" for name in self.beside), "reach", "reached"]
        lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(self.columns) + len(self.beside)) + "---|---|"]
        for row in self._rows_of(results):
            value = _median(results, row, first)
            others = {name: _median(results, row, name) for name in self.beside}
            ratios = {name: value / other for name, other in others.items() if value is not None and other and row.unit is not Unit.TIMES}
            reached = row.target.is_reached(value, ratios)
            cells = [
                row.title,
                *(_cell(results, row, name) for name in self.columns),
                *(f"{ratios[name]:.2f}" if name in ratios else "" for name in self.beside),
                row.target.show(row.unit),
                "" if not row.target.show(row.unit) else {True: "yes", False: "**no**", None: "unknown"}[reached],
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def render_failures(self, results: Results, setting: Setting) -> str:
        """Why there is no value where there is none; empty if there are all."""
        rows_of_reason: dict[tuple[str, str], list[str]] = {}
        for row in self._rows_of(results):
            for name in self.columns:
                if reason := results.failures.get((row.id, name)):
                    rows_of_reason.setdefault((name, reason), []).append(row.title)
        return "\n".join(f"- {name}: {'; '.join(rows)}: `{_public(reason, setting)}`" for (name, reason), rows in rows_of_reason.items())

    def render_values(self, results: Results) -> str:
        """The table with all values instead of their medians."""
        lines = [f"| work | {' | '.join(self.columns)} |", "|---|" + "---|" * len(self.columns)]
        for row in self._rows_of(results):
            cells = [" · ".join(row.unit.show(value) for value in results.values.get((row.id, name), [])) for name in self.columns]
            lines.append(f"| {row.title} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _rows_of(self, results: Results) -> list[Row]:
        known = {row for row, _ in [*results.values, *results.failures]}
        return [row for row in self.rows if row.id in known]


BACKUP_TABLE = Table(ROWS, (YESTER, RESTIC, BORG, PLAIN), (RESTIC,))


def _public(text: str, setting: Setting) -> str:
    """Text for between backticks that names no folder of this machine."""
    for folder, name in setting.private.items():
        text = text.replace(folder, name)
    return text.replace("`", "'")


def write_document(path: Path, results: Results, setting: Setting) -> None:
    """Write the document, keeping what a person wrote in it."""
    old = path.read_text() if path.exists() else ""
    failures = BACKUP_TABLE.render_failures(results, setting)
    parts = [
        "# How fast yester is, beside restic and borg",
        _INTRODUCTION,
        "\n".join(f"- {line}" for line in setting.lines),
        BACKUP_TABLE.render(results),
        _BELOW_TABLE.format(setting.file_system),
        f"These failed:\n\n{failures}" if failures else "",
        "## What bounds it",
        _BY_HAND.render(_BY_HAND.find(old) or "\nNothing is written here yet.\n"),
        _HOW,
        "## All values",
        "In the order of the rounds.",
        BACKUP_TABLE.render_values(results),
        *(section.render(text) for section in (LIVE_SECTION, STORE_SECTION) if (text := section.find(old))),
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


def _median(results: Results, row: Row, column: str) -> float | None:
    values = results.values.get((row.id, column))
    return median(values) if values else None


def _cell(results: Results, row: Row, column: str) -> str:
    value = _median(results, row, column)
    failed = "failed" if (row.id, column) in results.failures else ""
    if value is None:
        return failed
    return row.unit.show(value) + (f" (once {failed})" if failed else "")

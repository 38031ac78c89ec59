# SPDX-License-Identifier: MIT
"""The section about the life of a store in docs/benchmarks.md. A part of it is a person's, and is kept."""

from pathlib import Path

from report import STORE_SECTION, Part, Table
from rows import Results
from setting import Setting

from store.rows import BESIDE, COLUMNS, STORE_ROWS

STORE_TABLE = Table(STORE_ROWS, COLUMNS, BESIDE)
_BY_HAND = Part("written by hand, kept by scripts/bench store")


def write_store_section(path: Path, results: Results, setting: Setting) -> None:
    """Write the section, keeping the rest of the document and what a person wrote in the section."""
    document = path.read_text() if path.exists() else ""
    failures = STORE_TABLE.render_failures(results, setting)
    parts = [
        "\n## The life of a store",
        _INTRODUCTION,
        "\n".join(f"- {line}" for line in setting.lines),
        STORE_TABLE.render(results),
        _BELOW_TABLE.format(setting.file_system),
        f"These failed:\n\n{failures}" if failures else "",
        "### What bounds it over time",
        _BY_HAND.render(_BY_HAND.find(document) or "\nNothing is written here yet.\n"),
        _HOW,
        "### All values of the life of a store",
        STORE_TABLE.render_values(results) + "\n",
    ]
    path.write_text(STORE_SECTION.put(document, "\n\n".join(part for part in parts if part)))


_INTRODUCTION = """\
Written by `scripts/bench store`, which does all of it in one run, each step with one store after the other, by turns in one order and in
the other."""

_BELOW_TABLE = """\
Medians, all on {}. Empty: not measured there."""

_HOW = """\
### What these rows mean

In each round a tenth of the files changes, other ones each time and the same in each run: by turns some bytes in the middle are
replaced, or some are appended. Then a backup, `forget` of all but the last five snapshots, and `prune` with no time of grace (restic:
`forget --prune`, with its default of 5 % that may stay unused). *yester* and *restic* are the stores that lived through all rounds; the
*fresh* ones were new five rounds before the end, and hold the same five snapshots.

- **a round**: the medians of all rounds.
- **store size**: blocks on the disk, without caches elsewhere. yester's file only shrinks by `yester compact`; what is freed in it is
  written again.
- **backup**, **restore**, **print**, **list**: by command, from start to end. The files, or the store, are in the page cache. It is
  checked that all entries come.
- **by second of processor time**: all chunks as they are before compression, divided by the time in user and system of the command and
  all of its processes.
- **all rounds at once**: stores with the same history that were never pruned; each time a new copy of them, with its caches.
- **encrypted**: into a new store with a passphrase; *yester fresh* is a new store without one. restic always encrypts."""

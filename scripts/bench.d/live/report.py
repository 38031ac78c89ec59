# SPDX-License-Identifier: MIT
"""The section about the live folder in docs/benchmarks.md. A part of it is a person's, and is kept."""

from pathlib import Path

from report import LIVE_SECTION, Part, Table
from rows import Results
from setting import Setting

from live.rows import BESIDE, COLUMNS, LIVE_ROWS

LIVE_TABLE = Table(LIVE_ROWS, COLUMNS, BESIDE)
_BY_HAND = Part("written by hand, kept by scripts/bench live")


def write_live_section(path: Path, results: Results, setting: Setting) -> None:
    """Write the section, keeping the rest of the document and what a person wrote in the section."""
    document = path.read_text() if path.exists() else ""
    failures = LIVE_TABLE.render_failures(results, setting)
    parts = [
        "\n## The live folder, beside S3QL, JuiceFS and bindfs",
        "Written by `scripts/bench live`, which does the same work with all of them in one run, each piece with one after the other.",
        "\n".join(f"- {line}" for line in setting.lines),
        LIVE_TABLE.render(results),
        _BELOW_TABLE.format(setting.file_system),
        f"These failed:\n\n{failures}" if failures else "",
        "### What bounds the live folder",
        _BY_HAND.render(_BY_HAND.find(document) or "\nNothing is written here yet.\n"),
        _HOW,
        "### All values of the live folder",
        LIVE_TABLE.render_values(results) + "\n",
    ]
    path.write_text(LIVE_SECTION.put(document, "\n\n".join(part for part in parts if part)))


_BELOW_TABLE = """\
Medians of the rounds. *plain* is a folder on {}, which also has all stores. Empty: not measured there."""

_HOW = """\
### What its rows mean

For each piece of work each system gets a new, empty store and is mounted anew. What the work reads is in the page cache. All have their
defaults, but S3QL: it does not encrypt, and compresses with `zlib-1`, the fastest it has (yester: zstd level 3; JuiceFS: none). JuiceFS
has SQLite for metadata and files for data.

fsync promises different things. yester, bindfs and the plain folder have the data on the disk when it returns. S3QL 6.3 has then written
to its cache and its database without syncing either (its source: `Operations.fsync`). JuiceFS 1.4 with files for data has renamed them into
place without syncing them, and its database, in WAL mode, is synced when SQLite makes a checkpoint (`strace`). What is fsynced there
survives the end of the process, but not power loss; their rows with fsync are to be read with that in mind.

- **small files**: those of `fs/` in the Linux sources. *Cold*: unmounted, the page cache dropped, mounted again. `tar` writes into a
  pipe that is read. It is checked that all bytes come.
- **write**: `dd conv=fsync` of a file whose 64 KiB blocks by turns are random and compress well.
- **git**: a repository of 400 commits made of 4,000 of these files, in one pack, cloned by `file://`; then the first `git status`, which
  has to find nothing.
- **SQLite**: one insert a transaction, synchronous=FULL. A second connection has to find all rows, and `integrity_check` nothing.
- **random writes**: `fio`, 32 MiB in all (or what two minutes suffice for) into a file that was written and settled before; what is
  written compresses by half. *Growth*: blocks on the disk after it less those before, divided by the bytes that were written; again after
  unmounting, by which yester publishes a version, and S3QL uploads what it had only in its cache. Caches do not count, nor pages of
  yester's file that nothing uses: it never shrinks, and is written into before it grows.
- **publish**: `yester snapshot` of the Linux source tree, five times with ten files changed each; the median. Meanwhile a process appends
  a line to a file in the folder and fsyncs, without rest: its longest such turn during all five, and in five seconds before. That no
  pause is seen is taken as: 100 ms at most.
- **peak memory**: VmHWM of the process that serves the mount, after the work. It counts pages of mapped files, as LMDB's, which the kernel
  takes back when it needs them; the line below it does not: RssAnon, after the work."""

# SPDX-License-Identifier: MIT
"""What the work is done with: small files, and a repository with history, both of the Linux source tree.

Made once and kept, and every machine makes the same of the same tree. Not here: the tree itself and the large file (`datasets`).
"""

import os
import shutil
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import Contents, DataSets, contents_of
from debian import install

_FIRST = "fs/"
"""Where the choice of files begins: in Linux 6.1 this folder has the 2,078 files that are wanted."""

_IDENTITY = b"Bench <bench@example.org> %d +0000"
_FIRST_COMMIT_S = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything there is."""

    small_files: int
    history_files: int
    commits: int
    write_blocks: int
    transactions: int
    random_bytes: int


FULL = Sizes(small_files=2078, history_files=4000, commits=400, write_blocks=1024, transactions=1000, random_bytes=32 << 20)
QUICK = Sizes(small_files=200, history_files=200, commits=20, write_blocks=64, transactions=100, random_bytes=2 << 20)


@dataclass(frozen=True, slots=True)
class LiveData:
    """The data sets of the backups' comparison, and those below `folder`."""

    linux: DataSets
    folder: Path
    sizes: Sizes
    small_contents: Contents

    @property
    def small(self) -> Path:
        """The small files, in their folders."""
        return self.folder / "small"

    @property
    def repository(self) -> Path:
        """A bare repository, in one pack."""
        return self.folder / "history.git"


def prepare_live(linux: DataSets, folder: Path, sizes: Sizes) -> LiveData:
    """The data sets in `folder`, made if they are not there."""
    names = sorted((*linux.changed_names, *linux.unchanged_names))
    start = bisect_left(names, _FIRST)
    names = names[start:] + names[:start]
    if not (folder / "small").exists():
        _copy(linux.tree, names[: sizes.small_files], folder / "small")
    if not (folder / "history.git").exists():
        _make_repository(folder / "history.git", linux.tree, names[: sizes.history_files], sizes.commits)
    return LiveData(linux, folder, sizes, contents_of(folder / "small"))


def _copy(tree: Path, names: list[str], target: Path) -> None:
    unfinished = target.with_name("small.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in names:
        (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / name, unfinished / name)
    unfinished.rename(target)


def _make_repository(repository: Path, tree: Path, names: list[str], commits: int) -> None:
    """Import commits: the first has half of the files; each later one changes five and adds its share of the others."""
    if shutil.which("git") is None:
        install(["git"])
    print("bench: making a repository with history", file=sys.stderr)
    unfinished = repository.with_name("history.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull)
    git = ["git", "-C", str(unfinished)]
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", unfinished], env=environment, check=True)
    stream = b"".join(_history(tree, names, commits))
    subprocess.run([*git, "fast-import", "--quiet"], input=stream, env=environment, check=True)
    subprocess.run([*git, "repack", "-a", "-d", "-f", "--quiet", "--threads=1"], env=environment, check=True)
    unfinished.rename(repository)


def _history(tree: Path, names: list[str], commits: int) -> Iterator[bytes]:
    """The commits, in the form that `git fast-import` reads."""
    changes: dict[str, int] = {}
    for number in range(commits):
        known = len(names) // 2 + len(names) // 2 * (number + 1) // commits
        touched = [names[(number * 7919 + step * 1009) % len(changes)] for step in range(5)] if changes else []
        for name in touched:
            changes[name] += 1
        added = names[len(changes) : known]
        changes |= dict.fromkeys(added, 0)
        when = _IDENTITY % (_FIRST_COMMIT_S + number * 3600)
        message = b"change %d\n" % number
        yield b"commit refs/heads/main\nauthor %s\ncommitter %s\ndata %d\n%s\n" % (when, when, len(message), message)
        for name in sorted({*touched, *added}):
            content = _content(tree / name, changes[name])
            yield b"M 100644 inline %s\ndata %d\n%s\n" % (os.fsencode(name), len(content), content)


def _content(path: Path, changes: int) -> bytes:
    """A file as it is after so many changes: each has put a line somewhere in it."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(changes):
        lines.insert((number * 37) % len(lines), b"/* change %d */\n" % number)
    return b"".join(lines)

# SPDX-License-Identifier: MIT
"""What is backed up: the Linux source tree, the same tree with 1 % of its files changed, and a large file.

Everything is made once and kept. The change is made in place and taken back, so that a tool that knows files by their inode
number and ctime sees in the second backup what it would see in life.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from debian import has_package, install

_BIG_BLOCK_BYTES = 64 << 10
_CHANGED_EVERY = 100
_ORIGINALS = "originals"


@dataclass(frozen=True, slots=True)
class Contents:
    """How much is in a folder: all its entries with itself, and its regular files."""

    entries: int
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DataSets:
    """The folders `linux` and `big`, below `folder`."""

    folder: Path
    origin: str
    contents: Contents
    changed_names: tuple[str, ...]
    unchanged_names: tuple[str, ...]

    @property
    def tree(self) -> Path:
        """The Linux source tree, or a part of it."""
        return self.folder / "linux"

    @property
    def big(self) -> Path:
        """The large file."""
        return self.folder / "big" / "file"

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Change 1 % of the files, and take it back in the end.

        By turns, bytes in the middle are replaced (the size stays) and bytes are appended.
        """
        saved = self.folder / "originals.unfinished"
        shutil.rmtree(saved, ignore_errors=True)
        for name in self.changed_names:
            (saved / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.tree / name, saved / name)
        saved.rename(self.folder / _ORIGINALS)
        try:
            for number, name in enumerate(self.changed_names):
                change_file(self.tree / name, number, "the second snapshot")
            yield
        finally:
            take_back_changes(self.folder)


def change_file(path: Path, number: int, why: str) -> None:
    """Replace bytes in the middle of a file, or append some: by turns, as `number` goes."""
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size_bytes // 2 if number % 2 else size_bytes)
        file.write(b"/* changed for %s: %08d */\n" % (why.encode(), number))


def take_back_changes(folder: Path) -> None:
    """Restore the files that `DataSets.changed` changed; also after a run that was killed."""
    originals = folder / _ORIGINALS
    if not originals.is_dir():
        return
    for saved in originals.rglob("*"):
        if saved.is_file():
            shutil.copy2(saved, folder / "linux" / saved.relative_to(originals))
    shutil.rmtree(originals)


def prepare(folder: Path, *, quick: bool) -> DataSets:
    """The data sets in `folder`, made if they are not there. `quick` means smaller ones; give them another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    take_back_changes(folder)
    origin = folder / "origin"  # written last: a tree without it is not whole
    if not origin.exists():
        shutil.rmtree(folder / "linux", ignore_errors=True)
        origin_text = _unpack_tree(folder / "linux", quick=quick)
        origin.write_text(origin_text)
    big_bytes = (64 << 20) if quick else (1 << 30)
    big = folder / "big" / "file"
    if not big.exists() or big.stat().st_size != big_bytes:
        _write_big(big, big_bytes)
    names, contents = _look_through(folder / "linux")
    changed = tuple(names[_CHANGED_EVERY // 2 :: _CHANGED_EVERY])
    unchanged = tuple(sorted(set(names) - set(changed)))
    return DataSets(folder, origin.read_text(), contents, changed, unchanged)


def _unpack_tree(tree: Path, *, quick: bool) -> str:
    """Unpack Debian's Linux sources, for `quick` only the network drivers; what they are."""
    archives = _find_archives()
    if not archives:
        install(["linux-source", "xz-utils"])
        archives = _find_archives()
    if not archives:
        sys.exit("bench: the package linux-source brought no /usr/src/linux-source-*.tar.xz")
    archive = archives[-1]
    name = archive.name.removesuffix(".tar.xz")
    if shutil.which("xz") is None:
        install(["xz-utils"])
    print(f"bench: unpacking {archive.name}", file=sys.stderr)
    tree.mkdir(parents=True)
    part = [f"{name}/drivers/net"] if quick else []
    subprocess.run(["tar", "-xJf", archive, "-C", tree, "--strip-components", "3" if quick else "1", *part], check=True)
    version = "" if not has_package(name) else _package_version(name)
    return f"{'the network drivers of ' if quick else ''}Debian's {name} {version}".strip()


def _find_archives() -> list[Path]:
    """Oldest kernel first."""
    return sorted(Path("/usr/src").glob("linux-source-*.tar.xz"), key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])


def _package_version(name: str) -> str:
    if shutil.which("dpkg-query") is None:
        return ""
    return subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True, check=True).stdout


def _write_big(path: Path, size_bytes: int) -> None:
    """Blocks by turns of random bytes and of lines that compress to a tenth. No two blocks are equal; every run makes the same."""
    print("bench: writing the large file", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent.with_name("big.unfinished")
    with unfinished.open("wb") as file:
        for offset in range(0, size_bytes, 2 * _BIG_BLOCK_BYTES):
            file.write(hashlib.shake_128(b"%d" % offset).digest(_BIG_BLOCK_BYTES))
            lines = (b"%013d: a line of a log file that is like the one before\n" % n for n in range(offset, offset + _BIG_BLOCK_BYTES, 64))
            file.write(b"".join(lines))
    os.replace(unfinished, path)


def _look_through(tree: Path) -> tuple[list[str], Contents]:
    """The names of the regular files that are not empty, sorted, and how much there is in all."""
    names = []
    entries, files, size_bytes = 1, 0, 0
    for folder, folder_names, file_names in os.walk(tree):
        entries += len(folder_names) + len(file_names)
        for name in file_names:
            path = Path(folder, name)
            if path.is_symlink():
                continue
            files += 1
            file_bytes = path.stat().st_size
            size_bytes += file_bytes
            if file_bytes:
                names.append(str(path.relative_to(tree)))
    return sorted(names), Contents(entries, files, size_bytes)


def contents_of(tree: Path) -> Contents:
    """How much is in a folder."""
    return _look_through(tree)[1]

# SPDX-License-Identifier: MIT
"""Whether the pages of a data file are sound: LMDB's own trees, not what yester keeps in them.

`lmdb.verify` walks them and finds whatever could make LMDB crash, pages that are used twice or never, and rows out of order. It does not
compare the keys in branch pages with the rows below them. One that was hit leaves every row in its place, but searching goes astray: a row
that is there is not found, and would be put a second time; one of the list of free pages would be used twice. So this is looked at here.

Only bytes are read, so damaged pages crash nobody; what opens the file with LMDB is a child process (`python -m yester.store.verify`).

Reference: mdb.c of LMDB 0.9 (mdb_page_search_root, mdb_node_search).
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lmdb
from lmdb.verify import VerifyError, verify

from yester.errors import CorruptionError, StoreAccessError
from yester.store.datafile import DATA_FILE, IS_BRANCH, IS_DATABASE, NO_PAGE, NODE, NUMBER, PAGE, Meta, check_data_file, read_meta
from yester.store.lmdb import MAP_BYTES, MAP_BYTES_MIN, READERS_MAX

_CHILD = ["-P", "-m", "yester.store.verify"]
"""-P: a file that is called lmdb.py in the current directory is not ours."""
_TRIES = 5


def verify_data_file(path: Path) -> list[str]:
    """What is wrong with the pages of the data file in directory `path`; empty if they are sound.

    Reads all pages of LMDB's trees, but not the values, in a child process: 0.8 s for 234 MB from the page cache. The file may be written
    meanwhile.

    Raises:
        NotFoundError, CorruptionError, StoreAccessError: as `check_data_file`, or the child could not do it.
    """
    check_data_file(path)
    command = [sys.executable, *_CHILD, os.fspath(path)]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    if child.returncode < 0:
        return [f"reading it crashes LMDB (signal {-child.returncode})"]
    done, *problems = child.stdout.splitlines() or [""]
    if child.returncode or done != "done":
        last_words = (child.stderr.strip().splitlines() or ["it says nothing"])[-1]
        message = f"the database of the store {path} could not be verified: {last_words}"
        raise StoreAccessError(message)
    return problems


def are_pages_sound(path: Path) -> bool:
    """Whether the pages of a data file that nobody writes to are sound. Of one that somebody writes to, False means nothing.

    In this process. Raises as `check_data_file`.
    """
    check_data_file(path)
    return not _find_problems(path)


def _find_problems(path: Path) -> list[str]:
    """What is wrong with the file, by its bytes as they are now."""
    try:
        return verify(os.fspath(path)) or list(_iter_misleading(path / DATA_FILE))  # type: ignore[no-untyped-call]  # lmdb's stubs leave it out
    except VerifyError as error:
        return [str(error)]
    except (CorruptionError, OSError, struct.error) as error:
        return [f"{path / DATA_FILE} cannot be read: {error}"]  # also where it is written meanwhile


# --- keys in branch pages ---------------------------------------------------------------------------------------------


def _iter_misleading(file: Path) -> Iterator[str]:
    """A line for each key in a branch page that is not between the rows that it parts. `verify` has found the pages sound."""
    with file.open("rb") as data:
        pages = _Pages(data, read_meta(file, data))
        yield from pages.iter_misleading("the list of free pages", pages.meta.free_root, _in_order_of_numbers)
        yield from pages.iter_misleading("the list of tables", pages.meta.main_root)
        for name, root in pages.iter_tables():
            yield from pages.iter_misleading(f"table {name}", root)


def _in_order_of_numbers(key: bytes) -> bytes:
    """A number as LMDB has it, the least byte first, as a key that is ordered as numbers are."""
    return key[::-1]


class _Leaf(NamedTuple):
    """A leaf page, and the key that parts it from the leaf before, in the page `above`: `key` is empty for the first leaf."""

    above: int
    key: bytes
    page: bytes


class _Pages:
    """The pages of a file that are in trees."""

    def __init__(self, data: BinaryIO, meta: Meta) -> None:
        self.meta = meta
        self._data = data

    def iter_tables(self) -> Iterator[tuple[str, int]]:
        """Names of tables, and their roots."""
        for leaf in self._iter_leaves(self.meta.main_root):
            for index in range(_count_nodes(leaf.page)):
                at, key = _node(leaf.page, index)
                length, _high, flags, _key_bytes = NODE.unpack_from(leaf.page, at)
                if flags & IS_DATABASE:
                    [root] = NUMBER.unpack_from(leaf.page, at + NODE.size + len(key) + length - NUMBER.size)
                    yield key.decode(errors="replace"), root

    def iter_misleading(self, what: str, root: int, in_order: Callable[[bytes], bytes] = bytes) -> Iterator[str]:
        """See `_iter_misleading`. `in_order` gives keys that compare as those of this tree do."""
        last = b""
        for leaf in self._iter_leaves(root):
            first, key = (in_order(found) for found in (_node(leaf.page, 0)[1], leaf.key))
            if leaf.key and not last < key <= first:
                yield f"{what}: a key in branch page {leaf.above} leads past rows that are there"
            last = in_order(_node(leaf.page, _count_nodes(leaf.page) - 1)[1])

    def _iter_leaves(self, root: int) -> Iterator[_Leaf]:
        """The leaf pages of a tree, in order. What parts two is a key in the page where the ways to them part."""
        waiting = [] if root == NO_PAGE else [(root, 0, b"")]
        while waiting:
            number, above, key = waiting.pop()
            page = os.pread(self._data.fileno(), self.meta.page_bytes, number * self.meta.page_bytes)
            if not PAGE.unpack_from(page)[2] & IS_BRANCH:
                yield _Leaf(above, key, page)
                continue
            below = []
            for index in range(_count_nodes(page)):
                at, parting = _node(page, index)
                low, high, flags, _key_bytes = NODE.unpack_from(page, at)
                below.append((low | high << 16 | flags << 32, *((number, parting) if index else (above, key))))
            waiting += reversed(below)


def _count_nodes(page: bytes) -> int:
    _number, _pad, _flags, lower, _upper = PAGE.unpack_from(page)
    return int(lower - PAGE.size) // 2


def _node(page: bytes, index: int) -> tuple[int, bytes]:
    """Where a node of a page begins, and its key."""
    at = int.from_bytes(page[PAGE.size + 2 * index : PAGE.size + 2 * index + 2], "little")
    start = at + NODE.size
    return at, page[start : start + NODE.unpack_from(page, at)[3]]


# --- the child ----------------------------------------------------------------------------------------------------------


def main(path: Path) -> None:
    """Say "done", and a line for each problem."""
    try:
        environment = _open(path)
    except lmdb.Error as error:
        # An unknown version of the format is just an Error; those of the operating system have classes of their own.
        damaged = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)
        if type(error) is not lmdb.Error and not isinstance(error, damaged):
            raise
        _tell([f"LMDB refuses it: {error}"])
        return
    with environment:
        for _ in range(_TRIES):
            # A read transaction keeps every page that is looked at from being used again. Only between reading the file's length and its
            # meta page could a commit confuse it, and then it looks again.
            with environment.begin():
                before = environment.info()["last_txnid"]
                problems = _find_problems(path)
                if not problems or environment.info()["last_txnid"] == before:
                    break
    _tell(problems)


def _tell(problems: list[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in ("done", *problems))


def _open(path: Path) -> lmdb.Environment:
    """The environment, with a smaller map where the address space has no room."""
    map_bytes = max(MAP_BYTES, 4 * (path / DATA_FILE).stat().st_size)
    while True:
        try:
            return lmdb.open(os.fsencode(path), map_size=map_bytes, readonly=True, create=False, max_readers=READERS_MAX)
        except lmdb.MemoryError:
            if map_bytes < MAP_BYTES_MIN:
                raise
            map_bytes //= 4


if __name__ == "__main__":
    main(Path(sys.argv[1]))

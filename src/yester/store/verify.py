# SPDX-License-Identifier: MIT
"""Whether the pages of a data file are sound: LMDB's own trees, not what yester keeps in them.

`lmdb.verify` walks them and finds pages that are used twice or never, rows out of order, numbers that cannot be. What it does not see, and
a single bit can do, is looked for here:

- A key in a branch page that does not part the rows below it. Every row is in its place, but searching goes astray: a row that is there
  is not found, and would be put a second time; one of the list of free pages would be used twice.
- Nodes of a page that overlap, or leave gaps: the place or a length of one was hit. LMDB moves bytes by these numbers when it changes the
  page, and would write over other rows.
- Flags of a table, which yester gives none: LMDB would order or read its rows in another way.

Only bytes are read, so damaged pages crash nobody. Somebody may write to the file meanwhile, which can look like damage. So what seems
to be damaged is looked at again by a process (`python -m yester.store.verify`), which opens it with LMDB, as that may crash, and
has a read transaction of its own: no page that it looks at is used again. It may also do all of it, beside other work.

Reference: mdb.c of LMDB 0.9 (mdb_page_search_root, mdb_node_search, mdb_node_del).
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import lmdb
from lmdb.verify import VerifyError, verify

from yester.core.printable import printable
from yester.errors import CorruptionError, StoreAccessError
from yester.store.datafile import DATA_FILE, Meta, check_data_file, read_meta
from yester.store.interpreter import module_command, module_environment
from yester.store.lmdb import MAP_BYTES, open_mapped
from yester.store.pages import DATABASE, IS_BRANCH, IS_DATABASE, NO_PAGE, NODE, PAGE, node_key, node_places, packed_places, page_below

_BESIDE_BYTES_MIN = 64 * 1024 * 1024
"""A smaller file is verified before a process to do it would be there."""
_TRIES = 5
"""Looks, if commits confuse them: rarely one is in the instant that matters."""
_PROBLEMS_MAX = 200
"""As `lmdb.verify` tells."""


def verify_data_file(path: Path) -> list[str]:
    """What is wrong with the pages of the data file in directory `path`; empty if they are sound.

    Reads all pages of LMDB's trees, but not the values in pages of their own: 2 µs of processor time for each row of the store. The file
    may be written meanwhile.

    Raises:
        NotFoundError, CorruptionError, StoreAccessError: as `check_data_file`, or the child could not do it.
    """
    check_data_file(path)
    if not _find_problems(path):
        return []
    with _Child(path) as child:
        return child.outcome()


def _find_problems(path: Path) -> list[str]:
    """What is wrong with the file, by its bytes as they are now; at most some hundred lines."""
    file = path / DATA_FILE
    try:
        problems: list[str] = verify(os.fspath(path))  # type: ignore[no-untyped-call]  # lmdb's stubs leave it out
        if problems:
            return problems
        with file.open("rb") as data:
            return list(islice(_Trees(data, read_meta(file, data)).iter_problems(), _PROBLEMS_MAX))
    except (VerifyError, CorruptionError) as error:
        return [str(error)]
    except (OSError, struct.error) as error:
        return [f"its pages cannot be read: {error}"]


@contextmanager
def verifying(path: Path) -> Iterator[Callable[[], list[str]]]:
    """As `verify_data_file`, while the body runs: what this gives tells the outcome, and waits for it. A process does it, if that pays.

    Raises:
        As `verify_data_file`; so may what it gives.
    """
    check_data_file(path)
    if (path / DATA_FILE).stat().st_size < _BESIDE_BYTES_MIN or len(os.sched_getaffinity(0)) == 1:
        problems = verify_data_file(path)
        yield lambda: problems
        return
    with _Child(path) as child:
        yield child.outcome


class _Child:
    """A process that verifies. A context manager: leaving it ends it."""

    def __init__(self, path: Path) -> None:
        """Start it."""
        self._path = path
        try:
            self._process = subprocess.Popen(
                module_command("yester.store.verify", os.fspath(path)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=module_environment(),
            )
        except OSError as error:
            message = f"no process could be started to verify the database of the store {path}: {error.strerror}"
            raise StoreAccessError(message) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            pass

    def outcome(self) -> list[str]:
        """What is wrong, once it has ended."""
        said, said_of_errors = self._process.communicate()
        status = self._process.returncode
        if status < 0:
            return [f"reading it crashes LMDB (signal {-status})"]
        done, *problems = said.splitlines() or [""]
        if status or done != "done":
            last_words = (said_of_errors.strip().splitlines() or ["it says nothing"])[-1]
            message = f"the database of the store {self._path} could not be verified: {last_words}"
            raise StoreAccessError(message)
        return problems


# --- what lmdb.verify does not look at ------------------------------------------------------------------------------------


class _Leaf(NamedTuple):
    """A leaf page, and the key that parts it from the leaf before, in the page `above`; None for the first leaf."""

    above: int
    key: bytes | None
    page: bytes


class _Trees:
    """The trees of a file, in which `lmdb.verify` has found nothing wrong."""

    def __init__(self, data: BinaryIO, meta: Meta) -> None:
        self._data = data
        self._meta = meta
        self._visited: set[int] = set()

    def iter_problems(self) -> Iterator[str]:
        """A line for each."""
        meta = self._meta
        yield from self._iter_tree_problems("the list of free pages", meta.free_root, 0, in_order=_by_number)
        yield from self._iter_tree_problems("the list of tables", meta.main_root, meta.main_flags)
        self._visited.clear()
        for name, flags, root in list(self._iter_tables()):
            yield from self._iter_tree_problems(f"table {printable(name.decode(errors='replace'))}", root, flags)

    def _iter_tables(self) -> Iterator[tuple[bytes, int, int]]:
        """Names of tables, their flags, and their roots."""
        for leaf in self._iter_leaves(self._meta.main_root):
            for place in node_places(leaf.page):
                length, _high, node_flags, key_bytes = NODE.unpack_from(leaf.page, place)
                if node_flags != IS_DATABASE or length != DATABASE.size:
                    message = "the list of tables holds something that is no table"
                    raise CorruptionError(message)
                _nothing, flags, *_, root = DATABASE.unpack_from(leaf.page, place + NODE.size + key_bytes)
                yield node_key(leaf.page, place), flags, root

    def _iter_tree_problems(self, what: str, root: int, flags: int, in_order: Callable[[bytes], bytes] = bytes) -> Iterator[str]:
        """What is wrong with one tree. `in_order` gives keys that compare as its keys do.

        Exactly one key parts two leaves next to each other: it is greater than all before it, and not greater than the first after it.
        """
        if flags:
            yield f"{what}: it has flags that no table of ours has"
        last = b""
        for leaf in self._iter_leaves(root):
            places = packed_places(leaf.page)
            if not places:
                yield f"{what}: rows of leaf page {PAGE.unpack_from(leaf.page)[0]} do not lie as LMDB puts them"
                continue
            if leaf.key is not None and not last < in_order(leaf.key) <= in_order(node_key(leaf.page, places[0])):
                yield f"{what}: a key in branch page {leaf.above} leads past rows that are there"
            last = in_order(node_key(leaf.page, places[-1]))

    def _iter_leaves(self, root: int) -> Iterator[_Leaf]:
        """The leaf pages of a tree, in order. What parts two is a key in the page where the ways to them part.

        Raises:
            CorruptionError: pages lead anywhere; somebody else has changed them since `lmdb.verify` looked.
        """
        waiting: list[tuple[int, int, bytes | None]] = [] if root == NO_PAGE else [(root, 0, None)]
        while waiting:
            number, above, key = waiting.pop()
            if number > self._meta.last_page or number in self._visited:
                message = f"page {number} is twice in a tree, or beyond the last"
                raise CorruptionError(message)
            self._visited.add(number)
            page = os.pread(self._data.fileno(), self._meta.page_bytes, number * self._meta.page_bytes)
            if not PAGE.unpack_from(page)[2] & IS_BRANCH:
                yield _Leaf(above, key, page)
                continue
            places = packed_places(page)
            if not places:
                message = f"keys of branch page {number} do not lie as LMDB puts them"
                raise CorruptionError(message)
            below: list[tuple[int, int, bytes | None]] = [(page_below(page, at), number, node_key(page, at)) for at in places]
            below[0] = below[0][0], above, key
            waiting += reversed(below)


def _by_number(key: bytes) -> bytes:
    """A number as LMDB has it, the least byte first, as a key that is ordered as numbers are."""
    return key[::-1]


# --- the child ----------------------------------------------------------------------------------------------------------


def main(path: Path) -> None:
    """Say "done", and a line for each problem."""
    try:
        environment = open_mapped(path, max(MAP_BYTES, 4 * (path / DATA_FILE).stat().st_size), readonly=True, create=False)
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))

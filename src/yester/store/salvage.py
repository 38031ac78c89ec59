# SPDX-License-Identifier: MIT
"""Reading a damaged data file by its bytes alone: every row that can still be found, whatever has become of the pages around it.

Never hands the file to LMDB, which may crash on it. Rows of an encrypted store come as they are stored, sealed. Rows come from two places:

1. The trees of the newest usable meta page, walked from their roots. A page that is not what the walk expects is left out, with all that
   only it leads to, and the walk goes on beside it. Of one whose nodes do not lie as LMDB puts them the rows are taken, and not relied on;
   a header, or a place of a node, that was hit is made again from the nodes.
   Two meta pages may be usable; where the newer one leads to nothing, the older is tried.
2. Where the walk of a table met damage, the rest of the file, page by page: leaf pages that no walk came by, and runs of pages that begin
   as a segment does. Pages that nothing uses any more hold rows as they were some time ago: they are left out, if the list of them is
   sound; else the caller must judge what comes from there.

Bytes are hostile: every number is compared with the file before it is followed, every page is read once, and no value is larger than
`VALUE_BYTES_MAX`. Memory: a byte for each page.

How pages are laid out: `store.pages`.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from yester.errors import StoreAccessError
from yester.store.datafile import DATA_FILE
from yester.store.pages import (
    DATABASE,
    IS_BIG,
    IS_BRANCH,
    IS_DATABASE,
    IS_LEAF,
    IS_OVERFLOW,
    META_MAGIC,
    NO_PAGE,
    NODE,
    NUMBER,
    PAGE,
    mended,
    node_places,
    packed_places,
)
from yester.store.segments import HEADER_BYTES, begins_as_segment, segment_length

if TYPE_CHECKING:
    from yester.store.keys import StoreKey

PAGE_BYTES = 4096
"""What LMDB takes on all machines that we know of; believed where both meta pages are unreadable."""
VALUE_BYTES_MAX = 64 << 20
"""No value of ours is larger: a segment has at most 8 MiB and a little, a batch of a live folder some MiB."""
_RUN_PARTS_MIN = 2
"""Of the number, the flag and the length of a run of pages: one may have been hit."""
_DEPTH_MAX = 32
"""LMDB's own limit."""

_META = struct.Struct("<16xII8xQ")
_META_DATABASES_AT = 40
_META_END = struct.Struct("<QQ")
_META_END_AT = _META_DATABASES_AT + 2 * 48


class Row(NamedTuple):
    """A key and its value. `page` is where it was found."""

    key: bytes
    value: bytes
    page: int


@dataclass(slots=True)
class WalkedTable:
    """How the walk of a table went: how many rows it should have, and whether pages of it, or values, were not what they should be."""

    name: bytes
    root: int
    entries: int
    is_damaged: bool = False
    rows: int = 0


class _Node(NamedTuple):
    """A node of a page: where its key begins, of how many bytes; `low` is the length of a value, or the number of a page below."""

    key: bytes
    low: int
    flags: int
    value_at: int


class _RunHeader(NamedTuple):
    """What a run of pages begins with."""

    number: int
    flags: int
    pages: int


@dataclass(slots=True)
class _Meta:
    free_entries: int
    free_root: int
    main_root: int
    transaction: int


class DataFile:
    """A data file that is read by its bytes. A context manager. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open the data file of the store `path`.

        Raises:
            StoreAccessError: the operating system refuses.
        """
        self._path = path / DATA_FILE
        try:
            self._file: BinaryIO = self._path.open("rb")
        except OSError as error:
            message = f"cannot read {self._path}: {error.strerror}"
            raise StoreAccessError(message) from error
        self._size = os.fstat(self._file.fileno()).st_size
        self.page_bytes = PAGE_BYTES
        self._metas = self._read_metas()
        self._pages = -(-self._size // self.page_bytes)
        self._is_used = bytearray(self._pages)
        self.tables: dict[bytes, WalkedTable] = {}
        """What the main tree names. Tables that it does not name are damaged ones, for all that is known."""
        self.knows_free_pages = False
        """Whether stray rows are of pages in use only: told once one was asked for. Else they may be old."""
        self._has_left_out = False
        self.unreadable_bytes = 0
        """What the disk did not give."""
        self._find_tables()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def walk(self, name: bytes) -> Iterator[Row]:
        """The rows of a table that its tree leads to, in the order of the tree; each page is visited once.

        Afterwards `tables` says whether all of it could be read. A table that is not in `tables` has no rows.
        """
        table = self.tables.get(name)
        if table is None:
            return
        for row in self._walk_tree(table):
            table.rows += 1
            yield row
        table.is_damaged |= table.rows != table.entries

    def read_run(self, name: bytes, key: bytes) -> bytes:
        """All bytes of the pages that the value of a row has for its own, whatever the row says of its length; none if it has no pages.

        Walks the table. Not for walks to come: the pages count as visited.
        """
        table = self.tables.get(name)
        for page, node in self._walk_nodes(table) if table is not None else ():
            if node.key == key and node.flags & IS_BIG and node.value_at + NUMBER.size <= self.page_bytes:
                [first] = NUMBER.unpack_from(page, node.value_at)
                length = self._run_header(first).pages * self.page_bytes - PAGE.size if 2 <= first < self._pages else 0
                return self._read(first * self.page_bytes + PAGE.size, length) if 0 < length <= VALUE_BYTES_MAX else b""
        return b""

    def iter_stray_rows(self) -> Iterator[Row]:
        """The rows of leaf pages, of whatever table, that no walk came by, but for segments of several pages. Ask after all walks."""
        self._leave_out_free_pages()
        for number in range(2, self._pages):
            if self._is_used[number]:
                continue
            page = self._read_page(number)
            nodes = self._nodes(page, number, IS_LEAF)
            for node in nodes or ():
                value = None if node.flags & IS_DATABASE else self._value(page, node, is_stray=True)
                if value is not None:
                    yield Row(node.key, value, number)

    def iter_stray_segments(self, key: "StoreKey | None") -> Iterator[bytes]:
        """Segments of a store with this key that begin a page and that no walk came by, with the length that they state."""
        self._leave_out_free_pages()
        for number in range(2, self._pages):
            at = number * self.page_bytes + PAGE.size
            length = 0 if self._is_used[number] else segment_length(partial(self._read, at), key)
            if 0 < length <= VALUE_BYTES_MAX and at + length <= self._size:
                yield self._read(at, length)

    # The meta pages and the main tree.

    def _read_metas(self) -> list[_Meta]:
        """What the meta pages say, the newer first; fewer than two where one is damaged."""
        sizes = [size for at in (0, *(1 << shift for shift in range(9, 17))) if (size := self._page_bytes_at(at))]
        if sizes:
            self.page_bytes = max(set(sizes), key=sizes.count)
        metas = [meta for number in (0, 1) if (meta := self._read_meta(number)) is not None]
        return sorted(metas, key=lambda meta: meta.transaction, reverse=True)

    def _page_bytes_at(self, at: int) -> int:
        """The size of pages that a meta page there states; 0 if there is none."""
        found = self._read(at, _META_DATABASES_AT + 4)
        if len(found) < _META_DATABASES_AT + 4 or _META.unpack_from(found)[0] != META_MAGIC:
            return 0
        size = int.from_bytes(found[_META_DATABASES_AT:], "little")
        return size if 512 <= size <= 65536 and not size & (size - 1) else 0

    def _read_meta(self, number: int) -> _Meta | None:
        page = self._read(number * self.page_bytes, self.page_bytes)
        if len(page) < _META_END_AT + _META_END.size or _META.unpack_from(page)[0] != META_MAGIC:
            return None
        *_, free_entries, free_root = DATABASE.unpack_from(page, _META_DATABASES_AT)
        main_root = DATABASE.unpack_from(page, _META_DATABASES_AT + DATABASE.size)[-1]
        _last_page, transaction = _META_END.unpack_from(page, _META_END_AT)
        return _Meta(free_entries, free_root, main_root, transaction)

    def _find_tables(self) -> None:
        """Read the main tree of the meta page that leads to more tables; of the newer one if that is equal."""
        best: tuple[dict[bytes, WalkedTable], bytearray] = {}, self._is_used
        self._free = WalkedTable(b"", NO_PAGE, 0, is_damaged=True)
        for meta in self._metas:
            self._is_used = bytearray(self._pages)
            tables = {}
            main = WalkedTable(b"", meta.main_root, -1)
            for row in self._walk_tree(main, wants_databases=True):
                if len(row.value) == DATABASE.size:
                    *_, entries, root = DATABASE.unpack(row.value)
                    tables[row.key] = WalkedTable(row.key, root, entries)
            if len(tables) > len(best[0]) or meta is self._metas[0]:
                best = tables, self._is_used
                self._free = WalkedTable(b"", meta.free_root, meta.free_entries)
        self.tables, self._is_used = best

    def _leave_out_free_pages(self) -> None:
        """Count the pages that nothing uses as used: rows there are old ones. Not where their list cannot be read as a whole."""
        if self._has_left_out:
            return
        self._has_left_out = True
        free = self._free
        numbers: set[int] = set()
        for row in self._walk_tree(free):
            free.rows += 1
            count = min(int.from_bytes(row.value[: NUMBER.size], "little"), len(row.value) // NUMBER.size - 1)
            numbers.update(struct.unpack_from(f"<{max(0, count)}Q", row.value, NUMBER.size))
        self.knows_free_pages = not free.is_damaged and free.rows == free.entries
        if self.knows_free_pages:
            for number in numbers:
                if number < self._pages:
                    self._is_used[number] = 1

    # Trees.

    def _walk_tree(self, table: WalkedTable, *, wants_databases: bool = False) -> Iterator[Row]:
        """The rows below a root, as far as they can be read; notes with the table if that is not all."""
        for page, node in self._walk_nodes(table):
            value = self._value(page, node) if bool(node.flags & IS_DATABASE) is wants_databases else None
            if value is None:
                table.is_damaged = True
            else:
                yield Row(node.key, value, PAGE.unpack_from(page)[0])

    def _walk_nodes(self, table: WalkedTable) -> Iterator[tuple[bytes, _Node]]:
        """The nodes of the leaf pages below a root, each with its page."""
        if table.root == NO_PAGE:
            return  # an empty tree has no root
        waiting = [(table.root, 1)]
        while waiting:
            number, depth = waiting.pop()
            if depth > _DEPTH_MAX or not 2 <= number < self._pages or self._is_used[number]:
                table.is_damaged = True
                continue
            page = self._read_page(number)
            if not self._is_sound(page, number):
                table.is_damaged = True
                page = (mended(page, number) if len(page) == self.page_bytes else None) or page
            branches = self._nodes(page, number, IS_BRANCH)
            if branches is not None:
                self._is_used[number] = 1
                waiting += [(node.low | node.flags << 32, depth + 1) for node in reversed(branches)]
                continue
            leaves = self._nodes(page, number, IS_LEAF)
            if leaves is None:
                table.is_damaged = True
                continue
            self._is_used[number] = 1
            for node in leaves:
                yield page, node

    def _is_sound(self, page: bytes, number: int) -> bool:
        """Whether a page is what it should be, for all that it says."""
        if len(page) < self.page_bytes or packed_places(page) is None:
            return False
        return PAGE.unpack_from(page)[:3:2] in {(number, IS_BRANCH), (number, IS_LEAF)}

    def _nodes(self, page: bytes, number: int, kind: int) -> list[_Node] | None:
        """The nodes of a page; None if it is not a page of this kind and number. A node that cannot be is left out."""
        if len(page) < self.page_bytes:
            return None
        stated, _pad, flags, lower, upper = PAGE.unpack_from(page)
        if stated != number or flags & 0x7F & ~0x10 != kind or not PAGE.size <= lower <= upper <= self.page_bytes or lower & 1:
            return None
        nodes = []
        for at in node_places(page):
            if not lower <= at <= self.page_bytes - NODE.size:
                continue
            low, high, node_flags, key_bytes = NODE.unpack_from(page, at)
            value_at = at + NODE.size + key_bytes
            if value_at <= self.page_bytes:
                nodes.append(_Node(page[at + NODE.size : value_at], low | high << 16, node_flags, value_at))
        return nodes

    def _value(self, page: bytes, node: _Node, *, is_stray: bool = False) -> bytes | None:
        """The value of a leaf's node; None if it is not where it should be."""
        if not node.flags & IS_BIG:
            end = node.value_at + node.low
            return page[node.value_at : end] if end <= self.page_bytes else None
        return self._big_value(page, node, is_stray=is_stray)

    def _big_value(self, page: bytes, node: _Node, *, is_stray: bool) -> bytes | None:
        """One that has pages of its own. Of what says where these are and how many, one part may have been hit."""
        if node.low > VALUE_BYTES_MAX or node.value_at + NUMBER.size > self.page_bytes:
            return None
        [first] = NUMBER.unpack_from(page, node.value_at)
        count = -(-(PAGE.size + node.low) // self.page_bytes)
        if not 2 <= first <= self._pages - count or any(self._is_used[first : first + count]):
            return None
        header = self._run_header(first)
        if (header.number == first) + bool(header.flags & IS_OVERFLOW) + (header.pages == count) < _RUN_PARTS_MIN:
            return None
        start = first * self.page_bytes + PAGE.size
        if (is_stray or header.pages != count) and begins_as_segment(self._read(start, HEADER_BYTES)):
            return None  # see `iter_stray_segments`: it says itself how long it is
        value = self._read(start, node.low)
        if len(value) < node.low:
            return None
        if not is_stray:
            count = min(count, header.pages or 1)  # if one of the two was hit, the other is right
            self._is_used[first : first + count] = b"\1" * count
        return value

    def _run_header(self, first: int) -> "_RunHeader":
        """What the first page of a run of pages, which is in the file, says of it."""
        number, _nothing, flags, low, high = PAGE.unpack(self._read(first * self.page_bytes, PAGE.size).ljust(PAGE.size, b"\0"))
        return _RunHeader(number, flags, low | high << 16)

    # Bytes.

    def _read_page(self, number: int) -> bytes:
        return self._read(number * self.page_bytes, self.page_bytes)

    def _read(self, offset: int, count: int) -> bytes:
        """The bytes there; fewer beyond the end of the file, and zeros where the disk gives none."""
        try:
            return os.pread(self._file.fileno(), count, offset)
        except OSError:
            found = bytearray()
            for at in range(offset, min(offset + count, self._size), PAGE_BYTES):
                length = min(PAGE_BYTES, offset + count - at)
                try:
                    found += os.pread(self._file.fileno(), length, at)
                except OSError:
                    found += bytes(length)
                    self.unreadable_bytes += length
            return bytes(found)

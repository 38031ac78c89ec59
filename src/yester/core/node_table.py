# SPDX-License-Identifier: MIT
"""Node tables: what a live folder knows of the entries of a tree besides what the tree says (docs/format.md §10.1, docs/adr/0007).

A tree is the same whoever made it, and is shared by all snapshots that look alike. What only a live folder has, the number and
the id of each node and when it was last changed, lies in a table of its own beside the tree, in the order of its entries.

What comes from a store is hostile: `decode_table` raises for what cannot be the table of the tree it is read with.
"""

import stat
from collections.abc import Sequence
from typing import NamedTuple, overload

import msgspec

from yester.core.ids import ID_BYTES, ChunkId
from yester.core.records import RECORD_VERSION, SIZE_MAX, Entry, Totals, Tree, listed_xattr_names
from yester.errors import CorruptionError, FormatError

TABLE_MAGIC = b"N"
NODE_ID_BYTES = 16
NUMBER_MAX = 2**62 - 1
"""Inode numbers above are those of old versions (`fs.live_driver`)."""


class FolderMark(msgspec.Struct, frozen=True, array_like=True):
    """A folder in a table: its own table, how many folders are right in it, and sums over all below it."""

    table: bytes
    subfolders: int
    totals: Totals
    xattr_names: tuple[bytes, ...] = ()
    """As in `Snapshot`."""


class FolderSums:
    """Adds up what a folder's mark says, entry by entry."""

    def __init__(self) -> None:
        self._subfolders = self._files = self._directories = self._others = self._size_bytes = 0
        self._xattr_names: set[bytes] = set()

    def add(self, entry: Entry, folder: FolderMark | None, *, counts_bytes: bool) -> None:
        """Add an entry, with its mark if it is a folder. `counts_bytes` is false where a file is counted under another of its names."""
        self._xattr_names.update(name for name, _ in entry.rare.xattrs)
        if folder is not None:
            below = folder.totals
            self._subfolders += 1
            self._directories += below.directories + 1
            self._files += below.files
            self._others += below.others
            self._size_bytes += below.size_bytes
            self._xattr_names.update(folder.xattr_names)
        elif stat.S_ISREG(entry.mode):
            self._files += 1
            self._size_bytes += entry.size if counts_bytes else 0
        else:
            self._others += 1

    def mark(self, table: bytes) -> FolderMark:
        """The mark of a folder of all that was added, with this table."""
        # Sparse files may have any size: a sum of them need not be one that can be stored.
        totals = Totals(self._files, self._directories, self._others, min(self._size_bytes, SIZE_MAX))
        return FolderMark(table, self._subfolders, totals, listed_xattr_names(self._xattr_names))


class NodeMark(NamedTuple):
    """What a table says of one entry. `folder` is None for what is none."""

    number: int
    node_id: bytes
    ctime_ns: int
    folder: FolderMark | None


class NodeTable(msgspec.Struct, frozen=True, array_like=True):
    """The table of one tree: columns in the order of its entries; `folders` has one for each entry that is a folder."""

    version: int
    numbers: tuple[int, ...]
    node_ids: bytes
    ctimes_ns: tuple[int, ...]
    folders: tuple[FolderMark, ...]


class NodeMarks(Sequence[NodeMark]):
    """The marks of a table, one for each entry of its tree. Made when they are asked for: a table of 100,000 takes 10 MB, as marks 25."""

    def __init__(self, table: NodeTable, folders: dict[int, FolderMark]) -> None:
        """`folders` are those of the table by the index of their entries."""
        self._table = table
        self._folders = folders

    def __len__(self) -> int:
        return len(self._table.numbers)

    @overload
    def __getitem__(self, index: int) -> NodeMark: ...
    @overload
    def __getitem__(self, index: slice) -> list[NodeMark]: ...
    def __getitem__(self, index: int | slice) -> NodeMark | list[NodeMark]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        table = self._table
        node_id = table.node_ids[index * NODE_ID_BYTES : (index + 1) * NODE_ID_BYTES]
        return NodeMark(table.numbers[index], node_id, table.ctimes_ns[index], self._folders.get(index))


NO_MARKS = NodeMarks(NodeTable(RECORD_VERSION, (), b"", (), ()), {})

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(NodeTable)


def encode_table(marks: Sequence[NodeMark]) -> bytes:
    """The stored table of these marks."""
    table = NodeTable(
        RECORD_VERSION,
        tuple(mark.number for mark in marks),
        b"".join(mark.node_id for mark in marks),
        tuple(mark.ctime_ns for mark in marks),
        tuple(mark.folder for mark in marks if mark.folder is not None),
    )
    return TABLE_MAGIC + _encoder.encode(table)


def tables_below(record: bytes | memoryview) -> list[ChunkId]:
    """The ids of the tables that a stored table names: those of the folders in its tree, in order.

    Raises:
        CorruptionError: not a table. FormatError: made by a newer release.
    """
    return [ChunkId(mark.table) for mark in _decode(record).folders]


def decode_table(record: bytes | memoryview, tree: Tree) -> NodeMarks:
    """The marks of a stored table, one for each entry of the tree it belongs to. 0.5 ms for 1000.

    Raises:
        CorruptionError: not a table, or not that of this tree. FormatError: made by a newer release.
    """
    table = _decode(record)
    count = len(tree.entries)
    folders = [index for index, entry in enumerate(tree.entries) if stat.S_ISDIR(entry.mode)]
    is_whole = len(table.numbers) == len(table.ctimes_ns) == count and len(table.node_ids) == NODE_ID_BYTES * count
    # Two names of one file stand for one node, so a number may stand twice.
    is_sound = all(1 < number <= NUMBER_MAX for number in table.numbers)
    if not is_whole or not is_sound or len(table.folders) != len(folders):
        message = "a node table does not belong to the folder it is read with"
        raise CorruptionError(message)
    return NodeMarks(table, dict(zip(folders, table.folders, strict=True)))


def _decode(record: bytes | memoryview) -> NodeTable:
    if record[:1] != TABLE_MAGIC:
        message = "a chunk that should hold a node table does not"
        raise CorruptionError(message)
    try:
        table = _decoder.decode(record[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"a node table is damaged: {error}"
        raise CorruptionError(message) from error
    if table.version > RECORD_VERSION:
        message = f"a node table has version {table.version}; this release reads up to {RECORD_VERSION}"
        raise FormatError(message, hint="use a newer yester with this store")
    if any(len(mark.table) != ID_BYTES for mark in table.folders):
        message = "a node table names a table that cannot be"
        raise CorruptionError(message)
    return table

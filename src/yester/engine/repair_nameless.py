# SPDX-License-Identifier: MIT
"""Keeping what nothing names any more, after records of snapshots were lost: a part of `engine.repair`.

Where the record of a snapshot is gone, its folders and files are all there, and the next prune would take them for garbage. So the topmost
folders that no snapshot, no forgotten one and no live folder leads to are put into a snapshot of the source `recovered`, each
under its id, and that is pinned: it stays until somebody has looked at it. Folders that an interrupted backup has left are among them.

Not told: which source or time a folder was of. A tree does not say it.

Reads trees, and no file data: what cannot be read, or is not there, leads nowhere, and its folders are topmost themselves.
Needs a chunk index that leads to all trees. Nothing may remove chunks meanwhile.
"""

import stat
from collections.abc import Iterable, Iterator

from yester.core.chunking import ChunkParams
from yester.core.content import LIST_MAGIC, SPAN_BYTES, Content, read_list, unpack_spans
from yester.core.ids import ID_BYTES, ChunkId, TreeId
from yester.core.node_row import decode_row
from yester.core.records import (
    ANY_XATTR,
    RECORD_VERSION,
    TREE_MAGIC,
    Entry,
    Pin,
    Snapshot,
    Totals,
    Tree,
    decode_forgotten,
    decode_snapshot,
    decode_tree,
    encode_pin,
)
from yester.engine.backup import PROGRAM
from yester.engine.places import Places, SegmentReader
from yester.engine.trees import read_tree_record, store_tree
from yester.errors import CorruptionError, FormatError
from yester.store.chunks import ChunkWriter, unpack_location
from yester.store.lmdb import TOUCHED_BYTES, Environment, ReadTransaction, Table, WriteTransaction
from yester.store.segments import Kind, parse_header
from yester.store.snapshots import StoredSnapshot, put_snapshot

RECOVERED_SOURCE = "recovered"
_NAME_DIGITS = 16
_REACHED = 1
"""Something leads to the tree at this place."""


def find_nameless(view: ReadTransaction, environment: Environment) -> list[TreeId]:
    """The topmost folders that nothing leads to and that hold something, by id. Reads every tree once."""
    return _Search(view, environment).run()


def keep_nameless(environment: Environment, params: ChunkParams, *, now_ns: int) -> tuple[StoredSnapshot, int] | None:
    """Put them into a snapshot that is pinned; durable on return. The snapshot and how many they are, or None: there are none.

    Safe to do twice: what is in the snapshot has a name.
    """
    with environment.read() as view:
        trees = find_nameless(view, environment)
    if not trees:
        return None
    folder = stat.S_IFDIR | 0o700
    entries = [Entry(tree.hex()[:_NAME_DIGITS].encode(), folder, 0, 0, now_ns, now_ns, 0, 0, tree) for tree in trees]
    by_name = {entry.name: entry for entry in entries}  # two ids that begin alike are not to be expected: the next repair finds the other
    tree = Tree(RECORD_VERSION, {}, {}, tuple(by_name[name] for name in sorted(by_name)))
    with ChunkWriter(environment) as writer:
        root = store_tree(tree, params, lambda record: writer.add(Kind.TREE, record))
    snapshot = Snapshot(
        RECORD_VERSION,
        RECOVERED_SOURCE,
        "",
        now_ns,
        now_ns,
        Entry(b"", folder, 0, 0, now_ns, now_ns, 0, 0, root),
        totals=Totals(directories=len(by_name)),
        xattr_names=(ANY_XATTR,),
        message="folders that no snapshot named",
        program=PROGRAM,
    )

    def publish(transaction: WriteTransaction) -> StoredSnapshot:
        stored = put_snapshot(transaction, snapshot)
        pin = Pin(RECORD_VERSION, now_ns, "found by a repair: see what it is before you let it go")
        transaction.put(Table.PINS, stored.id, encode_pin(pin))
        return stored

    return environment.write(publish), len(by_name)


class _Search:
    """One search, in one view."""

    def __init__(self, view: ReadTransaction, environment: Environment) -> None:
        self._view = view
        self._environment = environment
        self._reader = SegmentReader(environment)
        self._places = Places()
        self._tops: set[TreeId] = set()
        self._parts: set[ChunkId] = set()
        """What the record was made of that was read last."""

    def run(self) -> list[TreeId]:
        self._find_places()
        for root in self._roots():
            self._reach([root])
        for _, tree in sorted(self._unreached()):
            entries = self._entries(tree)
            if entries and not self._places.bits[self._place(tree)] & _REACHED:
                self._tops.add(tree)
            self._reach(_folders(entries))
        return sorted(self._tops)

    def read(self, chunk: ChunkId) -> memoryview:
        """See `ChunkSource`."""
        index = self._view.get(Table.CHUNKS, chunk)
        if index is None:
            message = f"chunk {chunk.hex()} is not in the store"
            raise CorruptionError(message)
        self._parts.add(chunk)
        return self._reader.read(self._view, chunk, unpack_location(index))

    def _find_places(self) -> None:
        """The places of trees: those in other segments are -1."""
        for key, stored in self._view.iterate(Table.SEGMENTS):
            try:
                header = parse_header(stored, self._environment.key)
            except (CorruptionError, FormatError):
                continue
            if header.kind is Kind.TREE:
                self._places.add_segment(int.from_bytes(key, "big"), header.bounds)
            self._environment.release_pages(TOUCHED_BYTES)

    def _place(self, chunk: ChunkId) -> int:
        index = self._view.get_stored(Table.CHUNKS, chunk)
        return self._places.find_stored(index) if index is not None else -1

    def _roots(self) -> Iterator[TreeId]:
        """Where all that can be read of records begins. What a damaged one says is what is looked for."""
        for _, record in self._view.iterate(Table.SNAPSHOTS):
            yield from _root(bytes(record))
        for _, value in self._view.iterate(Table.FORGOTTEN) if self._view.has_table(Table.FORGOTTEN) else ():
            try:
                yield from _root(decode_forgotten(value).record)
            except (CorruptionError, FormatError):
                continue
        for key, value in self._view.iterate(Table.LIVE_NODES) if self._view.has_table(Table.LIVE_NODES) else ():
            try:
                base = decode_row(int.from_bytes(key[4:], "big"), bytes(value)).folder_base
            except (CorruptionError, FormatError):
                continue
            if base is not None:
                yield base[0]

    def _unreached(self) -> Iterator[tuple[int, TreeId]]:
        """Chunks of tree segments that may be such folders, each with its place: in that order they are read fast."""
        for key, index in self._view.iterate_stored(Table.CHUNKS):
            at = self._places.find_stored(index)
            if at >= 0 and not self._places.bits[at] & _REACHED:
                yield at, TreeId(ChunkId(bytes(key)))

    def _reach(self, trees: Iterable[TreeId]) -> None:
        """Note that something leads to these, and so to all below them. None of them is topmost then."""
        waiting = list(trees)
        while waiting:
            tree = waiting.pop()
            self._tops.discard(tree)
            at = self._place(tree)
            if at >= 0 and not self._places.bits[at] & _REACHED:
                self._places.bits[at] |= _REACHED
                waiting += _folders(self._entries(tree))

    def _entries(self, tree: TreeId) -> tuple[Entry, ...]:
        """What a tree holds; nothing for what is none or cannot be read."""
        try:
            data = self.read(tree)
            if data[:1] != TREE_MAGIC and not (data[:1] == LIST_MAGIC and self._begins_in_trees(bytes(data))):
                return ()
            self._parts.clear()
            entries = decode_tree(read_tree_record(self, tree)).entries
        except (CorruptionError, FormatError):
            return ()
        for part in self._parts - {tree}:  # a list that all of a record hangs on would be taken for that folder once more
            self._tops.discard(TreeId(part))
            if (at := self._place(part)) >= 0:
                self._places.bits[at] |= _REACHED
        return entries

    def _begins_in_trees(self, data: bytes) -> bool:
        """Whether what a span list names begins in a segment of trees: it is a folder's then, and not a file's, which may be large."""
        content = Content(data[1] if len(data) > 1 else 0, data[2:])
        while content.level and len(content.spans) >= SPAN_BYTES:
            content = read_list(unpack_spans(content.spans[:SPAN_BYTES])[0], content.level, self.read)
        return self._place(ChunkId(content.spans[:ID_BYTES])) >= 0


def _root(record: bytes) -> list[TreeId]:
    try:
        return [decode_snapshot(record).root.tree]
    except (CorruptionError, FormatError):
        return []


def _folders(entries: Iterable[Entry]) -> list[TreeId]:
    return [entry.tree for entry in entries if stat.S_ISDIR(entry.mode) and len(entry.content) == ID_BYTES]

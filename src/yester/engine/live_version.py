# SPDX-License-Identifier: MIT
"""Storing a version of a live folder: from what changed since the last one to trees, node tables and a snapshot (docs/adr/0007).

A *cut* is the folder as it was between two operations, as far as it differs from its base: the changed nodes and the folders
above them. `store_version` stores those, children before parents, and takes everything else over from the base. It costs what
changed, and the entries of the folders above.

Runs on any thread: a cut does not change. Nothing here is published; whoever publishes puts the snapshot and the new base into
one transaction with the rows that are not needed any more.
"""

import os
import socket
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from yester.core.chunking import Chunker
from yester.core.content import Content
from yester.core.extents import Extent
from yester.core.ids import ChunkId
from yester.core.node_row import ROOT_NUMBER
from yester.core.node_table import FolderMark, FolderSums, NodeMark, encode_table
from yester.core.records import RECORD_VERSION, Added, Entry, Extra, LiveRoot, Snapshot, Totals, listed_xattr_names
from yester.engine.backup import PROGRAM
from yester.engine.live_base import EMPTY_FOLDER, BaseFolder, BaseReader, FolderBase
from yester.engine.live_content import FileCut, FileStorer, StoredFile
from yester.engine.owners import OwnerNames
from yester.engine.trees import store_record, store_tree
from yester.errors import SweptError
from yester.store.chunks import ChunkWriter
from yester.store.damage import count_damaged
from yester.store.live import REMOVED
from yester.store.segments import Kind
from yester.store.store import Store


@dataclass(frozen=True, slots=True)
class CutNode:
    """A node as it was."""

    number: int
    node_id: bytes
    mode: int
    uid: int
    gid: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    links: tuple[tuple[int, bytes], ...]
    xattrs: tuple[tuple[bytes, bytes], ...]
    target: bytes = b""
    file: FileCut | None = None
    """Of a regular file."""
    base: FolderBase | None = None
    """Of a folder that was in the last version."""
    names: Mapping[bytes, int] = field(default_factory=dict)
    """Of a folder: what was added to its base or removed from it."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What differed from the base at an instant, by node number; the folders above every changed node are among it."""

    nodes: Mapping[int, CutNode]
    next_node: int
    last_batch: int
    """Extents are in batches up to this one."""
    folders: Mapping[FolderBase, BaseFolder] = field(default_factory=dict)
    """Bases that are decoded already: they need not be in memory twice."""
    first_links: Mapping[int, tuple[int, bytes]] = field(default_factory=dict)
    """Of every file with several names, changed or not: the one under which its bytes are counted."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """What a cut was stored as: the new base of each of its nodes."""

    root: Entry
    live: LiveRoot
    totals: Totals
    xattr_names: tuple[bytes, ...]
    files: Mapping[int, StoredFile]
    folders: Mapping[int, FolderBase]
    added: Added


def store_version(store: Store, cut: Cut, read_extent: Callable[[Extent], bytes]) -> StoredVersion:
    """Store a cut; all of it is committed on return, and nothing refers to it yet. The caller holds `Store.adding` until something does.

    `read_extent` gives the bytes of what is committed. It is called on this thread.

    Raises:
        CorruptionError: the base cannot be read. StoreFullError, StoreAccessError: nothing was lost.
    """
    while True:
        try:
            with store.writer() as writer:
                return _VersionStorer(store, cut, writer, read_extent).store()
        except SweptError:
            continue  # a prune sweeps a few times, and only what was of use to nobody: this is rare, and does not go on


class _VersionStorer:
    """One run over a cut."""

    def __init__(self, store: Store, cut: Cut, writer: ChunkWriter, read_extent: Callable[[Extent], bytes]) -> None:
        self._cut = cut
        self._writer = writer
        self._params = store.chunking
        self._store = store
        chunks = store.reader()
        self._base = BaseReader(chunks, cache_entries=0)  # each folder is read once
        self._owners = OwnerNames()
        self._files = FileStorer(
            Chunker(self._params),
            load=chunks.read,
            read_base=self._base.read,
            read_extent=read_extent,
            store_data=lambda data: writer.add(Kind.DATA, data),
            store_list=lambda data: writer.add(Kind.TREE, data),
            is_lost=self._is_lost if count_damaged(store.environment) else lambda _chunk: False,
        )
        self._entries: dict[int, tuple[Entry, FolderMark | None]] = {}
        """Of what is stored already. Entries have no name yet: a file may have several."""
        self._contents: dict[int, StoredFile] = {}
        self._folders: dict[int, FolderBase] = {}

    def _is_lost(self, chunk: ChunkId) -> bool:
        return not self._store.has_chunk(chunk)

    def store(self) -> StoredVersion:
        for node in self._children_first():
            if stat.S_ISDIR(node.mode):
                self._store_folder(node)
            else:
                self._store_file(node)
        root, mark = self._entries[ROOT_NUMBER]
        assert mark is not None
        self._writer.flush()
        counts = self._writer.counts
        node = self._cut.nodes[ROOT_NUMBER]
        live = LiveRoot(mark.table, mark.subfolders, node.node_id, node.ctime_ns, self._cut.next_node)
        added = Added(chunk_bytes=counts.raw_bytes, stored_bytes=counts.stored_bytes)
        names = listed_xattr_names({*mark.xattr_names, *(name for name, _ in node.xattrs)})
        return StoredVersion(root, live, mark.totals, names, self._contents, self._folders, added)

    def _children_first(self) -> list[CutNode]:
        """The nodes of the cut, files and then folders from the deepest up; files in the order of their folders and names."""
        depths = {ROOT_NUMBER: 0}

        def depth(number: int) -> int:
            way = []
            while number not in depths:
                way.append(number)
                number = self._cut.nodes[number].links[0][0]
            for step, passed in enumerate(reversed(way), start=1):
                depths[passed] = depths[number] + step
            return depths[way[0]] if way else depths[number]

        folders = [node for node in self._cut.nodes.values() if stat.S_ISDIR(node.mode)]
        files = [node for node in self._cut.nodes.values() if not stat.S_ISDIR(node.mode)]
        # Neighbours in a folder become neighbours in a segment, which is what makes reading a folder quick.
        files.sort(key=lambda node: node.links[0])
        folders.sort(key=lambda node: depth(node.number), reverse=True)
        return files + folders

    def _store_file(self, node: CutNode) -> None:
        content, size, hole_bytes = Content(0, node.target), len(node.target), 0
        if node.file is not None:
            content, hole_bytes = self._contents[node.number] = self._files.store(node.file)
            size = node.file.size
        self._entries[node.number] = _entry(node, content, size, hole_bytes), None

    def _store_folder(self, node: CutNode) -> None:
        entries: list[Entry] = []
        marks: list[NodeMark] = []
        sums = FolderSums()
        for entry, mark in self._children(node, self._base_of(node)):
            entries.append(entry)
            marks.append(mark)
            sums.add(entry, mark.folder, counts_bytes=self._counts(node.number, entry, mark.number))
        tree = self._owners.tree_of(entries)
        is_root = node.number == ROOT_NUMBER
        tree_id = store_tree(tree, self._params, lambda record: self._writer.add(Kind.TREE, record, is_root=is_root))
        table = store_record(encode_table(marks), self._params, lambda record: self._writer.add(Kind.TREE, record, is_root=is_root))
        self._folders[node.number] = FolderBase(tree_id, table)
        self._entries[node.number] = _entry(node, Content(0, tree_id), 0, 0), sums.mark(table)

    def _base_of(self, node: CutNode) -> BaseFolder:
        if node.base is None:
            return EMPTY_FOLDER
        return self._cut.folders.get(node.base) or self._base.folder(node.base)

    def _children(self, node: CutNode, base: BaseFolder) -> list[tuple[Entry, NodeMark]]:
        """What a folder holds now, sorted by name."""
        found: list[tuple[Entry, NodeMark]] = []
        for entry, mark in zip(base.entries, base.marks, strict=True):
            if entry.name in node.names:
                continue
            found.append(self._stored(entry.name, mark.number) if mark.number in self._entries else (entry, mark))
        added = [self._stored(name, number) for name, number in node.names.items() if number != REMOVED]
        if added:
            found += added
            found.sort(key=lambda item: item[0].name)
        return found

    def _stored(self, name: bytes, number: int) -> tuple[Entry, NodeMark]:
        entry, folder = self._entries[number]
        node = self._cut.nodes[number]
        return msgspec.structs.replace(entry, name=name), NodeMark(number, node.node_id, node.ctime_ns, folder)

    def _counts(self, folder: int, entry: Entry, number: int) -> bool:
        """Whether the bytes of a file are counted under this name: under one of all it has."""
        return entry.rare.nlink == 1 or self._cut.first_links.get(number) == (folder, entry.name)


def _entry(node: CutNode, content: Content, size: int, hole_bytes: int) -> Entry:
    """The entry of a node; its name is empty."""
    nlink = 1 if stat.S_ISDIR(node.mode) else max(1, len(node.links))
    extra = None
    if nlink > 1 or node.rdev or node.xattrs or hole_bytes:
        extra = Extra(nlink, (0, node.number) if nlink > 1 else (0, 0), node.rdev, node.xattrs, hole_bytes)
    return Entry(b"", node.mode, node.uid, node.gid, node.mtime_ns, node.atime_ns, size, content.level, content.spans, extra)


def is_same_version(version: StoredVersion, snapshot: Snapshot) -> bool:
    """Whether nothing differs between what was stored and a snapshot of the same live folder."""
    live = snapshot.live
    return live is not None and version.root == snapshot.root and msgspec.structs.replace(version.live, next_node=live.next_node) == live


def snapshot_of(version: StoredVersion, *, source: str, message: str, cut_ns: int) -> Snapshot:
    """The record to publish; its name is not set. `cut_ns` is when the cut was made."""
    return Snapshot(
        version=RECORD_VERSION,
        source=source,
        name="",
        time_ns=cut_ns,
        finished_ns=max(time.time_ns(), cut_ns),
        root=version.root,
        host=socket.gethostname(),
        user=OwnerNames().user(os.geteuid()),
        totals=version.totals,
        added=version.added,
        xattr_names=version.xattr_names,
        message=message,
        program=PROGRAM,
        live=version.live,
    )

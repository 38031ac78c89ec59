# SPDX-License-Identifier: MIT
"""Snapshots made from nothing, and a kernel that looks at them through a `View`."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fs.live_folder import LiveSandbox
from yester.core.chunking import ChunkParams
from yester.core.content import HOLE, Content, ContentBuilder
from yester.core.records import RECORD_VERSION, Entry, Extra, Snapshot, Tree
from yester.core.times import parse_time
from yester.engine.trees import store_tree
from yester.fs.view import ROOT, ArchivedNode, Folder, HistoryFolder, Link, Node, Presentation, View
from yester.store import snapshots as snapshots_module
from yester.store.chunks import ChunkWriter
from yester.store.lmdb import Table, WriteTransaction
from yester.store.segments import Kind
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

MTIME_NS = 1_700_000_000_123_456_789

SMALL_CHUNKS = ChunkParams(min_bytes=64, avg_bytes=256, max_bytes=1024)
"""Makes files of some kB large ones, with span lists."""

Plan = bytes | str | Entry | Mapping[bytes, Any]
"""A file's bytes, a symlink's target, an entry as it stands, or what a folder holds by name."""


def file_entry(content: Content, size: int, **attributes: object) -> Entry:
    """A regular file; `attributes` are those of `Entry` that shall differ from the usual."""
    entry = Entry(b"", stat.S_IFREG | 0o644, 1000, 1000, MTIME_NS, MTIME_NS, size, content.level, content.spans)
    return msgspec.structs.replace(entry, **attributes)


class Planter:
    """Puts trees and snapshots straight into a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def snapshot(
        self, plan: Plan, *, at: str = "2026-11-22_10-00-00", source: str = "docs", xattr_names: tuple[bytes, ...] = ()
    ) -> StoredSnapshot:
        """Publish a snapshot of the time that `at` says."""
        time_ns = parse_time(at, now_ns=0) // 10**9 * 10**9
        return self.store.add_snapshot(Snapshot(RECORD_VERSION, source, "", time_ns, time_ns, self.plant(plan), xattr_names=xattr_names))

    def remove(self, stored: StoredSnapshot) -> None:
        """Take a snapshot away."""

        def apply(transaction: WriteTransaction) -> None:
            key = transaction.get(Table.SNAPSHOT_IDS, stored.id)
            assert key is not None
            transaction.delete(Table.SNAPSHOTS, bytes(key))
            transaction.delete(Table.SNAPSHOT_IDS, stored.id)
            transaction.put(Table.META, snapshots_module.GENERATION_KEY, (self.store.snapshots_generation() + 1).to_bytes(8, "little"))

        self.store.environment.write(apply)

    def plant(self, plan: Plan) -> Entry:
        """Store what is planned; the name of the entry is empty."""
        with self.store.writer() as writer:
            return self._plant(writer, b"", plan)

    def file(self, pieces: list[bytes | int], **attributes: object) -> Entry:
        """A file in pieces: data is cut into chunks of at most the store's size, a number is a hole of so many bytes."""
        with self.store.writer() as writer:
            return self._plant_file(writer, pieces, **attributes)

    def _plant(self, writer: ChunkWriter, name: bytes, plan: Plan) -> Entry:
        match plan:
            case Entry():
                entry = plan
            case bytes():
                entry = self._plant_file(writer, [plan])
            case str():
                target = os.fsencode(plan)
                entry = Entry(b"", stat.S_IFLNK | 0o777, 1000, 1000, MTIME_NS, MTIME_NS, len(target), 0, target)
            case _:
                entries = tuple(self._plant(writer, child, below) for child, below in sorted(plan.items()))
                params = self.store.parameters.chunking
                tree = store_tree(Tree(RECORD_VERSION, {}, {}, entries), params, lambda record: writer.add(Kind.TREE, record))
                entry = Entry(b"", stat.S_IFDIR | 0o755, 1000, 1000, MTIME_NS, MTIME_NS, 0, 0, tree)
        return msgspec.structs.replace(entry, name=name) if name else entry

    def _plant_file(self, writer: ChunkWriter, pieces: list[bytes | int], **attributes: object) -> Entry:
        builder = ContentBuilder(lambda record: writer.add(Kind.TREE, record))
        size = hole_bytes = 0
        for piece in pieces:
            if isinstance(piece, int):
                builder.add(HOLE, piece)
                size += piece
                hole_bytes += piece
                continue
            for at in range(0, len(piece), self.store.parameters.chunking.max_bytes):
                data = piece[at : at + self.store.parameters.chunking.max_bytes]
                builder.add(writer.add(Kind.DATA, data), len(data))
                size += len(data)
        if hole_bytes:
            attributes.setdefault("extra", Extra(hole_bytes=hole_bytes))
        return file_entry(builder.finish(), size, **attributes)


class Kernel:
    """Looks names up, lists and forgets, and keeps book of what it was told, as the kernel does."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.told: Counter[int] = Counter()
        """How often each inode was told and not forgotten."""

    def find(self, path: str | bytes) -> Node | None:
        """Look a path up, name by name; None where a name is not there. An empty path is the mount point."""
        node = self.view.node(ROOT)
        assert node is not None
        for name in os.fsencode(path).split(b"/") if path else ():
            assert isinstance(node, Folder), f"{node.path!r} is no folder"
            found = self.view.find(self._loaded(node), name)
            if found is None:
                return None
            self.view.remember(found)
            self.told[found.inode] += 1
            node = found
        return node

    def get(self, path: str | bytes) -> Node:
        """As `find`; it must be there."""
        node = self.find(path)
        assert node is not None, f"no {path!r}"
        return node

    def get_file(self, path: str | bytes) -> ArchivedNode:
        """As `get`; it must be something archived."""
        node = self.get(path)
        assert isinstance(node, ArchivedNode)
        return node

    def link(self, path: str | bytes) -> bytes:
        """The target of a symlink that the view makes up."""
        node = self.get(path)
        assert isinstance(node, Link)
        return node.target

    def nodes(self, path: str | bytes) -> dict[bytes, Node]:
        """List a folder, being told of each node in it."""
        folder = self.get(path)
        assert isinstance(folder, Folder)
        nodes = {name: self.view.child(folder, name, entry) for name, entry in self.view.list(self._loaded(folder))}
        for node in nodes.values():
            self.view.remember(node)
            self.told[node.inode] += 1
        return nodes

    def names(self, path: str | bytes) -> list[bytes]:
        """The names in a folder, in the order in which they are listed."""
        return list(self.nodes(path))

    def read(self, path: str | bytes) -> bytes:
        """A whole file."""
        node = self.get_file(path)
        return bytes(self.view.read(node, 0, node.entry.size + 1))

    def forget(self, inode: int, count: int) -> None:
        """Forget that it was told of an inode `count` times."""
        self.told[inode] -= count
        assert self.told[inode] >= 0
        self.told = +self.told
        self.view.forget(inode, count)

    def forget_all(self) -> None:
        """Forget everything, in the order in which it was first told."""
        for inode, count in list(self.told.items()):
            self.forget(inode, count)

    def _loaded(self, folder: Folder) -> Folder:
        pending: HistoryFolder | None = self.view.needs_load(folder)
        if pending is not None:
            pending.load(self.view)
        return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", chunking=SMALL_CHUNKS) as store:
        yield store


@pytest.fixture
def planter(store: Store) -> Planter:
    return Planter(store)


@pytest.fixture
def view(store: Store) -> View:
    return View(store, Presentation(uid=501, gid=502))


@pytest.fixture
def kernel(view: View) -> Kernel:
    return Kernel(view)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[LiveSandbox]:
    """A live folder with nothing in it."""
    folder = LiveSandbox(tmp_path / "live")
    yield folder
    folder.close()

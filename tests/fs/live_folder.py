# SPDX-License-Identifier: MIT
"""A live folder in a store, that can be loaded again as after a crash."""

import random
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.encrypted import create_encrypted
from yester.core.chunking import ChunkParams
from yester.core.node_row import is_trash
from yester.core.records import Entry
from yester.engine.files import FileReader
from yester.engine.live_base import BaseReader
from yester.engine.live_version import Cut, StoredVersion, snapshot_of, store_version
from yester.engine.trees import TreeReader
from yester.fs.live import LiveTree
from yester.fs.live_nodes import ROOT, LiveNode, NewNode, Replacing, random_node_id
from yester.fs.live_start import empty_start
from yester.store.live import LiveChange, LiveFolders
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

NAME = "mine"
SMALL_CHUNKS = ChunkParams(min_bytes=64, avg_bytes=256, max_bytes=1024)


class LiveSandbox:
    """A live folder in a store."""

    def __init__(self, path: Path, *, is_encrypted: bool = False) -> None:
        self.store = (create_encrypted if is_encrypted else Store.create)(path, chunking=SMALL_CHUNKS)
        self.folders = LiveFolders(self.store.environment)
        self.clock_ns = 1000
        next_node, rows = empty_start(0)
        self.folders.create(NAME, next_node=next_node, nodes=rows)
        self.load()

    def load(self, name: str = NAME) -> None:
        """Begin anew with what is in the store, of this folder or another."""
        rows = self.folders.load(name)
        self.head = rows.head
        self.tree = LiveTree(
            rows,
            BaseReader(self.store.reader()),
            read_committed=lambda extent: self.folders.read(rows.head, extent),
            now_ns=self.now_ns,
            new_id=random_node_id,
        )

    def publish(self) -> StoredSnapshot | None:
        """Make a version; None if nothing changed."""
        cut = self.tree.begin_version()
        if cut is None:
            return None
        self.commit()
        self.finish(cut, self.store_version(cut))
        return self.store.latest_snapshot(f"live/{NAME}")

    def store_version(self, cut: Cut) -> StoredVersion:
        """Store what a version consists of."""
        return store_version(self.store, cut, lambda extent: self.folders.read(self.head, extent))

    def finish(self, cut: Cut, version: StoredVersion) -> None:
        """Publish what was stored."""
        snapshot = snapshot_of(version, source=f"live/{NAME}", message="", cut_ns=self.now_ns())
        self.tree.finish_version(cut, version, snapshot)
        self.commit()

    def now_ns(self) -> int:
        """A clock that never stands still."""
        self.clock_ns += 1
        return self.clock_ns

    def commit(self) -> LiveChange | None:
        """Commit what there is; None if there is nothing."""
        change = self.tree.take_change()
        if change is not None:
            self.folders.apply(NAME, change)
            self.tree.committed(change)
        return change

    def walk(self) -> Iterator[tuple[bytes, LiveNode]]:
        """Every path and its node, but for the trash."""
        waiting: list[tuple[bytes, LiveNode]] = [(b"", self.tree.keep(ROOT))]
        kept = [ROOT]
        try:
            while waiting:
                path, node = waiting.pop()
                yield path, node
                for name, child in self.tree.list(node.number) if node.is_folder else ():
                    if not is_trash(node.number, name):
                        waiting.append((path + b"/" + name, self.tree.keep(child.number)))
                        kept.append(child.number)
        finally:
            for number in kept:
                self.tree.let_go(number)

    def describe(self) -> dict[bytes, tuple[object, ...]]:
        """Everything about every path."""
        found: dict[bytes, tuple[object, ...]] = {}
        for path, node in self.walk():
            data = self.tree.read(node.number, 0, node.size) if stat.S_ISREG(node.mode) else node.target
            times = node.atime_ns, node.mtime_ns, node.ctime_ns
            found[path] = node.number, node.node_id, node.mode, node.uid, node.gid, node.nlink, node.rdev, times, node.xattrs.copy(), data
        return found

    def close(self) -> None:
        """End all use."""
        self.store.close()


def new_file(folder: LiveSandbox, name: bytes, data: bytes = b"", parent: int = ROOT) -> LiveNode:
    """Make a file."""
    node = folder.tree.create(parent, name, NewNode(stat.S_IFREG | 0o644, 1000, 1000))
    folder.tree.write(node.number, 0, data)
    return node


Shape = tuple[int, int, object, int, int, bytes, tuple[tuple[bytes, bytes], ...]]
"""Mode, what tells hard links apart, owner and times, names, size, content, attributes."""


def snapshot_shapes(mine: LiveSandbox) -> dict[bytes, Shape]:
    """Everything that a version of the folder, as it is now, must hold."""
    return {
        path: (
            found.mode,
            found.number if found.nlink > 1 and not found.is_folder else 0,
            (found.uid, found.gid, found.mtime_ns, found.atime_ns),
            1 if found.is_folder else found.nlink,
            0 if found.is_folder else found.size,
            mine.tree.read(found.number, 0, found.size) if stat.S_ISREG(found.mode) else found.target,
            tuple(sorted(found.xattrs.items())),
        )
        for path, found in mine.walk()
    }


def stored_shapes(store: Store, root: Entry) -> dict[bytes, Shape]:
    """The same of a snapshot."""
    chunks = store.reader()
    trees = TreeReader(chunks)
    found: dict[bytes, Shape] = {}
    waiting = [(b"", root)]
    while waiting:
        path, entry = waiting.pop()
        data = b"" if stat.S_ISDIR(entry.mode) else entry.content
        if stat.S_ISREG(entry.mode):
            data = bytes(FileReader(chunks, entry.file_content, entry.size).read(0, entry.size))
        rare = entry.rare
        owner = entry.uid, entry.gid, entry.mtime_ns, entry.atime_ns
        found[path] = entry.mode, rare.link[1], owner, rare.nlink, entry.size, data, rare.xattrs
        if stat.S_ISDIR(entry.mode):
            waiting += [(path + b"/" + child.name, child) for child in trees.read(entry.tree).entries]
    return found


def do_something(mine: LiveSandbox, rng: random.Random, *names: bytes) -> None:
    """Do something random, if it can be done, to one of four names or of these."""
    tree = mine.tree
    folders = [node for node in tree._inodes.loaded.values() if node.is_folder]
    files = [node for node in tree._inodes.loaded.values() if stat.S_ISREG(node.mode)]
    folder, other = (rng.choice(folders).number for _ in range(2))
    name, new_name = (rng.choice([b"a", b"b", b"c", b"d", *names]) for _ in range(2))
    kind = rng.choice([stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO])
    actions: list[Callable[[], object]] = [
        lambda: tree.create(folder, name, NewNode(kind | 0o700, 1, 2)),
        lambda: tree.unlink(folder, name),
        lambda: tree.rmdir(folder, name),
        lambda: tree.rename(folder, name, other, new_name, rng.choice(list(Replacing))),
    ]
    if files:
        file = rng.choice(files).number
        actions += [
            lambda: tree.write(file, rng.randrange(200), rng.randbytes(rng.randrange(1, 100))),
            lambda: tree.truncate(file, rng.randrange(250)),
            lambda: tree.link(file, folder, name),
            lambda: tree.keep(file),
            lambda: tree.set_xattr(file, b"user.a", rng.randbytes(3)),
        ]
    with suppress(OSError):
        rng.choice(actions)()

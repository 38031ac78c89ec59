# SPDX-License-Identifier: MIT
"""A live folder in a store, that can be loaded again as after a crash."""

import os
import stat
from pathlib import Path

from yester.core.content import Content
from yester.fs.live import ROOT, LiveNode, LiveTree, NewNode, empty_root, random_node_id
from yester.store.live import LiveChange, LiveFolders
from yester.store.lmdb import Environment

NAME = "mine"


def no_base(_content: Content, _offset: int, _count: int) -> bytes:
    """There is none."""
    raise AssertionError


class LiveSandbox:
    """A live folder in a store."""

    def __init__(self, path: Path) -> None:
        self.environment = Environment(path, create=True)
        self.folders = LiveFolders(self.environment)
        self.clock_ns = 1000
        if not self.folders.names():
            head = self.folders.create(NAME, b"", next_node=2)
            root = empty_root(head, node_id=random_node_id(), mode=0o755, uid=os.geteuid(), gid=os.getegid(), now_ns=0)
            self.folders.apply(NAME, root)
        self.load()

    def load(self) -> None:
        """Begin anew with what is in the store."""
        rows = self.folders.load(NAME)
        self.tree = LiveTree(
            rows,
            read_committed=lambda extent: self.folders.read(rows.head, extent),
            read_base=no_base,
            now_ns=self.now_ns,
            new_id=random_node_id,
        )

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

    def describe(self) -> dict[bytes, tuple[object, ...]]:
        """Everything about every path."""
        found: dict[bytes, tuple[object, ...]] = {}
        waiting: list[tuple[bytes, LiveNode]] = [(b"", self.tree.node(ROOT))]
        while waiting:
            path, node = waiting.pop()
            data = self.tree.read(node.number, 0, node.size) if stat.S_ISREG(node.mode) else node.target
            times = node.atime_ns, node.mtime_ns, node.ctime_ns
            found[path] = node.number, node.node_id, node.mode, node.uid, node.gid, node.nlink, node.rdev, times, node.xattrs.copy(), data
            if node.is_folder:
                waiting += [(path + b"/" + name, child) for name, child in self.tree.list(node.number)]
        return found

    def close(self) -> None:
        """End all use."""
        self.environment.close()


def new_file(folder: LiveSandbox, name: bytes, data: bytes = b"", parent: int = ROOT) -> LiveNode:
    """Make a file."""
    node = folder.tree.create(parent, name, NewNode(stat.S_IFREG | 0o644, 1000, 1000))
    folder.tree.write(node.number, 0, data)
    return node

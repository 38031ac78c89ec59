# SPDX-License-Identifier: MIT
"""Rewinding: a live folder, or a part of it, as it was in a snapshot, by ordinary operations (docs/adr/0007).

What is the same stays as it is, files that differ get the old content without a byte being copied, and what was made since is
removed. So it costs what differs, other work goes on between two operations, and what it changed is a version like any other: it
can be undone. A crash in the middle leaves some of it done; doing it again does the rest.

What is in the trash stays there. Names that a snapshot has twice for one file are one file again.
"""

import stat
from collections.abc import Generator, Iterator
from typing import NamedTuple

from yester.core.node_row import is_trash
from yester.core.records import Entry, Tree
from yester.engine.trees import TreeReader, find_entry
from yester.fs.live import LiveTree
from yester.fs.live_nodes import ROOT, LiveNode, NewNode
from yester.fs.old_versions import SNAPSHOTS_NAME


class Touched(NamedTuple):
    """What an operation changed: a name in a folder, and the node that it leads to, or led to."""

    folder: int
    name: bytes
    node: int


Steps = Generator["Touched | Steps | None", None, None]

_TURN_NAMES = 200
"""So many names are looked at in a few milliseconds."""


class Rewind:
    """One rewinding. `trees` reads the snapshot."""

    def __init__(self, tree: LiveTree, trees: TreeReader) -> None:
        self._tree = tree
        self._trees = trees
        self._linked: dict[tuple[int, int], int] = {}
        """Nodes of files with several names, by what tells them apart in the snapshot. Each is kept."""
        self._taken: set[int] = set()
        """The same nodes."""

    def run(self, root: Entry, path: bytes) -> Iterator[Touched | None]:
        """Make what is at `path`, the whole folder if it is empty, as it is below `root`; says after each operation what it changed.

        Now and then it says None, where nothing had to be done for a while: others may have a turn.

        Raises:
            CorruptionError, FormatError: a folder of the snapshot cannot be read. OSError: as the operations of `LiveTree`.
        """
        # Steps may be steps of their own: folders may be nested deeper than calls.
        waiting = [self._path(root, path) if path else self._all(root)]
        try:
            while waiting:
                try:
                    step = next(waiting[-1])
                except StopIteration:
                    waiting.pop()
                    continue
                if step is None or isinstance(step, Touched):
                    yield step
                else:
                    waiting.append(step)
        finally:
            for steps in reversed(waiting):
                steps.close()
            for number in self._taken:
                self._tree.let_go(number)

    def _all(self, root: Entry) -> Steps:
        yield self._folder(self._tree.node(ROOT), root)
        if self._set_attributes(self._tree.node(ROOT), root):
            yield Touched(ROOT, b"", ROOT)

    def _path(self, root: Entry, path: bytes) -> Steps:
        *above, name = path.split(b"/")
        yield self._below(self._tree.node(ROOT), root, above, name)

    def _below(self, folder: LiveNode, entry: Entry | None, above: list[bytes], name: bytes) -> Steps:
        """Go down to the folder that has the name."""
        if not above:
            yield self._name(folder, name, self._find(entry, name))
            return
        step, found = above[0], self._find(entry, above[0])
        node = self._tree.find(folder.number, step)
        if node is None or not node.is_folder:
            if found is None or not stat.S_ISDIR(found.mode):
                return
            # It was removed since, with all that was in it: it comes back with what is wanted of it.
            yield self._remove(folder, step, node)
            node = self._make(folder, step, found)
            yield Touched(folder.number, step, node.number)
        self._tree.keep(node.number)
        try:
            yield self._below(node, found, above[1:], name)
        finally:
            self._tree.let_go(node.number)

    def _folder(self, folder: LiveNode, entry: Entry) -> Steps:
        """Make what a folder holds as it was."""
        if not folder.has_row and folder.folder is not None and folder.folder.tree == entry.tree:
            return
        old = {below.name: below for below in self._read(entry).entries}
        for count, name in enumerate(self._tree.names(folder.number)):
            if not count % _TURN_NAMES:
                yield None
            if name not in old and not is_trash(folder.number, name):
                yield self._name(folder, name, None)
        for count, (name, below) in enumerate(old.items()):
            if not count % _TURN_NAMES:
                yield None
            if name != SNAPSHOTS_NAME and not is_trash(folder.number, name):
                yield self._name(folder, name, below)

    def _name(self, folder: LiveNode, name: bytes, entry: Entry | None) -> Steps:
        """Make one name as it was."""
        node = self._tree.find(folder.number, name)
        if entry is None:
            yield self._remove(folder, name, node)
            return
        known = self._linked.get(entry.rare.link) if entry.rare.nlink > 1 else None
        if node is not None and not self._can_stay(node, entry, known):
            yield self._remove(folder, name, node)
            node = None
        is_changed = node is None
        if node is None:
            node = self._tree.link(known, folder.number, name) if known is not None else self._make(folder, name, entry)
        if entry.rare.nlink > 1:
            self._remember_link(entry.rare.link, node.number)
        self._tree.keep(node.number)
        try:
            if stat.S_ISDIR(entry.mode):
                yield self._folder(node, entry)
            elif stat.S_ISREG(entry.mode) and not self._has_content(node, entry):
                self._tree.set_content(node.number, entry.file_content, entry.size, entry.rare.hole_bytes)
                is_changed = True
            if self._set_attributes(node, entry) or is_changed:
                yield Touched(folder.number, name, node.number)
        finally:
            self._tree.let_go(node.number)

    def _remember_link(self, link: tuple[int, int], number: int) -> None:
        self._linked[link] = number
        if number not in self._taken:
            self._taken.add(number)
            self._tree.keep(number)

    def _can_stay(self, node: LiveNode, entry: Entry, known: int | None) -> bool:
        """Whether a node can become what it was."""
        if known is not None:
            return node.number == known
        if stat.S_IFMT(node.mode) != stat.S_IFMT(entry.mode) or node.rdev != entry.rare.rdev:
            return False
        if stat.S_ISLNK(entry.mode) and node.target != entry.content:
            return False
        # Of names of one file that were not one, or not these, each gets a file of its own.
        return node.is_folder or len(node.links) == 1 or (entry.rare.nlink > 1 and node.number not in self._taken)

    def _make(self, folder: LiveNode, name: bytes, entry: Entry) -> LiveNode:
        target = entry.content if stat.S_ISLNK(entry.mode) else b""
        return self._tree.create(folder.number, name, NewNode(entry.mode, entry.uid, entry.gid, entry.rare.rdev, target))

    def _remove(self, folder: LiveNode, name: bytes, node: LiveNode | None) -> Steps:
        if node is None:
            return
        number = node.number
        if not node.is_folder:
            self._tree.unlink(folder.number, name)
            yield Touched(folder.number, name, number)
            return
        self._tree.keep(number)
        try:
            for below in self._tree.names(number):
                yield self._remove(node, below, self._tree.find(number, below))
            self._tree.rmdir(folder.number, name)
        finally:
            self._tree.let_go(number)
        yield Touched(folder.number, name, number)

    def _has_content(self, node: LiveNode, entry: Entry) -> bool:
        """Whether a file consists of exactly what the store holds of it."""
        is_base = node.extents is None or (not node.extents and node.extents.base_bytes == node.size)
        return is_base and node.base == entry.file_content and node.size == entry.size

    def _set_attributes(self, node: LiveNode, entry: Entry) -> bool:
        """Make mode, owner, extended attributes and times as they were, times last as the others change them; whether any was not."""
        tree, number = self._tree, node.number
        xattrs = dict(entry.rare.xattrs)
        before = tree.change_count
        if (node.uid, node.gid) != (entry.uid, entry.gid):
            tree.set_owner(number, uid=entry.uid, gid=entry.gid)
        for attribute in node.xattrs.keys() - xattrs.keys():
            tree.remove_xattr(number, attribute)
        for attribute, value in xattrs.items():
            if node.xattrs.get(attribute) != value:
                tree.set_xattr(number, attribute, value)
        if node.mode != entry.mode:
            tree.set_mode(number, entry.mode)
        if (node.atime_ns, node.mtime_ns) != (entry.atime_ns, entry.mtime_ns):
            tree.set_times(number, atime_ns=entry.atime_ns, mtime_ns=entry.mtime_ns)
        return tree.change_count != before

    def _find(self, entry: Entry | None, name: bytes) -> Entry | None:
        return find_entry(self._read(entry), name) if entry is not None and stat.S_ISDIR(entry.mode) else None

    def _read(self, entry: Entry) -> Tree:
        return self._trees.read(entry.tree)

# SPDX-License-Identifier: MIT
"""Which nodes of a live folder are in memory, and finding those that are not (docs/adr/0007).

In memory are all nodes with a row, those that are used (`LiveNode.uses`), and the last thousand or so that were. Every other one is
read from its folder's base when somebody asks for it.

Rules:
1. The folder of a node in memory is in memory: each link of a node is one use of that folder.
2. The folders above a node with a row have rows.

Threads: as the tree it belongs to.
"""

import errno
import stat
from collections.abc import Iterator

from yester.core.content import Content
from yester.core.extents import ExtentMap
from yester.core.node_row import damaged, decode_row
from yester.engine.live_base import EMPTY_FOLDER, BaseFolder, BaseReader, FolderBase
from yester.fs.live_log import ChangeLog
from yester.fs.live_nodes import ROOT, LiveNode, NodeNumber, fail, node_of_entry, node_of_row
from yester.store.live import REMOVED, LiveRows

IDLE_NODES_MAX = 1000


class Inodes:
    """The nodes of one live folder, by number."""

    def __init__(self, rows: LiveRows, base: BaseReader, log: ChangeLog) -> None:
        """Raises CorruptionError if the rows are those of no tree."""
        self._base = base
        self._log = log
        self.loaded: dict[int, LiveNode] = {}
        self.rows: set[int] = set()
        """Numbers of those with a row."""
        self._idle: dict[int, None] = {}
        """Those without row or use, the one that was longest so first."""
        self._load(rows)

    def get(self, number: int) -> LiveNode:
        """The node of a number. Raises ESTALE if it is gone, or nobody said that it is used."""
        if number in self._idle:
            self._idle[number] = self._idle.pop(number)
        return self.loaded.get(number) or fail(errno.ESTALE)

    def child(self, folder: LiveNode, name: bytes) -> LiveNode | None:
        """The node of a name; None if there is none. Raises ENOTDIR."""
        if folder.names is None:
            fail(errno.ENOTDIR)
        number = folder.names.get(name)
        if number is not None:
            return self.loaded[number] if number != REMOVED else None
        base = self.base_of(folder)
        index = base.find(name)
        if index is None:
            return None
        mark = base.marks[index]
        known = self.loaded.get(mark.number)
        if known is None:
            known = node_of_entry(folder.number, base.entries[index], mark)
            self.insert(known)
        elif (folder.number, name) not in known.links:
            raise damaged(mark.number, f"it has no name {name!r} in {folder.number}")
        return known

    def names(self, folder: LiveNode) -> list[bytes]:
        """The names in a folder, sorted. Raises ENOTDIR."""
        if folder.names is None:
            fail(errno.ENOTDIR)
        changed = folder.names
        names = [entry.name for entry in self.base_of(folder).entries if entry.name not in changed]
        if changed:
            names += [name for name, number in changed.items() if number != REMOVED]
            names.sort()
        return names

    def is_empty(self, folder: LiveNode) -> bool:
        """Whether a folder holds nothing."""
        assert folder.names is not None
        if any(folder.names.values()):
            return False
        return all(entry.name in folder.names for entry in self.base_of(folder).entries)

    def base_of(self, folder: LiveNode) -> BaseFolder:
        """What a folder held in the last version."""
        return self._base.folder(folder.folder) if folder.folder is not None else EMPTY_FOLDER

    def known_base(self, base: FolderBase) -> BaseFolder | None:
        """A folder of the base, if it is kept decoded."""
        return self._base.known(base)

    def read_base(self, content: Content, offset: int, count: int) -> bytes:
        """Bytes of a file's base."""
        return self._base.read(content, offset, count)

    def insert(self, node: LiveNode) -> None:
        """Have a node in memory."""
        self.loaded[node.number] = node
        for parent, _ in node.links:
            self.use(self.loaded[parent])
        if node.has_row:
            self.rows.add(node.number)
        elif not node.uses:
            self._rest(node)

    def remove(self, node: LiveNode) -> None:
        """Have it in memory no more. Nothing uses it."""
        del self.loaded[node.number]
        self.rows.discard(node.number)
        self._idle.pop(node.number, None)
        for parent, _ in node.links:
            self.unuse(self.loaded[parent])

    def use(self, node: LiveNode) -> None:
        """One more use of a node."""
        node.uses += 1
        self._idle.pop(node.number, None)

    def unuse(self, node: LiveNode, count: int = 1) -> None:
        """So many uses less."""
        node.uses -= count
        assert node.uses >= 0
        if not node.uses and not node.has_row:
            self._rest(node)

    def give_row(self, node: LiveNode) -> None:
        """A node is about to differ from its base: give it and the folders above it rows."""
        while not node.has_row:
            node.has_row = True
            self.rows.add(node.number)
            self._idle.pop(node.number, None)
            if stat.S_ISREG(node.mode):
                node.extents = ExtentMap(base_bytes=node.base_size, size=node.base_size)
            self._log.add_row(node.number)
            node = self.loaded[node.links[0][0]]

    def take_row(self, node: LiveNode) -> None:
        """A node is what its base says; the folder it is in has it in its base."""
        assert node.is_published
        node.has_row = False
        self.rows.discard(node.number)
        size = node.size
        self._log.drop_row(node)
        if node.extents is not None:
            node.base_size, node.extents = size, None
        if not node.uses:
            self._rest(node)

    def ancestors(self, number: int) -> Iterator[NodeNumber]:
        """The folders above a folder, up to the root."""
        while number != ROOT:
            number = self.loaded[number].links[0][0]
            yield NodeNumber(number)

    def _rest(self, node: LiveNode) -> None:
        if node.number == ROOT or not node.links:
            return
        self._idle[node.number] = None
        while len(self._idle) > IDLE_NODES_MAX:
            self.remove(self.loaded[next(iter(self._idle))])

    def _load(self, rows: LiveRows) -> None:
        found = [(number, decode_row(number, stored)) for number, stored in rows.nodes.items()]
        nodes = [node_of_row(NodeNumber(number), row, rows.extents.get(number, [])) for number, row in found if row.links or number == ROOT]
        self.loaded = {node.number: node for node in nodes}
        self.rows = set(self.loaded)
        if ROOT not in self.loaded or not self.loaded[ROOT].is_folder:
            raise damaged(ROOT, "it is not there")
        if rows.head.next_node <= max(rows.nodes) or rows.head.next_batch <= max(rows.batch_bytes, default=0):
            raise damaged(ROOT, "a number that was used counts as unused")
        gone = rows.nodes.keys() - self.rows
        for (parent, name), number in rows.names.items():
            if parent in gone:
                self._log.change_name(parent, name, None)
                continue
            folder, node = self._folder(parent), self.loaded.get(number)
            if folder is None or (number != REMOVED and (node is None or (parent, name) not in node.links)):
                raise damaged(number, f"it has no name {name!r} in {parent}")
            assert folder.names is not None
            folder.names[name] = number
        for node in nodes:
            for parent, name in node.links:
                folder = self._folder(parent)
                if folder is None or not self._leads_to(folder, name, node.number):
                    raise damaged(node.number, f"{parent} does not have its name {name!r}")
                folder.uses += 1
        for number in gone:
            self._log.forget_row(number)
            for extent in rows.extents.get(number, ()):
                self._log.forget_extent(number, extent)
        self._judge_ways(nodes)

    def _folder(self, number: int) -> LiveNode | None:
        node = self.loaded.get(number)
        return node if node is not None and node.is_folder else None

    def _leads_to(self, folder: LiveNode, name: bytes, number: int) -> bool:
        assert folder.names is not None
        if name in folder.names:
            return folder.names[name] == number
        base = self.base_of(folder)
        index = base.find(name)
        return index is not None and base.marks[index].number == number

    def _judge_ways(self, nodes: list[LiveNode]) -> None:
        """Raises CorruptionError where folders hold one another, or one has several names."""
        sound = {int(ROOT)}
        for node in nodes:
            if not node.is_folder:
                continue
            way: list[int] = []
            number: int = node.number
            while number not in sound:
                links = self.loaded[number].links
                if number in way or len(links) != 1:
                    raise damaged(number, "it is not in one folder")
                way.append(number)
                number = links[0][0]
            sound.update(way)

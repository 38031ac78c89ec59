# SPDX-License-Identifier: MIT
"""Beginning a live folder: with nothing, or as any archived folder is, without copying a byte of a file.

What a live folder needs of a snapshot besides its trees are node tables, which are made here: 40 bytes a file, and about a second for
80,000. Files with several names get rows, as they have for as long as they have them (docs/adr/0007).
"""

import os
import stat
from dataclasses import dataclass, field

from yester.core.extents import ExtentMap
from yester.core.node_table import FolderMark, FolderSums, NodeMark, encode_table
from yester.core.records import Entry, Tree, decode_tree
from yester.engine.trees import judge_entries, read_tree_record, store_record
from yester.errors import CorruptionError
from yester.fs.live_nodes import ROOT, LiveNode, NodeNumber, encode_row, node_of_entry, random_node_id
from yester.store.chunks import ChunkReader, ChunkWriter
from yester.store.segments import Kind
from yester.store.store import Store

Rows = dict[int, bytes]


def empty_start(now_ns: int) -> tuple[int, Rows]:
    """The next unused number, and the rows, of a folder with nothing in it."""
    root = LiveNode(ROOT, random_node_id(), stat.S_IFDIR | 0o755, os.geteuid(), os.getegid(), 0, now_ns, now_ns, now_ns, [], names={})
    return ROOT + 1, {ROOT: encode_row(root)}


def start_from(store: Store, root: Entry, now_ns: int) -> tuple[int, Rows]:
    """The next unused number, and the rows, of a folder that is as an archived one was.

    Raises:
        CorruptionError: a folder of the snapshot is damaged.
    """
    with store.writer() as writer:
        return _Start(store, writer, now_ns).make(root)


@dataclass(slots=True)
class _Folder:
    """A folder on the way down. `waiting` are its entries that are still to be visited, the last one first."""

    number: int
    parent: int
    entry: Entry
    tree: Tree
    waiting: list[Entry]
    marks: list[NodeMark] = field(default_factory=list)
    sums: FolderSums = field(default_factory=FolderSums)

    def add(self, entry: Entry, mark: NodeMark, *, counts_bytes: bool = True) -> None:
        """Add what an entry is in the live folder."""
        self.marks.append(mark)
        self.sums.add(entry, mark.folder, counts_bytes=counts_bytes)


class _Start:
    """One walk over a snapshot, children before parents."""

    def __init__(self, store: Store, writer: ChunkWriter, now_ns: int) -> None:
        self._chunks: ChunkReader = store.reader()
        self._params = store.chunking
        self._writer = writer
        self._now_ns = now_ns
        self._next = ROOT + 1
        self._folders: dict[int, LiveNode] = {}
        self._linked: dict[tuple[int, int], LiveNode] = {}
        """Files that may have several names, by what tells them apart in the snapshot."""

    def make(self, root: Entry) -> tuple[int, Rows]:
        way = [self._enter(ROOT, ROOT, root)]
        while True:
            folder = way[-1]
            if folder.waiting:
                entry = folder.waiting.pop()
                if stat.S_ISDIR(entry.mode):
                    way.append(self._enter(self._new_number(), folder.number, entry))
                else:
                    self._visit(folder, entry)
                continue
            way.pop()
            mark = NodeMark(folder.number, random_node_id(), self._now_ns, self._leave(folder))
            node = self._folders[folder.number] = node_of_entry(NodeNumber(folder.parent), folder.entry, mark)
            if not way:
                node.links = []
                node.is_published = False  # it shall have a version of its own, to come back to
                return self._next, self._rows()
            way[-1].add(folder.entry, mark)

    def _enter(self, number: int, parent: int, entry: Entry) -> _Folder:
        tree = decode_tree(read_tree_record(self._chunks, entry.tree))
        _, problems = judge_entries(tree)
        if problems:
            name, problem = problems[0]
            message = f"a folder of the snapshot is damaged: entry {name!r}: {problem}; no live folder was made"
            raise CorruptionError(message, hint="run `yester check`, and start from another snapshot")
        return _Folder(number, parent, entry, tree, list(reversed(tree.entries)))

    def _visit(self, folder: _Folder, entry: Entry) -> None:
        link = entry.rare.link if entry.rare.nlink > 1 else None
        known = self._linked.get(link) if link is not None else None
        mark = NodeMark(known.number if known is not None else self._new_number(), random_node_id(), self._now_ns, None)
        if known is not None:
            mark = mark._replace(node_id=known.node_id)
            known.links.append((NodeNumber(folder.number), entry.name))
        elif link is not None:
            self._linked[link] = node_of_entry(NodeNumber(folder.number), entry, mark)
        folder.add(entry, mark, counts_bytes=known is None)

    def _leave(self, folder: _Folder) -> FolderMark:
        table = store_record(encode_table(folder.marks), self._params, lambda record: self._writer.add(Kind.TREE, record))
        return folder.sums.mark(table)

    def _rows(self) -> Rows:
        """The root, files with several names, and the folders above those."""
        nodes = {int(ROOT): self._folders[ROOT]}
        for node in self._linked.values():
            if len(node.links) < 2:
                continue
            nodes[node.number] = node
            node.extents = ExtentMap(base_bytes=node.base_size, size=node.base_size) if stat.S_ISREG(node.mode) else None
            for parent, _ in node.links:
                number: int = parent
                while number not in nodes:
                    nodes[number] = self._folders[number]
                    number = nodes[number].links[0][0]
        return {number: encode_row(node) for number, node in nodes.items()}

    def _new_number(self) -> int:
        self._next += 1
        return self._next - 1

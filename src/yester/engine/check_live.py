# SPDX-License-Identifier: MIT
"""The part of a check that is about live folders: node tables of versions, and rows (docs/format.md §10).

A version needs the tables beside its trees. A row needs its base, and its extents the batches they name. Part of `engine.check`, in
whose transaction it runs; what it asks of that stands in `Structure`.
"""

import stat
from collections.abc import Hashable
from typing import Protocol

from yester.core.content import Content
from yester.core.ids import ChunkId, TreeId
from yester.core.node_row import NodeRow, decode_row
from yester.core.node_table import decode_table
from yester.core.records import Snapshot, decode_tree
from yester.engine.trees import read_tree_record
from yester.errors import CorruptionError, FormatError, NotFoundError
from yester.store.live import find_damaged_extents, iter_names, load_rows, naming
from yester.store.lmdb import ReadTransaction


class Structure(Protocol):
    """What is known of the chunks of a store; see `engine.check`."""

    def read(self, chunk: ChunkId) -> memoryview:
        """As `ChunkSource.read`; the chunk is needed."""
        ...

    def visit_tree(self, tree: TreeId) -> bool:
        """Look at a tree and all below it, unless that was done. Returns whether anything there is damaged."""
        ...

    def visit_content(self, content: Content) -> bool:
        """Look at a file's chunks. Returns whether one is missing or damaged, or its lists are."""
        ...

    def is_first_visit(self, chunk: ChunkId) -> bool:
        """Whether this was not asked of the chunk before. False if it is not there, which is noted."""
        ...

    def note_live(self, key: Hashable, what: str, *, folder: str | None = None) -> None:
        """Something is wrong with a live folder; with the rows of this one, if it is said."""
        ...


class LiveCheck:
    """Looks at node tables and rows."""

    def __init__(self, structure: Structure, view: ReadTransaction, *, reads_bytes: bool) -> None:
        """With `reads_bytes` what was written since the last versions is read as well."""
        self._structure = structure
        self._view = view
        self._reads_bytes = reads_bytes

    def check_version(self, snapshot: Snapshot) -> None:
        """Look at the node tables of a version; snapshots of other sources have none."""
        if snapshot.live is not None:
            self._check_tables(f"{snapshot.source}@{snapshot.name}", snapshot.root.tree, ChunkId(snapshot.live.table))

    def check_folders(self) -> None:
        """Look at the rows of all live folders."""
        for name in iter_names(self._view):
            try:
                with naming(name):
                    rows = load_rows(self._view, name)
                    decoded = {number: decode_row(number, row) for number, row in rows.nodes.items()}
            except (CorruptionError, FormatError, NotFoundError) as error:
                self._structure.note_live((name, "rows"), error.message, folder=name)
                continue
            for number, row in decoded.items():
                self._check_row(name, number, row)
            for number, extent in find_damaged_extents(self._view, rows) if self._reads_bytes else ():
                shown = _shown(decoded[number]) if number in decoded else f"node {number}"
                what = f"the live folder {name!r}: {extent.length} bytes of {shown} from {extent.offset} on are damaged"
                self._structure.note_live((name, number, extent.offset), what)
            for parent, name_in_it in rows.names:
                if parent not in decoded:
                    what = f"the live folder {name!r} has the name {name_in_it!r} in no folder"
                    self._structure.note_live((name, "names"), what, folder=name)

    def _check_row(self, name: str, number: int, row: NodeRow) -> None:
        if row.folder_base is not None:
            tree, table = row.folder_base
            is_damaged = self._structure.visit_tree(tree)
            self._check_tables(f"the live folder {name!r}", tree, table)
        else:
            is_damaged = self._structure.visit_content(row.file_base)
        if is_damaged:
            self._structure.note_live((name, number), f"the live folder {name!r}: {_shown(row)} has damage in it")

    def _check_tables(self, where: str, tree: TreeId, table: ChunkId) -> None:
        """Look at a table and those below it, unless that was done."""
        waiting = [(tree, table)]
        while waiting:
            tree, table = waiting.pop()
            if not self._structure.is_first_visit(table):
                continue
            try:
                record = decode_tree(read_tree_record(self._structure, tree))
                marks = decode_table(read_tree_record(self._structure, table), record)
            except (CorruptionError, FormatError) as error:
                self._structure.note_live(table, f"{where}: a node table cannot be read: {error.message}")
                continue
            for entry, mark in zip(record.entries, marks, strict=True):
                if mark.folder is not None and stat.S_ISDIR(entry.mode):
                    waiting.append((entry.tree, ChunkId(mark.folder.table)))


def _shown(row: NodeRow) -> str:
    return row.links[0][1].decode("utf-8", "backslashreplace") if row.links else "its root"

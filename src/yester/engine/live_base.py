# SPDX-License-Identifier: MIT
"""The base of a live folder: the trees of its last version, read together with their node tables (docs/adr/0007).

Not thread-safe: a reader belongs to the thread of its chunk source.
"""

from bisect import bisect_left
from collections import OrderedDict
from typing import NamedTuple

from yester.core.content import Content
from yester.core.ids import ChunkId, TreeId
from yester.core.node_table import NO_MARKS, NodeMarks, decode_table
from yester.core.records import SIZE_MAX, Entry, decode_tree
from yester.engine.files import FileReader
from yester.engine.trees import judge_entries, read_tree_record
from yester.errors import CorruptionError
from yester.store.chunks import ChunkSource

_FILES_KEPT = 64
CACHE_ENTRIES = 120_000
"""Entries kept decoded, with their marks about 500 bytes each. As many as a very large folder has: one that is worked in together with
others must not be read again for each name."""


class FolderBase(NamedTuple):
    """Where a folder of a version is stored: its tree, and its node table."""

    tree: TreeId
    table: ChunkId


class BaseFolder(NamedTuple):
    """A folder of a version: entries sorted by name, and for each its mark."""

    entries: tuple[Entry, ...]
    marks: NodeMarks

    def find(self, name: bytes) -> int | None:
        """The index of the entry of that name; None if there is none."""
        index = bisect_left(self.entries, name, key=_name_of)
        return index if index < len(self.entries) and self.entries[index].name == name else None


EMPTY_FOLDER = BaseFolder((), NO_MARKS)


class BaseReader:
    """Reads folders and files of a base, keeping what was read last."""

    def __init__(self, chunks: ChunkSource, *, cache_entries: int = CACHE_ENTRIES) -> None:
        self._chunks = chunks
        self._entries_max = cache_entries
        self._folders: OrderedDict[FolderBase, BaseFolder] = OrderedDict()
        self._entries = 0
        self._files: OrderedDict[Content, FileReader] = OrderedDict()

    def folder(self, base: FolderBase) -> BaseFolder:
        """A folder. 1 ms for 1000 entries the first time.

        Raises:
            CorruptionError, FormatError: its tree or table cannot be read, or they do not belong together. A folder is read as a
                whole or not at all: what was left out would be missing in the next version.
        """
        found = self._folders.get(base)
        if found is not None:
            self._folders.move_to_end(base)
            return found
        tree = decode_tree(read_tree_record(self._chunks, base.tree))
        _, problems = judge_entries(tree)
        if problems:
            name, problem = problems[0]
            message = f"the folder {base.tree.hex()} of a live folder is damaged: entry {name!r}: {problem}"
            raise CorruptionError(message, hint="run `yester check`")
        found = BaseFolder(tree.entries, decode_table(read_tree_record(self._chunks, base.table), tree))
        self._folders[base] = found
        self._entries += len(found.entries) + 1
        while self._entries > self._entries_max and len(self._folders) > 1:
            _, dropped = self._folders.popitem(last=False)
            self._entries -= len(dropped.entries) + 1
        return found

    def known(self, base: FolderBase) -> BaseFolder | None:
        """A folder, if it is kept decoded."""
        return self._folders.get(base)

    def read(self, content: Content, offset: int, count: int) -> bytes:
        """Bytes of a file's base, all of which it has.

        Raises:
            CorruptionError: they cannot be read.
        """
        reader = self._files.get(content)
        if reader is None:
            if len(self._files) >= _FILES_KEPT:
                self._files.popitem(last=False)
            reader = self._files[content] = FileReader(self._chunks, content, SIZE_MAX)
        else:
            self._files.move_to_end(content)
        data = bytes(reader.read(offset, count))
        assert len(data) == count
        return data


def _name_of(entry: Entry) -> bytes:
    return entry.name

# SPDX-License-Identifier: MIT
"""Storing and reading directory trees.

A tree record larger than a chunk is stored as a file of that size would be: cut into chunks under a span list, so that a
change in a folder of 100,000 files stores one chunk and not the whole record again (docs/format.md §5).
"""

import logging
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from yester.core.chunking import Chunker, ChunkParams
from yester.core.content import LIST_MAGIC, Content, ContentBuilder, iter_spans
from yester.core.ids import ChunkId, TreeId
from yester.core.records import Entry, Tree, decode_tree, encode_tree, entry_problem
from yester.errors import CorruptionError, FormatError, LimitError, NotFoundError, YesterError
from yester.store.chunks import ChunkSource

TREE_BYTES_MAX = 512 * 1024 * 1024
"""No larger tree record is written, or believed: a folder of some five million files."""

_PARTS_MAX = 1 << 17
"""Of a tree record: sixteen times what the largest has with chunks of the usual sizes."""

CACHE_ENTRIES = 50_000
"""Decoded entries a reader keeps, about 500 bytes each."""

_log = logging.getLogger(__name__)


def store_tree(tree: Tree, params: ChunkParams, store: Callable[[bytes | memoryview], ChunkId]) -> TreeId:
    """Store a tree by way of `store`, which keeps one chunk of trees, and return its id.

    Raises:
        LimitError: the tree has more entries than can be read again.
    """
    record = encode_tree(tree)
    if len(record) > TREE_BYTES_MAX:
        first, last = (tree.entries[index].name.decode("utf-8", "backslashreplace") for index in (0, -1))
        message = (
            f"a folder of {len(tree.entries)} names, from {first!r} to {last!r}, is larger than a store can hold; nothing was published"
        )
        raise LimitError(message, hint="divide it into several folders, or leave it out with --exclude")
    return TreeId(store_record(record, params, store))


def store_record(record: bytes, params: ChunkParams, store: Callable[[bytes | memoryview], ChunkId]) -> ChunkId:
    """Store the record of a folder, a tree or a node table, in parts if it is larger than a chunk, and return its id."""
    if len(record) <= params.max_bytes:
        return store(record)
    builder = ContentBuilder(store)
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        piece = record[position : position + count]
        position += len(piece)
        return piece

    for chunk in Chunker(params).cut(read):
        builder.add(store(chunk), len(chunk))
    content = builder.finish()
    return store(LIST_MAGIC + bytes([content.level]) + content.spans)


def read_tree_record(chunks: ChunkSource, tree: ChunkId) -> bytes:
    """The encoded tree (or node table) of an id, put together if it is stored in parts.

    Raises:
        CorruptionError: it, or a part of it, is missing or damaged.
    """
    record = bytes(chunks.read(tree))
    if record[:1] != LIST_MAGIC:
        return record
    content = Content(record[1] if len(record) > 1 else 0, record[2:])
    found = bytearray()
    for count, span in enumerate(iter_spans(content, chunks.read)):
        if len(found) + span.length > TREE_BYTES_MAX or count >= _PARTS_MAX:
            message = f"the directory record {tree.hex()} claims to be larger than any can be"
            raise CorruptionError(message)
        part = chunks.read(span.chunk)
        if len(part) != span.length:
            message = f"a part of the directory record {tree.hex()} has {len(part)} bytes where {span.length} are stated"
            raise CorruptionError(message)
        found += part
    return bytes(found)


def judge_entries(tree: Tree) -> tuple[tuple[Entry, ...], list[tuple[bytes, str]]]:
    """The entries that may be shown, and the name and reason of each that may not."""
    problems = []
    good = []
    previous = b""
    for entry in tree.entries:
        problem = entry_problem(entry)
        if not problem and entry.name <= previous:
            problem = "its name stands twice or out of order"
        if problem:
            problems.append((entry.name, problem))
        else:
            good.append(entry)
            previous = entry.name
    return tuple(good), problems


class TreeReader:
    """Reads trees, keeping recently used ones decoded. Not thread-safe: it shares its chunk reader's thread."""

    def __init__(self, chunks: ChunkSource, *, cache_entries: int = CACHE_ENTRIES) -> None:
        self.chunks = chunks
        self._cache: OrderedDict[TreeId, Tree] = OrderedDict()
        self._cache_entries = 0
        self._cache_entries_max = cache_entries

    def read(self, tree: TreeId) -> Tree:
        """The tree; entries that must not be shown are left out and logged.

        Raises:
            CorruptionError: it is missing or damaged.
        """
        found = self._cache.get(tree)
        if found is not None:
            self._cache.move_to_end(tree)
            return found
        decoded = decode_tree(read_tree_record(self.chunks, tree))
        good, problems = judge_entries(decoded)
        if problems:
            for name, problem in problems:
                _log.warning("entry %r of directory %s is left out: %s", name, tree.hex(), problem)
            decoded = msgspec.structs.replace(decoded, entries=good)
        self._cache[tree] = decoded
        self._cache_entries += len(decoded.entries) + 1
        while self._cache_entries > self._cache_entries_max and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cache_entries -= len(dropped.entries) + 1
        return decoded

    def find(self, directory: Entry, path: bytes) -> Entry | None:
        """The entry at a relative path below a directory; None if there is none. An empty path is the directory itself."""
        entry = directory
        for name in path.split(b"/") if path else ():
            if not stat.S_ISDIR(entry.mode):
                return None
            child = find_entry(self.read(entry.tree), name)
            if child is None:
                return None
            entry = child
        return entry

    def get(self, directory: Entry, path: bytes) -> Entry:
        """As `find`, but it must be there.

        Raises:
            NotFoundError: it is not.
        """
        entry = self.find(directory, path)
        if entry is None:
            message = f"there is no {path.decode('utf-8', 'backslashreplace')!r} in this snapshot"
            raise NotFoundError(message)
        return entry


def iter_below(
    trees: TreeReader, folder: Entry, path: bytes, *, recursive: bool, on_damage: Callable[[bytes, YesterError], None] | None = None
) -> Iterator[tuple[bytes, Entry]]:
    """The entries of a folder, and with `recursive` of all below it, each with its path below `path`, in order.

    A folder further down that cannot be read comes without what it holds; `on_damage` hears of it, else it is logged.

    Raises:
        CorruptionError, FormatError: `folder` itself cannot be read.
    """
    waiting = [(path, folder)]
    while waiting:
        at, entry = waiting.pop()
        if entry is not folder:
            yield at, entry
        if stat.S_ISDIR(entry.mode) and (entry is folder or recursive):
            try:
                children = trees.read(entry.tree).entries
            except (CorruptionError, FormatError) as error:
                if entry is folder:
                    raise
                (on_damage or _log_damage)(at, error)
                continue
            waiting += [(at + b"/" + child.name if at else child.name, child) for child in reversed(children)]


def _log_damage(path: bytes, error: YesterError) -> None:
    _log.warning("what is in the folder %s is left out: %s", path.decode("utf-8", "backslashreplace"), error.message)


def find_entry(tree: Tree, name: bytes) -> Entry | None:
    """The entry of that name; None if there is none. Binary search: entries are sorted."""
    entries = tree.entries
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].name < name:
            low = middle + 1
        else:
            high = middle
    return entries[low] if low < len(entries) and entries[low].name == name else None

# SPDX-License-Identifier: MIT
"""Storing a file of a live folder for a version: only around what changed (docs/adr/0007).

The chunks of the base that no written range touches are taken over as they are. What lies between is cut anew from the
boundary of an old chunk on, and as soon as a cut falls on the boundary of an old chunk again, all that follows up to the next
written range is as it was: cutting depends on nothing before a boundary. So the chunks are those that a backup of the whole
file would make of it, and a write into a large file costs a chunk or two.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from yester.core.chunking import Chunker
from yester.core.content import EMPTY, HOLE, Content, ContentBuilder, Span, iter_spans
from yester.core.extents import Extent, ExtentMap
from yester.core.ids import ChunkId

HOLE_BYTES_MIN = 64 * 1024
"""Shorter runs of zeros that nobody wrote are stored as bytes: a hole cuts a file in three."""


class FileCut(NamedTuple):
    """A file as it was at an instant: its base, as much of it as counts, and what was written over it, in order."""

    size: int
    base: Content
    base_bytes: int
    extents: tuple[Extent, ...]


class StoredFile(NamedTuple):
    """What a file was stored as. `hole_bytes` of it are holes."""

    content: Content
    hole_bytes: int


class FileStorer:
    """Stores files. `load` gives span lists, `read_base` and `read_extent` bytes; the others store a chunk. Not thread-safe."""

    def __init__(
        self,
        chunker: Chunker,
        *,
        load: Callable[[ChunkId], bytes | memoryview],
        read_base: Callable[[Content, int, int], bytes],
        read_extent: Callable[[Extent], bytes],
        store_data: Callable[[bytes | memoryview], ChunkId],
        store_list: Callable[[bytes], ChunkId],
    ) -> None:
        self._chunker = chunker
        self._load = load
        self._read_base = read_base
        self._read_extent = read_extent
        self._store_data = store_data
        self._store_list = store_list

    def store(self, file: FileCut) -> StoredFile:
        """Store a file. O(spans of its base + bytes of the chunks that are cut anew) time, O(chunk) memory besides the spans.

        Raises:
            CorruptionError: the base cannot be read. StoreFullError, StoreAccessError: nothing more can be stored.
        """
        if not file.size:
            return StoredFile(EMPTY, 0)
        layout = _Layout(file, list(iter_spans(file.base, self._load)) if file.base_bytes else [])
        pieces = ExtentMap(base_bytes=file.base_bytes, size=file.size, extents=file.extents)
        builder = ContentBuilder(self._store_list)
        position = hole_bytes = 0
        while position < file.size:
            kept = layout.kept_span(position)
            for span in (kept,) if kept is not None else self._cut(file.base, pieces, layout, position):
                hole_bytes += span.length if span.chunk == HOLE else 0
                builder.add(*span)
                position += span.length
        return StoredFile(builder.finish(), hole_bytes)

    def _cut(self, base: Content, pieces: ExtentMap, layout: "_Layout", start: int) -> Iterator[Span]:
        """Cut anew from `start` on, up to where a hole or what is kept begins."""
        position, end = start, layout.next_hole(start)

        def read(count: int) -> bytes:
            nonlocal position
            data = self._read(base, pieces, position, min(end, position + count))
            position += len(data)
            return data

        for chunk in self._chunker.cut(read, is_short=bool(layout.bounds)):
            # A copy where the chunk is a small part of what was read: the writer keeps it until it is compressed.
            yield Span(self._store_data(bytes(chunk)), len(chunk))
            start += len(chunk)
            if layout.is_kept(start):
                return

    def _read(self, base: Content, pieces: ExtentMap, start: int, end: int) -> bytes:
        found = []
        for piece in pieces.pieces(start, end):
            if piece.extent is not None:
                found.append(self._read_extent(piece.extent))
            else:
                found.append(self._read_base(base, piece.offset, piece.length) if piece.is_base else bytes(piece.length))
        return b"".join(found)


class _Layout:
    """Which spans of a base are kept, by where they begin, and where the holes are that are neither of the base nor written."""

    def __init__(self, file: FileCut, spans: list[Span]) -> None:
        self.bounds = list(accumulate((span.length for span in spans), initial=0)) if spans else []
        self._spans = spans
        self._file = file
        self._ends = [extent.end for extent in file.extents]
        self._holes = [index for index, span in enumerate(spans) if span.chunk == HOLE and self.is_kept(self.bounds[index])]
        self._first_gap = self._next_gap(file.base_bytes)

    def kept_span(self, position: int) -> Span | None:
        """The span that begins here and is to be taken over, or the hole; None if bytes are to be cut here."""
        if self.is_kept(position):
            return self._spans[bisect_left(self.bounds, position)]
        end = self._gap_end(position)
        return Span(HOLE, end - position) if end - position >= HOLE_BYTES_MIN else None

    def is_kept(self, position: int) -> bool:
        """Whether a span of the base begins here that is as it was."""
        index = bisect_left(self.bounds, position)
        if index >= len(self._spans) or self.bounds[index] != position:
            return False
        end = self.bounds[index + 1]
        following = bisect_right(self._ends, position)
        # The byte after a chunk had a say in where it was cut.
        is_written = following < len(self._ends) and self._file.extents[following].offset <= end
        # The last chunk ends with the file and not at a cut: where the file goes on, so may the chunk.
        is_cut_off = end > self._file.base_bytes or (index + 1 == len(self._spans) and end < self._file.size)
        return not is_cut_off and not is_written

    def next_hole(self, position: int) -> int:
        """Where bytes that are cut from here on must end: at a hole, kept or new, or at the end of the file."""
        if position >= self._file.base_bytes:
            return self._next_gap(position)
        at = bisect_right(self._holes, bisect_left(self.bounds, position) - 1)
        return self.bounds[self._holes[at]] if at < len(self._holes) else self._first_gap

    def _next_gap(self, start: int) -> int:
        """Where the next hole that is neither of the base nor written begins, or the file ends. `start` is not before the base's end."""
        following = bisect_right(self._ends, start)
        while start < self._file.size:
            gap_end = self._gap_end(start)
            if gap_end - start >= HOLE_BYTES_MIN:
                return start
            start = gap_end
            if following < len(self._ends):
                start = max(start, self._ends[following])
                following += 1
        return self._file.size

    def _gap_end(self, position: int) -> int:
        """Where a run of zeros that nobody wrote, which begins here, ends; `position` itself if none does."""
        if position < self._file.base_bytes:
            return position
        following = bisect_right(self._ends, position)
        until = self._file.extents[following].offset if following < len(self._ends) else self._file.size
        return max(position, until)

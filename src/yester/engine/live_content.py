# SPDX-License-Identifier: MIT
"""Storing a file of a live folder for a version: only around what changed (docs/adr/0007).

The chunks of the base that no written range touches are taken over as they are. Of a chunk in which little was written, what
was not is taken over as slices, and only the rest is stored: a database in which a hundred pages change costs a hundred pages.
Where more was written, all is cut anew from the boundary of an old chunk on, and as soon as a cut falls on the boundary of an
old chunk again, what follows is as it was: cutting depends on nothing before a boundary, so these are the chunks that a backup of
the whole file would make.

Slices wear: each change leaves more and shorter ones. Where many have become too short, they are cut anew as well; by then as
much was written there as is stored again, so all in all a file costs at most about three times what is written into it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from yester.core.chunking import Chunker, ChunkParams
from yester.core.content import EMPTY, HOLE, Content, ContentBuilder, Span, iter_spans
from yester.core.extents import Extent, ExtentMap, Piece
from yester.core.ids import ChunkId

HOLE_BYTES_MIN = 64 * 1024
"""Shorter runs of zeros that nobody wrote are stored as bytes: a hole cuts a file in three."""

DIRTY_SHARE_MAX = 0.25
"""Of a chunk: where more of it was written, the whole is cut anew."""
_PARTS_IN_CHUNK = 8
"""A slice has at least this part of the smallest chunk, 8 KiB: a shorter one saves less than it costs to find."""
_WORN_SPANS = 64
"""So many short spans after each other, of half as much on the average, are cut anew."""


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


def read_pieces(pieces: Iterable[Piece], read_base: Callable[[int, int], bytes], read_extent: Callable[[Extent], bytes]) -> bytes:
    """The bytes of a run of a file's pieces; `read_base` takes an offset and a length."""
    found = []
    for piece in pieces:
        if piece.extent is not None:
            found.append(read_extent(piece.extent))
        else:
            found.append(read_base(piece.offset, piece.length) if piece.is_base else bytes(piece.length))
    return b"".join(found) if len(found) != 1 else found[0]


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
        is_lost: Callable[[ChunkId], bool] = lambda _chunk: False,
    ) -> None:
        """`is_lost` says of a chunk of a base whether its bytes are known to be gone."""
        self._chunker = chunker
        self._is_lost = is_lost
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
        spans = list(iter_spans(file.base, self._load)) if file.base_bytes else []
        layout = _Layout(file, spans, self._chunker.params, self._is_lost)
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
        position, end = start, layout.next_stop(start)

        def read(count: int) -> bytes:
            nonlocal position
            found = pieces.pieces(position, min(end, position + count))
            data = read_pieces(found, partial(self._read_base, base), self._read_extent)
            position += len(data)
            return data

        for chunk in self._chunker.cut(read, is_short=layout.keeps_anything):
            # A copy where the chunk is a small part of what was read: the writer keeps it until it is compressed.
            yield Span(self._store_data(bytes(chunk)), len(chunk))
            start += len(chunk)
            if layout.is_kept(start):
                return


class _Layout:
    """Which parts of a file are taken over from its base, by where they begin, and where holes are that are neither of it nor written."""

    def __init__(self, file: FileCut, spans: list[Span], params: ChunkParams, is_lost: Callable[[ChunkId], bool]) -> None:
        self._file = file
        self._is_lost = is_lost
        self._ends = [extent.end for extent in file.extents]
        self._part_bytes_min = params.min_bytes // _PARTS_IN_CHUNK
        self._kept: dict[int, Span] = {}
        self._stops: list[int] = []
        """Where bytes that are cut must end, in order: at holes and slices. At chunks they may."""
        worn = _worn(spans, params)
        start = 0
        for index, span in enumerate(spans):
            if start >= file.base_bytes:
                break
            if index not in worn or (span.chunk != HOLE and is_lost(span.chunk)):
                self._keep(start, span, is_last=index == len(spans) - 1)
            start += span.length
        self._first_gap = self._next_gap(file.base_bytes)

    @property
    def keeps_anything(self) -> bool:
        """Whether any part is taken over: then what is cut ends soon."""
        return bool(self._kept)

    def kept_span(self, position: int) -> Span | None:
        """What begins here and is to be taken over, or the hole; None if bytes are to be cut here."""
        kept = self._kept.get(position)
        if kept is not None:
            return kept
        end = self._gap_end(position)
        return Span(HOLE, end - position) if end - position >= HOLE_BYTES_MIN else None

    def is_kept(self, position: int) -> bool:
        """Whether a part that is taken over begins here."""
        return position in self._kept

    def next_stop(self, position: int) -> int:
        """Where bytes that are cut from here on must end."""
        at = bisect_right(self._stops, position)
        if at < len(self._stops):
            return self._stops[at]
        return self._next_gap(position) if position >= self._file.base_bytes else self._first_gap

    def _keep(self, start: int, span: Span, *, is_last: bool) -> None:
        """Take over of a span of the base what can be."""
        end = start + span.length
        stop = min(end, self._file.base_bytes)
        following = bisect_right(self._ends, start)
        # The byte after a chunk had a say in where it was cut, and the last ends with the file and not at a cut.
        is_touched = following < len(self._ends) and self._file.extents[following].offset <= end
        is_open = is_last and end < self._file.size and span.chunk != HOLE
        if stop == end and not is_touched and not is_open:
            # What is cut before a lost chunk must not read on into it.
            self._put(start, span, is_stop=span.chunk == HOLE or span.start is not None or self._is_lost(span.chunk))
            return
        clean = list(self._clean_parts(start, stop, following))
        dirty_bytes = span.length - sum(part_end - part_start for part_start, part_end in clean)
        if span.chunk == HOLE:
            parts = [Span(HOLE, part_end - part_start) for part_start, part_end in clean]
            bytes_min = HOLE_BYTES_MIN
        elif (is_lost := self._is_lost(span.chunk)) or 0 < dirty_bytes <= span.length * DIRTY_SHARE_MAX:
            # Of a chunk that is lost every byte nobody wrote over is taken over: it cannot be read, but what it was stays known.
            first = (span.start or 0) - start
            parts = [Span(span.chunk, part_end - part_start, first + part_start) for part_start, part_end in clean]
            bytes_min = 1 if is_lost else self._part_bytes_min
        else:
            return
        for (part_start, _), part in zip(clean, parts, strict=True):
            if part.length >= bytes_min:
                self._put(part_start, part, is_stop=True)

    def _put(self, start: int, span: Span, *, is_stop: bool) -> None:
        self._kept[start] = span
        if is_stop:
            self._stops.append(start)

    def _clean_parts(self, start: int, stop: int, following: int) -> Iterator[tuple[int, int]]:
        """What from `start` to `stop` no extent covers. `following` is the first extent that ends behind `start`."""
        extents = self._file.extents
        while start < stop:
            until = min(stop, extents[following].offset) if following < len(extents) else stop
            if until > start:
                yield start, until
            if following == len(extents):
                return
            start = max(start, extents[following].end)
            following += 1

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


def _worn(spans: list[Span], params: ChunkParams) -> set[int]:
    """The spans that are too short, among others that are, to be taken over once more."""
    worn: set[int] = set()
    run: list[int] = []
    for index, span in enumerate(spans):
        if span.chunk != HOLE and (span.start is not None or span.length < params.min_bytes):
            run.append(index)
        else:
            run = []
        if len(run) == _WORN_SPANS:
            if sum(spans[at].length for at in run) < _WORN_SPANS * params.min_bytes // _PARTS_IN_CHUNK // 2:
                worn.update(run)
            run = []
    return worn

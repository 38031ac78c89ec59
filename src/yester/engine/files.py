# SPDX-License-Identifier: MIT
"""Reading the bytes of stored files."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from yester.core.content import HOLE, Content, Span, iter_spans, read_list, unpack_spans
from yester.errors import CorruptionError
from yester.store.chunks import ChunkSource

HOLE_PIECE_BYTES = 1024 * 1024
LISTS_KEPT = 4
"""Span lists a `FileReader` keeps: sequential reading needs one a level."""


class FileReader:
    """Random access to one stored file. Not thread-safe: it shares its chunk source's thread.

    Opening costs nothing: the spans of a small file are in its directory entry, those of a large one are loaded list by
    list where they are read. Nothing grows with the size of the file.
    """

    def __init__(self, chunks: ChunkSource, content: Content, size: int) -> None:
        self._chunks = chunks
        self._size = size
        self._top = _SpanTable(content)
        self._lists: dict[tuple[int, Span], _SpanTable] = {}

    def read(self, offset: int, count: int) -> bytes | memoryview:
        """Up to `count` bytes from `offset`; fewer only at the end of the file. Holes read as zeros.

        A view of a chunk where one chunk holds it all (the usual case, without a copy), else joined bytes.

        Raises:
            CorruptionError: a chunk of this range, or a list that leads to it, is missing or damaged.
        """
        end = min(self._size, offset + count)
        if offset >= end:
            return b""
        piece = self._read_run(offset, end)
        if len(piece) == end - offset:
            return piece
        pieces = [piece]
        position = offset + len(piece)
        while position < end:
            piece = self._read_run(position, end)
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)

    def _read_run(self, offset: int, end: int) -> bytes | memoryview:
        """The bytes from `offset` to `end` or the end of the chunk, at least one."""
        table, inner = self._top, offset
        while True:
            index = bisect_right(table.bounds, inner) - 1
            if index >= len(table.spans):
                message = f"the content list of a file ends at {table.bounds[-1]} bytes, before the {self._size} it should have"
                raise CorruptionError(message)
            span = table.spans[index]
            inner -= table.bounds[index]
            count = min(span.length - inner, end - offset)
            if span.chunk == HOLE:
                return bytes(min(count, HOLE_PIECE_BYTES))
            if table.level == 0:
                break
            table = self._load_list(table.level, span)
        return span.of(self._chunks.read(span.chunk))[inner : inner + count]

    def _load_list(self, level: int, span: Span) -> "_SpanTable":
        # Taken out and put back, so that the one that was needed longest ago is dropped first.
        table = self._lists.pop((level, span), None)
        if table is None:
            table = _SpanTable(read_list(span, level, self._chunks.read))
            if table.bounds[-1] != span.length:
                message = f"a span list covers {table.bounds[-1]} bytes where {span.length} are stated"
                raise CorruptionError(message)
            if len(self._lists) >= LISTS_KEPT:
                del self._lists[next(iter(self._lists))]
        self._lists[level, span] = table
        return table


class _SpanTable:
    """Decoded spans of one list, with the file offset at which each begins, and the end."""

    def __init__(self, content: Content) -> None:
        self.level = content.level
        self.spans = unpack_spans(content.spans)
        self.bounds = list(accumulate((span.length for span in self.spans), initial=0))


def iter_pieces(chunks: ChunkSource, content: Content) -> Iterator[tuple[int, memoryview | None]]:
    """A file's content in order: length and bytes of each run, None for a hole. Each view is at most a chunk.

    Raises:
        CorruptionError: a chunk or list is missing or damaged.
    """
    for span in iter_spans(content, chunks.read):
        if span.chunk == HOLE:
            yield span.length, None
            continue
        yield span.length, span.of(chunks.read(span.chunk))

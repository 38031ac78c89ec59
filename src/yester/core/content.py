# SPDX-License-Identifier: MIT
"""A file's content: spans, and lists of spans for large files (docs/format.md §4).

A *span* is 40 bytes: a chunk id and the number of file bytes it stands for; the zero id is a hole. It stands for the whole chunk, or
is a *slice* that stands for a part: so a few bytes that change in a file need not have their whole chunk stored again. A file of a few
chunks carries its spans inline in its directory entry (level 0). A larger one carries spans that name *span lists*
(level 1), each a chunk holding spans of the level below, and so on: 100 GB needs level 2. Lists are cut by content, as
chunks are, so an insertion near the front of a huge file rewrites one list and not all that follow.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from yester.core.ids import ID_BYTES, ChunkId
from yester.errors import CorruptionError

SPAN_BYTES = ID_BYTES + 8
HOLE = ChunkId(bytes(ID_BYTES))
"""The id in a span that stands for zeros nobody stored. BLAKE3 of no known input."""

INLINE_SPANS_MAX = 8
LIST_SPANS_MIN = 64
LIST_SPANS_MAX = 1024
LIST_CUT_MASK = 0xFF
"""A list ends after a span whose id's last byte is zero under this mask: 64 + 256 spans on average, 13 kB."""

LEVEL_MAX = 4
"""1024⁴ spans of at most 1 MiB: no file comes near; a stored level above it is damage."""

LIST_MAGIC = b"L"


_SLICE_FLAG = 1 << 63
_START_SHIFT = 43
_START_MAX = 2**20 - 1
_LENGTH_MASK = (1 << _START_SHIFT) - 1


class Span(NamedTuple):
    """`length` bytes of file, held by `chunk`; zeros where `chunk` is `HOLE`. A slice begins at `start` of the chunk."""

    chunk: ChunkId
    length: int
    start: int | None = None
    """None where it is no slice: then it stands for all of the chunk."""

    def fits(self, chunk_bytes: int) -> bool:
        """Whether a chunk of this length has what it stands for."""
        return chunk_bytes == self.length if self.start is None else chunk_bytes >= self.start + self.length

    def of(self, data: memoryview) -> memoryview:
        """The bytes it stands for, of those of its chunk.

        Raises:
            CorruptionError: the chunk has not as many as it should.
        """
        if self.fits(len(data)):
            return data if self.start is None else data[self.start : self.start + self.length]
        message = f"chunk {self.chunk.hex()} has {len(data)} bytes where a file needs {(self.start or 0) + self.length}"
        raise CorruptionError(message)


class Content(NamedTuple):
    """What a directory entry says of a file's bytes: `spans` are packed spans of `level`."""

    level: int
    spans: bytes


EMPTY = Content(0, b"")


def pack_span(chunk: ChunkId, length: int, start: int | None = None) -> bytes:
    """The 40 stored bytes of one span."""
    if start is not None:
        assert 0 <= start <= _START_MAX
        assert length <= _LENGTH_MASK
        length |= _SLICE_FLAG | start << _START_SHIFT
    return chunk + length.to_bytes(8, "little")


def unpack_span(chunk: bytes, number: int) -> Span:
    """The span of an id and the number after it: a length below 2^63, or a slice's length and start."""
    if number & _SLICE_FLAG:
        return Span(ChunkId(chunk), number & _LENGTH_MASK, number >> _START_SHIFT & _START_MAX)
    return Span(ChunkId(chunk), number)


def unpack_spans(packed: bytes | memoryview) -> list[Span]:
    """The spans in stored order.

    Raises:
        CorruptionError: not a whole number of spans, or a span of no bytes.
    """
    if len(packed) % SPAN_BYTES:
        message = f"a span list of {len(packed)} bytes is damaged"
        raise CorruptionError(message)
    data = bytes(packed)
    spans = []
    for at in range(0, len(data), SPAN_BYTES):
        span = unpack_span(data[at : at + ID_BYTES], int.from_bytes(data[at + ID_BYTES : at + SPAN_BYTES], "little"))
        if span.length == 0 or (span.start is not None and span.chunk == HOLE):
            message = "a span list names an empty span, or a part of a hole, and is damaged"
            raise CorruptionError(message)
        spans.append(span)
    return spans


def sole_span(level: int, packed: bytes) -> Span | None:
    """The span of a content that is one chunk, as that of nearly every small file is; None for any other."""
    if level != 0 or len(packed) != SPAN_BYTES:
        return None
    span = unpack_span(packed[:ID_BYTES], int.from_bytes(packed[ID_BYTES:], "little"))
    return None if span.chunk == HOLE or span.start is not None else span


def unpack_list(record: bytes | memoryview, *, level: int) -> list[Span]:
    """The spans of a stored span list that an entry or list of `level` names (so its spans are of `level - 1`).

    Raises:
        CorruptionError: not a list of that level.
    """
    if record[:2] != LIST_MAGIC + bytes([level - 1]):
        message = f"a chunk that should hold a span list of level {level - 1} does not"
        raise CorruptionError(message)
    return unpack_spans(record[2:])


class ContentBuilder:
    """Collects a file's spans front to back and gives its `Content`.

    `store_list` stores one span list and returns its id; it is called for children before parents. Memory stays at one
    open list a level however long the file is. A builder makes one content.
    """

    def __init__(self, store_list: Callable[[bytes], ChunkId]) -> None:
        self._store_list = store_list
        self._levels: list[_OpenList] = [_OpenList()]

    def add(self, chunk: ChunkId, length: int, start: int | None = None) -> None:
        """Append `length` bytes held by `chunk` (`HOLE` for zeros), all of it or from `start` on."""
        self._append(0, chunk, length, start)

    def finish(self) -> Content:
        """The content of all that was added."""
        level = 0
        while level + 1 < len(self._levels) or self._levels[level].count > INLINE_SPANS_MAX:
            self._close(level)
            level += 1
        return Content(level, bytes(self._levels[level].packed))

    def _append(self, level: int, chunk: ChunkId, length: int, start: int | None = None) -> None:
        if level == len(self._levels):
            self._levels.append(_OpenList())
        open_list = self._levels[level]
        open_list.packed += pack_span(chunk, length, start)
        open_list.file_bytes += length
        count = open_list.count
        if count >= LIST_SPANS_MAX or (count >= LIST_SPANS_MIN and not chunk[-1] & LIST_CUT_MASK):
            self._close(level)

    def _close(self, level: int) -> None:
        open_list = self._levels[level]
        if open_list.packed:
            self._levels[level] = _OpenList()
            list_id = self._store_list(LIST_MAGIC + bytes([level]) + open_list.packed)
            self._append(level + 1, list_id, open_list.file_bytes)


class _OpenList:
    """Spans of one level that no stored list holds yet."""

    def __init__(self) -> None:
        self.packed = bytearray()
        self.file_bytes = 0

    @property
    def count(self) -> int:
        return len(self.packed) // SPAN_BYTES


def iter_spans(content: Content, load: Callable[[ChunkId], bytes | memoryview]) -> Iterator[Span]:
    """Every level-0 span of a content, in file order. Loads one list a level at a time.

    Raises:
        CorruptionError: a list is not what it should be, or covers other than the bytes its span says.
    """
    for span in unpack_spans(content.spans):
        if content.level == 0:
            yield span
            continue
        covered = 0
        for inner in iter_spans(read_list(span, content.level, load), load):
            covered += inner.length
            yield inner
        if covered != span.length:
            message = f"a span list covers {covered} bytes where {span.length} are stated"
            raise CorruptionError(message)


def read_list(span: Span, level: int, load: Callable[[ChunkId], bytes | memoryview]) -> Content:
    """The content one level down that a span of `level` ≥ 1 names."""
    packed = bytes(load(span.chunk))
    unpack_list(packed, level=level)
    return Content(level - 1, packed[2:])

# SPDX-License-Identifier: MIT
"""Storing what changed of a file: the bytes are right, the chunks are those of the whole file, and little is stored."""

import random

from hypothesis import given
from hypothesis import strategies as st

from yester.core.chunking import Chunker, ChunkParams
from yester.core.content import EMPTY, HOLE, Content, iter_spans
from yester.core.extents import Extent, ExtentMap
from yester.core.ids import ChunkId, chunk_id
from yester.engine import live_content
from yester.engine.files import FileReader
from yester.engine.live_content import FileCut, FileStorer, StoredFile

PARAMS = ChunkParams(min_bytes=64, avg_bytes=256, max_bytes=1024)


class File:
    """A file that is written into and stored again and again, beside plain bytes."""

    def __init__(self) -> None:
        self.chunks: dict[ChunkId, bytes] = {}
        self.new_bytes = self.new_chunks = 0
        self.plain = bytearray()
        self.base = EMPTY
        self.map = ExtentMap(base_bytes=0, size=0)
        self.batch = bytearray()
        self.lost: set[ChunkId] = set()
        self.storer = FileStorer(
            Chunker(PARAMS),
            load=self.read_chunk,
            read_base=self.read_base,
            read_extent=lambda extent: bytes(self.batch[extent.position : extent.position + extent.length]),
            store_data=self.keep,
            store_list=self.keep,
            is_lost=lambda chunk: chunk in self.lost,
        )

    def read_chunk(self, chunk: ChunkId) -> memoryview:
        assert chunk not in self.lost
        return memoryview(self.chunks[chunk])

    def read(self, chunk: ChunkId) -> memoryview:
        return self.read_chunk(chunk)

    def read_base(self, content: Content, offset: int, count: int) -> bytes:
        return bytes(FileReader(self, content, offset + count).read(offset, count))

    def keep(self, data: bytes | memoryview) -> ChunkId:
        chunk = chunk_id(data)
        if chunk not in self.chunks:
            self.chunks[chunk] = bytes(data)
            self.new_bytes += len(data)
            self.new_chunks += 1
        return chunk

    def write(self, offset: int, data: bytes) -> None:
        self.plain.extend(bytes(max(0, offset - len(self.plain))))
        self.plain[offset : offset + len(data)] = data
        self.map.write(offset, len(data), 1, len(self.batch))
        self.batch += data

    def truncate(self, size: int) -> None:
        self.plain = self.plain[:size] + bytes(max(0, size - len(self.plain)))
        self.map.truncate(size)

    def store(self) -> StoredFile:
        """Store it, and go on from there."""
        self.new_bytes = self.new_chunks = 0
        stored = self.storer.store(FileCut(self.map.size, self.base, self.map.base_bytes, self.map.extents()))
        self.base = stored.content
        self.map = ExtentMap(base_bytes=self.map.size, size=self.map.size)
        return stored

    def content(self) -> bytes:
        return bytes(FileReader(self, self.base, len(self.plain)).read(0, len(self.plain)))


def pattern(length: int, seed: int) -> bytes:
    """Bytes that look random and are the same for the same seed."""
    return b"".join(chunk_id(b"%d %d" % (seed, at)) for at in range(-(-length // 32)))[:length]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 20_000), st.integers(1, 5000)),
        st.tuples(st.just("truncate"), st.integers(0, 25_000), st.just(0)),
        st.tuples(st.just("store"), st.just(0), st.just(0)),
    ),
    max_size=15,
)


@given(steps=STEPS, hole_bytes_min=st.sampled_from([200, 4096, 1 << 20]))
def test_what_is_stored_is_the_file(steps: list[tuple[str, int, int]], hole_bytes_min: int) -> None:
    file = File()
    before, live_content.HOLE_BYTES_MIN = live_content.HOLE_BYTES_MIN, hole_bytes_min
    try:
        for number, (what, where, length) in enumerate([*steps, ("store", 0, 0)]):
            if what == "write":
                file.write(where, pattern(length, number))
            elif what == "truncate":
                file.truncate(where)
            else:
                stored = file.store()
                assert file.content() == file.plain
                spans = list(iter_spans(stored.content, file.read_chunk))
                assert stored.hole_bytes == sum(span.length for span in spans if span.chunk == HOLE)
                assert sum(span.length for span in spans) == len(file.plain)
    finally:
        live_content.HOLE_BYTES_MIN = before


@given(steps=STEPS)
def test_without_slices_its_chunks_are_those_of_the_whole_file(steps: list[tuple[str, int, int]]) -> None:
    """So where much of a chunk was written, versions share all they can with backups of the same file."""
    file = File()
    before, live_content.HOLE_BYTES_MIN = live_content.HOLE_BYTES_MIN, 1 << 40
    share, live_content.DIRTY_SHARE_MAX = live_content.DIRTY_SHARE_MAX, 0.0
    try:
        for number, (what, where, length) in enumerate([*steps, ("store", 0, 0)]):
            if what == "write":
                file.write(where, pattern(length, number))
            elif what == "truncate":
                file.truncate(where)
            else:
                file.store()
        position = 0

        def read(count: int) -> bytes:
            nonlocal position
            piece = bytes(file.plain[position : position + count])
            position += len(piece)
            return piece

        whole = [chunk_id(chunk) for chunk in Chunker(PARAMS).cut(read)]
        assert [span.chunk for span in iter_spans(file.base, file.read_chunk)] == whole
    finally:
        live_content.HOLE_BYTES_MIN, live_content.DIRTY_SHARE_MAX = before, share


def test_a_small_write_into_a_large_file_stores_a_chunk_or_two() -> None:
    file = File()
    file.write(0, pattern(1_000_000, 1))
    file.store()
    for offset in (0, 500_000, 999_000):
        file.write(offset, b"changed")
        file.store()
        assert file.new_bytes < 30 * 1024, "a chunk or two, and the span lists above"
    assert file.content() == file.plain


def test_many_small_writes_cost_little_more_than_they_write() -> None:
    """Over many versions: slices wear, and are cut anew."""
    rng = random.Random(4)
    file = File()
    file.write(0, pattern(200_000, 1))
    file.store()
    stored = written = 0
    for number in range(300):
        for _ in range(5):
            file.write(rng.randrange(200_000 - 16), pattern(16, number))
            written += 16
        content = file.store().content
        stored += sum(len(data) for data in list(file.chunks.values())[-file.new_chunks :] if data[:1] != b"L") if file.new_chunks else 0
    assert file.content() == file.plain
    spans = list(iter_spans(content, file.read_chunk))
    assert stored < 4 * written, (stored, written)
    assert len(spans) < 200_000 / 8


def test_a_write_into_a_hole_leaves_the_rest_of_it() -> None:
    file = File()
    file.write(0, b"a")
    file.truncate(10_000_000)
    file.store()
    file.write(5_000_000, b"b" * 1000)
    stored = file.store()
    assert stored.hole_bytes == 10_000_000 - 1001
    assert file.content() == file.plain


def test_a_hole_between_two_written_ranges_stays_one() -> None:
    file = File()
    file.write(0, b"a" * 100)
    file.write(10_000_000, b"b" * 100)
    file.truncate(20_000_000)
    stored = file.store()
    assert stored.hole_bytes == 20_000_000 - 200
    assert file.new_bytes < 1000
    assert file.content() == file.plain


def test_an_extent_of_another_batch_is_read_from_there() -> None:
    read: list[Extent] = []

    def read_extent(extent: Extent) -> bytes:
        read.append(extent)
        return bytes([extent.batch]) * extent.length

    kept: dict[ChunkId, bytes] = {}

    def keep(data: bytes | memoryview) -> ChunkId:
        kept[chunk_id(data)] = bytes(data)
        return chunk_id(data)

    storer = FileStorer(
        Chunker(PARAMS), load=kept.__getitem__, read_base=lambda *_: b"", read_extent=read_extent, store_data=keep, store_list=keep
    )
    stored = storer.store(FileCut(20, EMPTY, 0, (Extent(0, 10, 3, 7), Extent(10, 10, 4, 0))))
    assert [kept[span.chunk] for span in iter_spans(stored.content, kept.__getitem__)] == [b"\3" * 10 + b"\4" * 10]
    assert read == [Extent(0, 10, 3, 7), Extent(10, 10, 4, 0)]


@given(
    st.integers(0, 20), st.lists(st.tuples(st.integers(0, 12_000), st.integers(1, 3000)), min_size=1, max_size=6), st.integers(0, 12_000)
)
def test_a_lost_chunk_of_the_base_costs_what_was_in_it_and_no_more(which: int, writes: list[tuple[int, int]], size: int) -> None:
    """The file can still be written, and stored; what was in the chunk and not written over stays lost, and is not read."""
    file = File()
    file.write(0, pattern(12_000, 1))
    file.store()
    spans = list(iter_spans(file.base, file.read_chunk))
    start = sum(span.length for span in spans[: which % len(spans)])
    lost = spans[which % len(spans)]
    kept = file.chunks.copy()
    file.lost = {lost.chunk}
    unread = set(range(start, start + lost.length)) & set(range(size))
    file.truncate(size)
    for number, (offset, length) in enumerate(writes):
        file.write(offset, pattern(length, number + 2))
        unread -= set(range(offset, offset + length))
    file.store()
    at = 0
    for span in iter_spans(file.base, file.read_chunk):
        positions = set(range(at, at + span.length))
        if span.chunk == lost.chunk:
            assert positions <= unread
            unread -= positions
            assert span.of(memoryview(kept[lost.chunk])) == pattern(12_000, 1)[at : at + span.length]
        elif span.chunk != HOLE:
            assert span.of(file.read_chunk(span.chunk)) == file.plain[at : at + span.length]
        at += span.length
    assert at == len(file.plain)
    assert not unread

# SPDX-License-Identifier: MIT
"""Reading stored files at random, against the bytes themselves."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.test_trees import Memory
from yester.core.content import EMPTY, HOLE, LIST_MAGIC, Content, ContentBuilder, pack_span
from yester.core.ids import chunk_id
from yester.engine.files import HOLE_PIECE_BYTES, LISTS_KEPT, FileReader, iter_pieces
from yester.errors import CorruptionError


def build(memory: Memory, runs: list[bytes | int]) -> tuple[Content, bytes]:
    """A content of chunks and of holes, which are given by their lengths; and its bytes."""
    builder = ContentBuilder(memory.store)
    for run in runs:
        if isinstance(run, int):
            builder.add(HOLE, run)
        else:
            builder.add(memory.store(run), len(run))
    return builder.finish(), b"".join(bytes(run) if isinstance(run, int) else run for run in runs)


RUNS = st.lists(st.binary(min_size=1, max_size=30) | st.integers(1, 50), max_size=30)


@given(runs=RUNS, ranges=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 1500)), min_size=1, max_size=10))
def test_every_range_reads_as_the_bytes(runs: list[bytes | int], ranges: list[tuple[int, int]]) -> None:
    memory = Memory()
    content, data = build(memory, runs)
    reader = FileReader(memory, content, len(data))
    for offset, count in [*ranges, (0, len(data)), (len(data), 1)]:
        assert bytes(reader.read(offset, count)) == data[offset : offset + count]


@given(runs=RUNS)
def test_all_pieces_in_order_are_the_bytes(runs: list[bytes | int]) -> None:
    memory = Memory()
    content, data = build(memory, runs)
    pieces = list(iter_pieces(memory, content))
    assert b"".join(bytes(length) if piece is None else bytes(piece) for length, piece in pieces) == data
    assert [length for length, _ in pieces] == [run if isinstance(run, int) else len(run) for run in runs]


@pytest.fixture(scope="module")
def large() -> tuple[Memory, Content, bytes]:
    """A file of 300,000 chunks under two levels of lists."""
    memory = Memory()
    content, data = build(memory, [b"%06d" % number for number in range(300_000)])
    return memory, content, data


def test_large_files_are_read_at_random(large: tuple[Memory, Content, bytes]) -> None:
    memory, content, data = large
    assert content.level == 2
    reader = FileReader(memory, content, len(data))
    luck = random.Random(1)
    for _ in range(300):
        offset, count = luck.randrange(len(data)), luck.choice([1, 10, 1000])
        assert bytes(reader.read(offset, count)) == data[offset : offset + count]
    assert len(reader._lists) <= LISTS_KEPT


def test_reading_in_order_loads_each_list_once(large: tuple[Memory, Content, bytes]) -> None:
    memory, content, data = large
    reader = FileReader(memory, content, len(data))
    memory.reads.clear()
    for offset in range(0, len(data), 4096):
        assert bytes(reader.read(offset, 4096)) == data[offset : offset + 4096]
    lists = [chunk for chunk in memory.reads if memory.chunks[chunk][:1] == LIST_MAGIC]
    assert len(lists) == len(set(lists))


def test_opening_reads_nothing(large: tuple[Memory, Content, bytes]) -> None:
    memory, content, data = large
    memory.reads.clear()
    FileReader(memory, content, len(data))
    assert memory.reads == []


def test_a_range_within_one_chunk_is_not_copied() -> None:
    memory = Memory()
    content, _ = build(memory, [b"0123456789"])
    piece = FileReader(memory, content, 10).read(2, 5)
    assert isinstance(piece, memoryview)
    assert bytes(piece) == b"23456"


def test_an_empty_file_is_empty() -> None:
    reader = FileReader(Memory(), EMPTY, 0)
    assert (reader.read(0, 10), reader.read(5, 1)) == (b"", b"")
    assert list(iter_pieces(Memory(), EMPTY)) == []


def test_a_hole_of_a_tebibyte_takes_no_memory() -> None:
    size = 1 << 40
    reader = FileReader(Memory(), Content(0, pack_span(HOLE, size)), size)
    assert reader.read(size - 5, 10) == bytes(5)
    assert reader.read(size // 2, 3 * HOLE_PIECE_BYTES) == bytes(3 * HOLE_PIECE_BYTES)
    assert list(iter_pieces(Memory(), Content(0, pack_span(HOLE, size)))) == [(size, None)]


# --- damage -----------------------------------------------------------------------------------------------------------


def read_all(memory: Memory, content: Content, size: int) -> None:
    with pytest.raises(CorruptionError):
        FileReader(memory, content, size).read(0, size)


def iterate_all(memory: Memory, content: Content) -> None:
    with pytest.raises(CorruptionError):
        list(iter_pieces(memory, content))


def test_missing_chunks_are_errors_where_they_are_and_only_there() -> None:
    memory = Memory()
    content, data = build(memory, [b"%03d" % number for number in range(400)])
    del memory.chunks[chunk_id(b"200")]
    reader = FileReader(memory, content, len(data))
    assert bytes(reader.read(0, 600)) == data[:600]
    assert bytes(reader.read(603, 1000)) == data[603:]
    with pytest.raises(CorruptionError):
        reader.read(599, 3)
    iterate_all(memory, content)


@pytest.mark.parametrize("length", [1, 4, 6, 1000])
def test_a_chunk_of_another_length_is_damage(length: int) -> None:
    memory = Memory()
    content = Content(0, pack_span(memory.store(b"12345"), length))
    read_all(memory, content, length)
    iterate_all(memory, content)


def test_a_content_that_ends_early_is_damage_and_no_zeros() -> None:
    memory = Memory()
    content, data = build(memory, [b"12345"])
    read_all(memory, content, len(data) + 1)
    read_all(memory, EMPTY, 1)


@pytest.mark.parametrize("spans", [b"short", pack_span(chunk_id(b"x"), 0), pack_span(chunk_id(b"x"), 5) + b"x"])
def test_what_is_no_list_of_spans_is_damage(spans: bytes) -> None:
    with pytest.raises(CorruptionError):
        FileReader(Memory(), Content(0, spans), 5)
    iterate_all(Memory(), Content(0, spans))


def test_lists_that_lie_are_damage() -> None:
    memory = Memory()
    data = memory.store(b"12345")
    inner = memory.store(LIST_MAGIC + b"\0" + pack_span(data, 5))
    for level, span in ((1, pack_span(inner, 6)), (2, pack_span(inner, 5)), (1, pack_span(data, 5)), (1, pack_span(chunk_id(b"gone"), 5))):
        read_all(memory, Content(level, span), 6)
        iterate_all(memory, Content(level, span))


def test_a_file_that_claims_more_levels_than_there_are_ends() -> None:
    memory = Memory()
    span = pack_span(memory.store(b"12345"), 5)
    for level in range(4):
        span = pack_span(memory.store(LIST_MAGIC + bytes([level]) + span), 5)
    assert bytes(FileReader(memory, Content(4, span), 5).read(0, 5)) == b"12345"
    read_all(memory, Content(5, span), 5)


def test_a_file_that_goes_through_the_same_list_often_is_read_where_it_is_asked() -> None:
    """Small lists can claim to be exabytes: reading costs what is asked for, and no more."""
    memory = Memory()
    data = memory.store(os.urandom(1000))
    span, length = pack_span(data, 1000), 1000
    for level in range(4):
        span, length = pack_span(memory.store(LIST_MAGIC + bytes([level]) + span * 1000), length * 1000), length * 1000
    reader = FileReader(memory, Content(4, span), length)
    memory.reads.clear()
    assert bytes(reader.read(length - 1000, 1000)) == memory.chunks[data]
    assert len(memory.reads) < 10

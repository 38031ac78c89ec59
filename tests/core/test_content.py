# SPDX-License-Identifier: MIT
"""Spans and span lists: what was added comes back, lists keep their bounds, and damage is noticed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yester.core.content import (
    EMPTY,
    HOLE,
    INLINE_SPANS_MAX,
    LIST_MAGIC,
    LIST_SPANS_MAX,
    LIST_SPANS_MIN,
    SPAN_BYTES,
    Content,
    ContentBuilder,
    Span,
    iter_spans,
    pack_span,
    read_list,
    sole_span,
    unpack_list,
    unpack_spans,
)
from yester.core.ids import ID_BYTES, ChunkId, chunk_id
from yester.errors import CorruptionError


class Lists(dict[ChunkId, bytes]):
    """Stored span lists by id."""

    def store(self, record: bytes) -> ChunkId:
        list_id = chunk_id(record)
        self[list_id] = record
        return list_id

    def load(self, list_id: ChunkId) -> bytes:
        return self[list_id]


def make_spans(count: int, seed: int = 0, *, holes: float = 0.0) -> list[Span]:
    """Random chunks, some of them holes."""
    rng = random.Random(seed)
    return [Span(HOLE if rng.random() < holes else ChunkId(rng.randbytes(ID_BYTES)), rng.randint(1, 2**20)) for _ in range(count)]


def build(spans: list[Span], lists: Lists) -> Content:
    builder = ContentBuilder(lists.store)
    for span in spans:
        builder.add(span.chunk, span.length)
    return builder.finish()


COUNTS = [0, 1, 2, 7, 8, 9, 10, 63, 64, 65, 100, 319, 320, 1000, 1024, 1025, 3000, 5000, 20_000]


@pytest.mark.parametrize("holes", [0.0, 0.1])
@pytest.mark.parametrize("count", COUNTS)
def test_spans_come_back_as_they_were_added(count: int, holes: float) -> None:
    lists = Lists()
    spans = make_spans(count, holes=holes)
    content = build(spans, lists)
    assert list(iter_spans(content, lists.load)) == spans
    assert len(content.spans) <= INLINE_SPANS_MAX * SPAN_BYTES
    assert sum(span.length for span in unpack_spans(content.spans)) == sum(span.length for span in spans)


@settings(max_examples=30)
@given(st.integers(0, 3000), st.integers(), st.sampled_from([0.0, 0.01, 0.5, 1.0]))
def test_spans_of_any_number_come_back(count: int, seed: int, holes: float) -> None:
    lists = Lists()
    spans = make_spans(count, seed, holes=holes)
    assert list(iter_spans(build(spans, lists), lists.load)) == spans


@given(st.lists(st.tuples(st.sampled_from([HOLE, ChunkId(bytes(31) + b"\1")]), st.integers(1, 2**63 - 1)), max_size=2000))
def test_spans_of_few_chunks_over_and_over_come_back(pairs: list[tuple[ChunkId, int]]) -> None:
    lists = Lists()
    spans = [Span(*pair) for pair in pairs]
    if sum(span.length for span in spans) < 2**63:
        assert list(iter_spans(build(spans, lists), lists.load)) == spans


@pytest.mark.parametrize(("count", "level"), [(0, 0), (1, 0), (8, 0), (9, 1), (1000, 1), (20_000, 2)])
def test_the_level_grows_with_the_number_of_spans(count: int, level: int) -> None:
    assert build(make_spans(count), Lists()).level == level


def test_a_file_of_no_spans_is_empty_content() -> None:
    lists = Lists()
    assert build([], lists) == EMPTY
    assert not lists


def test_lists_keep_their_bounds_but_for_the_last_of_each_level() -> None:
    lists = Lists()
    content = build(make_spans(20_000), lists)
    while content.level:
        counts = [len(unpack_list(lists[span.chunk], level=content.level)) for span in unpack_spans(content.spans)]
        assert all(LIST_SPANS_MIN <= count <= LIST_SPANS_MAX for count in counts[:-1])
        assert 1 <= counts[-1] <= LIST_SPANS_MAX
        below = b"".join(lists[span.chunk][2:] for span in unpack_spans(content.spans))
        content = Content(content.level - 1, below)


def test_lists_of_spans_that_never_end_one_are_cut_at_the_upper_bound() -> None:
    lists = Lists()
    build([Span(ChunkId(bytes(31) + b"\1"), 1)] * (3 * LIST_SPANS_MAX), lists)
    assert {len(unpack_list(record, level=1)) for record in lists.values()} == {LIST_SPANS_MAX}


def test_a_hole_of_many_spans_is_stored_as_one_list() -> None:
    lists = Lists()
    build([Span(HOLE, 2**20)] * 6400, lists)
    assert len(lists) <= 3


def test_lists_are_stored_before_what_names_them() -> None:
    seen = Lists()

    def store(record: bytes) -> ChunkId:
        if record[1]:
            assert all(span.chunk in seen for span in unpack_spans(record[2:]))
        return seen.store(record)

    builder = ContentBuilder(store)
    for span in make_spans(20_000):
        builder.add(span.chunk, span.length)
    assert all(span.chunk in seen for span in unpack_spans(builder.finish().spans))


def test_an_insertion_near_the_front_of_a_long_list_rewrites_few_lists() -> None:
    lists, changed = Lists(), Lists()
    spans = make_spans(20_000)
    build(spans, lists)
    build(spans[:10] + make_spans(3, seed=1) + spans[10:], changed)
    assert len(changed) > 40
    assert len(changed.keys() - lists.keys()) <= 6


def test_the_same_spans_are_the_same_content() -> None:
    assert build(make_spans(5000), Lists()) == build(make_spans(5000), Lists())


def test_only_the_lists_that_are_needed_are_loaded() -> None:
    lists = Lists()
    content = build(make_spans(20_000), lists)
    loaded: list[ChunkId] = []

    def load(list_id: ChunkId) -> bytes:
        loaded.append(list_id)
        return lists[list_id]

    next(iter_spans(content, load))
    assert len(loaded) == content.level


def damaged_list(record: bytes) -> dict[str, bytes]:
    spans = unpack_spans(record[2:])
    return {
        "empty": b"",
        "other magic": b"T" + record[1:],
        "other level": record[:1] + bytes([record[1] + 1]) + record[2:],
        "no magic": record[2:],
        "cut short": record[:-1],
        "one byte more": record + b"\0",
        "a span less": record[:-SPAN_BYTES],
        "a span more": record + pack_span(*spans[0]),
        "an empty span": record[:2] + pack_span(HOLE, 0) + record[2:],
        "a longer span": record[:2] + pack_span(spans[0].chunk, spans[0].length + 1) + record[2 + SPAN_BYTES :],
        "nothing but the header": record[:2],
    }


@pytest.mark.parametrize("damage", damaged_list(LIST_MAGIC + b"\0" + pack_span(HOLE, 1)))
@pytest.mark.parametrize("level", [1, 2])
def test_a_damaged_list_is_noticed(damage: str, level: int) -> None:
    lists = Lists()
    content = build(make_spans(20_000 if level == 2 else 1000), lists)
    assert content.level == level
    victim = unpack_spans(content.spans)[-1].chunk
    lists[victim] = damaged_list(lists[victim])[damage]
    with pytest.raises(CorruptionError):
        list(iter_spans(content, lists.load))


def test_a_list_that_is_missing_is_the_loaders_error() -> None:
    lists = Lists()
    content = build(make_spans(100), lists)
    with pytest.raises(KeyError):
        list(iter_spans(content, Lists().load))


def test_a_list_is_read_one_level_down() -> None:
    lists = Lists()
    spans = make_spans(50)
    (span,) = unpack_spans(build(spans, lists).spans)
    assert read_list(span, 1, lists.load) == Content(0, b"".join(pack_span(*one) for one in spans))
    with pytest.raises(CorruptionError):
        read_list(span, 2, lists.load)


@given(st.binary(max_size=200) | st.binary(min_size=2 * SPAN_BYTES, max_size=2 * SPAN_BYTES))
def test_bytes_are_spans_or_damage(packed: bytes) -> None:
    try:
        spans = unpack_spans(packed)
    except CorruptionError:
        return
    assert b"".join(pack_span(*span) for span in spans) == packed
    assert unpack_spans(memoryview(packed)) == spans


@given(st.binary(max_size=3 * SPAN_BYTES), st.integers(1, 4))
def test_bytes_are_a_list_or_damage(record: bytes, level: int) -> None:
    try:
        unpack_list(record, level=level)
    except CorruptionError:
        return
    assert record[:2] == LIST_MAGIC + bytes([level - 1])


def test_a_content_of_one_chunk_is_told_from_all_others() -> None:
    one = pack_span(chunk_id(b"1"), 5)
    assert sole_span(0, one) == Span(chunk_id(b"1"), 5)
    for level, packed in ((0, b""), (1, one), (0, one * 2), (0, pack_span(HOLE, 5)), (0, one[:-1])):
        assert sole_span(level, packed) is None


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_slice_stands_for_a_part_of_its_chunk(chunk: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(chunk) - 1))
    length = data.draw(st.integers(1, len(chunk) - start))
    packed = pack_span(chunk_id(chunk), length, start)
    assert sole_span(0, packed) is None
    [span] = unpack_spans(packed)
    assert span == Span(chunk_id(chunk), length, start)
    assert span.of(memoryview(chunk)) == chunk[start : start + length]
    with pytest.raises(CorruptionError, match="where a file needs"):
        span.of(memoryview(chunk)[: start + length - 1])
    with pytest.raises(CorruptionError, match="part of a hole"):
        unpack_spans(pack_span(HOLE, length, start))


def test_a_whole_chunk_is_no_longer_and_no_shorter_than_it_should_be() -> None:
    span = Span(chunk_id(b"12345"), 5)
    assert bytes(span.of(memoryview(b"12345"))) == b"12345"
    for data in (b"1234", b"123456"):
        with pytest.raises(CorruptionError):
            span.of(memoryview(data))

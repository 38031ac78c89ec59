# SPDX-License-Identifier: MIT
"""Cutting bytes into chunks: nothing is lost, reading in pieces changes nothing, and a change stays where it is."""

import random
from collections.abc import Callable
from io import BytesIO
from itertools import accumulate, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yester.core.chunking import CUTTING_SECRET_BYTES, KIB, Chunker, ChunkParams, secret_params
from yester.core.ids import chunk_id
from yester.errors import LimitError

SMALL = ChunkParams(64, 256, 1024)
"""As small as it goes: many chunks from few bytes."""


def cut(data: bytes, params: ChunkParams = SMALL) -> list[bytes]:
    return [bytes(chunk) for chunk in Chunker(params).cut(BytesIO(data).read)]


def reader_in_pieces(data: bytes, lengths: list[int]) -> Callable[[int], bytes]:
    """Reads at most the next of `lengths` at once, over and over."""
    file = BytesIO(data)
    turn = 0

    def read(length: int) -> bytes:
        nonlocal turn
        turn += 1
        return file.read(min(length, lengths[turn % len(lengths)]))

    return read


def random_data(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


data_like_files = st.one_of(
    st.binary(max_size=200),
    st.builds(random_data, st.integers(0, 9), st.integers(0, 20_000)),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=100), st.integers(0, 200)),
)


@given(data_like_files)
def test_chunks_joined_are_the_input(data: bytes) -> None:
    assert b"".join(cut(data)) == data


@given(data_like_files)
def test_every_chunk_keeps_the_bounds_and_only_the_last_may_be_shorter(data: bytes) -> None:
    lengths = [len(chunk) for chunk in cut(data)]
    assert all(SMALL.min_bytes <= length <= SMALL.max_bytes for length in lengths[:-1])
    assert all(0 < length <= SMALL.max_bytes for length in lengths)


@settings(max_examples=50)
@given(data_like_files, st.lists(st.integers(1, 5000), min_size=1, max_size=5))
def test_chunks_do_not_depend_on_how_the_stream_was_read_in_pieces(data: bytes, lengths: list[int]) -> None:
    in_pieces = [bytes(chunk) for chunk in Chunker(SMALL).cut(reader_in_pieces(data, lengths))]
    assert in_pieces == cut(data)


@pytest.mark.parametrize(
    "length", [1, SMALL.min_bytes, SMALL.min_bytes + 1, 4 * SMALL.max_bytes - 1, 4 * SMALL.max_bytes, 4 * SMALL.max_bytes + 1]
)
def test_lengths_at_which_something_begins_are_cut_like_all_others(length: int) -> None:
    data = random_data(1, length)
    assert b"".join(cut(data)) == data
    assert [bytes(chunk) for chunk in Chunker(SMALL).cut(reader_in_pieces(data, [1]))] == cut(data)


def test_an_empty_stream_gives_no_chunk() -> None:
    assert cut(b"") == []


@pytest.mark.parametrize("seed", range(10))
def test_a_changed_byte_changes_few_chunks(seed: int) -> None:
    data = random_data(seed, 100_000)
    at = random.Random(seed).randrange(len(data))
    before = {chunk_id(chunk) for chunk in cut(data)}
    for changed in (data[:at] + b"!" + data[at:], data[:at] + data[at + 1 :], data[:at] + b"\0\0" + data[at + 2 :]):
        new = [chunk for chunk in cut(changed) if chunk_id(chunk) not in before]
        assert len(new) <= 6
    assert len(before) > 200


def test_one_chunker_cuts_many_files_alike() -> None:
    chunker = Chunker(SMALL)
    data = random_data(1, 10_000)
    abandoned = chunker.cut(BytesIO(data).read)
    next(abandoned)
    assert [bytes(chunk) for chunk in chunker.cut(BytesIO(data).read)] == cut(data)


def test_a_chunk_stays_valid_while_somebody_holds_it() -> None:
    data = random_data(2, 50_000)
    assert b"".join(list(Chunker(SMALL).cut(BytesIO(data).read))) == data


def test_cuts_are_the_same_on_every_machine_and_release() -> None:
    lengths = [len(chunk) for chunk in cut(random_data(7, 3000))]
    assert lengths == [170, 259, 296, 74, 267, 87, 424, 381, 300, 277, 102, 158, 205]
    lengths = [len(chunk) for chunk in cut(random_data(7, 2_000_000), ChunkParams())]
    assert lengths == [264465, 269475, 176658, 137620, 285505, 288350, 289407, 288520]


@pytest.mark.parametrize(
    "sizes",
    [
        *((63, 256, 1024), (0, 256, 1024), (-1, 256, 1024), (512, 256, 1024), (64, 2048, 1024)),
        *((64, 300, 1024), (64, 128, 1024), (64, 256, 1023), (64, 256, 2048 * KIB)),
    ],
)
def test_sizes_that_cannot_be_used_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(LimitError):
        ChunkParams(*sizes)


@pytest.mark.parametrize("sizes", [(64, 256, 1024), (256, 256, 1024), (1024, 1024, 1024), (65, 512, 1025), (1024 * KIB,) * 3])
def test_sizes_at_the_limits_can_be_used(sizes: tuple[int, int, int]) -> None:
    data = random_data(3, 3 * sizes[2] + 1)
    assert b"".join(cut(data, ChunkParams(*sizes))) == data


def secret_chunks(data: bytes, secret: bytes) -> list[bytes]:
    return cut(data, secret_params(SMALL, secret))


def test_with_a_secret_files_are_cut_elsewhere_and_always_there() -> None:
    data = random.Random(1).randbytes(300_000)
    secrets = [random.Random(number).randbytes(CUTTING_SECRET_BYTES) for number in range(3)]
    found = [secret_chunks(data, secret) for secret in secrets]
    assert all(b"".join(chunks) == data for chunks in found)
    assert found == [secret_chunks(data, secret) for secret in secrets]
    ends = [set(accumulate(map(len, chunks))) for chunks in (cut(data), *found)]
    for one, other in combinations(ends, 2):
        assert len(one & other) < len(one) // 10, "by chance, and at the end"


@given(secret=st.binary(min_size=CUTTING_SECRET_BYTES, max_size=CUTTING_SECRET_BYTES))
@settings(max_examples=30)
def test_a_secret_is_a_seed_and_is_not_shown(secret: bytes) -> None:
    params = secret_params(SMALL, secret)
    assert 0 < params.seed < 1 << 63
    assert repr(params) == "SecretChunkParams(64, 256, 1024, …)"

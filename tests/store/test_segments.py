# SPDX-License-Identifier: MIT
"""Segments: whole ones come back, damaged and hostile ones take neither memory nor the truth."""

import os
import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.encrypted import KEY, OTHER_KEY
from yester.core.ids import chunk_id
from yester.errors import CorruptionError, FormatError
from yester.store import segments as segments_module
from yester.store.segments import CHUNKS_MAX, RAW_BYTES_MAX, Codec, Compression, Kind, guess_header, parse_header

HEADER_BYTES = 20
TEXT = [b"chunk %d " % number * 50 for number in range(40)]


def header(
    *,
    magic: bytes = b"ys",
    version: int = 1,
    kind: int = 1,
    compression: int = 1,
    cipher: int = 0,
    raw_bytes: int = 0,
    stored_bytes: int = 0,
    chunks: int = 0,
) -> bytes:
    return struct.pack("<2sBBBBHIII", magic, version, kind, compression, cipher, 0, raw_bytes, stored_bytes, chunks)


def segment(payload: bytes, lengths: list[int], *, compression: int = 1) -> bytes:
    """A segment with a sound header and any payload."""
    start = header(raw_bytes=sum(lengths), stored_bytes=len(payload), chunks=len(lengths), compression=compression)
    return start + struct.pack(f"<{len(lengths)}I", *lengths) + payload


def chunks_of(stored: bytes) -> list[bytes]:
    found = parse_header(stored, None)
    payload = Codec().decode(stored, found)
    assert len(payload) == found.raw_bytes
    return [payload[start:end] for start, end in pairwise(found.bounds)]


@given(
    chunks=st.lists(st.binary(max_size=200) | st.binary(max_size=20).map(lambda data: data * 100), max_size=20), kind=st.sampled_from(Kind)
)
def test_what_is_encoded_is_decoded(chunks: list[bytes], kind: Kind) -> None:
    stored = Codec().encode(kind, chunks)
    assert chunks_of(stored) == chunks
    assert parse_header(stored, None).kind is kind
    assert parse_header(stored, None).chunk_count == len(chunks)


def test_what_compresses_is_compressed_and_the_rest_is_not() -> None:
    text, noise = Codec().encode(Kind.DATA, TEXT), Codec().encode(Kind.DATA, [os.urandom(10_000)])
    assert parse_header(text, None).compression is Compression.ZSTD
    assert len(text) < sum(map(len, TEXT)) // 10
    assert parse_header(noise, None).compression is Compression.NONE
    assert len(noise) == HEADER_BYTES + 4 + 10_000


def test_a_compressor_that_lies_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec()
    monkeypatch.setattr(codec, "_decompressor", type("Liar", (), {"decompress": lambda _self, _data: b"something else"})())
    with pytest.raises(CorruptionError, match="was not stored"):
        codec.encode(Kind.DATA, TEXT)


@pytest.mark.parametrize("chunks", [TEXT, [os.urandom(100), os.urandom(50)]], ids=["compressed", "not compressed"])
def test_every_flipped_bit_is_refused_or_shows_in_the_hashes(chunks: list[bytes]) -> None:
    """In whatever region it is: the decoder neither fails nor grows, and never gives a wrong chunk that has the right hash."""
    stored = Codec().encode(Kind.DATA, chunks)
    ids = [chunk_id(chunk) for chunk in chunks]
    refused = wrong = 0
    for bit in range(len(stored) * 8):
        flipped = bytearray(stored)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = [chunk_id(chunk) for chunk in chunks_of(bytes(flipped))]
        except (CorruptionError, FormatError):
            refused += 1
            assert bit // 8 < HEADER_BYTES + 4 * len(chunks)
        else:
            wrong += found != ids
    assert refused > 100
    assert wrong > 100


def test_chunks_before_the_damage_are_still_good() -> None:
    chunks = [os.urandom(4000).hex().encode() for _ in range(100)]
    stored = bytearray(Codec().encode(Kind.DATA, chunks))
    stored[len(stored) * 3 // 4] ^= 0xFF
    found = chunks_of(bytes(stored))
    good = [chunk_id(one) == chunk_id(other) for one, other in zip(chunks, found, strict=True)]
    assert all(good[:20])
    assert not all(good)


def test_every_cut_is_refused() -> None:
    stored = Codec().encode(Kind.DATA, TEXT[:3])
    for length in range(len(stored)):
        with pytest.raises(CorruptionError):
            parse_header(stored[:length], None)
    with pytest.raises(CorruptionError):
        parse_header(stored + b"\0", None)


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        (header(magic=b"sy"), CorruptionError),
        (header(version=0), FormatError),
        (header(version=2), FormatError),
        (header(kind=0), FormatError),
        (header(kind=3), FormatError),
        (header(compression=2), FormatError),
        (header(cipher=2), FormatError),
        (header(cipher=1), CorruptionError),
        (header(raw_bytes=1), CorruptionError),
        (header(raw_bytes=RAW_BYTES_MAX + 1, chunks=1) + struct.pack("<I", RAW_BYTES_MAX + 1), CorruptionError),
        (header(chunks=2**32 - 1), CorruptionError),
        (header(chunks=CHUNKS_MAX + 1) + bytes(4 * (CHUNKS_MAX + 1)), CorruptionError),
        (segment(b"1234", [5], compression=0), CorruptionError),
        (header(raw_bytes=3, stored_bytes=3, chunks=2, compression=0) + struct.pack("<II", 1, 1) + b"123", CorruptionError),
        (header(raw_bytes=0, chunks=2) + struct.pack("<II", 2**31, 2**31), CorruptionError),
    ],
)
def test_headers_that_cannot_be_are_refused(stored: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_header(stored, None)


def honest_bomb() -> bytes:
    return zstandard.ZstdCompressor(write_content_size=True).compress(bytes(512 << 20))


def nameless_bomb() -> bytes:
    """Does not say how large it becomes."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(bytes(512 << 20)) + compressor.flush()


def forged_bomb() -> bytes:
    """Says that it becomes 1 TiB."""
    return b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + zstandard.ZstdCompressor().compress(b"x" * 100_000)[9:]


def wide_frame() -> bytes:
    """Wants a window of 128 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(os.urandom(1000)) + compressor.flush()


def skippable_frame() -> bytes:
    return b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


@pytest.mark.parametrize("make", [honest_bomb, nameless_bomb, forged_bomb, wide_frame, skippable_frame, lambda: b"no frame", bytes])
def test_a_hostile_frame_takes_no_more_than_the_header_allows(make: Callable[[], bytes]) -> None:
    frame = make()
    codec = Codec()
    tracemalloc.start()
    try:
        for payload in (frame, frame[: len(frame) // 2]):
            for raw_bytes in (0, 1000, RAW_BYTES_MAX):
                stored = segment(payload, [raw_bytes])
                assert len(codec.decode(stored, parse_header(stored, None))) == raw_bytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * RAW_BYTES_MAX
    good = codec.encode(Kind.DATA, TEXT)
    assert codec.decode(good, parse_header(good, None)) == b"".join(TEXT)


def test_a_writer_stays_far_below_what_a_reader_refuses() -> None:
    assert 3 * segments_module.SEGMENT_BYTES < RAW_BYTES_MAX
    assert CHUNKS_MAX < 1 << 16


@given(
    chunks=st.lists(st.binary(max_size=200) | st.binary(max_size=20).map(lambda data: data * 100), max_size=20), kind=st.sampled_from(Kind)
)
def test_what_is_sealed_is_opened(chunks: list[bytes], kind: Kind) -> None:
    codec = Codec(KEY)
    stored = codec.encode(kind, chunks)
    found = parse_header(stored, KEY)
    payload = codec.decode(stored, found)
    assert [payload[start:end] for start, end in pairwise(found.bounds)] == chunks
    assert (found.kind, found.raw_bytes) == (kind, sum(map(len, chunks)))


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_sealed_segment_costs_all_of_it_and_gives_nothing_wrong(at: float, bit: int) -> None:
    codec = Codec(KEY)
    flipped = bytearray(codec.encode(Kind.DATA, TEXT))
    flipped[int(at * len(flipped))] ^= 1 << bit
    try:
        found = parse_header(bytes(flipped), KEY)
    except (CorruptionError, FormatError):
        return
    assert codec.decode(bytes(flipped), found) == bytes(found.raw_bytes), "zeros, which no id names"


@pytest.mark.parametrize("cut", [1, 16, 17, 100, 4000])
def test_a_sealed_segment_that_was_cut_short_is_refused(cut: int) -> None:
    codec = Codec(KEY)
    for stored in (codec.encode(Kind.DATA, TEXT)[:-cut], codec.encode(Kind.DATA, TEXT) + bytes(cut)):
        try:
            found = parse_header(stored, KEY)
        except CorruptionError:
            continue
        assert codec.decode(stored, found) == bytes(found.raw_bytes)


def test_the_same_chunks_are_never_sealed_alike() -> None:
    codec = Codec(KEY)
    assert codec.encode(Kind.DATA, TEXT)[20:] != codec.encode(Kind.DATA, TEXT)[20:]


def test_only_the_key_of_the_store_opens_a_segment() -> None:
    sealed, plain = Codec(KEY).encode(Kind.DATA, TEXT), Codec().encode(Kind.DATA, TEXT)
    for stored, key in ((sealed, OTHER_KEY), (sealed, None), (plain, KEY)):
        with pytest.raises(CorruptionError):
            parse_header(stored, key)


@given(sizes=st.lists(st.integers(0, 3000), max_size=30))
def test_how_long_a_sealed_segment_is_tells_only_its_pages(sizes: list[int]) -> None:
    """As LMDB gives it whole pages, filling them costs nothing."""
    stored = Codec(KEY).encode(Kind.DATA, [os.urandom(size) for size in sizes])
    assert (len(stored) + 16) % 4096 == 0
    assert len(stored) - sum(sizes) < 4096 + 36 + 32 + 256 + 4 * len(sizes) + 12


@pytest.mark.parametrize("byte", [0, 3, 255])
@pytest.mark.parametrize("kind", Kind)
def test_a_segment_whose_kind_is_lost_is_one_of_trees(kind: Kind, byte: int) -> None:
    """A prune follows what is in those, and removes data with all that names it gone: trees that were called data would dangle."""
    stored = bytearray(Codec().encode(kind, TEXT))
    stored[3] = byte
    guess = guess_header(bytes(stored), None)
    assert guess is not None
    assert parse_header(guess, None).kind is Kind.TREE

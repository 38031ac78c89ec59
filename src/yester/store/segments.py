# SPDX-License-Identifier: MIT
"""Segments: about 1 MiB of new chunks in arrival order, compressed together (docs/format.md §8).

One value a chunk would waste LMDB pages and compress small files alone: 314 MB against 205 MB for the Linux source
(docs/adr/0001). A segment gives its chunks' lengths, so the chunk index can be rebuilt by hashing segments alone.

What comes from disk is hostile: sizes are compared before memory is taken, since a zstd frame of 16 kB can claim, and
then fill, any amount of memory.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

import zstandard

from yester.errors import CorruptionError, FormatError

SEGMENT_BYTES = 1024 * 1024
"""A segment is closed once it holds this much. Larger ones save little space and make each small read dearer."""

RAW_BYTES_MAX = 8 * SEGMENT_BYTES
"""A reader refuses to decompress more than this. A writer stays below twice `SEGMENT_BYTES`."""

COMPRESSION_LEVEL = 3
WINDOW_BYTES_MAX = RAW_BYTES_MAX

_HEADER = struct.Struct("<2sBBBBHIII")
HEADER_BYTES = _HEADER.size
_MAGIC = b"ys"
_VERSION = 1
_LENGTH_BYTES = 4
CHUNKS_MAX = 0xFFFF
"""Chunks in one segment: the index has 16 bits for a chunk's place in it."""


class Kind(IntEnum):
    """Trees and file data go to different segments, so listing directories decompresses no file data."""

    DATA = 1
    TREE = 2


class Compression(IntEnum):
    """How a payload is stored."""

    NONE = 0
    ZSTD = 1


class Cipher(IntEnum):
    """How a payload is encrypted."""

    NONE = 0


class Header(NamedTuple):
    """A segment's description of itself. `bounds` are where its chunks begin in the decompressed payload, and its end."""

    kind: Kind
    compression: Compression
    raw_bytes: int
    stored_bytes: int
    bounds: tuple[int, ...]
    payload_offset: int

    @property
    def chunk_count(self) -> int:
        """How many chunks the segment holds."""
        return len(self.bounds) - 1


class Codec:
    """Encodes and decodes segments. Holds zstd contexts, which are not thread-safe: one codec a thread."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_content_size=True)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)

    def encode(self, kind: Kind, chunks: Sequence[bytes | memoryview]) -> bytes:
        """The stored bytes of a segment.

        The compressed payload is decompressed again and compared before it is returned: a compressor with a bug
        (zstd has had one) or a flipped bit in memory must not become the only copy of somebody's file.

        Raises:
            CorruptionError: the comparison failed; nothing was stored.
        """
        raw = b"".join(chunks)
        compressed = self._compressor.compress(raw)
        compression, payload = (Compression.ZSTD, compressed) if len(compressed) < len(raw) * 31 // 32 else (Compression.NONE, raw)
        if compression is Compression.ZSTD and self._decompressor.decompress(compressed) != raw:
            message = "compressed data did not decompress to what it was made from; it was not stored"
            raise CorruptionError(message, hint="this machine's memory or processor is likely faulty: test it before going on")
        header = _HEADER.pack(_MAGIC, _VERSION, kind, compression, Cipher.NONE, 0, len(raw), len(payload), len(chunks))
        table = struct.pack(f"<{len(chunks)}I", *map(len, chunks))
        return b"".join((header, table, payload))

    def decode(self, stored: bytes | memoryview, header: Header) -> bytes:
        """The decompressed payload; chunk hashes are not checked here.

        If the compressed bytes are damaged, what could be decompressed before the damage is followed by zeros up to the
        stated length: chunks before the damage are still good, and the others fail their hash.
        """
        payload = memoryview(stored)[header.payload_offset :]
        if header.compression is Compression.NONE:
            return bytes(payload)
        try:
            frame = zstandard.get_frame_parameters(payload)
        except zstandard.ZstdError:
            return bytes(header.raw_bytes)
        if frame.content_size == header.raw_bytes:
            try:
                return self._decompressor.decompress(payload)
            except zstandard.ZstdError:
                pass
        return self._salvage(payload, header.raw_bytes)

    def _salvage(self, payload: memoryview, raw_bytes: int) -> bytes:
        """What comes out before the decompressor gives up, padded with zeros to `raw_bytes`. Bounded by `raw_bytes`."""
        found = bytearray()
        reader = self._decompressor.stream_reader(payload, read_size=4096)
        try:
            while len(found) < raw_bytes and (piece := reader.read(min(4096, raw_bytes - len(found)))):
                found += piece
        except zstandard.ZstdError:
            pass
        return bytes(found.ljust(raw_bytes, b"\0"))


def stored_length(start: bytes) -> int:
    """How long a segment is, by the `HEADER_BYTES` it begins with; 0 for what is no segment."""
    if len(start) < _HEADER.size:
        return 0
    magic, version, _kind, _compression, _cipher, _reserved, raw_bytes, stored_bytes, chunk_count = _HEADER.unpack_from(start)
    if magic != _MAGIC or version != _VERSION or raw_bytes > RAW_BYTES_MAX or chunk_count > CHUNKS_MAX:
        return 0
    return int(_HEADER.size + chunk_count * _LENGTH_BYTES + stored_bytes)


def guess_header(stored: bytes | memoryview) -> bytes | None:
    """A segment whose header is damaged, with the header that it must have had, if what follows it says that; else None.

    Only a guess: whoever uses it compares the hashes of chunks with what they should be. The table of lengths is believed.
    """
    if len(stored) < _HEADER.size:
        return None
    _magic, _version, kind, _compression, _cipher, _reserved, _raw_bytes, _stored_bytes, chunk_count = _HEADER.unpack_from(stored)
    payload_offset = _HEADER.size + chunk_count * _LENGTH_BYTES
    if not 0 < chunk_count <= CHUNKS_MAX or payload_offset > len(stored):
        return None
    raw_bytes = sum(struct.unpack_from(f"<{chunk_count}I", stored, _HEADER.size))
    payload = memoryview(stored)[payload_offset:]
    try:
        is_frame = zstandard.get_frame_parameters(payload).content_size == raw_bytes
    except zstandard.ZstdError:
        is_frame = False
    if raw_bytes > RAW_BYTES_MAX or not (is_frame or len(payload) == raw_bytes):
        return None
    compression = Compression.ZSTD if is_frame else Compression.NONE
    known_kind = kind if kind in set(Kind) else Kind.DATA
    header = _HEADER.pack(_MAGIC, _VERSION, known_kind, compression, Cipher.NONE, 0, raw_bytes, len(payload), chunk_count)
    return header + bytes(memoryview(stored)[_HEADER.size :])


def parse_header(stored: bytes | memoryview) -> Header:
    """Read and judge a segment's header and table.

    Raises:
        CorruptionError: not a segment, or lengths that do not agree with each other.
        FormatError: a version, kind, compression or cipher this release does not know.
    """
    if len(stored) < _HEADER.size:
        message = f"a segment of {len(stored)} bytes is too short to be one"
        raise CorruptionError(message)
    magic, version, kind, compression, cipher, _reserved, raw_bytes, stored_bytes, chunk_count = _HEADER.unpack_from(stored)
    if magic != _MAGIC:
        message = "a segment does not start as one"
        raise CorruptionError(message)
    if version != _VERSION or compression not in set(Compression) or cipher not in set(Cipher) or kind not in set(Kind):
        message = (
            f"a segment has version {version}, kind {kind}, compression {compression}, cipher {cipher}, which this release does not know"
        )
        raise FormatError(message, hint="use a newer yester with this store")
    payload_offset = _HEADER.size + chunk_count * _LENGTH_BYTES
    if raw_bytes > RAW_BYTES_MAX or chunk_count > CHUNKS_MAX or payload_offset + stored_bytes != len(stored):
        message = "a segment's header states lengths that cannot be"
        raise CorruptionError(message)
    bounds = tuple(accumulate(struct.unpack_from(f"<{chunk_count}I", stored, _HEADER.size), initial=0))
    if bounds[-1] != raw_bytes or (compression == Compression.NONE and stored_bytes != raw_bytes):
        message = "a segment's table does not add up to its payload"
        raise CorruptionError(message)
    return Header(Kind(kind), Compression(compression), raw_bytes, stored_bytes, bounds, payload_offset)

# SPDX-License-Identifier: MIT
"""Segments: some chunks compressed together, about 1 MiB before that (docs/format.md §8).

One value a chunk would waste LMDB pages and compress small files alone: 314 MB against 205 MB for the Linux source
(docs/adr/0001). A segment gives its chunks' lengths, so the chunk index can be rebuilt by hashing segments alone.

In an encrypted store a segment has a key of its own. Its lengths are sealed apart from its payload: whoever wants to know what is in
it need not open all of it, and whoever has no key learns only how many pages it takes.

What comes from disk is hostile: sizes are compared before memory is taken, since a zstd frame of 16 kB can claim, and
then fill, any amount of memory.
"""

import os
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from yester.errors import CorruptionError, FormatError

if TYPE_CHECKING:
    from yester.store.keys import Box, StoreKey

SEGMENT_BYTES = 1024 * 1024
"""A backup closes a segment once it holds this much. Larger ones save little space and make each small read dearer; a prune writes
somewhat larger ones all the same (ADR 9)."""

RAW_BYTES_MAX = 8 * SEGMENT_BYTES
"""A reader refuses to decompress more than this. A writer stays below three times `SEGMENT_BYTES`."""

COMPRESSION_LEVEL = 3
WINDOW_BYTES_MAX = RAW_BYTES_MAX

_HEADER = struct.Struct("<2sBBBBHIII")
HEADER_BYTES = _HEADER.size
_MAGIC = b"ys"
_VERSION = 1
_LENGTH_BYTES = 4
_SALT_BYTES = 16
_TAG_BYTES = 16
_SEALED_START = _HEADER.size + _SALT_BYTES
_LENGTHS = struct.Struct("<III")
_TABLE_STEP_BYTES = 256
"""Sealed tables are filled up to a multiple of this: how long one is would tell how many chunks there are."""
_PAGE_BYTES, _PAGE_HEADER_BYTES = 4096, 16
"""LMDB gives a segment whole pages, after one header. Sealed payloads fill them: it costs nothing, and blurs how long they are."""
_TABLE, _PAYLOAD = 0, 1
"""The parts of a segment's box."""
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
    AES_GCM = 1


class Header(NamedTuple):
    """A segment's description of itself. `bounds` are where its chunks begin in the decompressed payload, and its end.

    `stored_bytes` is the compressed payload, from `payload_offset` on; what of it is sealed goes to the end of the segment.
    """

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
    """Encodes and decodes segments. Holds zstd contexts, which are not thread-safe: one codec a thread.

    With a key, of an encrypted store, what it encodes is sealed.
    """

    def __init__(self, key: "StoreKey | None" = None, *, level: int = COMPRESSION_LEVEL) -> None:
        self._key = key
        self._compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)

    def encode(self, kind: Kind, chunks: Sequence[bytes | memoryview]) -> bytes:
        """The stored bytes of a segment.

        What will be stored is decoded again and compared before it is returned: a compressor with a bug
        (zstd has had one) or a flipped bit in memory must not become the only copy of somebody's file.

        Raises:
            CorruptionError: the comparison failed; nothing was stored.
        """
        raw = b"".join(chunks)
        compressed = self._compressor.compress(raw)
        compression, payload = (Compression.ZSTD, compressed) if len(compressed) < len(raw) * 31 // 32 else (Compression.NONE, raw)
        table = struct.pack(f"<{len(chunks)}I", *map(len, chunks))
        if self._key is not None:
            stored = _seal(self._key, kind, compression, len(raw), table, payload)
        else:
            header = _HEADER.pack(_MAGIC, _VERSION, kind, compression, Cipher.NONE, 0, len(raw), len(payload), len(chunks))
            stored = b"".join((header, table, payload))
        is_changed = compression is Compression.ZSTD or self._key is not None
        if is_changed and self.decode(stored, parse_header(stored, self._key)) != raw:
            message = "compressed data did not decompress to what it was made from; it was not stored"
            raise CorruptionError(message, hint="this machine's memory or processor is likely faulty: test it before going on")
        return stored

    def decode(self, stored: bytes | memoryview, header: Header) -> bytes:
        """The decompressed payload; chunk hashes are not checked here.

        If the compressed bytes are damaged, what could be decompressed before the damage is followed by zeros up to the
        stated length: chunks before the damage are still good, and the others fail their hash. Of a sealed payload with a wrong
        bit nothing is to be had: all are zeros.
        """
        payload = memoryview(stored)[header.payload_offset :]
        if self._key is not None:
            opened = _box(stored, self._key).open(payload, part=_PAYLOAD, beside=stored[:_SEALED_START])
            if opened is None:
                return bytes(header.raw_bytes)
            payload = memoryview(opened)[: header.stored_bytes]
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


def begins_as_segment(start: bytes) -> bool:
    """Whether bytes, `HEADER_BYTES` of them at least, begin as a segment does."""
    return len(start) >= _HEADER.size and start[:2] == _MAGIC and start[2] == _VERSION


def segment_length(read: Callable[[int], bytes], key: "StoreKey | None") -> int:
    """How long a segment is, of which `read` gives so many bytes from its start; 0 for what is no segment of a store with this key."""
    start = read(_HEADER.size)
    if not begins_as_segment(start):
        return 0
    *_, cipher, _reserved, raw_bytes, stored_bytes, chunk_count = _HEADER.unpack_from(start)
    if (cipher == Cipher.NONE) is not (key is None) or raw_bytes > RAW_BYTES_MAX or chunk_count > CHUNKS_MAX:
        return 0
    if key is None:
        return int(_HEADER.size + chunk_count * _LENGTH_BYTES + stored_bytes)
    end = int(_SEALED_START + raw_bytes)
    try:
        _, stored_bytes, _, _ = _open_table(read(end), end, key)
    except CorruptionError:
        return 0
    return _filled_up(end + stored_bytes + _TAG_BYTES)


def guess_header(stored: bytes | memoryview, key: "StoreKey | None") -> bytes | None:
    """A segment whose header is damaged, with the header that it must have had, if what follows it says that; else None.

    Only a guess where the segment is not sealed: whoever uses it compares the hashes of chunks with what they should be. The table of
    lengths is believed, and of a sealed one how long that is.
    """
    if len(stored) < _HEADER.size:
        return None
    if key is not None:
        return _guess_sealed(stored, key)
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
    # Data among trees does no harm. Trees among data would: a prune follows only trees, and removes data last, with what names it gone.
    known_kind = kind if kind in set(Kind) else Kind.TREE
    header = _HEADER.pack(_MAGIC, _VERSION, known_kind, compression, Cipher.NONE, 0, raw_bytes, len(payload), chunk_count)
    return header + bytes(memoryview(stored)[_HEADER.size :])


def _guess_sealed(stored: bytes | memoryview, key: "StoreKey") -> bytes | None:
    """The header is sealed with the table, so only the right one opens it."""
    table_bytes = _HEADER.unpack_from(stored)[6]
    for kind in Kind:
        for compression in Compression:
            header = _HEADER.pack(_MAGIC, _VERSION, kind, compression, Cipher.AES_GCM, 0, table_bytes, 0, 0)
            guess = header + bytes(memoryview(stored)[_HEADER.size :])
            try:
                parse_header(guess, key)
            except CorruptionError:
                continue
            return guess
    return None


def parse_header(stored: bytes | memoryview, key: "StoreKey | None") -> Header:
    """Read and judge a segment's header and table; those of a sealed one with the store's key. 4 µs then, and 1 µs else.

    Raises:
        CorruptionError: not a segment, or lengths that do not agree with each other, or that were not sealed by this store.
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
    if (cipher == Cipher.NONE) is not (key is None):
        message = "a segment is not encrypted as the store is, so something else has put it there"
        raise CorruptionError(message)
    if key is None:
        payload_offset = _HEADER.size + chunk_count * _LENGTH_BYTES
        is_whole = payload_offset + stored_bytes == len(stored)
        table: bytes | memoryview = memoryview(stored)[_HEADER.size : payload_offset]
    else:
        # Where a sealed segment has R it has the length of its table, and the other two are sealed with that.
        payload_offset = _SEALED_START + raw_bytes
        raw_bytes, stored_bytes, chunk_count, table = _open_table(stored, payload_offset, key)
        is_whole = _filled_up(payload_offset + stored_bytes + _TAG_BYTES) == len(stored)
    if raw_bytes > RAW_BYTES_MAX or chunk_count > CHUNKS_MAX or not is_whole or len(table) < chunk_count * _LENGTH_BYTES:
        message = "a segment's header states lengths that cannot be"
        raise CorruptionError(message)
    bounds = tuple(accumulate(struct.unpack_from(f"<{chunk_count}I", table), initial=0))
    if bounds[-1] != raw_bytes or (compression == Compression.NONE and stored_bytes != raw_bytes):
        message = "a segment's table does not add up to its payload"
        raise CorruptionError(message)
    return Header(Kind(kind), Compression(compression), raw_bytes, stored_bytes, bounds, payload_offset)


def _box(stored: bytes | memoryview, key: "StoreKey") -> "Box":
    return key.segment_box(bytes(stored[_HEADER.size : _SEALED_START]))


def _open_table(stored: bytes | memoryview, end: int, key: "StoreKey") -> tuple[int, int, int, memoryview]:
    """The lengths and the table of a sealed segment: R, S, N, and the lengths of the chunks with what fills them up."""
    opened = _box(stored, key).open(stored[_SEALED_START:end], part=_TABLE, beside=stored[:_SEALED_START])
    if opened is None or len(opened) < _LENGTHS.size:
        message = "the table of a segment is damaged, or was not sealed by this store"
        raise CorruptionError(message)
    raw_bytes, stored_bytes, chunk_count = _LENGTHS.unpack_from(opened)
    return raw_bytes, stored_bytes, chunk_count, memoryview(opened)[_LENGTHS.size :]


def _filled_up(sealed_bytes: int) -> int:
    """How long a sealed segment of this length is after its payload was filled up, as far as takes no more pages."""
    whole = _PAGE_HEADER_BYTES + sealed_bytes
    return whole + -whole % _PAGE_BYTES - _PAGE_HEADER_BYTES


def _seal(key: "StoreKey", kind: Kind, compression: Compression, raw_bytes: int, table: bytes, payload: bytes) -> bytes:
    """A sealed segment (docs/format.md §8.1)."""
    lengths = _LENGTHS.pack(raw_bytes, len(payload), len(table) // _LENGTH_BYTES) + table
    lengths += bytes(-(len(lengths) + _TAG_BYTES) % _TABLE_STEP_BYTES)
    table_bytes = len(lengths) + _TAG_BYTES
    whole = _SEALED_START + table_bytes + len(payload) + _TAG_BYTES
    salt = os.urandom(_SALT_BYTES)
    start = _HEADER.pack(_MAGIC, _VERSION, kind, compression, Cipher.AES_GCM, 0, table_bytes, 0, 0) + salt
    box = key.segment_box(salt)
    filled = b"".join((payload, bytes(_filled_up(whole) - whole)))
    return b"".join((start, box.seal(lengths, part=_TABLE, beside=start), box.seal(filled, part=_PAYLOAD, beside=start)))

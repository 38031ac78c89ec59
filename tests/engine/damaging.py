# SPDX-License-Identifier: MIT
"""Damages done to a store on purpose, for tests of what finds and mends them."""

from itertools import pairwise

from yester.core.ids import ChunkId
from yester.engine.trees import TreeReader
from yester.store.chunks import Location, segment_key, unpack_location
from yester.store.lmdb import Table
from yester.store.segments import Codec, parse_header
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store


def put(store: Store, table: Table, key: bytes, value: bytes) -> None:
    store.environment.write(lambda transaction: transaction.put(table, key, value))


def drop(store: Store, table: Table, key: bytes) -> None:
    assert store.environment.write(lambda transaction: transaction.delete(table, key))


def locate(store: Store, chunk: bytes) -> Location:
    value = store.environment.get(Table.CHUNKS, chunk)
    assert value is not None
    return unpack_location(value)


def flip(store: Store, table: Table, key: bytes, at: int, mask: int = 0x55) -> None:
    value = bytearray(store.environment.get(table, key) or b"")
    value[at] ^= mask
    put(store, table, key, bytes(value))


def flip_chunk(store: Store, chunk: bytes) -> None:
    """Damage one chunk alone, in a segment that is sound otherwise."""
    location = locate(store, chunk)
    key = segment_key(location.segment)
    stored = store.environment.get(Table.SEGMENTS, key) or b""
    header = parse_header(stored, store.environment.key)
    payload = bytearray(Codec(store.environment.key).decode(stored, header))
    payload[header.bounds[location.place]] ^= 0x55
    chunks = [bytes(payload[start:end]) for start, end in pairwise(header.bounds)]
    put(store, Table.SEGMENTS, key, Codec(store.environment.key).encode(header.kind, chunks))


def find_content(store: Store, stored: StoredSnapshot, path: bytes) -> ChunkId:
    """The first chunk of a file, or a folder's tree."""
    return ChunkId(TreeReader(store.reader()).get(stored.snapshot.root, path).content[:32])

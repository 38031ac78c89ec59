# SPDX-License-Identifier: MIT
"""Ids of stored things (docs/format.md §2).

An id is the raw 32-byte BLAKE3 of the bytes it names, in an encrypted store under a key: ids that anybody could compute would tell
who has a file. So only a store knows what it calls some bytes (`Store.chunk_id`); what is here is how. Hex is for people and is
made only at the edge. The types are distinct so that a checker notices a tree id where a snapshot id belongs; at run time they are
plain `bytes`.
"""

from collections.abc import Callable
from typing import NewType

from blake3 import blake3

ID_BYTES = 32

ChunkId = NewType("ChunkId", bytes)
"""Names a chunk: a run of file bytes, a tree record or a span list."""

TreeId = NewType("TreeId", ChunkId)
"""Names the chunk that holds one directory's record."""

SnapshotId = NewType("SnapshotId", bytes)
"""Names a snapshot record."""


NameChunk = Callable[[bytes | memoryview], ChunkId]
"""What gives bytes their id in a certain store."""


def chunk_id(data: bytes | memoryview) -> ChunkId:
    """The id of these bytes in a store that is not encrypted. 4 GB/s; about 1 µs for a small file.

    Code that may meet an encrypted store asks that: a test of the house keeps this function where it belongs.
    """
    return ChunkId(blake3(data).digest())


def keyed_chunk_id(key: bytes) -> NameChunk:
    """What gives bytes their id in a store that has this key, of 32 bytes. As fast as `chunk_id`."""

    def name(data: bytes | memoryview) -> ChunkId:
        return ChunkId(blake3(data, key=key).digest())

    return name


def snapshot_id(record: bytes) -> SnapshotId:
    """The id of an encoded snapshot record."""
    return SnapshotId(blake3(record).digest())

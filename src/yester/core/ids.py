# SPDX-License-Identifier: MIT
"""Ids of stored things (docs/format.md §2).

An id is the raw 32-byte BLAKE3 of the bytes it names. Hex is for people and is made only at the edge. The types are
distinct so that a checker notices a tree id where a snapshot id belongs; at run time they are plain `bytes`.
"""

from typing import NewType

from blake3 import blake3

ID_BYTES = 32

ChunkId = NewType("ChunkId", bytes)
"""Names a chunk: a run of file bytes, a tree record or a span list."""

TreeId = NewType("TreeId", ChunkId)
"""Names the chunk that holds one directory's record."""

SnapshotId = NewType("SnapshotId", bytes)
"""Names a snapshot record."""


def chunk_id(data: bytes | memoryview) -> ChunkId:
    """The id of these bytes. 4 GB/s; about 1 µs for a small file."""
    return ChunkId(blake3(data).digest())


def snapshot_id(record: bytes) -> SnapshotId:
    """The id of an encoded snapshot record."""
    return SnapshotId(blake3(record).digest())

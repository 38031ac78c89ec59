# SPDX-License-Identifier: MIT
"""Rows of a plain store that nothing else tells damage of: those of live folders (docs/format.md §10.2).

Chunks, snapshots and trees have their hashes as names. What is written in a live folder has none until it is in a version: a bit that the
disk flips there would be read as somebody's file, and then be stored under a good hash. So each block of these values has a tag.
A row that is damaged reads as the empty value, as in `store.sealing`.
"""

from blake3 import blake3

from yester.store import blocks
from yester.store.blocks import TAG_BYTES
from yester.store.lmdb import Table

CHECKED_TABLES = (Table.LIVE_FOLDERS, Table.LIVE_NODES, Table.LIVE_NAMES, Table.LIVE_EXTENTS, Table.LIVE_BATCHES)


class CheckedForm:
    """How the rows of one table are stored. Any thread may use it."""

    def __init__(self, table: Table) -> None:
        self._table = table.value

    def stored_key(self, key: bytes) -> bytes:
        """What a row is stored under."""
        return key

    def shown_key(self, stored: bytes) -> bytes:
        """The key of a stored row."""
        return stored

    def seal(self, stored_key: bytes, value: bytes | memoryview) -> bytes:
        """What is stored as the value of the row under this key."""
        return blocks.seal_blocks(self._box(stored_key), value)

    def open(self, stored_key: bytes, stored: memoryview) -> memoryview:
        """The value of a row; empty if it was not written there, or is damaged."""
        return self.open_part(stored_key, stored, 0, self.value_bytes(stored))

    def value_bytes(self, stored: memoryview) -> int:
        """How long a value is that is stored so; 0 for what is too short to be one."""
        return blocks.value_bytes(len(stored))

    def open_part(self, stored_key: bytes, stored: memoryview, start: int, length: int) -> memoryview:
        """A part of a value, which ends before the value does; empty if the blocks that hold it are damaged."""
        return blocks.open_blocks(self._box(stored_key), stored, start, length)

    def _box(self, stored_key: bytes) -> "_HashBox":
        return _HashBox(self._table + b"\0" + stored_key)


class _HashBox:
    """Adds a hash of the block, and of where it belongs, to each block."""

    def __init__(self, place: bytes) -> None:
        self._place = place

    def seal(self, data: bytes | memoryview, *, part: int) -> bytes:
        """See `BlockBox`."""
        return bytes(data) + self._tag(data, part)

    def open(self, sealed: bytes | memoryview, *, part: int) -> bytes | None:
        """See `BlockBox`."""
        data = bytes(sealed[:-TAG_BYTES])
        return data if self._tag(data, part) == sealed[-TAG_BYTES:] else None

    def _tag(self, data: bytes | memoryview, part: int) -> bytes:
        # The length of the place is fixed by the number before it, so no two of these can be the same bytes.
        hashed = blake3(len(self._place).to_bytes(4, "big") + self._place + part.to_bytes(8, "big"))
        return hashed.update(data).digest(length=TAG_BYTES)


def checked_forms() -> dict[Table, CheckedForm]:
    """How rows of a plain store are stored that are not stored as they are."""
    return {table: CheckedForm(table) for table in CHECKED_TABLES}

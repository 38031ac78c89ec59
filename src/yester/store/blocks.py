# SPDX-License-Identifier: MIT
"""Values that are stored in blocks, each with a tag that tells whether it is what was written there (docs/format.md §11.2, §10.2).

So a part of a long value is judged and read without the rest. What makes the tag, and may encrypt, is a *box*.
"""

from collections.abc import Iterator
from typing import Protocol

BLOCK_BYTES = 32 * 1024
"""10 µs each."""
TAG_BYTES = 16
_STORED_BLOCK_BYTES = BLOCK_BYTES + TAG_BYTES
_LAST = 1 << 32
"""Added to the number of the last block, so that a value that was cut short does not pass for a whole one."""


class BlockBox(Protocol):
    """Stores blocks of one value."""

    def seal(self, data: bytes | memoryview, *, part: int) -> bytes:
        """The stored block of this number, `TAG_BYTES` longer."""
        ...

    def open(self, sealed: bytes | memoryview, *, part: int) -> bytes | None:
        """What was stored; None if it is not as it was."""
        ...


def seal_blocks(box: BlockBox, value: bytes | memoryview) -> bytes:
    """The stored form of a value."""
    if len(value) <= BLOCK_BYTES:
        return box.seal(value, part=_LAST)
    return b"".join(box.seal(block, part=number) for number, block in _blocks(memoryview(value)))


def value_bytes(stored_bytes: int) -> int:
    """How long a value is that is stored in so many bytes; 0 for too few."""
    return max(0, stored_bytes - -(-stored_bytes // _STORED_BLOCK_BYTES) * TAG_BYTES)


def open_blocks(box: BlockBox, stored: memoryview, start: int, length: int) -> memoryview:
    """A part of a value, which ends before the value does; empty if the blocks that hold it are damaged."""
    if length == 0:
        return memoryview(b"")
    last = -(-len(stored) // _STORED_BLOCK_BYTES) - 1
    first = start // BLOCK_BYTES
    found = []
    for number in range(first, (start + length - 1) // BLOCK_BYTES + 1):
        at = number * _STORED_BLOCK_BYTES
        block = box.open(stored[at : at + _STORED_BLOCK_BYTES], part=number + (_LAST if number == last else 0))
        if block is None:
            return memoryview(b"")
        found.append(block)
    data = memoryview(found[0] if len(found) == 1 else b"".join(found))
    return data[start - first * BLOCK_BYTES :][:length]


def _blocks(value: memoryview) -> Iterator[tuple[int, memoryview]]:
    last = (len(value) - 1) // BLOCK_BYTES
    for number in range(last + 1):
        yield number + (_LAST if number == last else 0), value[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]

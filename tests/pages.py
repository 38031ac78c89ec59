# SPDX-License-Identifier: MIT
"""Where things are on the pages of a data file, to hit them."""

import struct
from pathlib import Path

from yester.store.datafile import DATA_FILE, IS_BRANCH, NODE, PAGE

PAGE_BYTES = 4096


def parting_keys(data: bytes, number: int) -> list[tuple[int, int]]:
    """Where the keys of a page begin and end, if it is a branch page; but for the first of them, at which nobody looks."""
    start = number * PAGE_BYTES
    _number, _pad, flags, lower, _upper = PAGE.unpack_from(data, start)
    places = struct.unpack_from(f"<{(lower - PAGE.size) // 2}H", data, start + PAGE.size) if flags == IS_BRANCH else ()
    keys = [start + place + NODE.size for place in places[1:]]
    return [(key, key + NODE.unpack_from(data, key - NODE.size)[3]) for key in keys]


def flip(path: Path, data: bytes, at: int, bit: int) -> None:
    """Give the store in `path` this data file with a bit flipped."""
    hit = bytearray(data)
    hit[at] ^= 1 << bit
    (path / DATA_FILE).write_bytes(hit)

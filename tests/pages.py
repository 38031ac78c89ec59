# SPDX-License-Identifier: MIT
"""Where things are on the pages of a data file, to hit them."""

from pathlib import Path

from yester.store.datafile import DATA_FILE
from yester.store.pages import IS_BRANCH, PAGE, node_places

PAGE_BYTES = 4096


def parting_nodes(data: bytes, number: int) -> list[int]:
    """Where the nodes of a page begin, if it is a branch page; but for the first of them, at whose key nobody looks."""
    page = data[number * PAGE_BYTES :][:PAGE_BYTES]
    places = node_places(page)[1:] if PAGE.unpack_from(page)[2] == IS_BRANCH else ()
    return [number * PAGE_BYTES + place for place in places]


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def flip(path: Path, data: bytes, at: int, bit: int) -> None:
    """Give the store in `path` this data file with a bit flipped."""
    (path / DATA_FILE).write_bytes(flipped(data, at, bit))

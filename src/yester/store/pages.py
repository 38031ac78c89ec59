# SPDX-License-Identifier: MIT
"""How pages of LMDB are laid out, for those who read a data file by its bytes: LMDB 0.9 on 64-bit little-endian machines.

A file begins with two meta pages; the one with the higher transaction counts. Other pages are *branch* pages, which lead to pages below,
*leaf* pages with rows, and runs of pages with one value too large for a leaf. A branch or leaf page holds *nodes*: their places stand at
its beginning, in the order of their keys, and they themselves at its end, one behind the other.

Bytes are hostile: what comes from here is not yet compared with anything, unless it says so.

Reference: mdb.c of LMDB 0.9 (MDB_meta, MDB_db, MDB_page, MDB_node).
"""

import struct
from itertools import pairwise

META_MAGIC = 0xBEEFC0DE
PAGE = struct.Struct("<QHHHH")
"""What a page begins with: its number, nothing, flags, and where its free space begins and ends. In a run of pages the last two are one
number, of pages."""
NODE = struct.Struct("<HHHH")
"""What a node begins with: the length of its value (32 bits), flags, the length of its key. In a branch page the first 48 bits are the
number of the page below. Then comes the key, then the value."""
NUMBER = struct.Struct("<Q")
DATABASE = struct.Struct("<IHHQQQQQ")
"""The record of a tree: nothing, flags, depth; numbers of branch, leaf and other pages, and of rows; its root."""
IS_BRANCH, IS_LEAF, IS_OVERFLOW = 0x01, 0x02, 0x04
"""Flags of pages."""
IS_BIG, IS_DATABASE = 0x01, 0x02
"""Flags of nodes of a leaf: the value is in pages of its own, whose number the node has; the value is the record of a table."""
NO_PAGE = (1 << 64) - 1
"""The root of an empty tree."""

_PARTS_MIN = 2
"""Of flags and the two bounds of free space."""


def node_places(page: bytes) -> tuple[int, ...]:
    """Where the nodes of a branch or leaf page begin, in the order of their keys. Raises struct.error if that runs over its end."""
    lower = PAGE.unpack_from(page)[3]
    return struct.unpack_from(f"<{max(0, lower - PAGE.size) // 2}H", page, PAGE.size)


def page_below(page: bytes, place: int) -> int:
    """The number of the page to which a node of a branch page leads."""
    low, high, top, _key_bytes = NODE.unpack_from(page, place)
    return int(low | high << 16 | top << 32)


def node_key(page: bytes, place: int) -> bytes:
    """The key of a node; cut short where it runs over the end of the page."""
    start = place + NODE.size
    return page[start : start + NODE.unpack_from(page, place)[3]]


def packed_places(page: bytes) -> tuple[int, ...] | None:
    """As `node_places`, if the nodes fill the end of the page without gaps, as LMDB keeps them; else None: a place or a length was hit."""
    try:
        places = node_places(page)
        is_packed = not PAGE.unpack_from(page)[3] & 1 and tuple(sorted(places)) == _places_by_length(page)
    except struct.error:
        return None
    return places if is_packed else None


def _places_by_length(page: bytes) -> tuple[int, ...] | None:
    """Where the nodes of a page begin if they fill its end without gaps, as told by their lengths; None if they do not."""
    _number, _nothing, flags, _lower, at = PAGE.unpack_from(page)
    places = []
    last = len(page) - NODE.size
    while at <= last:
        places.append(at)
        low, high, node_flags, key_bytes = NODE.unpack_from(page, at)
        at += NODE.size + key_bytes + (0 if flags & IS_BRANCH else NUMBER.size if node_flags & IS_BIG else low | high << 16)
        at += at & 1
    return tuple(places) if at == len(page) else None


def mended(page: bytes, number: int) -> bytes | None:
    """The branch or leaf page of this number as it must have been, where a part of its header or a place of a node was hit; else None.

    `page` is a whole one.
    """
    return _with_its_places(page, number) or _with_its_header(page, number)


def _with_its_places(page: bytes, number: int) -> bytes | None:
    places = _places_by_length(page)
    stated, _nothing, flags, lower, _upper = PAGE.unpack_from(page)
    if places is None or (stated, lower) != (number, PAGE.size + 2 * len(places)) or flags not in {IS_LEAF, IS_BRANCH}:
        return None
    in_order = sorted(places, key=lambda place: node_key(page, place))
    return page[: PAGE.size] + struct.pack(f"<{len(places)}H", *in_order) + page[lower:]


def _with_its_header(page: bytes, number: int) -> bytes | None:
    """With the most nodes, where there are two: the fewer agree with a number of them that was hit.

    With fewer than it states only if those cannot be: else a length was hit, such that a node seems to hold the next one.
    """
    found = None
    _number, _nothing, *stated = PAGE.unpack_from(page)
    least = stated[1] if _may_state(page) else 0
    places: list[int] = []
    for at in range(PAGE.size, len(page) - 1, 2):
        places.append(int.from_bytes(page[at : at + 2], "little"))
        lower, upper = at + 2, min(places)
        if not lower <= upper <= max(places) <= len(page) - NODE.size:
            break
        for kind in (IS_LEAF, IS_BRANCH):
            if lower >= least and sum(was == is_now for was, is_now in zip(stated, (kind, lower, upper), strict=True)) >= _PARTS_MIN:
                guess = PAGE.pack(number, 0, kind, lower, upper) + page[PAGE.size :]
                found = guess if packed_places(guess) is not None else found
    return found


def _may_state(page: bytes) -> bool:
    """Whether a page may have as many nodes as it states: all are on it, and their keys rise."""
    lower = PAGE.unpack_from(page)[3]
    try:
        places = node_places(page)
        if lower & 1 or not all(lower <= place <= len(page) - NODE.size for place in places):
            return False
        keys = [node_key(page, place) for place in places[1:]]  # at the first of a branch page nobody looks
    except struct.error:
        return False
    return all(key < after for key, after in pairwise(keys))

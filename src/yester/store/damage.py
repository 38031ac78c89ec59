# SPDX-License-Identifier: MIT
"""Chunks whose bytes are known to be lost (docs/format.md §6.6).

A chunk in the table `damaged` has no row in `chunks`: whoever needs it gets an error, and whoever is about to store the same bytes
finds that the store lacks them. The commit that stores them takes the row away, so a chunk is never both.

Changes nothing by itself: each function is a part of somebody's transaction.
"""

from collections.abc import Iterable

from yester.core.ids import ChunkId
from yester.core.records import RECORD_VERSION, Damaged, decode_damaged, encode_damaged
from yester.errors import CorruptionError, FormatError
from yester.store.lmdb import Environment, ReadTransaction, Table, WriteTransaction


def note_damaged(transaction: WriteTransaction, chunk: ChunkId, *, now_ns: int) -> None:
    """Give a chunk up: its index entry goes, and the row says since when that is known. Safe to do twice."""
    transaction.delete(Table.CHUNKS, chunk)
    if transaction.get(Table.DAMAGED, chunk) is None:
        transaction.put(Table.DAMAGED, chunk, encode_damaged(Damaged(RECORD_VERSION, now_ns)))
    transaction.looked_at(2)


def heal(transaction: WriteTransaction, chunks: Iterable[ChunkId]) -> None:
    """These chunks are stored in this transaction: they are damaged no more. Costs nothing where no chunk is damaged."""
    if transaction.count(Table.DAMAGED):
        for chunk in chunks:
            transaction.delete(Table.DAMAGED, chunk)
            transaction.looked_at(1)


def count_damaged(environment: Environment) -> int:
    """How many chunks are known to be damaged. O(1)."""
    with environment.read() as view:
        return view.count(Table.DAMAGED) if view.has_table(Table.DAMAGED) else 0


def is_noted(view: ReadTransaction, chunk: ChunkId) -> bool:
    """Whether a repair looked for a chunk and did not find it, be the note of it readable or not."""
    return view.has_table(Table.DAMAGED) and view.get(Table.DAMAGED, chunk) is not None


def find_damaged(view: ReadTransaction, chunk: ChunkId) -> Damaged | None:
    """What is known of a damaged chunk; None if nothing is, or the row cannot be read."""
    value = view.get(Table.DAMAGED, chunk) if view.has_table(Table.DAMAGED) else None
    if value is None:
        return None
    try:
        return decode_damaged(value)
    except (CorruptionError, FormatError):
        return None

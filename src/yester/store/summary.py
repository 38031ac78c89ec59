# SPDX-License-Identifier: MIT
"""What snapshots an encrypted store has, in a few sealed bytes (docs/format.md §11.3).

A row that is sealed cannot be forged, but somebody who can write to the store's file could take it away, or put an older copy of it back.
So a summary of all rows of snapshots, forgotten ones and pins is kept, and changed in the transaction that changes one of them: the sum of
their keyed hashes, and how often that was done. Whoever unlocks the store compares (2 µs a snapshot). To put the whole store back
as it was once is not noticed so; for that the number of changes is there, which a client may remember (`cli.memory`).
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from blake3 import blake3

from yester.store.keys import StoreKey
from yester.store.lmdb import ReadTransaction, Table, WriteTransaction
from yester.store.sealing import KeyForm, RowForm

SUMMARY_KEY = b"snapshots_summary"
_HASH_BYTES = 32


class Summary(NamedTuple):
    """`changes` only grows. `total` is the sum of the hashes of all rows."""

    changes: int
    total: bytes


class SnapshotSummary:
    """Keeps and compares the summary. Any thread may use it."""

    stored_under = SUMMARY_KEY
    tables = frozenset({Table.SNAPSHOTS, Table.FORGOTTEN, Table.PINS})

    def __init__(self, key: StoreKey) -> None:
        self._hash_key = key.summary_key()
        self._form = RowForm(Table.META.value, key, KeyForm.PLAIN)

    def begin(self, transaction: WriteTransaction, changes: int = 0) -> None:
        """Say that the rows that are there are those that should be there: for a new store, and where somebody has decided so.

        `changes` are those that are known of, should the stored summary not tell.
        """
        before = self.load(transaction)
        changes = max(changes, before.changes if before is not None else 0)
        self._store(transaction, Summary(changes + 1, self._add_up(transaction)))

    def doubt(self, transaction: WriteTransaction, changes: int) -> None:
        """Say that the rows that are there are not those that should be there, whatever comes to them, until somebody has decided so."""
        # Any sum that nobody can aim at: what is added and removed later keeps it as wrong as it is.
        self._store(transaction, Summary(changes + 1, os.urandom(_HASH_BYTES)))

    def is_of(self, summary: Summary, rows: Iterable[tuple[Table, bytes, bytes]]) -> bool:
        """Whether these rows, each of a table, a key and a value as they were stored, are those that were counted."""
        return summary.total == _pack(sum(self._hash(table, key, value) for table, key, value in rows))

    def count(self, transaction: WriteTransaction, table: Table, stored_key: bytes, stored: bytes | None) -> None:
        """A row is about to become this, or to be removed. Where the summary is lost it stays lost, so that it is noticed."""
        summary = self.load(transaction)
        before = transaction.get_stored(table, stored_key)
        if summary is None or before is stored is None:
            return
        total = int.from_bytes(summary.total, "little")
        total -= self._hash(table, stored_key, before) if before is not None else 0
        total += self._hash(table, stored_key, stored) if stored is not None else 0
        self._store(transaction, Summary(summary.changes + 1, _pack(total)))

    def load(self, view: ReadTransaction) -> Summary | None:
        """The summary that is stored; None if it is missing or damaged."""
        stored = view.get_stored(Table.META, SUMMARY_KEY)
        return self.open(stored) if stored is not None else None

    def open(self, stored: memoryview) -> Summary | None:
        """The summary that is stored so; None if it is none, or was not sealed by this store."""
        try:
            return msgspec.msgpack.decode(self._form.open(SUMMARY_KEY, stored), type=Summary)
        except msgspec.DecodeError:
            return None

    def is_right(self, view: ReadTransaction) -> bool:
        """Whether the rows that are there are those that were counted."""
        summary = self.load(view)
        return summary is not None and summary.total == self._add_up(view)

    def _store(self, transaction: WriteTransaction, summary: Summary) -> None:
        # META is no sealed table: what must be read before the store is unlocked lies there, too.
        transaction.put(Table.META, SUMMARY_KEY, self._form.seal(SUMMARY_KEY, msgspec.msgpack.encode(summary)))

    def _add_up(self, view: ReadTransaction) -> bytes:
        tables = (table for table in self.tables if view.has_table(table))
        return _pack(sum(self._hash(table, key, value) for table in tables for key, value in view.iterate_stored(table)))

    def _hash(self, table: Table, stored_key: bytes, stored: bytes | memoryview) -> int:
        """A number for a row as it is stored: sealed anew, it is another."""
        hashed = blake3(table.value + b"\0" + len(stored_key).to_bytes(2, "little") + stored_key, key=self._hash_key)
        return int.from_bytes(hashed.update(stored).digest(), "little")


def _pack(total: int) -> bytes:
    return (total % (1 << 8 * _HASH_BYTES)).to_bytes(_HASH_BYTES, "little")

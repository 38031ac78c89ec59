# SPDX-License-Identifier: MIT
"""What snapshots and keys an encrypted store has, in a few sealed bytes (docs/format.md §11.3).

A row that is sealed cannot be forged, but somebody who can write to the store's file could take it away, or put an older copy of it back.
So a summary of all rows of snapshots, forgotten ones and pins, and of all key slots is kept, and changed in the transaction that changes
one of them: sums of their keyed hashes, and how often that was done. Whoever unlocks the store compares (2 µs a snapshot). To put the whole
store back as it was once is not noticed so; for that the number of changes is there, which a client may remember (`cli.memory`).
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from blake3 import blake3

from yester.store.keys import StoreKey
from yester.store.lmdb import ReadTransaction, Table, WriteTransaction
from yester.store.parameters import SLOT_PREFIX
from yester.store.sealing import KeyForm, RowForm

SUMMARY_KEY = b"snapshots_summary"
_HASH_BYTES = 32


class Summary(NamedTuple):
    """`changes` only grows. `total` is the sum of the hashes of all rows of snapshots, `keys` that of all key slots."""

    changes: int
    total: bytes
    keys: bytes


class SnapshotSummary:
    """Keeps and compares the summary. Any thread may use it."""

    stored_under = SUMMARY_KEY
    tables = frozenset({Table.SNAPSHOTS, Table.FORGOTTEN, Table.PINS})
    """Those whose rows transactions count. Key slots are rows of `META`, and counted by `store.slots`."""

    def __init__(self, key: StoreKey) -> None:
        self._hash_key = key.summary_key()
        self._form = RowForm(Table.META.value, key, KeyForm.PLAIN)

    def begin(self, transaction: WriteTransaction, changes: int = 0) -> None:
        """Say that the rows that are there are those that should be there: for a new store, and where somebody has decided so.

        `changes` are those that are known of, should the stored summary not tell.
        """
        before = self.load(transaction)
        changes = max(changes, before.changes if before is not None else 0)
        self._store(transaction, Summary(changes + 1, self._add_up_snapshots(transaction), self._add_up_keys(transaction)))

    def doubt(self, transaction: WriteTransaction, changes: int) -> None:
        """Say that the rows that are there are not those that should be there, whatever comes to them, until somebody has decided so."""
        # Any sum that nobody can aim at: what is added and removed later keeps it as wrong as it is.
        self._store(transaction, Summary(changes + 1, os.urandom(_HASH_BYTES), self._add_up_keys(transaction)))

    def is_of(self, summary: Summary, rows: Iterable[tuple[Table, bytes, bytes]]) -> bool:
        """Whether these rows, each of a table, a key and a value as they were stored, are those that were counted."""
        return summary.total == _pack(sum(self._hash(table, key, value) for table, key, value in rows))

    def count(self, transaction: WriteTransaction, table: Table, stored_key: bytes, stored: bytes | None) -> None:
        """A row is about to become this, or to be removed. Where the summary is lost it stays lost, so that it is noticed."""
        is_key = table is Table.META
        summary = self.load(transaction)
        before = transaction.get_stored(table, stored_key)
        if summary is None or before is stored is None:
            return
        total = int.from_bytes(summary.keys if is_key else summary.total, "little")
        total -= self._hash(table, stored_key, before) if before is not None else 0
        total += self._hash(table, stored_key, stored) if stored is not None else 0
        changed = summary._replace(keys=_pack(total)) if is_key else summary._replace(total=_pack(total))
        self._store(transaction, changed._replace(changes=summary.changes + 1))

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
        """Whether the snapshots, forgotten ones and pins that are there are those that were counted."""
        summary = self.load(view)
        return summary is not None and summary.total == self._add_up_snapshots(view)

    def has_right_keys(self, view: ReadTransaction) -> bool:
        """Whether the key slots that are there are those that were counted; also where it is lost what was, which `is_right` tells."""
        summary = self.load(view)
        return summary is None or summary.keys == self._add_up_keys(view)

    def _store(self, transaction: WriteTransaction, summary: Summary) -> None:
        # META is no sealed table: what must be read before the store is unlocked lies there, too.
        transaction.put(Table.META, SUMMARY_KEY, self._form.seal(SUMMARY_KEY, msgspec.msgpack.encode(summary)))

    def _add_up_keys(self, view: ReadTransaction) -> bytes:
        return _pack(sum(self._hash(Table.META, key, value) for key, value in view.iterate(Table.META, SLOT_PREFIX)))

    def _add_up_snapshots(self, view: ReadTransaction) -> bytes:
        tables = (table for table in self.tables if view.has_table(table))
        return _pack(sum(self._hash(table, key, value) for table in tables for key, value in view.iterate_stored(table)))

    def _hash(self, table: Table, stored_key: bytes, stored: bytes | memoryview) -> int:
        """A number for a row as it is stored: sealed anew, it is another."""
        hashed = blake3(table.value + b"\0" + len(stored_key).to_bytes(2, "little") + stored_key, key=self._hash_key)
        return int.from_bytes(hashed.update(stored).digest(), "little")


def _pack(total: int) -> bytes:
    return (total % (1 << 8 * _HASH_BYTES)).to_bytes(_HASH_BYTES, "little")

# SPDX-License-Identifier: MIT
"""What is to be done about records that are damaged or contradict each other: a part of `engine.repair`.

A snapshot's record says all that the tables around it say, so those are made from it again. A record that cannot be decoded is taken away:
it names nothing any more, and stays in the copy. One of a newer release is left alone.

`plan_records` lists changes and makes none. Each carries the rows that it was planned from, and is made only where they are still those:
others may forget, pin or have back a snapshot while a repair runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from yester.core.ids import SnapshotId, snapshot_id
from yester.core.records import Snapshot, decode_forgotten, decode_seen, decode_snapshot
from yester.errors import CorruptionError, FormatError
from yester.store.lmdb import ReadTransaction, Table, WriteTransaction
from yester.store.snapshots import snapshot_key


class RecordAction(Enum):
    """What is done to a record, or to what lists it."""

    TAKEN_AWAY = "taken away"
    """It cannot be decoded."""
    FILED = "filed"
    """Under the source and time that it says itself."""
    LISTED = "listed"
    """Under its id, again."""
    UNLISTED = "unlisted"
    """Under this id there is no record (any more)."""
    FORGOTTEN_SEEN = "forgotten"
    """What backups remember of a folder: the next one reads it anew."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row as it was when the change was planned, and as it is to be; None for no row. The same twice is only a condition."""

    table: Table
    key: bytes
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True, slots=True)
class RecordChange:
    """What is done about one record. `source` is that of its key, `id` the hash of its bytes, if it is a snapshot's."""

    action: RecordAction
    table: Table
    rows: tuple[RowChange, ...]
    source: str = ""
    id: SnapshotId | None = None
    problem: str = ""
    """Why it cannot be decoded."""

    @property
    def is_loss(self) -> bool:
        """Whether something that named folders is gone: its record, or what its record said."""
        return self.action in {RecordAction.TAKEN_AWAY, RecordAction.UNLISTED}

    def apply(self, transaction: WriteTransaction) -> bool:
        """Make it, all or nothing; False where the rows are others by now. Safe to do twice."""
        transaction.looked_at(len(self.rows))
        if any(_row(transaction, row.table, row.key) != row.before for row in self.rows):
            return False
        for row in self.rows:
            if row.after is None:
                transaction.delete(row.table, row.key)
            elif row.after != row.before:
                transaction.put(row.table, row.key, row.after)
        return True


def plan_records(view: ReadTransaction) -> list[RecordChange]:
    """Changes after which `check` finds nothing in the tables of snapshots, and in what backups remember."""
    found: dict[SnapshotId, RowChange] = {}
    changes = list(_plan_snapshots(view, found))
    changes += _plan_ids(view, found)
    changes += _plan_forgotten(view)
    return [*changes, *_plan_scan(view)]


def _plan_snapshots(view: ReadTransaction, found: dict[SnapshotId, RowChange]) -> Iterator[RecordChange]:
    """Changes of records; `found` gets those that stay, where they are then."""
    for key, value in view.iterate(Table.SNAPSHOTS):
        record = bytes(value)
        id_ = snapshot_id(record)
        try:
            snapshot = decode_snapshot(record)
        except FormatError:
            found[id_] = RowChange(Table.SNAPSHOTS, key, record, record)
            continue
        except CorruptionError as error:
            row = RowChange(Table.SNAPSHOTS, key, record, None)
            yield RecordChange(RecordAction.TAKEN_AWAY, Table.SNAPSHOTS, (row,), _source(key), id_, error.message)
            continue
        right = _right_key(view, key, snapshot)
        if right != key:
            rows = _moved(Table.SNAPSHOTS, key, right, record)
            yield RecordChange(RecordAction.FILED, Table.SNAPSHOTS, rows, snapshot.source, id_)
        found[id_] = RowChange(Table.SNAPSHOTS, right, record, record)


def _right_key(view: ReadTransaction, key: bytes, snapshot: Snapshot) -> bytes:
    """Where a record belongs; where it is if another stands there."""
    right = snapshot_key(snapshot)
    is_taken = any(_row(view, table, right) is not None for table in (Table.SNAPSHOTS, Table.FORGOTTEN))
    return key if right == key or is_taken else right


def _moved(table: Table, key: bytes, right: bytes, value: bytes) -> tuple[RowChange, ...]:
    other = Table.FORGOTTEN if table is Table.SNAPSHOTS else Table.SNAPSHOTS
    return RowChange(other, right, None, None), RowChange(table, right, None, value), RowChange(table, key, value, None)


def _plan_ids(view: ReadTransaction, found: dict[SnapshotId, RowChange]) -> Iterator[RecordChange]:
    for id_, record in found.items():
        before = _row(view, Table.SNAPSHOT_IDS, id_)
        if before != record.key:
            rows = record, RowChange(Table.SNAPSHOT_IDS, id_, before, record.key)
            yield RecordChange(RecordAction.LISTED, Table.SNAPSHOT_IDS, rows, _source(record.key), id_)
    for row, value in view.iterate(Table.SNAPSHOT_IDS):
        id_ = SnapshotId(row)
        if id_ not in found:
            change = RowChange(Table.SNAPSHOT_IDS, row, bytes(value), None)
            yield RecordChange(RecordAction.UNLISTED, Table.SNAPSHOT_IDS, (change,), _source(bytes(value)), id_)


def _plan_forgotten(view: ReadTransaction) -> Iterator[RecordChange]:
    for key, value in view.iterate(Table.FORGOTTEN) if view.has_table(Table.FORGOTTEN) else ():
        stored = bytes(value)
        try:
            record = decode_forgotten(stored).record
            snapshot = decode_snapshot(record)
        except FormatError:
            continue
        except CorruptionError as error:
            row = RowChange(Table.FORGOTTEN, key, stored, None)
            yield RecordChange(RecordAction.TAKEN_AWAY, Table.FORGOTTEN, (row,), _source(key), None, error.message)
            continue
        right = _right_key(view, key, snapshot)
        if right != key:
            rows = _moved(Table.FORGOTTEN, key, right, stored)
            yield RecordChange(RecordAction.FILED, Table.FORGOTTEN, rows, snapshot.source, snapshot_id(record))


def _plan_scan(view: ReadTransaction) -> Iterator[RecordChange]:
    """What backups remember and cannot be read goes: without it they read some files again."""
    for key, value in view.iterate(Table.SCAN):
        stored = bytes(value)
        try:
            decode_seen(stored)
        except FormatError:
            continue
        except CorruptionError:
            yield RecordChange(RecordAction.FORGOTTEN_SEEN, Table.SCAN, (RowChange(Table.SCAN, key, stored, None),))


def _row(view: ReadTransaction, table: Table, key: bytes) -> bytes | None:
    value = view.get(table, key) if view.has_table(table) else None
    return None if value is None else bytes(value)


def _source(key: bytes) -> str:
    """The source that a key of a snapshot names; what stands there if it is damaged."""
    return key[:-9].decode("utf-8", "backslashreplace")

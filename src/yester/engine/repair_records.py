# SPDX-License-Identifier: MIT
"""What is to be done about records that are damaged or contradict each other: a part of `engine.repair`.

Lists changes and makes none. A snapshot's record says all that the tables around it say, so those are made from it again. A record that
cannot be decoded is taken away: it names nothing any more, and stays in the copy. One of a newer release is left alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from yester.core.ids import SnapshotId, snapshot_id
from yester.core.records import Snapshot, decode_forgotten, decode_seen, decode_snapshot
from yester.errors import CorruptionError, FormatError
from yester.store.lmdb import ReadTransaction, Table, WriteTransaction
from yester.store.snapshots import snapshot_key


@dataclass(frozen=True, slots=True)
class RecordChange:
    """A row that is put, or taken away where `value` is None. `what` tells people; empty where they need not know."""

    what: str
    table: Table
    key: bytes
    value: bytes | None

    def apply(self, transaction: WriteTransaction) -> None:
        """Make it. Safe to do twice."""
        if self.value is None:
            transaction.delete(self.table, self.key)
        else:
            transaction.put(self.table, self.key, self.value)
        transaction.looked_at(1)


def plan_records(view: ReadTransaction) -> list[RecordChange]:
    """Changes after which `check` finds nothing in the tables of snapshots, and in what backups remember."""
    ids: dict[SnapshotId, bytes] = {}
    changes = list(_plan_snapshots(view, ids))
    changes += _plan_ids(view, ids)
    changes += _plan_forgotten(view)
    return [*changes, *_plan_scan(view)]


def _plan_snapshots(view: ReadTransaction, ids: dict[SnapshotId, bytes]) -> Iterator[RecordChange]:
    """Changes of records; `ids` gets those that stay, and where."""
    for key, value in view.iterate(Table.SNAPSHOTS):
        record = bytes(value)
        id_ = snapshot_id(record)
        shown = f"{key[:-9].decode('utf-8', 'backslashreplace')!r} with id {id_.hex()[:12]}"
        try:
            snapshot = decode_snapshot(record)
        except FormatError:
            ids[id_] = key
            continue
        except CorruptionError as error:
            yield RecordChange(f"the record of a snapshot of {shown} was taken away: {error.message}", Table.SNAPSHOTS, key, None)
            continue
        right = _right_key(view, key, snapshot)
        if right != key:
            yield RecordChange("", Table.SNAPSHOTS, key, None)
            yield RecordChange(f"the snapshot of {shown} was filed as what it says that it is", Table.SNAPSHOTS, right, record)
        ids[id_] = right


def _right_key(view: ReadTransaction, key: bytes, snapshot: Snapshot) -> bytes:
    """Where a record belongs; where it is if another stands there."""
    right = snapshot_key(snapshot)
    is_taken = any(view.has_table(table) and view.get(table, right) is not None for table in (Table.SNAPSHOTS, Table.FORGOTTEN))
    return key if right == key or is_taken else right


def _plan_ids(view: ReadTransaction, ids: dict[SnapshotId, bytes]) -> Iterator[RecordChange]:
    for id_, key in ids.items():
        if bytes(view.get(Table.SNAPSHOT_IDS, id_) or b"") != key:
            yield RecordChange(f"snapshot {id_.hex()[:12]} was listed again under its id", Table.SNAPSHOT_IDS, id_, key)
    for row, _ in view.iterate(Table.SNAPSHOT_IDS):
        if SnapshotId(row) not in ids:
            what = f"snapshot {row.hex()[:12]} was listed, and there is no such record: it is not any more"
            yield RecordChange(what, Table.SNAPSHOT_IDS, row, None)


def _plan_forgotten(view: ReadTransaction) -> Iterator[RecordChange]:
    for key, value in view.iterate(Table.FORGOTTEN) if view.has_table(Table.FORGOTTEN) else ():
        shown = key[:-9].decode("utf-8", "backslashreplace")
        try:
            snapshot = decode_snapshot(decode_forgotten(value).record)
        except FormatError:
            continue
        except CorruptionError as error:
            yield RecordChange(f"a forgotten snapshot of {shown!r} was taken away: {error.message}", Table.FORGOTTEN, key, None)
            continue
        right = _right_key(view, key, snapshot)
        if right != key:
            yield RecordChange("", Table.FORGOTTEN, key, None)
            yield RecordChange(
                f"a forgotten snapshot of {shown!r} was filed as what it says that it is", Table.FORGOTTEN, right, bytes(value)
            )


def _plan_scan(view: ReadTransaction) -> Iterator[RecordChange]:
    """What backups remember and cannot be read goes: without it they read some files again."""
    for key, value in view.iterate(Table.SCAN):
        try:
            decode_seen(value)
        except FormatError:
            continue
        except CorruptionError:
            yield RecordChange("", Table.SCAN, key, None)

# SPDX-License-Identifier: MIT
"""Rows of snapshots, and what is known of folders that were backed up: reading them in a view, changing them in a transaction.

Snapshots lie under their source and time; forgotten ones under the same keys in a table of their own (docs/format.md §6). One whose
record is damaged, or of a newer release, is left out and logged wherever not exactly that one is asked for: it must not hide the others.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

import msgspec
from blake3 import blake3

from yester.core.ids import SnapshotId, snapshot_id
from yester.core.records import (
    RECORD_VERSION,
    TIME_NS_MAX,
    Forgotten,
    Pin,
    SeenDirectory,
    Snapshot,
    decode_forgotten,
    decode_pin,
    decode_snapshot,
    encode_forgotten,
    encode_seen,
    encode_snapshot,
)
from yester.core.times import snapshot_name
from yester.errors import (
    ConflictError,
    CorruptionError,
    FormatError,
    SweptError,
    YesterError,
)
from yester.store.chunks import stored_number
from yester.store.lmdb import (
    ReadTransaction,
    Table,
    WriteTransaction,
)

_log = logging.getLogger(__name__)
Item = TypeVar("Item")
GENERATION_KEY = b"snapshots_generation"
AFTER_ALL_TIMES = b"\0" + b"\xff" * 9
"""After a source's name, this is behind all its keys, and before those of any other source."""


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot with its id."""

    id: SnapshotId
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class ForgottenSnapshot:
    """A snapshot that was forgotten, when, and the generation of snapshots that began with it.

    All that it needs is in the store as long as it is listed.
    """

    stored: StoredSnapshot
    forgotten_ns: int
    generation: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Snapshots by source name and then oldest first, and all pins of the store."""

    snapshots: list[StoredSnapshot]
    pins: dict[SnapshotId, Pin]


def put_snapshot(transaction: WriteTransaction, snapshot: Snapshot) -> StoredSnapshot:
    """Publish a snapshot in a transaction that does more than that; see `Store.add_snapshot`."""
    roots = [snapshot.root.content, *([snapshot.live.table] if snapshot.live is not None else [])]
    if any(transaction.get(Table.CHUNKS, root) is None for root in roots):
        message = f"the root folder of the new snapshot of {snapshot.source} is not in the store; nothing was published"
        raise SweptError(message, hint="do it again: what is missing is stored anew")
    prefix = source_prefix(snapshot.source)
    base = snapshot_name(snapshot.time_ns)
    second = snapshot.time_ns - snapshot.time_ns % 10**9
    start, end = prefix + time_key(second), prefix + time_key(second + 10**9)
    of_that_second = takewhile(lambda item: start <= item[0] < end, transaction.iterate_from(Table.SNAPSHOTS, start))
    forgotten = takewhile(lambda item: start <= item[0] < end, iter_forgotten(transaction, start))
    taken = {found.snapshot.name for found in readable(of_that_second)} | {found.stored.snapshot.name for _, found in forgotten}
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    time_ns = snapshot.time_ns
    while any(transaction.get(table, prefix + time_key(time_ns)) is not None for table in (Table.SNAPSHOTS, Table.FORGOTTEN)):
        time_ns += 1
    named = msgspec.structs.replace(snapshot, name=name, time_ns=time_ns)
    id_, encoded = encode_snapshot(named)
    key = prefix + time_key(time_ns)
    transaction.put(Table.SNAPSHOTS, key, encoded)
    transaction.put(Table.SNAPSHOT_IDS, id_, key)
    count_generation(transaction)
    return StoredSnapshot(id_, named)


def read_listing(view: ReadTransaction, source: str | None) -> Listing:
    """The snapshots of one source, or all, and all pins."""
    prefix = source_prefix(source) if source is not None else b""
    return Listing(by_source(readable(view.iterate(Table.SNAPSHOTS, prefix)), lambda stored: stored), read_pins(view))


def read_pins(view: ReadTransaction) -> dict[SnapshotId, Pin]:
    """All pins. One that cannot be read is a pin all the same."""
    pins = {}
    for id_, value in view.iterate(Table.PINS) if view.has_table(Table.PINS) else ():
        try:
            pins[SnapshotId(id_)] = decode_pin(value)
        except (CorruptionError, FormatError) as error:
            _log.error("the pin of snapshot %s: %s", id_.hex()[:12], error.message)
            pins[SnapshotId(id_)] = Pin(RECORD_VERSION, 0)
    return pins


def forget_snapshots(transaction: WriteTransaction, ids: Collection[SnapshotId], now_ns: int) -> list[StoredSnapshot]:
    """See `Store.forget`."""
    found = []
    generation = stored_number(transaction.get(Table.META, GENERATION_KEY)) + 1
    for id_ in ids:
        if transaction.get(Table.PINS, id_) is not None:
            message = f"snapshot {id_.hex()[:12]} is pinned; nothing was forgotten"
            raise ConflictError(message, hint="take the pin away with `yester unpin`")
        key = transaction.get(Table.SNAPSHOT_IDS, id_)
        record = transaction.get(Table.SNAPSHOTS, bytes(key)) if key is not None else None
        if key is None or record is None:
            continue
        where, encoded = bytes(key), bytes(record)
        stored = decode_stored(encoded)
        # A clock that is behind the snapshot's own must not let its grace end the sooner.
        forgotten = Forgotten(RECORD_VERSION, max(now_ns, min(stored.snapshot.time_ns, TIME_NS_MAX)), encoded, generation)
        transaction.put(Table.FORGOTTEN, where, encode_forgotten(forgotten))
        transaction.delete(Table.SNAPSHOTS, where)
        transaction.delete(Table.SNAPSHOT_IDS, id_)
        found.append(stored)
    if found:
        count_generation(transaction)
    return found


def iter_forgotten(view: ReadTransaction, start: bytes = b"") -> Iterator[tuple[bytes, ForgottenSnapshot]]:
    """The snapshots that were forgotten, from the key `start` on, each with its key. One that cannot be read is logged and left out."""
    if not view.has_table(Table.FORGOTTEN):
        return
    for key, value in view.iterate_from(Table.FORGOTTEN, start):
        try:
            forgotten = decode_forgotten(value)
            yield key, ForgottenSnapshot(decode_stored(forgotten.record), forgotten.forgotten_ns, forgotten.generation)
        except (CorruptionError, FormatError) as error:
            _log_left_out(key, error)


def by_source(items: Iterable[Item], snapshot_of: Callable[[Item], StoredSnapshot]) -> list[Item]:
    """By source name, and as they come where that is equal: keys of an encrypted store have sources in any order."""
    return sorted(items, key=lambda item: snapshot_of(item).snapshot.source.encode("utf-8", "surrogateescape"))


def decode_stored(record: bytes) -> StoredSnapshot:
    """The snapshot of a record. Raises CorruptionError or FormatError as `decode_snapshot` does."""
    return StoredSnapshot(snapshot_id(record), decode_snapshot(record))


def readable(records: Iterable[tuple[bytes, memoryview]]) -> Iterator[StoredSnapshot]:
    """The snapshots of these keys and records; those that cannot be decoded are left out and logged."""
    for key, record in records:
        try:
            yield decode_stored(bytes(record))
        except (CorruptionError, FormatError) as error:
            _log_left_out(key, error)


def _log_left_out(key: bytes, error: YesterError) -> None:
    source = key.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    _log.error("a snapshot of %s is left out: %s", source, error.message)


def count_generation(transaction: WriteTransaction) -> None:
    """Have everybody notice that snapshots came or went."""
    generation = stored_number(transaction.get(Table.META, GENERATION_KEY))
    transaction.put(Table.META, GENERATION_KEY, (generation + 1).to_bytes(8, "little"))


def snapshot_key(snapshot: Snapshot) -> bytes:
    """What a snapshot record is filed under (docs/format.md §1)."""
    return source_prefix(snapshot.source) + time_key(snapshot.time_ns)


def source_prefix(source: str) -> bytes:
    """What the keys of a source's snapshots begin with."""
    return source.encode("utf-8", "surrogateescape") + b"\0"


def time_key(time_ns: int) -> bytes:
    """Sorts as the times do, also before 1970. Times that a snapshot cannot have, beyond the year 2262, become the nearest."""
    return min(max(time_ns + (1 << 63), 0), (1 << 64) - 1).to_bytes(8, "big")


def seen_change(source: str, path: bytes, seen: SeenDirectory) -> Callable[[WriteTransaction], None]:
    """The change that records `seen`; give it to `ChunkWriter.after_trees` once its tree is added."""
    key, record = _scan_key(source, path), encode_seen(seen)

    def change(transaction: WriteTransaction) -> None:
        transaction.put(Table.SCAN, key, record)

    return change


def forget_seen_change(source: str, path: bytes) -> Callable[[WriteTransaction], None]:
    """The change that drops the record of a directory that is gone.

    Records of directories below it stay: they are small, true of what they name, and of use if the directory comes back.
    """
    key = _scan_key(source, path)

    def change(transaction: WriteTransaction) -> None:
        transaction.delete(Table.SCAN, key)

    return change


def _scan_key(source: str, path: bytes) -> bytes:
    """Hashed, since LMDB keys end at 511 bytes and paths do not."""
    return blake3(source_prefix(source) + path).digest()

# SPDX-License-Identifier: MIT
"""A new data file from what can be read of a damaged one: the first step of `engine.repair`, where LMDB's own pages are damaged.

`store.salvage` gives rows; here they are judged before they are believed, and those that pass go into a new file:

- Every segment that is one, whether or not a tree leads to it. Its chunks are named by their hashes, so the chunk index is made anew, and
  bytes that are not what was written are chunks that nobody needs.
- Snapshots, forgotten ones and pins. A record that only stray pages have is taken where no other is filed there; where it may be one that
  was taken away since, only if its root folder is in the store.
- Where a snapshot may be lost: all folders that nothing leads to any more, in a snapshot of their own (`repair_nameless`).
- All other tables, as far as their trees lead to rows.
- What backups remember, and notes of damage, from the trees alone: backups can do without.
- Live folders, from the trees alone, and only if every row of all their tables could be read: one that lacks a row would show old bytes, or
  zeros, for new ones. What was not yet in a version is lost then, and said to be.

Rows of an encrypted store are opened, which needs its key, and sealed anew. Its summary is made of the snapshots that are found
if they are those that it counted before; else it stays wrong until somebody accepts them: damage, and somebody without the key, look alike.

The new file takes the place of the old one by a rename, when all of it is on the disk; the old one is kept beside it.

Nobody may have the store open meanwhile: the caller holds `use_alone`.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from yester.core.chunking import ChunkParams
from yester.core.ids import ID_BYTES, ChunkId, snapshot_id
from yester.core.node_row import decode_row
from yester.core.records import decode_damaged, decode_forgotten, decode_pin, decode_seen, decode_snapshot
from yester.core.times import snapshot_name
from yester.engine.check_data import hash_segment, segment_number
from yester.engine.repair_nameless import keep_nameless
from yester.engine.steps import StepProgress
from yester.errors import CorruptionError, FormatError, NotFoundError, StoreAccessError, StoreFullError, YesterError
from yester.store.checked_rows import checked_forms
from yester.store.chunks import SEGMENTS_MAX, Location, segment_key
from yester.store.datafile import DATA_FILE
from yester.store.folder import sync_folder
from yester.store.live import iter_names, load_rows
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.parameters import FORMAT_KEY, PLAIN_VERSION, SLOT_PREFIX, Parameters, decode_parameters, encode_parameters
from yester.store.replacing import check_owner, take_place
from yester.store.salvage import DataFile, Row
from yester.store.segments import Codec, guess_header, segment_length
from yester.store.snapshots import GENERATION_KEY, StoredSnapshot, snapshot_key
from yester.store.store import ask_for_key, use_key

if TYPE_CHECKING:
    from yester.store.slots import Unlock
    from yester.store.summary import Summary

_NEW_FOLDER = "repair.tmp"
"""In the store's folder, since a rename does not leave a disk."""
_BATCH_BYTES = 16 << 20
_KEY_BYTES_MAX = 511
_LIVE_ROWS = (Table.LIVE_NODES, Table.LIVE_NAMES, Table.LIVE_EXTENTS, Table.LIVE_BATCHES)
_RECORDS = (Table.SNAPSHOTS, Table.FORGOTTEN, Table.PINS)
_MADE_ANEW = (Table.SEGMENTS, Table.CHUNKS, Table.SNAPSHOT_IDS)
_HINTS = (Table.SCAN, Table.DAMAGED)


@dataclass(slots=True)
class PagesReport:
    """What became of a file with damaged pages."""

    problems: list[str]
    """What is wrong with it."""
    kept_as: Path | None = None
    """Where the old file is."""
    segments: int = 0
    stray_segments: int = 0
    """Those to which no tree led."""
    unreadable_segments: int = 0
    snapshots: int = 0
    stray_snapshots: int = 0
    lost_live_folders: list[str] = field(default_factory=list)
    """Live folders of which what was not in a version is lost."""
    recovered: StoredSnapshot | None = None
    """The snapshot that got all folders to which nothing leads any more, where a record may be lost; None if there are none."""
    recovered_folders: int = 0
    is_listing_doubtful: bool = False
    """Whether the snapshots that were found are not those that an encrypted store had recorded."""
    has_new_parameters: bool = False
    """Whether the parameters were lost: new data is cut as in a new store."""
    unreadable_bytes: int = 0
    """What the disk did not give."""


def rebuild(path: Path, report: PagesReport, progress: StepProgress, unlock: "Unlock | None") -> None:
    """Put all that can be read of the store in `path` into a new data file, which takes the place of the old one; durable on return.

    Raises:
        CorruptionError: nothing in the file is from a store. FormatError: a newer release made it.
        LockedError: it is encrypted, and nobody knows its key; or its slots are lost, and nobody can.
        StoreFullError, StoreAccessError: the new file could not be written, or not be given to whom the store belongs. With each of these
            nothing was changed, except where the message of the last says otherwise.
    """
    folder = path / _NEW_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        disk = os.statvfs(folder)
    except OSError as error:
        message = f"cannot make a new data file in {path}: {error.strerror}; nothing was changed"
        raise StoreAccessError(message, hint="see whether its disk is mounted read-only, and whose it is") from error
    try:
        needed = (path / DATA_FILE).stat().st_size
        if disk.f_bavail * disk.f_frsize < needed:
            message = f"there is no room for a new data file in {path}: it takes up to {needed >> 20} MiB; nothing was changed"
            raise StoreFullError(message, hint="free space on that disk, or repair a copy on another one")
        check_owner(path, folder)
        with DataFile(path) as old, Environment(folder, create=True) as new:
            _Rebuild(old, new, report, progress).run(path, unlock)
        _take_place(path, folder, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_place(path: Path, folder: Path, report: PagesReport) -> None:
    """Have the new file take the place of the old one, at once, and keep that under another name."""
    kept = path / f"{DATA_FILE}.damaged-{snapshot_name(time.time_ns())}"
    try:
        _keep(path / DATA_FILE, kept)
        try:
            sync_folder(folder)
            sync_folder(path)
            take_place(path, folder)
        except BaseException:
            kept.unlink(missing_ok=True)
            raise
    except OSError as error:
        message = f"the new data file of {path} could not take the place of the old one: {error.strerror}; nothing was changed"
        raise StoreAccessError(message, hint="see whether that disk is full, or sound; then repair again") from error
    report.kept_as = kept
    try:
        sync_folder(path)
    except OSError as error:
        message = (
            f"the new data file of {path} took the place of the old one, which is kept as {kept}, but that may not be on the disk: "
            f"{error.strerror}; after a power loss the old one may be back"
        )
        raise StoreAccessError(message, hint="see whether that disk is sound; then repair again, for the other steps") from error


def _keep(old: Path, kept: Path) -> None:
    """Have the old file under another name as well. It may be the only copy, so it is on the disk before anything else is done."""
    try:
        os.link(old, kept)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        try:
            with old.open("rb") as source, kept.open("xb") as copy:
                os.fchmod(copy.fileno(), 0o600)
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
        except BaseException:
            kept.unlink(missing_ok=True)
            raise


class _Rebuild:
    """Moves rows from an old file to a new environment."""

    def __init__(self, old: DataFile, new: Environment, report: PagesReport, progress: StepProgress) -> None:
        self._old = old
        self._new = new
        new.row_forms = checked_forms()
        self._report = report
        self._progress = progress
        self._codec = Codec()
        self._unsealed: set[Table] = set()
        """Tables with rows that could not be opened."""
        self._stored: dict[tuple[Table, Row], Row] = {}
        """Of records that were opened: the rows as they were stored."""
        self._moved: dict[tuple[Table, bytes], bytes] = {}
        """Records that were moved, as they were stored in the old file: by table and key."""
        self._last_segment = 0
        self._numbers: set[int] = set()
        self._indexed: set[ChunkId] = set()

    def run(self, path: Path, unlock: "Unlock | None") -> None:
        """Move all."""
        self._move_parameters(path)
        self._unlock(path, unlock)
        recorded = self._load_summary(path)
        self._move_segments()
        rows = {table: list(self._rows(table)) for table in _RECORDS}
        for table in _HINTS:
            self._move_hints(table)
        self._move_live_folders()
        for table in set(Table) - {*_RECORDS, *_MADE_ANEW, *_HINTS, *_LIVE_ROWS, Table.LIVE_FOLDERS, Table.META}:
            for batch in _batches(self._rows(table)):
                self._put_rows(table, batch)
        for table in (Table.CHUNKS, Table.SNAPSHOT_IDS):
            for _ in self._old.walk(table.value):
                pass  # so that their pages are no stray ones
        stray = list(self._stray_rows())
        self._move_stray_segments()
        self._move_forgotten(rows[Table.FORGOTTEN], self._opened_all(Table.FORGOTTEN, stray))
        self._move_snapshots(rows[Table.SNAPSHOTS], self._opened_all(Table.SNAPSHOTS, stray))
        self._move_pins(rows[Table.PINS], self._opened_all(Table.PINS, stray))
        self._report.unreadable_bytes = self._old.unreadable_bytes
        if not self._report.segments and not self._report.snapshots:
            message = f"nothing in {path / DATA_FILE} is from a store; nothing was changed"
            raise CorruptionError(message, hint="restore the store from a copy")
        self._compare_summary(recorded)
        self._keep_nameless(rows, path)
        self._end_summary(recorded)

    def _load_summary(self, path: Path) -> "Summary | None":
        """What the old file says of its snapshots, before the new one gets any; of several, on stray pages, what was said last."""
        summary = self._new.summary
        if summary is None:
            return None
        with self._new.read() as view:
            found = [summary.load(view)]
        if found == [None] and self._is_damaged(Table.META):
            with DataFile(path) as file:
                found += [summary.open(memoryview(row.value)) for row in file.iter_stray_rows() if row.key == summary.stored_under]
        return max((one for one in found if one is not None), key=lambda one: one.changes, default=None)

    def _compare_summary(self, recorded: "Summary | None") -> None:
        """Whether the records that were moved are those that the summary of the old file has counted."""
        if self._new.summary is not None:
            rows = ((table, key, value) for (table, key), value in self._moved.items())
            self._report.is_listing_doubtful = recorded is None or not self._new.summary.is_of(recorded, rows)

    def _end_summary(self, recorded: "Summary | None") -> None:
        """Have the new summary be as right, or as wrong, as the old one was."""
        summary = self._new.summary
        if summary is None:
            return
        changes = recorded.changes if recorded is not None else 0
        if self._report.is_listing_doubtful:
            self._new.write(lambda transaction: summary.doubt(transaction, changes))
        else:
            self._new.write(lambda transaction: summary.begin(transaction, changes))

    def _keep_nameless(self, rows: dict[Table, list[Row]], path: Path) -> None:
        """In the new file, before it takes the place of the old one: afterwards nobody knows that anything was lost."""
        is_lost = any(self._is_damaged(table) for table in (Table.SNAPSHOTS, Table.FORGOTTEN)) or bool(self._report.lost_live_folders)
        is_lost |= self._report.is_listing_doubtful
        is_lost |= any(not (_record_key(row.value) or self._foreign_key(row)) for row in rows[Table.SNAPSHOTS])
        is_lost |= any(not _forgotten_key(row.value) for row in rows[Table.FORGOTTEN])
        if is_lost:
            self._progress.begin("folders without a name")
            parameters = decode_parameters(self._new.get(Table.META, FORMAT_KEY) or b"", path)
            kept = keep_nameless(self._new, parameters.chunking, now_ns=time.time_ns())
            if kept is not None:
                self._report.recovered, self._report.recovered_folders = kept

    # What is needed to understand the rest.

    def _move_parameters(self, path: Path) -> None:
        """Move the table `meta`, which is not sealed. Parameters and key slots that its tree does not lead to are looked for everywhere."""
        rows = list(self._old.walk(Table.META.value))
        if self._is_damaged(Table.META):
            known = {row.key for row in rows}
            with DataFile(path) as file:
                rows += [row for row in file.iter_stray_rows() if _is_parameter(row) and row.key not in known]
        generation = next((row.value for row in rows if row.key == GENERATION_KEY), b"")
        self._report.has_new_parameters = not any(row.key == FORMAT_KEY and _has_parameters(row.value, path) for row in rows)
        if self._report.has_new_parameters and any(row.key.startswith(SLOT_PREFIX) for row in rows):
            message = f"the parameters of the encrypted store {path} are lost, and with them all its keys; nothing was changed"
            raise CorruptionError(message, hint="restore the store from a copy")

        def apply(transaction: WriteTransaction) -> None:
            for row in rows:
                if row.key != FORMAT_KEY or _has_parameters(row.value, path):
                    transaction.put(Table.META, row.key, row.value)
            if self._report.has_new_parameters:
                parameters = Parameters(PLAIN_VERSION, os.urandom(16), time.time_ns(), ChunkParams())
                transaction.put(Table.META, FORMAT_KEY, encode_parameters(parameters))
            transaction.put(Table.META, GENERATION_KEY, (int.from_bytes(generation[:7], "little") + 1).to_bytes(8, "little"))

        self._new.write(apply)

    def _unlock(self, path: Path, unlock: "Unlock | None") -> None:
        """Have the new environment use the store's key, if it has one. Raises LockedError if nobody knows it."""
        parameters = decode_parameters(self._new.get(Table.META, FORMAT_KEY) or b"", path)
        if parameters.encryption is not None:
            use_key(self._new, ask_for_key(self._new, parameters, unlock))
        self._codec = Codec(self._new.key)

    def _rows(self, table: Table) -> Iterator[Row]:
        """The rows of a table that its tree leads to, opened."""
        for row in self._old.walk(table.value):
            yield self._opened(table, row)

    def _opened(self, table: Table, row: Row) -> Row:
        """A row as it was before it was sealed; with an empty value if it was not sealed in this table, or is damaged."""
        form = self._new.row_forms.get(table)
        if form is None:
            return row
        value = bytes(form.open(row.key, memoryview(row.value)))
        if not value and row.value:
            self._unsealed.add(table)
        opened = Row(form.shown_key(row.key), value, row.page)
        if table in _RECORDS and value:
            self._stored[table, opened] = row
        return opened

    def _opened_all(self, table: Table, rows: list[Row]) -> list[Row]:
        return [self._opened(table, row) for row in rows]

    def _is_damaged(self, table: Table) -> bool:
        found = self._old.tables.get(table.value)
        return found is None or found.is_damaged

    # Segments.

    def _move_segments(self) -> None:
        self._progress.begin("segments")
        strange: list[bytes] = []
        for batch in _batches(self._old.walk(Table.SEGMENTS.value)):
            good = []
            for row in batch:
                number = segment_number(row.key)
                if number is None or not 0 < number < SEGMENTS_MAX:
                    strange.append(row.value)
                else:
                    good.append((number, row.value))
                    self._last_segment = max(self._last_segment, number)
            self._put_segments(good)
        self._put_segments((self._next_number(), stored) for stored in strange)

    def _move_stray_segments(self) -> None:
        if self._is_damaged(Table.SEGMENTS):
            for stored in self._old.iter_stray_segments(self._new.key):
                self._move_stray_segment(stored)

    def _move_stray_segment(self, stored: bytes) -> None:
        before = self._report.segments
        self._put_segments([(self._next_number(), stored)])
        self._report.stray_segments += self._report.segments - before

    def _next_number(self) -> int:
        self._last_segment += 1
        return self._last_segment

    def _put_segments(self, segments: Iterable[tuple[int, bytes]]) -> None:
        """Put segments that are some into the new file, and their chunks into its index."""
        readable = []
        for number, stored in segments:
            self._progress.done += 1
            try:
                chunks, _ = hash_segment(self._new, self._codec, stored)
            except (CorruptionError, FormatError) as error:
                guess = guess_header(stored, self._new.key)
                if guess is not None:
                    stored = guess  # noqa: PLW2901 (the segment as it must have been)
                    chunks, _ = hash_segment(self._new, self._codec, stored)
                elif isinstance(error, FormatError):
                    chunks = []  # it stays, for the release that may have written it
                else:
                    self._report.unreadable_segments += 1
                    continue
            if chunks and all(chunk in self._indexed for chunk in chunks):
                continue  # an old copy of one that was moved
            if number in self._numbers:
                number = self._next_number()  # noqa: PLW2901 (one of the two has a key that was hit)
            self._numbers.add(number)
            readable.append((number, stored, chunks))
            self._indexed.update(chunks)

        def apply(transaction: WriteTransaction) -> None:
            for number, stored, chunks in readable:
                transaction.put(Table.SEGMENTS, segment_key(number), stored)
                for place, chunk in enumerate(chunks):
                    if transaction.get(Table.CHUNKS, chunk) is None:
                        transaction.put(Table.CHUNKS, chunk, Location(number, place).pack())
                    transaction.looked_at(2)

        if readable:
            self._new.write(apply)
        self._report.segments += len(readable)

    # Records.

    def _stray_rows(self) -> Iterator[Row]:
        """Rows that no tree led to and that may be records; small segments among them are moved at once."""
        if not any(self._is_damaged(table) for table in (*_RECORDS, Table.SEGMENTS)):
            return
        self._progress.begin("pages that nothing leads to")
        for row in self._old.iter_stray_rows():
            if self._new.key is None and 0 < segment_length(lambda count, value=row.value: value[:count], None) == len(row.value):  # type: ignore[misc]
                if self._is_damaged(Table.SEGMENTS):
                    self._move_stray_segment(row.value)
            elif self._may_be_record(row):
                yield row

    def _may_be_record(self, row: Row) -> bool:
        return bool(
            _record_key(self._opened(Table.SNAPSHOTS, row).value)
            or _forgotten_key(self._opened(Table.FORGOTTEN, row).value)
            or _passes(decode_pin, self._opened(Table.PINS, row).value)
        )

    def _move_forgotten(self, rows: list[Row], stray: list[Row]) -> None:
        known = {key for row in rows if (key := _forgotten_key(row.value))}
        for row in (*rows, *(stray if self._is_damaged(Table.FORGOTTEN) else ())):
            key = _forgotten_key(row.value)
            if key and (row in rows or (key not in known and row.key == key and self._is_likely(decode_forgotten(row.value).record))):
                self._put_record(Table.FORGOTTEN, key, row)
                known.add(key)

    def _move_snapshots(self, rows: list[Row], stray: list[Row]) -> None:
        for row in rows:
            if key := _record_key(row.value) or self._foreign_key(row):
                self._put_snapshot(key, row)
        if self._is_damaged(Table.SNAPSHOTS):
            for row in stray:
                key = _record_key(row.value)
                is_taken = any(self._new.get(table, row.key) is not None for table in (Table.SNAPSHOTS, Table.FORGOTTEN)) if key else True
                if key and key == row.key and not is_taken and self._is_likely(row.value):
                    self._put_snapshot(key, row)
                    self._report.stray_snapshots += 1

    def _foreign_key(self, row: Row) -> bytes:
        """The key of a record of a newer release: it stays where it was."""
        try:
            decode_snapshot(row.value)
        except FormatError:
            return row.key
        except CorruptionError:
            pass
        return b""

    def _put_snapshot(self, key: bytes, row: Row) -> None:
        self._put_record(Table.SNAPSHOTS, key, row)
        self._put(Table.SNAPSHOT_IDS, snapshot_id(row.value), key)
        self._report.snapshots += 1

    def _is_likely(self, record: bytes) -> bool:
        """Whether a stray record was not taken away, for all that is known."""
        return self._old.knows_free_pages or ChunkId(decode_snapshot(record).root.content) in self._indexed

    def _move_pins(self, rows: list[Row], stray: list[Row]) -> None:
        for row in (*rows, *(stray if self._is_damaged(Table.PINS) else ())):
            if len(row.key) == ID_BYTES and _passes(decode_pin, row.value) and self._new.get(Table.SNAPSHOT_IDS, row.key) is not None:
                self._put_record(Table.PINS, row.key, row)

    def _move_hints(self, table: Table) -> None:
        decode = decode_seen if table is Table.SCAN else decode_damaged
        for batch in _batches(self._rows(table)):
            good = [row for row in batch if len(row.key) == ID_BYTES and _passes(decode, row.value)]
            self._put_rows(table, good)

    # Live folders.

    def _move_live_folders(self) -> None:
        heads = list(self._rows(Table.LIVE_FOLDERS))
        self._put_rows(Table.LIVE_FOLDERS, [row for row in heads if 0 < len(row.key) <= _KEY_BYTES_MAX])
        for table in _LIVE_ROWS:
            for batch in _batches(self._rows(table)):
                self._put_rows(table, [row for row in batch if 0 < len(row.key) <= _KEY_BYTES_MAX])
        is_lacking = any(self._old.tables[table.value].is_damaged for table in _LIVE_ROWS if table.value in self._old.tables)
        is_lacking |= not self._unsealed.isdisjoint(_LIVE_ROWS)
        is_lacking |= any(table.value not in self._old.tables for table in _LIVE_ROWS) and bool(heads)
        with self._new.read() as view:
            names = list(iter_names(view))
        self._report.lost_live_folders = [name for name in names if is_lacking or not self._can_load(name)]
        if self._report.lost_live_folders:
            self._drop_live_folders(set(self._report.lost_live_folders))

    def _drop_live_folders(self, lost: set[str]) -> None:
        """Take these away, and all rows that then belong to none: a folder that is made later may get the same number."""
        with self._new.read() as view:
            keep = {load_rows(view, name).head.number for name in iter_names(view) if name not in lost}
        self._clear(Table.LIVE_FOLDERS, lambda key: key.decode("utf-8", "surrogateescape") in lost)
        for table in _LIVE_ROWS:
            self._clear(table, lambda key: int.from_bytes(key[:4], "big") not in keep)

    def _can_load(self, name: str) -> bool:
        try:
            with self._new.read() as view:
                for number, row in load_rows(view, name).nodes.items():
                    decode_row(number, row)
        except (CorruptionError, FormatError, NotFoundError):
            return False
        return True

    def _clear(self, table: Table, is_unwanted: Callable[[bytes], bool]) -> None:
        with self._new.read() as view:
            found = [key for key, _ in view.iterate(table) if is_unwanted(key)]

        def apply(transaction: WriteTransaction) -> None:
            for key in found:
                transaction.delete(table, key)

        self._new.write(apply)

    def _put_rows(self, table: Table, rows: list[Row]) -> None:
        def apply(transaction: WriteTransaction) -> None:
            for row in rows:
                transaction.put(table, row.key, row.value)
                transaction.looked_at(1)

        if rows:
            self._new.write(apply)

    def _put_record(self, table: Table, key: bytes, row: Row) -> None:
        stored = self._stored.get((table, row), row)
        self._moved[table, stored.key] = stored.value
        self._put(table, key, row.value)

    def _put(self, table: Table, key: bytes, value: bytes) -> None:
        self._new.write(lambda transaction: transaction.put(table, key, value))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.value) + 256
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _is_parameter(row: Row) -> bool:
    return row.key == FORMAT_KEY or row.key.startswith(SLOT_PREFIX)


def _has_parameters(record: bytes, path: Path) -> bool:
    """Raises FormatError for those of a newer release."""
    try:
        decode_parameters(record, path)
    except CorruptionError:
        return False
    return True


def _record_key(record: bytes) -> bytes:
    """What a snapshot record says its key is; nothing if it is none."""
    try:
        return snapshot_key(decode_snapshot(record))
    except (YesterError, UnicodeEncodeError):
        return b""


def _forgotten_key(value: bytes) -> bytes:
    try:
        return _record_key(decode_forgotten(value).record)
    except YesterError:
        return b""


def _passes(decode: object, value: bytes) -> bool:
    assert callable(decode)
    try:
        decode(value)
    except (CorruptionError, FormatError):
        return False
    return True

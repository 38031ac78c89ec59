# SPDX-License-Identifier: MIT
"""The LMDB environment: beside `store.verify` the only module that imports lmdb, and where its errors become ours.

Rules, each one measured (docs/adr/0002): never `writemap` (a full disk is then SIGBUS), never `lock=False` or relaxed
sync; begin and commit of a write happen inside one call on one thread; buffers die with their transaction; no read
transaction outlives one call; environments are opened after any fork and never used in the child.

Threads: reads may come from any thread. Writes too, but LMDB lets one through at a time, over all processes.
"""

import ctypes
import errno
import mmap
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, Self, TypeVar

import lmdb

from yester.core.ids import NameChunk, chunk_id
from yester.errors import BusyError, ConflictError, CorruptionError, NotFoundError, StoreAccessError, StoreFullError, YesterError
from yester.store.datafile import DATA_FILE, check_data_file

if TYPE_CHECKING:
    from yester.store.keys import StoreKey
    from yester.store.summary import SnapshotSummary

MAP_BYTES = 1 << 40
"""Address space, not disk: 1 TiB costs nothing on 64-bit Linux, and a store grows past it by doubling."""
_MAP_BYTES_MIN = 1 << 26
"""No smaller map is tried, where the address space has no room for one."""
READERS_MAX = 1024
LOCK_FILE = "lock.mdb"
_LOCK_BYTES = (READERS_MAX + 2) * 64
"""A cache line for each reader, and what all of them share (MDB_txninfo)."""
_OWN_PAGES = 4
"""Pages that LMDB needs at least for itself: two that begin the file, the list of tables, the list of free pages."""
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
TOUCHED_BYTES = 64 * 1024
"""Around each page that is looked at the kernel maps so much of the file."""
_RELEASE_BYTES = 8 * 1024 * 1024
"""Read so much through the map, then let go of its pages; see `Environment.release_pages`."""


class Table(Enum):
    """The named databases of a store; docs/format.md §1 gives their keys and values."""

    META = b"meta"
    SEGMENTS = b"segments"
    CHUNKS = b"chunks"
    SNAPSHOTS = b"snapshots"
    SNAPSHOT_IDS = b"snapshot_ids"
    SCAN = b"scan"
    LIVE_FOLDERS = b"live_folders"
    LIVE_NODES = b"live_nodes"
    LIVE_NAMES = b"live_names"
    LIVE_EXTENTS = b"live_extents"
    LIVE_BATCHES = b"live_batches"
    FORGOTTEN = b"forgotten"
    PINS = b"pins"
    DAMAGED = b"damaged"

    __hash__ = object.__hash__  # that of Enum takes 0.3 µs, a sixth of looking a row up


_FIRST_TABLES = {Table.META, Table.SEGMENTS, Table.CHUNKS, Table.SNAPSHOTS, Table.SNAPSHOT_IDS, Table.SCAN}
"""Every store has these. A store that lacks others gets them when it is opened for writing."""


class RowForm(Protocol):
    """How the rows of a table are stored that are not stored as they are: `store.sealing`, `store.checked_rows`."""

    def stored_key(self, key: bytes) -> bytes:
        """What a row, or what begins with this, is stored under."""
        ...

    def shown_key(self, stored: bytes) -> bytes:
        """The key of a stored row."""
        ...

    def seal(self, stored_key: bytes, value: bytes | memoryview) -> bytes:
        """What is stored as its value."""
        ...

    def open(self, stored_key: bytes, stored: memoryview) -> memoryview:
        """The value of a row; empty if it is damaged."""
        ...

    def value_bytes(self, stored: memoryview) -> int:
        """How long the value is."""
        ...

    def open_part(self, stored_key: bytes, stored: memoryview, start: int, length: int) -> memoryview:
        """A part of the value; empty if it is damaged."""
        ...


def open_mapped(path: Path, map_bytes: int, *, readonly: bool, create: bool) -> "lmdb.Environment":
    """LMDB's environment, with a smaller map where the address space has no room: 64-bit ARM may have 512 GiB, and `ulimit -v` less.

    Raises:
        lmdb.Error: see `_translated`.
    """
    while True:
        try:
            return lmdb.open(
                os.fsencode(path),
                map_size=map_bytes,
                readonly=readonly,
                readahead=True,
                max_dbs=32,
                max_readers=READERS_MAX,
                create=create,
                mode=0o600,
            )
        except lmdb.MemoryError:
            if map_bytes <= _MAP_BYTES_MIN:
                raise
            map_bytes //= 4


class ReadTransaction:
    """A consistent view of the whole store. Values are memory of the map: valid until the transaction ends.

    In an encrypted store most rows are sealed (`store.sealing`). They are opened here, so to everybody else they look alike; but what is
    sealed of keys, names, has no order, and a prefix ends where a name does. A row that is damaged, or was not sealed where it is,
    has the empty value.
    """

    def __init__(self, environment: "Environment", transaction: "lmdb.Transaction") -> None:
        self._environment = environment
        self._transaction: Final = transaction
        self._handles: Final = environment.handles
        self._forms: Final = environment.row_forms

    def get(self, table: Table, key: bytes) -> memoryview | None:
        """The value, or None."""
        form = self._forms.get(table)
        if form is None:
            return self.get_stored(table, key)
        stored_key = form.stored_key(key)
        stored = self.get_stored(table, stored_key)
        return None if stored is None else form.open(stored_key, stored)

    def get_part(self, table: Table, key: bytes, start: int, length: int) -> memoryview | None:
        """So many bytes of a value, from `start` on; None if there is no value, or it is not so long. No more of it is read."""
        form = self._forms.get(table)
        stored_key = key if form is None else form.stored_key(key)
        stored = self.get_stored(table, stored_key)
        if stored is None or (len(stored) if form is None else form.value_bytes(stored)) < start + length:
            return None
        part = stored[start : start + length] if form is None else form.open_part(stored_key, stored, start, length)
        return part if len(part) == length else None

    def get_stored(self, table: Table, stored_key: bytes) -> memoryview | None:
        """The value of a row as it is stored, sealed or not; or None."""
        return self._transaction.get(stored_key, db=self._handles[table])  # type: ignore[return-value]  # views, as `buffers` is set

    def iterate_stored(self, table: Table) -> Iterator[tuple[bytes, memoryview]]:
        """All rows as they are stored, sealed or not, in byte order of their keys."""
        with self._transaction.cursor(db=self._handles[table]) as cursor:
            for key, value in cursor:
                yield bytes(key), value  # type: ignore[misc]  # views, as `buffers` is set

    def iterate_sizes(self, table: Table, prefix: bytes) -> Iterator[tuple[bytes, int]]:
        """Keys that start with `prefix` and how long their values are, which are not read."""
        form = self._forms.get(table)
        with self._transaction.cursor(db=self._handles[table]) as cursor:
            start = prefix if form is None else form.stored_key(prefix)
            found = cursor.set_range(start) if start else cursor.first()
            while found and (key := bytes(cursor.key())).startswith(start):
                if form is None:
                    yield key, len(cursor.value())
                else:
                    yield form.shown_key(key), form.value_bytes(cursor.value())  # type: ignore[arg-type]  # a view
                found = cursor.next()

    def iterate(self, table: Table, prefix: bytes = b"", *, reverse: bool = False) -> Iterator[tuple[bytes, memoryview]]:
        """Keys that start with `prefix` and their values, in (reverse) byte order of the keys."""
        form = self._forms.get(table)
        prefix = prefix if form is None else form.stored_key(prefix)
        with self._transaction.cursor(db=self._handles[table]) as cursor:
            if not reverse:
                found = cursor.set_range(prefix) if prefix else cursor.first()
            else:
                after = _prefix_end(prefix)
                found = (cursor.set_range(after) and cursor.prev()) if after else cursor.last()
                if after and not found and not cursor.set_range(after):
                    found = cursor.last()
            while found:
                key = bytes(cursor.key())
                if not key.startswith(prefix):
                    return
                yield _row(form, key, cursor)
                found = cursor.prev() if reverse else cursor.next()

    def iterate_from(self, table: Table, start: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Keys not before `start` and their values, in byte order of the keys."""
        form = self._forms.get(table)
        start = start if form is None else form.stored_key(start)
        with self._transaction.cursor(db=self._handles[table]) as cursor:
            found = cursor.set_range(start) if start else cursor.first()
            while found:
                yield _row(form, bytes(cursor.key()), cursor)
                found = cursor.next()

    def iterate_back_from(self, table: Table, start: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Keys not after `start` and their values, in reverse byte order of the keys."""
        form = self._forms.get(table)
        start = start if form is None else form.stored_key(start)
        with self._transaction.cursor(db=self._handles[table]) as cursor:
            found = cursor.set_range(start)
            if not found or bytes(cursor.key()) != start:
                found = cursor.prev() if found else cursor.last()
            while found:
                yield _row(form, bytes(cursor.key()), cursor)
                found = cursor.prev()

    def last_key(self, table: Table) -> bytes | None:
        """The greatest key, or None in an empty table. For tables whose keys are not sealed."""
        with self._transaction.cursor(db=self._handles[table]) as cursor:
            return bytes(cursor.key()) if cursor.last() else None

    def has_table(self, table: Table) -> bool:
        """Whether the store has a table. One of an earlier release may lack some as long as it is only read."""
        return table in self._handles

    def used_pages(self) -> int:
        """How many pages all tables take, but for LMDB's own lists of tables and of free pages."""
        stats = [self._transaction.stat(handle) for handle in self._handles.values()]
        return sum(int(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) for stat in stats)

    def count(self, table: Table) -> int:
        """How many keys the table has. O(1)."""
        return int(self._transaction.stat(self._handles[table])["entries"])


class WriteTransaction(ReadTransaction):
    """A read view that includes its own changes, all of which are committed together or not at all."""

    def put(self, table: Table, key: bytes, value: bytes, *, append: bool = False) -> None:
        """Set a value; `append` says that the key is after all others, which is faster."""
        form = self._forms.get(table)
        if form is not None:
            key = form.stored_key(key)
            value = form.seal(key, value)
            self._count(table, key, value)
        self._transaction.put(key, value, db=self._handles[table], append=append)

    def looked_at(self, rows: int) -> None:
        """Note that so many rows were looked for or changed: a transaction of very many would map most of the file (`release_pages`)."""
        self._environment.release_pages(rows * TOUCHED_BYTES)

    def delete(self, table: Table, key: bytes) -> bool:
        """Remove a key; False if it was not there."""
        form = self._forms.get(table)
        if form is not None:
            key = form.stored_key(key)
            self._count(table, key, None)
        return bool(self._transaction.delete(key, db=self._handles[table]))

    def _count(self, table: Table, stored_key: bytes, stored: bytes | None) -> None:
        """Keep the summary of snapshots true when a row, as stored, is about to be set or to be removed."""
        summary = self._environment.summary
        if summary is not None and table in summary.tables:
            summary.count(self, table, stored_key, stored)


def _row(form: RowForm | None, key: bytes, cursor: "lmdb.Cursor") -> tuple[bytes, memoryview]:
    """The row a cursor is at."""
    stored: memoryview = cursor.value()  # type: ignore[assignment]  # views, as `buffers` is set
    return (key, stored) if form is None else (form.shown_key(key), form.open(key, stored))


class _MapUse:
    """Which threads look at the map. Whoever moves it or takes it away waits for them: they would be looking at nothing.

    A thread may look again while it looks.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._looking: Counter[int] = Counter()
        self._is_wanted = False

    def begin(self) -> None:
        """This thread begins to look; waits while the map is moved."""
        me = threading.get_ident()
        with self._changed:
            while self._is_wanted and me not in self._looking:
                self._changed.wait()
            self._looking[me] += 1

    def end(self) -> None:
        """This thread has looked; once for each `begin`."""
        me = threading.get_ident()
        with self._changed:
            self._looking[me] -= 1
            if not self._looking[me]:
                del self._looking[me]
                if self._is_wanted:
                    self._changed.notify_all()

    def is_mine(self) -> bool:
        """Whether this thread looks."""
        return threading.get_ident() in self._looking

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """No other thread looks. Waits until that is so; whoever wants to look meanwhile waits."""
        with self._changed:
            while self._is_wanted:
                self._changed.wait()
            self._is_wanted = True
            try:
                while self._looking.keys() - {threading.get_ident()}:
                    self._changed.wait()
                yield
            finally:
                self._is_wanted = False
                self._changed.notify_all()


class Environment:
    """An open LMDB environment. One a process and store: LMDB refuses a second."""

    def __init__(self, path: Path, *, create: bool = False, readonly: bool = False, map_bytes: int = MAP_BYTES) -> None:
        """Open the environment in directory `path`, which must exist; `create` makes the databases.

        Raises:
            NotFoundError: there is no data file and `create` is False.
            CorruptionError: the data file is shorter than it says, or is not one.
            StoreAccessError: the operating system refuses.
        """
        self.path = path
        self.readonly = readonly
        self.key: StoreKey | None = None
        """Of an encrypted store, once it is unlocked (`Store.open`)."""
        self.row_forms: Mapping[Table, RowForm] = {}
        """How rows are stored that are not stored as they are. `Store` says so, of a plain store as well."""
        self.summary: SnapshotSummary | None = None
        self.name_chunk: NameChunk = chunk_id
        """What gives bytes their id in this store."""
        self._writing: Final = threading.Lock()
        self._map_use: Final = _MapUse()
        self._background: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")  # starts at its first use
        if not create or (path / DATA_FILE).exists():
            check_data_file(path)
        if not readonly:
            self._prepare_lock_file()
        with _translated(path):
            self._env = open_mapped(path, map_bytes, readonly=readonly, create=create)
        try:
            with _translated(path):
                self._refuse_foreign_database()
                found = {table: self._open_table(table, create=create) for table in Table}
                self.handles = {table: handle for table, handle in found.items() if handle is not None}
        except YesterError:
            self._env.close()
            raise
        self._read_bytes = 0
        self._folder: Final = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._is_closed = False

    def _prepare_lock_file(self) -> None:
        """Take the space of the lock file beforehand: LMDB maps one that is all hole, and on a full disk touching it is SIGBUS.

        A file that has its space is not opened. Closing it would end the locks that this process has on it, if it has the store
        open already: then another would take the store for unused.

        Raises:
            StoreFullError: there is no room for it; the file may be there.
        """
        path = self.path / LOCK_FILE
        try:
            if path.lstat().st_blocks * 512 >= _LOCK_BYTES:
                return
        except OSError:
            pass  # not there yet
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # LMDB will say what is wrong
        try:
            os.posix_fallocate(file, 0, _LOCK_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message = f"no space left for the store {self.path}: it needs {_LOCK_BYTES >> 10} KiB to lock itself; {_STATE}"
                raise StoreFullError(message, hint="free space on that disk and run the command again") from error
        finally:
            os.close(file)

    def _open_table(self, table: Table, *, create: bool) -> "lmdb._Database | None":
        """A table's handle. A store that lacks one that came later gets it, unless it is only read."""
        try:
            return self._env.open_db(table.value, create=create)
        except (lmdb.NotFoundError, lmdb.ReadonlyError):
            if create or table in _FIRST_TABLES:
                raise
            return None if self.readonly else self._env.open_db(table.value)

    def _refuse_foreign_database(self) -> None:
        ours = {table.value for table in Table}
        with self._env.begin() as transaction:
            if all(key in ours for key, _ in transaction.cursor()):
                return
        message = f"{self.path} holds an LMDB database that is not a yester store; nothing was changed"
        raise ConflictError(message, hint="name the store's folder with --store or YESTER_STORE")

    def close(self) -> None:
        """End all use. Waits for commits, reads and background work that go on. Safe to call twice.

        If the user interrupts that, the environment stays open. What this thread itself still reads ends with an error.
        """
        self._background.shutdown(cancel_futures=True)
        with self._writing, self._map_use.exclusive():
            self._env.close()
            if not self._is_closed:
                os.close(self._folder)
            self._is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def read(self) -> Iterator[ReadTransaction]:
        """A read transaction. Short: while it lives, no page that it can see is used again, and the file grows."""
        with _translated(self.path):
            transaction = self._begin_reading()
            try:
                with transaction:
                    yield ReadTransaction(self, transaction)
            finally:
                self._map_use.end()

    def _begin_reading(self) -> "lmdb.Transaction":
        """A transaction that counts as a use of the map."""
        while True:
            self._map_use.begin()
            try:
                return self._env.begin(buffers=True)
            except lmdb.MapResizedError:
                self._map_use.end()
                self._set_map_bytes(0)
            except BaseException:
                self._map_use.end()
                raise

    def get(self, table: Table, key: bytes) -> bytes | None:
        """A copy of one value as of now, or None. Half the cost of a `read()` for it, if it is not sealed: 2 µs."""
        if table in self.row_forms:
            with self.read() as view:
                opened = view.get(table, key)
                return None if opened is None else bytes(opened)
        try:
            with self._env.begin() as transaction:
                return transaction.get(key, db=self.handles[table])
        except lmdb.Error:
            with self.read() as view:
                value = view.get(table, key)
                return None if value is None else bytes(value)

    def write(self, apply: Callable[[WriteTransaction], Result]) -> Result:
        """Run `apply` in a write transaction, commit, and return its result; durable on return.

        Waits while another process writes. If the map is too small it is doubled and `apply` runs again, so `apply`
        must have no other effect than its puts and deletes. If `apply` raises, nothing is changed.

        Raises:
            StoreFullError: the disk is full; nothing was changed.
        """
        while True:
            with self._writing, _translated(self.path):
                try:
                    with self._env.begin(write=True, buffers=True) as transaction:
                        return apply(WriteTransaction(self, transaction))
                except lmdb.MapFullError:
                    self._set_map_bytes(int(self._env.info()["map_size"]) * 2)
                except lmdb.MapResizedError:
                    self._set_map_bytes(0)

    def in_background(self, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> "Future[Result]":
        """Run `work`, which may read, on a thread that ends before the environment does. One at a time; do not call after `close`."""
        return self._background.submit(work, *arguments, **named)

    def last_transaction(self) -> int:
        """Number of the last committed transaction: changes whenever anything in the store does. About 2 µs."""
        return int(self._env.info()["last_txnid"])

    def disk(self) -> os.statvfs_result:
        """The disk that the file is on, also after it was moved or removed."""
        return os.fstatvfs(self._folder)

    def reusable_bytes(self) -> int:
        """What the file has of pages that nothing uses: they are written again before it grows. Old readers may still pin some."""
        with self.read() as view:
            free = int(self._env.info()["last_pgno"]) + 1 - view.used_pages() - _OWN_PAGES
        return max(0, free) * self.page_bytes

    @property
    def page_bytes(self) -> int:
        """The size of a page."""
        return int(self._env.stat()["psize"])

    def map_bytes(self) -> int:
        """How much address space the map takes."""
        return int(self._env.info()["map_size"])

    def copy_to(self, folder: Path) -> None:
        """Write all that is in it into a data file in `folder`, which is empty; without free pages, and durable.

        Raises:
            StoreFullError, StoreAccessError: it could not be written.
        """
        with _translated(self.path):
            self._env.copy(os.fspath(folder), compact=True)
        copy = os.open(folder / DATA_FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(copy)
        finally:
            os.close(copy)

    def file_bytes(self) -> int:
        """How large the data file is."""
        return (self.path / DATA_FILE).stat().st_size

    def clear_stale_readers(self) -> int:
        """Free the slots of readers whose process is gone; each pins pages until then. Returns how many."""
        with _translated(self.path):
            return int(self._env.reader_check())

    def release_pages(self, read_bytes: int) -> None:
        """Note that `read_bytes` were read through the map; now and then, give its pages back to the kernel.

        Pages of the map that were touched count as this process's memory although they are only page cache. Dropping
        the mapping's page-table entries is always safe: a later access maps them again.
        """
        self._read_bytes += read_bytes
        if self._read_bytes >= _RELEASE_BYTES:
            self._read_bytes = 0
            self._map_use.begin()  # what is released must not be somebody else's memory by then
            try:
                place = _find_map(self.path / DATA_FILE)
                if place is not None:
                    _libc.madvise(ctypes.c_void_p(place[0]), ctypes.c_size_t(place[1]), mmap.MADV_DONTNEED)
            finally:
                self._map_use.end()

    def _set_map_bytes(self, map_bytes: int) -> None:
        """Map so much; 0 for as much as another process has made it.

        Raises:
            BusyError: this very thread reads.
        """
        if self._map_use.is_mine():
            message = f"another process has made the store {self.path} larger while it was read; nothing was changed"
            raise BusyError(message, hint="run the command again")
        with self._map_use.exclusive():
            self._env.set_mapsize(map_bytes)


_libc = ctypes.CDLL(None, use_errno=True)


def _find_map(data_file: Path) -> tuple[int, int] | None:
    """Where the data file is mapped in this process: address and length; None if that cannot be told."""
    try:
        identity = data_file.stat()
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                address, _permissions, _offset, device, inode, *_ = line.split(maxsplit=5)
                major, minor = (int(part, 16) for part in device.split(b":"))
                if int(inode) == identity.st_ino and os.makedev(major, minor) == identity.st_dev:
                    start, end = (int(part, 16) for part in address.split(b"-"))
                    return start, end - start
    except (OSError, ValueError):
        pass
    return None


def _prefix_end(prefix: bytes) -> bytes | None:
    """The least key after all keys that start with `prefix`; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn lmdb's errors into ours. `MapFullError` and `MapResizedError` are handled where they can be."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.MapResizedError):
        raise
    except lmdb.DiskError as error:
        raise _disk_error(path, error) from error
    except lmdb.ReadersFullError as error:
        message = f"too many programs read the store {path} at once"
        raise BusyError(message, hint="end some of the mounts or commands that use it") from error
    except lmdb.LockError as error:
        message = f"cannot lock the store {path}: {error}"
        raise StoreAccessError(message, hint="a store needs a local file system that locks files") from error
    except lmdb.NotFoundError as error:
        message = f"{path} is not a store: making one there was interrupted"
        raise NotFoundError(message, hint="run `yester init` there again") from error
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError) as error:
        message = f"the database of the store {path} is damaged: {error}"
        raise CorruptionError(message, hint="run `yester check --read-data`, then `yester repair`") from error
    except lmdb.PanicError as error:
        message = f"an earlier write to the store {path} failed, and it cannot be used until it is opened again"
        raise StoreAccessError(message, hint="run the command again; what was committed before is whole") from error
    except lmdb.Error as error:
        raise _disk_error(path, error) from error


_STATE = "what was committed before is whole"


def _disk_error(path: Path, error: "lmdb.Error") -> YesterError:
    """The error for a failed system call. LMDB reports EIO for a short write, which is what a full tmpfs gives."""
    text = str(error)
    if "No space left" in text or "quota exceeded" in text or (("Input/output" in text or "EIO" in text) and _is_full(path)):
        message = f"no space left for the store {path}; {_STATE}"
        return StoreFullError(message, hint="free space on that disk and run the command again: it goes on from what is stored")
    if "File too large" in text:
        message = f"the store {path} may not become any larger: its file system, or `ulimit -f`, allows no larger file; {_STATE}"
        return StoreFullError(message, hint="raise that limit, or move the store to a file system such as ext4, XFS or Btrfs")
    message = f"the operating system refused an access to the store {path}: {text}; {_STATE}"
    return StoreAccessError(message, hint="check the disk, the permissions of the store's files, and that it is yours")


def _is_full(path: Path) -> bool:
    try:
        disk = os.statvfs(path)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 32 * 1024 * 1024

# SPDX-License-Identifier: MIT
"""A store: opening and making one, its parameters, its snapshots, and what backups remember of their sources.

A store is a directory with `data.mdb` and `lock.mdb` (LMDB's), locks (docs/concurrency.md), and `leases`, a folder in which each process
that has it open holds one. Several processes may have it open; one `Store` a process and directory.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from yester.core.chunking import ChunkParams, secret_params
from yester.core.ids import ChunkId, SnapshotId
from yester.core.records import (
    RECORD_VERSION,
    Pin,
    SeenDirectory,
    Snapshot,
    decode_forgotten,
    decode_seen,
    encode_pin,
)
from yester.errors import (
    ConflictError,
    CorruptionError,
    LockedError,
    NotFoundError,
    StoreAccessError,
    StoreFullError,
)
from yester.store.checked_rows import checked_forms
from yester.store.chunks import ChunkReader, ChunkWriter, last_segment, stored_number
from yester.store.datafile import DATA_FILE
from yester.store.folder import (
    BACKUP_LOCK_FILE,
    COMPACT_FOLDER,
    PRUNE_LOCK_FILE,
    RESERVE_FILE,
    folder_lock,
    is_name_of_store,
    is_unfinished,
    judge_copy,
    list_store,
    sync_folder,
    unfinished_error,
    use_with_others,
)
from yester.store.identity import is_own_file, remember_file
from yester.store.leases import LEASES_FOLDER, HeldLease, held
from yester.store.lmdb import (
    MAP_BYTES,
    Environment,
    ReadTransaction,
    Result,
    Table,
    WriteTransaction,
)
from yester.store.locks import file_lock
from yester.store.parameters import (
    ENCRYPTED_VERSION,
    FORMAT_KEY,
    PLAIN_VERSION,
    SALT_BYTES,
    SLOT_PREFIX,
    Encryption,
    Parameters,
    decode_parameters,
    encode_parameters,
)
from yester.store.snapshots import (
    AFTER_ALL_TIMES,
    GENERATION_KEY,
    ForgottenSnapshot,
    Listing,
    StoredSnapshot,
    _scan_key,
    by_source,
    count_generation,
    decode_stored,
    forget_snapshots,
    iter_forgotten,
    put_snapshot,
    read_listing,
    read_pins,
    readable,
    source_prefix,
    time_key,
)

if TYPE_CHECKING:
    from yester.store.keys import StoreKey
    from yester.store.slots import LockedStore, Unlock
    from yester.store.summary import Summary

_PLENTY_BYTES = 1 << 30
_RESERVE_BYTES = 4 * 1024 * 1024
"""Room for some transactions that remove things: LMDB needs new pages for that, too, and a full disk has none."""


_log = logging.getLogger(__name__)


class Store:
    """An open store. Methods that read may be called from any thread; writing belongs to one thread at a time."""

    def __init__(self, path: Path, environment: Environment, parameters: Parameters, resources: ExitStack) -> None:
        """Use `Store.open` or `Store.create`. `resources` is closed with the store."""
        self.path = path
        self.environment = environment
        self.parameters = parameters
        key = environment.key
        self.chunking = parameters.chunking if key is None else secret_params(parameters.chunking, key.cutting_secret())
        """How files are cut, with the secret of an encrypted store."""
        self._resources = resources
        self._lease: HeldLease | None = None
        if not environment.readonly:
            self._lease = HeldLease(self.leases_folder, generation=self.snapshots_generation())
            resources.callback(self._lease.release)
            if not self._lease.is_held:
                _log.warning("no lease could be taken in %s: a prune may remove what is being read", self.leases_folder)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        chunking: ChunkParams | None = None,
        map_bytes: int = MAP_BYTES,
        passphrase: str | None = None,
        encryption: Encryption | None = None,
    ) -> Self:
        """Make a store in `path`, a missing or empty directory, and open it. With a passphrase it is encrypted.

        `encryption` says what a guess at the passphrase costs, if not what it does by default. A crash in between leaves a directory in
        which `create` works again.

        Raises:
            ConflictError: there is a store, or something else, at `path`.
            StoreAccessError: the operating system refuses.
        """
        with ExitStack() as stack:
            try:
                missing = [folder for folder in (path, *path.parents) if not folder.exists()]
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Two that make a store here at once: the second must not take the file that the first has just begun for a remnant.
                stack.enter_context(folder_lock(path))
            except (FileExistsError, NotADirectoryError) as error:
                message = f"{path} is a file, not a folder; no store was made"
                raise ConflictError(message, hint="name a folder with --store") from error
            except OSError as error:
                message = f"cannot make the folder {path} for a store: {error.strerror}"
                raise StoreAccessError(message, hint="name another with --store or YESTER_STORE") from error
            kdf = None if passphrase is None else encryption or Encryption(os.urandom(SALT_BYTES))
            version = PLAIN_VERSION if kdf is None else ENCRYPTED_VERSION
            parameters = Parameters(version, os.urandom(16), time.time_ns(), chunking or ChunkParams(), kdf)
            store = cls._create_alone(path, parameters, passphrase, map_bytes)
        try:
            for folder in [path, *(folder.parent for folder in missing)]:
                _sync(folder)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _create_alone(cls, path: Path, parameters: Parameters, passphrase: str | None, map_bytes: int) -> Self:
        """As `create`, in a directory in which nobody else makes a store meanwhile."""
        names = list_store(path) or set()
        if not all(map(is_name_of_store, names)):
            message = f"{path} is not empty and is not a store; nothing was changed"
            raise ConflictError(message, hint="name a missing or empty folder with --store")
        if is_unfinished(path, names):
            (path / DATA_FILE).unlink(missing_ok=True)
        put_first_slot = None if passphrase is None else _first_slot(parameters, passphrase)
        with ExitStack() as resources:
            resources.enter_context(use_with_others(path))
            environment = resources.enter_context(Environment(path, create=True, map_bytes=map_bytes))
            environment.row_forms = checked_forms()

            def put_format(transaction: WriteTransaction) -> bool:
                if transaction.get(Table.META, FORMAT_KEY) is not None:
                    return False
                transaction.put(Table.META, FORMAT_KEY, encode_parameters(parameters))
                if put_first_slot is not None:
                    put_first_slot(environment, transaction)
                return True

            if not environment.write(put_format):
                message = f"{path} is a store already; nothing was changed"
                raise ConflictError(message)
            remember_file(path)
            return cls(path, environment, parameters, resources.pop_all())

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False, map_bytes: int = MAP_BYTES, unlock: "Unlock | None" = None) -> Self:
        """Open the store in `path`: for reading and writing, unless `readonly` or this user may not write there.

        `unlock` is asked for the key if the store is encrypted. Where its snapshots are not those that were recorded, that is logged
        (not with `readonly`).

        Raises:
            NotFoundError: nothing there. ConflictError: something else is there. FormatError: made by a newer release.
            LockedError: encrypted, and there is no key. CorruptionError: damaged beyond opening, or a copy that is not whole.
            StoreAccessError: the operating system refuses. BusyError: it is being compacted or repaired.
        """
        names = list_store(path)
        if names and is_unfinished(path, names):
            raise unfinished_error(path)
        if names and DATA_FILE not in names:
            message = f"{path} is a folder with other things in it, not a store"
            raise ConflictError(message, hint="name the store's folder with --store or YESTER_STORE")
        is_helper = readonly  # whoever wants no more than to read is told by another who has opened it, as processes of a restore are
        readonly = readonly or (names is not None and not os.access(path, os.W_OK))
        with ExitStack() as resources:
            if names:
                resources.enter_context(use_with_others(path, may_go_without=readonly))
                if not is_own_file(path):
                    judge_copy(path)
                    if not readonly:
                        remember_file(path)
            environment = resources.enter_context(Environment(path, readonly=readonly, map_bytes=map_bytes))
            environment.row_forms = checked_forms()
            if not readonly:
                environment.clear_stale_readers()
                if names and COMPACT_FOLDER in names:  # nobody is compacting: the right to use the store is held
                    shutil.rmtree(path / COMPACT_FOLDER, ignore_errors=True)
            with environment.read() as view:
                parameters = _read_parameters(view, path)
            if parameters.encryption is not None:
                use_key(environment, ask_for_key(environment, parameters, unlock))
            store = cls(path, environment, parameters, resources.pop_all())
        if not is_helper:
            for problem in filter(None, (store.snapshots_problem(), store.keys_problem())):
                _log.warning("%s", problem)
        return store

    @classmethod
    def read_locked(cls, path: Path) -> "LockedStore | None":
        """What can be read of the store in `path` without its key; None if it is plain. Nothing of it stays open.

        Raises:
            As `open`.
        """
        locked: list[LockedStore] = []

        def note(found: "LockedStore") -> "StoreKey":
            locked.append(found)
            message = "only its slots are wanted"
            raise LockedError(message)

        try:
            cls.open(path, readonly=True, unlock=note).close()
        except LockedError:
            return locked[0]
        return None

    def close(self) -> None:
        """End all use; readers and writers of this store must be finished."""
        self._resources.close()

    def call_at_close(self, callback: Callable[[], None]) -> None:
        """Have this called when the store is closed, as long as it can still be read. The last one given is called first."""
        self._resources.callback(callback)

    @property
    def leases_folder(self) -> Path:
        """Where leases are: see `store.leases`."""
        return self.path / LEASES_FOLDER

    def renew_lease(self) -> None:
        """Let go of what was forgotten until now: nothing of it is read any more. About 2 µs where nothing was."""
        if self._lease is not None:
            self._lease.renew(self.snapshots_generation())

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Hold a lease for adding chunks: those added meanwhile are kept although nothing published names them yet.

        From before a writer is made until what it added is published, or a live folder's rows name it.
        """
        with self.environment.read() as view:
            last = last_segment(view)
        with held(HeldLease(self.leases_folder, generation=self.snapshots_generation(), last_segment=last)) as lease:
            if not lease.is_held:
                message = f"cannot make a file in {self.leases_folder}; nothing was stored"
                raise StoreAccessError(message, hint="see whose it is, and whether its disk is full or mounted read-only")
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunk_id(self, data: bytes | memoryview) -> ChunkId:
        """What this store calls these bytes, whether it has them or not."""
        return self.environment.name_chunk(data)

    def snapshots_problem(self) -> str:
        """What is wrong with the list of snapshots of an encrypted store, if somebody without its key has changed it; else nothing.

        2 µs a snapshot. One that is damaged or forged is told of when it is read; this is about rows that are gone, or are as they were.
        """
        summary = self.environment.summary
        if summary is None:
            return ""
        with self.environment.read() as view:
            if summary.is_right(view):
                return ""
        return (
            f"the snapshots in {self.path} are not those that were recorded: one was taken away, or put back as it was earlier, "
            "by damage or by somebody without the key; `yester key accept` takes them as they are"
        )

    def keys_problem(self) -> str:
        """What is wrong with the key slots of an encrypted store, if somebody who did not have it open has changed them; else nothing."""
        summary = self.environment.summary
        if summary is None:
            return ""
        with self.environment.read() as view:
            if summary.has_right_keys(view):
                return ""
        return (
            f"the keys of {self.path} are not those that were recorded: one was taken away, or put back as it was earlier, by damage or by "
            "somebody who did not have the store open; see `yester key list`, remove what should not be there, then `yester key accept`"
        )

    def summary(self) -> "Summary | None":
        """What the snapshots and keys of an encrypted store add up to; None for a plain store, and where that is lost."""
        summary = self.environment.summary
        if summary is None:
            return None
        with self.environment.read() as view:
            return summary.load(view)

    def changes(self) -> int:
        """How often the snapshots and keys of an encrypted store were changed: it never becomes less. 0 for a plain store."""
        found = self.summary()
        return found.changes if found is not None else 0

    def accept_snapshots(self) -> None:
        """Take snapshots and keys of an encrypted store as they are from now on, see `snapshots_problem`; durable on return."""
        if self.environment.summary is not None:
            self.environment.write(self.environment.summary.begin)

    def reader(self, *, read_ahead: bool = False) -> ChunkReader:
        """A new chunk reader, for one thread. `read_ahead` takes a second one for those that read much in order."""
        return ChunkReader(self.environment, read_ahead=read_ahead)

    def writer(self) -> ChunkWriter:
        """A new chunk writer. Several may write at once: what two of them store is stored twice, and nothing worse.

        Who will publish what it adds holds `adding` from before until after that.
        """
        return ChunkWriter(self.environment)

    def backup_lock(self, on_wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the right to back up; wait while another process has it. The system frees it if this process dies.

        `on_wait` is called once with who holds it, if it has to be waited for.
        """
        return file_lock(self.path / BACKUP_LOCK_FILE, on_wait)

    def prune_lock(self, on_wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the right to remove chunks, as `backup_lock` is that to back up."""
        return file_lock(self.path / PRUNE_LOCK_FILE, on_wait)

    def add_snapshot(self, snapshot: Snapshot) -> StoredSnapshot:
        """Publish a snapshot in one transaction; durable on return.

        The record's `name` is set here: that of its time, with a number where its source has a snapshot of that second.

        Raises:
            SweptError: its root tree is not in the store (any more); nothing was published.
        """
        return self.environment.write(lambda transaction: put_snapshot(transaction, snapshot))

    def sources(self) -> list[str]:
        """Names of all sources that have a snapshot, sorted. One seek a source."""
        names: list[str] = []
        with self.environment.read() as view:
            start = b""
            while (key := next((key for key, _ in view.iterate_from(Table.SNAPSHOTS, start)), None)) is not None:
                source = key.split(b"\0", 1)[0]
                names.append(source.decode("utf-8", "surrogateescape"))
                start = source + AFTER_ALL_TIMES
        return sorted(names)

    def snapshots(self, source: str | None = None) -> list[StoredSnapshot]:
        """All snapshots, or those of one source, by source name and then oldest first. 10,000 take about 30 ms.

        One whose record is damaged, or of a newer release, is left out and logged, here and wherever not exactly that one is
        asked for: it must not hide the others.
        """
        prefix = source_prefix(source) if source is not None else b""
        with self.environment.read() as view:
            return by_source(readable(view.iterate(Table.SNAPSHOTS, prefix)), lambda stored: stored)

    def latest_snapshot(self, source: str) -> StoredSnapshot | None:
        """The newest snapshot of a source; None if it has none. O(1)."""
        with self.environment.read() as view:
            return next(readable(view.iterate(Table.SNAPSHOTS, source_prefix(source), reverse=True)), None)

    def snapshot_at(self, source: str, until_ns: int) -> StoredSnapshot | None:
        """The newest snapshot of a source that is not after `until_ns`; None if there is none. O(log n)."""
        prefix = source_prefix(source)
        with self.environment.read() as view:
            earlier = view.iterate_back_from(Table.SNAPSHOTS, prefix + time_key(until_ns))
            return next(readable(takewhile(lambda item: item[0].startswith(prefix), earlier)), None)

    def snapshots_generation(self) -> int:
        """Changes whenever a snapshot is published, forgotten, had back or removed for good. About 2 µs."""
        return stored_number(self.environment.get(Table.META, GENERATION_KEY))

    def snapshots_generation_in(self, view: ReadTransaction) -> int:
        """As `snapshots_generation`, of a view."""
        return stored_number(view.get(Table.META, GENERATION_KEY))

    def find_snapshots_by_id(self, hex_prefix: str) -> list[StoredSnapshot]:
        """Snapshots whose id in hex starts so. An empty or odd prefix of hex digits is fine; none match other text."""
        digits = hex_prefix.lower()
        if not digits or set(digits) - set("0123456789abcdef"):
            return []
        prefix = bytes.fromhex(digits[: len(digits) // 2 * 2])
        found = []
        with self.environment.read() as view:
            for id_, key in view.iterate(Table.SNAPSHOT_IDS, prefix):
                if id_.hex().startswith(digits):
                    record = view.get(Table.SNAPSHOTS, bytes(key))
                    if record is None:
                        message = f"snapshot {id_.hex()} is listed in {self.path} but its record is not there"
                        raise CorruptionError(message, hint="run `yester check`")
                    found.append(decode_stored(bytes(record)))
        return found

    def listing(self, source: str | None = None) -> Listing:
        """All snapshots, or those of one source, as `snapshots`, and all pins, as of one instant."""
        with self.environment.read() as view:
            return read_listing(view, source)

    def forget(self, ids: Collection[SnapshotId], *, now_ns: int) -> list[StoredSnapshot]:
        """Take these snapshots out of the list of snapshots, all or none; they stay among the forgotten ones. Durable on return.

        Returns those that were there: one that somebody else has forgotten meanwhile is no error.

        Raises:
            ConflictError: one of them is pinned; nothing was changed.
        """
        return self.write_freeing(lambda transaction: forget_snapshots(transaction, ids, now_ns))

    def forget_chosen(
        self,
        choose: Callable[[Listing], Collection[SnapshotId]],
        *,
        source: str | None = None,
        now_ns: int,
        also: Callable[[WriteTransaction], None] | None = None,
    ) -> list[StoredSnapshot]:
        """As `forget`, of what `choose` picks of a listing, of one source or all, as of the transaction that forgets them.

        So nothing that others publish, forget or pin meanwhile can make it wrong. `choose` may be called more than once, and nothing is
        changed if it raises. `also` is done in the same transaction.
        """

        def apply(transaction: WriteTransaction) -> list[StoredSnapshot]:
            found = forget_snapshots(transaction, choose(read_listing(transaction, source)), now_ns)
            if also is not None:
                also(transaction)
            return found

        return self.write_freeing(apply)

    def undelete(self, ids: Collection[SnapshotId], *, pin: Pin | None = None) -> list[StoredSnapshot]:
        """Make forgotten snapshots what they were before, all or none, and put `pin` on them if it is given; durable on return.

        Raises:
            NotFoundError: one of them is not among the forgotten ones (any more); nothing was changed.
        """

        def apply(transaction: WriteTransaction) -> list[StoredSnapshot]:
            wanted = set(ids)
            found = [(key, forgotten) for key, forgotten in iter_forgotten(transaction) if forgotten.stored.id in wanted]
            if missing := wanted - {forgotten.stored.id for _, forgotten in found}:
                message = f"snapshot {min(missing).hex()[:12]} is not among the forgotten ones of {self.path}; nothing was changed"
                raise NotFoundError(message, hint="`yester snapshots --forgotten` lists those there are")
            for key, forgotten in found:
                value = transaction.get(Table.FORGOTTEN, key)
                assert value is not None
                if transaction.get(Table.CHUNKS, forgotten.stored.snapshot.root.content) is None:
                    message = f"the root folder of snapshot {forgotten.stored.id.hex()[:12]} is not in {self.path}; nothing was changed"
                    raise CorruptionError(message, hint="run `yester check`")
                transaction.put(Table.SNAPSHOTS, key, decode_forgotten(value).record)
                transaction.put(Table.SNAPSHOT_IDS, forgotten.stored.id, key)
                transaction.delete(Table.FORGOTTEN, key)
                if pin is not None:
                    transaction.put(Table.PINS, forgotten.stored.id, encode_pin(pin))
            count_generation(transaction)
            return [forgotten.stored for _, forgotten in found]

        return self.environment.write(apply)

    def forgotten_snapshots(self) -> list[ForgottenSnapshot]:
        """All snapshots that were forgotten and can be had back, by source name and then oldest first."""
        with self.environment.read() as view:
            return by_source((forgotten for _, forgotten in iter_forgotten(view)), lambda forgotten: forgotten.stored)

    def pin(self, id_: SnapshotId, *, now_ns: int, message: str = "") -> None:
        """Keep a snapshot from being forgotten; durable on return.

        Raises:
            NotFoundError: there is no such snapshot; nothing was changed.
        """

        def apply(transaction: WriteTransaction) -> None:
            if transaction.get(Table.SNAPSHOT_IDS, id_) is None:
                what = f"there is no snapshot {id_.hex()[:12]} in {self.path}; nothing was changed"
                raise NotFoundError(what, hint="`yester snapshots` lists those there are")
            transaction.put(Table.PINS, id_, encode_pin(Pin(RECORD_VERSION, now_ns, message)))

        self.environment.write(apply)

    def unpin(self, id_: SnapshotId) -> bool:
        """Let a snapshot be forgotten again; durable on return. False if it was not pinned."""
        return self.environment.write(lambda transaction: transaction.delete(Table.PINS, id_))

    def pins(self) -> dict[SnapshotId, Pin]:
        """All snapshots that are pinned."""
        with self.environment.read() as view:
            return read_pins(view)

    def announce_snapshots(self) -> None:
        """Have everybody who shows snapshots look at their list again."""
        self.environment.write(count_generation)

    def find_seen(self, source: str, path: bytes) -> SeenDirectory | None:
        """What the last backup of `source` saw in its directory `path` (relative, no slashes at the ends)."""
        with self.environment.read() as view:
            record = view.get(Table.SCAN, _scan_key(source, path))
            if record is None:
                return None
            seen = decode_seen(record)
            # The answer is used to skip storing what the tree holds, so the tree must be there at the same instant.
            return seen if view.get(Table.CHUNKS, seen.tree) is not None else None

    def has_chunk(self, chunk: ChunkId) -> bool:
        """Whether the store holds this chunk now. To skip storing it, ask a `ChunkWriter` instead."""
        return self.environment.get(Table.CHUNKS, chunk) is not None

    def free_bytes(self) -> int:
        """What can still be written: the free space of the disk, and of the file where that is little. About 3 µs, 30 µs then."""
        disk = self.environment.disk()
        free = disk.f_bavail * disk.f_frsize
        return free if free > _PLENTY_BYTES else free + self.environment.reusable_bytes()

    def keep_reserve(self, *, free_bytes_min: int = _PLENTY_BYTES) -> None:
        """See that there is a file to remove when the disk is full, for `write_freeing`; not on a disk with less free than this."""
        path = self.path / RESERVE_FILE
        disk = self.environment.disk()
        if path.exists() or disk.f_bavail * disk.f_frsize < free_bytes_min:
            return
        with suppress(OSError):
            reserve = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(reserve, 0, _RESERVE_BYTES)
            finally:
                os.close(reserve)

    def write_freeing(self, apply: Callable[[WriteTransaction], Result]) -> Result:
        """As `Environment.write`, for what will make room: where the disk is full it has what `keep_reserve` kept.

        Raises:
            StoreFullError: that was not enough; nothing was changed.
        """
        try:
            return self.environment.write(apply)
        except StoreFullError as full:
            try:
                os.unlink(self.path / RESERVE_FILE)
                return self.environment.write(apply)
            except (OSError, StoreAccessError):
                raise full from None

    def last_transaction(self) -> int:
        """Changes whenever anything in the store does."""
        return self.environment.last_transaction()


def _sync(folder: Path) -> None:
    """Make the names in a folder durable. Raises StoreAccessError: the disk failed."""
    try:
        sync_folder(folder)
    except PermissionError:
        pass  # Names may be made in it and not read. The file system will write it in its own time.
    except OSError as error:
        message = f"cannot write the folder {folder} to its disk: {error.strerror}"
        raise StoreAccessError(message) from error


def use_key(environment: Environment, key: "StoreKey") -> None:
    """Have transactions of an encrypted store seal and open its rows from now on, and its chunks get the ids they have there."""
    from yester.store.sealing import row_forms  # noqa: PLC0415 (ciphers take 20 ms to import, and plain stores need none)
    from yester.store.summary import SnapshotSummary  # noqa: PLC0415

    environment.key = key
    environment.row_forms = row_forms(key)
    environment.summary = SnapshotSummary(key)
    environment.name_chunk = key.name_chunk()


def _first_slot(parameters: Parameters, passphrase: str) -> Callable[[Environment, WriteTransaction], None]:
    """What makes a new store one that the passphrase opens, in the transaction that puts its parameters; it may be called again."""
    from yester.store.keys import StoreKey  # noqa: PLC0415 (as in `use_key`)
    from yester.store.slots import passphrase_secret, put_slot  # noqa: PLC0415

    assert parameters.encryption is not None
    secret = passphrase_secret(passphrase, parameters.encryption)
    key = StoreKey.random()

    def put(environment: Environment, transaction: WriteTransaction) -> None:
        use_key(environment, key)
        put_slot(transaction, key, secret, "")
        assert environment.summary is not None
        environment.summary.begin(transaction)

    return put


def ask_for_key(environment: Environment, parameters: Parameters, unlock: "Unlock | None") -> "StoreKey":
    """The key of a store whose parameters and slots are in an environment.

    Raises:
        LockedError: nobody knows it.
    """
    from yester.store.slots import LockedStore, read_slots  # noqa: PLC0415 (as in `use_key`)

    if unlock is None:
        message = f"the store {environment.path} is encrypted, and there is no passphrase or key for it here; nothing was read or changed"
        raise LockedError(message, hint="unlock it in a terminal, or with --passphrase-file or YESTER_PASSPHRASE")
    with environment.read() as view:
        locked = LockedStore(environment.path, parameters, read_slots(view))
    return unlock(locked)


def _read_parameters(view: ReadTransaction, path: Path) -> Parameters:
    record = view.get(Table.META, FORMAT_KEY)
    if record is None:
        raise unfinished_error(path)
    parameters = decode_parameters(record, path)
    if parameters.encryption is None and next(view.iterate(Table.META, SLOT_PREFIX), None) is not None:
        message = f"the store {path} says that it is plain, but has key slots: somebody has changed it; nothing was changed now"
        raise CorruptionError(message, hint="restore the store from a copy; what is written into this one could be read by others")
    return parameters

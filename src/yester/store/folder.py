# SPDX-License-Identifier: MIT
"""The folder of a store: what may be in it, who may use it, and whether it can be trusted.

Locks are files that the system unlocks when their holder dies (docs/concurrency.md).
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from yester.errors import (
    BusyError,
    ConflictError,
    CorruptionError,
    NotFoundError,
    StoreAccessError,
)
from yester.store.datafile import DATA_FILE
from yester.store.identity import IDENTITY_FILE
from yester.store.leases import LEASES_FOLDER, list_leases
from yester.store.lmdb import LOCK_FILE
from yester.store.locks import file_lock, shared_lock
from yester.store.verify import verify_data_file

BACKUP_LOCK_FILE = "backup.lock"
PRUNE_LOCK_FILE = "prune.lock"
_USE_LOCK_FILE = "use.lock"
COMPACT_FOLDER = "compact.new"
"""In which a smaller data file is written; left over only after a crash (`store.compact`)."""
_LIVE_LOCK = re.compile(r"live-[0-9]+\.lock")
_STORE_BYTES_MIN = 2 * 4096
"""LMDB begins a data file with two pages, of at least so many bytes; a full disk may have had room for only one."""
RESERVE_FILE = "reserve"
_FILES = {DATA_FILE, LOCK_FILE, BACKUP_LOCK_FILE, PRUNE_LOCK_FILE, _USE_LOCK_FILE, RESERVE_FILE, IDENTITY_FILE}


def is_name_of_store(name: str) -> bool:
    """Whether the folder of a store may have this name in it."""
    is_lock_or_note = _LIVE_LOCK.fullmatch(name) is not None or name.startswith(f"{IDENTITY_FILE}.")
    return name in _FILES or name in (LEASES_FOLDER, COMPACT_FOLDER) or is_lock_or_note


@contextmanager
def use_with_others(path: Path, *, may_go_without: bool = False) -> Iterator[None]:
    """Hold the right to have the store open, which all may that only do not want to be alone.

    Who only reads `may_go_without`: nothing that he writes could go into a file that is about to be replaced.

    Raises:
        BusyError: it is being compacted. StoreAccessError: the right cannot be had.
    """

    def refuse(holder: str) -> None:
        message = f"the store {path} is being compacted or repaired by {holder}; it was not opened"
        raise BusyError(message, hint="try again when that has ended")

    with shared_lock(path / _USE_LOCK_FILE, refuse) as is_held:
        if not is_held and not may_go_without:
            message = f"{path / _USE_LOCK_FILE} cannot be opened or made, so the store was not opened for writing; nothing was changed"
            raise StoreAccessError(
                message, hint="see whose that file is, and whether its disk is full: it is empty and must be the owner's"
            )
        yield


def use_alone(path: Path) -> AbstractContextManager[None]:
    """Hold the right to have the store open alone.

    Raises:
        BusyError: some process has it open. StoreAccessError: the store may not be written.
    """

    def refuse(_holder: str) -> None:
        users = sorted({lease.process for lease in list_leases(path / LEASES_FOLDER)})
        message = f"the store {path} is open in other processes ({', '.join(map(str, users)) or 'of other users'}); nothing was changed"
        raise BusyError(message, hint="unmount what is mounted (`yester status`), let backups end, and try again")

    return file_lock(path / _USE_LOCK_FILE, refuse)


def check_store(path: Path) -> set[str]:
    """The names in a folder in which there is a store, sound or not.

    Raises:
        NotFoundError, ConflictError, StoreAccessError: as `Store.open`; nothing was changed.
    """
    names = list_store(path) or set()
    if DATA_FILE not in names:
        message = f"there is no store in {path}; nothing was changed"
        raise NotFoundError(message, hint="name the store's folder with --store or YESTER_STORE")
    return names


@contextmanager
def lock_for_repair(path: Path) -> Iterator[None]:
    """Hold all that keeps others from adding to the store in `path`, which need not be sound enough to be opened.

    Who needs the store alone as well takes that first (docs/concurrency.md): a backup that waits for its lock has the store open.

    Raises:
        NotFoundError, ConflictError: as `Store.open`. BusyError: somebody backs up, or uses a live folder; nothing was changed.
        StoreAccessError: the store may not be written.
    """
    names = check_store(path)

    def refuse(holder: str) -> None:
        message = f"the store {path} is in use by {holder}; nothing was changed"
        raise BusyError(
            message, hint="wait for the backup or prune to end, and end live folders with `yester umount`: `yester status` lists them"
        )

    with ExitStack() as stack:
        for name in (BACKUP_LOCK_FILE, *sorted(name for name in names if _LIVE_LOCK.fullmatch(name)), PRUNE_LOCK_FILE):
            stack.enter_context(file_lock(path / name, refuse))
        yield


def list_store(path: Path) -> set[str] | None:
    """The names in a store's folder; None if there is no such folder.

    Raises:
        ConflictError: it is no folder, or one of a store's files is no regular file: following a symlink that somebody else may
            have put there would write into whatever it leads to.
        StoreAccessError: the operating system refuses.
    """
    try:
        names = set(os.listdir(path))
        for name in names & _FILES:
            if not stat.S_ISREG(os.lstat(path / name).st_mode):
                message = f"{path / name} is not a regular file, so {path} is not a store that can be trusted; nothing was changed"
                raise ConflictError(message, hint="see who put it there; a store's files must be regular files")
    except FileNotFoundError:
        if path.is_symlink():
            message = f"the store {path} is a symlink to something that is not there"
            raise ConflictError(message, hint="mount the disk it leads to, or name another store with --store or YESTER_STORE") from None
        return None
    except NotADirectoryError:
        message = f"{path} is a file, or lies below one, and a store is a folder"
        raise ConflictError(message, hint="name the store's folder with --store or YESTER_STORE") from None
    except OSError as error:
        message = f"cannot look into the store {path}: {error.strerror}"
        raise StoreAccessError(message, hint="see whose it is, or name another with --store or YESTER_STORE") from error
    return names


def is_unfinished(path: Path, names: set[str]) -> bool:
    """Whether making a store in this directory ended before it had any content. A store that was in use is not mistaken for that."""
    if names == {_USE_LOCK_FILE}:
        return True
    if LOCK_FILE not in names or not names <= {_USE_LOCK_FILE, LOCK_FILE, DATA_FILE}:
        return False
    return DATA_FILE not in names or (path / DATA_FILE).stat().st_size < _STORE_BYTES_MIN


def unfinished_error(path: Path) -> NotFoundError:
    """The error for a folder in which a store was about to be made."""
    message = f"{path} is not a store: making one there was interrupted"
    return NotFoundError(message, hint="run `yester init` there again")


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: syncing a file need not do that. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Hold the lock that a folder stands for by itself, where no file in it can; wait while another process has it. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def judge_copy(path: Path) -> None:
    """Raises CorruptionError if the data file, which was copied here, has pages that do not belong together.

    0.25 s for 70,000 files: only pages of LMDB's trees are read.
    """
    if problems := verify_data_file(path):
        message = f"the store {path} was copied, moved or restored, and its database is not whole: {problems[0]}; nothing was changed"
        raise CorruptionError(message, hint="copy it again while nothing writes to it; `yester repair` saves what it has")

# SPDX-License-Identifier: MIT
"""Locks between processes: files in the store's folder that the system unlocks when their holder dies (docs/concurrency.md)."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yester.errors import StoreAccessError

_POLL_S = 0.2
_HOLDER_BYTES_MAX = 64


@contextmanager
def file_lock(path: Path, on_busy: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock that this file stands for; wait while another process has it.

    `on_busy` is called once with who holds it, and may raise if it is not worth waiting for.

    Raises:
        StoreAccessError: the file cannot be made; nothing was changed.
    """
    try:
        is_new = not path.exists()
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if is_new:
            give_to_owner(path)
    except OSError as error:
        message = f"cannot write to the store {path.parent}: {error.strerror}; nothing was changed"
        raise StoreAccessError(message, hint="see whether its disk is mounted read-only, and whose it is") from error
    try:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    on_busy(os.pread(lock, _HOLDER_BYTES_MAX, 0).decode("ascii", "replace").strip() or "another process")
                    told = True
                time.sleep(_POLL_S)
        with suppress(OSError):  # a full disk: then who waits does not hear who has it
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


@contextmanager
def shared_lock(path: Path, on_busy: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock that this file stands for together with others who do; `on_busy` must raise, and hears who has it alone.

    Gives whether it is held: not where the file cannot be opened, or is not there and cannot be made.
    """
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        lock = _make(path)
    except OSError:
        lock = -1
    try:
        if lock >= 0:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                on_busy(os.pread(lock, _HOLDER_BYTES_MAX, 0).decode("ascii", "replace").strip() or "another process")
        yield lock >= 0
    finally:
        if lock >= 0:
            os.close(lock)


def give_to_owner(path: Path) -> None:
    """Let what root makes in somebody else's folder be his: he must be able to use it as well."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _make(path: Path) -> int:
    """A handle on a lock file that is not there yet; -1 if it cannot be made."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        give_to_owner(path)
    except OSError:
        return -1
    return lock

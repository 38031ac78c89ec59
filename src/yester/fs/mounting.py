# SPDX-License-Identifier: MIT
"""Mounting and unmounting: checks before, serving, and cleaning up after a daemon that died.

A mount is one process. If it dies, its mount point answers ENOTCONN until it is unmounted, on purpose: an empty folder in its
place would make `rsync --delete` empty a mirror. `prepare_mount_point` cleans up such a dead mount of ours.
"""

import errno
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import pyfuse3
import trio

from yester.core.records import Entry
from yester.core.retention import LIVE_POLICY, Policy
from yester.engine.live_rows import waiting
from yester.errors import BusyError, ConflictError, LockedError, MountError, NotFoundError, StoreAccessError, StoreFullError, YesterError
from yester.fs import quick_wait
from yester.fs.driver import SnapshotOperations
from yester.fs.live_driver import LiveOperations
from yester.fs.live_orders import STATUS_XATTR, LiveStatus
from yester.fs.live_session import LiveSession, Pace, open_folder
from yester.fs.mount_table import LIVE_MARK, MountedAt, find_mount
from yester.fs.view import Presentation, View
from yester.store.live import LiveFolders, folder_lock
from yester.store.store import Store

_UNMOUNT_WAIT_S = 10.0
_RENEW_EVERY_S = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""They end a mount as unmounting it does."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """`allow_other` lets other users in; `as_me` shows everything as owned and readable by the mounter."""

    allow_other: bool = False
    as_me: bool = False


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Which live folder to mount; `start` is the archived folder that a new one begins as, if not with nothing.

    `policy` says which of its versions are kept.
    """

    name: str
    start: Entry | None = None
    pace: Pace = field(default_factory=Pace)
    policy: Policy = LIVE_POLICY


def prepare_mount_point(path: Path, store: Path) -> Path:
    """Check that a mount can go here, clean up a dead one of ours, and return the resolved path.

    Raises:
        NotFoundError, ConflictError, MountError: it cannot; nothing was changed.
    """
    there = find_mount(path)
    if there is not None and there.is_ours:
        if not there.is_dead():
            message = f"{path} is a yester mount already"
            raise ConflictError(message, hint=f"unmount it first: yester umount {path}")
        _log.warning("cleaning up %s: the process that served it is gone", path)
        _fusermount(there.path, lazy=True)
    try:
        resolved = Path(os.path.realpath(path, strict=True))
        names = os.listdir(resolved)
    except FileNotFoundError as error:
        message = f"the mount point {path} does not exist; nothing was mounted"
        raise NotFoundError(message, hint=f"make it first: mkdir -p {path}") from error
    except NotADirectoryError as error:
        message = f"the mount point {path} is not a folder; nothing was mounted"
        raise ConflictError(message, hint="name an empty folder") from error
    except OSError as error:
        message = f"the mount point {path} cannot be used: {error.strerror}; nothing was mounted"
        raise MountError(message) from error
    inside = store.resolve()
    if resolved == inside or resolved in inside.parents or inside in resolved.parents:
        message = f"the mount point {path} and the store {store} lie inside one another; nothing was mounted"
        raise ConflictError(message, hint="name an empty folder elsewhere: a mount over its own store would lock up")
    if names:
        message = f"the mount point {path} is not empty; nothing was mounted"
        raise ConflictError(message, hint="name an empty folder: a mount would hide what is in this one")
    if not os.access(resolved, os.W_OK):
        message = f"you may not write to the mount point {path}, so you may not mount there; nothing was mounted"
        raise MountError(message, hint="name an empty folder that is yours")
    return resolved


def check_fuse(options: MountOptions) -> None:
    """Find out before mounting whether this user can, and say what is missing.

    Raises:
        MountError: no FUSE, no rights, or an option the system does not allow.
    """
    device = Path("/dev/fuse")
    if not device.exists():
        message = "there is no /dev/fuse: this system has FUSE switched off; nothing was mounted"
        raise MountError(message, hint="load it with `modprobe fuse`; in a container, pass --device /dev/fuse and the SYS_ADMIN capability")
    if not os.access(device, os.R_OK | os.W_OK):
        message = "you may not use /dev/fuse; nothing was mounted"
        raise MountError(message, hint="ask for `chmod 666 /dev/fuse`, or to be in the group that owns it (ls -l /dev/fuse)")
    if shutil.which("fusermount3") is None:
        message = "the program fusermount3 is not installed; nothing was mounted"
        raise MountError(message, hint="install the package fuse3: apt-get install fuse3")
    if options.allow_other and os.geteuid() != 0 and not _users_may_allow_other():
        message = "--allow-other is not permitted to ordinary users here; nothing was mounted"
        raise MountError(message, hint="put the line `user_allow_other` into /etc/fuse.conf, or mount without --allow-other")


def serve(store: Store, mount_point: Path, options: MountOptions, on_ready: Callable[[], None]) -> None:
    """Mount the snapshots and serve them until unmounted or told to end by SIGTERM or SIGINT. Unmounts what it mounted.

    `on_ready` is called once the mount answers. Needs the main thread; one mount a process.

    Raises:
        MountError: FUSE refused.
    """
    view = View(store, Presentation(os.geteuid(), os.getegid(), as_me=options.as_me))
    quick_wait.install()
    operations = SnapshotOperations(view)
    with _mounted(operations, mount_point, options, _fsname(store.path), {"ro"}):
        trio.run(_serve, on_ready, store, operations)


def serve_live(store: Store, live: LiveOptions, mount_point: Path, options: MountOptions, on_ready: Callable[[], None]) -> None:
    """As `serve`, of a live folder; ends when all that was changed is in the store.

    Raises:
        MountError: FUSE refused. NotFoundError, ConflictError, BusyError: see `open_folder`.
        StoreFullError, StoreAccessError: not all that was changed could be stored in the end.
    """
    with open_folder(store, live.name, start=live.start, make=True) as rows:
        session = LiveSession(store, live.name, rows, live.pace, live.policy)
        quick_wait.install(lambda: session.journal.is_awaited)
        operations = LiveOperations(session)
        with _mounted(operations, mount_point, options, _fsname(store.path, live.name), set()):
            trio.run(_serve, on_ready, store, operations, session)


@contextmanager
def _mounted(operations: pyfuse3.Operations, mount_point: Path, options: MountOptions, fsname: str, flags: set[str]) -> Iterator[None]:
    flags = flags | {"default_permissions", f"fsname={fsname}", "subtype=yester"}
    if options.allow_other:
        flags.add("allow_other")
    try:
        pyfuse3.init(operations, os.fspath(mount_point), flags)
    except RuntimeError as error:
        message = f"FUSE refused to mount on {mount_point}; nothing was mounted"
        raise MountError(message, hint="its own message stands above; `-f` shows it if it does not") from error
    try:
        yield
    except BaseException:
        # The mount point answers ENOTCONN from now on. Were it unmounted, programs would go on in the empty folder below it.
        pyfuse3.close(unmount=False)
        raise
    pyfuse3.close(unmount=True)


class _Reads(Protocol):
    """Operations that may be in the middle of reading what was forgotten."""

    @property
    def is_reading(self) -> bool: ...
    def call_when_idle(self, call: Callable[[], None]) -> None: ...


async def _serve(on_ready: Callable[[], None], store: Store, operations: _Reads, session: LiveSession | None = None) -> None:
    failure: YesterError | None = None
    # From here on signals are heard, before anybody is told that the mount answers.
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, signals)
            nursery.start_soon(_renew_lease, store, operations)
            if session is not None:
                nursery.start_soon(session.run)
            on_ready()
            await pyfuse3.main()
            if session is not None:
                try:
                    await session.finish()
                except YesterError as error:
                    failure = error  # raised below: what leaves a nursery is a group
            # It returns after an unmount from outside as well: without this the signal task would keep the process alive.
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _renew_lease(store: Store, operations: _Reads) -> None:
    """Let go of snapshots that were forgotten: a mount may last for months, and their space is wanted.

    Every two seconds, or at the first moment after that at which nothing is open.
    """
    is_due = False

    def renew() -> None:
        nonlocal is_due
        if is_due and not operations.is_reading:
            is_due = False
            try:
                store.renew_lease()
            except (YesterError, OSError) as error:
                _log.info("what was forgotten is kept for two seconds more: %s", error)

    operations.call_when_idle(renew)
    while True:
        await trio.sleep(_RENEW_EVERY_S)
        is_due = True
        renew()


async def _end_on_signal(signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        pyfuse3.terminate()


@dataclass(frozen=True, slots=True)
class Unmounted:
    """What was unmounted, and whether its process had died before."""

    mount: MountedAt
    was_dead: bool
    live_number: int = 0
    """Of a live folder: its number in the store, if it could be asked."""


def unmount(path: Path, *, lazy: bool = False) -> Unmounted:
    """Unmount a yester mount. A live folder is committed first; its process goes on until its last version is in the store.

    `lazy` takes it out of sight at once, even if its process hangs, and it ends when the last open file is closed.

    Raises:
        NotFoundError: no yester mount is there. BusyError: something in it is in use. MountError: the system refused.
        StoreFullError: what was changed in a live folder cannot be committed; it stays mounted.
    """
    there = find_mount(path)
    if there is None or not there.is_ours:
        message = f"{path} is not a yester mount; nothing was unmounted"
        raise NotFoundError(message, hint="`findmnt -t fuse.yester` lists those there are")
    is_dead = not lazy and there.is_dead()
    number = 0
    if there.live_name and not lazy and not is_dead:
        number = _live_number(there.path)
        _commit(there.path)
    _fusermount(there.path, lazy=lazy or is_dead)
    give_up = time.monotonic() + _UNMOUNT_WAIT_S
    while not lazy and (now := find_mount(path)) is not None and now.device == there.device:
        if time.monotonic() > give_up:
            message = f"{path} was told to unmount, but is still there after {_UNMOUNT_WAIT_S:.0f} seconds"
            raise BusyError(message, hint=f"see what uses it with `fuser -vm {path}`")
        time.sleep(0.02)
    return Unmounted(there, is_dead, number)


def wait_until_stored(ended: Unmounted, on_wait: Callable[[str], None]) -> bool | None:
    """Wait until the process that served a live folder has ended. Returns whether a version holds all that was changed.

    Of an encrypted store that cannot be told without its key, which nobody is asked for: None then. `on_wait` is called once, with who
    it is, if there is something to wait for.
    """
    there = ended.mount
    try:
        store = Store.open(there.store)
    except LockedError:
        if ended.live_number:
            with folder_lock(there.store, ended.live_number, on_wait):
                pass
        return None
    with store:
        folders = LiveFolders(store.environment)
        with folders.lock(folders.load_head(there.live_name), on_wait):
            return waiting(folders.load(there.live_name)) == (0, 0)


def _live_number(mount_point: Path) -> int:
    """The number of the live folder that is mounted there; 0 if it does not tell."""
    try:
        return msgspec.json.decode(os.getxattr(mount_point, STATUS_XATTR), type=LiveStatus).number
    except (OSError, msgspec.DecodeError):
        return 0


def _commit(mount_point: Path) -> None:
    """Have a live folder commit all that was changed.

    Raises:
        StoreFullError, StoreAccessError: it cannot.
    """
    folder = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    except OSError as error:
        message = f"what was changed in {mount_point} cannot be stored: {error.strerror}; it stays mounted, and keeps it in memory"
        kind = StoreFullError if error.errno == errno.ENOSPC else StoreAccessError
        raise kind(message, hint="free space on the disk of the store and try again; `--lazy` would lose it") from error
    finally:
        os.close(folder)


def _fusermount(path: Path, *, lazy: bool) -> None:
    program = shutil.which("fusermount3") or "fusermount3"
    try:
        done = subprocess.run([program, "-uz" if lazy else "-u", "--", os.fspath(path)], capture_output=True, check=False, text=True)
    except OSError as error:
        message = f"cannot run fusermount3 to unmount {path}: {error.strerror}"
        raise MountError(message, hint="install the package fuse3: apt-get install fuse3") from error
    if done.returncode == 0:
        return
    said = done.stderr.strip()
    if "busy" in said:
        message = f"{path} is in use and stays mounted: a file in it is open, or a shell is in it"
        raise BusyError(message, hint=f"see who with `fuser -vm {path}`, or take it away now with `yester umount --lazy {path}`")
    message = f"{path} could not be unmounted: {said}"
    raise MountError(message)


def _fsname(store: Path, live_name: str = "") -> str:
    """The store's path, with the name of the live folder, shown as the device by `df` and `mount`, as an option of libfuse.

    A comma would end the option, and pyfuse3 takes ASCII only: such bytes are escaped in the way that libfuse undoes.
    """
    path = os.fsencode(os.path.abspath(store)) + (LIVE_MARK + os.fsencode(live_name) if live_name else b"")
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b",\\" else f"\\{byte:03o}" for byte in path)


def _users_may_allow_other() -> bool:
    try:
        lines = Path("/etc/fuse.conf").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)

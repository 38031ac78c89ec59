# SPDX-License-Identifier: MIT
"""Asking a live folder that is mounted, or one that is not, for something that takes its time: a version, a rewinding.

A mounted one belongs to the process that serves it, so it is asked by way of the mount: an *order* is the value that the attribute
`ORDER_XATTR` of the mount's root is set to, and reading `REPORT_XATTR` tells how far it is. Each is a request that is answered at once,
however long the work takes. Only who mounted the folder, and root, may order: who may write in its root need not be allowed all that an
order does.

Threads: `carry_out` waits.
"""

import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from yester.engine.live_rows import waiting
from yester.errors import BusyError, CorruptionError, FormatError, MountError, YesterError
from yester.fs.live_orders import ORDER_XATTR, REPORT_XATTR, STATUS_XATTR, LiveStatus, Order, Report
from yester.fs.mount_table import MountedAt, mounts
from yester.store.live import LiveFolders, source_of
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class LiveFolder:
    """A live folder of a store: where it is mounted, if this process can see that, and how it is."""

    name: str
    mounted_at: Path | None
    is_answering: bool
    status: LiveStatus
    holder: str
    """Who uses it where this process sees no mount of it; nothing if nobody does."""
    last: StoredSnapshot | None
    """Its last version."""


def find_mount_point(store: Path, name: str) -> Path | None:
    """Where a live folder is mounted; None if it is not, or where this process cannot see it. A dead mount does not count."""
    mount = _find_mount(store, name)
    return mount.path if mount is not None and not mount.is_dead() else None


def find_live_folders(store: Store) -> list[LiveFolder]:
    """All live folders of a store, sorted by name. Of one that is damaged the status says so."""
    return [_describe(store, name) for name in LiveFolders(store.environment).names()]


def find_snapshot_mounts(store: Path) -> list[Path]:
    """Where the snapshots of a store are mounted."""
    return [mount.path for mount in mounts() if not mount.live_name and mount.shows(store)]


def _find_mount(store: Path, name: str) -> MountedAt | None:
    return next((mount for mount in mounts() if mount.live_name == name and mount.shows(store)), None)


def _describe(store: Store, name: str) -> LiveFolder:
    mount = _find_mount(store.path, name)
    is_answering, status = True, None
    if mount is not None:
        try:
            is_answering = not mount.is_dead()
            status = msgspec.json.decode(os.getxattr(mount.path, STATUS_XATTR), type=LiveStatus) if is_answering else None
        except (BusyError, OSError, msgspec.DecodeError):
            is_answering = False
    folders = LiveFolders(store.environment)
    if status is None:
        try:
            changed_nodes, dirty_bytes = waiting(folders.load(name))
            status = LiveStatus(dirty_bytes, changed_nodes, 0, "")
        except (CorruptionError, FormatError) as error:
            status = LiveStatus(0, 0, 0, f"{error.message}; {error.hint}")
    holder = ""
    with suppress(CorruptionError, FormatError):
        holder = folders.holder(folders.load_head(name)) if mount is None else ""
    return LiveFolder(name, mount.path if mount is not None else None, is_answering, status, holder, store.latest_snapshot(source_of(name)))


def carry_out(store: Store, name: str, order: Order, *, mount_point: Path | None) -> Report:
    """Have an order carried out: by the process that has the folder mounted at `mount_point`, or here.

    Raises:
        YesterError: it failed, as the error says. BusyError: the folder is in use where this process cannot see it, or has another
            order.
    """
    if mount_point is not None:
        report = _ask(mount_point, order)
    else:
        # Only now: trio and all that serves a folder take a quarter of a second to import, and asking needs none of it.
        from yester.fs.live_session import carry_out_alone  # noqa: PLC0415

        report = carry_out_alone(store, name, order)
    if report.error:
        raise YesterError(report.error, hint=report.hint)
    return report


def _ask(mount_point: Path, order: Order) -> Report:
    try:
        os.setxattr(mount_point, ORDER_XATTR, msgspec.json.encode(order))
        while (report := msgspec.json.decode(os.getxattr(mount_point, REPORT_XATTR), type=Report)).is_running:
            time.sleep(_POLL_S)
    except OSError as error:
        if error.errno == errno.EBUSY:
            message = f"the live folder at {mount_point} is busy with another order; nothing was changed"
            raise BusyError(message, hint="try again when that is done") from error
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            message = f"the process that served {mount_point} has died; what was committed is in the store"
            raise MountError(message, hint="mount it again with `yester live`; its log may say why") from error
        message = f"the live folder at {mount_point} cannot be asked: {error.strerror}"
        raise MountError(message, hint="only who mounted it can ask; its log may say more") from error
    return report

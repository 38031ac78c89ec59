# SPDX-License-Identifier: MIT
"""`yester live`."""

import os
import shlex
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yester.cli.config import read_config
from yester.cli.configured_policies import find_policy
from yester.cli.daemon import mount_options, no_fuse, run_mount
from yester.cli.options import HostPath, SnapshotName, current_config_path, open_or_create, open_store, store_option, unlock_before_fork
from yester.core.records import Entry
from yester.core.retention import LIVE_POLICY
from yester.errors import ConflictError, NotFoundError, UsageError
from yester.store.live import LiveFolders, source_of
from yester.store.store import Store

if TYPE_CHECKING:
    from yester.store.slots import Unlock

_SECONDS = click.FloatRange(0.1, 10.0**9)


@click.command("live")
@click.argument("mount_point", metavar="MNT", type=HostPath())
@click.option("--name", metavar="N", default="", help="Which live folder. Default: the last component of MNT.")
@click.option(
    "--from", "start", metavar="SNAP[:PATH]", type=SnapshotName(), default=None, help="Begin a new one as this snapshot, or folder, is."
)
@click.option("--quiet", "quiet_s", metavar="S", type=_SECONDS, default=10.0, help="Make a version after so many quiet seconds (10).")
@click.option("--every", "interval_s", metavar="S", type=_SECONDS, default=300.0, help="And so long after a change at the latest (300).")
@mount_options
@store_option
def command(
    mount_point: Path,
    name: str,
    start: str | None,
    quiet_s: float,
    interval_s: float,
    foreground: bool,
    allow_other: bool,
    log_file: Path | None,
    store_path: Path,
) -> None:
    """Mount a working folder on MNT, an empty folder: every change in it becomes a version.

    What is written goes into the store, at the latest within a second, with `fsync` at once. Versions are snapshots of the source
    live/N; each folder shows its own in `.snapshots`, which is not listed. The store and the folder are made on first use.
    Versions thin out with time: all of the last hour stay, hourly for a day, daily for a month, weekly for a year, then monthly, or
    as the policy of live/N says that is there when it is mounted (`yester policy set`).

    End it with `yester umount MNT`, and go on any time with the same command. One that was removed goes on from its versions, if those were
    had back, with --from.

    \b
    Examples:
      mkdir -p ~/Work && yester live ~/Work
      cp ~/Work/.snapshots/2026-11-22_10-00-00/report.odt ~/Work/
      yester live ~/Again --name again --from Documents@yesterday

    Exit status: 0 mounted and serving, 1 failed, 2 wrong usage.
    """
    try:
        from yester.fs.mounting import LiveOptions, MountOptions, check_fuse, prepare_mount_point, serve_live
    except ImportError as error:
        raise no_fuse(error) from error
    from yester.engine.backup import check_source_name, default_source_name
    from yester.fs.live_session import Pace

    name = name or default_source_name([Path(os.path.abspath(mount_point))])
    check_source_name(name)
    policy = find_policy(read_config(current_config_path()), source_of(name)) or LIVE_POLICY
    store_path = Path(os.path.abspath(store_path))  # the process that serves leaves the folder it was started in
    options = MountOptions(allow_other=allow_other)
    check_fuse(options)
    resolved = prepare_mount_point(mount_point, store_path)

    unlock = unlock_before_fork(store_path)
    if start is None:
        refuse_to_begin_empty(store_path, unlock, name)

    def serve(on_ready: Callable[[], None]) -> None:
        with open_or_create(store_path, unlock=unlock) as store:
            entry = _find_folder(store, start) if start is not None else None
            serve_live(store, LiveOptions(name, entry, Pace(quiet_s, interval_s), policy), resolved, options, on_ready)

    run_mount(resolved, serve, log_file=log_file, in_foreground=foreground)


def refuse_to_begin_empty(store_path: Path, unlock: "Unlock | None", name: str) -> None:
    """Refuse a folder that was removed and of which there are versions, which somebody had back: it would begin empty beside them.

    Raises:
        ConflictError: it would.
    """
    try:
        with open_store(store_path, unlock=unlock, is_written=True) as store:
            if name in LiveFolders(store.environment).names() or store.latest_snapshot(source_of(name)) is None:
                return
    except NotFoundError:
        return  # there is no store yet
    source = shlex.quote(source_of(name))
    message = f"the live folder {name!r} was removed, but the store {store_path} has versions of it; nothing was mounted"
    raise ConflictError(message, hint=f"to go on from the last of them add --from {source}; for an empty folder choose another --name")


def _find_folder(store: Store, text: str) -> Entry:
    """The folder that `SNAP[:PATH]` names."""
    from yester.engine.select import resolve
    from yester.engine.trees import TreeReader

    stored, path = resolve(store, text, now_ns=time.time_ns())
    entry = TreeReader(store.reader()).get(stored.snapshot.root, path)
    if not stat.S_ISDIR(entry.mode):
        message = f"{text} is not a folder; nothing was mounted"
        raise UsageError(message, hint="name a snapshot, or a folder in one")
    return entry

# SPDX-License-Identifier: MIT
"""`yester mount`."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from yester.cli.daemon import mount_options, no_fuse, run_mount
from yester.cli.options import HostPath, open_store, store_option, unlock_before_fork


@click.command("mount")
@click.argument("mount_point", metavar="MNT", type=HostPath())
@click.option("--as-me", is_flag=True, help="Show everything as owned and readable by you.")
@mount_options
@store_option
def command(mount_point: Path, foreground: bool, allow_other: bool, as_me: bool, log_file: Path | None, store_path: Path) -> None:
    """Show all snapshots as folders below MNT, an empty folder. Copying a file out restores it.

    \b
    MNT/snapshots/SOURCE/TIME/…         every snapshot; `latest` is the newest
    MNT/at/WHEN/SOURCE/…                as it was at a time: 2026-11-22, yesterday, 2h …
    MNT/versions/SOURCE/PATH/           the distinct versions of one file

    New snapshots appear while it is mounted. End it with `yester umount MNT`.

    \b
    Examples:
      mkdir -p ~/Snapshots && yester mount ~/Snapshots
      cp ~/Snapshots/at/yesterday/Documents/report.odt .

    Exit status: 0 mounted and serving, 1 failed, 2 wrong usage.
    """
    try:
        from yester.fs.mounting import MountOptions, check_fuse, prepare_mount_point, serve
    except ImportError as error:
        raise no_fuse(error) from error
    options = MountOptions(allow_other=allow_other, as_me=as_me)
    store_path = Path(os.path.abspath(store_path))  # the process that serves leaves the folder it was started in
    check_fuse(options)
    resolved = prepare_mount_point(mount_point, store_path)

    unlock = unlock_before_fork(store_path)

    def serve_store(on_ready: Callable[[], None]) -> None:
        with open_store(store_path, unlock=unlock) as store:
            serve(store, resolved, options, on_ready)

    run_mount(resolved, serve_store, log_file=log_file, in_foreground=foreground)

# SPDX-License-Identifier: MIT
"""`yester umount`."""

from pathlib import Path

import click

from yester.cli.options import HostPath


@click.command("umount")
@click.argument("mount_point", metavar="MNT", type=HostPath())
@click.option("--lazy", is_flag=True, help="Take it away now even if it is in use; it ends when the last file is closed.")
def command(mount_point: Path, lazy: bool) -> None:
    """End a mount, also one whose process has died.

    \b
    Example:
      yester umount ~/Snapshots

    Exit status: 0 unmounted, 1 failed (in use, or not a yester mount), 2 wrong usage.
    """
    from yester.fs.mounting import unmount

    if unmount(mount_point, lazy=lazy):
        click.echo(f"cleaned up {mount_point}: the process that served it had died", err=True)

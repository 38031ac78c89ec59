# SPDX-License-Identifier: MIT
"""`yester umount`."""

from pathlib import Path

import click

from yester.cli.options import HostPath
from yester.cli.output import show_text


@click.command("umount")
@click.argument("mount_point", metavar="MNT", type=HostPath())
@click.option("--lazy", is_flag=True, help="Take it away now even if it is in use; it ends when the last file is closed.")
def command(mount_point: Path, lazy: bool) -> None:
    """End a mount, also one whose process has died.

    That of a live folder ends when everything that was changed in it is in the store.

    \b
    Example:
      yester umount ~/Snapshots

    Exit status: 0 unmounted, 1 failed (in use, or not a yester mount), 2 wrong usage.
    """
    from yester.fs.mounting import unmount, wait_until_stored

    ended = unmount(mount_point, lazy=lazy)
    if ended.was_dead:
        click.echo(f"cleaned up {mount_point}: the process that served it had died", err=True)
    if not ended.mount.live_name or lazy:
        return
    is_whole = wait_until_stored(ended, lambda _holder: click.echo("waiting until everything is in the store …", err=True))
    name = show_text(ended.mount.live_name)
    if is_whole is None:
        click.echo(f"unmounted {mount_point}; everything that was written is in the store")
    elif is_whole:
        click.echo(f"unmounted {mount_point}; everything is in the store, and in the last version of live/{name}")
    else:
        click.echo(f"unmounted {mount_point}; what was committed is in the store, but not in a version of live/{name} yet", err=True)
        click.echo(f"hint: `yester snapshot {name}` makes one", err=True)

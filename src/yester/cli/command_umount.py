# SPDX-License-Identifier: MIT
"""`yester umount`."""

import os
from pathlib import Path

import click


class _UntouchedPath(click.Path):
    """A path that is not looked at, as click does with any: whoever looks into a mount whose process hangs waits for it."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Take it as it stands."""
        return Path(value)


@click.command("umount")
@click.argument("mount_point", metavar="MNT", type=_UntouchedPath())
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

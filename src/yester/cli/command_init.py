# SPDX-License-Identifier: MIT
"""`yester init`."""

from pathlib import Path

import click

from yester.cli.options import store_option
from yester.store.store import Store


@click.command("init")
@store_option
def command(store_path: Path) -> None:
    """Make an empty store. `yester backup` does this by itself on first use.

    \b
    Examples:
      yester init
      yester init --store /media/disk/yester

    Exit status: 0 made, 1 failed (there is one already, or the folder is not empty), 2 wrong usage.
    """
    Store.create(store_path).close()
    click.echo(f"made an empty store in {store_path}", err=True)

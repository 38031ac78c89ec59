# SPDX-License-Identifier: MIT
"""`yester pin`."""

import time
from pathlib import Path

import click

from yester.cli.options import SnapshotName, open_store, store_option
from yester.cli.output import show_text
from yester.core.records import check_text
from yester.engine.select import label, resolve_whole


@click.command("pin")
@click.argument("snaps", metavar="SNAP...", nargs=-1, required=True, type=SnapshotName())
@click.option("--message", "-m", default="", metavar="M", help="Why; `yester snapshots` shows it.")
@store_option
def command(snaps: tuple[str, ...], message: str, store_path: Path) -> None:
    """Keep snapshots from being forgotten, by any policy and by name, until `yester unpin`.

    \b
    Examples:
      yester pin Documents -m "as sent to the printer"
      yester pin Documents@2026-11-22_10-00-00 3f2a91

    Exit status: 0 done (also where one was pinned before), 1 failed, 2 wrong usage.
    """
    check_text(message)
    now_ns = time.time_ns()
    with open_store(store_path, is_written=True) as store:
        for stored in [resolve_whole(store, snap, now_ns=now_ns) for snap in snaps]:
            store.pin(stored.id, now_ns=now_ns, message=message)
            print(f"pinned {show_text(label(stored))}")

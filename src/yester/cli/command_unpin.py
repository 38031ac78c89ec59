# SPDX-License-Identifier: MIT
"""`yester unpin`."""

import time
from pathlib import Path

import click

from yester.cli.options import SnapshotName, open_store, store_option
from yester.cli.output import show_text
from yester.engine.select import find_pinned, label, resolve_whole


@click.command("unpin")
@click.argument("snaps", metavar="SNAP...", nargs=-1, required=True, type=SnapshotName())
@click.option("--all", "unpin_all", is_flag=True, help="Each SNAP is a source: unpin all of its snapshots.")
@store_option
def command(snaps: tuple[str, ...], unpin_all: bool, store_path: Path) -> None:
    """Let snapshots be forgotten again. Nothing is forgotten by that.

    \b
    Examples:
      yester unpin Documents@2026-11-22_10-00-00
      yester unpin Documents --all

    Exit status: 0 done (also where one was not pinned), 1 failed, 2 wrong usage.
    """
    now_ns = time.time_ns()
    with open_store(store_path, is_written=True) as store:
        if unpin_all:
            named = [stored for snap in dict.fromkeys(snaps) for stored in find_pinned(store, snap)]
        else:
            named = [resolve_whole(store, snap, now_ns=now_ns) for snap in snaps]
        if not named:
            print(f"no snapshot of {', '.join(map(show_text, snaps))} is pinned")
        for stored in named:
            was_pinned = store.unpin(stored.id)
            print(f"{show_text(label(stored))} {'is not pinned any more' if was_pinned else 'was not pinned'}")

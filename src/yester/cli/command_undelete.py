# SPDX-License-Identifier: MIT
"""`yester undelete`."""

import time
from pathlib import Path

import click

from yester.cli.options import ForgottenName, open_store, store_option
from yester.cli.output import show_text
from yester.engine.forget import undelete
from yester.engine.select import label


@click.command("undelete")
@click.argument("names", metavar="SNAP...", nargs=-1, required=True, type=ForgottenName())
@click.option("--no-pin", is_flag=True, help="Do not pin them: the policy that forgot them may do so again.")
@store_option
def command(names: tuple[str, ...], no_pin: bool, store_path: Path) -> None:
    """Have forgotten snapshots back, as they were: by id, by SOURCE@NAME, or by SOURCE for all that are forgotten of it.

    They are pinned, since the policy that forgot them would do so again; `yester unpin` takes the pin
    away, and with SOURCE --all those of all snapshots of it.

    \b
    Examples:
      yester undelete Documents@2026-11-22_10-00-00
      yester undelete 3f2a91 77c0de --no-pin

    `yester snapshots --forgotten` lists those there are.

    Exit status: 0 done, 1 failed (one of them is not there: then none is brought back), 2 wrong usage.
    """
    with open_store(store_path, is_written=True) as store:
        found = undelete(store, names, pin=not no_pin, now_ns=time.time_ns())
    for stored in found:
        print(f"{show_text(label(stored))} is back{'' if no_pin else ', and pinned'}")

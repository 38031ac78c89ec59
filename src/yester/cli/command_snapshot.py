# SPDX-License-Identifier: MIT
"""`yester snapshot`."""

from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import print_json, show_text
from yester.cli.records import snapshot_json


@click.command("snapshot")
@click.argument("name", metavar="NAME")
@click.option("--message", "-m", default="", metavar="M", help="A remark that is kept with the version.")
@store_option
@json_option
def command(name: str, message: str, store_path: Path, as_json: bool) -> None:
    """Make a version of the live folder NAME now, whether it is mounted or not.

    \b
    Example:
      yester snapshot Work --message "before the big change"

    Where nothing changed since the last version none is made, unless there is a message to go with it.

    Exit status: 0 done (also where nothing had changed), 1 failed, 2 wrong usage.
    """
    from yester.core.records import check_text
    from yester.fs.live_control import carry_out, find_mount_point
    from yester.fs.live_orders import Order
    from yester.store.live import source_of

    check_text(message)
    with open_store(store_path, is_written=True) as store:
        report = carry_out(store, name, Order(message=message, even_if_same=bool(message)), mount_point=find_mount_point(store_path, name))
        latest = store.latest_snapshot(source_of(name))
    if as_json:
        print_json({"published": report.published or None, "latest": snapshot_json(latest) if latest is not None else None})
    elif report.published:
        print(f"made the version live/{show_text(name)}@{report.published}")
    else:
        print("nothing has changed since" + (f" live/{show_text(name)}@{latest.snapshot.name}" if latest is not None else " it was made"))

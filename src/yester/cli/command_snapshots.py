# SPDX-License-Identifier: MIT
"""`yester snapshots`."""

from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import print_json, print_table, show_name, show_size, show_text
from yester.cli.records import snapshot_json
from yester.errors import NotFoundError


@click.command("snapshots")
@click.argument("source", required=False)
@click.option("--tag", "tags", multiple=True, metavar="T", help="Only snapshots with this tag.")
@store_option
@json_option
def command(source: str | None, tags: tuple[str, ...], store_path: Path, as_json: bool) -> None:
    """List snapshots, oldest first: all, or those of one SOURCE.

    \b
    Examples:
      yester snapshots
      yester snapshots Documents --json

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    with open_store(store_path) as store:
        found = [stored for stored in store.snapshots(source) if set(tags) <= set(stored.snapshot.tags)]
        if source is not None and not found and source not in store.sources():
            message = f"there is no source {source!r} in {store_path}"
            raise NotFoundError(message, hint="`yester snapshots` lists all there are")
    if as_json:
        print_json([snapshot_json(stored) for stored in found])
        return
    if not found:
        wanted = (
            " with " + " and ".join(f"the tag {show_text(tag)}" for tag in tags) if tags else " yet: make one with `yester backup FOLDER`"
        )
        click.echo(f"no snapshots{wanted}", err=True)
        return
    rows = [
        [
            stored.id.hex()[:12],
            show_text(stored.snapshot.source),
            stored.snapshot.name,
            str(stored.snapshot.totals.files),
            show_size(stored.snapshot.totals.size_bytes),
            f"+{show_size(stored.snapshot.added.stored_bytes)}",
            " ".join(
                [", ".join(show_name(path) for path in stored.snapshot.paths), *(f"#{show_text(tag)}" for tag in stored.snapshot.tags)]
            ),
        ]
        for stored in found
    ]
    print_table(["ID", "SOURCE", "TIME (UTC)", "FILES", "SIZE", "ADDED", "PATHS"], rows, right=frozenset({3, 4, 5}))

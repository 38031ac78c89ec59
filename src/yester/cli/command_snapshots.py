# SPDX-License-Identifier: MIT
"""`yester snapshots`."""

from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import json_time, print_json, print_table, show_name, show_size, show_text, show_time
from yester.cli.records import snapshot_json
from yester.core.records import Pin
from yester.core.retention import GRACE_NS
from yester.errors import NotFoundError
from yester.store.snapshots import ForgottenSnapshot, StoredSnapshot


@click.command("snapshots")
@click.argument("source", required=False)
@click.option("--tag", "tags", multiple=True, metavar="T", help="Only snapshots with this tag.")
@click.option("--forgotten", "want_forgotten", is_flag=True, help="Those that were forgotten and can be had back.")
@store_option
@json_option
def command(source: str | None, tags: tuple[str, ...], want_forgotten: bool, store_path: Path, as_json: bool) -> None:
    """List snapshots, oldest first: all, or those of one SOURCE.

    Of forgotten ones KEPT UNTIL says until when they can be had back for certain; `yester prune` removes them after that.

    \b
    Examples:
      yester snapshots
      yester snapshots Documents --json
      yester snapshots --forgotten

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    with open_store(store_path) as store:
        listing = store.listing(source)
        forgotten = [found for found in store.forgotten_snapshots() if source in (None, found.stored.snapshot.source)]
        if source is not None and not listing.snapshots and not forgotten and source not in store.sources():
            message = f"there is no source {source!r} in {store_path}"
            raise NotFoundError(message, hint="`yester snapshots` lists all there are")
    wanted = set(tags)
    if want_forgotten:
        _show_forgotten([found for found in forgotten if wanted <= set(found.stored.snapshot.tags)], as_json=as_json)
        return
    snapshots = [stored for stored in listing.snapshots if wanted <= set(stored.snapshot.tags)]
    if as_json:
        print_json([{**snapshot_json(stored), "pinned": _pin_json(listing.pins.get(stored.id))} for stored in snapshots])
    elif snapshots:
        rows = [[*_cells(stored), _notes(stored, listing.pins.get(stored.id))] for stored in snapshots]
        print_table(["ID", "SOURCE", "TIME (UTC)", "FILES", "SIZE", "ADDED", "PATHS"], rows, right=frozenset({3, 4, 5}))
    else:
        missing = " yet: make one with `yester backup FOLDER`"
        if tags:
            missing = " with " + " and ".join(f"the tag {show_text(tag)}" for tag in tags)
        elif forgotten:
            missing = ", but forgotten ones: see `yester snapshots --forgotten`"
        click.echo(f"no snapshots{missing}", err=True)


def _show_forgotten(found: list[ForgottenSnapshot], *, as_json: bool) -> None:
    if as_json:
        times = [{"forgotten": json_time(item.forgotten_ns), "kept_until": json_time(item.forgotten_ns + GRACE_NS)} for item in found]
        print_json([{**snapshot_json(item.stored), **its_times} for item, its_times in zip(found, times, strict=True)])
        return
    if not found:
        click.echo("no forgotten snapshots", err=True)
        return
    rows = [
        [*_cells(item.stored), show_time(item.forgotten_ns), show_time(item.forgotten_ns + GRACE_NS), _notes(item.stored, None)]
        for item in found
    ]
    heads = ["ID", "SOURCE", "TIME (UTC)", "FILES", "SIZE", "ADDED", "FORGOTTEN", "KEPT UNTIL", "PATHS"]
    print_table(heads, rows, right=frozenset({3, 4, 5}))


def _cells(stored: StoredSnapshot) -> list[str]:
    """What is shown of every snapshot, forgotten or not."""
    snapshot = stored.snapshot
    return [
        stored.id.hex()[:12],
        show_text(snapshot.source),
        snapshot.name,
        str(snapshot.totals.files),
        show_size(snapshot.totals.size_bytes),
        f"+{show_size(snapshot.added.stored_bytes)}",
    ]


def _notes(stored: StoredSnapshot, pin: Pin | None) -> str:
    """Its paths, tags, and pin."""
    paths = ", ".join(show_name(path) for path in stored.snapshot.paths)
    tags = [f"#{show_text(tag)}" for tag in stored.snapshot.tags]
    pinned = [] if pin is None else [f"(pinned: {show_text(pin.message)})" if pin.message else "(pinned)"]
    return " ".join([paths, *tags, *pinned])


def _pin_json(pin: Pin | None) -> dict[str, object] | None:
    return {"time": json_time(pin.pinned_ns), "message": pin.message} if pin is not None else None

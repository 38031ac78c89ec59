# SPDX-License-Identifier: MIT
"""`yester status`."""

from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import json_name, json_time, print_json, print_table, show_size, show_text, show_time


@click.command("status")
@store_option
@json_option
def command(store_path: Path, as_json: bool) -> None:
    """Show the live folders of the store, and the mounts that run.

    DIRTY is what was written and is in no version yet; it is in the store all the same, but for the last second.

    \b
    Examples:
      yester status
      yester status --json

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    from yester.fs.live_control import find_live_folders, find_snapshot_mounts

    with open_store(store_path) as store:
        folders = find_live_folders(store)
        mounts = find_snapshot_mounts(store.path)
    if as_json:
        live = [
            {
                "name": folder.name,
                "mounted_at": json_name(bytes(folder.mounted_at)) if folder.mounted_at is not None else None,
                "is_answering": folder.is_answering,
                "in_use_by": folder.holder or None,
                "dirty_bytes": folder.status.dirty_bytes,
                "changed_nodes": folder.status.changed_nodes,
                "uncommitted_bytes": folder.status.pending_bytes,
                "problem": folder.status.problem or None,
                "last_version": folder.last.snapshot.name if folder.last is not None else None,
                "last_version_time": json_time(folder.last.snapshot.time_ns) if folder.last is not None else None,
            }
            for folder in folders
        ]
        print_json({"live_folders": live, "snapshot_mounts": [json_name(bytes(path)) for path in mounts]})
        return
    if not folders and not mounts:
        click.echo("no live folders, and no mounts of this store", err=True)
    rows = [
        [
            show_text(folder.name),
            (show_text(str(folder.mounted_at)) if folder.mounted_at is not None else "-")
            + ("" if folder.is_answering else " (does not answer)")
            + (f" (in use by {folder.holder})" if folder.holder else ""),
            show_size(folder.status.dirty_bytes),
            str(folder.status.changed_nodes),
            show_time(folder.last.snapshot.time_ns) if folder.last is not None else "-",
            show_text(folder.status.problem),
        ]
        for folder in folders
    ]
    if rows:
        print_table(["LIVE FOLDER", "MOUNTED AT", "DIRTY", "CHANGED", "LAST VERSION (UTC)", "PROBLEM"], rows, right=frozenset({2, 3}))
    for path in mounts:
        print(f"snapshots are mounted at {show_text(str(path))}")

# SPDX-License-Identifier: MIT
"""`yester log`."""

from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import json_name, print_json, print_table, show_name, show_size, show_time
from yester.cli.records import entry_json
from yester.engine.history import Version, file_history
from yester.engine.select import find_history_targets
from yester.engine.trees import TreeReader
from yester.errors import NotFoundError


@click.command("log")
@click.argument("path")
@store_option
@json_option
def command(path: str, store_path: Path, as_json: bool) -> None:
    """Show the history of PATH: its distinct versions, oldest first, and when it was gone.

    PATH is a file or folder that was backed up or is in a live folder, or SOURCE:PATH. Snapshots in which it did not change are folded.

    \b
    Examples:
      yester log ~/Documents/report.odt
      yester log Documents:report.odt --json

    Exit status: 0 done, 1 failed (no snapshot has it), 2 wrong usage.
    """
    from yester.fs.mount_table import find_place

    with open_store(store_path) as store:
        trees = TreeReader(store.reader())
        live = find_place(store_path, Path(path)) if path else None
        targets = [live] if live is not None else find_history_targets(store, path, Path.cwd())
        found = [(source, inner, versions) for source, inner in targets if (versions := file_history(store, trees, source, inner))]
    if not found:
        message = f"no snapshot has {path}"
        raise NotFoundError(message, hint="`yester find NAME` looks for it everywhere")
    if as_json:
        print_json([_history_json(*history) for history in found])
        return
    for source, inner, versions in found:
        print(f"{source}:{show_name(inner)}")
        rows = [_row(version) for version in versions]
        print_table(["SNAPSHOT", "SIZE", "MODIFIED (UTC)", "IN"], rows, right=frozenset({1}))


def _row(version: Version) -> list[str]:
    snapshots = "1 snapshot" if version.count == 1 else f"{version.count} snapshots, to {version.last.snapshot.name}"
    if version.entry is None:
        return [version.first.snapshot.name, "", "gone", snapshots]
    return [version.first.snapshot.name, show_size(version.entry.size), show_time(version.entry.mtime_ns), snapshots]


def _history_json(source: str, inner: bytes, versions: tuple[Version, ...]) -> dict[str, object]:
    return {
        "source": source,
        "path": json_name(inner),
        "versions": [
            {
                "first": {"id": version.first.id.hex(), "name": version.first.snapshot.name},
                "last": {"id": version.last.id.hex(), "name": version.last.snapshot.name},
                "snapshots": version.count,
                "entry": entry_json(version.entry, inner) if version.entry is not None else None,
            }
            for version in versions
        ],
    }

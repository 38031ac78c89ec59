# SPDX-License-Identifier: MIT
"""`yester stats`."""

import dataclasses
from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import print_json, print_table, show_size
from yester.engine.stats import Stats, stats


@click.command("stats")
@store_option
@json_option
def command(store_path: Path, as_json: bool) -> None:
    """Show what the store holds, and what it takes on the disk.

    \b
    Example:
      yester stats

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    with open_store(store_path) as store:
        found = stats(store)
    if as_json:
        print_json(_stats_json(found))
        return
    rows = [
        [source.name, str(source.snapshots), source.first.snapshot.name, source.last.snapshot.name, show_size(source.size_bytes)]
        for source in found.sources
    ]
    print_table(["SOURCE", "SNAPSHOTS", "FIRST", "LAST", "AS FULL COPIES"], rows, right=frozenset({1, 4}))
    print()
    print(f"{found.snapshots} snapshots hold {show_size(found.size_bytes)} of files")
    print(
        f"equal content stored once: {show_size(found.data.raw_bytes)} in {found.data.chunks} chunks ({found.sharing_ratio:.1f} × smaller)"
    )
    print(f"compressed: {show_size(found.data.stored_bytes)}, and {show_size(found.trees.stored_bytes)} for folders")
    print(f"the store takes {show_size(found.disk_bytes)} on its disk")


def _stats_json(found: Stats) -> dict[str, object]:
    return {
        "sources": [
            {
                "name": source.name,
                "snapshots": source.snapshots,
                "first": source.first.snapshot.name,
                "last": source.last.snapshot.name,
                "size_bytes": source.size_bytes,
            }
            for source in found.sources
        ],
        "snapshots": found.snapshots,
        "size_bytes": found.size_bytes,
        "chunks": found.chunks,
        "data": dataclasses.asdict(found.data),
        "trees": dataclasses.asdict(found.trees),
        "unreadable_segments": found.unreadable_segments,
        "file_bytes": found.file_bytes,
        "disk_bytes": found.disk_bytes,
    }

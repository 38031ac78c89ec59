# SPDX-License-Identifier: MIT
"""`yester ls`."""

import stat
import time
from pathlib import Path

import click

from yester.cli.options import SnapshotName, json_option, open_store, store_option
from yester.cli.output import print_json, show_name, show_time
from yester.cli.records import entry_json
from yester.core.records import Entry
from yester.engine.select import resolve
from yester.engine.trees import TreeReader, iter_below


@click.command("ls")
@click.argument("snap", metavar="SNAP[:PATH]", type=SnapshotName())
@click.option("--recursive", "-R", is_flag=True, help="Also all folders below.")
@click.option("--long", "-l", "is_long", is_flag=True, help="With mode, owner, size and time.")
@store_option
@json_option
def command(snap: str, recursive: bool, is_long: bool, store_path: Path, as_json: bool) -> None:
    """List a folder of a snapshot, or one file of it.

    SNAP is an id, SOURCE for its newest snapshot, or SOURCE@TIME.

    \b
    Examples:
      yester ls Documents
      yester ls -l Documents@yesterday:letters
      yester ls -R 3f2a91

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    with open_store(store_path) as store:
        trees = TreeReader(store.reader())
        stored, path = resolve(store, snap, now_ns=time.time_ns())
        entry = trees.get(stored.snapshot.root, path)
        listed = iter_below(trees, entry, path, recursive=recursive) if stat.S_ISDIR(entry.mode) else iter([(path, entry)])
        if as_json:
            print_json([entry_json(found, found_path) for found_path, found in listed])
            return
        for found_path, found in listed:
            shown = show_name(found_path if recursive else found.name) + ("/" if stat.S_ISDIR(found.mode) else "")
            print(_long_line(found, shown) if is_long else shown)


def _long_line(entry: Entry, shown: str) -> str:
    target = f" -> {show_name(entry.content)}" if stat.S_ISLNK(entry.mode) else ""
    return f"{stat.filemode(entry.mode)} {entry.uid:>5} {entry.gid:>5} {entry.size:>12} {show_time(entry.mtime_ns)} {shown}{target}"

# SPDX-License-Identifier: MIT
"""`yester diff`."""

import time
from pathlib import Path

import click

from yester.cli.options import SnapshotName, json_option, open_store, store_option
from yester.cli.output import json_name, print_json, show_name, show_size
from yester.cli.records import entry_json
from yester.core.treediff import ChangeKind
from yester.engine.compare import Difference, compare
from yester.engine.select import resolve
from yester.engine.trees import TreeReader

_MARKS = {
    ChangeKind.ADDED: "+",
    ChangeKind.REMOVED: "-",
    ChangeKind.CONTENT: "M",
    ChangeKind.METADATA: "m",
    ChangeKind.TYPE: "T",
}


@click.command("diff")
@click.argument("old", metavar="SNAP[:PATH]", type=SnapshotName())
@click.argument("new", metavar="SNAP[:PATH]", type=SnapshotName())
@store_option
@json_option
def command(old: str, new: str, store_path: Path, as_json: bool) -> None:
    """Compare two snapshots, or folders or files in them. Folders that are equal are not even looked into.

    \b
    + added   - removed   M content changed   m only mode, owner, times or attributes   T became something else

    \b
    Examples:
      yester diff Documents@yesterday Documents
      yester diff 3f2a91:letters 77c0de:letters --json

    Exit status: 0 done (also where nothing differs), 1 failed, 2 wrong usage.
    """
    now_ns = time.time_ns()
    with open_store(store_path) as store:
        trees = TreeReader(store.reader())
        (old_stored, old_path), (new_stored, new_path) = (resolve(store, snap, now_ns=now_ns) for snap in (old, new))
        old_entry = trees.get(old_stored.snapshot.root, old_path)
        new_entry = trees.get(new_stored.snapshot.root, new_path)
        differences = compare(trees, old_entry, new_entry)
        if as_json:
            print_json([difference_json(difference) for difference in differences])
            return
        for difference in differences:
            print(difference_line(difference))


def difference_line(difference: Difference) -> str:
    """One difference for people."""
    old, new = difference.old, difference.new
    sizes = ""
    if difference.kind is ChangeKind.CONTENT and old is not None and new is not None:
        sizes = f"  {show_size(old.size)} → {show_size(new.size)}"
    return f"{_MARKS[difference.kind]} {show_name(difference.path) or '.'}{sizes}"


def difference_json(difference: Difference) -> dict[str, object]:
    """One difference as JSON."""
    return {
        "path": json_name(difference.path),
        "change": difference.kind.value,
        "old": entry_json(difference.old, difference.path) if difference.old is not None else None,
        "new": entry_json(difference.new, difference.path) if difference.new is not None else None,
    }

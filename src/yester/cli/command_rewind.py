# SPDX-License-Identifier: MIT
"""`yester rewind`."""

import time
from pathlib import Path

import click

from yester.cli.command_diff import difference_json, difference_line
from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import json_name, print_json, show_name, show_text
from yester.core.records import Entry
from yester.core.treediff import ChangeKind
from yester.engine.compare import Difference, compare
from yester.engine.select import inner_path, resolve
from yester.engine.trees import TreeReader
from yester.errors import NotFoundError


@click.command("rewind")
@click.argument("name", metavar="NAME")
@click.argument("path", metavar="[PATH]", default="")
@click.option("--to", "when", metavar="TIME", required=True, help="A time, or the name of a version: the newest that is not after it.")
@click.option("--dry-run", "-n", is_flag=True, help="Only show what would change, after making a version of how it is.")
@store_option
@json_option
def command(name: str, path: str, when: str, dry_run: bool, store_path: Path, as_json: bool) -> None:
    """Make the live folder NAME, or what is at PATH in it, as it was at a time.

    First a version is made of how it is now, and afterwards one of how it is then: so a rewinding can be undone by another.
    Nothing is copied, and work in the folder may go on meanwhile.

    \b
    Examples:
      yester rewind Work --to yesterday --dry-run
      yester rewind Work letters/report.odt --to "2026-11-22 10:30"

    Exit status: 0 done (also where nothing differs), 1 failed, 2 wrong usage.
    """
    from yester.fs.live_control import carry_out, find_mount_point
    from yester.fs.live_orders import Order
    from yester.store.live import source_of

    with open_store(store_path, is_written=True) as store:
        source = source_of(name)
        stored, _ = resolve(store, f"{source}@{when}", now_ns=time.time_ns())
        inner = inner_path(stored.snapshot, path)
        mount_point = find_mount_point(store_path, name)
        carry_out(store, name, Order(message="before rewinding"), mount_point=mount_point)
        now = store.latest_snapshot(source)
        assert now is not None
        trees = TreeReader(store.reader())
        before, then = (trees.find(version.snapshot.root, inner) for version in (now, stored))
        differences = _compare(trees, before, then, inner)
        if before is None and then is None:
            message = f"{path!r} is neither in the live folder {name!r} nor in its version of {stored.snapshot.name}; nothing was changed"
            raise NotFoundError(message)
        if differences and not dry_run:
            remark = f"rewound {show_name(inner) or 'all'} to {stored.snapshot.name}"
            after = carry_out(store, name, Order(remark, snapshot=stored.id.hex(), path_hex=inner.hex()), mount_point=mount_point).published
        else:
            after = ""
    if as_json:
        changes = [difference_json(difference) for difference in differences]
        to = {"to": stored.snapshot.name, "path": json_name(inner)}
        print_json({**to, "dry_run": dry_run, "before": now.snapshot.name, "after": after or None, "changes": changes})
        return
    for difference in differences:
        print(difference_line(difference))
    shown = f"live/{show_text(name)}"
    if not differences:
        print(f"nothing differs from {shown}@{stored.snapshot.name}")
    elif dry_run:
        print(f"nothing was changed; these {len(differences)} would be as in {shown}@{stored.snapshot.name}")
    else:
        print(
            f"{len(differences)} are as in {shown}@{stored.snapshot.name}; undo it with: yester rewind {shown[5:]} --to {now.snapshot.name}"
        )


def _compare(trees: TreeReader, old: Entry | None, new: Entry | None, path: bytes) -> list[Difference]:
    """What is to change, as differences from how it is to how it was, with paths below the live folder."""
    if old is None or new is None:
        return [Difference(path, ChangeKind.REMOVED if new is None else ChangeKind.ADDED, old, new)] if old is not new else []
    found = compare(trees, old, new)
    return [Difference(b"/".join(filter(None, (path, item.path))), item.kind, item.old, item.new) for item in found]

# SPDX-License-Identifier: MIT
"""`yester restore`."""

import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from yester.cli.options import HostPath, SnapshotName, json_option, open_store, store_option
from yester.cli.output import json_name, print_json, show_name, show_size
from yester.cli.progress import FileProgress, FilesAndBytes, show_progress
from yester.cli.tuning import MIB, tune_process
from yester.core.records import Entry
from yester.engine.restore import RestoreOptions, RestoreProgress, RestoreResult, restore
from yester.engine.restore_files import Findings
from yester.engine.restore_preview import Change
from yester.engine.select import resolve
from yester.engine.trees import TreeReader, iter_below
from yester.store.store import Store

SKIPPED = 3
FAILED = 1


@click.command("restore")
@click.argument("snap", metavar="SNAP[:PATH]", type=SnapshotName())
@click.option("--to", "destination", metavar="DIR", required=True, type=HostPath(), help="Where to; made if missing.")
@click.option("--overwrite", is_flag=True, help="Replace existing files that differ, byte by byte. Default: keep them.")
@click.option("--numeric-ids", is_flag=True, help="Take stored user and group numbers as they are, instead of their names.")
@click.option("--dry-run", "-n", is_flag=True, help="List what would be done, and do nothing.")
@store_option
@json_option
def command(
    snap: str,
    destination: Path,
    overwrite: bool,
    numeric_ids: bool,
    dry_run: bool,
    store_path: Path,
    as_json: bool,
) -> int:
    """Copy a snapshot, or a folder or file of it, out of the store with all metadata.

    What a folder holds comes to DIR; a file comes into DIR. Files there that differ in size or time are kept
    unless --overwrite is given, which also reads and compares those that do not; other files are not
    touched. It can be interrupted and run again.

    \b
    Examples:
      yester restore Documents --to ~/restored
      yester restore Documents@yesterday:letters --to ~/letters --overwrite
      yester restore Documents --to / --dry-run

    Exit status: 0 done, 1 failed or something in the store is damaged, 2 wrong usage, 3 done but some files were skipped.
    """
    tune_process(kept_bytes=64 * MIB)
    options = RestoreOptions(overwrite=overwrite, numeric_ids=numeric_ids, dry_run=dry_run)
    progress = RestoreProgress()
    changes: list[tuple[Change, bytes]] = []

    def on_change(change: Change, path: bytes) -> None:
        if as_json:
            changes.append((change, path))
        else:
            print(f"{change.value}: {show_name(path) or '.'}")

    with open_store(store_path) as store:
        stored, path = resolve(store, snap, now_ns=time.time_ns())
        trees = TreeReader(store.reader())
        entry = trees.get(stored.snapshot.root, path)
        folder, _, _ = path.rpartition(b"/")
        parent = trees.read(trees.get(stored.snapshot.root, folder).tree) if path else None
        done = FileProgress(lambda: (progress.files, progress.written_bytes), lambda: _count_below(store, entry))
        with done as line, show_progress(line):
            result = restore(store, entry, destination, options, parent=parent, progress=progress, on_change=on_change)
    if as_json:
        print_json(_result_json(result, changes))
    else:
        _print_result(result, destination, dry_run=dry_run)
    return FAILED if result.damaged.count or result.failed.count else SKIPPED if result.conflicts.count else 0


def _count_below(store: Store, entry: Entry) -> Iterator[FilesAndBytes]:
    """Files and bytes of an entry, counted so far. What is damaged is the restore's to report."""
    if not stat.S_ISDIR(entry.mode):
        yield 1, entry.size
        return
    files = size_bytes = 0
    for _, found in iter_below(TreeReader(store.reader()), entry, b"", recursive=True, on_damage=lambda _path, _error: None):
        if stat.S_ISREG(found.mode):
            files += 1
            size_bytes += found.size
        yield files, size_bytes


def _print_result(result: RestoreResult, destination: Path, *, dry_run: bool) -> None:
    written = f"{result.files + result.links + result.others} files and {result.directories} folders"
    if dry_run:
        print(
            f"dry run, nothing was changed: {written} to {destination}, {show_size(result.written_bytes)}; {result.unchanged} there already"
        )
    else:
        print(f"restored {written} to {destination}, {show_size(result.written_bytes)}; {result.unchanged} were there already")
    _list_findings("kept, as it differs from what is stored (--overwrite replaces it)", result.conflicts)
    _list_findings("damaged in the store, not restored", result.damaged)
    _list_findings("refused by the target", result.failed)
    for shortfall, findings in result.shortfalls.items():
        first = ", ".join(show_name(finding.path) or "." for finding in findings.first[:3])
        print(f"could not set {shortfall.value} of {findings.count}: {first}{' …' if findings.count > 3 else ''}", file=sys.stderr)


def _list_findings(what: str, findings: Findings) -> None:
    for finding in findings.first:
        print(f"{what}: {show_name(finding.path)}: {finding.reason}", file=sys.stderr)
    if findings.count > len(findings.first):
        print(f"{what}: {findings.count - len(findings.first)} more", file=sys.stderr)


def _result_json(result: RestoreResult, changes: list[tuple[Change, bytes]]) -> dict[str, object]:
    return {
        "files": result.files,
        "links": result.links,
        "directories": result.directories,
        "others": result.others,
        "written_bytes": result.written_bytes,
        "unchanged": result.unchanged,
        "mended": result.mended,
        "conflicts": _findings_json(result.conflicts),
        "damaged": _findings_json(result.damaged),
        "failed": _findings_json(result.failed),
        "shortfalls": {shortfall.value: _findings_json(findings) for shortfall, findings in result.shortfalls.items()},
        "changes": [{"change": change.value, "path": json_name(path)} for change, path in changes],
    }


def _findings_json(findings: Findings) -> dict[str, object]:
    first = [{"path": json_name(finding.path), "reason": finding.reason} for finding in findings.first]
    return {"count": findings.count, "first": first}

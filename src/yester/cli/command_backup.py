# SPDX-License-Identifier: MIT
"""`yester backup`."""

import os
import sys
import tempfile
from pathlib import Path

import click

from yester.cli.hook_options import HookReport, hook_options
from yester.cli.interrupting import interrupted_like_ctrl_c
from yester.cli.options import HostPath, SourcePath, json_option, open_or_create, store_option
from yester.cli.output import json_name, print_json, show_name, show_size, show_text
from yester.cli.progress import FileProgress, show_progress
from yester.cli.records import snapshot_json
from yester.cli.tuning import MIB, tune_process
from yester.engine.backup import BackupOptions, BackupResult, DryRun, back_up, check_source_name, default_source_name
from yester.engine.hooks import Backup, Hooks, back_up_with_hooks
from yester.engine.scan import BackupProgress, count_source
from yester.errors import NotFoundError
from yester.store.store import Store

SKIPPED = 3


@click.command("backup")
@click.argument("paths", nargs=-1, required=True, type=SourcePath())
@click.option("--name", default="", metavar="SOURCE", help="What to call the source. Default: the last part of the first path.")
@click.option("--exclude", "-e", multiple=True, metavar="RULE", help="Leave out what this rule matches (as in .gitignore).")
@click.option("--exclude-from", multiple=True, metavar="FILE", type=HostPath(), help="Read rules from a file.")
@click.option("--exclude-caches", is_flag=True, help="Leave out what is in folders that hold a CACHEDIR.TAG.")
@click.option("--one-file-system", "-x", is_flag=True, help="Do not enter other file systems.")
@click.option("--tag", "tags", multiple=True, metavar="T", help="Attach a tag to the snapshot.")
@click.option("--message", "-m", default="", help="Attach a remark to the snapshot.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be stored, and store nothing.")
@hook_options
@store_option
@json_option
def command(
    paths: tuple[Path, ...],
    name: str,
    exclude: tuple[str, ...],
    exclude_from: tuple[Path, ...],
    exclude_caches: bool,
    one_file_system: bool,
    tags: tuple[str, ...],
    message: str,
    dry_run: bool,
    before: tuple[str, ...],
    after: tuple[str, ...],
    on_failure: tuple[str, ...],
    hook_timeout_s: float,
    ignore_hook_failure: bool,
    store_path: Path,
    as_json: bool,
) -> int:
    """Back up PATHS into a new snapshot. Unchanged files are not read again.

    Rules also come from a file .yesterignore in any folder. A backup that is interrupted goes on where it was when it is
    started again.

    Commands of your own can run before and after it (not with --dry-run); $YESTER_SOURCE, $YESTER_STATUS, $YESTER_SNAPSHOT and more
    tell them what it is about (docs/cli.md). What they write is kept in ~/.local/state/yester/hooks.log.

    \b
    Examples:
      yester backup ~/Documents
      yester backup ~/Documents ~/Pictures --name home --exclude '*.tmp'
      yester backup / --name system --one-file-system --exclude /proc --exclude /sys
      yester backup ~/shop --before 'pg_dump shop > ~/shop/shop.sql' --after 'rm ~/shop/shop.sql'

    Exit status: 0 done, 1 failed (nothing was published), 2 wrong usage, 3 done but some files were skipped, or a command after it
    failed.
    """
    tune_process(kept_bytes=64 * MIB)
    options = BackupOptions(name, exclude, exclude_from, exclude_caches, one_file_system, tags, message)
    progress = BackupProgress()
    hooks = Hooks(before, after, on_failure, hook_timeout_s, ignore_hook_failure)
    source = name or default_source_name([Path(os.path.abspath(path)) for path in paths])
    check_source_name(source)
    report = HookReport(source)
    if dry_run:
        result = _dry_run(store_path, paths, options, progress)
    else:
        done = FileProgress(lambda: (progress.files, progress.size_bytes), lambda: count_source(paths, one_file_system=one_file_system))

        published: list[BackupResult] = []

        def back_up_once() -> BackupResult:
            with open_or_create(store_path) as store, done as line, show_progress(line):
                published.append(back_up(store, paths, options, progress=progress, on_wait=_tell_waiting))
            return published[0]

        with interrupted_like_ctrl_c():
            try:
                result = back_up_with_hooks(hooks, Backup(store_path, source, paths), back_up_once, report)
            except KeyboardInterrupt:
                _tell_interrupted(published)
                raise
    if result.newer is not None:
        future = f"{result.newer.name}, which stays its newest until then; was the clock wrong?"
        print(f"note: the source has a snapshot from the future, {future}", file=sys.stderr)
    for path in paths:
        if path.is_symlink() and path.is_dir():
            print(f"note: {path} is a symlink, and only that was backed up; for the folder name {path.resolve()}", file=sys.stderr)
    for problem in result.problems:
        print(f"problem: {show_name(problem.path)}: {problem.reason}", file=sys.stderr)
    if as_json:
        _print_json(result, report)
    else:
        _print_summary(result)
    return SKIPPED if result.problems or report.has_failures else 0


def _tell_interrupted(published: list[BackupResult]) -> None:
    if published:
        print(f"the snapshot {published[0].snapshot.name} was published; not all that should follow it was done", file=sys.stderr)
    else:
        print("nothing was published; what was stored so far is kept, and the next backup goes on from it", file=sys.stderr)


def _dry_run(path: Path, paths: tuple[Path, ...], options: BackupOptions, progress: BackupProgress) -> BackupResult:
    """Compare with the store; where there is none yet, with an empty one that is removed again."""
    try:
        store = Store.open(path)
    except NotFoundError:
        with tempfile.TemporaryDirectory(prefix="yester-") as folder, Store.create(Path(folder)) as empty:
            return back_up(empty, paths, options, sink=DryRun(empty), progress=progress)
    with store:
        return back_up(store, paths, options, sink=DryRun(store), progress=progress)


def _tell_waiting(holder: str) -> None:
    print(f"waiting: another backup into this store is running ({holder})", file=sys.stderr)


def _print_summary(result: BackupResult) -> None:
    snapshot = result.snapshot
    totals, added = snapshot.totals, snapshot.added
    seconds = (snapshot.finished_ns - snapshot.time_ns) / 10**9
    counts = f"{totals.files + totals.others} files, {totals.directories} folders, {show_size(totals.size_bytes)} in {seconds:.1f} s"
    news = f"{added.new_files} new, {added.changed_files} changed, {show_size(added.chunk_bytes)} new data"
    if result.stored is None:
        print(f"dry run, nothing was stored: {counts}; {news}")
    else:
        print(f"snapshot {result.stored.id.hex()[:12]} {show_text(snapshot.source)}@{snapshot.name}")
        print(f"{counts}; {news}, {show_size(added.stored_bytes)} stored")
    if result.excluded:
        print(f"{result.excluded} left out by rules")
    if result.vanished:
        print(f"{result.vanished} were removed before they could be read", file=sys.stderr)
    if result.problems:
        print(f"{len(result.problems)} problems, named above; the snapshot holds everything else", file=sys.stderr)


def _print_json(result: BackupResult, report: HookReport) -> None:
    print_json(
        {
            "snapshot": snapshot_json(result.stored) if result.stored else None,
            "dry_run": result.stored is None,
            "new_files": result.snapshot.added.new_files,
            "changed_files": result.snapshot.added.changed_files,
            "new_bytes": result.snapshot.added.chunk_bytes,
            "stored_bytes": result.snapshot.added.stored_bytes,
            "excluded": result.excluded,
            "vanished": result.vanished,
            "skipped": [{"path": json_name(problem.path), "reason": problem.reason} for problem in result.problems],
            "hooks": report.as_json(),
        }
    )

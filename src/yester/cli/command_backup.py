# SPDX-License-Identifier: MIT
"""`yester backup`."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from yester.cli.config import read_config
from yester.cli.configured_backup import hooks_on_top, options_on_top, source_to_back_up
from yester.cli.hook_options import HookReport, hook_options
from yester.cli.interrupting import interrupted_like_ctrl_c
from yester.cli.options import (
    HostPath,
    SourcePath,
    current_config_path,
    json_option,
    open_or_create,
    open_store,
    store_of,
    store_option,
)
from yester.cli.output import json_name, print_json, show_name, show_size, show_text
from yester.cli.passphrases import Unlocker
from yester.cli.progress import FileProgress, show_progress
from yester.cli.records import snapshot_json
from yester.cli.tuning import MIB, tune_process
from yester.engine.backup import BackupOptions, BackupResult, DryRun, back_up, check_source_name, default_source_name
from yester.engine.continuous import Pace
from yester.engine.hooks import Backup, Hooks, back_up_with_hooks
from yester.engine.scan import BackupProgress, FolderObserver, count_source
from yester.errors import NotFoundError, UsageError
from yester.store.store import Store

SKIPPED = 3
_SECONDS = click.FloatRange(0.1, 10.0**9)


@click.command("backup")
@click.argument("paths", nargs=-1, type=SourcePath())
@click.option("--name", default="", metavar="SOURCE", help="What to call the source; alone, one of the configuration. Default: from PATHS.")
@click.option("--exclude", "-e", multiple=True, metavar="RULE", help="Leave out what this rule matches (as in .gitignore).")
@click.option("--exclude-from", multiple=True, metavar="FILE", type=HostPath(), help="Read rules from a file.")
@click.option("--exclude-caches", is_flag=True, help="Leave out what is in folders that hold a CACHEDIR.TAG.")
@click.option("--one-file-system", "-x", is_flag=True, help="Do not enter other file systems.")
@click.option("--tag", "tags", multiple=True, metavar="T", help="Attach a tag to the snapshot.")
@click.option("--message", "-m", default="", help="Attach a remark to the snapshot.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be stored, and store nothing.")
@click.option("--watch", is_flag=True, help="Go on: back up again whenever changes have settled, until interrupted.")
@click.option(
    "--quiet", "quiet_s", metavar="S", type=_SECONDS, default=Pace().quiet_s, help="With --watch: after so many quiet seconds (10)."
)
@click.option(
    "--every", "interval_s", metavar="S", type=_SECONDS, default=Pace().interval_s, help="And so long after a change at the latest (300)."
)
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
    watch: bool,
    quiet_s: float,
    interval_s: float,
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

    With --watch it stays and backs up again after each change, when nothing changed for --quiet seconds. Where that cannot be heard of
    it looks every --every seconds. Ctrl-C or SIGTERM ends it, after a last backup of what changed.

    Without PATHS, --name says which source of the configuration to back up; what else is given comes on top of what that says.

    \b
    Examples:
      yester backup ~/Documents
      yester backup --name Documents
      yester backup ~/Documents ~/Pictures --name home --exclude '*.tmp'
      yester backup / --name system --one-file-system --exclude /proc --exclude /sys
      yester backup ~/Documents --watch
      yester backup ~/shop --before 'pg_dump shop > ~/shop/shop.sql' --after 'rm ~/shop/shop.sql'

    Exit status: 0 done, 1 failed (nothing was published), 2 wrong usage, 3 done but some files were skipped, or a command after it
    failed.
    """
    tune_process(kept_bytes=64 * MIB)
    options = BackupOptions(name, exclude, exclude_from, exclude_caches, one_file_system, tags, message, only_if_changed=watch)
    hooks = Hooks(before, after, on_failure, hook_timeout_s, ignore_hook_failure)
    if not paths:
        config = read_config(current_config_path())
        configured = source_to_back_up(config, name)
        paths, options, hooks = configured.paths, options_on_top(configured.options, options), hooks_on_top(configured.hooks, hooks)
        store_path = store_of(config, name, store_path)
    source = name or default_source_name([Path(os.path.abspath(path)) for path in paths])
    check_source_name(source)
    run = _Run(store_path, source, paths, options, hooks)
    for path in paths:
        if path.is_symlink() and path.is_dir():
            print(f"note: {path} is a symlink, and only that is backed up; for the folder name {path.resolve()}", file=sys.stderr)
    if watch and dry_run:
        error = "--watch and --dry-run exclude each other; nothing was backed up"
        raise UsageError(error, hint="leave one of them out")
    if watch:
        return run.go_on(Pace(quiet_s, interval_s), as_json=as_json)
    result = run.dry() if dry_run else run.once()
    if result.newer is not None:
        future = f"{result.newer.name}, which stays its newest until then; was the clock wrong?"
        print(f"note: the source has a snapshot from the future, {future}", file=sys.stderr)
    for problem in result.problems:
        print(f"problem: {show_name(problem.path)}: {problem.reason}", file=sys.stderr)
    if as_json:
        print_json(_as_json(result, run.report))
    else:
        _print_summary(result)
    return SKIPPED if result.problems or run.report.has_failures else 0


class _Run:
    """What was asked for, and the three ways of doing it. `report` has the hooks of the last backup."""

    def __init__(self, store_path: Path, source: str, paths: tuple[Path, ...], options: BackupOptions, hooks: Hooks) -> None:
        self.report = HookReport(source)
        self._store_path = store_path
        self._source = source
        self._paths = paths
        self._options = options
        self._hooks = hooks
        self._unlocker = Unlocker()
        self._open = partial(open_or_create, unlock=self._unlocker)

    def dry(self) -> BackupResult:
        """Compare with the store; where there is none yet, with an empty one that is removed again."""
        try:
            store = open_store(self._store_path)
        except NotFoundError:
            with tempfile.TemporaryDirectory(prefix="yester-") as folder, Store.create(Path(folder)) as empty:
                return back_up(empty, self._paths, self._options, sink=DryRun(empty))
        with store:
            return back_up(store, self._paths, self._options, sink=DryRun(store))

    def once(self) -> BackupResult:
        """Back up."""
        with interrupted_like_ctrl_c():
            return self._back_up(_tell_waiting)

    def go_on(self, pace: Pace, *, as_json: bool) -> int:
        """Back up until a signal says to end."""
        from yester.cli.watching import StopSignals, print_line, watch_and_back_up

        def print_result(result: BackupResult) -> None:
            if as_json:
                print(json.dumps(_as_json(result, self.report)))
            else:
                print_line(result)

        def back_up_watched(watch: FolderObserver, stop: StopSignals) -> BackupResult:
            def tell_waiting(holder: str) -> None:
                _tell_waiting(holder)
                stop.is_waiting_for_others = True

            try:
                return self._back_up(tell_waiting, watch)
            finally:
                stop.is_waiting_for_others = False
                # One that was there and is not any more is on a disk that is away: no new one.
                self._open = partial(open_store, unlock=self._unlocker, is_written=True)

        watch_and_back_up(
            [Path(os.path.abspath(path)) for path in self._paths],
            pace,
            back_up_watched,
            print_result,
            is_deaf_after_scan=bool(self._hooks.after),
        )
        return 0

    def _back_up(self, on_wait: Callable[[str], None], observer: FolderObserver | None = None) -> BackupResult:
        self.report = HookReport(self._source, goes_on_after_failure=self._hooks.goes_on_after_failure)
        progress = BackupProgress()
        published: list[BackupResult] = []
        files = FileProgress(
            lambda: (progress.files, progress.size_bytes),
            lambda: count_source(self._paths, one_file_system=self._options.one_file_system),
        )

        def back_up_now() -> BackupResult:
            with self._open(self._store_path) as store, files as line, show_progress(line):
                result = back_up(store, self._paths, self._options, progress=progress, observer=observer, on_wait=on_wait)
            published.append(result)
            return result

        try:
            return back_up_with_hooks(self._hooks, Backup(self._store_path, self._source, self._paths), back_up_now, self.report)
        except KeyboardInterrupt:
            _tell_interrupted(published)
            raise


def _tell_interrupted(published: list[BackupResult]) -> None:
    if published:
        print(f"the snapshot {published[0].snapshot.name} was published; not all that should follow it was done", file=sys.stderr)
    else:
        print("nothing was published; what was stored so far is kept, and the next backup goes on from it", file=sys.stderr)


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


def _as_json(result: BackupResult, report: HookReport) -> dict[str, object]:
    return {
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

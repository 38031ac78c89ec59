# SPDX-License-Identifier: MIT
"""`yester status`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yester.cli.config import Config, read_config
from yester.cli.local_time import local_zone
from yester.cli.options import current_config_path, is_store_given, is_store_named, json_option, open_store, store_option
from yester.cli.output import json_name, json_time, print_json, print_table, show_size, show_text, show_time
from yester.cli.show_source import show_next, show_state, state_json, warnings
from yester.cli.state_folder import run_book
from yester.engine.runs import Outcome
from yester.engine.source_states import SourceState, Times, find_states, snapshot_times
from yester.engine.upkeep import store_key
from yester.errors import NotFoundError, YesterError
from yester.store.live import live_name_of
from yester.store.store import Store

if TYPE_CHECKING:
    from yester.fs.live_control import LiveFolder


@click.command("status")
@store_option
@json_option
def command(store_path: Path, as_json: bool) -> None:
    """Show how old the last backup of each source is, the live folders of the store, and the mounts that run.

    Warns of sources that are older than they may be (max_age of the configuration), of backups that failed, and of damage in the store
    that a backup by schedule found. DIRTY is what was
    written and is in no version yet; it is in the store all the same, but for the last second.

    \b
    Examples:
      yester status
      yester status --json

    Exit status: 0 done, also where it warns; 1 failed, 2 wrong usage.
    """
    from yester.fs.live_control import find_live_folders, find_snapshot_mounts

    config, now_ns = read_config(current_config_path()), time.time_ns()
    folders: list[LiveFolder] = []
    mounts: list[Path] = []
    times: Times = {}
    try:
        with open_store(store_path) as store:
            folders = find_live_folders(store)
            mounts = find_snapshot_mounts(store.path)
            times = _times(store)
    except NotFoundError:
        # Where each source has a store of its own, none need be in the usual place.
        if is_store_named(config) or not _have_own_stores(config):
            if not as_json and any(source.recurrence for source in config.sources.values()):
                _print_sources(_states(config, {}, now_ns), now_ns)
            raise
    except YesterError:
        # The disk with the store may be unplugged: whoever asks wants to know all the more how old backups are.
        if not as_json and any(source.recurrence for source in config.sources.values()):
            _print_sources(_states(config, {}, now_ns), now_ns)
        raise
    if not is_store_given():
        times = {**times, **_times_elsewhere(config, store_path)}
    states = _states(config, times, now_ns)
    damage = _damage(config, store_path)
    if as_json:
        print_json(
            {
                "damage": damage,
                "sources": [{**state_json(state), "warnings": warnings(state, now_ns)} for state in states],
                "live_folders": [_live_json(folder) for folder in folders],
                "snapshot_mounts": [json_name(bytes(path)) for path in mounts],
            }
        )
        return
    _print_sources(states, now_ns)
    for problem in damage:
        print(f"warning: {show_text(problem)}", file=sys.stderr)
    if not states and not folders and not mounts:
        click.echo("no snapshots, no live folders, and no mounts of this store", err=True)
    _print_live(folders)
    for path in mounts:
        print(f"snapshots are mounted at {show_text(str(path))}")


def _have_own_stores(config: Config) -> bool:
    """Whether something is backed up, and all of it into stores that the configuration names for it alone."""
    wanted = [source for source in config.sources.values() if source.paths]
    return bool(wanted) and all(source.store is not None for source in wanted)


def _times(store: Store) -> Times:
    """When snapshots were made, without versions of live folders."""
    return snapshot_times(stored for stored in store.snapshots() if live_name_of(stored.snapshot.source) is None)


def _times_elsewhere(config: Config, store_path: Path) -> Times:
    """The same of configured sources that have a store of their own. One that cannot be read is told, and taken for empty."""
    found: dict[str, dict[str, list[int]]] = {}
    own = {source.name: source.store for source in config.sources.values() if source.store is not None and source.store != store_path}
    for path in sorted(set(own.values())):
        times: Times = {}
        try:
            with open_store(path) as store:
                times = _times(store)
        except YesterError as error:
            print(f"note: {error.message}; of what is backed up there, only runs on this computer are known", file=sys.stderr)
        found |= {name: dict(times.get(name, {})) for name, its_store in own.items() if its_store == path}
    return found


def _damage(config: Config, store_path: Path) -> list[str]:
    """What runs by schedule found when they last looked after these stores, if it was not good."""
    book, found = run_book(), []
    for path in sorted({store_path, *(source.store for source in config.sources.values() if source.store is not None)}):
        record = book.read(store_key(path))
        if record is not None and record.outcome is Outcome.FAILED:
            found.append(f"{record.message} ({show_time(record.started_ns)} UTC); `yester check --store {path}` tells what it touches")
    return found


def _states(config: Config, times: Times, now_ns: int) -> list[SourceState]:
    return find_states(config.sources, times, run_book(), now_ns=now_ns, zone=local_zone())


def _print_sources(states: Sequence[SourceState], now_ns: int) -> None:
    zone = local_zone()
    rows = [
        [
            show_text(state.name),
            show_time(state.good_ns) if state.good_ns is not None else "never",
            show_state(state),
            show_text(state.source.every) if state.source is not None else "",
            show_next(state, now_ns, zone),
        ]
        for state in states
    ]
    if rows:
        print_table(["SOURCE", "LAST GOOD BACKUP (UTC)", "STATE", "EVERY", "NEXT (LOCAL)"], rows)
    for state in states:
        for warning in warnings(state, now_ns):
            print(f"warning: {warning}", file=sys.stderr)


def _live_json(folder: "LiveFolder") -> dict[str, object]:
    return {
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


def _print_live(folders: "Sequence[LiveFolder]") -> None:
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

# SPDX-License-Identifier: MIT
"""`yester schedule`: sources that are backed up by themselves.

The configuration says which, how often and how; timers only start `yester schedule run --due`. So what is added here is written there, and
whatever is changed there is made true with `yester schedule apply`.
"""

import os
import shlex
import socket
import sys
import time
from datetime import tzinfo
from pathlib import Path

import click

from yester.cli.config import Config, read_config
from yester.cli.config_edit import set_in_source
from yester.cli.configured_backup import source_to_back_up
from yester.cli.interrupting import interrupted_like_ctrl_c
from yester.cli.keep_options import keep_options
from yester.cli.local_time import local_zone
from yester.cli.mains_power import is_on_battery
from yester.cli.notifications import notify
from yester.cli.options import (
    HostPath,
    SourcePath,
    current_config_path,
    is_store_given,
    json_option,
    open_or_create,
    store_of,
    store_option,
)
from yester.cli.output import print_error, print_json, print_table, show_name, show_text
from yester.cli.passphrases import is_passphrase_kept
from yester.cli.schedule_timers import apply_timers, find_timers_in_use, scheduled_sources, timer_ways
from yester.cli.scheduled_run import exit_code, run_source
from yester.cli.show_source import show_last_run, show_next, state_json
from yester.cli.state_folder import run_book
from yester.cli.timers import State, Timers, find_timers, own_invocation
from yester.cli.tuning import MIB, tune_process
from yester.core.recurrence import parse_recurrence
from yester.core.retention import Policy
from yester.engine.backup import check_paths
from yester.engine.runs import Outcome, RunBook, RunRecord, is_due
from yester.engine.source_plan import Source, Upkeep
from yester.engine.source_states import find_state
from yester.errors import BusyError, ConflictError, NotFoundError, UsageError, YesterError
from yester.store.live import LIVE_PREFIX
from yester.store.store import Store

_CONFIGURATION = "/"
"""What runs that could not read the configuration are filed under: no source is called so."""
_LINGER = Path("/var/lib/systemd/linger")

_timer_option = click.option(
    "--timer",
    "kind",
    type=click.Choice(["auto", "systemd", "cron", "none"]),
    default="auto",
    help="What starts backups. Default: systemd, or cron where it is not there.",
)


@click.group("schedule")
def command() -> None:
    """Have sources backed up by themselves.

    \b
    Examples:
      yester schedule add Documents ~/Documents --every 'daily 03:00'
      yester schedule list
      yester schedule run Documents

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 done but some files were skipped.
    """


@command.command("add")
@click.argument("name", metavar="SOURCE")
@click.argument("paths", nargs=-1, type=SourcePath())
@click.option("--every", required=True, metavar="TIMES", help="How often: hourly, 'daily 03:00', 'weekly sun 04:00', 15m, 6h …")
@click.option("--on-battery", type=click.Choice(["yes", "no"]), default=None, help="Whether to run on battery power. Default: yes.")
@click.option("--max-age", metavar="DURATION", default=None, help="Warn when the last good backup is older: 3d. Default: from --every.")
@click.option("--exclude", "-e", multiple=True, metavar="RULE", help="Leave out what this rule matches (as in .gitignore).")
@click.option("--exclude-from", multiple=True, metavar="FILE", type=HostPath(), help="Read rules from a file.")
@click.option("--exclude-caches", is_flag=True, help="Leave out what is in folders that hold a CACHEDIR.TAG.")
@click.option("--one-file-system", "-x", is_flag=True, help="Do not enter other file systems.")
@click.option("--tag", "tags", multiple=True, metavar="T", help="Attach a tag to each snapshot.")
@keep_options
@_timer_option
@store_option
def add_command(
    name: str,
    paths: tuple[Path, ...],
    policy: Policy | None,
    every: str,
    on_battery: str | None,
    max_age: str | None,
    exclude: tuple[str, ...],
    exclude_from: tuple[Path, ...],
    exclude_caches: bool,
    one_file_system: bool,
    tags: tuple[str, ...],
    kind: str,
    store_path: Path,
) -> None:
    """Back PATHS up again and again, as SOURCE. Without PATHS, a source that the configuration has already.

    Writes it into the configuration, where all of it can be changed (`yester config edit`), and has systemd or cron start it, also after
    a time that was missed because the computer was off. Without a --keep option all snapshots stay, or as its policy says.

    \b
    Examples:
      yester schedule add Documents ~/Documents --every 'daily 03:00' --keep-daily 30 --keep-monthly all
      yester schedule add home ~ --every hourly --exclude /ann/Downloads --on-battery no
      yester schedule add system /etc /var --every 'Mon..Fri 18:00' --store /srv/backup

    Exit status: 0 done, 1 failed, 2 wrong usage (nothing was changed).
    """
    parse_recurrence(every)
    path = current_config_path()
    before = read_config(path)
    known = before.sources.get(name)
    _refuse_scheduled(known, name, path)
    folders = [Path(os.path.abspath(one)) for one in paths] or list(known.paths if known is not None else ())
    check_paths(folders, "nothing was changed")
    ways = timer_ways()
    way = find_timers(kind, ways, path)
    own_invocation(path)  # refuses what cannot be written into a timer
    values: dict[str, object] = {
        "paths": [os.fspath(folder) for folder in folders] if paths else None,
        # Whoever starts the backups has another environment.
        "store": None if before.store == store_path and not is_store_given() else os.path.abspath(store_of(before, name, store_path)),
        "exclude": list(exclude),
        "exclude_from": [os.path.abspath(file) for file in exclude_from],
        "exclude_caches": exclude_caches,
        "one_file_system": one_file_system,
        "tags": list(tags),
        "every": every,
        "on_battery": False if on_battery == "no" else None,
        "max_age": max_age,
        "keep": policy.options() if policy is not None else None,
    }
    given = {key: value for key, value in values.items() if value not in (None, [], False) or key == "on_battery"}
    set_in_source(path, name, given, dry_run=True)  # refuses what would be a mistake
    with open_or_create(store_of(before, name, store_path)) as store:
        _note_other_past(store, name, folders)
        is_locked = store.parameters.encryption is not None and not is_passphrase_kept(before, store.parameters.store_id)
    set_in_source(path, name, given)
    apply_timers(path, way, ways)
    print(f"{show_text(name)}: {show_text(every)}, {_started_by(way)}")
    if way is not None:
        print(f"the first backup comes within the hour; now: yester schedule run {shlex.quote(name)}")
    if is_locked:
        _warn_of_passphrase(path)
    _note_linger(way)


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show what is backed up by itself: when it ran, how that ended, when it runs next.

    Times are local. `yester status` shows how old the last good backup of each source is.

    \b
    Examples:
      yester schedule list
      yester schedule list --json

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    path, zone, now_ns = current_config_path(), local_zone(), time.time_ns()
    config, book, invocation = read_config(path), run_book(), own_invocation(path)
    way = find_timers_in_use(path, timer_ways())
    sources = scheduled_sources(config)
    timer_states = [way.look(source, invocation) if way is not None else State.OFF for source in sources]
    states = [find_state(source.name, source, {}, book, now_ns=now_ns, zone=zone) for source in sources]
    if as_json:
        timer = way.name if way is not None else None
        print_json(
            [
                {**state_json(state), "log": str(book.log_path(state.name)), "timer": timer, "timer_state": timer_state.name.lower()}
                for state, timer_state in zip(states, timer_states, strict=True)
            ]
        )
        return
    if not sources:
        print("nothing is backed up by itself: yester schedule add SOURCE FOLDER --every daily", file=sys.stderr)
        return
    rows = [
        [
            show_text(source.name),
            show_text(source.every),
            show_next(state, now_ns, zone),
            show_last_run(state, zone),
            f"{way.name}: {timer_state.value}" if way is not None else "none",
        ]
        for source, state, timer_state in zip(sources, states, timer_states, strict=True)
    ]
    print_table(["SOURCE", "EVERY", "NEXT (LOCAL)", "LAST RUN (LOCAL)", "TIMER"], rows)
    for state in states:
        if problem := state.problem():
            print(f"{show_text(state.name)}: {show_text(problem)}; log: {book.log_path(state.name)}")
    if any(timer_state is not State.ON for timer_state in timer_states):
        print("hint: `yester schedule apply` makes timers what the configuration says", file=sys.stderr)


@command.command("run")
@click.argument("names", metavar="[SOURCE]...", nargs=-1)
@click.option("--due", "only_due", is_flag=True, help="Only sources whose time has come. This is what timers start.")
@store_option
def run_command(names: tuple[str, ...], only_due: bool, store_path: Path) -> int:
    """Back sources up now, as the configuration says, and thin their snapshots by their policies: those named, else all that are scheduled.

    Now and then the store is checked, too, with a sample of its data. One that fails stops no other. What happened is in
    ~/.local/state/yester/runs, and `yester schedule list` shows how it ended. The store must be there already: if it is missing, its
    disk may be, too.

    \b
    Examples:
      yester schedule run
      yester schedule run Documents
      yester schedule run --due

    Exit status: 0 done, also where nothing is due; 1 one or more failed, or the store is damaged; 2 wrong usage, 3 done but some files
    were skipped.
    """
    book = run_book()
    config = _read_for_run(book) if only_due else read_config(current_config_path())
    sources = [source_to_back_up(config, name) for name in dict.fromkeys(names)] or scheduled_sources(config)
    if not sources and not only_due:
        message = f"{config.path} has no source that is backed up by itself; nothing was done"
        raise NotFoundError(message, hint="add one: yester schedule add SOURCE FOLDER --every daily")
    tune_process(kept_bytes=64 * MIB)
    zone, codes = local_zone(), {0}
    for source in sources:
        codes.add(_run_one(source, store_of(config, source.name, store_path), config.upkeep, book, zone if only_due else None))
    return next(code for code in (1, 3, 0) if code in codes)


@command.command("apply")
@_timer_option
def apply_command(kind: str) -> None:
    """Make timers what the configuration says. For after it was changed by hand, or copied to another computer.

    \b
    Examples:
      yester schedule apply
      yester schedule apply --timer cron

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    path, ways = current_config_path(), timer_ways()
    config = read_config(path)
    way = find_timers(kind, ways, path)
    is_changed = apply_timers(path, way, ways)
    count = len(scheduled_sources(config))
    print(f"{count} {'source' if count == 1 else 'sources'}, {_started_by(way)}{'' if is_changed else '; nothing had to be changed'}")
    _note_linger(way)


@command.command("remove")
@click.argument("name", metavar="SOURCE")
def remove_command(name: str) -> None:
    """Back SOURCE up no more by itself. Its snapshots stay, and so does what else the configuration says of it.

    \b
    Example:
      yester schedule remove Documents

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    path, ways = current_config_path(), timer_ways()
    source = read_config(path).source(name)
    if source.recurrence is None:
        message = f"{name!r} is not backed up by itself; nothing was changed"
        raise NotFoundError(message, hint="`yester schedule list` shows what is")
    way = find_timers_in_use(path, ways)
    set_in_source(path, name, {"every": None, "on_battery": None, "max_age": None})
    apply_timers(path, way, ways)
    run_book().forget(name)
    print(f"{show_text(name)} is no longer backed up by itself; its snapshots stay, and so does what {path} says of it besides")


# --- running


def _read_for_run(book: RunBook) -> Config:
    """The configuration, for a run that nobody watches: a mistake in it stops all backups, so it is told, once.

    Raises:
        YesterError: it cannot be read. Exit: likewise, as the last time: cron would mail it every quarter of an hour.
    """
    before = book.read(_CONFIGURATION)
    try:
        config = read_config(current_config_path())
    except YesterError as error:
        if before is not None and before.message == error.message:
            raise click.exceptions.Exit(error.exit_code) from error
        notify("No backups: the configuration of yester has a mistake", f"{error.message}\n{error.hint}".strip())
        book.end(book.begin(_CONFIGURATION, time.time_ns()), Outcome.FAILED, time.time_ns(), error.message)
        raise
    if before is not None:
        book.forget(_CONFIGURATION)
    return config


def _run_one(source: Source, store_path: Path, upkeep: Upkeep, book: RunBook, due_zone: tzinfo | None) -> int:
    """Run a source, with a zone only if it is due; the exit code."""

    def is_wanted(record: RunRecord | None) -> bool:
        if due_zone is None:
            return True
        if source.recurrence is None or not is_due(source.recurrence, record, time.time_ns(), due_zone):
            return False
        if not source.on_battery and is_on_battery():
            print(f"{show_text(source.name)}: waits until the computer has mains power")
            return False
        return True

    try:
        with interrupted_like_ctrl_c():
            ending = run_source(source, store_path, upkeep, book, is_wanted=is_wanted)
    except BusyError as error:
        if due_zone is not None:
            print(f"{show_text(source.name)}: a run of it is under way")
            return 0
        print_error(error, as_json=False)
        return 1
    except YesterError as error:
        print_error(error, as_json=False)
        return 1
    return exit_code(ending) if ending is not None else 0


# --- adding


def _refuse_scheduled(known: Source | None, name: str, path: Path) -> None:
    if known is not None and known.recurrence is not None:
        message = f"{name!r} is backed up by itself already ({known.every}); nothing was changed"
        raise ConflictError(
            message, hint=f"change it in {path}: yester config edit; or take it away first: yester schedule remove {shlex.quote(name)}"
        )
    if name.startswith(LIVE_PREFIX):
        message = f"{name!r} is a live folder, which makes its versions itself; nothing was changed"
        raise UsageError(message, hint="`yester live --every` says how often")


def _note_other_past(store: Store, name: str, folders: list[Path]) -> None:
    """Two computers that share a store may have chosen the same name."""
    latest = store.latest_snapshot(name)
    if latest is None:
        return
    host, paths = latest.snapshot.host, latest.snapshot.paths
    if host != socket.gethostname() or paths != tuple(map(os.fsencode, folders)):
        past = f"snapshots of {show_text(name)} already, the last of {', '.join(map(show_name, paths))} on {show_text(host)}"
        print(f"note: the store has {past}; what is added goes on from these", file=sys.stderr)


def _started_by(way: Timers | None) -> str:
    return f"started by {way.name}" if way is not None else "started by nothing yet: have `yester schedule run --due` started regularly"


def _warn_of_passphrase(path: Path) -> None:
    """Whoever types it now is not there when a backup runs."""
    print("warning: the store is encrypted, and nothing tells its passphrase to runs that nobody watches: they will fail", file=sys.stderr)
    print(f'hint: write passphrase_file = "/…" or passphrase_command = "…" at the top of {path}, or: yester key remember', file=sys.stderr)


def _note_linger(way: Timers | None) -> None:
    """A person's own systemd ends when he logs out."""
    if way is None or way.name != "systemd" or os.geteuid() == 0:
        return
    user = os.environ.get("USER") or str(os.getuid())
    if not (_LINGER / user).exists():
        print("note: backups start only while you are logged in; for always: loginctl enable-linger", file=sys.stderr)

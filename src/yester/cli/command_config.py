# SPDX-License-Identifier: MIT
"""`yester config`: looking at and changing `config.toml` without breaking it."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from yester.cli.config import Config, parse_config, read_config, read_text
from yester.cli.config_edit import SAMPLE, replace_text
from yester.cli.options import current_config_path, json_option
from yester.cli.output import print_error, print_json, show_text
from yester.errors import NotFoundError, YesterError


@click.group("config")
def command() -> None:
    """Edit and check the configuration, which says what is backed up, how often, and how long it is kept.

    \b
    Examples:
      yester config edit
      yester config check

    Exit status: 0 done, 1 failed, 2 wrong usage, or the configuration has a mistake.
    """


@command.command("check")
@json_option
def check_command(as_json: bool) -> None:
    """Look for mistakes in the configuration, and for paths in it that are not there.

    A path that is not there may be on a disk that is elsewhere now, so that is told and is no mistake.

    \b
    Examples:
      yester config check
      yester --config ~/draft.toml config check

    Exit status: 0 done, 1 failed, 2 wrong usage, or the configuration has a mistake.
    """
    path = current_config_path()
    config = read_config(path)
    missing = _missing_paths(config)
    if as_json:
        sources = {name: {"every": source.every or None, "paths": len(source.paths)} for name, source in config.sources.items()}
        print_json({"path": str(path), "exists": path.exists(), "sources": sources, "missing_paths": missing})
        return
    if not path.exists():
        print(f"{show_text(str(path))} is not there, and need not be")
        return
    scheduled = sum(source.recurrence is not None for source in config.sources.values())
    print(f"{show_text(str(path))}: no mistakes; sources: {len(config.sources)}, backed up by themselves: {scheduled}")
    for name, paths in missing.items():
        for one in paths:
            print(f"note: {show_text(name)}: {show_text(one)} is not there now", file=sys.stderr)


@command.command("edit")
def edit_command() -> None:
    """Edit the configuration with $VISUAL, else $EDITOR. It takes its place only if it has no mistake.

    Timers of `yester schedule` follow it.

    \b
    Examples:
      yester config edit
      EDITOR=nano yester config edit

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage, or what was written has a mistake.
    """
    path = current_config_path()
    before = read_text(path)
    folder = Path(tempfile.mkdtemp(prefix="yester-config-"))
    draft = folder / "config.toml"
    draft.write_text(before or SAMPLE, encoding="utf-8")
    try:
        is_changed = _edit_until_right(path, draft)
    except NotFoundError:
        if draft.read_text("utf-8") == (before or SAMPLE):
            _remove(folder)
        else:
            print(f"what you wrote is in {draft}", file=sys.stderr)
        raise
    if not is_changed:
        _remove(folder)
        print("nothing was changed")
        return
    try:
        config = replace_text(path, read_text(draft), instead_of=before)
    except YesterError:
        print(f"what you wrote is in {draft}", file=sys.stderr)
        raise
    _remove(folder)
    print(f"{path} changed")
    _follow(config)


def _follow(config: Config) -> None:
    """Have timers do what the configuration says now, if there are any."""
    from yester.cli.schedule_timers import apply_timers, find_timers_in_use, scheduled_sources, timer_ways

    ways = timer_ways()
    way = find_timers_in_use(config.path, ways)
    if way is not None:
        apply_timers(config.path, way, ways)
    elif scheduled_sources(config):
        print("hint: `yester schedule apply` has its sources backed up by themselves", file=sys.stderr)


def _edit_until_right(path: Path, draft: Path) -> bool:
    """Have the draft edited until it has no mistakes; whether it says something else than before.

    Raises:
        UsageError, StoreAccessError: it has a mistake, and nobody wants to edit it again; it stays where it is.
    """
    before = draft.read_bytes()
    while True:
        _run_editor(draft)
        try:
            parse_config(path, read_text(draft))
        except YesterError as error:
            if not sys.stdin.isatty():
                print(f"what you wrote is in {draft}", file=sys.stderr)
                raise
            print_error(error, as_json=False)
            if not click.confirm("Edit again?", default=True, err=True):
                print(f"what you wrote is in {draft}", file=sys.stderr)
                raise
            continue
        return draft.read_bytes() != before


def _run_editor(draft: Path) -> None:
    """Returns when the editor has ended.

    Raises:
        NotFoundError: there is none, or it failed.
    """
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        done = subprocess.run([*words, os.fspath(draft)], check=False)
    except OSError as error:
        message = f"the editor {words[0]} cannot be started: {error.strerror}; nothing was changed"
        raise NotFoundError(message, hint="say which to use: EDITOR=nano yester config edit") from error
    if done.returncode != 0:
        message = f"the editor {words[0]} ended with exit status {done.returncode}; nothing was changed"
        raise NotFoundError(message, hint="run it again, or with another editor: EDITOR=nano yester config edit")


def _remove(folder: Path) -> None:
    """The draft, and what an editor left beside it."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _missing_paths(config: Config) -> dict[str, list[str]]:
    found = {
        name: [os.fspath(path) for path in (*source.paths, *source.options.exclude_from) if not os.path.lexists(path)]
        for name, source in config.sources.items()
    }
    return {name: paths for name, paths in found.items() if paths}

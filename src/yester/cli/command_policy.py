# SPDX-License-Identifier: MIT
"""`yester policy`: what to keep of a source's snapshots, as the configuration says and `yester forget` does."""

import shlex
import sys
import time
from pathlib import Path

import click

from yester.cli.config import Config, read_config
from yester.cli.config_edit import set_in_source
from yester.cli.configured_policies import find_policy
from yester.cli.keep_options import keep_options
from yester.cli.options import current_config_path, json_option, open_store, store_of, store_option
from yester.cli.output import json_time, print_json, print_table, show_text
from yester.cli.records import snapshot_json
from yester.core.retention import Policy
from yester.core.times import parse_time
from yester.engine.forget import judge
from yester.engine.select import source_not_found
from yester.errors import NotFoundError, UsageError
from yester.store.live import LIVE_PREFIX


@click.group("policy")
def command() -> None:
    """Say what to keep of a source's snapshots. `yester forget` and backups by schedule keep to it.

    \b
    Examples:
      yester policy set Documents --keep-daily 30 --keep-monthly all
      yester policy test Documents

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """


@command.command("set")
@click.argument("name", metavar="SOURCE")
@keep_options
@click.option("--none", "takes_away", is_flag=True, help="Take the policy away: everything is kept, or of a live folder what is usual.")
@store_option
def set_command(name: str, policy: Policy | None, takes_away: bool, store_path: Path) -> None:
    """Give SOURCE a policy, in the place of the one it has, or take it away. Nothing is forgotten by that.

    It is written into the configuration. What it would do: `yester policy test SOURCE`.

    \b
    Examples:
      yester policy set Documents --keep-last 5 --keep-daily 30 --keep-monthly all
      yester policy set live/Work --keep-within 1d --keep-daily 7
      yester policy set Documents --none

    Exit status: 0 done, 1 failed, 2 wrong usage (nothing was changed).
    """
    if (policy is None) != takes_away:
        message = "a policy says what to keep, or --none takes it away; nothing was changed"
        raise UsageError(message, hint=f"such as: yester policy set {shlex.quote(name)} --keep-daily 30 --keep-monthly all")
    path = current_config_path()
    if name not in read_config(path).sources:  # a slip of the finger would be a policy for nothing
        with open_store(store_path) as store:
            if name not in store.sources():
                raise source_not_found(store, name)
    set_in_source(path, name, {"keep": policy.options() if policy is not None else None})
    print(f"{show_text(name)}: {_shown(policy) if policy is not None else 'no policy of its own any more'}")
    if name.startswith(LIVE_PREFIX):
        print("note: a live folder that is mounted goes on with the one it has until it is mounted again", file=sys.stderr)


@command.command("show")
@click.argument("name", metavar="[SOURCE]", required=False)
@store_option
@json_option
def show_command(name: str | None, store_path: Path, as_json: bool) -> None:
    """Show what is kept of each source, or of SOURCE.

    \b
    Examples:
      yester policy show
      yester policy show Documents --json

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    config = read_config(current_config_path())
    try:
        with open_store(store_path) as store:
            sources = store.sources()
    except NotFoundError:
        sources = []
    names = sorted({*sources, *config.sources})
    if name is not None and name not in names:
        message = f"neither {config.path} nor the store {store_path} has a source {name!r}"
        raise NotFoundError(message, hint="`yester policy show` lists all there are")
    shown = [one for one in names if name in (None, one)]
    if as_json:
        print_json([_policy_json(config, one) for one in shown])
        return
    rows = [[show_text(one), *_policy_row(config, one)] for one in shown]
    if rows:
        print_table(["SOURCE", "KEEPS", "SAID BY"], rows)
    else:
        print("no sources yet", file=sys.stderr)


@command.command("test")
@click.argument("name", metavar="SOURCE")
@keep_options
@click.option("--at", "at", metavar="TIME", default=None, help="As if it were that time: 2027-01-01.")
@store_option
@json_option
def test_command(name: str, policy: Policy | None, at: str | None, store_path: Path, as_json: bool) -> None:
    """Show which snapshots of SOURCE its policy would keep, and why; with --keep options, which those would. Changes nothing.

    \b
    Examples:
      yester policy test Documents
      yester policy test Documents --keep-daily 7 --keep-yearly all

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    now_ns = time.time_ns()
    at_ns = parse_time(at, now_ns=now_ns) if at is not None else now_ns
    config = read_config(current_config_path())
    policy = policy or find_policy(config, name)
    with open_store(store_of(config, name, store_path)) as store:
        if name not in store.sources():
            raise source_not_found(store, name)
        if policy is None:
            message = f"nothing says what to keep of {name!r}, so everything is kept"
            raise NotFoundError(message, hint=f"try one: yester policy test {shlex.quote(name)} --keep-daily 30")
        verdicts = judge(store, name, policy, now_ns=at_ns)
    if as_json:
        print_json(
            {
                "policy": policy.options(),
                "at": json_time(at_ns),
                "snapshots": [
                    {**snapshot_json(verdict.stored), "keep": verdict.is_kept, "reasons": list(map(str, verdict.reasons))}
                    for verdict in verdicts
                ],
            }
        )
        return
    rows = [
        [
            verdict.stored.id.hex()[:12],
            verdict.stored.snapshot.name,
            "keep" if verdict.is_kept else "forget",
            show_text(", ".join(map(str, verdict.reasons))),
        ]
        for verdict in verdicts
    ]
    print_table(["ID", "TIME (UTC)", "", "BECAUSE"], rows)
    print(f"{show_text(name)} keeps {_shown(policy)}: {sum(verdict.is_kept for verdict in verdicts)} of {len(rows)} snapshots")


def _policy_row(config: Config, name: str) -> list[str]:
    policy = find_policy(config, name)
    source = config.sources.get(name)
    said_by = str(config.path) if source is not None and source.policy is not None else "what is usual" if policy is not None else ""
    return [_shown(policy) if policy is not None else "everything", show_text(said_by)]


def _policy_json(config: Config, name: str) -> dict[str, object]:
    policy, source = find_policy(config, name), config.sources.get(name)
    return {
        "source": name,
        "keep": policy.options() if policy is not None else None,
        "is_configured": source is not None and source.policy is not None,
    }


def _shown(policy: Policy) -> str:
    """A policy in one line: `last 5, daily 30, tags x y`."""
    parts = []
    for option, value in policy.options().items():
        text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is True else str(value)
        parts.append(show_text(f"{option} {text}".strip()))
    return ", ".join(parts)

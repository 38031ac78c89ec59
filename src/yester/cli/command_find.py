# SPDX-License-Identifier: MIT
"""`yester find`."""

import stat
import time
from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import print_json, show_name, show_size
from yester.cli.records import entry_json
from yester.core.times import parse_start, parse_time
from yester.engine.find import Match, Scope, find
from yester.engine.trees import TreeReader

_TYPES = {
    "f": (stat.S_IFREG,),
    "d": (stat.S_IFDIR,),
    "l": (stat.S_IFLNK,),
    "p": (stat.S_IFIFO,),
    "s": (stat.S_IFSOCK,),
    "b": (stat.S_IFBLK,),
    "c": (stat.S_IFCHR,),
}


@click.command("find")
@click.argument("pattern")
@click.option("--source", metavar="SOURCE", default=None, help="Only in this source.")
@click.option("--since", metavar="TIME", default=None, help="Only in snapshots not before this time.")
@click.option("--until", metavar="TIME", default=None, help="Only in snapshots not after this time.")
@click.option("--type", "type_", type=click.Choice(list(_TYPES)), default=None, help="Only files, dirs, links, pipes, sockets, devices.")
@click.option("--ignore-case", "-i", is_flag=True, help="Take no notice of upper and lower case.")
@store_option
@json_option
def command(
    pattern: str,
    source: str | None,
    since: str | None,
    until: str | None,
    type_: str | None,
    ignore_case: bool,
    store_path: Path,
    as_json: bool,
) -> None:
    """Find files in all snapshots, and say which snapshots have them.

    PATTERN is a shell pattern for a name, or with a slash for a path.

    \b
    Examples:
      yester find '*.odt'
      yester find 'letters/*' --source Documents --since 2026-10

    Exit status: 0 found, 1 nothing found or failed, 2 wrong usage.
    """
    now_ns = time.time_ns()
    scope = Scope(
        source=source,
        since_ns=parse_start(since, now_ns=now_ns) if since else None,
        until_ns=parse_time(until, now_ns=now_ns) if until else None,
        types=_TYPES[type_] if type_ else (),
    )
    found = 0
    with open_store(store_path) as store:
        matches = find(store, TreeReader(store.reader()), pattern, scope, ignore_case=ignore_case)
        if as_json:
            listed = [_match_json(match) for match in matches]
            print_json(listed)
            raise SystemExit(0 if listed else 1)
        for match in matches:
            found += 1
            print(_line(match))
    if not found:
        click.echo(f"nothing matches {pattern!r}", err=True)
        raise SystemExit(1)


def _line(match: Match) -> str:
    when = match.first.snapshot.name if match.count == 1 else f"{match.first.snapshot.name} … {match.last.snapshot.name} ({match.count})"
    mark = "/" if stat.S_ISDIR(match.entry.mode) else f"  {show_size(match.entry.size)}"
    return f"{match.source}:{show_name(match.path)}{mark}  in {when}"


def _match_json(match: Match) -> dict[str, object]:
    return {
        "source": match.source,
        "first": {"id": match.first.id.hex(), "name": match.first.snapshot.name},
        "last": {"id": match.last.id.hex(), "name": match.last.snapshot.name},
        "snapshots": match.count,
        "entry": entry_json(match.entry, match.path),
    }

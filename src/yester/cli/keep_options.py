# SPDX-License-Identifier: MIT
"""The options that make a policy: `--keep-last 5 --keep-within 30d …` (core.retention)."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from yester.cli.options import Duration
from yester.core.retention import parse_policy
from yester.core.times import show_duration

Function = TypeVar("Function", bound=Callable[..., object])


class Count(click.ParamType["int | str"]):
    """A number of snapshots, or `all`."""

    name = "count"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """As `parse_policy` takes it."""
        text = str(value)
        if text == "all":
            return text
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            self.fail(f"{text!r} is no number of snapshots, and not 'all'", param, ctx)
        return int(text)


_OPTIONS = {
    "last": click.option("--keep-last", metavar="N", type=Count(), help="Keep the newest N; 'all' for any number, here and below."),
    "hourly": click.option("--keep-hourly", metavar="N", type=Count(), help="Keep the newest of each of N hours (of UTC) that have any."),
    "daily": click.option("--keep-daily", metavar="N", type=Count(), help="The same of days."),
    "weekly": click.option("--keep-weekly", metavar="N", type=Count(), help="Of weeks, from Monday."),
    "monthly": click.option("--keep-monthly", metavar="N", type=Count(), help="Of months."),
    "yearly": click.option("--keep-yearly", metavar="N", type=Count(), help="Of years."),
    "within": click.option("--keep-within", metavar="DURATION", type=Duration(), help="Keep all from so long before the newest: 30d."),
    "tags": click.option("--keep-tag", metavar="T", multiple=True, help="Keep all with this tag; may be given several times."),
    "remarked": click.option("--keep-remarked", is_flag=True, help="Keep all that were made with a remark (--message)."),
}
"""By the name that `parse_policy` has for each."""


def keep_options(function: Function) -> Function:
    """The options of a policy, given to the command as `policy`; None if there are none of them."""

    @functools.wraps(function)
    def command(**values: Any) -> object:  # noqa: ANN401 (what the command takes)
        named = {name: values.pop(f"keep_{name.removesuffix('s')}") for name in _OPTIONS}
        options = {name: value for name, value in named.items() if value is not None and value is not False and value != ()}
        if "within" in options:
            options["within"] = show_duration(options["within"])
        return function(policy=parse_policy(options) if options else None, **values)

    for option in reversed(_OPTIONS.values()):
        command = option(command)
    return command  # type: ignore[return-value]  # click calls it by name, with what the command takes

# SPDX-License-Identifier: MIT
"""Options that several subcommands share, and the store they name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., object])


def store_option(function: Function) -> Function:
    """`--store DIR`, given to the command as `store_path`."""
    return click.option(
        "--store", "store_path", metavar="DIR", type=click.Path(path_type=Path), default=None, callback=_store_path,
        help="The store. Default: $YESTER_STORE, else ~/.local/share/yester/store.",
    )(function)  # fmt: skip


def json_option(function: Function) -> Function:
    """`--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def _store_path(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path:
    if value is not None:
        return value
    if os.environ.get("YESTER_STORE"):
        return Path(os.environ["YESTER_STORE"])
    data_home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data_home) / "yester" / "store"

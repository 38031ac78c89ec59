# SPDX-License-Identifier: MIT
"""Options that several subcommands share, and the store they name."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from yester.cli.memory import remember, replaced_problem
from yester.cli.passphrases import Unlocker, given_passphrase, passphrase_options
from yester.core.times import parse_duration
from yester.errors import ConflictError, NotFoundError, UsageError, YesterError
from yester.store.store import Store

if TYPE_CHECKING:
    from yester.cli.config import Config
    from yester.store.slots import Unlock


class HostPath(click.Path):
    """A path of this computer. It is not looked at, as click does with any: who looks into a mount that hangs waits for it.

    An empty one is refused. It is what a script gives whose variable is not set, and would mean the current folder.
    """

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Take it as it stands."""
        if not os.fspath(value):
            self.fail("the path is empty", param, ctx)
        return Path(value)


class SourcePath(HostPath):
    """A path to back up. A slash at its end means what a symlink there leads to, as it does to `cp` and `tar`."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Follow it if it ends with a slash."""
        path = super().convert(value, param, ctx)
        is_followed = os.fspath(value).endswith(("/", "/.")) and path.is_symlink()
        return Path(os.path.realpath(path)) if is_followed else path


class Duration(click.ParamType[int]):
    """A time such as `30d` or `1d12h`, or `0`; in nanoseconds."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int) or value == "0":
            return int(value)
        try:
            return parse_duration(value)
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


class SnapshotName(click.ParamType[str]):
    """`SNAP` or `SNAP[:PATH]`, as text. Shells complete sources, and after `@` the names of a source's snapshots."""

    name = "snapshot"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What could be meant; nothing if the store cannot be read."""
        source, at, _ = incomplete.partition("@")
        try:
            with Store.open(_store_path(ctx, param, ctx.params.get("store_path")), unlock=Unlocker(may_ask=False)) as store:
                if not at:
                    return [CompletionItem(name) for name in store.sources() if name.startswith(incomplete)]
                names = [f"{source}@{stored.snapshot.name}" for stored in reversed(store.snapshots(source))]
                return [CompletionItem(name) for name in names if name.startswith(incomplete)]
        except YesterError:
            return []


class ForgottenName(click.ParamType[str]):
    """A forgotten snapshot, as text. Shells complete `SOURCE@NAME`, newest first."""

    name = "forgotten snapshot"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What could be meant; nothing if the store cannot be read."""
        try:
            with Store.open(_store_path(ctx, param, ctx.params.get("store_path")), unlock=Unlocker(may_ask=False)) as store:
                found = [forgotten.stored.snapshot for forgotten in reversed(store.forgotten_snapshots())]
        except YesterError:
            return []
        names = [f"{snapshot.source}@{snapshot.name}" for snapshot in found]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


REPLACED_HINT = "if you have put an older copy back, `yester key accept` takes it as it is; else somebody has replaced the store"
"""What to do about `memory.replaced_problem`."""

Function = TypeVar("Function", bound=Callable[..., object])


def store_option(function: Function) -> Function:
    """`--store DIR`, given to the command as `store_path`, and how to open it if it is encrypted (`open_store` knows)."""
    store = click.option(
        "--store", "store_path", metavar="DIR", type=HostPath(), default=None, callback=_store_path,
        help="The store. Default: $YESTER_STORE, else what the configuration says, else ~/.local/share/yester/store.",
    )  # fmt: skip
    return store(passphrase_options(function))


def json_option(function: Function) -> Function:
    """`--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def open_store(path: Path, *, unlock: "Unlock | None" = None, is_written: bool = False) -> Store:
    """Open a store; if it is encrypted, with the passphrase that options, environment or keyring tell, or that a person types.

    Says so where it does not go on from what this computer has last seen of it (`cli.memory`), and refuses it to commands that change it,
    which say `is_written`. How it is is remembered now, and again when it is closed: whatever was done with it meanwhile counts.

    Raises:
        YesterError: as `Store.open`.
    """
    store = Store.open(path, unlock=unlock or Unlocker())
    try:
        message = replaced_problem(store)
        if message and is_written:
            message += "; nothing was changed"
            raise ConflictError(message, hint=REPLACED_HINT)
    except BaseException:
        store.close()
        raise
    if message:
        print(f"warning: {message}\nhint: {REPLACED_HINT}", file=sys.stderr)
    remember(store)
    store.call_at_close(partial(remember, store))
    return store


def unlock_before_fork(path: Path) -> "Unlock | None":
    """The key of an encrypted store, asked for while there is a terminal, for a process that will have none.

    None if the store is plain, or there is none yet.
    """
    try:
        locked = Store.read_locked(path)
    except NotFoundError:
        return None
    if locked is None:
        return None
    key = Unlocker()(locked)
    return lambda _locked: key


def open_or_create(path: Path, *, unlock: "Unlock | None" = None) -> Store:
    """Open the store to add snapshots, and make it on first use, which is said."""
    is_secret = given_passphrase() is not None
    try:
        store = open_store(path, unlock=unlock, is_written=True)
        if is_secret and store.parameters.encryption is None:
            store.close()
            message = f"the store {path} is not encrypted, but a passphrase was given for it; nothing was stored"
            raise ConflictError(message, hint="make an encrypted one elsewhere with `yester init --encrypt`, or give no passphrase")
        return store  # noqa: TRY300 (what follows is for where there is none)
    except NotFoundError:
        if is_secret:
            message = f"there is no store in {path}, and one that is made by the way is not encrypted, as the passphrase says it should be"
            raise NotFoundError(message, hint="make it first: yester init --encrypt") from None
        try:
            store = Store.create(path)
        except ConflictError:
            return open_store(path, unlock=unlock, is_written=True)  # Another command has made it just now.
        print(f"made a new store in {path}", file=sys.stderr)
        return store


_CONFIG_MAKERS = ("schedule add", "schedule apply", "policy set", "config edit")
"""Commands that make a configuration that is not there, or clear up after one."""


def current_config_path() -> Path:
    """Where the configuration of the command that runs is. It need not exist, unless a person has named it.

    Raises:
        UsageError: `--config` says nothing. NotFoundError: what it or $YESTER_CONFIG names is not there, and the command does not make it.
    """
    return _config_path_of(click.get_current_context(), may_miss=_CONFIG_MAKERS)


def _config_path_of(context: click.Context, *, may_miss: tuple[str, ...]) -> Path:
    from yester.cli.config import config_path, is_config_named

    option = context.find_root().params.get("config_file")
    path = config_path(option)
    if is_config_named(option) and not context.command_path.endswith(may_miss) and not os.path.lexists(path):
        message = f"there is no configuration {path}, which {'--config' if option else '$YESTER_CONFIG'} names; nothing was done"
        raise NotFoundError(message, hint="see whether the name is right; `yester config edit` makes one")
    return path


def is_store_given() -> bool:
    """Whether the command that runs was given a store by `--store`, instead of by its surroundings."""
    return click.get_current_context().get_parameter_source("store_path") is ParameterSource.COMMANDLINE


def is_store_named(config: "Config") -> bool:
    """Whether anything says which store the command that runs is about, so that it is not just the usual one."""
    return is_store_given() or bool(os.environ.get("YESTER_STORE")) or config.store is not None


def store_of(config: "Config", source: str, store_path: Path) -> Path:
    """Where a source is: in the store that `--store` gave this command, else in its own as the configuration says, else in `store_path`."""
    configured = config.sources.get(source)
    return store_path if is_store_given() or configured is None else configured.store or store_path


def _store_path(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path:
    # A run by schedule reads the configuration itself, and tells only once that it is missing.
    find_config = partial(_config_path_of, context, may_miss=(*_CONFIG_MAKERS, "schedule run"))
    if context.find_root().params.get("config_file") and not context.resilient_parsing:
        find_config()  # also where it is not asked for the store: a slip of the finger is told
    if value is not None:
        return value
    if os.environ.get("YESTER_STORE"):
        return Path(os.environ["YESTER_STORE"])
    from yester.cli.config import read_store

    configured = read_store(find_config())
    if configured is not None:
        return configured
    data_home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data_home) / "yester" / "store"

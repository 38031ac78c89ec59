# SPDX-License-Identifier: MIT
"""Where commands get the passphrase of an encrypted store from.

In this order: `--passphrase-file`, `--passphrase-command`, `$YESTER_PASSPHRASE`, what the configuration says, the system's keyring
if it has one for the store, a question on the terminal. A recovery key is taken wherever a passphrase is.

Passphrases are never in arguments, where all users of the computer could read them, and are not handed to other programs.
"""

import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from yester.errors import LockedError, UsageError

if TYPE_CHECKING:
    from yester.cli.config import Config
    from yester.store.keys import StoreKey
    from yester.store.slots import LockedStore, Secret, Slot

PASSPHRASE_VARIABLE = "YESTER_PASSPHRASE"  # noqa: S105 (its name)
_KEYRING_SERVICE = "yester"
_FILE, _COMMAND = "yester.passphrase_file", "yester.passphrase_command"
_TRIES = 3

Function = TypeVar("Function", bound=Callable[..., object])


def passphrase_options(function: Function) -> Function:
    """`--passphrase-file` and `--passphrase-command`. The command is not given them: `Unlocker` knows."""

    def keep(name: str) -> Callable[[click.Context, click.Parameter, object], None]:
        def callback(context: click.Context, _parameter: click.Parameter, value: object) -> None:
            if value is not None:
                context.meta[name] = value

        return callback

    file = click.option(
        "--passphrase-file", metavar="FILE", type=click.Path(path_type=Path), default=None, envvar="YESTER_PASSPHRASE_FILE",
        expose_value=False, callback=keep(_FILE), help="Read the passphrase of an encrypted store from a file (its first line).",
    )  # fmt: skip
    command = click.option(
        "--passphrase-command", metavar="CMD", default=None, envvar="YESTER_PASSPHRASE_COMMAND",
        expose_value=False, callback=keep(_COMMAND), help="Run a command that prints the passphrase.",
    )  # fmt: skip
    return file(command(function))


class Unlocker:
    """Gets the key of an encrypted store, see `Store.open`: asks a person only where nothing else tells the passphrase."""

    def __init__(self, *, may_ask: bool = True, while_asking: AbstractContextManager[object] | None = None) -> None:
        """`while_asking` is entered while a person types: nothing else shall write on the terminal then."""
        self._may_ask = may_ask
        self._found: dict[bytes, StoreKey] = {}
        self._while_asking = while_asking or nullcontext()
        self.slots: tuple[Slot, ...] = ()
        """What was used: the slots that it opens."""

    def __call__(self, locked: "LockedStore") -> "StoreKey":
        """The store's key.

        Raises:
            LockedError: wrong, or there is none and nobody to ask. UsageError: a file or command does not tell it.
        """
        if locked.parameters.store_id in self._found:
            return self._found[locked.parameters.store_id]  # who opens a store again and again does not ask each time
        given = given_passphrase()
        if given is not None:
            return self._try(locked, given)
        with suppress(LockedError):
            if (configured := _configured_passphrase()) is not None:
                return self._try(locked, configured)
        with suppress(LockedError):
            if (kept := _from_keyring(locked.parameters.store_id)) is not None:
                return self._try(locked, kept)
        if not self._may_ask or not _is_terminal():
            message = f"the store {locked.path} is encrypted, and nothing here tells its passphrase; nothing was read or changed"
            hint = f"use --passphrase-file, --passphrase-command or {PASSPHRASE_VARIABLE}, or run the command in a terminal"
            raise LockedError(message, hint=hint)
        with self._while_asking:
            for _ in range(_TRIES - 1):
                try:
                    return self._try(locked, getpass.getpass(f"passphrase of {locked.path}: "))
                except LockedError as error:
                    print(f"yester: {error.message}", file=sys.stderr)
            return self._try(locked, getpass.getpass(f"passphrase of {locked.path}: "))

    def _try(self, locked: "LockedStore", text: str) -> "StoreKey":
        secret = secret_of(locked, text)
        key = self._found[locked.parameters.store_id] = locked.open(secret)
        self.slots = tuple(slot for slot in locked.slots if locked.opens(slot, secret))
        return key


def secret_of(locked: "LockedStore", text: str) -> "Secret":
    """What a person gave: a passphrase, or a recovery key."""
    from yester.store.recovery import looks_like_recovery_key, read_recovery_key
    from yester.store.slots import passphrase_secret, recovery_secret

    if looks_like_recovery_key(text):
        return recovery_secret(read_recovery_key(text))
    return passphrase_secret(text, locked.encryption)


def given_passphrase() -> str | None:
    """The passphrase that the options or the environment of this command tell; None if they tell none.

    Raises:
        UsageError: the file cannot be read, the command fails, or either gives nothing.
    """
    meta = context.meta if (context := click.get_current_context(silent=True)) is not None else {}
    if _FILE in meta:
        return read_passphrase_file(meta[_FILE])
    if _COMMAND in meta:
        return _run_passphrase_command(meta[_COMMAND])
    return os.environ.get(PASSPHRASE_VARIABLE) or None


def _configured_passphrase() -> str | None:
    """The passphrase that the configuration tells; None if it tells none. It may be that of another store.

    Raises:
        UsageError: the file cannot be read, the command fails, or either gives nothing.
    """
    if click.get_current_context(silent=True) is None:
        return None
    from yester.cli.config import read_config
    from yester.cli.options import current_config_path

    config = read_config(current_config_path())
    if config.passphrase_file is not None:
        return read_passphrase_file(config.passphrase_file)
    return _run_passphrase_command(config.passphrase_command) if config.passphrase_command else None


def is_passphrase_kept(config: "Config", store_id: bytes) -> bool:
    """Whether the configuration or the keyring tells a passphrase to what runs by itself; it is not tried."""
    return config.passphrase_file is not None or bool(config.passphrase_command) or _from_keyring(store_id) is not None


def new_passphrase(file: Path | None, *, question: str = "new passphrase") -> str:
    """A passphrase that is to be used from now on: from a file, or typed twice.

    Raises:
        UsageError: there is no terminal, or it was not typed the same twice.
    """
    if file is not None:
        return read_passphrase_file(file)
    if not _is_terminal():
        message = "there is no terminal to ask for the new passphrase; nothing was changed"
        raise UsageError(message, hint="give it in a file: see --help")
    typed = getpass.getpass(f"{question}: ")
    if not typed:
        message = "the passphrase is empty; nothing was changed"
        raise UsageError(message, hint="give one of some words")
    if getpass.getpass(f"{question} again: ") != typed:
        message = "the two passphrases differ; nothing was changed"
        raise UsageError(message, hint="run the command again")
    return typed


def read_passphrase_file(file: Path) -> str:
    """The first line of a file.

    Raises:
        UsageError: it cannot be read, or is empty.
    """
    try:
        with file.open("rb") as opened:
            line = opened.readline(1 << 16)
    except OSError as error:
        message = f"cannot read the passphrase from {file}: {error.strerror}; nothing was read or changed"
        raise UsageError(message) from error
    return _first_line(line, f"the file {file}")


def _run_passphrase_command(command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE_VARIABLE}
    try:
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, check=False, env=environment)
    except (OSError, ValueError) as error:
        message = f"cannot run the passphrase command {command!r}: {error}; nothing was read or changed"
        raise UsageError(message) from error
    if done.returncode:
        message = f"the passphrase command {command!r} ended with status {done.returncode}; nothing was read or changed"
        raise UsageError(message, hint="what it said stands above; it must print the passphrase and end with status 0")
    return _first_line(done.stdout, f"the command {command!r}")


def _first_line(data: bytes, where: str) -> str:
    line = data.split(b"\n", 1)[0].removesuffix(b"\r").decode("utf-8", "surrogateescape")
    if not line:
        message = f"{where} gives no passphrase: its first line is empty; nothing was read or changed"
        raise UsageError(message)
    return line


def keep_in_keyring(store_id: bytes, passphrase: str | None) -> None:
    """Have the system's keyring keep a store's passphrase, or keep it no more.

    Raises:
        UsageError: there is no keyring.
    """
    try:
        import keyring
        import keyring.errors
    except ImportError as error:
        message = "the package keyring is not installed; nothing was changed"
        raise UsageError(message, hint="install it: pip install 'yester[keyring]'") from error
    try:
        if passphrase is not None:
            keyring.set_password(_KEYRING_SERVICE, store_id.hex(), passphrase)
            return
        with suppress(keyring.errors.PasswordDeleteError):
            keyring.delete_password(_KEYRING_SERVICE, store_id.hex())
    except Exception as error:  # its backends raise what they like
        message = f"the system's keyring cannot be used: {error}; nothing was changed"
        raise UsageError(message) from error


def _from_keyring(store_id: bytes) -> str | None:
    """What the system's keyring keeps for a store; None where there is none, or it cannot be asked."""
    try:
        import keyring

        return keyring.get_password(_KEYRING_SERVICE, store_id.hex())
    except Exception:  # noqa: BLE001 (its backends raise what they like, and the next way is to ask)
        return None


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

# SPDX-License-Identifier: MIT
"""`yester key`: what opens an encrypted store."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from yester.cli.memory import remember_anew
from yester.cli.options import HostPath, json_option, open_store, store_option
from yester.cli.output import json_time, print_json, print_table, show_text, show_time
from yester.cli.passphrases import Unlocker, keep_in_keyring, new_passphrase, read_passphrase_file
from yester.errors import ConflictError, StoreAccessError, UsageError
from yester.store.folder import sync_folder
from yester.store.store import Store

if TYPE_CHECKING:
    from yester.store.slots import KeySlots, LockedStore, Secret, Slot

_KINDS = {1: "passphrase", 2: "recovery key"}

_new_file = click.option(
    "--new-passphrase-file", "new_file", metavar="FILE", type=HostPath(), default=None, help="Read the new one from a file."
)
_label = click.option("--label", default="", metavar="TEXT", help="A remark that `yester key list` shows to everybody.")


@click.group("key")
def command() -> None:
    """Manage what opens an encrypted store: passphrases, and recovery keys to be printed.

    Any of them opens all of the store. Which there are can be seen without one; to change them one must be known.

    \b
    Examples:
      yester key list
      yester key change
      yester key export --to ~/recovery-key.txt

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """


@command.command("list")
@store_option
@json_option
def list_command(store_path: Path, as_json: bool) -> None:
    """Show what opens the store. Needs no passphrase.

    \b
    Example:
      yester key list

    Exit status: 0 done, 1 failed (also where the store is not encrypted), 2 wrong usage.
    """
    locked = _locked(store_path)
    if as_json:
        print_json([_slot_json(slot) for slot in locked.slots])
        return
    rows = [[str(slot.number), _KINDS[slot.kind], show_time(slot.created_ns), show_text(slot.label)] for slot in locked.slots]
    print_table(["KEY", "KIND", "MADE (UTC)", "LABEL"], rows, right=frozenset({0}))
    if locked.damaged_slots:
        numbers = ", ".join(map(str, locked.damaged_slots))
        print(f"note: these cannot be read: {numbers}; they are damaged, or of a newer release", file=sys.stderr)


@command.command("add")
@_label
@_new_file
@store_option
def add_command(label: str, new_file: Path | None, store_path: Path) -> None:
    """Have one more passphrase open the store.

    \b
    Example:
      yester key add --label "Ann's"

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage.
    """
    with _open(store_path) as store:
        slot = _add_passphrase(store, new_file, label)
    print(f"key {slot.number} opens the store now")


@command.command("remove")
@click.argument("number", metavar="KEY", type=click.IntRange(min=1))
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be done, and do nothing.")
@store_option
def remove_command(number: int, dry_run: bool, store_path: Path) -> None:
    """Have a passphrase or recovery key open the store no more. The last one cannot be removed.

    Whoever has a copy of the store from before can still open that with it; and for a while the store's file itself has traces of it,
    which `yester compact` clears away.

    \b
    Example:
      yester key remove 2

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage.
    """
    with _open(store_path, is_written=not dry_run) as store:
        slots = _slots(store)
        if dry_run:
            slot = slots.look_at_removal(number)
            print(f"dry run, nothing was changed: key {number}, {_show_kind(slot)}, would open the store no more")
            return
        slot = slots.remove(number)
    print(f"key {number}, {_show_kind(slot)}, opens the store no more; older copies of the store still open with it")


@command.command("change")
@click.argument("number", metavar="[KEY]", type=click.IntRange(min=1), required=False)
@_new_file
@store_option
def change_command(number: int | None, new_file: Path | None, store_path: Path) -> None:
    """Put a new passphrase in the place of an old one: KEY, or of the one that is given to open the store.

    The old one works until the new one does. What `yester key remove --help` says of older copies is true here as well.

    \b
    Examples:
      yester key change
      yester key change 2 --new-passphrase-file ~/new

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage.
    """
    unlocker = Unlocker()
    with _open(store_path, unlocker) as store:
        if number is None:
            if len(unlocker.slots) != 1:
                message = "which key to change is not clear: what was given opens several, or came from elsewhere; nothing was changed"
                raise UsageError(message, hint="name it: yester key change KEY; `yester key list` shows them")
            number = unlocker.slots[0].number
        slots = _slots(store)
        old = slots.look_at_removal(number, is_replaced=True)
        if old is not None and _KINDS[old.kind] == "recovery key":
            message = f"key {number} is a recovery key, and no passphrase can take its place; nothing was changed"
            hint = f"add a passphrase with `yester key add`; for another recovery key: yester key export, then yester key remove {number}"
            raise UsageError(message, hint=hint)
        slot = slots.replace(number, _passphrase(store, new_file))
    print(f"key {slot.number} has the new passphrase; older copies of the store still open with the old one")


@command.command("export")
@_label
@click.option("--to", "file", metavar="FILE", type=HostPath(), default=None, help="Write it into a new file that only you can read.")
@store_option
def export_command(label: str, file: Path | None, store_path: Path) -> None:
    """Make a recovery key, and print it. It opens the store as a passphrase does: keep it on paper, in a safe place.

    It is 256 random bits as 14 groups of 4 letters and digits, the last of which tell a typing error. The store keeps nothing that could
    show it again.

    \b
    Examples:
      yester key export | lpr
      yester key export --to /media/stick/yester-recovery-key.txt

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage.
    """
    from yester.store.recovery import random_recovery_key, show_recovery_key
    from yester.store.slots import judge_label, recovery_secret

    judge_label(label)
    with _open(store_path) as store:
        key = random_recovery_key()
        # Told before the store takes it: a key that opens it and that nobody has is of no use.
        with _told(f"{show_recovery_key(key)}\n", file):
            slot = _slots(store).add(recovery_secret(key), label)
    print(f"key {slot.number} is this recovery key; whoever has it can open the store {store_path}", file=sys.stderr)


@command.command("import")
@click.option("--recovery-key-file", "key_file", metavar="FILE", type=HostPath(), default=None, help="Read it from a file.")
@_label
@_new_file
@store_option
def import_command(key_file: Path | None, label: str, new_file: Path | None, store_path: Path) -> None:
    """Open the store with a recovery key, and give it a new passphrase: for when the old one is forgotten.

    \b
    Example:
      yester key import

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage.
    """
    from yester.store.recovery import read_recovery_key
    from yester.store.slots import recovery_secret

    typed = read_passphrase_file(key_file) if key_file is not None else click.prompt("recovery key", err=True)
    secret = recovery_secret(read_recovery_key(typed))
    with open_store(store_path, unlock=lambda locked: locked.open(secret), is_written=True) as store:
        slot = _add_passphrase(store, new_file, label)
    print(f"key {slot.number} opens the store now")


@command.command("remember")
@click.option("--forget", is_flag=True, help="Have the keyring keep it no more.")
@store_option
def remember_command(forget: bool, store_path: Path) -> None:
    """Have the system's keyring keep the passphrase of the store, so that no command asks for it. Needs the package keyring.

    \b
    Examples:
      yester key remember
      yester key remember --forget

    Exit status: 0 done, 1 failed, 2 wrong usage (also where there is no keyring).
    """
    from yester.cli.passphrases import given_passphrase, secret_of

    locked = _locked(store_path)
    if forget:
        keep_in_keyring(locked.parameters.store_id, None)
        print("the keyring keeps no passphrase of the store")
        return
    given = given_passphrase()
    passphrase = given if given is not None else click.prompt("passphrase", hide_input=True, err=True)
    locked.open(secret_of(locked, passphrase))
    keep_in_keyring(locked.parameters.store_id, passphrase)
    print("the keyring keeps the passphrase of the store")


@command.command("accept")
@store_option
def accept_command(store_path: Path) -> None:
    """Take the snapshots and keys of the store as they are, after a warning that they are not those that they were.

    That warning is right after a copy of the store was put back by you, and after damage. If it was neither, somebody else has written to
    the store's file: before you accept it, look for what is missing in `yester snapshots`, and should not be in `yester key list`.

    \b
    Example:
      yester key accept

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    _locked(store_path)
    with Store.open(store_path, unlock=Unlocker()) as store:
        store.accept_snapshots()
        remember_anew(store)
        slots = len(_slots(store).list())
        print(f"the {len(store.snapshots())} snapshots and {slots} keys that are there are taken for right")


def _open(path: Path, unlocker: Unlocker | None = None, *, is_written: bool = True) -> Store:
    _locked(path)
    return open_store(path, unlock=unlocker, is_written=is_written)


def _locked(path: Path) -> "LockedStore":
    locked = Store.read_locked(path)
    if locked is None:
        message = f"the store {path} is not encrypted, and has no keys; nothing was changed"
        raise ConflictError(message, hint="a store is encrypted when it is made: yester init --encrypt")
    return locked


def _slots(store: Store) -> "KeySlots":
    from yester.store.slots import KeySlots

    return KeySlots(store.environment)


def _passphrase(store: Store, file: Path | None) -> "Secret":
    from yester.store.slots import passphrase_secret

    assert store.parameters.encryption is not None
    return passphrase_secret(new_passphrase(file), store.parameters.encryption)


def _add_passphrase(store: Store, file: Path | None, label: str) -> "Slot":
    return _slots(store).add(_passphrase(store, file), label)


@contextmanager
def _told(text: str, file: Path | None) -> Iterator[None]:
    """Give somebody a recovery key, in a new file or printed, for whatever makes it one of the store: if that fails it is taken back."""
    if file is not None:
        _write_new(file, text)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()
    try:
        yield
    except BaseException:
        if file is not None:
            file.unlink(missing_ok=True)
        else:
            print("the recovery key that was printed opens nothing", file=sys.stderr)
        raise


def _write_new(file: Path, text: str) -> None:
    """Durable on return, name and content."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        message = f"{file} is there already; nothing was changed"
        raise ConflictError(message, hint="name a new file") from error
    except OSError as error:
        raise _no_key_made(file, error) from error
    try:
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(handle)
        with suppress(PermissionError):  # of a folder in which names may be made, but not read
            sync_folder(file.parent)
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _no_key_made(file, error) from error
        raise


def _no_key_made(file: Path, error: OSError) -> StoreAccessError:
    message = f"cannot write {file}: {error.strerror}; no recovery key was made"
    return StoreAccessError(message, hint="name a file in another folder or on another disk")


def _show_kind(slot: "Slot | None") -> str:
    return f"a {_KINDS[slot.kind]}" if slot is not None else "which cannot be read"


def _slot_json(slot: "Slot") -> dict[str, object]:
    return {"key": slot.number, "kind": _KINDS[slot.kind], "made": json_time(slot.created_ns), "label": slot.label}

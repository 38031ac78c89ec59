# SPDX-License-Identifier: MIT
"""`yester desktop`: "Previous versions" in the menus of file managers, and what happens when it is chosen.

What is put where is said in `desktop_files`. `open` is what all of it calls: it finds the folder that holds the old versions of a path and
has a file manager show that folder. It runs without a terminal, so what it has to say it shows on the screen as well.

    PATH is in                        it opens
    a live folder                     `.snapshots` of its folder; of itself, if it is a folder
    an old version in a live folder   the `.snapshots` that this version is in
    elsewhere                         `versions/SOURCE/…` of a snapshot mount that runs and has it

Mounts are only looked into if their process answers: a file manager must not wait for one that hangs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from yester.cli.desktop_files import FILE_MANAGERS, ICON, LABEL, Folders, Outcome, State, install, look, remove
from yester.cli.notifications import notify
from yester.cli.options import HostPath, json_option
from yester.cli.output import print_json, print_table
from yester.cli.own_program import own_program
from yester.cli.passphrases import Unlocker
from yester.errors import MountError, NotFoundError, StoreAccessError, UsageError, YesterError

if TYPE_CHECKING:
    from yester.fs.mount_table import MountedAt

SKIPPED = 3
_SNAPDIR = ".snapshots"


@click.group("desktop")
def command() -> None:
    """Put "Previous versions" into the right-click menu of Thunar, Nautilus, Nemo and Dolphin.

    \b
    Examples:
      yester desktop install
      yester desktop remove

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 done but some files were left as they are.
    """


_managers = click.argument("managers", metavar="[FILE_MANAGER]...", nargs=-1, type=click.Choice(FILE_MANAGERS))


@command.command("install")
@_managers
def install_command(managers: tuple[str, ...]) -> int:
    """Put "Previous versions" into the menus of the file managers that are installed, or of those named.

    Writes into your own folders only, and never over what you have there: Thunar's actions stay, and a file that yester did not write
    is left as it is. File managers that run see it when they start anew (thunar -q, nautilus -q, nemo -q).

    \b
    Examples:
      yester desktop install
      yester desktop install thunar nemo

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage, 3 done but some files were left as they are.
    """
    managers = managers or tuple(manager for manager in FILE_MANAGERS if shutil.which(manager))
    if not managers:
        message = f"none of {', '.join(FILE_MANAGERS)} is installed; nothing was changed"
        raise NotFoundError(message, hint="name those it should be for: yester desktop install thunar")
    return _report(install(managers, _folders(), _own_command()))


@command.command("remove")
@_managers
def remove_command(managers: tuple[str, ...]) -> int:
    """Take "Previous versions" out of all menus, or those of the file managers named. What else is in those files stays.

    \b
    Example:
      yester desktop remove

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage, 3 done but some files were left as they are.
    """
    return _report(remove(managers or FILE_MANAGERS, _folders()))


@command.command("status")
@json_option
def status_command(as_json: bool) -> None:
    """Show in which menus "Previous versions" is.

    \b
    Example:
      yester desktop status

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    outcomes = look(FILE_MANAGERS, _folders(), _own_command())
    if as_json:
        print_json(
            [
                {"file_manager": outcome.manager, "path": str(outcome.path), "state": outcome.state.name.lower(), "reason": outcome.reason}
                for outcome in outcomes
            ]
        )
        return
    rows = [[outcome.manager, f"{outcome.state.value}: {outcome.reason}".removesuffix(": "), str(outcome.path)] for outcome in outcomes]
    print_table(["FILE MANAGER", "MENU ENTRY", "FILE"], rows)


@command.command("open")
@click.argument("path", metavar="PATH", type=HostPath())
@click.option("--with", "program", metavar="PROGRAM", default=None, help="Show it with this program. Default: the desktop's own choice.")
def open_command(path: Path, program: str | None) -> NoReturn:
    """Show the old versions of PATH in a file manager. This is what the menus call.

    PATH is in a live folder, or was backed up by a store whose snapshots are mounted.

    \b
    Example:
      yester desktop open ~/Work/report.odt

    Exit status: 1 failed, 2 wrong usage, else that of the program that shows it.
    """
    try:
        folder = find_versions(path)
        show_folder(folder, program)
    except YesterError as error:
        _show_message(error)
        raise


# --- installing


def _folders() -> Folders:
    home = Path(os.path.expanduser("~"))
    return Folders(
        config=Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config"),
        data=Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share"),
        system_config=tuple(Path(folder) for folder in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if folder),
    )


def _own_command() -> list[str]:
    """How to run this yester from a menu, whose PATH need not be that of the terminal.

    Raises:
        UsageError: it is installed in a folder whose name the files cannot hold.
    """
    program = own_program()
    if not all(word.isprintable() and "%" not in word for word in program):
        message = f"the name of {program[0]!r} cannot be written into the files of a file manager; nothing was changed"
        raise UsageError(message, hint="install yester in a folder whose name has printable characters only, and no %")
    return [*program, "desktop", "open"]


def _report(outcomes: Sequence[Outcome]) -> int:
    """Say what was done; the exit status.

    Raises:
        StoreAccessError: nothing could be done.
    """
    for outcome in outcomes:
        if outcome.state is State.LEFT:
            print(f"yester: {outcome.path} was left as it is: {outcome.reason}", file=sys.stderr)
        else:
            print(f"{outcome.manager}: {outcome.path} {outcome.state.value}")
    left = sum(outcome.state is State.LEFT for outcome in outcomes)
    if left and left == len(outcomes):
        message = "nothing was changed"
        raise StoreAccessError(message, hint="the reasons stand above")
    return SKIPPED if left else 0


# --- opening


def find_versions(path: Path) -> Path:
    """The folder that holds the old versions of a path.

    Raises:
        NotFoundError: there are none, or nothing that runs knows of any. MountError, BusyError: the mount it is in is dead, or hangs.
    """
    from yester.fs.mount_table import innermost, mounts

    absolute = Path(os.path.abspath(path))
    # Not the last component: of a symlink, the versions of the link itself are asked for.
    resolved = Path(os.path.realpath(absolute.parent)) / absolute.name
    table = mounts()
    inside = innermost(table, resolved)
    if inside is not None and inside.is_ours:
        return _versions_in_mount(inside, resolved)
    for mount in table:
        if mount.is_ours and (found := _versions_in_snapshots(mount, absolute)) is not None:
            return found
    message = f"{absolute} is in no live folder, and no snapshot mount that runs has versions of it"
    raise NotFoundError(message, hint="show what was backed up with `yester mount ~/Snapshots`, then try again")


def _versions_in_mount(mount: "MountedAt", path: Path) -> Path:
    if mount.is_dead():
        message = f"the process that served {mount.path} is gone"
        raise MountError(message, hint=f"take the mount away with `yester umount {mount.path}`, then mount it again")
    if not mount.live_name:
        message = f"{path} is an old version already: {mount.path} shows snapshots"
        raise NotFoundError(message, hint=f"all versions of one file are in {mount.path}/versions")
    inner = path.relative_to(mount.path).parts
    if _SNAPDIR in inner:
        return mount.path.joinpath(*inner[: inner.index(_SNAPDIR) + 1])
    folder = path if path.is_dir() and not path.is_symlink() else path.parent
    versions = folder / _SNAPDIR
    if not versions.is_dir():
        message = f"there is no folder {folder}"
        raise NotFoundError(message)
    if not os.listdir(versions):
        message = f"{folder} has no old versions yet"
        raise NotFoundError(
            message, hint="one is made when the live folder has been quiet for a while; `yester snapshot NAME` makes one now"
        )
    return versions


def _versions_in_snapshots(mount: "MountedAt", path: Path) -> Path | None:
    """Where a snapshot mount shows the versions of what was backed up from `path`; None if it does not, or if it cannot be asked."""
    from yester.engine.select import find_history_targets
    from yester.store.store import Store

    with suppress(YesterError, OSError):
        if mount.live_name or mount.is_dead():
            return None
        with Store.open(mount.store, unlock=Unlocker(may_ask=False)) as store:
            targets = find_history_targets(store, os.fspath(path), Path("/"))
        for source, inner in targets:
            found = mount.path / "versions" / source / os.fsdecode(inner)
            if found.is_dir():
                return found
    return None


def show_folder(folder: Path, program: str | None) -> NoReturn:
    """Become a program that shows a folder: the given one, else what the desktop opens folders with.

    Raises:
        NotFoundError: there is none.
    """
    for words in ([program] if program else [], ["xdg-open"], ["gio", "open"]):
        if words and shutil.which(words[0]):
            with suppress(OSError):
                os.execvp(words[0], [*words, os.fspath(folder)])  # noqa: S606 (no shell is wanted)
    message = f"nothing that is installed can show {folder}"
    raise NotFoundError(message, hint="install a file manager, and the package xdg-utils")


def _show_message(error: YesterError) -> None:
    """Show an error on the screen, if there is one and something to show it with: whoever chose from a menu has no terminal."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    text = f"{error.message}\n\n{error.hint}".strip()
    if notify(LABEL, text, icon=ICON):
        return
    for words in (
        ["zenity", "--info", "--no-markup", f"--title={LABEL}", f"--text={text}"],
        ["kdialog", "--title", LABEL, "--msgbox", escape(text, quote=False)],
    ):
        if shutil.which(words[0]) and _starts(words):
            return


def _starts(words: list[str]) -> bool:
    """A window that stays until the person closes it; nobody waits for that."""
    with suppress(OSError):
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return True
    return False

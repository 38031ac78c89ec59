# SPDX-License-Identifier: MIT
"""The files that put "Previous versions" into the menus of file managers, in a person's own folders.

    Thunar     CONFIG/Thunar/uca.xml                              one <action> among the person's own
    Nautilus   DATA/nautilus-python/extensions/yester.py          in the menu itself, where python3-nautilus is installed
               DATA/nautilus/scripts/Previous versions            below "Scripts", always
    Nemo       DATA/nemo/actions/yester.nemo_action
    Dolphin    DATA/kio/servicemenus/yester.desktop

Each of them only calls `yester desktop open`. A file of that name that is not ours is left as it is, and so is a `uca.xml` that is
not understood. Files change in one step: whoever reads them meanwhile, or after a crash, has the old or the new one.

Knows nothing of stores, mounts or the screen, and does not tell a file manager that runs: it sees the files when it starts anew.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from yester.engine.replace_file import replace_file

FILE_MANAGERS = ("thunar", "nautilus", "nemo", "dolphin")
"""Also the names of their programs."""

LABEL = "Previous versions"
_DESCRIPTION = "Show the old versions of this file or folder"
ICON = "document-open-recent"
_MARK = b"Written by `yester desktop install`, removed by `yester desktop remove`; changes made here are lost."
_ACTION_ID = "yester-previous-versions"
_COPY_MARK = b"<!-- all of this file comes from yester, which copied the actions of the system if there were any -->\n"
_NO_ACTIONS = b'<?xml version="1.0" encoding="UTF-8"?>\n<actions>\n</actions>\n'


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a person's programs keep their settings (`config`) and their data, and where their settings come from at first."""

    config: Path
    data: Path
    system_config: tuple[Path, ...]


class State(Enum):
    """What was found of a file, or was done to it."""

    INSTALLED = "installed"
    UPDATED = "updated"
    PRESENT = "there"
    OUTDATED = "of another installation"
    REMOVED = "removed"
    ABSENT = "not there"
    LEFT = "left as it is"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file; `reason` says why it was left as it is."""

    manager: str
    path: Path
    state: State
    reason: str = ""


class NotUnderstoodError(Exception):
    """A file holds what is not ours to change; the text says what. Never leaves this module."""


def install(managers: Sequence[str], folders: Folders, command: Sequence[str]) -> list[Outcome]:
    """Write what these file managers read, so that they run `command` with a path at its end. Safe to call again.

    The command must have only printable characters and no `%`, which starts a field code: programs differ in how they undo `%%`.
    """
    return [_guarded(_install, part) for part in _parts(managers, folders, command)]


def remove(managers: Sequence[str], folders: Folders) -> list[Outcome]:
    """Take away what `install` wrote, and nothing else. Safe to call again."""
    return [_guarded(_remove, part) for part in _parts(managers, folders, ())]


def look(managers: Sequence[str], folders: Folders, command: Sequence[str]) -> list[Outcome]:
    """What is there; changes nothing."""
    return [_guarded(_look, part) for part in _parts(managers, folders, command)]


def _parts(managers: Sequence[str], folders: Folders, command: Sequence[str]) -> "Iterator[Part]":
    config, data = folders.config, folders.data
    for manager in FILE_MANAGERS:
        if manager not in managers:
            continue
        own = [*command, "--with", manager, "--"]
        match manager:
            case "thunar":
                yield ThunarActions(
                    config / "Thunar" / "uca.xml", config, [place / "Thunar" / "uca.xml" for place in folders.system_config], own
                )
            case "nautilus":
                yield OwnFile(manager, data / "nautilus-python" / "extensions" / "yester.py", data, _nautilus_extension(own))
                yield OwnFile(manager, data / "nautilus" / "scripts" / LABEL, data, _nautilus_script(own), is_executable=True)
            case "nemo":
                yield OwnFile(manager, data / "nemo" / "actions" / "yester.nemo_action", data, _nemo_action(own))
            case "dolphin":
                # KDE runs what a service menu in a person's folder says only if it is executable.
                yield OwnFile(manager, data / "kio" / "servicemenus" / "yester.desktop", data, _service_menu(own), is_executable=True)


# --- one file


def _guarded(work: "Callable[[Part], State]", part: "Part") -> Outcome:
    try:
        return Outcome(part.manager, part.path, work(part))
    except NotUnderstoodError as error:
        return Outcome(part.manager, part.path, State.LEFT, str(error))
    except OSError as error:
        return Outcome(part.manager, part.path, State.LEFT, error.strerror or str(error))


def _install(part: "Part") -> State:
    old = _read(part.path)
    new = part.with_ours(old)
    if old == new and _can_run(part):
        return State.PRESENT
    part.path.parent.mkdir(parents=True, exist_ok=True)
    _replace(part.path, new, is_executable=part.is_executable)
    return State.INSTALLED if old is None or part.without_ours(old) == old else State.UPDATED


def _remove(part: "Part") -> State:
    old = _read(part.path)
    if old is None:
        return State.ABSENT
    new = part.without_ours(old)
    if new == old:
        return State.ABSENT
    if new is not None:
        _replace(part.path, new, is_executable=part.is_executable)
        return State.REMOVED
    part.path.unlink()
    for folder in part.path.parents:
        if folder == part.top:
            break
        try:
            folder.rmdir()
        except OSError:  # there is more in it, most of the time
            break
    return State.REMOVED


def _look(part: "Part") -> State:
    old = _read(part.path)
    if old is None or part.without_ours(old) == old:
        return State.ABSENT
    return State.PRESENT if part.with_ours(old) == old and _can_run(part) else State.OUTDATED


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _can_run(part: "Part") -> bool:
    return not part.is_executable or os.access(part.path, os.X_OK)


def _replace(path: Path, data: bytes, *, is_executable: bool) -> None:
    """Give a file new content; it keeps its permissions."""
    mode = 0o777 if is_executable else 0o666
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode) | (0o100 if is_executable else 0)
    replace_file(path, data, mode=mode)


# --- what is in a file. Both kinds have
#
#     with_ours(old)      what it should hold, given what it holds (None: no file); the same bytes if it does
#     without_ours(old)   what is left without ours: None for no file, the same bytes if nothing of it is ours
#     top                 empty folders between this one and the file are removed with it
#
# and raise NotUnderstoodError.


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file that nobody else writes. Ours is told by the mark in it."""

    manager: str
    path: Path
    top: Path
    content: bytes
    is_executable: bool = False

    def with_ours(self, old: bytes | None) -> bytes:
        """All of it."""
        if old is not None and _MARK not in old:
            message = "it was not written by yester"
            raise NotUnderstoodError(message)
        return self.content

    def without_ours(self, old: bytes) -> bytes | None:
        """Nothing, if it is ours."""
        return None if _MARK in old else old


def _nautilus_extension(command: Sequence[str]) -> bytes:
    return f'''# {_MARK.decode()}
"""Adds "{LABEL}" to the menu of Nautilus (python3-nautilus runs this)."""

from gi.repository import Gio, GObject, Nautilus

COMMAND = {list(command)!r}


def show_versions(_item, path):
    Gio.Subprocess.new([*COMMAND, path], Gio.SubprocessFlags.NONE)


def items(name, file):
    path = file.get_location().get_path()
    if path is None:
        return []
    item = Nautilus.MenuItem(name=name, label="{LABEL}", tip="{_DESCRIPTION}", icon="{ICON}")
    item.connect("activate", show_versions, path)
    return [item]


class YesterVersions(GObject.GObject, Nautilus.MenuProvider):
    # Before Nautilus 43 these were given a window as well, in front.
    def get_file_items(self, *args):
        return items("yester::versions", args[-1][0]) if len(args[-1]) == 1 else []

    def get_background_items(self, *args):
        return items("yester::versions_here", args[-1])
'''.encode()


def _nautilus_script(command: Sequence[str]) -> bytes:
    # Nautilus starts it in the folder it shows. In the names that it gives as arguments, it drops what looks like a field code (%f).
    words = " ".join(_quote(word) for word in command)
    return f"""#!/bin/sh
# {_MARK.decode()}
path=${{NAUTILUS_SCRIPT_SELECTED_FILE_PATHS%?}} # there is a newline behind each
exec {words} "${{path:-$PWD}}"
""".encode()


def _nemo_action(command: Sequence[str]) -> bytes:
    return f"""# {_MARK.decode()}
[Nemo Action]
Name={LABEL}
Comment={_DESCRIPTION}
Exec={_desktop_exec(command)} %F
Icon-Name={ICON}
Selection=s
Extensions=any;
Quote=double
""".encode()


def _service_menu(command: Sequence[str]) -> bytes:
    return f"""# {_MARK.decode()}
[Desktop Entry]
Type=Service
ServiceTypes=KonqPopupMenu/Plugin
MimeType=all/all;
Actions=versions;
X-KDE-Priority=TopLevel
X-KDE-RequiredNumberOfUrls=1

[Desktop Action versions]
Name={LABEL}
Icon={ICON}
Exec={_desktop_exec(command)} %f
""".encode()


def _quote(word: str) -> str:
    """A word of a command line, as shells and the Desktop Entry Specification read it."""
    if re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    return '"' + re.sub(r'(["`$\\])', r"\\\1", word) + '"'


def _command_line(command: Sequence[str]) -> str:
    return " ".join(_quote(word) for word in command)


def _desktop_exec(command: Sequence[str]) -> str:
    """A command as value of `Exec`: any value has backslashes doubled."""
    return _command_line(command).replace("\\", "\\\\")


@dataclass(frozen=True, slots=True)
class ThunarActions:
    """Thunar keeps all actions in one file, so ours goes in at the end and the rest stays as it is, byte for byte.

    Where a person has no such file, Thunar reads that of the system: then ours is added to a copy of it, since once there is
    a file of the person's own Thunar reads nothing else.
    """

    path: Path
    top: Path
    system_paths: Sequence[Path]
    command: Sequence[str]
    manager: str = "thunar"
    is_executable: bool = False

    def with_ours(self, old: bytes | None) -> bytes:
        """With our action at the end. What the person changed of our action, such as its name, stays."""
        base = self._system_actions() if old is None else old
        command = _command_line(self.command) + " %f"
        ours = _read_actions(base).ours
        if [action.command for action in ours] == [command]:
            return base
        is_copy = old is None or _is_copy(base, ours)
        base = _cut(base, ours)
        found = _read_actions(base)
        action = _action(command, is_copy=is_copy)
        if found.end is None:
            return base[: found.start] + b"<actions>\n" + action + b"</actions>" + base[_tag_end(base, found.start) :]
        return base[: found.end] + action + base[found.end :]

    def without_ours(self, old: bytes) -> bytes | None:
        """Without our action."""
        ours = _read_actions(old).ours
        if not ours:
            return old
        new = _cut(old, ours)
        return None if _is_copy(old, ours) and new in (self._system_actions(), _NO_ACTIONS) else new

    def _system_actions(self) -> bytes:
        for path in self.system_paths:
            with suppress(OSError, NotUnderstoodError):
                data = path.read_bytes()
                _read_actions(data)
                return data
        return _NO_ACTIONS


@dataclass(slots=True)
class _Action:
    """An action of a `uca.xml`: where it begins and ends, and what is known of it."""

    start: int
    end: int = 0
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        return self.texts.get("command", "")


@dataclass(slots=True)
class _Actions:
    """Where in a `uca.xml` things are: the tag that opens it, the one that closes it (None for `<actions/>`), our actions."""

    start: int = 0
    end: int | None = None
    ours: list[_Action] = field(default_factory=list)


Part = OwnFile | ThunarActions


def _read_actions(data: bytes) -> _Actions:
    """Find our actions. Places are bytes, so that the rest of the file need not be written anew.

    Raises:
        NotUnderstoodError: it is not a file of actions.
    """
    found = _Actions()
    open_tags: list[str] = []
    action = _Action(0)
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True

    def start_tag(name: str, _attributes: dict[str, str]) -> None:
        nonlocal action
        if not open_tags:
            found.start = parser.CurrentByteIndex
            if name != "actions":
                message = f"it holds <{name}>, where Thunar has <actions>"
                raise NotUnderstoodError(message)
        elif len(open_tags) == 1:
            action = _Action(parser.CurrentByteIndex)
        open_tags.append(name)

    def text(characters: str) -> None:
        if len(open_tags) == 3:
            action.texts[open_tags[-1]] = action.texts.get(open_tags[-1], "") + characters

    def end_tag(_name: str) -> None:
        open_tags.pop()
        here = parser.CurrentByteIndex
        if not open_tags:
            found.end = here if data.startswith(b"</", here) else None
        elif len(open_tags) == 1 and action.texts.get("unique-id") == _ACTION_ID:
            action.end = _tag_end(data, here)
            found.ours.append(action)

    parser.StartElementHandler, parser.CharacterDataHandler, parser.EndElementHandler = start_tag, text, end_tag
    try:
        data.decode()  # Thunar reads nothing but UTF-8, and expat would go by the mark of another one at the start
        parser.Parse(data, True)  # noqa: FBT003 (takes no keywords)
    except (UnicodeDecodeError, expat.ExpatError) as error:
        message = f"it is not XML as Thunar writes it: {error}"
        raise NotUnderstoodError(message) from error
    return found


def _tag_end(data: bytes, start: int) -> int:
    return data.index(b">", start) + 1


def _cut(data: bytes, actions: Sequence[_Action]) -> bytes:
    """Without these actions, and the line that each ends."""
    for action in reversed(actions):
        end = action.end + (data[action.end : action.end + 1] == b"\n")
        data = data[: action.start] + data[end:]
    return data


def _is_copy(data: bytes, actions: Sequence[_Action]) -> bool:
    """Whether the person had no such file. Thunar leaves the mark out when it writes the file, and then the file is the person's."""
    return any(_COPY_MARK in data[action.start : action.end] for action in actions)


def _action(command: str, *, is_copy: bool) -> bytes:
    # Thunar before 4.16 gives up on a file with an element that it does not know, so none is here that is not needed.
    return f"""<action>
{_COPY_MARK.decode() if is_copy else ""}\
\t<icon>{ICON}</icon>
\t<name>{LABEL}</name>
\t<unique-id>{_ACTION_ID}</unique-id>
\t<command>{escape(command)}</command>
\t<description>{_DESCRIPTION}</description>
\t<patterns>*</patterns>
\t<directories/>
\t<audio-files/>
\t<image-files/>
\t<other-files/>
\t<text-files/>
\t<video-files/>
</action>
""".encode()

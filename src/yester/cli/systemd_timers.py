# SPDX-License-Identifier: MIT
"""Timers of systemd's: for each source a `.timer` and the `.service` that it starts (systemd.timer(5), systemd.service(5)).

An ordinary user's are in `~/.config/systemd/user` and run while he is logged in, or always with `loginctl enable-linger`. Root's are
those of the system: root is hardly ever logged in where it counts.

A timer fires at the times of its source, right after the computer woke up if one passed meanwhile, and each hour: then what failed, or what
waited for mains power, is tried again.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from yester.cli.timers import Invocation, State
from yester.engine.replace_file import replace_file
from yester.engine.runs import unit_stem
from yester.engine.source_plan import Source
from yester.errors import ConflictError, StoreAccessError, TimerError

_MARK = "# Written by `yester schedule`; changes made here are lost. Configuration: "
_DELAY_S_MAX = 300
"""Computers that share a disk or a network need not all begin at the same second."""
_ANSWER_S = 20.0
_MODE = 0o644


class SystemdTimers:
    """The timers in one folder, for one manager: a user's, or with `is_system` the system's."""

    name = "systemd"

    def __init__(self, folder: Path, *, is_system: bool) -> None:
        self.folder = folder
        self._is_system = is_system

    def is_there(self) -> bool:
        """Whether the manager answers."""
        if shutil.which("systemctl") is None:
            return False
        with suppress(TimerError):
            self._systemctl("show", "--property=Version")
            return True
        return False

    def has_any(self, config: Path) -> bool:
        """Whether there are units of this configuration."""
        return bool(self._own(config))

    def apply(self, sources: Sequence[Source], invocation: Invocation) -> bool:
        """As `Timers.apply`."""
        wanted = {name: text for source in sources for name, text in self._units(source, invocation).items()}
        own = self._own(invocation.config)
        for name in wanted:
            if name not in own and os.path.lexists(self.folder / name):
                message = f"{self.folder / name} is there and not of this configuration; no timer was changed"
                raise ConflictError(message, hint="rename the source, or remove what made that file: yester --config OTHER schedule remove")
        stale = sorted(own.keys() - wanted.keys())
        changed = sorted(name for name, text in wanted.items() if own.get(name) != text)
        for name in stale:
            if name.endswith(".timer"):
                self._systemctl("disable", "--now", name)
        self._write(changed, wanted, stale)
        if stale or changed:
            self._systemctl("daemon-reload")
        off = [name for name in sorted(wanted) if name.endswith(".timer") and (name in changed or not self._is_on(name))]
        for name in off:
            self._systemctl("enable", name)
            self._systemctl("restart", name)
        return bool(stale or changed or off)

    def look(self, source: Source, invocation: Invocation) -> State:
        """As `Timers.look`."""
        wanted, own = self._units(source, invocation), self._own(invocation.config)
        if not wanted.keys() & own.keys():
            return State.OFF
        if any(_without_environment(own.get(name, "")) != _without_environment(text) for name, text in wanted.items()):
            return State.OUTDATED
        return State.ON if self._is_on(f"yester-{unit_stem(source.name)}.timer") else State.OFF

    def _write(self, changed: Sequence[str], wanted: dict[str, str], stale: Sequence[str]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in changed:
                replace_file(self.folder / name, wanted[name].encode(), mode=_MODE)
            for name in stale:
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            message = f"cannot write the timers in {self.folder}: {error.strerror}; some may be as they were"
            raise StoreAccessError(message, hint="see whose the folder is; then `yester schedule apply`") from error

    def _own(self, config: Path) -> dict[str, str]:
        """The units of this configuration that are there, by name."""
        found = {}
        for path in [*self.folder.glob("yester-*.service"), *self.folder.glob("yester-*.timer")]:
            with suppress(OSError, UnicodeDecodeError):
                text = path.read_text(encoding="utf-8")
                if text.startswith(f"{_MARK}{config}\n"):
                    found[path.name] = text
        return found

    def _units(self, source: Source, invocation: Invocation) -> dict[str, str]:
        assert source.recurrence is not None
        stem, head = f"yester-{unit_stem(source.name)}", f"{_MARK}{invocation.config}\n"
        about = f"[Unit]\nDescription=Backup of {_specified(source.name)} by yester\n"
        words = [_quoted(word, is_program=not at) for at, word in enumerate((*invocation.words, "--", source.name))]
        service = [
            head + about + ("" if source.on_battery else "ConditionACPower=true\n"),
            f"[Service]\nType=oneshot\nExecStart={' '.join(words)}",
            *(f"Environment={_quoted(f'{name}={value}', is_program=True)}" for name, value in invocation.environment),
            *(["User=root"] if self._is_system else []),  # gives it HOME
            "SuccessExitStatus=3",
            "Nice=10\nIOSchedulingClass=idle\n",
        ]
        delay_s = min(_DELAY_S_MAX, source.recurrence.longest_gap_ns() // 10**10)
        timer = [
            head + about,
            f"[Timer]\nOnCalendar={source.recurrence.on_calendar()}\nOnCalendar=hourly",
            f"Persistent=true\nRandomizedDelaySec={delay_s}\n",
            "[Install]\nWantedBy=timers.target\n",
        ]
        return {f"{stem}.service": "\n".join(service), f"{stem}.timer": "\n".join(timer)}

    def _is_on(self, timer: str) -> bool:
        with suppress(TimerError):
            return self._systemctl("show", "--property=ActiveState", "--value", timer).strip() == "active"
        return False

    def _systemctl(self, *words: str) -> str:
        """What systemctl prints.

        Raises:
            TimerError: it fails.
        """
        command = ["systemctl", *([] if self._is_system else ["--user"]), "--no-pager", "--quiet", *words]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_ANSWER_S, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            message = f"systemd does not answer: {error}"
            raise TimerError(message) from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "backslashreplace").strip().replace("\n", "; ")
            message = f"systemd refuses `{' '.join(command)}`: {said or f'exit status {done.returncode}'}"
            raise TimerError(message, hint="put that right, then `yester schedule apply`")
        return done.stdout.decode("utf-8", "backslashreplace")


def _without_environment(unit: str) -> list[str]:
    return [line for line in unit.splitlines() if not line.startswith("Environment=")]


def _specified(text: str) -> str:
    """Text in which systemd replaces nothing (systemd.unit(5), specifiers)."""
    return text.replace("%", "%%")


def _quoted(word: str, *, is_program: bool = False) -> str:
    """A word of a command line (systemd.service(5)), or with `is_program` one in which it looks for no variables."""
    escaped = re.sub(r'(["\\])', r"\\\1", _specified(word))
    return '"' + (escaped if is_program else escaped.replace("$", "$$")) + '"'

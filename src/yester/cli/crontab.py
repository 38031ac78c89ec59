# SPDX-License-Identifier: MIT
"""One line in a person's crontab that asks again and again what is due, for where there is no systemd (crontab(5)).

It stands between two marks that name the configuration; all else in the crontab stays byte for byte. cron does not make up for times at
which the computer was off, so the line asks at least every quarter of an hour, and at the minutes of all sources.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from yester.cli.timers import Invocation, State
from yester.engine.source_plan import Source
from yester.errors import ConflictError, TimerError

_BEGIN = "# >>> written by `yester schedule`, changes made here are lost: "
_END = "# <<< written by `yester schedule`: "
_ANSWER_S = 20.0
_ALWAYS = (0, 15, 30, 45)
_NONE_YET = re.compile(r"no crontab|no such file", re.IGNORECASE)
"""What `crontab -l` says, in English, of a person who has none."""


class CronTimers:
    """The crontab of whoever runs this."""

    name = "cron"

    def is_there(self) -> bool:
        """Whether there is a crontab to be had."""
        if shutil.which("crontab") is None:
            return False
        with suppress(TimerError):
            self._read()
            return True
        return False

    def has_any(self, config: Path) -> bool:
        """Whether there is a line of this configuration; False also where there is no cron."""
        if shutil.which("crontab") is None:
            return False
        with suppress(TimerError):
            return f"{_BEGIN}{config}\n" in self._read()
        return False

    def apply(self, sources: Sequence[Source], invocation: Invocation) -> bool:
        """As `Timers.apply`."""
        old = self._read()
        new = with_block(old, invocation.config, [_line(sources, invocation)] if sources else [])
        if new != old:
            self._run("-", text=new)
        return new != old

    def look(self, source: Source, invocation: Invocation) -> State:
        """As `Timers.look`. The line is for all sources: it is not as it should be if it does not ask at the minutes of this one."""
        text = self._read()
        block = _find_block(text, invocation.config)
        if block is None:
            return State.OFF
        lines = text[block[0] : block[1]].splitlines()[1:-1]
        assert source.recurrence is not None
        minutes = lines[0].partition(" ")[0].split(",") if lines else []
        has_minutes = {str(minute) for minute in source.recurrence.minutes} <= set(minutes)
        return State.ON if has_minutes and lines[0].endswith(" " + _command(invocation)) else State.OUTDATED

    def _read(self) -> str:
        """The crontab; empty if there is none yet.

        Raises:
            TimerError: it cannot be read. It must not be taken for empty then.
        """
        done = self._start("-l")
        said = done.stderr.decode("utf-8", "backslashreplace").strip()
        if done.returncode != 0:
            if not done.stdout and _NONE_YET.search(said):
                return ""
            message = f"cron refuses `crontab -l`: {said or f'exit status {done.returncode}'}; nothing was changed"
            raise TimerError(message, hint="see whether you may use cron: /etc/cron.allow, /etc/cron.deny")
        return done.stdout.decode("utf-8", "surrogateescape")

    def _run(self, *words: str, text: str) -> None:
        done = self._start(*words, text=text)
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "backslashreplace").strip()
            message = f"cron refuses the new crontab: {said or f'exit status {done.returncode}'}; the old one is as it was"
            raise TimerError(message, hint="see whether you may use cron, and whether its disk is full")

    def _start(self, *words: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
        data = text.encode("utf-8", "surrogateescape")
        try:
            return subprocess.run(["env", "LC_ALL=C", "crontab", *words], input=data, capture_output=True, check=False, timeout=_ANSWER_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            message = f"cron does not answer: {error}"
            raise TimerError(message) from error


def with_block(text: str, config: Path, lines: Sequence[str]) -> str:
    """A crontab with these lines between the marks of a configuration; without lines, without marks. All else stays as it is.

    Raises:
        ConflictError: the marks are not as they were written.
    """
    block = _find_block(text, config)
    start, end = block if block is not None else (len(text), len(text))
    if not lines:
        return text[:start] + text[end:]
    ours = "\n".join([f"{_BEGIN}{config}", *lines, f"{_END}{config}\n"])
    before = text[:start]
    return before + ("\n" if before and not before.endswith("\n") else "") + ours + text[end:]


def _find_block(text: str, config: Path) -> tuple[int, int] | None:
    """Where the lines of a configuration are, with their marks."""
    begin, end = f"{_BEGIN}{config}\n", f"{_END}{config}\n"
    start, stop = text.find(begin), text.find(end)
    if start == stop == -1:
        return None
    if text.count(begin) != 1 or text.count(end) != 1 or stop < start:
        message = "the marks of yester in the crontab are not as they were written; nothing was changed"
        raise ConflictError(message, hint="take all lines with `yester schedule` out of it with `crontab -e`, then `yester schedule apply`")
    return start, stop + len(end)


def _line(sources: Sequence[Source], invocation: Invocation) -> str:
    minutes = sorted({*_ALWAYS, *(minute for source in sources if source.recurrence for minute in source.recurrence.minutes)})
    assignments = [f"{name}={shlex.quote(value)}" for name, value in invocation.environment]
    environment = "".join(f"{assignment} " for assignment in assignments)
    return f"{','.join(map(str, minutes))} * * * * {_escaped(environment)}{_command(invocation)}"


def _command(invocation: Invocation) -> str:
    """What is run, without its environment. cron mails what is printed: what failed goes to stderr."""
    return f"{_escaped(' '.join(map(shlex.quote, invocation.words)))} >/dev/null"


def _escaped(command: str) -> str:
    """Cron takes a % for the end of the line."""
    return command.replace("%", r"\%")

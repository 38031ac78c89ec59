# SPDX-License-Identifier: MIT
"""What starts backups by itself: systemd's timers, or cron where there is no systemd.

Either only asks again and again: `yester schedule run --due`. Whether a source is due is decided by `engine.runs`, so that both agree, what
was missed is made up for, and asking too often does no harm. One configuration has its timers with one of the two.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from yester.cli.own_program import own_program
from yester.engine.source_plan import Source
from yester.errors import NotFoundError, UsageError

_CARRIED = ("XDG_DATA_HOME", "XDG_STATE_HOME", "PYTHONPATH")
"""Variables that a timer gets as they are when it is made. The store stands in the configuration; passphrases have no place in a timer."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """How a timer starts yester: words that all are printable, and what it gets in its environment."""

    program: tuple[str, ...]
    config: Path
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The command, without the sources."""
        return (*self.program, "--config", os.fspath(self.config), "schedule", "run", "--due")


class State(Enum):
    """What is there for a source."""

    ON = "on"
    OFF = "off"
    OUTDATED = "not as the configuration says"


class Timers(Protocol):
    """One of the two ways."""

    name: str

    def is_there(self) -> bool:
        """Whether it can be used here and now."""

    def has_any(self, config: Path) -> bool:
        """Whether it has timers of this configuration; False where that cannot be told."""

    def apply(self, sources: Sequence[Source], invocation: Invocation) -> bool:
        """Have timers for these sources, all of which recur, and for no other of the configuration; whether anything had to change.

        Safe to call again: what failed in between is put right.

        Raises:
            TimerError: it refuses. ConflictError: something else has the place. StoreAccessError: a file cannot be written.
        """

    def look(self, source: Source, invocation: Invocation) -> State:
        """What is there for a source that recurs; changes nothing. Not compared is the environment, which is another in each terminal."""


def own_invocation(config: Path) -> Invocation:
    """How timers of this configuration start this yester.

    Raises:
        UsageError: a path cannot be written into a timer.
    """
    invocation = Invocation(tuple(own_program()), config, tuple((name, os.environ[name]) for name in _CARRIED if os.environ.get(name)))
    for word in (*invocation.words, *(value for _, value in invocation.environment)):
        if not word.isprintable():
            message = f"{word!r} cannot be written into a timer; nothing was changed"
            raise UsageError(message, hint="use a path of printable characters")
    return invocation


def find_timers(kind: str, ways: Sequence[Timers], config: Path) -> Timers | None:
    """The way of this name; for `auto` the one that has timers of the configuration already, else the first that is there.

    None for `none`.

    Raises:
        NotFoundError: it is not there, or none is.
    """
    if kind == "none":
        return None
    for way in ways:
        if kind == way.name or (kind == "auto" and way.has_any(config)):
            if way.is_there():
                return way
            message = f"{way.name} does not answer here, so its timers cannot be changed; nothing was changed"
            raise NotFoundError(message, hint="log in as the user whose timers they are; `sudo -u` gives no session of systemd's")
    for way in ways:
        if way.is_there():
            return way
    message = "neither systemd nor cron can be used here, so nothing would start backups; nothing was changed"
    raise NotFoundError(message, hint="say --timer none, and have `yester schedule run --due` started every few minutes by what you have")

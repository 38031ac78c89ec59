# SPDX-License-Identifier: MIT
"""Timers of all sources that a configuration has backed up by itself, whichever way starts them."""

import os
from collections.abc import Sequence
from pathlib import Path

from yester.cli.config import Config, read_config
from yester.cli.config_edit import locked
from yester.cli.crontab import CronTimers
from yester.cli.systemd_timers import SystemdTimers
from yester.cli.timers import Timers, own_invocation
from yester.engine.source_plan import Source


def timer_ways() -> tuple[Timers, ...]:
    """All there are, in the order in which they are preferred."""
    if os.geteuid() == 0:
        return SystemdTimers(Path("/etc/systemd/system"), is_system=True), CronTimers()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    return SystemdTimers(config_home / "systemd" / "user", is_system=False), CronTimers()


def scheduled_sources(config: Config) -> list[Source]:
    """The sources that are backed up by themselves."""
    return [source for source in config.sources.values() if source.recurrence is not None]


def find_timers_in_use(config_path: Path, ways: Sequence[Timers]) -> Timers | None:
    """The way that has timers of the configuration; None if none has."""
    return next((way for way in ways if way.has_any(config_path)), None)


def apply_timers(config_path: Path, way: Timers | None, ways: Sequence[Timers]) -> bool:
    """Have timers of the configuration be of this way, and of no other; whether anything changed.

    Reads the configuration while nobody else may change it: of two who change it at once, the last to get here knows of both.

    Raises:
        TimerError, ConflictError, StoreAccessError: as `Timers.apply`. UsageError: the configuration has a mistake.
    """
    invocation = own_invocation(config_path)
    with locked(config_path):
        sources = scheduled_sources(read_config(config_path))
        changed = [other.apply([], invocation) for other in ways if other is not way and other.has_any(config_path)]
        if way is not None:
            changed.append(way.apply(sources, invocation))
    return any(changed)

# SPDX-License-Identifier: MIT
"""The time zone of this computer: schedules are in local time, snapshots are named in UTC."""

import os
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def local_zone() -> tzinfo:
    """What $TZ says, else what the computer is set to, with its changes of the clock.

    Where neither has a name that is known, as with `TZ=CET-1CEST`, it is what holds now.
    """
    name = os.environ.get("TZ", "").removeprefix(":")
    with suppress(OSError, ValueError, ZoneInfoNotFoundError):
        if name:
            return ZoneInfo(name)
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file)
    return datetime.now(UTC).astimezone().tzinfo or UTC


def show_local_time(time_ns: int, zone: tzinfo) -> str:
    """A time of this computer, to the minute: `Thu 2026-11-26 03:00`."""
    return datetime.fromtimestamp(time_ns // 10**9, zone).strftime("%a %Y-%m-%d %H:%M")

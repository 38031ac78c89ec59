# SPDX-License-Identifier: MIT
"""Times as people write them, and as snapshots are named. Everything is UTC, as the names of snapshots are.

An expression stands for a span of time, `2026-11` for a month. Read as a time it is the *last* nanosecond of that: the newest
snapshot not after it is how things were at the end of the month. Nothing here knows the clock: `now_ns` is given.
"""

import re
from datetime import UTC, datetime, timedelta

from yester.errors import UsageError

_SECOND_NS = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_HINT = "write it as 2026, 2026-11, 2026-11-22, 2026-11-22_10-30, now, today, yesterday, monday, 30m, 2h, 3d, 1w, 6mo, 1y or 1d12h"
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "mo": 30 * 86400, "y": 365 * 86400}
"""A month back is 30 days and a year 365: a duration has no calendar."""

_DURATION = re.compile(r"(?:[0-9]{1,18}(?:mo|[smhdwy]))+")
_DURATION_PART = re.compile(r"([0-9]+)(mo|[smhdwy])")
_DURATION_HINT = "write it as 90s, 30m, 2h, 3d, 1w, 6mo, 1y or 1d12h"
_DATE = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[_T ](?P<hour>\d\d)(?:[-:](?P<minute>\d\d)(?:[-:](?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?)?Z?)?)?)?",
    re.ASCII | re.IGNORECASE,
)
_YEARS_MAX = 3000
"""A duration that reaches back further is a slip of the finger."""


def snapshot_name(time_ns: int) -> str:
    """The name of a snapshot of this time: `YYYY-MM-DD_HH-MM-SS`."""
    moment = _EPOCH + timedelta(seconds=time_ns // _SECOND_NS)
    return moment.replace(tzinfo=None).isoformat(sep="_").replace(":", "-")


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `90s`, `2h` or `1d12h`.

    Raises:
        UsageError: it is none, or absurdly long.
    """
    lowered = text.strip().lower()
    if not _DURATION.fullmatch(lowered):
        message = f"{text!r} is not a duration"
        raise UsageError(message, hint=_DURATION_HINT)
    seconds = sum(int(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(lowered))
    if seconds > _YEARS_MAX * _UNIT_S["y"]:
        message = f"{text!r} is longer than {_YEARS_MAX} years"
        raise UsageError(message, hint=_DURATION_HINT)
    return seconds * _SECOND_NS


def show_duration(duration_ns: int) -> str:
    """The text of whole seconds that `parse_duration` reads as the same: `30d`, `1d12h`; `0s` for nothing. Days are the largest unit."""
    parts = []
    seconds = duration_ns // _SECOND_NS
    for unit in ("d", "h", "m", "s"):
        number, seconds = divmod(seconds, _UNIT_S[unit])
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts) or "0s"


def parse_time(expression: str, *, now_ns: int) -> int:
    """The last nanosecond since the epoch that an expression stands for.

    Raises:
        UsageError: it is no time.
    """
    return _parse_span(expression, now_ns)[1]


def parse_start(expression: str, *, now_ns: int) -> int:
    """The first nanosecond since the epoch that an expression stands for: what is *since* then.

    Raises:
        UsageError: it is no time.
    """
    return _parse_span(expression, now_ns)[0]


_Span = tuple[int, int]
"""The first and the last nanosecond."""


def _parse_span(expression: str, now_ns: int) -> _Span:
    text = expression.strip().lower()
    if text == "now":
        return now_ns, now_ns
    today = (_EPOCH + timedelta(seconds=now_ns // _SECOND_NS)).replace(hour=0, minute=0, second=0)
    if text == "today":
        return _span(today, timedelta(days=1))
    if text == "yesterday":
        return _span(today - timedelta(days=1), timedelta(days=1))
    weekdays = [day for day, name in enumerate(_WEEKDAYS) if text in (name, name[:3])]
    if weekdays:
        return _span(today - timedelta(days=(today.weekday() - weekdays[0] - 1) % 7 + 1), timedelta(days=1))
    duration = text.removesuffix(" ago")
    if _DURATION.fullmatch(duration):
        moment_ns = now_ns - parse_duration(duration)
        return moment_ns, moment_ns
    found = _DATE.fullmatch(expression.strip())
    if found is None:
        message = f"{expression!r} is not a time"
        raise UsageError(message, hint=_HINT)
    try:
        return _span_of_date(found)
    except (ValueError, OverflowError) as error:
        message = f"{expression!r} is not a time: {error}"
        raise UsageError(message, hint=_HINT) from error


def _span_of_date(found: re.Match[str]) -> _Span:
    """That of a matched date, which may stop at any part."""
    parts = {name: int(value) for name, value in found.groupdict().items() if value is not None and name != "fraction"}
    date = parts["year"], parts.get("month", 1), parts.get("day", 1)
    start = datetime(*date, parts.get("hour", 0), parts.get("minute", 0), parts.get("second", 0), tzinfo=UTC)
    if found["fraction"] is not None:
        second_ns = _to_ns(start)
        return second_ns + int(found["fraction"].ljust(9, "0")), second_ns + int(found["fraction"].ljust(9, "9"))
    if "month" not in parts:
        return _span(start, start.replace(year=start.year + 1) - start)
    if "day" not in parts:
        return _span(start, (start + timedelta(days=32)).replace(day=1) - start)
    finest = "days" if "hour" not in parts else "hours" if "minute" not in parts else "minutes" if "second" not in parts else "seconds"
    return _span(start, timedelta(**{finest: 1}))


def _span(start: datetime, length: timedelta) -> _Span:
    return _to_ns(start), _to_ns(start + length) - 1


def _to_ns(moment: datetime) -> int:
    """Exact: `timestamp()` is a float."""
    return (moment - _EPOCH) // timedelta(seconds=1) * _SECOND_NS

# SPDX-License-Identifier: MIT
"""When something is to happen again and again: `daily 03:00`, `15m`, or a calendar expression of systemd's.

Every form becomes one record, a set of minutes of the calendar. systemd can be told it (`on_calendar`), and where there is no systemd the
moments can be computed here. They are moments of local time: `zone` is given, and so is the time that it is now.

    hourly · daily [TIME] · weekly [DAY] [TIME] · monthly [DATE] [TIME] · quarterly · yearly
    15m · 6h · 1d · 1w                  minutes that divide an hour, hours that divide a day; counted from midnight, not from the last run
    [DAYS] [*-MONTHS-DATES] [HOURS:MINUTES]   of systemd.time(7): lists `1,15`, ranges `Mon..Fri`, steps `0/15`

Where the clock is set forward, a time that is skipped is made up for right after; where it is set back, a time that comes twice happens
once, unless it happens every hour. That is what cron does, too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise

from yester.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 10**9
_DAY_MINUTES = 24 * 60
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ALL_DAYS, _ALL_MONTHS, _ALL_DATES = range(7), range(1, 13), range(1, 32)
_ALL_HOURS, _ALL_MINUTES = range(24), range(60)
_FIRST_DAY = date(2024, 1, 1)
_REACH_DAYS = 41 * 366
"""A 29 February that is a certain day of the week comes after at most 40 years; what does not come in that time never does."""
_HINT = 'write it as hourly, "daily 03:00", "weekly sun 04:00", "monthly 1 04:00", 15m, 6h, or as systemd does: "Mon..Fri *-*-* 18:00"'

_NUMBER_OF = re.compile(r"([0-9]{1,4})([mhdw])")
_ITEM = re.compile(r"(?P<first>\*|[0-9]{1,4})(?:\.\.(?P<last>[0-9]{1,4}))?(?:/(?P<step>[0-9]{1,4}))?")
_TIME = re.compile(r"([^:]+):([^:]+)(?::0?0)?")
_DATE = re.compile(r"(?:\*-)?([^-]+)-([^-]+)")


@dataclass(frozen=True, slots=True)
class Recurrence:
    """All minutes whose day of the week, month, date, hour and minute are among these; each is sorted, and none is empty.

    Days of the week count from Monday, 0.
    """

    days: tuple[int, ...] = tuple(_ALL_DAYS)
    months: tuple[int, ...] = tuple(_ALL_MONTHS)
    dates: tuple[int, ...] = tuple(_ALL_DATES)
    hours: tuple[int, ...] = (0,)
    minutes: tuple[int, ...] = (0,)

    def on_calendar(self) -> str:
        """The same as systemd writes it: the value of `OnCalendar=`."""
        days = "" if self.days == tuple(_ALL_DAYS) else ",".join(_DAYS[day] for day in self.days) + " "
        months, dates = _listed(self.months, _ALL_MONTHS), _listed(self.dates, _ALL_DATES)
        return f"{days}*-{months}-{dates} {_listed(self.hours, _ALL_HOURS)}:{_listed(self.minutes, _ALL_MINUTES)}:00"

    def next_after(self, time_ns: int, zone: tzinfo) -> int:
        """The first moment that is later than `time_ns`."""
        start = _local_date(time_ns, zone) - timedelta(days=1)
        for day in self._matching_days(start):
            later = [moment_ns for moment_ns in self._moments(day, zone) if moment_ns > time_ns]
            if later:
                return min(later)
        raise AssertionError  # What never happens is refused when it is parsed.

    def longest_gap_ns(self) -> int:
        """The longest time between two moments that follow each other in the years 2024 to 2064, but for changes of the clock."""
        times = [hour * 60 + minute for hour in self.hours for minute in self.minutes]
        over_night = _DAY_MINUTES - times[-1] + times[0]
        longest = max([0, *(later - earlier for earlier, later in pairwise(times))])
        days = list(self._matching_days(_FIRST_DAY))
        between = max([1, *((later - earlier).days for earlier, later in pairwise(days))])
        return max(longest, over_night + (between - 1) * _DAY_MINUTES) * 60 * _SECOND_NS

    def _matching_days(self, start: date) -> Iterator[date]:
        """The days on which it happens, from this one on."""
        for count in range(_REACH_DAYS):
            try:
                day = start + timedelta(days=count)
            except OverflowError:
                return
            if day.month in self.months and day.day in self.dates and day.weekday() in self.days:
                yield day

    def _moments(self, day: date, zone: tzinfo) -> Iterator[int]:
        """When it happens on a day."""
        is_hourly = self.hours == tuple(_ALL_HOURS)
        for hour in self.hours:
            for minute in self.minutes:
                moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                first_ns, second_ns = _to_ns(moment), _to_ns(moment.replace(fold=1))
                yield first_ns
                if is_hourly and second_ns > first_ns:  # This time comes twice. It is earlier where it does not come at all.
                    yield second_ns


_FIXED = {
    "hourly": Recurrence(hours=tuple(_ALL_HOURS)),
    "quarterly": Recurrence(months=(1, 4, 7, 10), dates=(1,)),
    "yearly": Recurrence(months=(1,), dates=(1,)),
}


def parse_recurrence(text: str) -> Recurrence:
    """What an expression means.

    Raises:
        UsageError: it is none of those above, or never happens.
    """
    words = text.lower().split()
    try:
        found = _parse_number(words) or _parse_word(words) or _parse_calendar(words)
    except ValueError as error:
        message = f"{text!r} does not say how often: {error}"
        raise UsageError(message, hint=_HINT) from error
    if next(found._matching_days(_FIRST_DAY), None) is None:  # noqa: SLF001 (of this module)
        message = f"{text!r} is a date that never comes"
        raise UsageError(message, hint=_HINT)
    return found


def _parse_number(words: list[str]) -> Recurrence | None:
    """`15m`, `6h`, `1d`, `1w`."""
    match = _NUMBER_OF.fullmatch("".join(words))
    if match is None:
        return None
    number, unit = int(match[1]), match[2]
    if unit == "m" and number and number % 60 == 0:
        number, unit = number // 60, "h"
    if unit == "h" and number and number % 24 == 0:
        number, unit = number // 24, "d"
    if unit == "d" and number == 7:
        number, unit = 1, "w"
    if unit == "m" and number and 60 % number == 0:
        return Recurrence(hours=tuple(_ALL_HOURS), minutes=tuple(range(0, 60, number)))
    if unit == "h" and number and 24 % number == 0:
        return Recurrence(hours=tuple(range(0, 24, number)))
    if unit == "d" and number == 1:
        return Recurrence()
    if unit == "w" and number == 1:
        return Recurrence(days=(0,))
    message = "minutes must divide an hour (5m, 15m, 30m), hours a day (1h, 6h, 12h); else 1d or 1w"
    raise ValueError(message)


def _parse_word(words: list[str]) -> Recurrence | None:
    """`daily 03:00` and its like."""
    match words:
        case [("hourly" | "quarterly" | "yearly") as word]:
            return _FIXED[word]
        case ["daily", *rest]:
            return Recurrence(**_time_of_day(rest))
        case ["weekly", *rest]:
            days = _parse_days(rest.pop(0)) if rest and rest[0][0].isalpha() else (0,)
            return Recurrence(days=days, **_time_of_day(rest))
        case ["monthly", *rest]:
            dates = _parse_list(rest.pop(0), _ALL_DATES) if rest and ":" not in rest[0] else (1,)
            return Recurrence(dates=dates, **_time_of_day(rest))
    return None


def _time_of_day(words: list[str]) -> dict[str, tuple[int, ...]]:
    match words:
        case []:
            return {}
        case [word]:
            hours, minutes = _parse_time(word)
            return {"hours": hours, "minutes": minutes}
    message = f"{' '.join(words)!r} is no time of a day"
    raise ValueError(message)


def _parse_calendar(words: list[str]) -> Recurrence:
    """The part of systemd's expressions that has no years, seconds or time zones."""
    if not words:
        message = "it is empty"
        raise ValueError(message)
    fields: dict[str, tuple[int, ...]] = {}
    rest = list(words)
    if rest[0][0].isalpha():
        fields["days"] = _parse_days(rest.pop(0))
    if rest and (matched := _DATE.fullmatch(rest[0])):
        fields["months"], fields["dates"] = _parse_list(matched[1], _ALL_MONTHS), _parse_list(matched[2], _ALL_DATES)
        rest.pop(0)
    if rest:
        fields["hours"], fields["minutes"] = _parse_time(rest.pop(0))
    if rest:
        message = f"{' '.join(rest)!r} is too much"
        raise ValueError(message)
    return Recurrence(**fields)


def _parse_time(word: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    matched = _TIME.fullmatch(word)
    if matched is None:
        message = f"{word!r} is neither a date nor a time of a day, such as 03:00"
        raise ValueError(message)
    return _parse_list(matched[1], _ALL_HOURS), _parse_list(matched[2], _ALL_MINUTES)


def _parse_days(word: str) -> tuple[int, ...]:
    """Days of the week: `sun`, `mon,thu`, `mon..fri`, `fri..mon`."""
    days: set[int] = set()
    for item in word.split(","):
        first, dots, last = item.partition("..")
        start, end = _parse_day(first), _parse_day(last if dots else first)
        days.update((start + offset) % 7 for offset in range((end - start) % 7 + 1))
    return tuple(sorted(days))


def _parse_day(word: str) -> int:
    for number, (short, long) in enumerate(zip(_DAYS, _LONG_DAYS, strict=True)):
        if word in (short.lower(), long):
            return number
    message = f"{word!r} is no day of the week"
    raise ValueError(message)


def _parse_list(text: str, allowed: range) -> tuple[int, ...]:
    """Numbers of a field: `*`, `3`, `1,15`, `9..17`, `0/15`, `9..17/2`."""
    numbers: set[int] = set()
    for item in text.split(","):
        matched = _ITEM.fullmatch(item)
        if matched is None or (matched["first"] == "*" and matched["last"]):
            message = f"{item!r} is no number, range or step"
            raise ValueError(message)
        first = allowed.start if matched["first"] == "*" else int(matched["first"])
        is_single = not (matched["last"] or matched["step"] or matched["first"] == "*")
        last = int(matched["last"]) if matched["last"] else first if is_single else allowed.stop - 1
        step = int(matched["step"] or 1)
        if first not in allowed or last not in allowed or first > last or step < 1:
            message = f"{item!r} is not within {allowed.start} to {allowed.stop - 1}"
            raise ValueError(message)
        numbers.update(range(first, last + 1, step))
    return tuple(sorted(numbers))


def _listed(numbers: tuple[int, ...], allowed: range) -> str:
    return "*" if numbers == tuple(allowed) else ",".join(f"{number:02}" for number in numbers)


def _local_date(time_ns: int, zone: tzinfo) -> date:
    return (_EPOCH + timedelta(seconds=time_ns // _SECOND_NS)).astimezone(zone).date()


def _to_ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1) * _SECOND_NS

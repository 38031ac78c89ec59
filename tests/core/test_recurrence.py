# SPDX-License-Identifier: MIT
"""When backups are due: the same moments as systemd's, and every day of the year has its run."""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yester.core.recurrence import Recurrence, parse_recurrence
from yester.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")
DAY_S = 86400
SECOND_NS = 10**9


def at(text: str, zone: ZoneInfo = BERLIN, *, fold: int = 0) -> int:
    moment = datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=zone, fold=fold)
    return int(moment.timestamp()) * SECOND_NS


def local(time_ns: int, zone: ZoneInfo = BERLIN) -> str:
    return datetime.fromtimestamp(time_ns // SECOND_NS, zone).strftime("%Y-%m-%d %H:%M")


def moments(text: str, start: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    when, found, time_ns = parse_recurrence(text), [], at(start, zone)
    for _ in range(count):
        time_ns = when.next_after(time_ns, zone)
        found.append(local(time_ns, zone))
    return found


@pytest.mark.parametrize(
    ("text", "calendar"),
    [
        ("hourly", "*-*-* *:00:00"),
        ("daily", "*-*-* 00:00:00"),
        ("Daily 03:00", "*-*-* 03:00:00"),
        ("weekly", "Mon *-*-* 00:00:00"),
        ("weekly sun 04:00", "Sun *-*-* 04:00:00"),
        ("weekly sunday,wed 4:05", "Wed,Sun *-*-* 04:05:00"),
        ("monthly", "*-*-01 00:00:00"),
        ("monthly 15 04:00", "*-*-15 04:00:00"),
        ("quarterly", "*-01,04,07,10-01 00:00:00"),
        ("yearly", "*-01-01 00:00:00"),
        ("15m", "*-*-* *:00,15,30,45:00"),
        ("60m", "*-*-* *:00:00"),
        ("6h", "*-*-* 00,06,12,18:00:00"),
        ("24h", "*-*-* 00:00:00"),
        ("1 d", "*-*-* 00:00:00"),
        ("7d", "Mon *-*-* 00:00:00"),
        ("Mon..Fri 18:00", "Mon,Tue,Wed,Thu,Fri *-*-* 18:00:00"),
        ("fri..mon", "Mon,Fri,Sat,Sun *-*-* 00:00:00"),
        ("*-*-1,15 04:00", "*-*-01,15 04:00:00"),
        ("02-29", "*-02-29 00:00:00"),
        ("*:0/20", "*-*-* *:00,20,40:00"),
        ("9..17/4:30:00", "*-*-* 09,13,17:30:00"),
    ],
)
def test_an_expression_means(text: str, calendar: str) -> None:
    assert parse_recurrence(text).on_calendar() == calendar
    assert parse_recurrence(calendar) == parse_recurrence(text), "what is written can be read"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "often",
        "7m",
        "0m",
        "5h",
        "2d",
        "2w",
        "daily 25:00",
        "daily 3",
        "daily 03:00 04:00",
        "weekly 8",
        "monthly 32",
        "weekly sun,x",
        "mon 1",
        "2026-01-01 00:00",
        "*-*-* 00:00:30",
        "*-*-* 00:00 UTC",
        "*-02-30",
        "*-13-1",
        "5..3:00",
        "0/0:00",
        "*..3:00",
        "1,:00",
        "٣m",
        "hourly x",
    ],
)
def test_what_says_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recurrence(text)
    assert repr(text) in caught.value.message
    assert "daily 03:00" in caught.value.hint


def test_a_time_that_is_skipped_when_the_clock_is_set_forward_is_made_up_for() -> None:
    assert moments("daily 02:30", "2026-03-28 00:00", 3) == ["2026-03-28 02:30", "2026-03-29 03:30", "2026-03-30 02:30"]


def test_a_time_that_comes_twice_when_the_clock_is_set_back_happens_once() -> None:
    assert moments("daily 02:30", "2026-10-24 12:00", 2) == ["2026-10-25 02:30", "2026-10-26 02:30"]


@pytest.mark.parametrize("start", ["2026-03-28 20:00", "2026-10-24 20:00"])
def test_every_quarter_of_an_hour_stays_that_when_the_clock_is_set(start: str) -> None:
    when, time_ns = parse_recurrence("15m"), at(start)
    for _ in range(60):
        later_ns = when.next_after(time_ns, BERLIN)
        assert later_ns - time_ns == 15 * 60 * SECOND_NS
        time_ns = later_ns


def test_a_leap_day_on_a_monday_is_found() -> None:
    assert moments("Mon *-02-29 12:00", "2026-01-01 00:00", 2) == ["2044-02-29 12:00", "2072-02-29 12:00"]


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("15m", 0.25),
        ("hourly", 1),
        ("daily 03:00", 24),
        ("weekly", 7 * 24),
        ("monthly", 31 * 24),
        ("Mon..Fri 18:00", 72),
        ("9..17:00", 16),
        ("monthly 31", 61 * 24),
        ("yearly", 366 * 24),
        ("Mon..Fri 9..17:0/30", 48 + 15.5),
    ],
)
def test_the_longest_gap_is(text: str, hours: float) -> None:
    assert parse_recurrence(text).longest_gap_ns() == hours * 3600 * SECOND_NS


def numbers(low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
    some = st.sets(st.integers(low, high), min_size=1, max_size=5)
    return st.one_of(some, st.just(set(range(low, high + 1)))).map(lambda found: tuple(sorted(found)))


recurrences = st.builds(
    Recurrence, days=numbers(0, 6), months=numbers(1, 12), dates=numbers(1, 28), hours=numbers(0, 23), minutes=numbers(0, 59)
)
times = st.integers(0, 4 * 10**9).map(lambda seconds: seconds * SECOND_NS)
zones = st.sampled_from([ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia")])


@given(recurrences)
def test_what_is_told_to_systemd_means_the_same_here(when: Recurrence) -> None:
    assert parse_recurrence(when.on_calendar()) == when


@settings(max_examples=50)
@given(recurrences, times, zones, st.floats(0, 1, exclude_max=True))
def test_nothing_happens_between_a_time_and_the_next(when: Recurrence, time_ns: int, zone: ZoneInfo, share: float) -> None:
    following = when.next_after(time_ns, zone)
    assert following > time_ns
    assert when.next_after(following - 1, zone) == following
    assert when.next_after(time_ns + int((following - time_ns) * share) // SECOND_NS * SECOND_NS, zone) == following


@settings(max_examples=50)
@given(recurrences, st.integers(1_710_000_000, 2_500_000_000))
def test_no_gap_is_longer_than_the_longest(when: Recurrence, second: int) -> None:
    found = [second * SECOND_NS]
    for _ in range(4):
        found.append(when.next_after(found[-1], UTC))
    assert max(later - earlier for earlier, later in pairwise(found[1:])) <= when.longest_gap_ns()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@settings(max_examples=40)
@given(recurrences, st.integers(0, 3000))
def test_systemd_finds_the_same_moments(when: Recurrence, day: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    command = ["systemd-analyze", "calendar", f"--base-time={start:%Y-%m-%d %H:%M:%S}", "--iterations=10", when.on_calendar()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"})
    theirs = re.findall(r"(?:elapse|#[0-9]+): \w+ (\S+ \S+):00 UTC", done.stdout)
    time_ns, ours = int(start.timestamp()) * SECOND_NS, []
    for _ in theirs:
        time_ns = when.next_after(time_ns, UTC)
        ours.append(datetime.fromtimestamp(time_ns // SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M"))
    assert len(theirs) == 10
    assert ours == theirs

# SPDX-License-Identifier: MIT
"""Time expressions: what each form means, and that nothing but `UsageError` comes of nonsense."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yester.core.times import parse_duration, parse_start, parse_time, show_duration, snapshot_name
from yester.errors import UsageError

SECOND_NS = 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(*parts: int) -> int:
    return (datetime(*parts, tzinfo=UTC) - EPOCH) // timedelta(seconds=1) * SECOND_NS  # type: ignore[misc, arg-type]  # year, month, day, …


NOW_NS = at(2026, 11, 22, 10, 30, 15) + 123_456_789
"""A Sunday."""


@pytest.mark.parametrize(
    ("expression", "first_not_covered"),
    [
        ("2026", at(2027, 1, 1)),
        ("2026-11", at(2026, 12, 1)),
        ("2026-12", at(2027, 1, 1)),
        ("2024-02", at(2024, 3, 1)),
        ("2026-11-22", at(2026, 11, 23)),
        ("2026-12-31", at(2027, 1, 1)),
        ("2026-11-22_10", at(2026, 11, 22, 11)),
        ("2026-11-22_23", at(2026, 11, 23)),
        ("2026-11-22_10-00", at(2026, 11, 22, 10, 1)),
        ("2026-11-22_10-00-00", at(2026, 11, 22, 10, 0, 1)),
        ("2026-11-22T10:00:00Z", at(2026, 11, 22, 10, 0, 1)),
        ("2026-11-22t10:00z", at(2026, 11, 22, 10, 1)),
        ("2026-11-22 10:00", at(2026, 11, 22, 10, 1)),
        ("  2026-11-22 10  ", at(2026, 11, 22, 11)),
        ("2026-11-22_10-00-00.5", at(2026, 11, 22, 10) + 600_000_000),
        ("2026-11-22T10:00:00.000000001Z", at(2026, 11, 22, 10) + 2),
        ("1969", at(1970, 1, 1)),
        ("0999-12", at(1000, 1, 1)),
        ("today", at(2026, 11, 23)),
        ("Yesterday", at(2026, 11, 22)),
        ("sat", at(2026, 11, 22)),
        ("Saturday", at(2026, 11, 22)),
        ("mon", at(2026, 11, 17)),
        ("sunday", at(2026, 11, 16)),
    ],
)
def test_an_expression_is_the_last_nanosecond_that_it_covers(expression: str, first_not_covered: int) -> None:
    assert parse_time(expression, now_ns=NOW_NS) == first_not_covered - 1


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("now", 0),
        ("0s", 0),
        ("90s", 90),
        ("30m", 30 * 60),
        ("2h", 2 * 3600),
        ("2H ago", 2 * 3600),
        ("3d", 3 * 86400),
        ("1w", 7 * 86400),
        ("6mo", 180 * 86400),
        ("1y", 365 * 86400),
        ("1d12h", 36 * 3600),
        ("1mo1m", 30 * 86400 + 60),
    ],
)
def test_a_duration_is_that_long_before_now(expression: str, seconds: int) -> None:
    assert parse_time(expression, now_ns=NOW_NS) == NOW_NS - seconds * SECOND_NS


@pytest.mark.parametrize(
    "expression",
    [
        *("", " ", "x", "tomorrow", "mo", "ago", "2h ago ago", "-2h", "2", "2x", "1.5h", "1d-12h", "now ago"),
        *("0000", "9999999", "99999", "26-11-22", "2026-13", "2026-00", "2026-11-31", "2026-02-29", "2026-1", "2026-11-2", "2026/11/22"),
        *("2026-11-22_24", "2026-11-22_10-60", "2026-11-22_10-00-60", "2026-11-22_1", "2026-11-22_", "2026Z", "2026-11-22Z"),
        *("2026-11-22_10-00-00-2", "2026-11-22_10-00-2", "2026-11-22-2", "2026-11-22_10-00-00.", "2026-11-22_10-00-00.1234567890"),
        *("99999999d", "9999999999999999999999d", "1" * 5000 + "d", "3001y", "٣d", "٢٠٢٦", "9999", "9999-12-31"),
    ],
)
def test_what_is_no_time_is_refused_with_a_hint_that_shows_the_forms(expression: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_time(expression, now_ns=NOW_NS)
    assert expression[:50] in caught.value.message
    assert "2h" in caught.value.hint


@pytest.mark.parametrize("text", ["", "x", "2", "2 h", "-1d", "now", "2026", "2h ago", "3001y", "1" * 5000 + "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert caught.value.hint


def test_a_duration_is_in_nanoseconds() -> None:
    assert parse_duration("1h30m") == 5400 * SECOND_NS


@given(st.integers(0, 3000 * 365 * 86400))
def test_a_duration_that_is_shown_reads_as_the_same(seconds: int) -> None:
    assert parse_duration(show_duration(seconds * SECOND_NS)) == seconds * SECOND_NS


def test_a_duration_is_shown_short() -> None:
    assert [show_duration(seconds * SECOND_NS) for seconds in (0, 90, 3600, 7 * 86400, 86400 + 43200)] == [
        "0s",
        "1m30s",
        "1h",
        "7d",
        "1d12h",
    ]


def test_a_snapshot_is_named_by_its_second_in_utc() -> None:
    assert snapshot_name(NOW_NS) == "2026-11-22_10-30-15"
    assert snapshot_name(at(1, 2, 3)) == "0001-02-03_00-00-00"


@given(st.integers(at(1, 1, 1), at(9999, 1, 1)))
def test_a_snapshot_name_read_as_a_time_is_the_end_of_its_second(time_ns: int) -> None:
    assert parse_time(snapshot_name(time_ns), now_ns=NOW_NS) == time_ns // SECOND_NS * SECOND_NS + SECOND_NS - 1


@given(st.integers(at(1980, 1, 1), at(2200, 1, 1)))
def test_a_finer_expression_of_a_time_never_ends_later(time_ns: int) -> None:
    name = snapshot_name(time_ns)
    forms = [name[:end] for end in (4, 7, 10, 13, 16, 19)]
    ends = [parse_time(form, now_ns=NOW_NS) for form in forms]
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] >= time_ns


@given(st.integers(at(1980, 1, 1), at(2200, 1, 1)), st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]))
def test_a_weekday_ended_within_the_last_week(now_ns: int, name: str) -> None:
    end = parse_time(name, now_ns=now_ns)
    assert 0 < now_ns - end <= 7 * 86400 * SECOND_NS
    day = EPOCH + timedelta(seconds=end // SECOND_NS)
    assert day.strftime("%a").lower() == name


@pytest.mark.parametrize(
    ("expression", "start"),
    [
        ("2026", at(2026, 1, 1)),
        ("2026-10", at(2026, 10, 1)),
        ("2026-11-22", at(2026, 11, 22)),
        ("today", NOW_NS // (86400 * SECOND_NS) * 86400 * SECOND_NS),
        ("2h", NOW_NS - 7200 * SECOND_NS),
        ("now", NOW_NS),
    ],
)
def test_since_a_time_means_since_its_start(expression: str, start: int) -> None:
    assert parse_start(expression, now_ns=NOW_NS) == start


@given(st.integers(at(1980, 1, 1), at(2200, 1, 1)), st.sampled_from([4, 7, 10, 13, 16, 19]))
def test_a_moment_lies_between_the_start_and_the_end_of_what_it_is_in(time_ns: int, digits: int) -> None:
    name = snapshot_name(time_ns)[:digits]
    start, end = parse_start(name, now_ns=NOW_NS), parse_time(name, now_ns=NOW_NS)
    assert start <= time_ns <= end
    assert snapshot_name(start)[:digits] == snapshot_name(end)[:digits] == name
    assert snapshot_name(start - 1)[:digits] != name
    assert snapshot_name(end + 1)[:digits] != name


@given(st.text(alphabet="0123456789-_:.TZ smhdwyoagn\n\0٣é", max_size=24))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with suppress(UsageError):
        assert isinstance(parse_time(text, now_ns=NOW_NS), int)

# SPDX-License-Identifier: MIT
"""When a source is due, whatever the clock did and however the last run ended; what is known of runs is small and survives."""

import shutil
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yester.core.recurrence import parse_recurrence
from yester.engine.runs import RETRY_NS, Outcome, RunBook, RunRecord, is_due, is_too_old, newest_of, next_due_ns, unit_stem
from yester.errors import BusyError, StoreAccessError

MINUTE_NS = 60 * 10**9
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
DAILY = parse_recurrence("daily 03:00")


def at(text: str, zone: ZoneInfo | None = None) -> int:
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=zone or UTC).timestamp()) * 10**9


def ran(started: str, outcome: Outcome = Outcome.DONE) -> RunRecord:
    return RunRecord(source="D", started_ns=at(started), ended_ns=at(started) + MINUTE_NS, outcome=outcome)


@pytest.mark.parametrize(
    ("started", "now", "expected"),
    [
        ("2026-06-01 03:00", "2026-06-01 12:00", False),
        ("2026-06-01 03:00", "2026-06-02 02:59", False),
        ("2026-06-01 03:00", "2026-06-02 03:00", True),
        ("2026-06-01 02:50", "2026-06-01 03:00", True),
        ("2026-06-01 03:00", "2026-06-09 17:00", True),
        ("2026-06-01 17:00", "2026-06-02 02:00", False),
    ],
)
def test_a_source_is_due_once_its_time_came_since_the_last_run(started: str, now: str, expected: bool) -> None:
    assert is_due(DAILY, ran(started), at(now), UTC) is expected


def test_a_source_that_never_ran_is_due() -> None:
    assert is_due(DAILY, None, at("2026-06-01 12:00"), UTC)


def test_a_computer_that_slept_through_many_times_makes_up_for_them_once() -> None:
    now = at("2026-06-30 09:00")
    assert is_due(DAILY, ran("2026-06-01 03:00"), now, UTC)
    assert not is_due(DAILY, ran("2026-06-30 09:00"), now + HOUR_NS, UTC)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNFINISHED])
def test_what_failed_or_was_interrupted_is_tried_again_after_an_hour(outcome: Outcome) -> None:
    record = ran("2026-06-01 03:00", outcome)
    assert not is_due(DAILY, record, record.started_ns + RETRY_NS - 1, UTC)
    assert is_due(DAILY, record, record.started_ns + RETRY_NS, UTC)
    assert next_due_ns(DAILY, record, record.started_ns, UTC) == record.started_ns + RETRY_NS
    assert next_due_ns(DAILY, ran("2026-06-01 02:30", outcome), record.started_ns, UTC) == at("2026-06-01 03:00")


def test_a_run_while_the_clock_was_years_ahead_stops_nothing() -> None:
    assert is_due(DAILY, ran("2031-01-01 03:00"), at("2026-06-01 12:00"), UTC)


def test_a_clock_that_jumps_forward_makes_one_run() -> None:
    assert is_due(DAILY, ran("2026-06-01 03:00"), at("2031-01-01 12:00"), UTC)
    assert not is_due(DAILY, ran("2031-01-01 12:00"), at("2031-01-01 13:00"), UTC)


def test_the_night_in_which_the_clock_is_set_forward_has_its_run() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    half_past_two = parse_recurrence("daily 02:30")
    assert is_due(half_past_two, ran("2026-03-28 01:30"), at("2026-03-29 03:30", berlin), berlin)


@given(started_h=st.integers(0, 2000), steps=st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_asked_now_and_then_it_runs_at_most_once_in_a_day_and_in_every_day_in_which_it_is_asked(started_h: int, steps: list[int]) -> None:
    now, record = at("2026-01-01 00:00") + started_h * HOUR_NS, None
    days = []
    for step in steps:
        now += step * HOUR_NS
        if is_due(DAILY, record, now, UTC):
            record = RunRecord(source="D", started_ns=now, outcome=Outcome.DONE)
            days.append((now - 3 * HOUR_NS) // DAY_NS)
        assert record is not None
        assert next_due_ns(DAILY, record, now, UTC) > now
    assert len(set(days)) == len(days)


def test_the_newest_time_is_never_one_in_the_future() -> None:
    assert newest_of([0, 5 * DAY_NS, 7 * DAY_NS, 900 * DAY_NS], 8 * DAY_NS) == 7 * DAY_NS
    assert newest_of([0, 900 * DAY_NS], 8 * DAY_NS) is None
    assert newest_of([], 8 * DAY_NS) is None


def test_a_backup_is_too_old_when_it_is_older_than_it_may_be() -> None:
    assert not is_too_old(DAY_NS, DAY_NS, 2 * DAY_NS)
    assert is_too_old(DAY_NS, DAY_NS, 2 * DAY_NS + 1)
    assert is_too_old(None, DAY_NS, DAY_NS)
    assert not is_too_old(None, None, DAY_NS)


# --- names


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="systemd is not installed")
@pytest.mark.parametrize("source", ["Documents", "my mail", "a-b_c.d:e", ".hidden", "größe", "100% $HOME \\ \"'", "-x"])
def test_a_name_is_escaped_as_systemd_does(source: str) -> None:
    done = subprocess.run(["systemd-escape", "--", source], capture_output=True, text=True, check=True)
    assert unit_stem(source) == done.stdout.strip()


@given(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=85))
def test_every_name_makes_a_file_name_of_its_own(source: str) -> None:
    stem = unit_stem(source)
    assert len(f"yester-{stem}.service") < 255
    assert "/" not in stem
    assert stem != unit_stem(source + "a")


# --- the book


@pytest.fixture
def book(tmp_path: Path) -> RunBook:
    return RunBook(tmp_path / "state" / "runs")


def test_nothing_is_known_of_what_never_ran(book: RunBook) -> None:
    assert book.read("D") is None
    assert not book.is_running("D")
    assert not book.folder.exists()


def test_a_run_is_unfinished_until_it_ends(book: RunBook) -> None:
    begun = book.begin("D", 5 * DAY_NS)
    assert book.read("D") == begun
    assert begun.outcome is Outcome.UNFINISHED
    book.end(begun, Outcome.SKIPPED, 6 * DAY_NS, "2 files were skipped")
    record = book.read("D")
    assert record is not None
    assert (record.outcome, record.message, record.good_ns, record.ended_ns) == (
        Outcome.SKIPPED,
        "2 files were skipped",
        5 * DAY_NS,
        6 * DAY_NS,
    )
    assert stat.S_IMODE(book.folder.stat().st_mode) == 0o700


def test_failures_are_counted_and_the_last_good_run_is_kept(book: RunBook) -> None:
    book.end(book.begin("D", DAY_NS), Outcome.DONE, DAY_NS)
    for day in (2, 3):
        record = book.end(book.begin("D", day * DAY_NS), Outcome.FAILED, day * DAY_NS, "the disk is full")
    assert (record.failures, record.good_ns) == (2, DAY_NS)
    record = book.end(book.begin("D", 4 * DAY_NS), Outcome.DONE, 4 * DAY_NS)
    assert (record.failures, record.good_ns, record.message) == (0, 4 * DAY_NS, "")


@pytest.mark.expect_log("cannot be read")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"source": "D"}', b'{"source": "D", "started_ns": "x"}', b"\xff"])
def test_a_damaged_record_is_as_none(book: RunBook, content: bytes) -> None:
    book.begin("D", DAY_NS)
    (book.folder / "D.json").write_bytes(content)
    assert book.read("D") is None
    book.begin("D", DAY_NS)


def test_one_run_of_a_source_at_a_time(book: RunBook) -> None:
    with book.holding("D"):
        assert book.is_running("D")
        with pytest.raises(BusyError, match=r"under way already, in process [0-9]+; this one did nothing"), book.holding("D"):
            pass
        with book.holding("E"):
            pass
    assert not book.is_running("D")
    with book.holding("D"):
        pass


def test_what_is_forgotten_has_no_old_log_either(book: RunBook) -> None:
    for _ in range(30):
        book.append_log("D", "x" * 20_000)
    assert len(list(book.folder.iterdir())) == 2
    book.forget("D")
    assert list(book.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = RunBook(tmp_path / "file" / "runs")
    with pytest.raises(StoreAccessError, match="Not a directory"):
        book.begin("D", DAY_NS)
    assert book.read("D") is None


def test_what_is_forgotten_is_gone(book: RunBook) -> None:
    book.begin("D", DAY_NS)
    book.append_log("D", "x\n")
    book.forget("D")
    book.forget("D")
    assert book.read("D") is None
    assert not book.log_path("D").exists()


def test_asking_whether_a_source_is_running_makes_nothing(tmp_path: Path) -> None:
    book = RunBook(tmp_path / "runs")
    assert not book.is_running("D")
    assert list(tmp_path.iterdir()) == []
    with book.holding("D"):
        assert book.is_running("D")
    assert not book.is_running("D")

# SPDX-License-Identifier: MIT
"""What is told of a source follows from its snapshots, its runs and what is wanted of it."""

import socket
from datetime import UTC
from pathlib import Path

import pytest

from yester.core.recurrence import parse_recurrence
from yester.engine.backup import BackupOptions
from yester.engine.hooks import Hooks
from yester.engine.runs import Outcome, RunBook
from yester.engine.source_plan import Source
from yester.engine.source_states import SourceState, find_state, find_states

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
NOW_NS = 1000 * DAY_NS
HOST = socket.gethostname()
DAILY = Source(
    name="D",
    options=BackupOptions(source="D"),
    hooks=Hooks(),
    paths=(Path("/a"),),
    every="daily",
    recurrence=parse_recurrence("daily"),
    max_age_ns=2 * DAY_NS,
)


@pytest.fixture
def book(tmp_path: Path) -> RunBook:
    return RunBook(tmp_path / "runs")


def look(book: RunBook, *days_ago: float, source: Source | None = DAILY, host: str = HOST) -> SourceState:
    """The state of a source of which this computer, or another, made snapshots so long ago."""
    times = {host: [NOW_NS - int(days * DAY_NS) for days in days_ago]}
    return find_state("D", source, times, book, now_ns=NOW_NS, zone=UTC)


def end_run(book: RunBook, days_ago: float, outcome: Outcome) -> None:
    began_ns = NOW_NS - int(days_ago * DAY_NS)
    book.end(book.begin("D", began_ns), outcome, began_ns + HOUR_NS, "why")


@pytest.mark.parametrize(
    ("days_ago", "expected"), [((), True), ((3, 2.1), True), ((2,), False), ((0,), False), ((-1,), True)], ids=["never", *"abcd"]
)
def test_a_source_is_too_old_when_its_newest_snapshot_of_the_past_is(book: RunBook, days_ago: tuple[float, ...], expected: bool) -> None:
    assert look(book, *days_ago).is_too_old is expected


def test_a_snapshot_of_another_computer_is_none_of_a_source_of_this(book: RunBook) -> None:
    state = look(book, 0.1, host="other")
    assert (state.good_ns, state.other_host, state.is_too_old) == (None, "other", True)


def test_a_source_that_nobody_wants_here_is_as_old_as_any_of_its_snapshots_and_never_too_old(book: RunBook) -> None:
    state = look(book, 30, source=None, host="other")
    assert (state.good_ns, state.next_ns, state.is_too_old) == (NOW_NS - 30 * DAY_NS, None, False)


def test_what_went_wrong_last_is_a_problem_until_a_backup_by_hand_is_good(book: RunBook) -> None:
    end_run(book, 2, Outcome.DONE)
    assert look(book, 2).problem() == ""
    end_run(book, 1, Outcome.FAILED)
    assert look(book, 2).problem() == "why"
    assert look(book, 2, 0.1).problem() == ""


def test_a_run_that_did_not_end_was_interrupted_unless_it_is_under_way(book: RunBook) -> None:
    book.begin("D", NOW_NS - HOUR_NS)
    assert look(book).problem() == "it was interrupted"
    with book.holding("D"):
        state = look(book)
    assert (state.is_running, state.problem()) == (True, "")


def test_a_good_run_counts_although_the_store_is_away(book: RunBook) -> None:
    end_run(book, 1, Outcome.SKIPPED)
    assert (look(book).good_ns, look(book).is_too_old) == (NOW_NS - DAY_NS, False)


def test_all_that_are_wanted_or_have_snapshots_are_looked_at_by_name(book: RunBook) -> None:
    only_policy = Source(name="P", options=BackupOptions(source="P"), hooks=Hooks())
    states = find_states({"D": DAILY, "P": only_policy}, {"A": {HOST: [NOW_NS]}}, book, now_ns=NOW_NS, zone=UTC)
    assert [(state.name, state.source) for state in states] == [("A", None), ("D", DAILY)]

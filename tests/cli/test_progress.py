# SPDX-License-Identifier: MIT
"""The progress line, given counters and times; and that nothing is drawn off a terminal."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from yester.cli.progress import FileProgress, show_progress, show_steps
from yester.engine.steps import StepProgress
from yester.errors import CorruptionError


@dataclass
class Counted:
    files: int = 0
    size_bytes: int = 0

    def __call__(self) -> tuple[int, int]:
        return self.files, self.size_bytes


def test_without_a_total_there_is_no_time_left() -> None:
    """And whoever stops waiting for it waits for one step of the counting at most."""
    counting = threading.Event()

    def count_for_ever() -> Iterator[tuple[int, int]]:
        while True:
            counting.set()
            yield 1, 1

    with FileProgress(counted := Counted(), count_for_ever) as line:
        counted.files, counted.size_bytes = 3, 2048
        assert line(1.0) == "0:01  3 files  2 KiB  2 KiB/s"
        assert counting.wait(60)
        assert line(2.0) == "0:02  3 files  2 KiB  1 KiB/s"
    assert line._counting is not None
    assert not line._counting.is_alive()


def test_counting_that_meets_damage_is_given_up() -> None:
    def count() -> Iterator[tuple[int, int]]:
        yield 1, 1
        message = "damaged"
        raise CorruptionError(message)

    with FileProgress(Counted(), count) as line:
        line(1.0)
    assert "left" not in line(2.0)


def test_with_a_total_the_rate_gives_the_time_left() -> None:
    line = FileProgress(counted := Counted(), lambda: iter([(1, 1), (100, 100 * 1024)]))
    line(0.5)
    assert line._counting is not None
    line._counting.join(60)
    counted.files, counted.size_bytes = 10, 10 * 1024
    assert line(2.0) == "0:02  10/100 files  10 KiB of 100 KiB  5 KiB/s  0:18 left"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    with FileProgress(counted := Counted(), lambda: iter([])) as line:
        counted.size_bytes = 1024 * 1024
        line(1.0)
        for second in range(2, 40):
            last = line(float(second))
        assert " 0 B/s" in last


def test_off_a_terminal_nothing_is_asked_or_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def line(_elapsed_s: float) -> str:
        raise AssertionError

    with show_progress(line):
        pass
    assert capfd.readouterr() == ("", "")


def test_steps_tell_how_much_of_each_is_done_and_of_how_much_if_that_is_known() -> None:
    progress = StepProgress()
    progress.begin("folders")
    progress.done = 3
    assert show_steps(progress) == "folders: 3"
    progress.begin("segments", 20)
    assert show_steps(progress) == "segments: 0 of 20"

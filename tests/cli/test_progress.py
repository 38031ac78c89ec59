# SPDX-License-Identifier: MIT
"""The progress line, given counters and times; and that nothing is drawn off a terminal."""

import threading
from dataclasses import dataclass

import pytest

from yester.cli.progress import FileProgress, show_progress


@dataclass
class Counted:
    files: int = 0
    size_bytes: int = 0

    def __call__(self) -> tuple[int, int]:
        return self.files, self.size_bytes


def test_without_a_total_there_is_no_time_left() -> None:
    never = threading.Event()
    line = FileProgress(counted := Counted(), lambda: (never.wait(60), (0, 0))[1])
    counted.files, counted.size_bytes = 3, 2048
    assert line(1.0) == "0:01  3 files  2 KiB  2 KiB/s"
    never.set()


def test_with_a_total_the_rate_gives_the_time_left() -> None:
    known = threading.Event()

    def count() -> tuple[int, int]:
        known.set()
        return 100, 100 * 1024

    line = FileProgress(counted := Counted(), count)
    line(0.5)
    known.wait(60)
    while line._counting is not None and line._counting.is_alive():
        line._counting.join()
    counted.files, counted.size_bytes = 10, 10 * 1024
    assert line(2.0) == "0:02  10/100 files  10 KiB of 100 KiB  5 KiB/s  0:18 left"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    line = FileProgress(counted := Counted(), lambda: (0, 0))
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

# SPDX-License-Identifier: MIT
"""Progress on a terminal: files, bytes, rate, time left. Nothing at all where stderr is not a terminal.

The engine keeps counters; a thread here reads them a few times a second.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from yester.cli.output import show_size
from yester.engine.steps import StepProgress
from yester.errors import YesterError

_REFRESH_S = 0.2
_RATE_WINDOW_S = 10.0


FilesAndBytes = tuple[int, int]


@contextmanager
def show_progress(line: Callable[[float], str]) -> Iterator[None]:
    """Show what `line` returns, again and again, while the body runs. It is given the seconds since the start."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    drawing = threading.Thread(target=_draw, args=(line, done), name="progress", daemon=True)
    drawing.start()
    try:
        yield
    finally:
        done.set()
        drawing.join()


def _draw(line: Callable[[float], str], done: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    start = time.monotonic()
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while not done.wait(_REFRESH_S):
            live.update(Text(line(time.monotonic() - start), no_wrap=True, overflow="ellipsis"), refresh=True)


def show_steps(progress: StepProgress) -> str:
    """The line of what is done in steps."""
    done = f"{progress.done} of {progress.total}" if progress.total else f"{progress.done}"
    return f"{progress.step}: {done}"


class FileProgress:
    """The line of an operation on files: `elapsed  files  bytes  rate  left`. A context manager, for the thread that counts.

    `count_done` returns how many files and bytes are done, and must be quick. `count_total` counts how many there are in all,
    giving the sums so far again and again; it runs on a thread from when the first line is asked for, so never where nothing is
    shown, until this is left. Before it ends no time left is shown; nor if it fails with one of our errors.
    """

    def __init__(self, count_done: Callable[[], FilesAndBytes], count_total: Callable[[], Iterator[FilesAndBytes]]) -> None:
        self._count_done = count_done
        self._count_total = count_total
        self._counting: threading.Thread | None = None
        self._total: FilesAndBytes | None = None
        self._is_over = False
        self._history: deque[tuple[float, int]] = deque([(0.0, 0)])
        """Moments and the bytes done by then, oldest first, over the last seconds: what the rate is taken from."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        if self._counting is not None:
            self._counting.join()

    def __call__(self, elapsed_s: float) -> str:
        """The line, `elapsed_s` after the start."""
        if self._counting is None:
            self._counting = threading.Thread(target=self._count, name="count", daemon=True)
            self._counting.start()
        files, size_bytes = self._count_done()
        self._history.append((elapsed_s, size_bytes))
        while len(self._history) > 2 and self._history[0][0] < elapsed_s - _RATE_WINDOW_S:
            self._history.popleft()
        first_s, first_bytes = self._history[0]
        rate = (size_bytes - first_bytes) / (elapsed_s - first_s) if elapsed_s > first_s else 0.0
        if self._total is None:
            return f"{_show_span(elapsed_s)}  {files} files  {show_size(size_bytes)}  {show_size(rate)}/s"
        total_files, total_bytes = self._total
        left = f"  {_show_span(max(0, total_bytes - size_bytes) / rate)} left" if rate > 0 else ""
        amount = f"{files}/{total_files} files  {show_size(size_bytes)} of {show_size(total_bytes)}"
        return f"{_show_span(elapsed_s)}  {amount}  {show_size(rate)}/s{left}"

    def _count(self) -> None:
        total = 0, 0
        with suppress(YesterError):
            for counted in self._count_total():
                total = counted
                if self._is_over:
                    return
            self._total = total


def _show_span(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"

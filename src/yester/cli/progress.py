# SPDX-License-Identifier: MIT
"""Progress on a terminal: files, bytes, rate, time left. Nothing at all where stderr is not a terminal.

The engine keeps counters; a thread here reads them a few times a second.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from yester.cli.output import show_size

_REFRESH_S = 0.2
_RATE_WINDOW_S = 10.0


class Counters(Protocol):
    """What a running operation counts."""

    files: int
    size_bytes: int


@contextmanager
def show_progress(counters: Counters, count_total: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """Show `counters` while the body runs.

    `count_total` returns how many files and bytes there are in all; it runs on a thread meanwhile, and until it returns
    no time left is shown. It is not called where nothing is shown.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    total: list[tuple[int, int]] = []
    threading.Thread(target=lambda: total.append(count_total()), name="count", daemon=True).start()
    line = threading.Thread(target=_draw, args=(counters, total, done), name="progress", daemon=True)
    line.start()
    try:
        yield
    finally:
        done.set()
        line.join()


def _draw(counters: Counters, total: list[tuple[int, int]], done: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    start = time.monotonic()
    history = [(start, 0)]
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while not done.wait(_REFRESH_S):
            now = time.monotonic()
            history.append((now, counters.size_bytes))
            while len(history) > 2 and history[0][0] < now - _RATE_WINDOW_S:
                history.pop(0)
            live.update(Text(progress_text(counters, total[0] if total else None, history, now - start)), refresh=True)


def progress_text(counters: Counters, total: tuple[int, int] | None, history: list[tuple[float, int]], elapsed_s: float) -> str:
    """One line: `files, bytes, rate, time left`. `history` holds moments and the bytes done by then, oldest first."""
    (first_s, first_bytes), (last_s, last_bytes) = history[0], history[-1]
    rate = (last_bytes - first_bytes) / (last_s - first_s) if last_s > first_s else 0.0
    parts = [f"{int(elapsed_s) // 60}:{int(elapsed_s) % 60:02}"]
    if total is None:
        parts += [f"{counters.files} files", show_size(counters.size_bytes)]
    else:
        files, size_bytes = total
        parts += [f"{counters.files}/{files} files", f"{show_size(counters.size_bytes)} of {show_size(size_bytes)}"]
    parts.append(f"{show_size(rate)}/s")
    if total is not None and rate > 0:
        left_s = max(0, total[1] - counters.size_bytes) / rate
        parts.append(f"{int(left_s) // 60}:{int(left_s) % 60:02} left")
    return "  ".join(parts)

# SPDX-License-Identifier: MIT
"""`yester backup --watch`: what is printed of a continuous backup, and how it is told to end.

It stays in the foreground, for systemd or a terminal: a line for each snapshot to stdout, all else to stderr, each at once. Ctrl-C, SIGTERM
and SIGHUP end it after what changed last is backed up; a second one ends it at once.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Self

from yester.cli.output import print_error, show_name, show_size, show_text
from yester.engine.backup import BackupResult
from yester.engine.continuous import ContinuousBackup, Pace
from yester.engine.folder_watch import FolderWatch
from yester.errors import YesterError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Set by the first signal to end; the second one raises KeyboardInterrupt wherever the process is. A context manager.

    A signal that is ignored, as under `nohup`, stays ignored.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self._is_set = False
        self.is_busy = False
        """Whether something is being done that is finished before it ends."""
        self.is_waiting_for_others = False
        """Whether nothing is done that is worth finishing, so that the first signal ends it at once."""

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _ENDING}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read_end)
        os.close(self._write_end)

    def is_set(self) -> bool:
        """Whether a signal came."""
        return self._is_set

    def fileno(self) -> int:
        """Readable once a signal came."""
        return self._read_end

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_set or self.is_waiting_for_others:
            raise KeyboardInterrupt
        self._is_set = True
        os.write(self._write_end, b"\0")
        if self.is_busy:
            with suppress(OSError):  # Not print(): a signal may come in the middle of one.
                os.write(2, b"note: it ends when this backup is done; a second signal ends it at once\n")


class WatchOutput:
    """Prints what a continuous backup does. A problem of the same file is named once, until it is another or gone."""

    def __init__(self, print_result: Callable[[BackupResult], None]) -> None:
        self._print_result = print_result
        self._told_problems: frozenset[tuple[bytes, str]] = frozenset()

    def backed_up(self, result: BackupResult) -> None:
        """As `Observer.backed_up`."""
        problems = frozenset((problem.path, problem.reason) for problem in result.problems)
        for path, reason in sorted(problems - self._told_problems):
            print(f"problem: {show_name(path)}: {reason}", file=sys.stderr, flush=True)
        self._told_problems = problems
        if not result.is_unchanged:
            self._print_result(result)
            sys.stdout.flush()

    def failed(self, error: YesterError, retry_s: float) -> None:
        """As `Observer.failed`."""
        print_error(error, as_json=False)
        print(f"note: it is tried again in {retry_s:g} s, and later", file=sys.stderr, flush=True)

    def noticed(self, message: str, hint: str) -> None:
        """As `Observer.noticed`."""
        print(f"note: {message}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
        sys.stderr.flush()


def print_line(result: BackupResult) -> None:
    """A line about a snapshot."""
    snapshot, added = result.snapshot, result.snapshot.added
    news = f"{added.new_files} new, {added.changed_files} changed, {show_size(added.stored_bytes)} stored"
    skipped = f"; {len(result.problems)} skipped" if result.problems else ""
    assert result.stored is not None, "a dry run cannot be continuous"
    print(f"snapshot {result.stored.id.hex()[:12]} {show_text(snapshot.source)}@{snapshot.name}: {news}{skipped}")


def watch_and_back_up(
    folders: Sequence[Path],
    pace: Pace,
    back_up: Callable[[FolderWatch, StopSignals], BackupResult],
    print_result: Callable[[BackupResult], None],
    *,
    is_deaf_after_scan: bool,
) -> None:
    """Back up until a signal says to end.

    Raises:
        YesterError: the first backup failed, or the last one.
    """
    with StopSignals() as stop, FolderWatch() as watch:
        output = WatchOutput(print_result)

        def back_up_busily() -> BackupResult:
            stop.is_busy = True
            try:
                return back_up(watch, stop)
            finally:
                stop.is_busy = False

        ContinuousBackup(folders, pace, watch, back_up_busily, output, is_deaf_after_scan=is_deaf_after_scan).run(stop)

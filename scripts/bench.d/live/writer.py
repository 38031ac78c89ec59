# SPDX-License-Identifier: MIT
"""A process that writes while something else is measured, and how long it had to wait."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from measure import StepError, describe_failure, kill, start

_SCRIPT = Path(__file__).with_name("append_and_sync.py")
_START_S = 30.0
_POLL_S = 0.005


@dataclass(slots=True)
class Laps:
    """When a writer began each of its writes, and how many seconds each took; filled when it has ended."""

    begins_seconds: list[tuple[float, float]] = field(default_factory=list)

    def longest(self, begin: float, end: float) -> float:
        """The longest of the writes that were on their way between two times, in seconds.

        Raises:
            StepError: there was none, so that nothing can be said.
        """
        among = [seconds for lap_begin, seconds in self.begins_seconds if lap_begin < end and lap_begin + seconds > begin]
        if not among:
            message = "the writer wrote nothing"
            raise StepError(message)
        return max(among)


@contextlib.contextmanager
def writing(path: Path, laps_path: Path, environment: Mapping[str, str]) -> Iterator[Laps]:
    """Have a process append to a file and fsync it, all the time that this is entered.

    Raises:
        StepError: it could not write.
    """
    laps = Laps()
    words: list[str | Path] = [sys.executable, _SCRIPT, path, laps_path]
    with tempfile.TemporaryFile() as errors:
        process = start(words, environment, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            _wait_begun(process, path)
            yield laps
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_START_S)
            if process.returncode != 0:
                raise StepError(describe_failure(words, -1 if process.returncode is None else process.returncode, errors))
        finally:
            kill(process)
    laps.begins_seconds += [(float(begin), float(seconds)) for begin, seconds in map(str.split, laps_path.read_text().splitlines())]


def _wait_begun(process: subprocess.Popen[bytes], path: Path) -> None:
    """Wait until it has written something."""
    deadline = time.monotonic() + _START_S
    while not (path.exists() and path.stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            message = "the writer does not get to write"
            raise StepError(message)
        time.sleep(_POLL_S)

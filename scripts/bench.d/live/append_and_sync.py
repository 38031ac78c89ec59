# SPDX-License-Identifier: MIT
"""A writer that appends a line and fsyncs, again and again until SIGTERM: `append_and_sync.py FILE LAPS`.

Then it writes to LAPS, a line for each time, when that began and how many seconds it took, by the clock of time.monotonic, which
all processes share.
"""

import os
import signal
import sys
import time
from pathlib import Path


def main(path: str, laps_path: str) -> None:
    """Write until told to stop."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    laps = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while not told:
        begin = time.monotonic()
        os.write(descriptor, b"%20.9f a line of a log\n" % begin)
        os.fsync(descriptor)
        laps.append((begin, time.monotonic() - begin))
    os.close(descriptor)
    Path(laps_path).write_text("".join(f"{begin} {seconds}\n" for begin, seconds in laps))


main(*sys.argv[1:])

# SPDX-License-Identifier: MIT
"""Count what a mount is asked for by reading files that were read before in another snapshot.

`count_requests.py PID FIRST SECOND LIST`: PID serves the mount, FIRST and SECOND are snapshots in it, LIST is a file with names
that both have, each ended by a zero byte. Prints the number of requests and the seconds that reading in SECOND took.

What is counted is the answers: the kernel takes each with one write call to /dev/fuse, and /proc/PID/io counts a process's write
calls. Read calls would not do, since a tool that reads its store with them makes more of them than it gets requests.

It goes in batches. The files of one are opened in both snapshots, then read in the first, then, counting, in the second, then
closed. So the count has neither the requests for opening (they come before) nor those for closing (the kernel sends them later,
but they are long answered when the next batch is open), and the time in which the kernel could forget what it read is short.
"""

import itertools
import os
import sys
import time
from pathlib import Path

_BATCH = 200
"""Two descriptors a file, of the 1,024 that a process usually has."""


def main(pid: int, first: str, second: str, listed: str) -> None:
    """Print the number of requests and the seconds."""
    names = iter(Path(listed).read_bytes().split(b"\0")[:-1])
    # No path leads through the folders above, which a mount may be asked for again and again.
    folders = [os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in (first, second)]
    requests, seconds = 0, 0.0
    while batch := list(itertools.islice(names, _BATCH)):
        in_first, in_second = ([os.open(name, os.O_RDONLY, dir_fd=folder) for name in batch] for folder in folders)
        _read_all(in_first)
        answers, begin = _count_answers(pid), time.perf_counter()
        _read_all(in_second)
        seconds += time.perf_counter() - begin
        requests += _count_answers(pid) - answers
        for descriptor in in_first + in_second:
            os.close(descriptor)
    print(requests, seconds)


def _read_all(descriptors: list[int]) -> None:
    buffer = bytearray(1 << 20)
    for descriptor in descriptors:
        while os.readv(descriptor, [buffer]):
            pass


def _count_answers(pid: int) -> int:
    """How many write calls a process has made."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("syscw:"))


main(int(sys.argv[1]), *sys.argv[2:])

# SPDX-License-Identifier: MIT
"""Running a command and finding out how long it took, how much it printed, and how much memory it had."""

import contextlib
import fcntl
import os
import resource
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

TIMEOUT_S = 300.0
_READ_BYTES = 1 << 20
_SAMPLE_S = 0.05
"""How often memory is looked at. Twenty looks a second cost 0.1 % of a core."""


class StepError(Exception):
    """A step could not be done or did not do what it says. The message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command.

    `peak_bytes` is the resident memory of its largest process, mapped files included. `peak_anonymous_bytes` is without them, all
    its processes together, as sampled. `cpu_seconds` is the processor time of it and of its children, in user and system.
    """

    seconds: float
    peak_bytes: int
    peak_anonymous_bytes: int
    cpu_seconds: float
    stdout_bytes: int
    stdout_lines: int


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    folder: Path | None = None,
    count_lines: bool = False,
) -> Ran:
    """Run a command to its end, in `folder`, reading away what it prints.

    Its output goes through a pipe, not to /dev/null: GNU tar sees that and reads no file. Before it the
    disk gets time to finish what earlier steps wrote.

    Raises:
        StepError: it failed, or took more than `TIMEOUT_S`.
    """
    os.sync()
    deadline = time.monotonic() + TIMEOUT_S
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = start(command, environment, folder=folder, stdout=subprocess.PIPE, stderr=errors)
        try:
            with MemoryWatch(process.pid) as memory:
                size_bytes, lines = _drain(process, deadline, count_lines=count_lines)
                usage = _wait(process, deadline)
                seconds = time.perf_counter() - begin
        except BaseException:
            kill(process)
            raise
        if process.returncode != 0:
            raise StepError(describe_failure(command, process.returncode, errors))
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Ran(seconds, usage.ru_maxrss * 1024, memory.peak_anonymous_bytes, cpu_seconds, size_bytes, lines)


def read_output(command: Sequence[str | Path], environment: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> str:
    """What a command prints; not measured.

    Raises:
        StepError: it failed or took too long.
    """
    with tempfile.TemporaryFile() as errors:
        process = start(command, environment, stdout=subprocess.PIPE, stderr=errors)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            message = f"{show_command(command)}: stopped after {timeout_s:.0f} s"
            raise StepError(message) from error
        finally:
            kill(process)
        if process.returncode != 0:
            raise StepError(describe_failure(command, process.returncode, errors))
    return output.decode(errors="surrogateescape")


def start(
    command: Sequence[str | Path], environment: Mapping[str, str], *, folder: Path | None = None, stdout: int, stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a session of its own, so that `kill` gets all of it."""
    try:
        return subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
    except OSError as error:
        message = f"{show_command(command)}: {error.strerror}"
        raise StepError(message) from error


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a command that `start` started, and its children. One that the kernel does not let go is left behind."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    if process.stdout is not None:
        process.stdout.close()


def describe_failure(command: Sequence[str | Path], status: int, errors: IO[bytes]) -> str:
    """One line about a command that failed: the last two it said itself, else its exit status."""
    errors.seek(0)
    said = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    return f"{show_command(command)}: exit status {status}" + "".join(f"; {line}" for line in said[-2:])


def show_command(command: Sequence[str | Path]) -> str:
    """The first words of a command: enough to know which it was."""
    words = [Path(command[0]).name, *map(str, command[1:])]
    return " ".join(words[:4] if words[1:2] == ["-m"] else words[:2])


def _drain(process: subprocess.Popen[bytes], deadline: float, *, count_lines: bool) -> tuple[int, int]:
    """Read a command's output to its end; how many bytes and lines it was."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _READ_BYTES)
    buffer = bytearray(_READ_BYTES)
    size_bytes = lines = 0
    while True:
        _wait_readable(descriptor, deadline)
        count = os.readv(descriptor, [buffer])
        if count == 0:
            process.stdout.close()
            return size_bytes, lines
        size_bytes += count
        if count_lines:
            lines += buffer.count(b"\n", 0, count)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> resource.struct_rusage:
    """Wait for the end of a command; what it used, the most memory of its children included."""
    descriptor = os.pidfd_open(process.pid)
    try:
        _wait_readable(descriptor, deadline)
    finally:
        os.close(descriptor)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _wait_readable(descriptor: int, deadline: float) -> None:
    if not select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
        message = f"stopped after {TIMEOUT_S:.0f} s"
        raise StepError(message)


class MemoryWatch:
    """Looks, while it is entered, again and again at the anonymous memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak_anonymous_bytes = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            now = sum(status_bytes(pid, "RssAnon") for pid in _family(self._pid))
            self.peak_anonymous_bytes = max(self.peak_anonymous_bytes, now)


def _family(pid: int) -> list[int]:
    """A process and its descendants; without those that end meanwhile."""
    family = [pid]
    for parent in family:  # grows as it goes
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                family += map(int, path.read_text().split())
    return family


def status_bytes(pid: int, key: str) -> int:
    """A line of /proc/PID/status that is in kB; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def disk_bytes(folder: Path) -> int:
    """What a folder takes on the disk, in blocks, as du counts; without what disappears meanwhile."""
    size_bytes = 0
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):
            size_bytes += path.lstat().st_blocks * 512
    return size_bytes


def check_equal(what: str, found: int, expected: int) -> None:
    """Compare what came out with what should.

    Raises:
        StepError: they differ.
    """
    if found != expected:
        message = f"{what}: {found:,} instead of {expected:,}"
        raise StepError(message)

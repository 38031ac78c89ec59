# SPDX-License-Identifier: MIT
"""Mounting a tool's store, and making sure that no mount and no process stays behind."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from measure import TIMEOUT_S, StepError, describe_failure, kill, read_output, start
from tools import Command, Tool

_POLL_S = 0.005
_END_S = 15.0


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount that answers. `seconds` is how long that took from the start of the command; `pid` serves it."""

    path: Path
    seconds: float
    pid: int


@contextmanager
def mounted(tool: Tool, mount_point: Path) -> Iterator[Mount]:
    """Mount a tool's store, and unmount it in the end.

    Raises:
        StepError: it does not get ready.
    """
    mount_point.mkdir(parents=True, exist_ok=True)
    command = tool.mount(mount_point)
    os.sync()
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = start(command.words, tool.environment, folder=command.folder, stdout=subprocess.DEVNULL, stderr=errors)
        pid = None
        try:
            _wait_ready(process, tool, mount_point, command, errors)
            seconds = time.perf_counter() - begin
            pid = next(iter(find_servers(mount_point)), None)
            if pid is None:
                message = "mounted, but no process serves it"
                raise StepError(message)
            yield Mount(mount_point, seconds, pid)
        finally:
            _unmount(tool, mount_point)
            wait_end(pid if pid is not None else process.pid)
            kill(process)


def _wait_ready(process: subprocess.Popen[bytes], tool: Tool, mount_point: Path, command: Command, errors: IO[bytes]) -> None:
    """Wait until the mount point lists something. yester and borg go on in the background: their command must have ended, too."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        status = process.poll()
        if status:
            raise StepError(describe_failure(command.words, status, errors))
        is_done = status == 0 or tool.name == "restic"
        if is_done and is_mounted(mount_point) and read_output(["ls", mount_point], tool.environment):
            return
        time.sleep(_POLL_S)
    message = f"not mounted after {TIMEOUT_S:.0f} s"
    raise StepError(message)


def _unmount(tool: Tool, mount_point: Path) -> None:
    if is_mounted(mount_point):
        with contextlib.suppress(StepError):
            read_output(tool.unmount(mount_point).words, tool.environment, timeout_s=30)
    unmount_below(mount_point)


def unmount_below(folder: Path) -> None:
    """Take away every mount at or below a folder: of a step that failed, or of a run that was killed."""
    for path in reversed(_mount_points()):
        if path == folder or folder in path.parents:
            subprocess.run(["fusermount3", "-u", "-z", path], capture_output=True, timeout=30, check=False)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly there; asks only the mount table, never the mount."""
    return path in _mount_points()


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), line.split()[4])) for line in lines]


def find_servers(mount_point: Path) -> list[int]:
    """The processes that were told of this mount point and hold a connection to FUSE."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _is_server(folder, mount_point)]


def _is_server(process: Path, mount_point: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
        links = list((process / "fd").iterdir()) if _names(command, os.fsencode(mount_point)) else []
    except OSError:  # it has ended
        return False
    for link in links:
        with contextlib.suppress(OSError):  # it was closed meanwhile
            if os.readlink(link) == "/dev/fuse":
                return True
    return False


def _names(command: bytes, word: bytes) -> bool:
    """Whether a command line has this word. JuiceFS writes its anew, with spaces between words."""
    return word in command.split(b"\0") or word in command.rstrip(b"\0 ").split(b" ")


def wait_end(pid: int, timeout_s: float = _END_S) -> None:
    """Wait for a process that was unmounted to end, and end it if it does not."""
    deadline = time.monotonic() + timeout_s
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    if _is_running(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"

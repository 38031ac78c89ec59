# SPDX-License-Identifier: MIT
"""On what and how the comparison is run, and the folder that it has to itself."""

import contextlib
import datetime as dt
import fcntl
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mounting import unmount_below
from tools import ROOT


@dataclass(frozen=True, slots=True)
class Setting:
    """On what and how it was run, as lines of text; `private` are folders of this machine that are not to be named."""

    lines: tuple[str, ...]
    file_system: str
    private: dict[str, str]


def describe(work: Path, tools: str, data: str, arguments: list[str], rounds: str) -> Setting:
    """The setting of a run in `work` with these tools, this data and these command-line arguments."""
    cores = len(os.sched_getaffinity(0))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    file_system = _file_system(work)
    command = shlex.join(["scripts/bench", *_without_private(arguments)])
    lines = (
        f"Machine: {cores} cores ({_processor()}), {memory_gb:.0f} GB of memory, {file_system}",
        f"System: Linux {platform.release()}, Python {platform.python_version()}",
        f"Tools: {tools}",
        data,
        f"Run: `{command}` on {dt.datetime.now(dt.UTC):%Y-%m-%d}, {rounds}",
    )
    return Setting(lines, file_system, {str(work): "WORK", str(ROOT): "."})


def count_rounds(count: int) -> str:
    """A number of rounds, as text."""
    return "1 round" if count == 1 else f"{count} rounds"


def default_work() -> Path:
    """Where everything is unless the user says otherwise."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp", "yester-bench")  # noqa: S108 # claimed() checks whose it is


@contextlib.contextmanager
def claimed(work: Path) -> Iterator[None]:
    """Have the work folder to oneself, or end the program. Takes away mounts of a run that was killed."""
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    if work.stat().st_uid != os.geteuid():
        sys.exit(f"bench: {work} is somebody else's: name another folder with --work")
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"bench: another run uses {work}")
        unmount_below(work)
        yield


def _without_private(arguments: list[str]) -> list[str]:
    """The command line without folders of this machine, which are nobody's business."""
    kept = []
    words = iter(arguments)
    for word in words:
        option, equals, _ = word.partition("=")
        if option in ("--work", "--output", "--s3ql-from") and not equals:
            next(words, None)
        if option == "--s3ql-from":
            kept += [option, "SOURCE"]
        elif option not in ("--work", "--output"):
            kept.append(word)
    return kept


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    words = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "an unknown file system"

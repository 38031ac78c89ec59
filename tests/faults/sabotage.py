# SPDX-License-Identifier: MIT
"""Runs yester commands in processes of their own, each with one thing going wrong at a chosen moment.

`Saboteur` is for tests: it keeps a process that has imported everything, with fault.c preloaded, and forks it for each
command, so hundreds of commands take seconds. That process is this module run as a program:

    python -m tests.faults.sabotage        reads jobs, one a line, and answers with endings, one a line
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import IO, Self

import msgspec

from tests.faults.witness import make_batches_small
from yester.cli.main import main
from yester.engine.source import SourceReader
from yester.store.lmdb import Environment

ROOT = Path(__file__).parent.parent.parent


class Call(IntEnum):
    """What happens to a system call that writes or syncs the data file; `enum action` in fault.c."""

    COUNT = 0
    KILL_BEFORE = 1
    KILL_HALF = 2
    KILL_AFTER = 3
    FAIL = 4
    FAIL_HALF = 5


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes wrong. Numbers count from 1; 0 is never."""

    signal: int = signal.SIGKILL
    before_commit: int = 0
    after_commit: int = 0
    after_files: tuple[int, ...] = ()
    """The signal comes when so many files were read."""
    call: int = 0
    action: Call = Call.COUNT
    error: int = 0
    is_lasting: bool = False
    """All later calls fail, too."""
    address_space: int = 0
    """At most so many bytes of memory."""
    file_size: int = 0
    """No file may be larger than this."""


NOTHING = Fault()


class Job(msgspec.Struct, frozen=True):
    """A command and what goes wrong with it."""

    arguments: list[str]
    fault: Fault


class Ending(msgspec.Struct, frozen=True):
    """How a command ended. `status` is its exit status, or minus the signal that killed it."""

    status: int
    out: str
    err: str
    calls: int
    """System calls that wrote or synced the data file; -1 if it was killed."""
    commits: int
    files: int


class Saboteur:
    """Runs commands. A context manager; `folder` is for its own files."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "fault.so"
        source = Path(__file__).with_name("fault.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", self._library, source], check=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Nothing is remembered of encrypted stores: here many copies of one are used, as they were at many moments.
        environment = os.environ | {"XDG_STATE_HOME": os.devnull, "PYTHONDEVMODE": ""}
        environment |= {"LD_PRELOAD": str(self._library), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        command = [sys.executable, "-m", "tests.faults.sabotage"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate()

    def run(self, *arguments: str | Path, fault: Fault = NOTHING) -> Ending:
        """Run `yester ARGUMENTS` and wait for its end."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(Job([str(argument) for argument in arguments], fault)) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Ending)


class _Counts:
    """What happened so far in this process."""

    def __init__(self) -> None:
        self.commits = 0
        self.files = 0


def _serve() -> None:
    """Fork for each job; the child returns from here to end as any Python program does."""
    for command in ("init", "key", "backup", "snapshots", "restore", "check", "prune", "compact"):
        import_module(f"yester.cli.command_{command}")
    make_batches_small()
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for line in jobs:
        job = msgspec.json.decode(line, type=Job)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as counts:
            child = os.fork()
            if not child:
                _become(job, out, err, counts)
            _, status = os.waitpid(child, 0)
            calls, commits, files = msgspec.json.decode(_content(counts) or b"[-1, -1, -1]", type=tuple[int, int, int])
            ending = Ending(os.waitstatus_to_exitcode(status), _text(out), _text(err), calls, commits, files)
        answers.write(msgspec.json.encode(ending) + b"\n")
        answers.flush()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _text(file: IO[bytes]) -> str:
    return _content(file).decode(errors="replace")


def _become(job: Job, out: IO[bytes], err: IO[bytes], counts_file: IO[bytes]) -> None:
    """Run the command in this process and end it."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    counts = _Counts()
    _arm(job.fault, counts)
    sys.argv = ["yester", *job.arguments]
    try:
        main()
    finally:
        numbers = ctypes.CDLL(None).fault_count(), counts.commits, counts.files
        os.pwrite(counts_file.fileno(), msgspec.json.encode(numbers), 0)


def _arm(fault: Fault, counts: _Counts) -> None:
    if fault.address_space:
        resource.setrlimit(resource.RLIMIT_AS, (fault.address_space, fault.address_space))
    if fault.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_size, fault.file_size))
    ctypes.CDLL(None).fault_arm(int(fault.action), ctypes.c_long(fault.call or sys.maxsize), fault.error, fault.is_lasting)

    def before_commit() -> None:
        counts.commits += 1
        if counts.commits == fault.before_commit:
            os.kill(os.getpid(), fault.signal)

    def after_commit() -> None:
        if counts.commits == fault.after_commit:
            os.kill(os.getpid(), fault.signal)

    def after_file() -> None:
        counts.files += 1
        if counts.files in fault.after_files:
            os.kill(os.getpid(), fault.signal)

    _wrap(Environment, "write", before_commit, after_commit)
    _wrap(SourceReader, "read_file", lambda: None, after_file)


def _wrap(owner: type, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have `before` called before each call of a method, and `after` after it."""
    method = getattr(owner, name)

    @wraps(method)
    def wrapped(*arguments: object, **named: object) -> object:
        before()
        result = method(*arguments, **named)
        after()
        return result

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    _serve()

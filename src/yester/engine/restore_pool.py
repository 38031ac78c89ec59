# SPDX-License-Identifier: MIT
"""Processes that restore files: both ends of the line between a restore and its workers.

A worker is a fresh interpreter, never a fork: it opens the store for itself, as LMDB needs. It gets the target as an open
handle and jobs through a socket, one at a time, and answers each with reports of what it tallied since the last one. As a
worker is only written to while it waits, neither side can block the other.

Ends: a worker leaves when its socket closes, so it does not outlive a parent that dies; and at SIGTERM, taking unfinished
files along. Ctrl-C reaches only the parent, which then ends the workers.

Run by `WorkerPool` as `python -m yester.engine.restore_pool`. Threads: a pool belongs to one thread.
"""

import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from yester import errors
from yester.engine.restore_files import FileRestorer, Tally, Task
from yester.engine.target import Owners
from yester.errors import YesterError
from yester.store.store import Store

if TYPE_CHECKING:
    from yester.store.keys import StoreKey
    from yester.store.slots import LockedStore

REPORT_S = 0.2
"""How often a worker tells how far it is."""

END_S = 5.0
"""How long a worker may take to clean up; it needs milliseconds, unless its disk hangs."""

_LENGTH = struct.Struct("<I")


class Setup(msgspec.Struct, frozen=True, tag=True):
    """To a worker, once."""

    store_path: bytes
    root: int
    """The target's handle, which the worker inherits."""
    numeric_ids: bool
    overwrite: bool
    key: bytes
    """Of an encrypted store; else nothing. Sent through the socket, as arguments and environment can be read by others."""

    def __repr__(self) -> str:
        return "Setup(…)"

    def unlock(self, _locked: "LockedStore") -> "StoreKey":
        """See `Store.open`."""
        from yester.store.keys import StoreKey  # noqa: PLC0415 (ciphers take 20 ms to import, and plain stores need none)

        return StoreKey(self.key)


class Job(msgspec.Struct, frozen=True, tag=True):
    """To a worker that waits."""

    tasks: list[Task]


class Report(msgspec.Struct, frozen=True, tag=True):
    """From a worker: what was added to its tally since its last report, and whether it has finished its job."""

    tally: Tally
    is_done: bool


class Failure(msgspec.Struct, frozen=True, tag=True):
    """From a worker, the last: an error that ends the restore."""

    error: str
    """Name of a class of yester.errors; empty for a bug."""
    message: str
    hint: str


_to_worker = msgspec.msgpack.Decoder(Setup | Job)
_from_worker = msgspec.msgpack.Decoder(Report | Failure)
_encoder = msgspec.msgpack.Encoder()


class _Line:
    """One end of a socket that carries messages."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, message: msgspec.Struct) -> None:
        encoded = _encoder.encode(message)
        self.end.sendall(_LENGTH.pack(len(encoded)) + encoded)

    def receive(self) -> bytes | None:
        """The next message; None at the end."""
        header = self._receive_exactly(_LENGTH.size)
        return None if header is None else self._receive_exactly(_LENGTH.unpack(header)[0])

    def _receive_exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            piece = self.end.recv(count - len(data))
            if not piece:
                return None
            data = data + piece if data else piece
        return data


class WorkerPool:
    """Workers that restore files below one target. A context manager: leaving it ends them, at once after an error.

    `on_tally` gets what the workers report, in the thread that uses the pool.
    """

    def __init__(self, count: int, setup: Setup, on_tally: Callable[[Tally], None]) -> None:
        self._on_tally = on_tally
        self._selector = selectors.DefaultSelector()
        self._workers: list[tuple[subprocess.Popen[bytes], _Line]] = []
        self._idle: list[_Line] = []
        try:
            for _ in range(count):
                worker = _start_worker(setup.root)
                self._workers.append(worker)
                self._selector.register(worker[1].end, selectors.EVENT_READ, worker)
                worker[1].send(setup)
                self._idle.append(worker[1])
        except BaseException:
            self._end(signal.SIGTERM)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, /, *rest: object) -> None:
        self._end(0 if exception_type is None else signal.SIGTERM)

    def submit(self, tasks: list[Task]) -> None:
        """Have a worker do these tasks, in order; waits until one has time.

        Raises:
            YesterError: what ended a worker.
        """
        while not self._idle:
            self._receive()
        line = self._idle.pop()
        try:
            line.send(Job(tasks))
        except OSError:
            # It has ended; what it said before tells more than the broken line does.
            while True:
                self._receive()

    def finish(self) -> None:
        """Wait until all is done.

        Raises:
            YesterError: what ended a worker.
        """
        while len(self._idle) < len(self._workers):
            self._receive()

    def _receive(self) -> None:
        for key, _ in self._selector.select():
            process, line = key.data
            try:
                message = line.receive()
            except OSError:
                message = None
            if message is None:
                raise _unexpected_end(process)
            match _from_worker.decode(message):
                case Report(tally, is_done):
                    self._on_tally(tally)
                    if is_done:
                        self._idle.append(line)
                case Failure(error, text, hint):
                    raise _failure(error, text, hint)

    def _end(self, number: int) -> None:
        for process, line in self._workers:
            if number:
                process.send_signal(number)
            line.end.close()
        for process, _ in self._workers:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._selector.close()


def _start_worker(root: int) -> tuple[subprocess.Popen[bytes], _Line]:
    ours, theirs = socket.socketpair()
    with theirs:
        # -P: the current folder must not be where a process that may run as root finds its modules.
        command = [sys.executable, "-P", "-m", "yester.engine.restore_pool", str(theirs.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop("YESTER_PASSPHRASE", None)  # it gets the key itself
        # Signals that are blocked stay so in the new process: a Ctrl-C at the terminal is for us alone.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(theirs.fileno(), root)
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return process, _Line(ours)


def _failure(error: str, message: str, hint: str) -> Exception:
    kind = getattr(errors, error, None) if error else None
    if isinstance(kind, type) and issubclass(kind, YesterError):
        return kind(message, hint=hint)
    return RuntimeError(f"in a process that restores files: {message}")


def _unexpected_end(process: "subprocess.Popen[bytes]") -> YesterError:
    try:
        status = process.wait(END_S)
    except subprocess.TimeoutExpired:
        status = 0
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    message = f"a process that restored files {how}; files that are in place are whole, others are missing"
    return YesterError(message, hint="run the command again: it goes on from what is there")


def work(line: _Line) -> None:
    """Be a worker, until the line closes."""
    message = line.receive()
    setup = None if message is None else _to_worker.decode(message)
    if not isinstance(setup, Setup):
        return
    last_s = time.monotonic()

    def report(*, is_done: bool) -> None:
        nonlocal last_s
        last_s = time.monotonic()
        line.send(Report(restorer.tally, is_done))
        restorer.tally = Tally()

    def on_step(_tally: Tally) -> None:
        if time.monotonic() - last_s > REPORT_S:
            report(is_done=False)

    owners = Owners(numeric=setup.numeric_ids)
    with (
        Store.open(Path(os.fsdecode(setup.store_path)), readonly=True, unlock=setup.unlock) as store,
        FileRestorer(store.reader(), setup.root, owners, overwrite=setup.overwrite, on_step=on_step) as restorer,
    ):
        while (message := line.receive()) is not None:
            job = _to_worker.decode(message)
            assert isinstance(job, Job)
            try:
                for task in job.tasks:
                    restorer.run(task)
            except YesterError:
                report(is_done=False)
                raise
            report(is_done=True)


def main() -> None:
    """What a worker process runs."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    os.umask(0)  # files get the permissions they are made with; nobody else's are made here
    with socket.socket(fileno=int(sys.argv[1])) as end:
        line = _Line(end)
        try:
            work(line)
        except BrokenPipeError:
            sys.exit(1)
        except YesterError as error:
            line.send(Failure(type(error).__name__, error.message, error.hint))
        except Exception:
            line.send(Failure("", traceback.format_exc(), ""))
            raise


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Processes that do a part of a command's work, since Python uses one core: what those of a restore and of a check have in common.

A worker is a fresh interpreter, never a fork: it opens the store for itself, as LMDB needs. Messages go through a socket.

Ends: a worker leaves when its socket closes, so it does not outlive a parent that dies; and at SIGTERM, cleaning up. Ctrl-C reaches
only the parent, which then ends the workers.
"""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from yester import errors
from yester.errors import YesterError
from yester.store.interpreter import module_command, module_environment
from yester.store.store import Store

if TYPE_CHECKING:
    from yester.store.keys import StoreKey
    from yester.store.slots import LockedStore

REPORT_S = 0.2
"""How often a worker tells how far it is."""

END_S = 5.0
"""How long a worker may take to clean up; it needs milliseconds, unless its disk hangs."""

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()


class StoreAccess(msgspec.Struct, frozen=True):
    """To a worker: what it opens the store with."""

    path: bytes
    key: bytes
    """Of an encrypted store; else nothing. Sent through the socket, as arguments and environment can be read by others."""

    @classmethod
    def to(cls, store: Store) -> "StoreAccess":
        """What opens this store."""
        key = store.environment.key
        return cls(os.fsencode(os.path.abspath(store.path)), key.raw if key is not None else b"")

    def __repr__(self) -> str:
        return "StoreAccess(…)"

    def open(self) -> Store:
        """The store, to be read. Raises as `Store.open`."""
        return Store.open(Path(os.fsdecode(self.path)), readonly=True, unlock=self._unlock)

    def _unlock(self, _locked: "LockedStore") -> "StoreKey":
        from yester.store.keys import StoreKey  # noqa: PLC0415 (ciphers take 20 ms to import, and plain stores need none)

        return StoreKey(self.key)


class Failure(msgspec.Struct, frozen=True, tag=True):
    """From a worker, the last: an error that ends the work."""

    error: str
    """Name of a class of yester.errors; empty for a bug."""
    message: str
    hint: str

    def as_exception(self, worker: "Worker") -> Exception:
        """The error, here."""
        kind = getattr(errors, self.error, None) if self.error else None
        if isinstance(kind, type) and issubclass(kind, YesterError):
            return kind(self.message, hint=self.hint)
        return RuntimeError(f"in a process that {worker.does}: {self.message}")


class Line:
    """One end of a socket that carries messages."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, message: msgspec.Struct) -> None:
        """Send a message. Raises OSError if nobody is there."""
        encoded = _encoder.encode(message)
        self.end.sendall(_LENGTH.pack(len(encoded)) + encoded)

    def has_room(self) -> bool:
        """Whether a short message can be sent without waiting until somebody receives."""
        return bool(select.select([], [self.end], [], 0)[1])

    def receive(self) -> bytes | None:
        """The next message; None at the end."""
        header = self._receive_exactly(_LENGTH.size)
        return None if header is None else self._receive_exactly(_LENGTH.unpack(header)[0])

    def _receive_exactly(self, count: int) -> bytes | None:
        data = bytearray()
        while len(data) < count:
            piece = self.end.recv(count - len(data))
            if not piece:
                return None
            data += piece
        return bytes(data)


class Worker:
    """A process, and our end of the line to it."""

    def __init__(self, module: str, does: str, inherited: Iterable[int] = ()) -> None:
        """Start `python -m` of a module, which calls `serve`, with these open files. Raises OSError.

        Messages call it "a process that" and what it `does`.
        """
        self.does = does
        ours, theirs = socket.socketpair()
        self.line = Line(ours)
        with theirs:
            # Signals that are blocked stay so in the new process: a Ctrl-C at the terminal is for us alone.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self.process = subprocess.Popen(
                    module_command(module, str(theirs.fileno())),
                    env=module_environment(),  # with no passphrase: it gets the key itself
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *inherited),
                )
            except BaseException:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def receive(self) -> bytes | None:
        """The next message; None if it has ended."""
        try:
            return self.line.receive()
        except OSError:
            return None

    def how_it_ended(self) -> str:
        """A sentence about a process that sends nothing any more."""
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            return f"a process that {self.does} does not answer"
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"a process that {self.does} {how}"


def end_workers(workers: Iterable[Worker], *, at_once: bool) -> None:
    """End processes, at once or when they have nothing to do, and wait until they are gone."""
    workers = list(workers)
    for worker in workers:
        if at_once:
            worker.process.send_signal(signal.SIGTERM)
        worker.line.end.close()
    for worker in workers:
        try:
            worker.process.wait(END_S)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def serve(work: Callable[[Line], None]) -> None:
    """What the process runs: `work`, whose error is the last message."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    with socket.socket(fileno=int(sys.argv[1])) as end:
        line = Line(end)
        try:
            work(line)
        except BrokenPipeError:
            sys.exit(1)
        except YesterError as error:
            line.send(Failure(type(error).__name__, error.message, error.hint))
        except Exception:
            line.send(Failure("", traceback.format_exc(), ""))
            raise
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # there is nothing left to clean up

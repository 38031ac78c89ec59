# SPDX-License-Identifier: MIT
"""A process (`engine.worker`) that reads the data for a check while the check looks at the structure, both for the most part in Python.

It tells in the end what it found, and until then how far it is, while there is room in the socket: the check listens only when it
has done its own part.

Run by `DataReader` as `python -m yester.engine.check_worker`.
"""

import logging
import time
from typing import Self

import msgspec

from yester.engine.check_data import DataRead, read_and_compare
from yester.engine.steps import StepProgress
from yester.engine.worker import REPORT_S, Failure, Line, StoreAccess, Worker, end_workers, serve
from yester.store.store import Store

_log = logging.getLogger(__name__)


class Setup(msgspec.Struct, frozen=True):
    """To the process, once: what to open, and the keys of segments to read; None for all."""

    store: StoreAccess
    keys: list[bytes] | None


class Report(msgspec.Struct, frozen=True, tag=True):
    """From the process, again and again: how many segments are read, of how many."""

    done: int
    total: int


class Found(msgspec.Struct, frozen=True, tag=True):
    """From the process, in the end."""

    read: DataRead


_to_worker = msgspec.msgpack.Decoder(Setup)
_from_worker = msgspec.msgpack.Decoder(Report | Found | Failure)


class DataReader:
    """A process that reads data. A context manager: leaving it ends it."""

    def __init__(self, store: Store, keys: list[bytes] | None) -> None:
        """Start it; `keys` as for `read_and_compare`. Raises OSError if no process can be started."""
        self._worker = Worker("yester.engine.check_worker", "reads data")
        try:
            self._worker.line.send(Setup(StoreAccess.to(store), keys))
        except BaseException:
            end_workers([self._worker], at_once=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, /, *rest: object) -> None:
        end_workers([self._worker], at_once=exception_type is not None)

    def finish(self, progress: StepProgress) -> DataRead | None:
        """Wait until all is read, and say what was found; None if it was killed, perhaps for want of memory.

        Raises:
            YesterError: it could not read the store.
        """
        progress.begin("data")
        while (message := self._worker.receive()) is not None:
            match _from_worker.decode(message):
                case Report(done, total):
                    progress.done, progress.total = done, total
                case Found(read):
                    return read
                case Failure() as failure:
                    raise failure.as_exception(self._worker)
        _log.warning("%s, so the data is read without it", self._worker.how_it_ended())
        return None


def work(line: Line) -> None:
    """Read, and tell."""
    message = line.receive()
    if message is None:
        return
    setup = _to_worker.decode(message)
    progress = StepProgress()
    last_s = time.monotonic()

    def report() -> None:
        nonlocal last_s
        if time.monotonic() - last_s > REPORT_S and line.has_room():
            last_s = time.monotonic()
            line.send(Report(progress.done, progress.total))

    with setup.store.open() as store:
        line.send(Found(read_and_compare(store.environment, progress, setup.keys, on_step=report)))


if __name__ == "__main__":
    serve(work)

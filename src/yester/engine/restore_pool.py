# SPDX-License-Identifier: MIT
"""Processes that restore files (`engine.worker`): both ends of the line between a restore and its workers.

A worker gets the target as an open handle and jobs through the socket, one at a time, and answers each with reports of what it
tallied since the last one. As a worker is only written to while it waits, neither side can block the other. One that is ended takes
unfinished files along.

Run by `WorkerPool` as `python -m yester.engine.restore_pool`. Threads: a pool belongs to one thread.
"""

import os
import selectors
import time
from collections.abc import Callable
from typing import Self

import msgspec

from yester.engine.restore_files import FileRestorer, Tally, Task
from yester.engine.target import Owners
from yester.engine.worker import REPORT_S, Failure, Line, StoreAccess, Worker, end_workers, serve
from yester.errors import YesterError


class Setup(msgspec.Struct, frozen=True, tag=True):
    """To a worker, once."""

    store: StoreAccess
    root: int
    """The target's handle, which the worker inherits."""
    numeric_ids: bool
    overwrite: bool


class Job(msgspec.Struct, frozen=True, tag=True):
    """To a worker that waits."""

    tasks: list[Task]


class Report(msgspec.Struct, frozen=True, tag=True):
    """From a worker: what was added to its tally since its last report, and whether it has finished its job."""

    tally: Tally
    is_done: bool


_to_worker = msgspec.msgpack.Decoder(Setup | Job)
_from_worker = msgspec.msgpack.Decoder(Report | Failure)


class WorkerPool:
    """Workers that restore files below one target. A context manager: leaving it ends them, at once after an error.

    `on_tally` gets what the workers report, in the thread that uses the pool.
    """

    def __init__(self, count: int, setup: Setup, on_tally: Callable[[Tally], None]) -> None:
        self._on_tally = on_tally
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        try:
            for _ in range(count):
                worker = Worker("yester.engine.restore_pool", "restores files", [setup.root])
                self._workers.append(worker)
                self._selector.register(worker.line.end, selectors.EVENT_READ, worker)
                worker.line.send(setup)
                self._idle.append(worker)
        except BaseException:
            self._end(at_once=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, /, *rest: object) -> None:
        self._end(at_once=exception_type is not None)

    def submit(self, tasks: list[Task]) -> None:
        """Have a worker do these tasks, in order; waits until one has time.

        Raises:
            YesterError: what ended a worker.
        """
        while not self._idle:
            self._receive()
        worker = self._idle.pop()
        try:
            worker.line.send(Job(tasks))
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
            worker: Worker = key.data
            message = worker.receive()
            if message is None:
                text = f"{worker.how_it_ended()}; files that are in place are whole, others are missing"
                raise YesterError(text, hint="run the command again: it goes on from what is there")
            match _from_worker.decode(message):
                case Report(tally, is_done):
                    self._on_tally(tally)
                    if is_done:
                        self._idle.append(worker)
                case Failure() as failure:
                    raise failure.as_exception(worker)

    def _end(self, *, at_once: bool) -> None:
        end_workers(self._workers, at_once=at_once)
        self._selector.close()


def work(line: Line) -> None:
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
        setup.store.open() as store,
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
    os.umask(0)  # files get the permissions they are made with; nobody else's are made here
    serve(work)


if __name__ == "__main__":
    main()

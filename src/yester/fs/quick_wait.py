# SPDX-License-Identifier: MIT
"""Waiting for the next FUSE request without a turn of trio's scheduler for each (docs/adr/0004).

pyfuse3's main loop takes a `trio.Lock` and calls `trio.lowlevel.wait_readable` before every request. That costs two turns of the
scheduler, 35 of the 100 µs that opening a file takes here, although the next request is there almost at once while
somebody reads a folder. pyfuse3 looks these names up in its module's `trio` attribute, which is also how its asyncio
support replaces them; `install` puts there a stand-in that is trio in all but these two:

- waiting first looks at the descriptor some sixty times, giving the processor away between two looks, then polls it for a
  millisecond in a plain system call, and only then asks trio;
- the lock is free of turns while nobody else wants it. It is not fair: whoever runs takes it. Fairness has no use here, as
  every task that waits for it would do the same.

Who is awake when the next request comes need not be woken: that costs as much as answering it. `sched_yield` lets a program
that has work run first, so on a busy machine looking costs nobody anything.

Rule: while somebody waits for another task there is no such waiting. Else never more than `TURN_EVERY` requests, or one idle
millisecond, between two turns of the scheduler, so that signals and answers that were prepared on a thread are not kept waiting.
"""

import os
import select
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pyfuse3
import trio

LOOKS = 60
"""About 100 µs: 20 are too few to still be looking when `tar` asks for the next file, 150 are no better (docs/adr/0004)."""
POLL_MS = 1
TURN_EVERY = 64


class UnfairLock:
    """Mutual exclusion between the tasks of one trio loop. Uncontended use never yields."""

    def __init__(self) -> None:
        self._is_held = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._is_held:
            await self._waiting.park()
        self._is_held = True

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_held = False
        if self._waiting:
            self._waiting.unpark()


class _QuickLowlevel:
    """`trio.lowlevel` with another `wait_readable`."""

    def __init__(self, is_somebody_waiting: Callable[[], bool]) -> None:
        self._is_somebody_waiting = is_somebody_waiting
        self._pollers: dict[int, select.poll] = {}
        self._since_turn = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever trio.lowlevel has)
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        """As trio's, but need not yield."""
        poller = self._pollers.get(descriptor)
        if poller is None:
            poller = self._pollers[descriptor] = select.poll()
            poller.register(descriptor, select.POLLIN)
        self._since_turn += 1
        if self._since_turn < TURN_EVERY and not self._is_somebody_waiting():
            for _ in range(LOOKS):
                if poller.poll(0):
                    return
                os.sched_yield()
            if poller.poll(POLL_MS):
                return
        self._since_turn = 0
        await trio.lowlevel.wait_readable(descriptor)


class _QuickTrio:
    """`trio` with another lock and `wait_readable`."""

    Lock = UnfairLock

    def __init__(self, is_somebody_waiting: Callable[[], bool]) -> None:
        self.lowlevel = _QuickLowlevel(is_somebody_waiting)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever trio has)
        return getattr(trio, name)


def install(is_somebody_waiting: Callable[[], bool] = lambda: False) -> None:
    """Have pyfuse3 in this process wait quickly. Before `pyfuse3.init`; safe to call twice.

    While `is_somebody_waiting` for another task, such as for a commit, every request is followed by a turn of the scheduler.
    """
    pyfuse3.trio = _QuickTrio(is_somebody_waiting)  # type: ignore[attr-defined]  # its own seam, as in pyfuse3.asyncio

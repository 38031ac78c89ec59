# SPDX-License-Identifier: MIT
"""Ending a command that has something to clean up, however it is asked to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupted_like_ctrl_c() -> Iterator[None]:
    """While the body runs, what would end this process at once interrupts it as Ctrl-C does: what has to be done in the end is done.

    A signal that is ignored, as under `nohup`, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt

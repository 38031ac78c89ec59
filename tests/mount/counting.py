# SPDX-License-Identifier: MIT
"""Runs yester with every request that a mount gets written down: `counting.py FILE ARGUMENTS…`.

Each is one line of FILE: the name of the handler.
"""

import functools
import inspect
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from yester.cli.main import main
from yester.fs.driver import SnapshotOperations


def _counted(handler: Callable[..., Awaitable[Any]], file: int) -> Callable[..., Awaitable[Any]]:
    line = handler.__name__.encode() + b"\n"

    @functools.wraps(handler)
    async def count(*arguments: object) -> object:
        os.write(file, line)
        return await handler(*arguments)

    return count


def _run() -> None:
    file = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    for name, handler in list(vars(SnapshotOperations).items()):
        if inspect.iscoroutinefunction(handler) and not name.startswith("_"):
            setattr(SnapshotOperations, name, _counted(handler, file))
    main()


_run()

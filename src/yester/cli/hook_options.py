# SPDX-License-Identifier: MIT
"""Options for commands before and after a backup, and what is told and kept of how they ended.

What every hook wrote goes into a log in the state folder, which only its owner may read; the end of it is shown where one failed.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from yester.cli.output import show_time
from yester.cli.state_folder import state_folder
from yester.core.printable import printable
from yester.engine.hooks import TIMEOUT_S, HookRun, Occasion
from yester.engine.log_file import append_log

_LOG_BYTES_MAX = 1 << 20

Function = TypeVar("Function", bound=Callable[..., object])


def hook_options(function: Function) -> Function:
    """`before`, `after`, `on_failure`, `hook_timeout_s` and `ignore_hook_failure`."""
    options = (
        click.option("--before", multiple=True, metavar="CMD", help="Run this with a shell first; back nothing up if it fails."),
        click.option("--after", multiple=True, metavar="CMD", help="Run this in the end, whatever became of the backup."),
        click.option("--on-failure", multiple=True, metavar="CMD", help="Run this if the backup fails."),
        click.option(
            "--hook-timeout", "hook_timeout_s", metavar="S", type=click.FloatRange(0.1, 10.0**7), default=TIMEOUT_S,
            help=f"Stop such a command after so many seconds ({TIMEOUT_S:.0f}).",
        ),
        click.option("--ignore-hook-failure", is_flag=True, help="Back up although --before fails."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


class HookReport:
    """Hears of each hook that has ended: writes its log, says on stderr that one failed, and keeps all of them in `runs`."""

    def __init__(self, source: str, *, goes_on_after_failure: bool = False) -> None:
        self.runs: list[HookRun] = []
        self._source = source
        self._goes_on_after_failure = goes_on_after_failure

    def __call__(self, run: HookRun) -> None:
        """Take note of one."""
        self.runs.append(run)
        log = write_log(run, self._source)
        is_error = run.occasion is Occasion.BEFORE and not self._goes_on_after_failure
        if run.problem and not is_error:  # The error that follows says all of this.
            print(f"hook: {run.name} ({run.occasion.value}) {run.problem}", file=sys.stderr)
            for line in run.last_lines():
                print(f"  {line}", file=sys.stderr)
        if run.problem and run.output and log is not None:
            print(f"note: all that this hook wrote is in {log}", file=sys.stderr)

    @property
    def has_failures(self) -> bool:
        """Whether any of them failed."""
        return any(run.problem for run in self.runs)

    def as_json(self) -> list[dict[str, object]]:
        """All of them, for `--json`."""
        return [
            {
                "when": run.occasion.value,
                "command": run.command,
                "problem": run.problem or None,
                "seconds": round(run.seconds, 3),
                "output": run.output.decode("utf-8", "backslashreplace"),
                "dropped_bytes": run.dropped_bytes,
            }
            for run in self.runs
        ]


def write_log(run: HookRun, source: str) -> Path | None:
    """Append how a hook ended to the log, which says in one line what it was, and then what it wrote; None if that cannot be done.

    Lines of its output begin with a bar, so that none can pass for another entry.
    """
    log = state_folder() / "hooks.log"
    head = f"{show_time(time.time_ns())} {printable(source)} {run.occasion.value} {run.name}"
    lines = [f"{head} {run.problem or 'ended well'}, after {run.seconds:.1f} s"]
    if run.dropped_bytes:
        lines.append(f"  | ({run.dropped_bytes} bytes before this are not kept)")
    lines += [f"  | {printable(line.expandtabs())}" for line in run.output.decode("utf-8", "backslashreplace").splitlines()]
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        append_log(log, "\n".join(lines) + "\n", bytes_max=_LOG_BYTES_MAX)
    except OSError as error:
        print(f"note: the log {log} cannot be written: {error.strerror}", file=sys.stderr)
        return None
    return log

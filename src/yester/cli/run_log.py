# SPDX-License-Identifier: MIT
"""What a run that nobody watches says: into a log, to whoever watches after all, and on the desktop when there is news."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from yester.cli.notifications import notify
from yester.cli.output import show_text, show_time
from yester.engine.runs import Outcome, RunRecord


@dataclass(slots=True)
class RunLog:
    """What a run says: to whoever watches after all, and into the log in the end, each line with the time."""

    source: str
    path: Path
    """Where the log is, for messages."""
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """What happened."""
        self._add(text)
        print(f"{show_text(self.source)}: {text}", flush=True)

    def complain(self, text: str, hint: str = "") -> None:
        """What should not have happened."""
        self._add(text)
        print(f"yester: {show_text(self.source)}: {text}", file=sys.stderr)
        if hint:
            self._add(f"hint: {hint}")
            print(f"hint: {hint}", file=sys.stderr)

    def note(self, text: str) -> None:
        """What only the log has."""
        self._add(text)

    def _add(self, text: str) -> None:
        self.lines.append(f"{show_time(time.time_ns())} {show_text(text)}\n")


def tell_outcome(what: str, before: RunRecord | None, ended: RunRecord, log: RunLog, *, bad: str, good: str) -> None:
    """Notify whoever has a desktop how a run ended, if there is news: that it failed, less and less often, or that all is well again."""
    failed_before = before.failures if before is not None else 0
    if ended.failures and ended.outcome is not Outcome.UNFINISHED:
        if ended.failures & (ended.failures - 1) == 0:  # the first, second, fourth, eighth …
            times = f" ({ended.failures} times now)" if ended.failures > 1 else ""
            notify(f"{show_text(what)} {bad}{times}", f"{ended.message}\nLog: {log.path}")
    elif failed_before and not ended.failures:
        text = f"{good} again, after {failed_before} {'failure' if failed_before == 1 else 'failures'}"
        log.say(text)
        notify(f"{show_text(what)} {good} again", text, icon="dialog-information")

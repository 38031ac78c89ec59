# SPDX-License-Identifier: MIT
"""Looking after a store now and then, after a backup by schedule.

The structure is checked, a sample of the data is read and hashed, and the space of what was forgotten is given back. A disk that goes
bad is found while what it loses is still on the disk of the source. How that ended is kept beside the records of runs, by the store's
path, until a check finds nothing new. What a repair has told of is not new.
"""

import os
import secrets
import time
from pathlib import Path
from typing import Protocol

from yester.core.retention import GRACE_NS
from yester.engine.check import Sample, check
from yester.engine.check_report import CheckReport
from yester.engine.prune import PruneReport, prune
from yester.engine.runs import Outcome, RunBook, RunRecord
from yester.engine.source_plan import Upkeep
from yester.errors import BusyError, YesterError
from yester.store.store import Store

_AGAIN_NS = 24 * 3600 * 10**9
"""After damage was found it is looked for again so much later: somebody may have repaired it."""


class UpkeepObserver(Protocol):
    """Hears of what looking after a store comes to. Each is called at most once, in this order."""

    def checked(self, report: CheckReport) -> None:
        """A check has ended; whether it found something new is in the report."""

    def not_checked(self, error: YesterError) -> None:
        """No check could be made."""

    def pruned(self, report: PruneReport) -> None:
        """Space was given back."""

    def not_pruned(self, error: YesterError) -> None:
        """It was not."""

    def looked_after(self, before: RunRecord | None, ended: RunRecord) -> None:
        """How it ended, and how it did the time before."""


def store_key(path: Path) -> str:
    """What a store is filed under in a `RunBook`: no source has a slash in its name."""
    return os.path.abspath(path)


def look_after(store: Store, upkeep: Upkeep, book: RunBook, observer: UpkeepObserver) -> bool:
    """Check the store and prune it, if it is time; False if there is damage that was not known, or one of the two could not be done.

    Raises:
        StoreAccessError: what is known of runs cannot be written.
    """
    key = store_key(store.path)
    try:
        with book.holding(key):
            before = book.read(key)
            if not is_upkeep_due(before, upkeep, time.time_ns()):
                return True
            record = book.begin(key, time.time_ns())
            problem = _look(store, upkeep, observer)
            ended = book.end(record, Outcome.FAILED if problem else Outcome.DONE, time.time_ns(), problem)
    except BusyError:
        return True  # A run of another source is at it.
    observer.looked_after(before, ended)
    return not problem


def is_upkeep_due(record: RunRecord | None, upkeep: Upkeep, now_ns: int) -> bool:
    """Whether a store should be looked after, in view of the last time."""
    if upkeep.every_ns is None:
        return False
    if record is None or record.started_ns > now_ns:
        return True
    wait_ns = upkeep.every_ns if record.outcome is Outcome.DONE else min(upkeep.every_ns, _AGAIN_NS)
    return now_ns - record.started_ns >= wait_ns


def damage_message(store_path: Path, report: CheckReport) -> str:
    """What is kept, and said, of a check that found something new."""
    count = len(report.findings) + report.findings_more
    return f"damage in the store {store_path}: {count} {'finding' if count == 1 else 'findings'}"


def _look(store: Store, upkeep: Upkeep, observer: UpkeepObserver) -> str:
    """What is wrong; empty if nothing is."""
    try:
        report = check(store, read_data=Sample(upkeep.share, secrets.randbits(31)))
    except YesterError as error:
        observer.not_checked(error)
        return error.message
    observer.checked(report)
    if not report.is_as_known:
        return damage_message(store.path, report)
    try:
        pruned = prune(store, grace_ns=GRACE_NS, on_wait=_give_up)
    except BusyError:
        return ""  # somebody else is at it
    except YesterError as error:
        observer.not_pruned(error)
        return error.message
    observer.pruned(pruned)
    return ""


def _give_up(holder: str) -> None:
    message = f"another prune is running ({holder})"
    raise BusyError(message)

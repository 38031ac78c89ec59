# SPDX-License-Identifier: MIT
"""Looking after a store now and then, after a backup by schedule: the structure is checked, and a sample of the data is read and hashed.

A disk that goes bad is found while what it loses is still on the disk of the source. How that ended is kept beside the records of
runs, by the store's path, and told as a failing backup is; `yester status` warns until a check finds nothing new. What a repair has
told of is not new.
"""

import os
import secrets
import time
from pathlib import Path

from yester.cli.output import show_size
from yester.cli.run_log import RunLog, tell_outcome
from yester.core.retention import GRACE_NS
from yester.engine.check import Sample, check
from yester.engine.check_report import CheckReport
from yester.engine.prune import prune
from yester.engine.runs import Outcome, RunBook, RunRecord
from yester.engine.source_plan import Upkeep
from yester.errors import BusyError, YesterError
from yester.store.store import Store

_FINDINGS_MAX = 20
"""So many are named in a log; `yester check` names all."""
_AGAIN_NS = 24 * 3600 * 10**9
"""After damage was found it is looked for again so much later: somebody may have repaired it."""


def store_key(path: Path) -> str:
    """What a store is filed under in a `RunBook`: no source has a slash in its name."""
    return os.path.abspath(path)


def look_after(store: Store, upkeep: Upkeep, book: RunBook, log: RunLog) -> bool:
    """Check the store and prune it, if it is time; False if there is damage that was not known, or it could not be looked for.

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
            outcome, message = _look(store, upkeep, log)
            ended = book.end(record, outcome, time.time_ns(), message)
    except BusyError:
        return True  # A run of another source is at it.
    tell_outcome(f"The store {store.path}", before, ended, log, bad="is damaged", good="is whole")
    return outcome is Outcome.DONE


def is_upkeep_due(record: RunRecord | None, upkeep: Upkeep, now_ns: int) -> bool:
    """Whether a store should be looked after, in view of the last time."""
    if upkeep.every_ns is None:
        return False
    if record is None or record.started_ns > now_ns:
        return True
    wait_ns = upkeep.every_ns if record.outcome is Outcome.DONE else min(upkeep.every_ns, _AGAIN_NS)
    return now_ns - record.started_ns >= wait_ns


def _look(store: Store, upkeep: Upkeep, log: RunLog) -> tuple[Outcome, str]:
    try:
        report = check(store, read_data=Sample(upkeep.share, secrets.randbits(31)))
    except YesterError as error:
        log.complain(f"the store could not be checked: {error.message}", error.hint)
        return Outcome.FAILED, error.message
    if not report.is_as_known:
        count = len(report.findings) + report.findings_more
        for finding in report.findings[:_FINDINGS_MAX]:
            log.note(f"{finding.kind.value}: {finding.what}")
        message = f"damage in the store {store.path}: {count} {'finding' if count == 1 else 'findings'}"
        log.complain(message, "`yester check` names the files and snapshots that are touched, `yester repair` puts back what it can")
        return Outcome.FAILED, message
    log.say(_show(report))
    try:
        pruned = prune(store, grace_ns=GRACE_NS, on_wait=_give_up)
    except YesterError as error:
        log.complain(f"space of what was forgotten was not given back: {error.message}", error.hint)
        return Outcome.FAILED, error.message
    log.say(f"pruned the store: {len(pruned.removed)} forgotten snapshots are gone, {show_size(pruned.freed_bytes)} are free again")
    return Outcome.DONE, ""


def _give_up(holder: str) -> None:
    message = f"another prune is running ({holder})"
    raise BusyError(message)


def _show(report: CheckReport) -> str:
    known = f"; damage that is known: {len(report.findings)}" if report.findings else ""
    return f"checked the store: {report.snapshots} snapshots, {show_size(report.read_bytes)} of the data read; nothing new is wrong{known}"

# SPDX-License-Identifier: MIT
"""What a timer starts: a backup of a source as the configuration says, forgetting by its policy, and now and then a look at the store.

Nobody watches. So what happened goes into the source's log, and how it ended into its record (`engine.runs`); who has a desktop is
notified when backups begin to fail, less and less often while they go on failing, and once when they work again.

The store must be there. A backup that somebody starts by hand makes it, but here that it is missing means that its disk is: a new store
in the place of the disk would take backups that nobody finds again, and fill the wrong disk.
"""

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from yester.cli.hook_options import HookReport
from yester.cli.options import open_store
from yester.cli.output import show_name, show_size
from yester.cli.progress import FileProgress, show_progress
from yester.cli.run_log import RunLog, tell_outcome
from yester.cli.upkeep import look_after
from yester.engine.backup import BackupResult, back_up
from yester.engine.forget import thin
from yester.engine.hooks import Backup, back_up_with_hooks
from yester.engine.runs import Outcome, RunBook, RunRecord
from yester.engine.scan import BackupProgress, count_source
from yester.engine.source_plan import Source, Upkeep
from yester.errors import YesterError
from yester.store.store import Store

_PROBLEMS_MAX = 100
"""So many files that were skipped are named in a log; more are counted."""

_BAD = {Outcome.FAILED: "failed", Outcome.TROUBLED: "had trouble"}
_EXIT_CODES = {Outcome.DONE: 0, Outcome.SKIPPED: 3, Outcome.TROUBLED: 1, Outcome.FAILED: 1, Outcome.UNFINISHED: 1}


class Ending(NamedTuple):
    """How a run ended, and why so: what its record says."""

    outcome: Outcome
    message: str = ""
    is_store_well: bool = True
    """False if the store was looked after in it, and not found well; that has a record of its own (`cli.upkeep`)."""

    @property
    def exit_code(self) -> int:
        """That of the command: also damage in the store is a failure."""
        return _EXIT_CODES[self.outcome] if self.is_store_well else 1


def run_source(
    source: Source, store_path: Path, upkeep: Upkeep, book: RunBook, *, is_wanted: Callable[[RunRecord | None], bool]
) -> Ending | None:
    """Run a source, if that is wanted in view of its last run; how it ended, or None if it is not wanted.

    Its failure is told and kept, and not raised. What looking after the store found is the store's: it makes no good backup a bad one.

    Raises:
        BusyError: a run of it is under way; nothing was done. StoreAccessError: what is known of runs cannot be written.
        KeyboardInterrupt: it was interrupted, which is kept.
    """
    with book.holding(source.name):
        before = book.read(source.name)
        if not is_wanted(before):
            return None
        record, log = book.begin(source.name, time.time_ns()), RunLog(source.name, book.log_path(source.name))
        ending = Ending(Outcome.UNFINISHED, "it was interrupted; the next one goes on where it was")
        try:
            ending = _run(source, store_path, upkeep, book, log)
        except YesterError as error:
            ending = Ending(Outcome.FAILED, error.message)
            log.complain(error.message, error.hint)
        except OSError as error:
            ending = Ending(Outcome.FAILED, f"the operating system refused: {error}")
            log.complain(ending.message)
        except Exception as error:
            ending = Ending(Outcome.FAILED, f"unexpected error: {error!r}")
            log.note(traceback.format_exc())
            raise
        finally:
            if ending.outcome is Outcome.UNFINISHED:
                log.note(ending.message)
            ended = book.end(record, ending.outcome, time.time_ns(), ending.message)
            tell_outcome(f"The backup of {source.name}", before, ended, log, bad=_BAD.get(ending.outcome, ""), good="works")
            book.append_log(source.name, "".join(log.lines))
        return ending


def _run(source: Source, store_path: Path, upkeep: Upkeep, book: RunBook, log: RunLog) -> Ending:
    report, progress = HookReport(source.name, goes_on_after_failure=source.hooks.goes_on_after_failure), BackupProgress()
    done = FileProgress(
        lambda: (progress.files, progress.size_bytes), lambda: count_source(source.paths, one_file_system=source.options.one_file_system)
    )
    trouble: list[str] = []
    is_store_well = True

    def back_up_and_look_after() -> BackupResult:
        nonlocal is_store_well
        with open_store(store_path, is_added_to=True) as store:  # not before: a hook may have to plug its disk in
            with done as line, show_progress(line):
                result = back_up(store, source.paths, source.options, progress=progress, on_wait=lambda holder: log.note(_waiting(holder)))
            _say_result(result, log)
            try:
                _thin(store, source, log)
            except YesterError as error:
                trouble.append(f"the snapshot was made, but old ones were not thinned out: {error.message}")
                log.complain(trouble[-1], error.hint)
            is_store_well = look_after(store, upkeep, book, log)
            return result

    result = back_up_with_hooks(source.hooks, Backup(store_path, source.name, source.paths), back_up_and_look_after, report)
    trouble += [f"the hook {run.name} ({run.occasion.value}) {run.problem}" for run in report.runs if run.problem]
    if trouble:
        return Ending(Outcome.TROUBLED, "; ".join(trouble), is_store_well)
    if result.problems:
        return Ending(Outcome.SKIPPED, f"{len(result.problems)} files were skipped; the log names them", is_store_well)
    return Ending(Outcome.DONE, "", is_store_well)


def _thin(store: Store, source: Source, log: RunLog) -> None:
    if source.policy is None:
        return
    forgotten = sum(not verdict.is_kept for verdict in thin(store, source.name, source.policy, now_ns=time.time_ns()))
    if forgotten:
        log.say(f"forgot {forgotten} by its policy")


def _waiting(holder: str) -> str:
    return f"waiting: another backup into this store is running ({holder})"


def _say_result(result: BackupResult, log: RunLog) -> None:
    snapshot, added = result.snapshot, result.snapshot.added
    seconds = (snapshot.finished_ns - snapshot.time_ns) / 10**9
    counts = f"{snapshot.totals.files + snapshot.totals.others} files, {added.new_files} new, {added.changed_files} changed"
    log.say(f"snapshot {snapshot.name}: {counts}, {show_size(added.stored_bytes)} stored in {seconds:.1f} s")
    for problem in result.problems[:_PROBLEMS_MAX]:
        log.note(f"problem: {show_name(problem.path)}: {problem.reason}")
    if result.problems:
        log.complain(f"{len(result.problems)} files were skipped; the snapshot holds everything else")

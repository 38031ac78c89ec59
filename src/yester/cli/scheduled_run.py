# SPDX-License-Identifier: MIT
"""What a timer starts (`engine.scheduled_run`), and what is said of it.

Nobody watches. So what happened goes into the source's log; who has a desktop is notified when backups begin to fail, less and less
often while they go on failing, and once when they work again; and when damage is found in the store, in the same way.

The store must be there. A backup that somebody starts by hand makes it, but here that it is missing means that its disk is: a new store
in the place of the disk would take backups that nobody finds again, and fill the wrong disk.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from yester.cli.hook_options import HookReport
from yester.cli.options import open_store
from yester.cli.output import show_name, show_size
from yester.cli.progress import FileProgress, show_progress
from yester.cli.run_log import RunLog, tell_outcome
from yester.engine.backup import BackupResult
from yester.engine.check_report import CheckReport
from yester.engine.hooks import HookRun
from yester.engine.prune import PruneReport
from yester.engine.runs import Outcome, RunBook, RunRecord
from yester.engine.scan import BackupProgress, count_source
from yester.engine.scheduled_run import Ending, RunObserver, ScheduledRun
from yester.engine.source_plan import Source, Upkeep
from yester.engine.upkeep import damage_message
from yester.errors import YesterError

_PROBLEMS_MAX = 100
"""So many files that were skipped are named in a log; more are counted."""
_FINDINGS_MAX = 20
"""So much damage is named in a log; `yester check` names all."""

_BAD = {Outcome.FAILED: "failed", Outcome.TROUBLED: "had trouble"}
_EXIT_CODES = {Outcome.DONE: 0, Outcome.SKIPPED: 3, Outcome.TROUBLED: 1, Outcome.FAILED: 1, Outcome.UNFINISHED: 1}


def run_source(
    source: Source, store_path: Path, upkeep: Upkeep, book: RunBook, *, is_wanted: Callable[[RunRecord | None], bool]
) -> Ending | None:
    """Run a source if that is wanted, see `ScheduledRun.run`, and say what happens."""
    run = ScheduledRun(source, store_path, upkeep, lambda: open_store(store_path, is_written=True))
    return run.run(book, _Telling(source, store_path, book), is_wanted=is_wanted)


def exit_code(ending: Ending) -> int:
    """That of the command: also damage in the store is a failure."""
    return _EXIT_CODES[ending.outcome] if ending.is_store_well else 1


class _Telling(RunObserver):
    """Says what happens in a run of a source, and writes it into its log in the end."""

    def __init__(self, source: Source, store_path: Path, book: RunBook) -> None:
        self._source = source
        self._store_path = store_path
        self._book = book
        self._log = RunLog(source.name, book.log_path(source.name))
        self._hooks = HookReport(source.name, goes_on_after_failure=source.hooks.goes_on_after_failure)

    def hook_ended(self, run: HookRun) -> None:
        self._hooks(run)

    @contextmanager
    def backing_up(self, progress: BackupProgress) -> Iterator[None]:
        source = self._source
        files = FileProgress(
            lambda: (progress.files, progress.size_bytes),
            lambda: count_source(source.paths, one_file_system=source.options.one_file_system),
        )
        with files as line, show_progress(line):
            yield

    def waiting(self, holder: str) -> None:
        self._log.note(f"waiting: another backup into this store is running ({holder})")

    def backed_up(self, result: BackupResult) -> None:
        snapshot, added = result.snapshot, result.snapshot.added
        seconds = (snapshot.finished_ns - snapshot.time_ns) / 10**9
        counts = f"{snapshot.totals.files + snapshot.totals.others} files, {added.new_files} new, {added.changed_files} changed"
        self._log.say(f"snapshot {snapshot.name}: {counts}, {show_size(added.stored_bytes)} stored in {seconds:.1f} s")
        for problem in result.problems[:_PROBLEMS_MAX]:
            self._log.note(f"problem: {show_name(problem.path)}: {problem.reason}")
        if result.problems:
            self._log.complain(f"{len(result.problems)} files were skipped; the snapshot holds everything else")

    def thinned(self, forgotten: int) -> None:
        if forgotten:
            self._log.say(f"forgot {forgotten} by its policy")

    def not_thinned(self, error: YesterError) -> None:
        self._log.complain(f"the snapshot was made, but old ones were not thinned out: {error.message}", error.hint)

    def checked(self, report: CheckReport) -> None:
        if report.is_as_known:
            read = f"{report.snapshots} snapshots, {show_size(report.read_bytes)} of the data read"
            known = f"; damage that is known: {len(report.findings)}" if report.findings else ""
            self._log.say(f"checked the store: {read}; nothing new is wrong{known}")
            return
        for finding in report.findings[:_FINDINGS_MAX]:
            self._log.note(f"{finding.kind.value}: {finding.what}")
        hint = "`yester check` names the files and snapshots that are touched, `yester repair` puts back what it can"
        self._log.complain(damage_message(self._store_path, report), hint)

    def not_checked(self, error: YesterError) -> None:
        self._log.complain(f"the store could not be checked: {error.message}", error.hint)

    def pruned(self, report: PruneReport) -> None:
        gone = f"{len(report.removed)} forgotten snapshots are gone"
        self._log.say(f"pruned the store: {gone}, {show_size(report.freed_bytes)} are free again")

    def not_pruned(self, error: YesterError) -> None:
        self._log.complain(f"space of what was forgotten was not given back: {error.message}", error.hint)

    def looked_after(self, before: RunRecord | None, ended: RunRecord) -> None:
        tell_outcome(f"The store {self._store_path}", before, ended, self._log, bad="has a problem", good="is well")

    def failed(self, error: Exception) -> None:
        if isinstance(error, YesterError):
            self._log.complain(error.message, error.hint)
        elif isinstance(error, OSError):
            self._log.complain(f"the operating system refused: {error}")
        else:
            self._log.note("".join(traceback.format_exception(error)))

    def ended(self, before: RunRecord | None, ended: RunRecord) -> None:
        if ended.outcome is Outcome.UNFINISHED:
            self._log.note(ended.message)
        tell_outcome(f"The backup of {self._source.name}", before, ended, self._log, bad=_BAD.get(ended.outcome, ""), good="works")
        self._book.append_log(self._source.name, "".join(self._log.lines))

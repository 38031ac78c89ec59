# SPDX-License-Identifier: MIT
"""A run that nobody watches: hooks, backup of a source as somebody wants it, forgetting by its policy, now and then a look at the store.

How it ended goes into the source's record (`engine.runs`), and whoever starts it gives an observer that hears of each step: what is said
where, and to whom, is not known here.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from yester.engine.backup import BackupResult, back_up
from yester.engine.forget import thin
from yester.engine.hooks import Backup, HookRun, back_up_with_hooks
from yester.engine.runs import Outcome, RunBook, RunRecord
from yester.engine.scan import BackupProgress
from yester.engine.source_plan import Source, Upkeep
from yester.engine.upkeep import UpkeepObserver, look_after
from yester.errors import YesterError
from yester.store.store import Store


class RunObserver(UpkeepObserver, Protocol):
    """Hears of the steps of a run, in the order they stand here: hooks come before and after all others."""

    def hook_ended(self, run: HookRun) -> None:
        """A hook has ended."""

    def backing_up(self, progress: BackupProgress) -> AbstractContextManager[object]:
        """Is entered while files are read."""
        ...

    def waiting(self, holder: str) -> None:
        """Another backup into the store is waited for."""

    def backed_up(self, result: BackupResult) -> None:
        """The snapshot is made."""

    def thinned(self, forgotten: int) -> None:
        """So many snapshots were forgotten by the policy."""

    def not_thinned(self, error: YesterError) -> None:
        """The policy could not be kept to."""

    def failed(self, error: Exception) -> None:
        """The run ends by this."""

    def ended(self, before: RunRecord | None, ended: RunRecord) -> None:
        """Always the last: how it ended, and how the one before did."""


class Ending(NamedTuple):
    """How a run ended, and why so: what its record says."""

    outcome: Outcome
    message: str = ""
    is_store_well: bool = True
    """False if the store was looked after in it, and not found well; that has a record of its own (`engine.upkeep`)."""


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """What is run. `open_store` opens the store of `store_path`, not before hooks have run: one may have to plug its disk in."""

    source: Source
    store_path: Path
    upkeep: Upkeep
    open_store: Callable[[], Store]

    def run(self, book: RunBook, observer: RunObserver, *, is_wanted: Callable[[RunRecord | None], bool]) -> Ending | None:
        """Run the source, if that is wanted in view of its last run; how it ended, or None if it is not wanted.

        Its failure is told and kept, and not raised. What looking after the store found is the store's: it makes no good backup a bad one.

        Raises:
            BusyError: a run of it is under way; nothing was done. StoreAccessError: what is known of runs cannot be written.
            KeyboardInterrupt: it was interrupted, which is kept. Other exceptions are mistakes of yester's own, and kept as well.
        """
        with book.holding(self.source.name):
            before = book.read(self.source.name)
            if not is_wanted(before):
                return None
            record = book.begin(self.source.name, time.time_ns())
            ending = Ending(Outcome.UNFINISHED, "it was interrupted; the next one goes on where it was")
            try:
                ending = self._run(book, observer)
            except Exception as error:
                ending = Ending(Outcome.FAILED, _show_failure(error))
                observer.failed(error)
                if not isinstance(error, (YesterError, OSError)):
                    raise
            finally:
                observer.ended(before, book.end(record, ending.outcome, time.time_ns(), ending.message))
            return ending

    def _run(self, book: RunBook, observer: RunObserver) -> Ending:
        source, trouble, hooks = self.source, list[str](), list[HookRun]()
        is_store_well = True

        def back_up_and_look_after() -> BackupResult:
            nonlocal is_store_well
            with self.open_store() as store:
                progress = BackupProgress()
                with observer.backing_up(progress):
                    result = back_up(store, source.paths, source.options, progress=progress, on_wait=observer.waiting)
                observer.backed_up(result)
                try:
                    _thin(store, source, observer)
                except YesterError as error:
                    trouble.append(f"the snapshot was made, but old ones were not thinned out: {error.message}")
                    observer.not_thinned(error)
                is_store_well = look_after(store, self.upkeep, book, observer)
                return result

        def hook_ended(run: HookRun) -> None:
            hooks.append(run)
            observer.hook_ended(run)

        result = back_up_with_hooks(source.hooks, Backup(self.store_path, source.name, source.paths), back_up_and_look_after, hook_ended)
        trouble += [f"the hook {run.name} ({run.occasion.value}) {run.problem}" for run in hooks if run.problem]
        if trouble:
            return Ending(Outcome.TROUBLED, "; ".join(trouble), is_store_well)
        if result.problems:
            return Ending(Outcome.SKIPPED, f"{len(result.problems)} files were skipped; the log names them", is_store_well)
        return Ending(Outcome.DONE, "", is_store_well)


def _thin(store: Store, source: Source, observer: RunObserver) -> None:
    if source.policy is not None:
        verdicts = thin(store, source.name, source.policy, now_ns=time.time_ns())
        observer.thinned(sum(not verdict.is_kept for verdict in verdicts))


def _show_failure(error: Exception) -> str:
    if isinstance(error, YesterError):
        return error.message
    return f"the operating system refused: {error}" if isinstance(error, OSError) else f"unexpected error: {error!r}"

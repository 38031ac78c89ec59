# SPDX-License-Identifier: MIT
"""A run by schedule: what is done, in which order, what counts as trouble, and what is kept of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.damaging import flip_chunk
from tests.engine.planting import SMALL_CHUNKS
from yester.core.retention import Policy
from yester.engine import scheduled_run
from yester.engine.backup import BackupOptions, BackupResult
from yester.engine.check import check
from yester.engine.check_report import CheckReport
from yester.engine.hooks import HookRun, Hooks
from yester.engine.prune import PruneReport
from yester.engine.runs import Outcome, RunBook, RunRecord
from yester.engine.scan import BackupProgress
from yester.engine.scheduled_run import RunObserver, ScheduledRun
from yester.engine.source_plan import Source, Upkeep
from yester.engine.upkeep import store_key
from yester.errors import BusyError, ConflictError, YesterError
from yester.store.folder import PRUNE_LOCK_FILE
from yester.store.locks import file_lock
from yester.store.store import Store

ALWAYS, NEVER = Upkeep(0, 1.0), Upkeep(None, 1.0)


class Heard(RunObserver):
    """What an observer hears, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.last: RunRecord | None = None

    def hook_ended(self, run: HookRun) -> None:
        self.steps.append(f"hook {run.occasion.value}")

    @contextmanager
    def backing_up(self, progress: BackupProgress) -> Iterator[None]:
        self.steps.append("backing up")
        yield
        self.steps.append(f"read {progress.files}")

    def waiting(self, holder: str) -> None:
        self.steps.append("waiting")

    def backed_up(self, result: BackupResult) -> None:
        self.steps.append("backed up")

    def thinned(self, forgotten: int) -> None:
        self.steps.append(f"thinned {forgotten}")

    def not_thinned(self, error: YesterError) -> None:
        self.steps.append("not thinned")

    def checked(self, report: CheckReport) -> None:
        self.steps.append("checked" if report.is_whole else "damaged")

    def not_checked(self, error: YesterError) -> None:
        self.steps.append("not checked")

    def pruned(self, report: PruneReport) -> None:
        self.steps.append("pruned")

    def not_pruned(self, error: YesterError) -> None:
        self.steps.append(f"not pruned: {error.message}")

    def looked_after(self, before: RunRecord | None, ended: RunRecord) -> None:
        self.steps.append(f"store {ended.outcome.value}")

    def failed(self, error: Exception) -> None:
        self.steps.append(f"failed by {type(error).__name__}")

    def ended(self, before: RunRecord | None, ended: RunRecord) -> None:
        self.steps.append(f"ended {ended.outcome.value}")
        self.last = ended


@pytest.fixture
def book(tmp_path: Path) -> RunBook:
    return RunBook(tmp_path / "runs")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store, beside a folder `source` with one file."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"1" * 1000)
    Store.create(tmp_path / "store", chunking=SMALL_CHUNKS).close()
    return tmp_path / "store"


def plan(path: Path, *, hooks: Hooks | None = None, policy: Policy | None = None, upkeep: Upkeep = NEVER) -> ScheduledRun:
    source = Source(
        name="docs", options=BackupOptions(source="docs"), hooks=hooks or Hooks(), paths=(path.parent / "source",), policy=policy
    )
    return ScheduledRun(source, path, upkeep, lambda: Store.open(path))


def wanted(_before: RunRecord | None) -> bool:
    return True


def test_steps_come_in_their_order(path: Path, book: RunBook, heard: Heard) -> None:
    hooks = Hooks(before=("true",), after=("true",))
    ending = plan(path, hooks=hooks, policy=Policy(last=1), upkeep=ALWAYS).run(book, heard, is_wanted=wanted)
    assert ending == (Outcome.DONE, "", True)
    assert heard.steps == [
        "hook before", "backing up", "read 1", "backed up", "thinned 0", "checked", "pruned", "store done", "hook after", "ended done",
    ]  # fmt: skip
    assert heard.last == book.read("docs")


def test_a_run_that_is_not_wanted_does_nothing_and_leaves_the_record(path: Path, book: RunBook, heard: Heard) -> None:
    plan(path).run(book, heard, is_wanted=wanted)
    before = book.read("docs")
    assert plan(path).run(book, heard, is_wanted=lambda record: record != before) is None
    assert book.read("docs") == before
    assert heard.steps.count("backing up") == 1


def test_a_second_run_of_a_source_hears_that_it_is_under_way(path: Path, book: RunBook, heard: Heard) -> None:
    with book.holding("docs"), pytest.raises(BusyError):
        plan(path).run(book, heard, is_wanted=wanted)
    assert heard.steps == []


def test_a_failing_hook_after_a_good_backup_is_trouble(path: Path, book: RunBook, heard: Heard) -> None:
    ending = plan(path, hooks=Hooks(after=("exit 3",))).run(book, heard, is_wanted=wanted)
    assert ending is not None
    assert (ending.outcome, "the hook 'exit 3' (after)" in ending.message) == (Outcome.TROUBLED, True)
    record = book.read("docs")
    assert record is not None
    assert (record.outcome, record.failures, record.good_ns > 0) == (Outcome.TROUBLED, 1, True)


def test_thinning_that_fails_is_trouble_and_keeps_nobody_from_looking_after_the_store(
    path: Path, book: RunBook, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduled_run, "thin", _raising(ConflictError("refused")))
    ending = plan(path, policy=Policy(last=1), upkeep=ALWAYS).run(book, heard, is_wanted=wanted)
    assert ending == (Outcome.TROUBLED, "the snapshot was made, but old ones were not thinned out: refused", True)
    assert heard.steps[-5:] == ["not thinned", "checked", "pruned", "store done", "ended troubled"]


def test_a_failure_is_told_and_kept_and_not_raised(path: Path, book: RunBook, heard: Heard) -> None:
    (path.parent / "source").rename(path.parent / "away")
    ending = plan(path, hooks=Hooks(on_failure=("true",))).run(book, heard, is_wanted=wanted)
    assert ending is not None
    assert (ending.outcome, "does not exist" in ending.message) == (Outcome.FAILED, True)
    assert heard.steps == ["backing up", "hook failure", "failed by NotFoundError", "ended failed"]


def test_a_mistake_of_our_own_is_kept_and_raised(path: Path, book: RunBook, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled_run, "thin", _raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        plan(path, policy=Policy(last=1)).run(book, heard, is_wanted=wanted)
    assert heard.last is not None
    assert (heard.last.outcome, heard.last.message) == (Outcome.FAILED, "unexpected error: RuntimeError('a bug')")


def test_an_interrupted_run_is_kept_as_one(path: Path, book: RunBook, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled_run, "thin", _raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        plan(path, policy=Policy(last=1)).run(book, heard, is_wanted=wanted)
    assert heard.steps[-1] == "ended unfinished"
    assert not book.is_running("docs")


def test_damage_in_the_store_makes_no_good_backup_a_bad_one(path: Path, book: RunBook, heard: Heard) -> None:
    plan(path).run(book, heard, is_wanted=wanted)
    with Store.open(path) as store:
        flip_chunk(store, store.chunk_id(b"1" * 1000))
        assert not check(store, read_data=True).is_whole
    ending = plan(path, upkeep=ALWAYS).run(book, heard, is_wanted=wanted)
    assert ending == (Outcome.DONE, "", False)
    assert heard.steps[-3:] == ["damaged", "store failed", "ended done"]
    record, of_store = book.read("docs"), book.read(store_key(path))
    assert record is not None
    assert of_store is not None
    assert (record.outcome, record.failures) == (Outcome.DONE, 0)
    assert (of_store.outcome, of_store.message) == (Outcome.FAILED, f"damage in the store {path}: 2 findings"), "a segment and a chunk"


def test_a_prune_that_somebody_else_is_at_is_not_waited_for_and_no_problem(path: Path, book: RunBook, heard: Heard) -> None:
    with file_lock(path / PRUNE_LOCK_FILE, lambda _: None):
        ending = plan(path, upkeep=ALWAYS).run(book, heard, is_wanted=wanted)
    assert ending == (Outcome.DONE, "", True)
    assert heard.steps[-3:] == ["checked", "store done", "ended done"]


def test_a_store_that_another_run_looks_after_is_left_to_it(path: Path, book: RunBook, heard: Heard) -> None:
    with book.holding(store_key(path)):
        ending = plan(path, upkeep=ALWAYS).run(book, heard, is_wanted=wanted)
    assert ending == (Outcome.DONE, "", True)
    assert "checked" not in heard.steps


def _raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail

# SPDX-License-Identifier: MIT
"""Repairing a damaged store: what is lost is put back from wherever it still is, the rest is noted as lost, and all else is kept.

In this order, each step a transaction or a few, so that a repair that is interrupted at any of them has done no harm and can be run again:

1. If LMDB's own pages are damaged, all that can be read of them goes into a new data file (`engine.repair_pages`).
2. Every segment is read and hashed (`repair_index`), records are judged (`repair_records`). If one of a snapshot is lost, what then has
   no name any more gets one (`repair_nameless`), before anything else is done: the loss is known only as long as the damaged record is
   there. Then `StructureCheck` tells which chunks are needed and would still be lost with the index put right.
3. Rows of live folders that are damaged are taken out, and what hung on them is made again (`repair_live`): only then is it known
   what such a folder needs. The index and the records are put right.
4. Lost chunks are looked for in the files of this host (`repair_files`), and stored again.
5. What is still lost is noted in the table `damaged`: exactly the files that need it give an error. What is lost no more leaves that table.
6. The structure is checked once more, and the report says what stays damaged.

Trees that are lost are found in segments only: what a folder looked like cannot be told from files. A backup makes them anew.

What was planned from one view of the store is looked at again in the transaction that does it, since live folders and backups only add.
A repair holds their locks all the same: nobody should build on what is damaged.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from yester.core.ids import ChunkId
from yester.engine.check import AFFECTED_MAX, FINDINGS_MAX, IndexChange, StructureCheck, check_database
from yester.engine.check_data import segment_number
from yester.engine.check_report import CheckReport, Finding, FindingKind
from yester.engine.repair_files import FileSearch, FoundIn, Wanted
from yester.engine.repair_index import Survey, survey_segments
from yester.engine.repair_live import LiveLoss, LivePlan, plan_live
from yester.engine.repair_nameless import find_nameless, keep_nameless
from yester.engine.repair_pages import PagesReport, rebuild
from yester.engine.repair_records import RecordChange, plan_records
from yester.engine.steps import StepProgress
from yester.engine.trees import TreeReader
from yester.errors import ConflictError, CorruptionError, FormatError, NotFoundError, StoreAccessError
from yester.store.chunks import SEGMENTS_MAX, count_sweep, last_segment, remove_segments, segment_key
from yester.store.copying import check_copy_folder, copy_data_file
from yester.store.damage import note_damaged
from yester.store.folder import check_store, lock_for_repair, use_alone
from yester.store.live import iter_names, source_of
from yester.store.lmdb import Environment, ReadTransaction, Table, WriteTransaction
from yester.store.segments import Kind, parse_header
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

if TYPE_CHECKING:
    from yester.store.slots import Unlock

_ROWS_IN_TRANSACTION = 20_000
_UNLIMITED = 1 << 40
_LASTING = frozenset({FindingKind.CHUNK, FindingKind.TREE, FindingKind.LIVE, FindingKind.KEY})
"""Kinds of damage that a repair may not be able to put right."""
_FILES_MAX = 1000
"""Files of this host that are told one by one."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """`copy_to`: a missing or empty folder that gets a copy of the store before anything is written; None for no copy."""

    copy_to: Path | None = None
    is_dry_run: bool = False


@dataclass(slots=True)
class RepairReport:
    """What was done, or in a dry run would be."""

    read_bytes: int = 0
    """Decompressed bytes that were hashed."""
    copied_bytes: int = 0
    pages: PagesReport | None = None
    """What became of the data file, if LMDB's own pages were damaged."""
    from_segments: int = 0
    """Needed chunks that were in the store, and that the index did not lead to."""
    from_files: int = 0
    found_in: list[FoundIn] = field(default_factory=list)
    """The files of this host they came from, at most `_FILES_MAX`."""
    newly_lost: int = 0
    """Chunks that were noted as lost by this repair."""
    dropped_entries: int = 0
    """Index entries that led to something else, of chunks that are nowhere."""
    dropped_segments: int = 0
    """Segments of which nothing can be read."""
    mended_segments: int = 0
    """Segments whose header was damaged, and could be made again."""
    foreign_segments: int = 0
    """Segments that say that a newer release wrote them. They stay: it may be so."""
    records: list[RecordChange] = field(default_factory=list)
    """What was done to records of snapshots, and to what lists them."""
    mended_folders: list[str] = field(default_factory=list)
    """Live folders of which damaged rows were taken out."""
    live_losses: list[LiveLoss] = field(default_factory=list)
    """What became of files and folders in them."""
    recovered: StoredSnapshot | None = None
    """The snapshot that got all folders to which nothing leads any more, since records were lost; None if there are none."""
    recovered_folders: int = 0
    """How many these are; also in a dry run."""
    forgotten_folders: int = 0
    """Folders that the next backup reads anew, since what was remembered of them was wrong."""
    after: CheckReport = field(default_factory=lambda: CheckReport(()))
    """What stays damaged."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged (any more), and no record of a snapshot was lost, and nothing of a live folder."""
        is_recovered = self.recovered_folders or (self.pages is not None and self.pages.recovered_folders)
        return self.after.is_whole and not self.live_losses and not is_recovered and not any(record.is_loss for record in self.records)


def repair(path: Path, options: RepairOptions, progress: StepProgress | None = None, unlock: "Unlock | None" = None) -> RepairReport:
    """Repair the store in `path`; durable on return. Safe to interrupt, and to run again. `unlock` as for `Store.open`.

    Raises:
        BusyError: somebody backs up, or uses a live folder; nothing was changed.
        ConflictError: the folder for the copy is not empty, or in the store; nothing was changed.
        StoreFullError, StoreAccessError: the copy, or the store, cannot be written; what was repaired before is.
        FormatError: a newer release made the store; nothing was changed.
        CorruptionError: nothing in its file is from a store; nothing was changed.
    """
    progress = progress or StepProgress()
    report = RepairReport()
    check_store(path)
    problems = _page_problems(path, progress)
    with ExitStack() as stack, ExitStack() as alone:
        if not options.is_dry_run:
            if problems:
                alone.enter_context(use_alone(path))
            stack.enter_context(lock_for_repair(path))
            if options.copy_to is not None:
                check_copy_folder(path, options.copy_to)
        if problems:
            report.pages = PagesReport(problems)
            if options.is_dry_run:
                report.after = CheckReport(tuple(Finding(FindingKind.DATABASE, problem) for problem in problems[:FINDINGS_MAX]))
                return report
            _repair_pages(path, options, report, progress, unlock)
        alone.close()
        with Store.open(path, readonly=options.is_dry_run, unlock=unlock) as store:
            if not options.is_dry_run:
                if store.environment.readonly:
                    message = f"the store {path} may not be written; nothing was changed"
                    raise StoreAccessError(message, hint="see whether its disk is mounted read-only, and whose it is; --dry-run only looks")
                if options.copy_to is not None and not report.copied_bytes:
                    progress.begin("copy of the store")
                    report.copied_bytes = _copy(store, options.copy_to)
            _Repair(store, report, progress, is_dry_run=options.is_dry_run).run()
    return report


def _repair_pages(path: Path, options: RepairOptions, report: RepairReport, progress: StepProgress, unlock: "Unlock | None") -> None:
    """Step 1. There is none in a dry run: what can be read is known when it was."""
    assert report.pages is not None
    if options.copy_to is not None:
        progress.begin("copy of the store")
        report.copied_bytes = copy_data_file(path, options.copy_to)
    rebuild(path, report.pages, progress, unlock)


def _page_problems(path: Path, progress: StepProgress) -> list[str]:
    """Why the store's data file cannot be used as it is; empty if it can."""
    try:
        problems = [finding.what for finding in check_database(path, progress)]
        if not problems:
            # Its pages are sound, but a name of a table in them, or the parameters, may not be what was written.
            Store.read_locked(path)
    except (CorruptionError, ConflictError, NotFoundError) as error:
        return [error.message]
    return problems


def _copy(store: Store, folder: Path) -> int:
    """Copy the store while nobody writes."""
    return store.environment.write(lambda _transaction: copy_data_file(store.path, folder))


class _Repair:
    """Steps 2 to 6 on an open store."""

    def __init__(self, store: Store, report: RepairReport, progress: StepProgress, *, is_dry_run: bool) -> None:
        self._store = store
        self._environment = store.environment
        self._report = report
        self._progress = progress
        self._is_dry_run = is_dry_run

    def run(self) -> None:
        """Do it all."""
        survey = self._survey()
        with self._environment.read() as view:
            records = plan_records(view)
        if any(record.is_loss for record in records):
            self._keep_nameless(survey)
        self._mend_live(survey)
        with self._environment.read() as view:
            before, change, wanted = self._plan(view, survey)
        self._report.from_segments = len(change.placed)
        self._report.dropped_entries = len(change.dropped)
        self._report.dropped_segments = len(survey.unreadable)
        self._report.mended_segments = len(survey.mended)
        self._report.foreign_segments = len(survey.foreign)
        if not self._is_dry_run:
            records = self._put_right(change, survey, records)
        self._report.records = [record for record in records if record.table is not Table.SCAN]
        self._report.forgotten_folders = len(records) - len(self._report.records)
        lost_trees = {finding.chunk for finding in before.findings if finding.chunk and finding.kind is FindingKind.TREE}
        self._search_files(wanted, change)
        lost = wanted.lost | lost_trees
        if self._is_dry_run:
            self._report.newly_lost = sum(finding.chunk in lost and not finding.known_since_ns for finding in before.findings)
            self._report.after = _as_it_would_be(before, lost, self._report.mended_folders)
            return
        self._report.newly_lost = self._note_lost(lost)
        with self._environment.read() as view:
            structure = StructureCheck(self._store, view, {}, self._progress, findings_max=FINDINGS_MAX, affected_max=AFFECTED_MAX)
            self._report.after = structure.report()

    # Step 2.

    def _survey(self) -> Survey:
        if not self._is_dry_run:
            _refile_segments(self._environment)
        survey = survey_segments(self._environment, self._progress)
        self._report.read_bytes = survey.read_bytes
        return survey

    def _keep_nameless(self, survey: Survey) -> None:
        """Give what a lost record named another name. The index must lead to all of it, needed or not."""
        self._progress.begin("folders without a name")
        if self._is_dry_run:
            with self._environment.read() as view:
                self._report.recovered_folders = len(find_nameless(view, self._environment))
            return
        self._put_found(survey)
        kept = keep_nameless(self._environment, self._store.parameters.chunking, now_ns=time.time_ns())
        if kept is not None:
            self._report.recovered, self._report.recovered_folders = kept

    def _put_found(self, survey: Survey) -> None:
        """Have the index lead to all that was found, needed or not."""
        self._put_entries(IndexChange(set(), survey.change.placed))
        self._write(survey.mended.items(), lambda transaction, item: transaction.put(Table.SEGMENTS, *item))

    def _mend_live(self, survey: Survey) -> None:
        """Take damaged rows out of live folders. What cannot be planned stays as it is: a check tells it."""
        self._progress.begin("live folders")
        plans, failed = self._plan_live()
        if not self._is_dry_run and (plans or failed):
            self._put_found(survey)  # their bases must be readable
            plans, _ = self._plan_live()
        if any(plan.is_base_lost for plan in plans):
            self._keep_nameless(survey)
        for plan in plans:
            if self._is_dry_run or self._environment.write(plan.apply):
                self._report.mended_folders.append(plan.name)
                self._report.live_losses += plan.losses

    def _plan_live(self) -> tuple[list[LivePlan], int]:
        """How to mend the live folders that are damaged, and of how many that cannot be told."""
        plans, failed = [], 0
        with self._environment.read() as view:
            for name in iter_names(view):
                try:
                    plan = plan_live(view, self._store.reader(), name, self._store.latest_snapshot(source_of(name)))
                except (CorruptionError, FormatError):
                    failed += 1
                    continue
                if plan.rows:
                    plans.append(plan)
        return plans, failed

    def _plan(self, view: ReadTransaction, survey: Survey) -> tuple[CheckReport, IndexChange, Wanted]:
        """What a check would say with the index put right; which part of that needs doing; what files are to be looked into."""
        structure = StructureCheck(
            self._store,
            view,
            {},
            self._progress,
            findings_max=_UNLIMITED,
            affected_max=_UNLIMITED,
            change=survey.change,
        )
        before = structure.report()
        needed = {chunk: location for chunk, location in survey.change.placed.items() if structure.is_needed(location)}
        # An entry that leads astray goes in any case; one of a chunk that is elsewhere, and not needed, as well.
        dropped = set(survey.change.dropped) | {
            chunk for chunk in survey.change.placed if chunk not in needed and view.get(Table.CHUNKS, chunk) is not None
        }
        return before, IndexChange(dropped, needed), _find_files(before, TreeReader(structure))

    # Step 3.

    def _put_right(self, change: IndexChange, survey: Survey, records: list[RecordChange]) -> list[RecordChange]:
        """Make these changes; returns those of records that were made, since the rows were still what they were planned from."""
        self._progress.begin("index and records")
        self._put_entries(change)
        self._write(survey.mended.items(), lambda transaction, item: transaction.put(Table.SEGMENTS, *item))
        numbers = [number for key in survey.unreadable if (number := segment_number(key)) is not None]
        if numbers:
            self._environment.write(lambda transaction: remove_segments(transaction, numbers))
        made = self._write(records, lambda transaction, record: record.apply(transaction))
        if any(record.table in {Table.SNAPSHOTS, Table.FORGOTTEN} for record in made):
            self._store.announce_snapshots()
        return made

    def _put_entries(self, change: IndexChange) -> None:
        """Make a change of the index, but for entries that others have changed meanwhile."""
        with self._environment.read() as view:
            wrong = {chunk: bytes(view.get(Table.CHUNKS, chunk) or b"") for chunk in (*change.dropped, *change.placed)}

        def put_entry(transaction: WriteTransaction, chunk: ChunkId) -> bool:
            """Whether it was removed."""
            transaction.looked_at(2)
            if bytes(transaction.get(Table.CHUNKS, chunk) or b"") != wrong[chunk]:
                return False  # somebody stored it meanwhile
            location = change.placed.get(chunk)
            if location is None:
                return transaction.delete(Table.CHUNKS, chunk)
            transaction.put(Table.CHUNKS, chunk, location.pack())
            transaction.delete(Table.DAMAGED, chunk)
            return False

        for batch in _batches(sorted(wrong)):

            def apply(transaction: WriteTransaction, batch: list[ChunkId] = batch) -> None:
                removed = [chunk for chunk in batch if put_entry(transaction, chunk)]
                if removed:
                    count_sweep(transaction)  # whoever has asked for one of these asks again (docs/format.md §1)

            self._environment.write(apply)

    def _write(self, items: Iterable[Item], do: Callable[[WriteTransaction, Item], object]) -> list[Item]:
        """Do something for each item, in transactions that are not too large; returns those for which it gave something true."""
        done: list[Item] = []
        for batch in _batches(items):

            def apply(transaction: WriteTransaction, batch: list[Item] = batch) -> list[Item]:
                return [item for item in batch if do(transaction, item)]

            done += self._environment.write(apply)
        return done

    # Step 4.

    def _search_files(self, wanted: Wanted, change: IndexChange) -> None:
        def has(chunk: ChunkId) -> bool:
            return chunk in change.placed or (chunk not in change.dropped and self._store.has_chunk(chunk))

        def search(keep: Callable[[Kind, bytes | memoryview], object]) -> None:
            for found in FileSearch(self._store.chunking, wanted, name=self._store.chunk_id, has=has, keep=keep).run(self._progress):
                self._report.from_files += found.chunks
                if len(self._report.found_in) < _FILES_MAX:
                    self._report.found_in.append(found)

        if not wanted.lost:
            return
        if self._is_dry_run:
            search(lambda _kind, _data: None)
        else:
            with self._store.writer() as writer:
                search(writer.add)

    # Step 5.

    def _note_lost(self, lost: set[ChunkId]) -> int:
        """Make the table `damaged` say what is lost, and nothing else; returns how many it did not say before."""
        now_ns = time.time_ns()
        with self._environment.read() as view:
            known = {ChunkId(chunk) for chunk, _ in view.iterate(Table.DAMAGED)}

        def note(transaction: WriteTransaction, chunk: ChunkId) -> None:
            if transaction.get(Table.CHUNKS, chunk) is None:
                note_damaged(transaction, chunk, now_ns=now_ns)

        self._write(sorted(lost - known), note)
        self._write(sorted(known - lost), lambda transaction, chunk: transaction.delete(Table.DAMAGED, chunk))
        return len(lost - known)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _ROWS_IN_TRANSACTION)):
        yield batch


def _refile_segments(environment: Environment) -> None:
    """Give segments whose key is no number, or one too large, the next numbers: no index entry could lead to them."""
    with environment.read() as view:
        strange = [key for key, _ in view.iterate(Table.SEGMENTS) if _is_strange(key)]
    if not strange:
        return

    def apply(transaction: WriteTransaction) -> None:
        found = []
        for key in strange:
            stored = bytes(transaction.get(Table.SEGMENTS, key) or b"")
            try:
                parse_header(stored, environment.key)
                found.append(stored)
            except CorruptionError:
                pass  # it is none
            except FormatError:
                continue
            transaction.delete(Table.SEGMENTS, key)
        for number, stored in enumerate(found, start=last_segment(transaction) + 1):
            transaction.put(Table.SEGMENTS, segment_key(number), stored)

    environment.write(apply)


def _is_strange(key: bytes) -> bool:
    number = segment_number(key)
    return number is None or number >= SEGMENTS_MAX


def _find_files(report: CheckReport, trees: TreeReader) -> Wanted:
    """The lost chunks that files of the host may have, and which files those would be."""
    wanted = Wanted({finding.chunk for finding in report.findings if finding.chunk and finding.kind is FindingKind.CHUNK})
    for finding in report.findings:
        if finding.chunk not in wanted.lost:
            continue
        for affected in finding.affected:
            for stored in (affected.first, affected.last):
                try:
                    entry = trees.find(stored.snapshot.root, affected.path)
                except (CorruptionError, FormatError):
                    continue
                if entry is not None and not affected.is_folder:
                    wanted.add(stored.snapshot, affected.path, entry.size)
    return wanted


def _as_it_would_be(before: CheckReport, lost: set[ChunkId], mended: list[str]) -> CheckReport:
    """What a check would say after a repair by which only these chunks stay lost, and these live folders are mended."""
    lasting = [
        replace(finding, affected=finding.affected[:AFFECTED_MAX], affected_more=max(0, len(finding.affected) - AFFECTED_MAX))
        for finding in before.findings
        if finding.kind in _LASTING and (finding.chunk is None or finding.chunk in lost) and finding.live_folder not in mended
    ]
    return replace(before, findings=tuple(lasting[:FINDINGS_MAX]), findings_more=max(0, len(lasting) - FINDINGS_MAX))

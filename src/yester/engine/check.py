# SPDX-License-Identifier: MIT
"""Looking for damage: whether everything that is stored can be found, read, and is what was written.

Changes nothing. The steps:

1. To read all data, LMDB's pages are judged; if they are damaged the rest is left alone, since LMDB itself may crash on them.
2. To read all data or a sample, segments are decoded and their chunks are hashed (`engine.check_data`), of a large store in a process
   beside the next step. What does not look right is only noted: the store may be changing meanwhile.
3. In *one* transaction, so that backups and prunes that run meanwhile do not matter: segment headers; the chunk index
   against them; the chunks noted in step 2 once more, and now for certain; snapshot records, also forgotten ones, and their ids; every
   tree below every snapshot, each once, and that every chunk they name is indexed, in its place and of the right length; live folders;
   what backups remember of their sources; key slots.
   Where the process of step 2 notes something that concerns the index, step 3 is done once more, knowing that.
4. If anything was wrong, the paths and snapshots that it touches are looked for, in the damaged trees alone.

A chunk that a repair gave up is told as that: no news. `StructureCheck` can also look at the store as it will be with another chunk index,
which is how `engine.repair` knows what its work will come to.

Memory: as `engine.places` has it, since whether a tree was visited or a chunk is needed is a bit at the chunk's place; a byte a place of
segments in which something is not needed, in both processes; 100 MB of entries that were looked at; the bounded list of findings.

The transaction of step 3 lives as long as the step (20 s a million files); what is written meanwhile cannot use the space
of what it replaces, so the file grows a little more than it would.

Threads: one, and while it decodes segments a few of its own, here or in the other process (`engine.check_worker`).
"""

import logging
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from yester.core.content import HOLE, Content, Span, read_list, unpack_spans
from yester.core.ids import ID_BYTES, ChunkId, TreeId, snapshot_id
from yester.core.records import Entry, decode_forgotten, decode_seen, decode_snapshot, decode_tree, entry_problem
from yester.core.times import snapshot_name
from yester.engine.check_data import choose_segments, read_and_compare, segment_number
from yester.engine.check_live import LiveCheck
from yester.engine.check_report import Affected, CheckReport, Finding, FindingKind
from yester.engine.check_worker import DataReader
from yester.engine.places import BAD, INDEXED, NEEDED, TAINTED, TWICE, VISITED, Places, SegmentReader
from yester.engine.steps import StepProgress
from yester.engine.trees import read_tree_record
from yester.engine.walk import Run, walk_snapshots
from yester.errors import CorruptionError, FormatError
from yester.store.chunks import LOCATION_BYTES, Location, unpack_location
from yester.store.damage import find_damaged
from yester.store.lmdb import TOUCHED_BYTES, ReadTransaction, Table
from yester.store.segments import parse_header
from yester.store.snapshots import StoredSnapshot, snapshot_key
from yester.store.store import Store
from yester.store.verify import verify_data_file

if TYPE_CHECKING:
    from yester.store.slots import Unlock

BESIDE_BYTES_MIN = 64 * 1024 * 1024
"""The data of a smaller store is read before a process to read it would be there."""
BESIDE_SEGMENTS_MIN = 64
"""The same of a smaller sample."""
FINDINGS_MAX = 1000
"""Findings that are told one by one; more are only counted."""
AFFECTED_MAX = 20
"""Paths that are told of each finding; more are only counted."""
_PATHS_MAX = 200_000
"""Paths in damaged folders of a source that are looked at to name those that damage touches. Folders that hold the same folder a thousand
times, some levels deep, have more paths than anybody can walk."""

_KEY_BYTES_MAX = 511
"""LMDB refuses longer keys."""

_SOUND_MAX = 250_000
"""100 MB."""
_log = logging.getLogger(__name__)
_ListKey = tuple[ChunkId, int]
"""A span list, and the level of the span that names it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A share of the segments, between 0 and 1, chosen at random; the same seed chooses the same ones."""

    share: float
    seed: int


def check_path(
    path: Path,
    *,
    read_data: bool | Sample,
    progress: StepProgress | None = None,
    unlock: "Unlock | None" = None,
    judge_history: Callable[[Store], str] = lambda _store: "",
) -> CheckReport:
    """As `check`, of the store in `path`, which with all of `read_data` is only opened after LMDB's pages were found to be sound.

    `unlock` as for `Store.open`. `judge_history` says what is wrong with the store for somebody who has seen it before, if anything is.

    Raises:
        YesterError: as `Store.open`.
    """
    progress = progress or StepProgress()
    findings = check_database(path, progress) if read_data is True else ()
    if findings:
        return CheckReport(findings)
    with Store.open(path, unlock=unlock) as store:
        problem = judge_history(store)
        report = _check_open(store, read_data=read_data, progress=progress)
        return replace(report, findings=(Finding(FindingKind.HISTORY, problem), *report.findings)) if problem else report


def check(store: Store, *, read_data: bool | Sample, progress: StepProgress | None = None) -> CheckReport:
    """Look for damage; may run beside backups, which it does not block. `read_data`: also in what the segments hold, all or a sample.

    The structure takes 1.5 s of processor time for five snapshots of the Linux source, 84,000 entries each, a tenth of them changed
    between two (2026-11-26, by itself, on the store that `scripts/bench store` makes); for the data see `engine.check_data`.

    Raises:
        StoreAccessError, FormatError: the store as a whole cannot be read. Damage is reported, not raised.
    """
    progress = progress or StepProgress()
    findings = check_database(store.path, progress) if read_data is True else ()
    return CheckReport(findings) if findings else _check_open(store, read_data=read_data, progress=progress)


def check_database(path: Path, progress: StepProgress) -> tuple[Finding, ...]:
    """What is wrong with LMDB's pages."""
    progress.begin("database pages")
    return tuple(Finding(FindingKind.DATABASE, problem) for problem in verify_data_file(path))


def _check_open(store: Store, *, read_data: bool | Sample, progress: StepProgress) -> CheckReport:
    look = partial(_check_structure, store, progress, reads_live_bytes=read_data is True)
    if not read_data:
        _, report = look({})
        return report
    keys = seed = None
    if isinstance(read_data, Sample):
        keys, seed = choose_segments(store.environment, read_data.share, read_data.seed), read_data.seed
    reader = _start_reader(store, keys)
    if reader is None:
        read = read_and_compare(store.environment, progress, keys)
        _, report = look(read.suspects)
    else:
        with reader:
            structure, report = look({})
            read = reader.finish(progress) or read_and_compare(store.environment, progress, keys)
        is_doubtful = structure.needs_suspects(read.suspects)
        del structure  # 100 MB
        if is_doubtful:
            _, report = look(read.suspects)
    return replace(report, read_segments=read.segments, read_bytes=read.raw_bytes, seed=seed)


def _start_reader(store: Store, keys: list[bytes] | None) -> DataReader | None:
    """A process that reads the data; None where that does not pay, or none can be started."""
    is_little = store.environment.file_bytes() < BESIDE_BYTES_MIN or (keys is not None and len(keys) < BESIDE_SEGMENTS_MIN)
    if is_little or len(os.sched_getaffinity(0)) == 1:
        return None
    try:
        return DataReader(store, keys)
    except OSError as error:
        _log.info("no other process could be started: %s", error)
        return None


def _check_structure(
    store: Store, progress: StepProgress, suspects: Mapping[int, bytes], *, reads_live_bytes: bool
) -> tuple["StructureCheck", CheckReport]:
    with store.environment.read() as view:
        structure = StructureCheck(
            store, view, suspects, progress, findings_max=FINDINGS_MAX, affected_max=AFFECTED_MAX, reads_live_bytes=reads_live_bytes
        )
        return structure, structure.report()


# --- step 3: the structure ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Trouble:
    """A finding in the making."""

    kind: FindingKind
    what: str
    affected: list[Affected] = field(default_factory=list)
    affected_more: int = 0
    chunk: ChunkId | None = None
    known_since_ns: int = 0
    live_folder: str | None = None


@dataclass(slots=True)
class _Frame:
    """A tree whose subfolders are being visited. `at` is its place; -1 for what holds the root."""

    at: int
    subfolders: Iterator[TreeId]
    is_tainted: bool = False


@dataclass(frozen=True, slots=True)
class IndexChange:
    """How a chunk index is to be changed: entries that lead astray go, others are added or lead elsewhere."""

    dropped: AbstractSet[ChunkId] = frozenset()
    placed: Mapping[ChunkId, Location] = field(default_factory=dict)


class _ChunkIndex:
    """The chunk index of a view, changed."""

    def __init__(self, view: ReadTransaction, change: IndexChange) -> None:
        self._view = view
        self._change = change

    def get(self, chunk: ChunkId) -> bytes | memoryview | None:
        """The entry of a chunk."""
        placed = self._change.placed.get(chunk)
        if placed is not None:
            return placed.pack()
        return None if chunk in self._change.dropped else self._view.get(Table.CHUNKS, chunk)

    def iterate(self) -> Iterator[tuple[ChunkId, bytes | memoryview]]:
        """All entries."""
        for key, value in self._view.iterate(Table.CHUNKS):
            chunk = ChunkId(key)
            if chunk not in self._change.dropped and chunk not in self._change.placed:
                yield chunk, value
        for chunk, location in self._change.placed.items():
            yield chunk, location.pack()


class StructureCheck:
    """Steps 3 and 4, on one view of the store, as its chunk index would be with a change. `suspects` as `read_and_compare` gives them.

    A *trouble* has a key that tells it from others: a chunk id, a segment number, a place, or a damaged entry itself. Looking
    at the same thing again gives the same keys, which is how the paths of step 4 find their troubles.
    """

    def __init__(
        self,
        store: Store,
        view: ReadTransaction,
        suspects: Mapping[int, bytes],
        progress: StepProgress,
        *,
        findings_max: int,
        affected_max: int,
        change: IndexChange | None = None,
        reads_live_bytes: bool = False,
    ) -> None:
        self._reads_live_bytes = reads_live_bytes
        self._index = _ChunkIndex(view, change or IndexChange())
        self._findings_max = findings_max
        self._affected_max = affected_max
        self._environment = store.environment
        self._view = view
        self._suspects = suspects
        self._progress = progress
        self._reader = SegmentReader(store.environment)
        self._places = Places()
        self._troubles: dict[Hashable, _Trouble] = {}
        self._troubles_more: set[int] = set()
        """Hashes of the keys of those that are only counted."""
        self._sound: dict[bytes, Entry] = {}
        """Entries of files that nothing is wrong with, by their spans, of level 0: most files are in many snapshots."""
        self._lists: dict[_ListKey, tuple[int, tuple[Hashable, ...]]] = {}
        """Bytes of file and troubles of each span list that was looked at."""
        self._unreadable: set[TreeId] = set()
        """Folders whose records are none: reading one again may take long."""
        self._last_segment = 0
        self._trees = 0
        self._files = 0

    def report(self) -> CheckReport:
        """Do it all."""
        self._check_suspects(self._check_index())
        listed = self._check_snapshots()
        snapshots = sorted(listed + self._check_forgotten(), key=lambda stored: (stored.snapshot.source, stored.snapshot.time_ns))
        self._progress.begin("folders")
        for stored in snapshots:
            self.visit_tree(stored.snapshot.root.tree)
        self._progress.begin("live folders")
        live = LiveCheck(self, self._view, reads_bytes=self._reads_live_bytes)
        for stored in snapshots:
            live.check_version(stored.snapshot)
        live.check_folders()
        self._check_scan()
        self._check_key_slots()
        if self._troubles:
            self._progress.begin("affected files")
            self._find_affected(snapshots)
        unneeded = self._places.count_unneeded()
        return CheckReport(
            findings=tuple(
                Finding(
                    trouble.kind,
                    trouble.what,
                    tuple(trouble.affected),
                    trouble.affected_more,
                    trouble.chunk,
                    trouble.known_since_ns,
                    trouble.live_folder,
                )
                for trouble in self._troubles.values()
            ),
            findings_more=len(self._troubles_more),
            snapshots=len(listed),
            trees=self._trees,
            files=self._files,
            chunks=self._view.count(Table.CHUNKS),
            segments=self._view.count(Table.SEGMENTS),
            unneeded_chunks=unneeded.chunks,
            unneeded_bytes=unneeded.chunk_bytes,
            unneeded_segments=unneeded.segments,
            unneeded_stored_bytes=unneeded.stored_bytes,
        )

    def has(self, chunk: ChunkId) -> bool:
        """Whether the index has an entry for a chunk."""
        return self._index.get(chunk) is not None

    def is_needed(self, location: Location) -> bool:
        """Whether anything needs the chunk there; asked after `report`."""
        at = self._places.find(location)
        return at >= 0 and bool(self._places.bits[at] & NEEDED)

    def needs_suspects(self, suspects: Mapping[int, bytes]) -> bool:
        """Whether a place that the index names is suspect, or one of a segment that is newer; asked after `report`, which knew of none."""
        for number, agrees in suspects.items():
            start, end = self._places.bounds(number)
            for place, bits in enumerate(self._places.bits[start:end]):
                if bits & INDEXED and _is_suspect(agrees, place):
                    return True
        return max(suspects, default=0) > self._last_segment

    def _note(self, key: Hashable, kind: FindingKind, what: str) -> Hashable:
        """Remember a trouble, unless it is known; returns its key."""
        if key not in self._troubles:
            if len(self._troubles) < self._findings_max:
                self._troubles[key] = _Trouble(kind, what)
            else:
                self._troubles_more.add(hash(key))
        return key

    # Segments and the chunk index.

    def _check_index(self) -> dict[int, list[tuple[int, ChunkId]]]:
        """Compare the index with the headers; returns, by segment, place and id of each chunk that may be damaged."""
        self._progress.begin("segments", self._view.count(Table.SEGMENTS))
        for key, stored in self._view.iterate(Table.SEGMENTS):
            number = segment_number(key)
            if number is None:
                self._note((key, "segment"), FindingKind.SEGMENT, f"the key {key.hex()} is no segment's")
                continue
            self._last_segment = number
            try:
                self._places.add_segment(number, parse_header(stored, self._environment.key).bounds, len(stored))
            except (CorruptionError, FormatError) as error:
                self._note(number, FindingKind.SEGMENT, f"segment {number} cannot be read: {error.message}")
            self._environment.release_pages(TOUCHED_BYTES)
            self._progress.done += 1
        self._progress.begin("chunk index", self._view.count(Table.CHUNKS))
        suspected: dict[int, list[tuple[int, ChunkId]]] = {}
        bits = self._places.bits
        for chunk, value in self._index.iterate():
            self._progress.done += 1
            at, trouble = self._locate(chunk, value)
            if trouble is not None:
                continue
            if bits[at] & INDEXED:
                bits[at] |= TWICE
                location = unpack_location(value)
                what = f"two chunks are said to be at place {location.place} of segment {location.segment}; one is {chunk.hex()}"
                self._note(location, FindingKind.INDEX, what)
            bits[at] |= INDEXED
            if self._suspects:
                location = unpack_location(value)
                agrees = self._suspects.get(location.segment)
                if agrees is not None and _is_suspect(agrees, location.place):
                    suspected.setdefault(location.segment, []).append((location.place, chunk))
        return suspected

    def _locate(self, chunk: ChunkId, value: bytes | memoryview) -> tuple[int, Hashable]:
        """The number of the place that an index entry names; -1 and a trouble if there is no such place."""
        at = self._places.find_stored(value) if len(value) == LOCATION_BYTES else -1
        if at >= 0:
            return at, None
        try:
            number = unpack_location(value).segment
        except CorruptionError:
            return at, self._note(chunk, FindingKind.INDEX, f"the index entry of chunk {chunk.hex()} is damaged")
        return at, self._note(number, FindingKind.SEGMENT, f"segment {number} is missing, or chunks that should be in it are")

    def _check_suspects(self, suspected: dict[int, list[tuple[int, ChunkId]]]) -> None:
        """Hash these chunks once more, in this view, and mark the places whose bytes are wrong."""
        self._progress.begin("suspected segments", len(suspected))
        for number, chunks in sorted(suspected.items()):
            payload, bounds = self._reader.segment(self._view, number)
            bad = {place for place, chunk in chunks if self._environment.name_chunk(payload[bounds[place] : bounds[place + 1]]) != chunk}
            for place in bad:
                self._places.bits[self._places.find(Location(number, place))] |= BAD
            if bad:
                what = f"segment {number} is damaged: {len(bad)} of its {len(bounds) - 1} chunks are not what was written"
                self._note(number, FindingKind.SEGMENT, what)
            self._progress.done += 1

    # Snapshots.

    def _check_snapshots(self) -> list[StoredSnapshot]:
        """The snapshots that can be decoded, by source and time."""
        self._progress.begin("snapshots", self._view.count(Table.SNAPSHOTS))
        found = []
        summary = self._environment.summary
        if summary is not None and not summary.is_right(self._view):
            what = "the snapshots are not those that were recorded: one was taken away, or put back as it was earlier"
            self._note("summary", FindingKind.SNAPSHOT, what)
        for key, value in self._view.iterate(Table.SNAPSHOTS):
            self._progress.done += 1
            record = bytes(value)
            stored_id = snapshot_id(record)
            shown = f"the snapshot record of {key[:-9].decode('utf-8', 'backslashreplace')!r} with id {stored_id.hex()}"
            if bytes(self._view.get(Table.SNAPSHOT_IDS, stored_id) or b"") != key:
                self._note((key, "id"), FindingKind.SNAPSHOT, f"{shown} is not listed under that id: it or the list is damaged")
            try:
                snapshot = decode_snapshot(record)
            except (CorruptionError, FormatError) as error:
                self._note((key, "record"), FindingKind.SNAPSHOT, f"{shown} cannot be read: {error.message}")
                continue
            if snapshot_key(snapshot) != key:
                self._note((key, "key"), FindingKind.SNAPSHOT, f"{shown} is filed under another source or time than it names")
            found.append(StoredSnapshot(stored_id, snapshot))
        for id_, value in self._view.iterate(Table.SNAPSHOT_IDS):
            listed = self._view.get(Table.SNAPSHOTS, bytes(value)) if 0 < len(value) <= _KEY_BYTES_MAX else None
            if listed is None or snapshot_id(bytes(listed)) != id_:
                self._note((id_, "listed"), FindingKind.SNAPSHOT, f"snapshot {id_.hex()} is listed, but its record is missing or damaged")
        return found

    def _check_forgotten(self) -> list[StoredSnapshot]:
        """The forgotten snapshots that can be decoded: all they need must be there until they are gone."""
        found: list[StoredSnapshot] = []
        if not self._view.has_table(Table.FORGOTTEN):
            return found
        for key, value in self._view.iterate(Table.FORGOTTEN):
            try:
                record = decode_forgotten(value).record
                stored = StoredSnapshot(snapshot_id(record), decode_snapshot(record))
            except (CorruptionError, FormatError) as error:
                shown = key[:-9].decode("utf-8", "backslashreplace")
                self._note((key, "forgotten"), FindingKind.SNAPSHOT, f"a forgotten snapshot of {shown!r} cannot be read: {error.message}")
                continue
            if snapshot_key(stored.snapshot) != key:
                what = f"a forgotten snapshot of {stored.snapshot.source!r} is filed under another source or time than it names"
                self._note((key, "forgotten"), FindingKind.SNAPSHOT, what)
            found.append(stored)
        return found

    def _check_scan(self) -> None:
        """What backups remember: it is what makes them leave files unread, so damage below it ends up in new snapshots."""
        self._progress.begin("remembered folders", self._view.count(Table.SCAN))
        tainted = 0
        for key, value in self._view.iterate(Table.SCAN):
            self._progress.done += 1
            try:
                tree = decode_seen(value).tree
            except (CorruptionError, FormatError) as error:
                self._note((key, "scan"), FindingKind.SCAN, f"what backups remember of a folder cannot be read: {error.message}")
                continue
            if len(tree) == ID_BYTES and self._index.get(tree) is not None:  # else a prune took it: nobody is led astray by that
                tainted += self.visit_tree(tree)
        # Files with damage that is known are read again.
        if tainted and any(not trouble.known_since_ns for trouble in self._troubles.values()):
            what = f"backups remember {tainted} folders with damage in or below them: new snapshots will have the same damage"
            self._note("scan", FindingKind.SCAN, what)

    def _check_key_slots(self) -> None:
        """What opens an encrypted store: damage of one is only noticed by whoever needs it."""
        if self._environment.key is None:
            return
        from yester.store.slots import unsound_slots  # noqa: PLC0415 (ciphers take 20 ms to import, and plain stores need none)

        unsound = unsound_slots(self._view, self._environment.key)
        summary = self._environment.summary
        if not unsound and summary is not None and not summary.has_right_keys(self._view):
            what = "the keys are not those that were recorded: one is gone, or was put back; see `yester key accept --help`"
            self._note("keys", FindingKind.KEY, what)
        for number in unsound:
            what = (
                f"key {number} is damaged, or was changed, and may open the store no more: make it anew with `yester key change {number}`"
            )
            self._note((number, "key"), FindingKind.KEY, what)

    # Trees and files.

    def visit_tree(self, root: TreeId) -> bool:
        """See `Structure`."""
        bits = self._places.bits
        frames = [_Frame(-1, iter((root,)))]
        while True:
            frame = frames[-1]
            tree = next(frame.subfolders, None)
            if tree is None:
                frames.pop()
                if not frames:
                    return frame.is_tainted
                bits[frame.at] |= TAINTED * frame.is_tainted
                frames[-1].is_tainted |= frame.is_tainted
                continue
            at, trouble = self._need(tree, FindingKind.TREE)
            if trouble is not None:
                frame.is_tainted = True
            elif bits[at] & VISITED:
                frame.is_tainted |= bool(bits[at] & TAINTED)
            else:
                bits[at] |= VISITED
                frames.append(self._look_at_tree(tree, at))

    def _look_at_tree(self, tree: TreeId, at: int) -> _Frame:
        """Look at the entries of a tree, and return the frame for its subfolders."""
        self._trees += 1
        self._progress.done += self._progress.total == 0
        try:
            entries = decode_tree(read_tree_record(self, tree)).entries
        except (CorruptionError, FormatError) as error:
            self._note(tree, FindingKind.TREE, f"the record {tree.hex()} of a folder cannot be read: {error.message}")
            self._unreadable.add(tree)
            return _Frame(at, iter(()), is_tainted=True)
        subfolders = []
        is_tainted = False
        previous = b""
        sound = self._sound
        for entry in entries:
            if entry.name <= previous:
                self._note(tree, FindingKind.TREE, f"the record {tree.hex()} of a folder has names twice or out of order")
                is_tainted = True
            previous = entry.name
            if sound.get(entry.content) == entry:
                self._files += 1
                continue
            if self._look_at_entry(entry):
                is_tainted = True
            elif stat.S_ISDIR(entry.mode):
                subfolders.append(entry.tree)
            self._files += stat.S_ISREG(entry.mode)
        return _Frame(at, iter(subfolders), is_tainted)

    def _look_at_entry(self, entry: Entry) -> tuple[Hashable, ...]:
        """The troubles of an entry: of a file's content, but of a folder only what the entry itself says."""
        problem = entry_problem(entry)
        if problem:
            return (self._note(entry, FindingKind.TREE, f"the entry {entry.name!r} of a folder cannot be shown: {problem}"),)
        if not stat.S_ISREG(entry.mode):
            return ()
        try:
            covered, troubles = self._look_at_spans(entry.file_content)
        except CorruptionError as error:
            return (self._note(entry, FindingKind.TREE, f"the content list of {entry.name!r} is damaged: {error.message}"),)
        if covered != entry.size:
            what = f"the content list of {entry.name!r} covers {covered} bytes where {entry.size} are stated"
            return (*troubles, self._note(entry, FindingKind.TREE, what))
        if not troubles and not entry.level and len(self._sound) < _SOUND_MAX:
            self._sound[entry.content] = entry
        return troubles

    def _look_at_spans(self, content: Content) -> tuple[int, tuple[Hashable, ...]]:
        """How many bytes a content covers, and its troubles, each once: chunks in one damaged segment have the same.

        Raises:
            CorruptionError: it is no list of spans.
        """
        covered = 0
        troubles: dict[Hashable, None] = {}
        for span in unpack_spans(content.spans):
            covered += span.length
            if content.level:
                troubles |= dict.fromkeys(self._look_at_list(span, content.level))
            elif span.chunk != HOLE:
                _, trouble = self._need(span.chunk, FindingKind.CHUNK, span=span)
                if trouble is not None:
                    troubles[trouble] = None
        return covered, tuple(troubles)

    def visit_content(self, content: Content) -> bool:
        """See `Structure`."""
        try:
            return bool(self._look_at_spans(content)[1])
        except CorruptionError:
            return True

    def is_first_visit(self, chunk: ChunkId) -> bool:
        """See `Structure`."""
        at, trouble = self._need(chunk, FindingKind.TREE)
        if trouble is not None or self._places.bits[at] & VISITED:
            return False
        self._places.bits[at] |= VISITED
        return True

    def note_live(self, key: Hashable, what: str, *, folder: str | None = None) -> None:
        """See `Structure`."""
        trouble = self._troubles.get(self._note((key, "live"), FindingKind.LIVE, what))
        if trouble is not None:
            trouble.live_folder = folder

    def _look_at_list(self, span: Span, level: int) -> tuple[Hashable, ...]:
        """The troubles of a stored span list."""
        key = span.chunk, level
        if key not in self._lists:
            try:
                self._lists[key] = self._look_at_spans(read_list(span, level, self.read))
            except (CorruptionError, FormatError) as error:
                what = f"the span list {span.chunk.hex()} cannot be read: {error.message}"
                self._lists[key] = span.length, (self._note(span.chunk, FindingKind.CHUNK, what),)
        covered, troubles = self._lists[key]
        if covered != span.length:
            what = f"the span list {span.chunk.hex()} covers {covered} bytes where {span.length} are stated"
            return (*troubles, self._note((key, span.length), FindingKind.CHUNK, what))
        return troubles

    def _need(self, chunk: ChunkId, kind: FindingKind, *, span: Span | None = None) -> tuple[int, Hashable]:
        """Mark a chunk as needed; returns its place, and its trouble if it cannot be right."""
        value = self._index.get(chunk)
        if value is None:
            return -1, self._note_missing(chunk, kind)
        at, trouble = self._locate(chunk, value)
        if at >= 0:
            bits = self._places.bits[at] = self._places.bits[at] | NEEDED
            if bits & BAD:
                trouble = unpack_location(value).segment
            elif bits & TWICE:
                trouble = unpack_location(value)
            elif span is not None and not span.fits(self._places.lengths[at]):
                what = f"chunk {chunk.hex()} has {self._places.lengths[at]} bytes, which is not what a file needs of it"
                trouble = self._note(chunk, kind, what)
        return at, trouble

    def _note_missing(self, chunk: ChunkId, kind: FindingKind) -> Hashable:
        what = "the record of a folder" if kind is FindingKind.TREE else "file data"
        known = find_damaged(self._view, chunk)
        since = f"is lost, as is known since {snapshot_name(known.noted_ns)}" if known is not None else "is not in the store"
        key = self._note(chunk, kind, f"chunk {chunk.hex()}, {what}, {since}")
        trouble = self._troubles.get(key)
        if trouble is not None:
            trouble.chunk = chunk
            trouble.known_since_ns = known.noted_ns if known is not None else 0
        return key

    def read(self, chunk: ChunkId) -> memoryview:
        """See `ChunkSource`: for the lists and parts that trees and files are made of."""
        at, trouble = self._need(chunk, FindingKind.CHUNK)
        value = self._index.get(chunk)
        if at < 0 or trouble is not None or value is None:
            message = f"chunk {chunk.hex()} is missing or damaged"
            raise CorruptionError(message)
        return self._reader.read(self._view, chunk, unpack_location(value))

    # Step 4.

    def _find_affected(self, snapshots: list[StoredSnapshot]) -> None:
        """Note with each trouble which paths and snapshots it touches."""
        for source, found in groupby(snapshots, key=lambda stored: stored.snapshot.source):
            of_source = list(found)
            roots = [stored.snapshot.root.tree for stored in of_source]
            for number, root in enumerate(roots):
                for trouble in self._tree_troubles(root):
                    self._affect(trouble, source, b"", Run(number, number, 1), of_source, is_folder=True)
            for count, occurrence in enumerate(walk_snapshots(roots, self._tainted_entries)):
                if count >= _PATHS_MAX:
                    what = f"of the source {source!r} only the first {count} paths in damaged folders were looked at"
                    self._note((source, "paths"), FindingKind.TREE, what)
                    break
                for entry, run in occurrence.entries:
                    troubles = self._look_at_entry(entry)
                    is_folder = stat.S_ISDIR(entry.mode)
                    if is_folder and not troubles:
                        troubles = self._tree_troubles(entry.tree)
                    for trouble in troubles:
                        self._affect(trouble, source, occurrence.path, run, of_source, is_folder=is_folder)

    def _tree_troubles(self, tree: TreeId) -> tuple[Hashable, ...]:
        """The troubles of a tree's own record."""
        _, trouble = self._need(tree, FindingKind.TREE)
        if trouble is None and tree in self._troubles:
            trouble = tree
        return () if trouble is None else (trouble,)

    def _tainted_entries(self, tree: TreeId, _path: bytes) -> Iterable[Entry]:
        """The entries of a tree that has damage in it or below it; none of others, and of one that cannot be read."""
        if len(tree) != ID_BYTES:
            return ()
        at, trouble = self._need(tree, FindingKind.TREE)
        if trouble is not None or tree in self._unreadable or not self._places.bits[at] & TAINTED:
            return ()
        try:
            return decode_tree(read_tree_record(self, tree)).entries
        except (CorruptionError, FormatError):
            return ()

    def _affect(self, trouble: Hashable, source: str, path: bytes, run: Run, snapshots: list[StoredSnapshot], *, is_folder: bool) -> None:
        found = self._troubles.get(trouble)
        if found is None:
            return  # One of those that are only counted.
        new = Affected(source, path, is_folder, snapshots[run.first], snapshots[run.last], run.times)
        last = found.affected[-1] if found.affected else None
        if last is not None and (last.source, last.path) == (source, path):
            found.affected[-1] = _joined(last, new)
        elif len(found.affected) < self._affected_max:
            found.affected.append(new)
        else:
            found.affected_more += 1


def _is_suspect(agrees: bytes, place: int) -> bool:
    """Whether a place of a segment, or one past its end, is not known to hold what the index says; see `DataRead`."""
    return agrees[place : place + 1] != b"\1"


def _joined(one: Affected, other: Affected) -> Affected:
    """The same path in two sets of snapshots that have none in common."""
    first = min(one.first, other.first, key=_time)
    last = max(one.last, other.last, key=_time)
    return Affected(one.source, one.path, one.is_folder or other.is_folder, first, last, one.count + other.count)


def _time(stored: StoredSnapshot) -> int:
    return stored.snapshot.time_ns

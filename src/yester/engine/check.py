# SPDX-License-Identifier: MIT
"""Looking for damage: whether everything that is stored can be found, read, and is what was written.

Changes nothing. In this order:

1. With `read_data`, a child process judges LMDB's pages; if they are damaged the rest is left alone, since LMDB itself may crash on them.
2. With `read_data`, every segment is decoded and its chunks are hashed, in short transactions. What does not look right
   is only noted: the store may be changing meanwhile.
3. In *one* transaction, so that backups and prunes that run meanwhile do not matter: segment headers; the chunk index
   against them; the segments noted in step 2 once more, and now for certain; snapshot records and their ids; every tree
   below every snapshot, each once, and that every chunk they name is indexed, in its place and of the right length; live folders;
   what backups remember of their sources.
4. If anything was wrong, the paths and snapshots that it touches are looked for, in the damaged trees alone.

Memory: about 5 bytes a chunk and 16 a segment, as flat arrays, and the bounded list of findings. No set of ids: whether a tree
was visited or a chunk is needed is a bit at the chunk's place.

The transaction of step 3 lives as long as the step (20 s a million files); what is written meanwhile cannot use the space
of what it replaces, so the file grows a little more than it would.

Threads: one, and while it decodes segments a few of its own.
"""

import os
import stat
import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from itertools import compress, groupby, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from yester.core.content import HOLE, Content, Span, read_list, unpack_spans
from yester.core.ids import ID_BYTES, ChunkId, TreeId, snapshot_id
from yester.core.records import Entry, decode_seen, decode_snapshot, decode_tree, entry_problem
from yester.engine.check_live import LiveCheck
from yester.engine.trees import read_tree_record
from yester.engine.walk import Run, walk_snapshots
from yester.errors import CorruptionError, FormatError
from yester.store.chunks import Location, segment_key, unpack_location
from yester.store.lmdb import TOUCHED_BYTES, Environment, ReadTransaction, Table, verify_data_file
from yester.store.segments import Codec, parse_header
from yester.store.store import Store, StoredSnapshot, iter_forgotten, snapshot_key

if TYPE_CHECKING:
    from yester.store.slots import Unlock

FINDINGS_MAX = 1000
"""Findings that are told one by one; more are only counted."""
AFFECTED_MAX = 20
"""Paths that are told of each finding; more are only counted."""

_SEGMENTS_KEPT = 24
_KEY_BYTES_MAX = 511
"""LMDB refuses longer keys."""
_BATCH_SEGMENTS = 32

# Bits at a chunk's place.
_INDEXED = 1
_NEEDED = 2
_VISITED = 4
"""It was read as a tree, and what it names was looked at."""
_TAINTED = 8
"""Something in this tree or below it is damaged or missing."""
_BAD = 16
"""Its bytes are not what was written."""
_TWICE = 32
"""The index says of two chunks that they are here."""

_NOWHERE = Location(-1, -1)
_ListKey = tuple[ChunkId, int]
"""A span list, and the level of the span that names it."""


class FindingKind(Enum):
    """What is damaged."""

    DATABASE = "database"
    """LMDB's own pages. Nothing else was looked at."""
    SEGMENT = "segment"
    INDEX = "index"
    """The chunk index contradicts itself or the segments."""
    CHUNK = "chunk"
    TREE = "tree"
    """A directory's record, or an entry in it."""
    SNAPSHOT = "snapshot"
    SCAN = "scan"
    """What a backup remembers of its source."""
    LIVE = "live"
    """A live folder, or what only its versions have."""


@dataclass(frozen=True, slots=True)
class Affected:
    """A path that damage touches: all of it and below it if it `is_folder`; and which snapshots of the source have it so."""

    source: str
    path: bytes
    is_folder: bool
    first: StoredSnapshot
    last: StoredSnapshot
    count: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `affected` is sorted by source and path; `affected_more` counts those left out of it."""

    kind: FindingKind
    what: str
    affected: tuple[Affected, ...] = ()
    affected_more: int = 0


@dataclass(slots=True)
class CheckProgress:
    """How far a check is; another thread may read it at any time. `total` is 0 where it cannot be told."""

    step: str = ""
    done: int = 0
    total: int = 0

    def begin(self, step: str, total: int = 0) -> None:
        """Start a step."""
        self.step, self.done, self.total = step, 0, total


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, and what is wrong. A chunk is *unneeded* if no snapshot and no unfinished backup names it: no error."""

    findings: tuple[Finding, ...]
    findings_more: int = 0
    snapshots: int = 0
    trees: int = 0
    files: int = 0
    chunks: int = 0
    segments: int = 0
    unneeded_chunks: int = 0
    unneeded_bytes: int = 0
    unneeded_segments: int = 0
    read_bytes: int = 0
    """Decompressed bytes that were hashed, if data was read."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def check_path(path: Path, *, read_data: bool, progress: CheckProgress | None = None, unlock: "Unlock | None" = None) -> CheckReport:
    """As `check`, of the store in `path`, which with `read_data` is only opened after LMDB's pages were found to be sound.

    `unlock` as for `Store.open`.

    Raises:
        YesterError: as `Store.open`.
    """
    progress = progress or CheckProgress()
    findings = _check_database(path, progress) if read_data else ()
    if findings:
        return CheckReport(findings)
    with Store.open(path, unlock=unlock) as store:
        return _check_open(store, read_data=read_data, progress=progress)


def check(store: Store, *, read_data: bool, progress: CheckProgress | None = None) -> CheckReport:
    """Look for damage; may run beside backups, which it does not block.

    The structure takes 1.8 s of processor time for the 84,000 entries of the Linux source, and 4.8 s for 100 snapshots of it
    with changes in 10 files each; `read_data` adds 2 s a GB of files (2026-11-22, on two busy cores).

    Raises:
        StoreAccessError, FormatError: the store as a whole cannot be read. Damage is reported, not raised.
    """
    progress = progress or CheckProgress()
    findings = _check_database(store.path, progress) if read_data else ()
    return CheckReport(findings) if findings else _check_open(store, read_data=read_data, progress=progress)


def _check_database(path: Path, progress: CheckProgress) -> tuple[Finding, ...]:
    progress.begin("database pages")
    return tuple(Finding(FindingKind.DATABASE, problem) for problem in verify_data_file(path))


def _check_open(store: Store, *, read_data: bool, progress: CheckProgress) -> CheckReport:
    suspects, read_bytes = _read_all_segments(store.environment, progress) if read_data else (set(), 0)
    with store.environment.read() as view:
        return _Check(store, view, suspects, progress).report(read_bytes)


# --- step 2: every segment ----------------------------------------------------------------------------------------------


def _read_all_segments(environment: Environment, progress: CheckProgress) -> tuple[set[int], int]:
    """The numbers of segments that hold something else than the index says, maybe; and how many bytes were hashed."""
    with environment.read() as view:
        progress.begin("data", view.count(Table.SEGMENTS))
    codecs = threading.local()

    def hash_chunks(stored: bytes) -> tuple[list[ChunkId], int] | None:
        codec: Codec | None = getattr(codecs, "codec", None)
        if codec is None:
            codec = codecs.codec = Codec(environment.key)
        try:
            return _hash_segment(environment, codec, stored)
        except (CorruptionError, FormatError):
            return None

    suspects: set[int] = set()
    read_bytes = 0
    start = b""
    with ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1)), thread_name_prefix="check") as pool:
        while True:
            with environment.read() as view:
                batch = [(key, bytes(stored)) for key, stored in islice(view.iterate_from(Table.SEGMENTS, start), _BATCH_SEGMENTS)]
            if not batch:
                return suspects, read_bytes
            results = list(pool.map(hash_chunks, (stored for _, stored in batch)))
            environment.release_pages(sum(len(stored) for _, stored in batch))
            with environment.read() as view:
                for (key, _), result in zip(batch, results, strict=True):
                    number = _segment_number(key)
                    if number is not None and (result is None or not _agrees_with_index(view, number, result[0])):
                        suspects.add(number)
                    read_bytes += result[1] if result else 0
            progress.done += len(batch)
            start = batch[-1][0] + b"\0"


def _segment_number(key: bytes) -> int | None:
    """The number of a segment; None if no index entry could name it."""
    number = int.from_bytes(key, "big")
    return number if len(key) == len(segment_key(0)) and number < 1 << 48 else None


def _hash_segment(environment: Environment, codec: Codec, stored: bytes | memoryview) -> tuple[list[ChunkId], int]:
    header = parse_header(stored, environment.key)
    payload = memoryview(codec.decode(stored, header))
    bounds = header.bounds
    return [environment.name_chunk(payload[bounds[place] : bounds[place + 1]]) for place in range(header.chunk_count)], len(payload)


def _agrees_with_index(view: ReadTransaction, number: int, chunks: list[ChunkId]) -> bool:
    """Whether each chunk of a segment is indexed just there. A chunk that is not may also be one that nothing needs any more."""
    return all(bytes(view.get(Table.CHUNKS, chunk) or b"") == Location(number, place).pack() for place, chunk in enumerate(chunks))


# --- step 3: the structure ----------------------------------------------------------------------------------------------


class _Places:
    """Every place for a chunk in every segment, numbered through: the chunk's length and its bits."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._starts = array("Q", [0])
        self.lengths = array("I")
        self.bits = bytearray()

    @property
    def segments(self) -> int:
        return len(self._numbers)

    def add_segment(self, number: int, bounds: tuple[int, ...]) -> None:
        """Add a segment; numbers rise."""
        self._numbers.append(number)
        self.lengths.extend(end - start for start, end in pairwise(bounds))
        self.bits.extend(bytes(max(0, len(bounds) - 1)))
        self._starts.append(len(self.bits))

    def find(self, location: Location) -> int:
        """The number of a place; -1 if there is none."""
        index = bisect_left(self._numbers, location.segment)
        if index == len(self._numbers) or self._numbers[index] != location.segment:
            return -1
        at = self._starts[index] + location.place
        return at if at < self._starts[index + 1] else -1

    def count_unneeded(self) -> tuple[int, int, int]:
        """How many chunks, their bytes, and how many whole segments nobody needs."""
        is_needed = self.bits.translate(bytes(bool(value & _NEEDED) for value in range(256)))
        is_unneeded = self.bits.translate(bytes(not value & _NEEDED for value in range(256)))
        ranges = pairwise(self._starts)
        segments = sum(start < end and is_needed.find(1, start, end) < 0 for start, end in ranges)
        return sum(is_unneeded), sum(compress(self.lengths, is_unneeded)), segments


class _ViewReader:
    """Chunks as of one transaction, checked against their ids; the most recently used segments stay decoded."""

    def __init__(self, environment: Environment, view: ReadTransaction) -> None:
        self._environment = environment
        self._view = view
        self._codec = Codec(environment.key)
        self._cache: OrderedDict[int, tuple[memoryview, tuple[int, ...]]] = OrderedDict()

    def read(self, chunk: ChunkId, location: Location) -> memoryview:
        """The chunk at a location, which exists."""
        payload, bounds = self.segment(location.segment)
        data = payload[bounds[location.place] : bounds[location.place + 1]]
        if self._environment.name_chunk(data) != chunk:
            message = f"chunk {chunk.hex()} in segment {location.segment} is damaged"
            raise CorruptionError(message)
        return data

    def segment(self, number: int) -> tuple[memoryview, tuple[int, ...]]:
        """A segment's decoded payload and the bounds of its chunks. Its header was parsed before."""
        found = self._cache.get(number)
        if found is None:
            stored = self._view.get(Table.SEGMENTS, segment_key(number))
            assert stored is not None
            header = parse_header(stored, self._environment.key)
            found = self._cache[number] = memoryview(self._codec.decode(stored, header)), header.bounds
            self._environment.release_pages(len(stored))
            if len(self._cache) > _SEGMENTS_KEPT:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return found


@dataclass(slots=True)
class _Trouble:
    """A finding in the making."""

    kind: FindingKind
    what: str
    affected: list[Affected] = field(default_factory=list)
    affected_more: int = 0


@dataclass(slots=True)
class _Frame:
    """A tree whose subfolders are being visited. `at` is its place; -1 for what holds the root."""

    at: int
    subfolders: Iterator[TreeId]
    is_tainted: bool = False


class _Check:
    """Steps 3 and 4, on one view of the store.

    A *trouble* has a key that tells it from others: a chunk id, a segment number, a place, or a damaged entry itself. Looking
    at the same thing again gives the same keys, which is how the paths of step 4 find their troubles.
    """

    def __init__(self, store: Store, view: ReadTransaction, suspects: set[int], progress: CheckProgress) -> None:
        self._environment = store.environment
        self._view = view
        self._suspects = suspects
        self._progress = progress
        self._reader = _ViewReader(store.environment, view)
        self._places = _Places()
        self._troubles: dict[Hashable, _Trouble] = {}
        self._troubles_more: set[int] = set()
        """Hashes of the keys of those that are only counted."""
        self._lists: dict[_ListKey, tuple[int, tuple[Hashable, ...]]] = {}
        """Bytes of file and troubles of each span list that was looked at."""
        self._trees = 0
        self._files = 0

    def report(self, read_bytes: int) -> CheckReport:
        """Do it all."""
        self._check_suspects(self._check_index())
        snapshots = self._check_snapshots()
        self._progress.begin("folders")
        for stored in snapshots:
            self.visit_tree(stored.snapshot.root.tree)
        for _, forgotten in iter_forgotten(self._view):
            self.visit_tree(forgotten.stored.snapshot.root.tree)
        self._progress.begin("live folders")
        live = LiveCheck(self, self._view)
        for stored in snapshots:
            live.check_version(stored.snapshot)
        live.check_folders()
        self._check_scan()
        if self._troubles:
            self._progress.begin("affected files")
            self._find_affected(snapshots)
        unneeded_chunks, unneeded_bytes, unneeded_segments = self._places.count_unneeded()
        return CheckReport(
            findings=tuple(
                Finding(trouble.kind, trouble.what, tuple(trouble.affected), trouble.affected_more) for trouble in self._troubles.values()
            ),
            findings_more=len(self._troubles_more),
            snapshots=len(snapshots),
            trees=self._trees,
            files=self._files,
            chunks=self._view.count(Table.CHUNKS),
            segments=self._view.count(Table.SEGMENTS),
            unneeded_chunks=unneeded_chunks,
            unneeded_bytes=unneeded_bytes,
            unneeded_segments=unneeded_segments,
            read_bytes=read_bytes,
        )

    def _note(self, key: Hashable, kind: FindingKind, what: str) -> Hashable:
        """Remember a trouble, unless it is known; returns its key."""
        if key not in self._troubles:
            if len(self._troubles) < FINDINGS_MAX:
                self._troubles[key] = _Trouble(kind, what)
            else:
                self._troubles_more.add(hash(key))
        return key

    # Segments and the chunk index.

    def _check_index(self) -> dict[int, list[tuple[int, ChunkId]]]:
        """Compare the index with the headers; returns the place and id of each chunk in the suspected segments."""
        self._progress.begin("segments", self._view.count(Table.SEGMENTS))
        for key, stored in self._view.iterate(Table.SEGMENTS):
            number = _segment_number(key)
            if number is None:
                self._note((key, "segment"), FindingKind.SEGMENT, f"the key {key.hex()} is no segment's")
                continue
            try:
                self._places.add_segment(number, parse_header(stored, self._environment.key).bounds)
            except (CorruptionError, FormatError) as error:
                self._note(number, FindingKind.SEGMENT, f"segment {number} cannot be read: {error.message}")
            self._environment.release_pages(TOUCHED_BYTES)
            self._progress.done += 1
        self._progress.begin("chunk index", self._view.count(Table.CHUNKS))
        suspected: dict[int, list[tuple[int, ChunkId]]] = {}
        bits = self._places.bits
        for key, value in self._view.iterate(Table.CHUNKS):
            self._progress.done += 1
            chunk = ChunkId(key)
            location, at, _ = self._locate(chunk, value)
            if at < 0:
                continue
            if bits[at] & _INDEXED:
                bits[at] |= _TWICE
                what = f"two chunks are said to be at place {location.place} of segment {location.segment}; one is {chunk.hex()}"
                self._note(location, FindingKind.INDEX, what)
            bits[at] |= _INDEXED
            if location.segment in self._suspects:
                suspected.setdefault(location.segment, []).append((location.place, chunk))
        return suspected

    def _locate(self, chunk: ChunkId, value: bytes | memoryview) -> tuple[Location, int, Hashable]:
        """What an index entry says: the location and its number; a number of -1 and a trouble if there is no such place."""
        try:
            location = unpack_location(value)
        except CorruptionError:
            return _NOWHERE, -1, self._note(chunk, FindingKind.INDEX, f"the index entry of chunk {chunk.hex()} is damaged")
        at = self._places.find(location)
        if at < 0:
            what = f"segment {location.segment} is missing, or chunks that should be in it are"
            return location, at, self._note(location.segment, FindingKind.SEGMENT, what)
        return location, at, None

    def _check_suspects(self, suspected: dict[int, list[tuple[int, ChunkId]]]) -> None:
        """Hash the suspected segments once more, in this view, and mark the places whose bytes are wrong."""
        self._progress.begin("suspected segments", len(suspected))
        for number, chunks in sorted(suspected.items()):
            payload, bounds = self._reader.segment(number)
            bad = {place for place, chunk in chunks if self._environment.name_chunk(payload[bounds[place] : bounds[place + 1]]) != chunk}
            for place in bad:
                self._places.bits[self._places.find(Location(number, place))] |= _BAD
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
            if self._view.get(Table.CHUNKS, tree) is not None:  # else a prune took it: nobody is led astray by that
                tainted += self.visit_tree(tree)
        if tainted:
            what = f"backups remember {tainted} folders with damage in or below them: new snapshots will have the same damage"
            self._note("scan", FindingKind.SCAN, what)

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
                bits[frame.at] |= _TAINTED * frame.is_tainted
                frames[-1].is_tainted |= frame.is_tainted
                continue
            at, trouble = self._need(tree, FindingKind.TREE)
            if trouble is not None:
                frame.is_tainted = True
            elif bits[at] & _VISITED:
                frame.is_tainted |= bool(bits[at] & _TAINTED)
            else:
                bits[at] |= _VISITED
                frames.append(self._look_at_tree(tree, at))

    def _look_at_tree(self, tree: TreeId, at: int) -> _Frame:
        """Look at the entries of a tree, and return the frame for its subfolders."""
        self._trees += 1
        self._progress.done += self._progress.total == 0
        try:
            entries = decode_tree(read_tree_record(self, tree)).entries
        except (CorruptionError, FormatError) as error:
            self._note(tree, FindingKind.TREE, f"the record {tree.hex()} of a folder cannot be read: {error.message}")
            return _Frame(at, iter(()), is_tainted=True)
        subfolders = []
        is_tainted = False
        previous = b""
        for entry in entries:
            if entry.name <= previous:
                self._note(tree, FindingKind.TREE, f"the record {tree.hex()} of a folder has names twice or out of order")
                is_tainted = True
            previous = entry.name
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
        return troubles

    def _look_at_spans(self, content: Content) -> tuple[int, tuple[Hashable, ...]]:
        """How many bytes a content covers, and its troubles.

        Raises:
            CorruptionError: it is no list of spans.
        """
        covered = 0
        troubles: tuple[Hashable, ...] = ()
        for span in unpack_spans(content.spans):
            covered += span.length
            if content.level:
                troubles += self._look_at_list(span, content.level)
            elif span.chunk != HOLE:
                _, trouble = self._need(span.chunk, FindingKind.CHUNK, span=span)
                if trouble is not None:
                    troubles += (trouble,)
        return covered, troubles

    def visit_content(self, content: Content) -> bool:
        """See `Structure`."""
        try:
            return bool(self._look_at_spans(content)[1])
        except CorruptionError:
            return True

    def is_first_visit(self, chunk: ChunkId) -> bool:
        """See `Structure`."""
        at, trouble = self._need(chunk, FindingKind.TREE)
        if trouble is not None or self._places.bits[at] & _VISITED:
            return False
        self._places.bits[at] |= _VISITED
        return True

    def note_live(self, key: Hashable, what: str) -> None:
        """See `Structure`."""
        self._note((key, "live"), FindingKind.LIVE, what)

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
        value = self._view.get(Table.CHUNKS, chunk)
        if value is None:
            what = "the record of a folder" if kind is FindingKind.TREE else "file data"
            return -1, self._note(chunk, kind, f"chunk {chunk.hex()}, {what}, is not in the store")
        location, at, trouble = self._locate(chunk, value)
        if at >= 0:
            bits = self._places.bits[at] = self._places.bits[at] | _NEEDED
            if bits & _BAD:
                trouble = location.segment
            elif bits & _TWICE:
                trouble = location
            elif span is not None and not span.fits(self._places.lengths[at]):
                what = f"chunk {chunk.hex()} has {self._places.lengths[at]} bytes, which is not what a file needs of it"
                trouble = self._note(chunk, kind, what)
        return at, trouble

    def read(self, chunk: ChunkId) -> memoryview:
        """See `ChunkSource`: for the lists and parts that trees and files are made of."""
        at, trouble = self._need(chunk, FindingKind.CHUNK)
        value = self._view.get(Table.CHUNKS, chunk)
        if at < 0 or trouble is not None or value is None:
            message = f"chunk {chunk.hex()} is missing or damaged"
            raise CorruptionError(message)
        return self._reader.read(chunk, unpack_location(value))

    # Step 4.

    def _find_affected(self, snapshots: list[StoredSnapshot]) -> None:
        """Note with each trouble which paths and snapshots it touches."""
        for source, found in groupby(snapshots, key=lambda stored: stored.snapshot.source):
            of_source = list(found)
            roots = [stored.snapshot.root.tree for stored in of_source]
            for number, root in enumerate(roots):
                for trouble in self._tree_troubles(root):
                    self._affect(trouble, source, b"", Run(number, number, 1), of_source, is_folder=True)
            for occurrence in walk_snapshots(roots, self._tainted_entries):
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
        if trouble is not None or not self._places.bits[at] & _TAINTED:
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
        elif len(found.affected) < AFFECTED_MAX:
            found.affected.append(new)
        else:
            found.affected_more += 1


def _joined(one: Affected, other: Affected) -> Affected:
    """The same path in two sets of snapshots that have none in common."""
    first = min(one.first, other.first, key=_time)
    last = max(one.last, other.last, key=_time)
    return Affected(one.source, one.path, one.is_folder or other.is_folder, first, last, one.count + other.count)


def _time(stored: StoredSnapshot) -> int:
    return stored.snapshot.time_ns

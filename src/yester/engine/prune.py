# SPDX-License-Identifier: MIT
"""Giving space back: removing what no root needs, while backups, mounts and live folders run (docs/adr/0009).

1. *Mark*, in one view of the store: `engine.mark` finds what is needed. Anything that cannot be read ends the prune here.
2. *Sweep*: take rows out of the chunk index. The first transaction removes forgotten snapshots whose time is over, and all trees, lists and
   tables that are not marked; then data goes, some thousand rows at a time. Each transaction first marks what was published or
   committed since the last look, so it removes nothing that anybody has come to need; whoever is about to commit something that
   names a removed chunk notices (`ChunkWriter`) and begins again.
3. *Clear*: remove segments of which no row is left, and rewrite those with much waste: live chunks go into new segments, rows
   and old segments change in the same transaction. Readers look again where a segment is gone (`ChunkReader`).

*Young* segments, written since the oldest lease for adding was taken, are not touched, and what is in them counts as needed.

Ends anywhere harmlessly: after each transaction the store is whole. What is left of a sweep, segments without rows, the next prune clears.
"""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from operator import attrgetter

from yester.core.ids import ID_BYTES, ChunkId
from yester.core.records import Forgotten, decode_forgotten, decode_seen
from yester.engine.mark import MARKED, NAMED, Marker
from yester.engine.places import Places
from yester.engine.steps import StepProgress
from yester.errors import CorruptionError, FormatError, StoreAccessError
from yester.store.chunks import (
    Location,
    count_sweep,
    last_segment,
    remove_segments,
    segment_key,
    segment_of,
    unpack_location,
)
from yester.store.codec_pool import CodecPool
from yester.store.leases import Lease, list_leases
from yester.store.lmdb import TOUCHED_BYTES, ReadTransaction, Table, WriteTransaction
from yester.store.segments import CHUNKS_MAX, SEGMENT_BYTES, Codec, Kind, parse_header
from yester.store.snapshots import ForgottenSnapshot, count_generation, iter_forgotten
from yester.store.store import Store
from yester.store.verify import verifying

ROWS_MAX = 20_000
"""Rows of the index that one transaction removes: 0.1 s."""
REWRITTEN_BYTES = SEGMENT_BYTES * 3 // 2
"""Before compression: about so much goes into a segment. Larger than those of backups: these find room where one was (ADR 9)."""
SEGMENTS_MAX = 4
"""Segments that one transaction writes, about. The one after the next can use what it frees, so the file grows by some of them."""
SOURCES_MAX = 64
"""Segments that one transaction removes."""
WASTE_MAX = 0.05
"""Of what is needed: so much waste may stay in segments, since rewriting those that have least of it gains least."""
REWRITE_LEVEL = 5
"""Of zstd. What is rewritten will stay, so it is worth more time than what a backup stores (ADR 9)."""
_LOOKED_AT_ROWS = 64
"""Telling of each row would take as long as removing it."""
_NOTHING_FREED = "; nothing was freed"
_SMALL_BYTES = SEGMENT_BYTES // 4
_SMALL_SEGMENTS_MIN = 8
"""So many segments with less than a quarter of one's bytes are put together, as frequent small backups leave them."""
_CATCH_UP_SEGMENTS = 8
"""With no more new segments than these, what is left to mark is marked in the transaction itself."""


@dataclass(slots=True)
class PruneReport:
    """What was, or in a dry run would be, removed. Bytes are those of segments as stored, but for `dead_bytes`."""

    removed: list[ForgottenSnapshot] = field(default_factory=list)
    """Forgotten snapshots whose time was over."""
    in_grace: int = 0
    """Forgotten ones that can be had back."""
    leased: int = 0
    """Forgotten ones that a process may still read."""
    leases: tuple[Lease, ...] = ()
    """Those that kept something."""
    dead_chunks: int = 0
    dead_bytes: int = 0
    """Of these chunks, before compression."""
    removed_segments: int = 0
    rewritten_segments: int = 0
    new_segments: int = 0
    freed_bytes: int = 0
    """What the file has more of to write again."""
    damaged_segments: int = 0
    """Left as they are, since something in them is damaged."""
    file_bytes: int = 0
    reusable_bytes: int = 0
    """Of the file, in the end."""


def prune(
    store: Store,
    *,
    grace_ns: int,
    accepts_loss: bool = False,
    dry_run: bool = False,
    now_ns: int | None = None,
    progress: StepProgress | None = None,
    on_wait: Callable[[str], None] = lambda _holder: None,
) -> PruneReport:
    """Remove what nothing needs. Snapshots forgotten less than `grace_ns` ago are kept. Each step is durable when the next begins.

    Where a folder of a snapshot is known to be lost, what was in it is known to nobody, and is kept until somebody `accepts_loss`.

    Takes as long as reading all trees once, and rewriting the segments with waste. One prune at a time; `on_wait` hears of another.

    Raises:
        CorruptionError, FormatError: LMDB's pages are damaged; something that names others cannot be read; anything that is needed is
            missing, and no repair has looked for it; two chunks are said to be in one place. Nothing was freed, unless it came meanwhile.
        StoreFullError: what was freed so far stays so.
        StoreAccessError: leases cannot be listed, or the store may not be written; nothing was freed.
    """
    if store.environment.readonly:
        message = f"the store {store.path} may not be written; nothing was freed"
        raise StoreAccessError(message, hint="see whose it is, and whether its disk is mounted read-only")
    now_ns = time.time_ns() if now_ns is None else now_ns
    progress = progress or StepProgress()
    if problem := store.snapshots_problem():
        message = f"{problem}; nothing was freed"
        raise CorruptionError(message, hint="see what is missing in `yester snapshots`: what a lost snapshot needs would be freed")
    with store.prune_lock(on_wait), verifying(store.path) as find_page_problems:
        store.renew_lease()  # this process reads nothing that was forgotten
        run = _Prune(store, progress)
        try:
            run.mark(grace_ns=grace_ns, now_ns=now_ns)
        except (CorruptionError, FormatError) as error:
            run.refuse_damaged_pages(find_page_problems())  # then the rest comes of it
            if error.message.endswith(_NOTHING_FREED):
                raise
            raise type(error)(error.message + _NOTHING_FREED, hint=error.hint or "run `yester check`, then `yester repair`") from error
        run.refuse_damaged_pages(find_page_problems())
        if not accepts_loss:
            run.refuse_loss()
        if not dry_run:
            run.sweep()
            run.clear()
            store.keep_reserve()
        return run.finish()


class _Prune:
    """One run."""

    def __init__(self, store: Store, progress: StepProgress) -> None:
        self._store = store
        self._environment = store.environment
        self._progress = progress
        self._report = PruneReport()
        self._places = Places()
        self._kinds = bytearray()
        """Of the segments, in the order of the places; 0 of one that cannot be read."""
        self._marker: Marker
        self._old_last = 0
        """Segments with higher numbers are young."""
        self._looked_last = 0
        """Trees in segments up to this one are marked, where that is to be done."""
        self._looked_generation = 0
        self._expired: dict[bytes, Forgotten] = {}
        """Rows of forgotten snapshots whose time is over, by their keys."""
        self._dead: dict[int, bytearray] = {kind: bytearray() for kind in Kind}
        """Ids of chunks to remove, by the kind of their segments."""

    # Step 1.

    def mark(self, *, grace_ns: int, now_ns: int) -> None:
        with self._environment.read() as view:
            last = last_segment(view)
            leases = self._list_leases()  # after the view: who takes one now adds to segments after the last
            self._old_last = min([last, *(lease.last_segment for lease in leases if lease.last_segment is not None)])
            self._looked_last, self._looked_generation = last, self._store.snapshots_generation_in(view)
            self._judge_forgotten(view, leases, grace_ns=grace_ns, now_ns=now_ns)
            self._list_segments(view)
            self._progress.begin("folders")
            self._marker = marker = Marker(self._environment, self._places, last)
            marker.mark_snapshots(view, expired=self._expired)
            marker.mark_live_folders(view)
            marker.mark_young(view, range(self._old_last + 1, last + 1))
            self._find_dead(view)

    def refuse_damaged_pages(self, problems: list[str]) -> None:
        """Raises CorruptionError if LMDB may not find a row that is there, or write over others when it removes one."""
        if problems:
            message = f"the database of the store {self._store.path} is damaged: {problems[0]}{_NOTHING_FREED}"
            raise CorruptionError(message, hint="run `yester repair`, then prune again")

    def refuse_loss(self) -> None:
        """Raises CorruptionError if something that names others is lost."""
        if lost := len(self._marker.lost):
            what = f"{lost} folders or lists of chunks of the store {self._store.path} are lost"
            message = f"{what}, and what they named would be removed for good; nothing was freed"
            hint = "`yester check` says where; back up again what is still there, then `yester prune --accept-loss` goes on without them"
            raise CorruptionError(message, hint=hint)

    def _list_leases(self) -> list[Lease]:
        try:
            return list_leases(self._store.leases_folder)
        except OSError as error:
            message = f"cannot see who uses the store {self._store.path}: {error}; nothing was freed"
            raise StoreAccessError(message, hint="see whose the folder `leases` in it is") from error

    def _judge_forgotten(self, view: ReadTransaction, leases: list[Lease], *, grace_ns: int, now_ns: int) -> None:
        """Find the forgotten snapshots whose time is over. One from the future, since a clock was wrong, is kept."""
        report = self._report
        keeping: set[Lease] = set()
        for key, forgotten in iter_forgotten(view):
            holders = [lease for lease in leases if lease.generation < forgotten.generation]
            if now_ns - forgotten.forgotten_ns < grace_ns:
                report.in_grace += 1
            elif holders:
                report.leased += 1
                keeping.update(holders)
            else:
                row = view.get(Table.FORGOTTEN, key) or memoryview(b"")  # what is listed and not found is damaged
                self._expired[key] = decode_forgotten(row)
                report.removed.append(forgotten)
        keeping.update(lease for lease in leases if lease.last_segment is not None)
        report.leases = tuple(sorted(keeping, key=lambda lease: lease.process))

    def _list_segments(self, view: ReadTransaction) -> None:
        self._progress.begin("segments", view.count(Table.SEGMENTS))
        for key, stored in view.iterate(Table.SEGMENTS):
            number = int.from_bytes(key, "big")
            try:
                header = parse_header(stored, self._environment.key)
                bounds, kind = header.bounds, int(header.kind)
            except (CorruptionError, FormatError):
                bounds, kind = (0,), 0
            self._places.add_segment(number, bounds, len(stored))
            self._kinds.append(kind)
            self._environment.release_pages(TOUCHED_BYTES)
            self._progress.done += 1

    def _find_dead(self, view: ReadTransaction) -> None:
        """Collect the ids of chunks that nothing needs, of segments that are not young.

        Raises:
            CorruptionError: two rows lead to one place, so one of them is wrong, and its chunk is nobody knows where.
        """
        self._progress.begin("chunk index")
        places, bits = self._places, self._places.bits
        kinds = dict(zip(places.numbers, self._kinds, strict=True))
        for key, value in view.iterate_stored(Table.CHUNKS):
            at = places.find_stored(value)
            if at < 0:
                continue
            if bits[at] & NAMED:
                message = f"the index leads to one place for two chunks, of which one is {key.hex()}, and the other may be needed"
                raise CorruptionError(message)
            bits[at] |= NAMED
            if not bits[at] & MARKED and (number := segment_of(value)) <= self._old_last:
                self._dead[kinds[number]] += key
                self._report.dead_chunks += 1
                self._report.dead_bytes += places.lengths[at]

    # Step 2.

    def sweep(self) -> None:
        total = sum(map(len, self._dead.values())) // ID_BYTES
        self._progress.begin("sweeping", total)
        if total or self._expired:
            self._sweep_rows(list(_ids(self._dead[Kind.TREE])), expired=self._expired)
        dead_data = self._dead[Kind.DATA]
        for start in range(0, len(dead_data), ROWS_MAX * ID_BYTES):
            self._sweep_rows(list(_ids(dead_data[start : start + ROWS_MAX * ID_BYTES])))
        self._dead = {kind: bytearray() for kind in Kind}
        self._forget_seen()

    def _sweep_rows(self, ids: list[ChunkId], *, expired: Mapping[bytes, Forgotten] | None = None) -> None:
        """Remove these rows of the index, but for those that somebody has come to need."""
        while True:
            with self._environment.read() as view:
                if last_segment(view) - self._looked_last <= _CATCH_UP_SEGMENTS:
                    break
                self._catch_up(view)

        def apply(transaction: WriteTransaction) -> None:
            self._catch_up(transaction)
            is_swept = is_removed = False
            for count, chunk in enumerate(ids, start=1):
                if not count % _LOOKED_AT_ROWS:
                    transaction.looked_at(_LOOKED_AT_ROWS)
                value = transaction.get(Table.CHUNKS, chunk)
                at = self._places.find_stored(value) if value is not None else -1
                if at >= 0 and not self._places.bits[at] & MARKED:
                    is_swept |= transaction.delete(Table.CHUNKS, chunk)
            for key, row in (expired or {}).items():
                value = transaction.get(Table.FORGOTTEN, key)
                if value is not None and decode_forgotten(value) == row:
                    is_removed |= transaction.delete(Table.FORGOTTEN, key)
            if is_removed:
                count_generation(transaction)  # mounts show forgotten ones
            if is_swept:
                count_sweep(transaction)

        self._store.write_freeing(apply)
        self._progress.done += len(ids)

    def _catch_up(self, view: ReadTransaction) -> None:
        """Mark what was published, or committed as trees, since the last look. What was forgotten since is kept as it is.

        A snapshot that was forgotten and is wanted back has moved from the one table to the other.
        """
        generation = self._store.snapshots_generation_in(view)
        if generation != self._looked_generation:
            self._marker.mark_snapshots(view, expired=self._expired)
            self._looked_generation = generation
        last = last_segment(view)
        self._marker.mark_young(view, range(self._looked_last + 1, last + 1))
        self._looked_last = last

    def _forget_seen(self) -> None:
        """Remove what backups remember of folders whose trees are gone: they could not use it."""
        gone = []
        with self._environment.read() as view:
            for key, value in view.iterate(Table.SCAN):
                try:
                    tree = decode_seen(value).tree
                except (CorruptionError, FormatError):
                    continue
                if view.get(Table.CHUNKS, tree) is None:
                    gone.append((key, tree))

        def apply(transaction: WriteTransaction) -> None:
            for key, tree in gone:
                value = transaction.get(Table.SCAN, key)
                if value is not None and transaction.get(Table.CHUNKS, tree) is None and decode_seen(value).tree == tree:
                    transaction.delete(Table.SCAN, key)

        if gone:
            self._store.write_freeing(apply)

    # Step 3.

    def clear(self) -> None:
        waste = _Waste(self._places, self._count_rows())
        old = [index for index, number in enumerate(self._places.numbers) if number <= self._old_last]
        empty = [index for index in old if self._kinds[index] and not waste.rows[index]]
        self._progress.begin("clearing", len(empty))
        for start in range(0, len(empty), SOURCES_MAX):
            batch = empty[start : start + SOURCES_MAX]
            self._remove_segments(batch)
            self._report.removed_segments += len(batch)
            self._report.freed_bytes += sum(self._places.stored_bytes[index] for index in batch)
            self._progress.done += len(batch)
        for kind in Kind:
            wasteful = waste.choose([index for index in old if self._kinds[index] == kind and waste.rows[index]])
            wasteful.sort(key=lambda index: waste.middle_rank(index, self._marker.ranks))
            self._progress.begin("rewriting", len(wasteful))
            self._rewrite(kind, wasteful, waste)

    def _remove_segments(self, indexes: list[int]) -> None:
        numbers = [self._places.numbers[index] for index in indexes]
        self._store.write_freeing(lambda transaction: remove_segments(transaction, numbers))

    def _count_rows(self) -> bytearray:
        """For each place whether a row of the index names it."""
        named = bytearray(len(self._places.bits))
        with self._environment.read() as view:
            for _, value in view.iterate_stored(Table.CHUNKS):
                at = self._places.find_stored(value)
                if at >= 0:
                    named[at] = 1
        return named

    def _rewrite(self, kind: Kind, indexes: list[int], waste: "_Waste") -> None:
        """Write the chunks of these segments that a row names into new ones, by rank, and remove these; some segments a transaction.

        The segments come by rank, too: those of a transaction have much of the same folders. While they are encoded the next ones are
        read, and those before committed. None are read meanwhile: LMDB does not use freed pages again while an older view is open.
        """
        with CodecPool(self._environment.key, "rewrite", level=REWRITE_LEVEL) as pool:
            ready: _Rewriting | None = None
            for batch in waste.batches(indexes):
                found = list(pool.map(partial(self._live_chunks, named=waste.named), batch))
                encoding = self._begin_encoding(pool, kind, zip(batch, found, strict=True), waste)
                if ready is not None:
                    self._commit(ready)
                ready = encoding
                self._progress.done += len(batch)
            if ready is not None:
                self._commit(ready)

    def _live_chunks(self, codec: Codec, index: int, *, named: bytearray) -> list["_Moved"]:
        """The chunks of a segment that a row names, in order, checked against their ids."""
        number, start = self._places.numbers[index], self._places.starts[index]
        with self._environment.read() as view:
            stored = view.get(Table.SEGMENTS, segment_key(number))
            if stored is None:
                return []
            header = parse_header(stored, self._environment.key)
            payload = codec.decode(stored, header)
            self._environment.release_pages(len(stored))
            found = []
            for place in range(header.chunk_count):
                if named[start + place]:
                    data = payload[header.bounds[place] : header.bounds[place + 1]]
                    chunk = self._environment.name_chunk(data)
                    location = Location(number, place)
                    if _is_at(view, chunk, location):
                        found.append(_Moved(chunk, data, location, self._marker.ranks[start + place]))
            return found

    def _begin_encoding(self, pool: CodecPool, kind: Kind, found: Iterable[tuple[int, list["_Moved"]]], waste: "_Waste") -> "_Rewriting":
        """Sort what was found in some segments, and begin to encode it."""
        moved: list[_Moved] = []
        sources: list[int] = []
        for index, chunks in found:
            if len(chunks) == waste.rows[index]:
                moved += chunks
                sources.append(index)
            else:
                self._report.damaged_segments += 1  # what is left of it may be of use to a repair
        moved.sort(key=attrgetter("rank"))
        parts = _in_segments(moved)
        return _Rewriting(sources, parts, [pool.submit(partial(_encode_part, kind=kind, part=part)) for part in parts])

    def _commit(self, rewriting: "_Rewriting") -> None:
        """Put new segments in the place of old ones."""
        segments = [future.result() for future in rewriting.encoded]

        def apply(transaction: WriteTransaction) -> None:
            number = last_segment(transaction)
            for encoded, part in zip(segments, rewriting.parts, strict=True):
                number += 1
                transaction.put(Table.SEGMENTS, segment_key(number), encoded)
                for place, chunk in enumerate(part):
                    # Stored again meanwhile, by somebody who doubted it: then that copy counts.
                    if _is_at(transaction, chunk.id, chunk.location):
                        transaction.put(Table.CHUNKS, chunk.id, Location(number, place).pack())
            remove_segments(transaction, map(self._places.numbers.__getitem__, rewriting.sources))

        self._store.write_freeing(apply)
        report = self._report
        report.rewritten_segments += len(rewriting.sources)
        report.new_segments += len(segments)
        report.freed_bytes += sum(map(self._places.stored_bytes.__getitem__, rewriting.sources)) - sum(map(len, segments))

    def finish(self) -> PruneReport:
        report = self._report
        report.file_bytes, report.reusable_bytes = self._environment.file_bytes(), self._environment.reusable_bytes()
        return report


@dataclass(frozen=True, slots=True)
class _Moved:
    """A chunk that goes from a place to a new segment."""

    id: ChunkId
    data: bytes
    location: Location
    rank: int


@dataclass(frozen=True, slots=True)
class _Rewriting:
    """Segments that others take the place of: their indexes, and of the new ones what is in each, and how it will be stored."""

    sources: list[int]
    parts: list[list[_Moved]]
    encoded: list[Future[bytes]]


class _Waste:
    """How much of each segment nobody needs."""

    def __init__(self, places: Places, named: bytearray) -> None:
        self._places = places
        self.named = named
        """For each place whether a row of the index names it."""
        self.rows = array("Q")
        """How many rows of the index name each segment."""
        self._live_bytes = array("Q")
        self._raw_bytes = array("Q")
        for index in range(len(places.numbers)):
            start, end = places.starts[index], places.starts[index + 1]
            self.rows.append(named.count(1, start, end))
            lengths = places.lengths[start:end]
            self._raw_bytes.append(sum(lengths))
            self._live_bytes.append(sum(length for at, length in enumerate(lengths, start) if named[at]))

    def middle_rank(self, index: int, ranks: "array[int]") -> int:
        """The median rank of what somebody needs of a segment that has something of it."""
        start, end = self._places.starts[index], self._places.starts[index + 1]
        found = sorted(compress(ranks[start:end], self.named[start:end]))
        return found[len(found) // 2]

    def choose(self, indexes: list[int]) -> list[int]:
        """Which of these segments to rewrite, in order: the most wasteful until little waste is left, and small ones if they are many."""
        waste = sum(self._raw_bytes[index] - self._live_bytes[index] for index in indexes)
        allowed = WASTE_MAX * sum(self._live_bytes[index] for index in indexes)
        chosen = set()
        for index in sorted(indexes, key=self._share, reverse=True):
            if waste <= allowed:
                break
            waste -= self._raw_bytes[index] - self._live_bytes[index]
            chosen.add(index)
        small = [index for index in indexes if self._live_bytes[index] < _SMALL_BYTES]
        if len(small) >= _SMALL_SEGMENTS_MIN:
            chosen.update(small)
        return sorted(chosen)

    def batches(self, indexes: list[int]) -> Iterator[list[int]]:
        """These segments, as many at a time as one transaction takes."""
        batch: list[int] = []
        live_bytes = 0
        for index in indexes:
            batch.append(index)
            live_bytes += self._live_bytes[index]
            if live_bytes >= SEGMENTS_MAX * REWRITTEN_BYTES or len(batch) == SOURCES_MAX:
                yield batch
                batch, live_bytes = [], 0
        if batch:
            yield batch

    def _share(self, index: int) -> float:
        return 1 - self._live_bytes[index] / self._raw_bytes[index] if self._raw_bytes[index] else 0.0


def _is_at(view: ReadTransaction, chunk: ChunkId, location: Location) -> bool:
    """Whether the index says that a chunk is there."""
    value = view.get(Table.CHUNKS, chunk)
    return value is not None and unpack_location(value) == location


def _ids(joined: bytearray) -> Iterator[ChunkId]:
    for at in range(0, len(joined), ID_BYTES):
        yield ChunkId(bytes(joined[at : at + ID_BYTES]))


def _encode_part(codec: Codec, kind: Kind, part: list[_Moved]) -> bytes:
    return codec.encode(kind, [chunk.data for chunk in part])


def _in_segments(group: list[_Moved]) -> list[list[_Moved]]:
    """Chunks in runs of about `REWRITTEN_BYTES`, none of which is much smaller than the others."""
    total_bytes = sum(len(chunk.data) for chunk in group)
    count = max(1, round(total_bytes / REWRITTEN_BYTES))
    parts: list[list[_Moved]] = []
    part: list[_Moved] = []
    done_bytes = 0
    for chunk in group:
        part.append(chunk)
        done_bytes += len(chunk.data)
        if done_bytes * count >= total_bytes * (len(parts) + 1) or len(part) == CHUNKS_MAX:
            parts.append(part)
            part = []
    return [*parts, part] if part else parts

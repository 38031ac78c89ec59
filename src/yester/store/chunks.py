# SPDX-License-Identifier: MIT
"""Reading and writing chunks.

A `ChunkReader` checks each chunk's hash before it gives it out for the first time; wrong bytes are an error, never
zeros. A `ChunkWriter` packs new chunks into segments, compresses them on threads of its own and commits them in
order, children before parents, so that whatever instant the process or the power ends at, every tree in the store has
all that it names.

Threads: a reader belongs to one thread. A writer's public methods belong to one thread, the one that made it.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from queue import Queue
from typing import Protocol, Self

from yester.core.ids import ChunkId
from yester.errors import CorruptionError, FormatError, StoreAccessError, SweptError, YesterError
from yester.store.codec_pool import CodecPool
from yester.store.damage import find_damaged, heal
from yester.store.lmdb import Environment, ReadTransaction, Table, WriteTransaction
from yester.store.segments import CHUNKS_MAX, SEGMENT_BYTES, Codec, Kind, parse_header

CACHE_BYTES = 24 * SEGMENT_BYTES
"""Decompressed segments a reader keeps. A small file's neighbours are in its segment: reading a folder needs a few."""

BATCH_STORED_BYTES = 16 * SEGMENT_BYTES
BATCH_RAW_BYTES = 96 * SEGMENT_BYTES
"""A commit is made once this much waits for it: a sync costs as much as compressing some MiB, and every commit rewrites
most of the chunk index's pages. What a crash can cost is one batch, which the next backup reads again."""

UNCOMPRESSEDSEGMENTS_MAX = 16
UNCOMMITTEDSEGMENTS_MAX = 64
"""Closed segments that wait to be compressed, and for the commit thread. They bound memory when compression or the disk is
slower than the source; the second is large, so that all cores go on while a commit waits for the disk."""

LOCATION_BYTES = 8
SEGMENTS_MAX = 2**48 - 2**20
"""A location has 48 bits for a segment's number."""
_NOTHING = memoryview(b"")


class ChunkSource(Protocol):
    """Anything that gives chunks by id."""

    def read(self, chunk: ChunkId) -> memoryview:
        """The chunk's bytes, checked against its id. The view stays valid as long as it is held.

        Raises:
            CorruptionError: the store does not hold it, or not the right bytes.
        """
        ...


class NamingSource(ChunkSource, Protocol):
    """A chunk source that can also tell whether it has given bytes."""

    def chunk_id(self, data: bytes | memoryview) -> ChunkId:
        """What these bytes are called there, whether they are stored or not."""
        ...


@dataclass(frozen=True, slots=True)
class Location:
    """Where a chunk is: the `place`-th chunk, from 0, of a segment."""

    segment: int
    place: int

    def pack(self) -> bytes:
        """The 8 stored bytes: 48 bits of segment number, 16 of place."""
        return pack_location(self.segment, self.place)


def pack_location(segment: int, place: int) -> bytes:
    """The stored bytes of a location, where there are too many to make an object of each."""
    return (segment << 16 | place).to_bytes(LOCATION_BYTES, "little")


def unpack_location(stored: bytes | memoryview) -> Location:
    """The location of a stored index value.

    Raises:
        CorruptionError: not 8 bytes.
    """
    if len(stored) != LOCATION_BYTES:
        message = "an entry of the chunk index is damaged"
        raise CorruptionError(message)
    packed = int.from_bytes(stored, "little")
    return Location(packed >> 16, packed & 0xFFFF)


def segment_of(stored: bytes | memoryview) -> int:
    """The number of the segment to which an index value leads, which is not looked at for that: 0.2 µs."""
    return int.from_bytes(stored, "little") >> 16


def segment_key(number: int) -> bytes:
    """A segment's key: big-endian, so that keys sort by number."""
    return number.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class _DecodedSegment:
    payload: memoryview
    bounds: tuple[int, ...]
    hashes: dict[int, ChunkId]
    """What the bytes at a place hash to, as far as that was computed. Compared with the id each time: a damaged index can
    lead a second id to the same place."""


class ChunkReader:
    """Gives chunks by id, keeping the most recently used segments decompressed.

    With `read_ahead`, the environment's background thread decodes the segment after the one that is needed while segments are
    needed in order, as when a folder or a large file is read from front to end.
    """

    def __init__(self, environment: Environment, *, cache_bytes: int = CACHE_BYTES, read_ahead: bool = False) -> None:
        self._environment = environment
        self._codec = Codec(environment.key)
        self._cache: OrderedDict[int, _DecodedSegment] = OrderedDict()
        self._cache_bytes_max = cache_bytes
        self._cache_bytes = 0
        self._ahead = _ReadAhead(environment) if read_ahead else None

    def read(self, chunk: ChunkId) -> memoryview:
        """See `ChunkSource`. About 3 µs from the cache, 1 ms a segment that is not."""
        # Not in one transaction with the segment, which is twice as dear: segments do not change, and their numbers are not used again.
        location = self._locate(chunk)
        while (segment := self._cache.get(location.segment) or self._load(location.segment)) is None:
            before, location = location, self._locate(chunk)
            if location == before:  # else a prune has moved the chunk between the two looks
                message = f"segment {location.segment} is not in the store {self._environment.path}"
                raise CorruptionError(message, hint="run `yester check` to see which files it belongs to")
        self._cache.move_to_end(location.segment)
        place = location.place
        data = segment.payload[segment.bounds[place] : segment.bounds[place + 1]] if place + 1 < len(segment.bounds) else _NOTHING
        found = segment.hashes.get(place)
        if found is None:
            found = segment.hashes[place] = self._environment.name_chunk(data)
        if found != chunk:
            message = f"chunk {chunk.hex()} in segment {location.segment} of {self._environment.path} is damaged"
            raise CorruptionError(message, hint="run `yester check --read-data` to see which files it belongs to")
        return data

    def chunk_id(self, data: bytes | memoryview) -> ChunkId:
        """See `NamingSource`."""
        return self._environment.name_chunk(data)

    def _locate(self, chunk: ChunkId) -> Location:
        stored = self._environment.get(Table.CHUNKS, chunk)
        if stored is None:
            raise self._missing(chunk)
        return unpack_location(stored)

    def _missing(self, chunk: ChunkId) -> CorruptionError:
        with self._environment.read() as view:
            is_known = find_damaged(view, chunk) is not None
        if is_known:
            message = f"chunk {chunk.hex()} is lost: `yester repair` of {self._environment.path} found it nowhere"
            return CorruptionError(message, hint="a backup of a source that still has the same bytes puts it back")
        message = f"chunk {chunk.hex()} is not in the store {self._environment.path}"
        return CorruptionError(message, hint="run `yester check` to see which files it belongs to")

    def _load(self, number: int) -> _DecodedSegment | None:
        """A segment that is not in the cache; None if there is none of that number."""
        segment = self._ahead.take(number) if self._ahead is not None else None
        if segment is None:
            with self._environment.read() as view:
                segment = _decode_segment(self._environment, view, self._codec, number)
        if segment is None:
            return None
        self._cache[number] = segment
        self._cache_bytes += len(segment.payload)
        while self._cache_bytes > self._cache_bytes_max and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cache_bytes -= len(dropped.payload)
        return segment


def _decode_segment(environment: Environment, view: ReadTransaction, codec: Codec, number: int) -> _DecodedSegment | None:
    """None if there is no such segment."""
    stored = view.get(Table.SEGMENTS, segment_key(number))
    if stored is None:
        return None
    header = parse_header(stored, environment.key)
    segment = _DecodedSegment(memoryview(codec.decode(stored, header)), header.bounds, {})
    environment.release_pages(len(stored))
    return segment


class _ReadAhead:
    """Decodes the next segment on the environment's background thread while segments are taken in order."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._codec = Codec(environment.key)
        self._last = 0
        self._next: tuple[int, Future[_DecodedSegment | None]] | None = None

    def take(self, number: int) -> _DecodedSegment | None:
        """The segment, if it was decoded ahead; starts on the one after it if this one follows the one before."""
        waiting, self._next = self._next, None
        segment = waiting[1].result() if waiting is not None and waiting[0] == number else None
        if number == self._last + 1:
            self._next = number + 1, self._environment.in_background(self._decode, number + 1)
        self._last = number
        return segment

    def _decode(self, number: int) -> _DecodedSegment | None:
        """None if it cannot be decoded: whoever needs it finds out why. Hashing here as well frees the reader from it."""
        try:
            with self._environment.read() as view:
                segment = _decode_segment(self._environment, view, self._codec, number)
        except YesterError:
            return None
        if segment is None:
            return None
        for place, (start, end) in enumerate(pairwise(segment.bounds)):
            segment.hashes[place] = self._environment.name_chunk(segment.payload[start:end])
        return segment


Change = Callable[[WriteTransaction], None]


@dataclass(slots=True)
class _OpenSegment:
    """Chunks of one kind that wait until they fill a segment, and changes that need them committed first or with them."""

    kind: Kind
    ids: list[ChunkId] = field(default_factory=list)
    chunks: list[bytes | memoryview] = field(default_factory=list)
    raw_bytes: int = 0
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ClosedSegment:
    encoded: "Future[bytes]"
    chunks: tuple[ChunkId, ...]
    raw_bytes: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class _Flush:
    done: "Future[None]"


@dataclass(slots=True)
class WriteCounts:
    """What a writer added so far: chunks before compression, and segments as stored (known once committed)."""

    new_chunks: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0


class ChunkWriter:
    """Adds chunks. A context manager: leaving it without an error commits what was added.

    Order of commits: a tree segment is only closed together with the data segment before it, closed segments are
    committed in the order in which they were closed, and a change given to `after_trees` goes with the tree segment
    that was open at the time. So a committed tree never names a chunk that is not committed.

    Crash at any point: the store holds a prefix of the batches. Nothing refers to the chunks of an unfinished backup
    but scan records committed with them, and the next backup finds both. Few trees belong to much data where files are
    large: so that their scan records do not wait until the trees fill a segment, one is closed at least with every batch.

    Whether a chunk "exists" is asked of the store as it is at that moment plus what this writer has pending. A prune may remove
    it before a tree that names it is committed. So the writer remembers what it *relied* on, and where a prune has swept since
    it began, each commit looks again, in its own transaction: what is gone ends the writer with `SweptError` and nothing is
    committed that lacks anything. What this writer itself has committed is kept by the lease of whoever uses it (`Store.adding`).
    100 bytes for each chunk that was relied on.
    """

    def __init__(self, environment: Environment) -> None:
        self.counts = WriteCounts()
        self._environment = environment
        self._relied: set[ChunkId] = set()
        self._sweeps = stored_number(environment.get(Table.META, SWEEPS_KEY))
        self._open = {kind: _OpenSegment(kind) for kind in Kind}
        self._bytes_since_trees = 0
        self._pending: set[ChunkId] = set()
        self._committed: deque[list[ChunkId]] = deque()
        self._uncompressed = threading.Semaphore(UNCOMPRESSEDSEGMENTS_MAX)
        self._queue: Queue[_ClosedSegment | _Flush | None] = Queue(UNCOMMITTEDSEGMENTS_MAX)
        self._failure: BaseException | None = None
        self._is_abandoned = False
        self._doubting: ChunkReader | None = None
        self._compressors = CodecPool(environment.key, "compress")
        self._committer = threading.Thread(target=self._commit_loop, name="commit", daemon=True)
        self._committer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, /, *rest: object) -> None:
        """Commit what was added, or after an error drop what is not committed; then end the threads."""
        try:
            if exception_type is None:
                self.flush()
        finally:
            self._is_abandoned = exception_type is not None
            self._queue.put(None)
            self._committer.join()
            self._compressors.cancel()
        is_consequence = exception_type is not None and issubclass(exception_type, StoreAccessError) and self._failure not in rest
        if is_consequence and self._failure is not None:
            # After a failed commit LMDB refuses everything. What this thread met is that; the other one knows why.
            raise self._failure

    def add(self, kind: Kind, data: bytes | memoryview, *, is_root: bool = False) -> ChunkId:
        """Store a chunk unless the store has it (whole, after `doubt`), and return its id.

        `data` is kept until it is compressed: never reuse it. With `is_root` it is stored although the store has it: it is about to be
        published by something that cannot begin again, and what this writer stored is kept until then, with all that it names.

        Blocks while too much waits for compression or for the disk.

        Raises:
            StoreFullError, StoreAccessError, CorruptionError, SweptError: an earlier batch could not be committed.
        """
        chunk = self._environment.name_chunk(data)
        is_stored = chunk in self._pending if is_root else self._can_rely_on(chunk, kind)
        if not is_stored or self._is_damaged(chunk):
            segment = self._open[kind]
            self._pending.add(chunk)
            segment.ids.append(chunk)
            segment.chunks.append(data)
            segment.raw_bytes += len(data)
            self.counts.new_chunks += 1
            self.counts.raw_bytes += len(data)
            self._bytes_since_trees += len(data)
            if segment.raw_bytes >= SEGMENT_BYTES or len(segment.ids) == CHUNKS_MAX:
                if kind is Kind.TREE:
                    self._close(Kind.DATA)
                self._close(kind)
        return chunk

    def has(self, chunk: ChunkId) -> bool:
        """Whether the store holds this chunk, or will once this writer has committed."""
        if chunk in self._pending:
            return True
        while self._committed:
            self._pending.difference_update(self._committed.popleft())
        return self._environment.get(Table.CHUNKS, chunk) is not None

    def rely_on(self, tree: ChunkId) -> None:
        """Note that trees that will be added name what this tree of the store names, or the tree itself."""
        self._relied.add(tree)

    def _can_rely_on(self, chunk: ChunkId, kind: Kind) -> bool:
        """Whether the store has, or will have, a chunk so that what is added may name it.

        A tree that is there as file data (somebody backs up a copy of one) does not do: a prune might remove it after what it names.
        """
        if chunk in self._pending:
            return True
        if not self.has(chunk) or (kind is Kind.TREE and self._is_among_data(chunk)):
            return False
        self._relied.add(chunk)
        return True

    def _is_among_data(self, chunk: ChunkId) -> bool:
        with self._environment.read() as view:
            location = view.get(Table.CHUNKS, chunk)
            segment = view.get(Table.SEGMENTS, segment_key(unpack_location(location).segment)) if location is not None else None
            try:
                return segment is None or parse_header(segment, self._environment.key).kind is not Kind.TREE
            except (CorruptionError, FormatError):
                return False  # `doubt` is what tells damage

    def doubt(self) -> None:
        """The store is damaged somewhere: from now on, read what it has of a chunk that is added, and store it again if that is bad.

        The index then leads to the new copy, so everything else that names the chunk is whole again as well.
        """
        self._doubting = self._doubting or ChunkReader(self._environment)

    def _is_damaged(self, chunk: ChunkId) -> bool:
        """Whether a chunk that the store has cannot be read. Not asked of every chunk: see `doubt`."""
        if self._doubting is None or chunk in self._pending:
            return False
        try:
            self._doubting.read(chunk)
        except (CorruptionError, FormatError):
            return True
        return False

    def after_trees(self, change: Change) -> None:
        """Have `change` made in the transaction that commits the trees added so far. It may run more than once."""
        self._open[Kind.TREE].changes.append(change)
        if self._bytes_since_trees >= BATCH_RAW_BYTES:
            self._close(Kind.DATA)
            self._close(Kind.TREE)

    def flush(self) -> None:
        """Commit all that was added; durable on return."""
        self._close(Kind.DATA)
        self._close(Kind.TREE)
        done: Future[None] = Future()
        self._queue.put(_Flush(done))
        done.result()

    def _close(self, kind: Kind) -> None:
        segment = self._open[kind]
        if not segment.chunks and not segment.changes:
            return
        if self._failure is not None:
            raise self._failure
        self._open[kind] = _OpenSegment(kind)
        if kind is Kind.TREE:
            self._bytes_since_trees = 0
        self._uncompressed.acquire()
        encoded = self._compressors.submit(lambda codec: self._encode(codec, kind, segment.chunks))
        self._queue.put(_ClosedSegment(encoded, tuple(segment.ids), segment.raw_bytes, tuple(segment.changes)))

    def _encode(self, codec: Codec, kind: Kind, chunks: list[bytes | memoryview]) -> bytes:
        try:
            return codec.encode(kind, chunks) if chunks else b""
        finally:
            self._uncompressed.release()

    def _commit_loop(self) -> None:
        """Collect closed segments into batches and commit them, in order; after a failure, only drain the queue."""
        batch: list[tuple[_ClosedSegment, bytes]] = []
        while (item := self._queue.get()) is not None:
            try:
                if isinstance(item, _ClosedSegment):
                    batch.append((item, item.encoded.result()))
                if isinstance(item, _Flush) or _is_full(batch):
                    self._commit(batch)
                    batch = []
            except BaseException as error:  # noqa: BLE001 (the thread that adds must hear of every failure, whatever it is)
                self._failure = self._failure or _as_store_failure(error)
                batch = []
            if isinstance(item, _Flush):
                if self._failure is not None:
                    item.done.set_exception(self._failure)
                else:
                    item.done.set_result(None)

    def _commit(self, batch: list[tuple[_ClosedSegment, bytes]]) -> None:
        if not batch or self._failure is not None or self._is_abandoned:
            return

        def apply(transaction: WriteTransaction) -> None:
            self._judge_relied(transaction)
            number = last_segment(transaction)
            if number >= SEGMENTS_MAX:
                message = f"the store {self._environment.path} has a segment with the impossible number {number}; nothing was stored"
                raise CorruptionError(message, hint="run `yester check`")
            locations: list[tuple[ChunkId, bytes]] = []
            for segment, encoded in batch:
                if encoded:
                    number += 1
                    transaction.put(Table.SEGMENTS, segment_key(number), encoded, append=True)
                    locations += [(chunk, Location(number, place).pack()) for place, chunk in enumerate(segment.chunks)]
            for chunk, location in sorted(locations):
                transaction.put(Table.CHUNKS, chunk, location)
                transaction.looked_at(2)  # now, and when it was looked for
            heal(transaction, (chunk for chunk, _ in locations))
            for segment, _ in batch:
                for change in segment.changes:
                    change(transaction)

        self._environment.write(apply)
        self._committed.append([chunk for segment, _ in batch for chunk in segment.chunks])
        self.counts.stored_bytes += sum(len(encoded) for _, encoded in batch)

    def _judge_relied(self, transaction: WriteTransaction) -> None:
        """Compare what was relied on with what is there, if a prune has swept since this writer began.

        All of it, each time: the thread that adds may have asked before a sweep and note only now that it relies on the answer.
        """
        if stored_number(transaction.get(Table.META, SWEEPS_KEY)) != self._sweeps:
            for chunk in list(self._relied):  # a copy in one step: the thread that adds goes on
                if transaction.get(Table.CHUNKS, chunk) is None:
                    message = (
                        f"a prune of the store {self._environment.path} removed what was about to be used again; nothing was published"
                    )
                    raise SweptError(message, hint="do it again: what is missing is stored anew")


SWEEPS_KEY = b"sweeps"
_LAST_SEGMENT_KEY = b"last_segment"


def stored_number(value: bytes | memoryview | None) -> int:
    """A number of the table `meta`; 0 if it is not there."""
    return int.from_bytes(value or b"", "little")


def last_segment(view: ReadTransaction) -> int:
    """The highest number that a segment has or had; 0 before the first. Numbers are not used again: readers keep segments by them."""
    last = view.last_key(Table.SEGMENTS)
    return max(int.from_bytes(last, "big") if last else 0, stored_number(view.get(Table.META, _LAST_SEGMENT_KEY)))


def count_sweep(transaction: WriteTransaction) -> None:
    """Have whoever adds chunks look again at what they rely on: some were removed from the index in this transaction."""
    transaction.put(Table.META, SWEEPS_KEY, (stored_number(transaction.get(Table.META, SWEEPS_KEY)) + 1).to_bytes(8, "little"))


def remove_segments(transaction: WriteTransaction, numbers: Iterable[int]) -> None:
    """Remove segments that no entry of the index names."""
    transaction.put(Table.META, _LAST_SEGMENT_KEY, last_segment(transaction).to_bytes(8, "little"))
    for number in numbers:
        transaction.delete(Table.SEGMENTS, segment_key(number))


def _as_store_failure(error: BaseException) -> BaseException:
    """An `OSError` here is the store's: a backup must not take it for one of the file it is reading, and go on."""
    if not isinstance(error, OSError):
        return error
    message = f"the store could not be written: {error}"
    failure = StoreAccessError(message)
    failure.__cause__ = error
    return failure


def _is_full(batch: list[tuple[_ClosedSegment, bytes]]) -> bool:
    stored_bytes = sum(len(encoded) for _, encoded in batch)
    return stored_bytes >= BATCH_STORED_BYTES or sum(segment.raw_bytes for segment, _ in batch) >= BATCH_RAW_BYTES

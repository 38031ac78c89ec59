# SPDX-License-Identifier: MIT
"""Writing chunks in an order that never leaves a hole, and reading nothing that was not written."""

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yester.core.content import pack_span, unpack_spans
from yester.core.ids import ChunkId
from yester.errors import CorruptionError, StoreAccessError, StoreFullError, YesterError
from yester.store import chunks as chunks_module
from yester.store.chunks import ChunkReader, ChunkWriter, Location, segment_key, unpack_location
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.segments import CHUNKS_MAX, SEGMENT_BYTES, Kind, parse_header


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes many segments and commits of little data."""
    monkeypatch.setattr(chunks_module, "SEGMENT_BYTES", 2000)
    monkeypatch.setattr(chunks_module, "BATCH_STORED_BYTES", 4000)
    monkeypatch.setattr(chunks_module, "BATCH_RAW_BYTES", 4000)


def store_all(environment: Environment, data: Iterable[bytes], kind: Kind = Kind.DATA) -> list[ChunkId]:
    with ChunkWriter(environment) as writer:
        return [writer.add(kind, piece) for piece in data]


def locate(environment: Environment, chunk: ChunkId) -> Location:
    with environment.read() as view:
        return unpack_location(view.get(Table.CHUNKS, chunk) or b"")


# --- writing ----------------------------------------------------------------------------------------------------------


def writer_threads() -> list[str]:
    """Threads of chunk writers. Those of other tests may linger."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("commit", "compress"))]


@given(data=st.lists(st.tuples(st.sampled_from(Kind), st.binary(min_size=1, max_size=300)), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@pytest.mark.usefixtures("small_batches")
def test_what_is_added_can_be_read(environment: Environment, data: list[tuple[Kind, bytes]]) -> None:
    with ChunkWriter(environment) as writer:
        ids = [writer.add(kind, piece) for kind, piece in data]
        assert all(writer.has(chunk) for chunk in ids)
    reader = ChunkReader(environment)
    assert ids == [environment.name_chunk(piece) for _, piece in data]
    assert [bytes(reader.read(chunk)) for chunk in ids] == [piece for _, piece in data]


def test_a_chunk_is_stored_once(environment: Environment) -> None:
    with ChunkWriter(environment) as writer:
        for _ in range(3):
            writer.add(Kind.DATA, b"same")
        writer.flush()
        writer.add(Kind.TREE, b"same")
        assert (writer.counts.new_chunks, writer.counts.raw_bytes) == (1, 4)
    with ChunkWriter(environment) as writer:
        writer.add(Kind.DATA, b"same")
        assert writer.counts.new_chunks == 0
    with environment.read() as view:
        assert (view.count(Table.CHUNKS), view.count(Table.SEGMENTS)) == (1, 1)


def test_trees_and_data_lie_apart(environment: Environment) -> None:
    with ChunkWriter(environment) as writer:
        tree, data = writer.add(Kind.TREE, b"tree"), writer.add(Kind.DATA, b"data")
    kinds = []
    with environment.read() as view:
        for chunk in (tree, data):
            stored = view.get(Table.SEGMENTS, segment_key(locate(environment, chunk).segment))
            assert stored is not None
            kinds.append(parse_header(stored, environment.key).kind)
    assert kinds == [Kind.TREE, Kind.DATA]


def test_segments_are_closed_when_they_are_full(environment: Environment) -> None:
    pieces = [os.urandom(100_000) for _ in range(25)]
    ids = store_all(environment, pieces)
    segments = [locate(environment, chunk).segment for chunk in ids]
    assert segments == [1] * 11 + [2] * 11 + [3] * 3
    assert SEGMENT_BYTES < 1_100_000


def test_more_chunks_than_a_place_has_bits_for_go_on_in_the_next_segment(environment: Environment) -> None:
    ids = store_all(environment, [b"%d" % number for number in range(CHUNKS_MAX + 10)])
    assert locate(environment, ids[CHUNKS_MAX - 1]) == Location(1, CHUNKS_MAX - 1)
    assert locate(environment, ids[CHUNKS_MAX]) == Location(2, 0)
    reader = ChunkReader(environment)
    for number in (0, CHUNKS_MAX - 1, CHUNKS_MAX, CHUNKS_MAX + 9):
        assert reader.read(ids[number]) == b"%d" % number


def test_flushing_makes_durable_and_closing_flushes(environment: Environment) -> None:
    with ChunkWriter(environment) as writer:
        first = writer.add(Kind.DATA, b"1")
        writer.flush()
        assert environment.get(Table.CHUNKS, first) is not None
        writer.flush()
        second = writer.add(Kind.TREE, b"2")
        assert environment.get(Table.CHUNKS, second) is None
    assert environment.get(Table.CHUNKS, second) is not None
    assert writer.counts.stored_bytes == sum(_segment_sizes(environment))


def _segment_sizes(environment: Environment) -> list[int]:
    with environment.read() as view:
        return [len(stored) for _, stored in view.iterate(Table.SEGMENTS)]


def test_changes_come_with_the_trees_that_were_added_before_them(environment: Environment) -> None:
    def change(transaction: WriteTransaction) -> None:
        assert transaction.get(Table.CHUNKS, environment.name_chunk(b"tree")) is not None
        transaction.put(Table.SCAN, b"key", b"value")

    with ChunkWriter(environment) as writer:
        writer.add(Kind.TREE, b"tree")
        writer.after_trees(change)
        assert environment.get(Table.SCAN, b"key") is None
    assert environment.get(Table.SCAN, b"key") == b"value"


def test_changes_without_new_trees_are_made_too(environment: Environment) -> None:
    store_all(environment, [b"tree"], Kind.TREE)
    with ChunkWriter(environment) as writer:
        writer.add(Kind.TREE, b"tree")
        writer.after_trees(lambda transaction: transaction.put(Table.SCAN, b"key", b"value"))
    assert environment.get(Table.SCAN, b"key") == b"value"


@pytest.fixture
def commits(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> list[list[ChunkId]]:
    """The chunks that each commit brought; after each, every tree that is remembered has all that it names."""
    write = environment.write
    found: list[list[ChunkId]] = []

    def write_and_look(apply: Callable[[WriteTransaction], object]) -> object:
        before = _chunks(environment)
        result = write(apply)
        found.append([chunk for chunk in _chunks(environment) if chunk not in before])
        _check_trees(environment)
        return result

    monkeypatch.setattr(environment, "write", write_and_look)
    return found


def _chunks(environment: Environment) -> set[ChunkId]:
    with environment.read() as view:
        return {ChunkId(key) for key, _ in view.iterate(Table.CHUNKS)}


def _check_trees(environment: Environment) -> None:
    """Every tree that is remembered has all that it and the trees in it name. A tree is T and the ids of what it names."""
    reader = ChunkReader(environment)
    with environment.read() as view:
        waiting = [ChunkId(key) for key, _ in view.iterate(Table.SCAN)]
    seen = set(waiting)
    while waiting:
        data = bytes(reader.read(waiting.pop()))
        if data[:1] == b"T":
            new = {span.chunk for span in unpack_spans(data[1:])} - seen
            seen |= new
            waiting += new


def _tree(chunks: list[ChunkId]) -> bytes:
    return b"T" + b"".join(pack_span(chunk, 1) for chunk in chunks)


@pytest.mark.parametrize("batch_raw_bytes", [1500, 1 << 30], ids=["trees are closed with data", "trees are closed when full"])
@given(sizes=st.lists(st.integers(0, 10) | st.integers(0, 1000), min_size=1, max_size=60), width=st.integers(1, 8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_a_tree_is_never_committed_before_what_it_names(
    environment: Environment, commits: list[list[ChunkId]], batch_raw_bytes: int, sizes: list[int], width: int
) -> None:
    """Files, then trees of files, then trees of trees; some files equal, some like trees. Each closed segment is a commit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks_module, "SEGMENT_BYTES", 300)
        patch.setattr(chunks_module, "BATCH_STORED_BYTES", 1)
        patch.setattr(chunks_module, "BATCH_RAW_BYTES", batch_raw_bytes)
        _write_trees(environment, sizes, width)
    assert commits


def _write_trees(environment: Environment, sizes: list[int], width: int) -> None:
    trees: list[ChunkId] = []
    with ChunkWriter(environment) as writer:
        files: list[ChunkId] = []
        for number, size in enumerate(sizes):
            data = b"F%d" % (number % 40) + os.urandom(size) if number % 5 else b"F same"
            files.append(writer.add(Kind.DATA, data))
            if len(files) == width:
                record = _tree(files + trees[-2:])
                if number % 3 == 0:
                    writer.add(Kind.DATA, record)  # a file that holds just what the tree's record is
                trees.append(writer.add(Kind.TREE, record))
                writer.after_trees(_remember(trees[-1]))
                files = []
    assert all(environment.get(Table.SCAN, tree) for tree in trees)


def _remember(tree: ChunkId) -> Callable[[WriteTransaction], None]:
    def change(transaction: WriteTransaction) -> None:
        assert transaction.get(Table.CHUNKS, tree) is not None
        transaction.put(Table.SCAN, tree, b"seen")

    return change


# --- when writing fails -----------------------------------------------------------------------------------------------


def _failing(environment: Environment, monkeypatch: pytest.MonkeyPatch, error: BaseException, *, after: int = 0) -> None:
    write = environment.write
    numbers = itertools.count()

    def fail(apply: Callable[[WriteTransaction], object]) -> object:
        if next(numbers) >= after:
            raise error
        return write(apply)

    monkeypatch.setattr(environment, "write", fail)


def _endless_pieces() -> Iterator[bytes]:
    while True:
        yield os.urandom(1000)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("error", [StoreFullError("full"), StoreAccessError("broken"), MemoryError(), KeyError("a bug")])
def test_a_failed_commit_reaches_who_adds(environment: Environment, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    _failing(environment, monkeypatch, error, after=3)
    with pytest.raises(type(error)):
        store_all(environment, _endless_pieces())
    assert not writer_threads()


def test_a_failed_commit_reaches_who_flushes(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(environment, monkeypatch, StoreFullError("full"))
    writer = ChunkWriter(environment)
    writer.add(Kind.DATA, b"1")
    with pytest.raises(StoreFullError):
        writer.flush()
    with pytest.raises(StoreFullError):
        writer.__exit__(None, None, None)
    with pytest.raises(StoreFullError):
        store_all(environment, [b"1"])
    assert _chunks(environment) == set()


def test_an_error_of_the_caller_leaves_uncommitted_chunks_out(environment: Environment) -> None:

    def fail_between() -> None:
        with ChunkWriter(environment) as writer:
            writer.add(Kind.DATA, b"1")
            writer.flush()
            writer.add(Kind.DATA, b"2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_between()
    assert _chunks(environment) == {environment.name_chunk(b"1")}
    assert not writer_threads()


def test_a_failure_to_compress_reaches_who_adds(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        message = "compressed data did not decompress to what it was made from"
        raise CorruptionError(message)

    monkeypatch.setattr("yester.store.segments.Codec.encode", fail)
    with pytest.raises(CorruptionError, match="did not decompress"):
        store_all(environment, [b"1"])
    assert _chunks(environment) == set()


@pytest.mark.usefixtures("small_batches")
def test_nothing_is_committed_after_a_failure(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if the next commit would work again: what it names could be in the one that failed."""
    write = environment.write
    numbers = itertools.count()
    committed = []

    def fail_once(apply: Callable[[WriteTransaction], object]) -> object:
        number = next(numbers)
        if number == 2:
            message = "full for a moment"
            raise StoreFullError(message)
        committed.append(number)
        return write(apply)

    monkeypatch.setattr(environment, "write", fail_once)
    with pytest.raises(StoreFullError):
        store_all(environment, itertools.islice(_endless_pieces(), 500))
    assert committed == [0, 1]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_chunk_that_is_not_there_is_damage(environment: Environment) -> None:
    """Only what the store refers to is ever read; what a person named is looked for elsewhere."""
    with pytest.raises(CorruptionError, match="is not in the store"):
        ChunkReader(environment).read(environment.name_chunk(b"nothing"))


def test_a_missing_segment_or_place_is_damage(environment: Environment) -> None:
    [first, second] = store_all(environment, [b"1", b"2"])
    for location in (Location(1, 2), Location(1, 60_000), Location(9, 0)):
        _put_location(environment, first, location.pack())
        with pytest.raises(CorruptionError):
            ChunkReader(environment).read(first)
    _put_location(environment, first, b"short")
    with pytest.raises(CorruptionError, match="entry of the chunk index"):
        ChunkReader(environment).read(first)
    environment.write(lambda transaction: transaction.delete(Table.SEGMENTS, segment_key(1)))
    with pytest.raises(CorruptionError, match="segment 1 is not in the store"):
        ChunkReader(environment).read(second)


def _put_location(environment: Environment, chunk: ChunkId, location: bytes) -> None:
    environment.write(lambda transaction: transaction.put(Table.CHUNKS, chunk, location))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("read_ahead", [False, True])
def test_an_index_that_leads_to_another_chunk_gives_no_wrong_bytes(
    environment: Environment, order: tuple[int, int], read_ahead: bool
) -> None:
    """Neither before nor after the place was read for the id that belongs there."""
    ids = store_all(environment, [b"first", b"second"])
    _put_location(environment, ids[1], locate(environment, ids[0]).pack())
    reader = ChunkReader(environment, read_ahead=read_ahead)
    for number in (*order, *order):
        if number == 0:
            assert bytes(reader.read(ids[0])) == b"first"
        else:
            with pytest.raises(CorruptionError, match="is damaged"):
                reader.read(ids[1])


def test_damaged_bytes_are_an_error_each_time_and_their_neighbours_are_not(plain_environment: Environment) -> None:
    ids = store_all(plain_environment, [os.urandom(100), os.urandom(100)])

    def damage(transaction: WriteTransaction) -> None:
        stored = bytearray(transaction.get(Table.SEGMENTS, segment_key(1)) or b"")
        stored[-1] ^= 1
        transaction.put(Table.SEGMENTS, segment_key(1), bytes(stored))

    plain_environment.write(damage)
    reader = ChunkReader(plain_environment)
    for _ in range(2):
        with pytest.raises(CorruptionError, match="is damaged"):
            reader.read(ids[1])
        assert len(reader.read(ids[0])) == 100


def test_bytes_stay_valid_when_their_segment_is_dropped(environment: Environment) -> None:
    pieces = [os.urandom(600_000) for _ in range(12)]
    ids = store_all(environment, pieces)
    reader = ChunkReader(environment, cache_bytes=1)
    views = [reader.read(chunk) for chunk in ids]
    assert views == pieces
    assert [bytes(reader.read(chunk)) for chunk in reversed(ids)] == pieces[::-1]


@pytest.mark.parametrize("read_ahead", [False, True])
def test_the_cache_is_bounded(environment: Environment, monkeypatch: pytest.MonkeyPatch, read_ahead: bool) -> None:
    ids = store_all(environment, [os.urandom(1 << 20) for _ in range(20)])
    decoded = []
    decode = chunks_module._decode_segment

    def count(environment: Environment, view: object, codec: object, number: int) -> object:
        decoded.append(number)
        return decode(environment, view, codec, number)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(chunks_module, "_decode_segment", count)
    reader = ChunkReader(environment, cache_bytes=4 << 20, read_ahead=read_ahead)
    for chunk in ids:
        reader.read(chunk)
    assert sum(len(segment.payload) for segment in reader._cache.values()) <= 4 << 20
    assert len(set(decoded) - {21}) == 20  # the one after the last may have been looked for ahead, now or in a moment
    decoded.clear()
    reader.read(ids[-1])
    assert set(decoded) <= {21}
    reader.read(ids[0])
    assert 1 in decoded


def test_an_environment_that_is_closed_waits_for_what_is_decoded_ahead(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its map would be gone under the thread that decodes: a segmentation fault."""
    ids = store_all(environment, [os.urandom(1 << 20) for _ in range(4)])
    began, may_go_on, events = threading.Event(), threading.Event(), []
    decode = chunks_module._decode_segment

    def decode_slowly(environment: Environment, view: object, codec: object, number: int) -> object:
        if threading.current_thread().name.startswith("read-ahead"):
            began.set()
            may_go_on.wait(60)
            events.append("decoded")
        return decode(environment, view, codec, number)  # type: ignore[arg-type]  # passed on as they come

    def close() -> None:
        environment.close()
        events.append("closed")

    monkeypatch.setattr(chunks_module, "_decode_segment", decode_slowly)
    ChunkReader(environment, read_ahead=True).read(ids[0])
    assert began.wait(60)
    closing = threading.Thread(target=close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    may_go_on.set()
    closing.join(60)
    assert events == ["decoded", "closed"]


def test_new_chunks_are_seen_by_readers_that_are_open(environment: Environment) -> None:
    reader = ChunkReader(environment)
    for number in range(5):
        [chunk] = store_all(environment, [b"%d" % number])
        assert reader.read(chunk) == b"%d" % number


@given(segment=st.integers(0, 2**48 - 1), place=st.integers(0, 2**16 - 1))
def test_locations_are_stored_in_8_bytes(segment: int, place: int) -> None:
    packed = Location(segment, place).pack()
    assert len(packed) == 8
    assert unpack_location(packed) == Location(segment, place)


def test_two_stores_work_in_one_process(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Environment(tmp_path / "other", create=True) as other, ChunkWriter(environment) as one_writer, ChunkWriter(other) as other_writer:
        chunk = one_writer.add(Kind.DATA, b"1")
        assert not other_writer.has(chunk)
        other_writer.add(Kind.DATA, b"2")
        one_writer.flush()
        with pytest.raises(YesterError):
            ChunkReader(other).read(chunk)
        assert bytes(ChunkReader(environment).read(chunk)) == b"1"

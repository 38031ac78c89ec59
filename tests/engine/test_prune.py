# SPDX-License-Identifier: MIT
"""Pruning frees exactly what nothing needs, whatever else goes on; docs/adr/0009."""

import random
import shutil
import stat
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.encrypted import unlock
from tests.engine.planting import DAY_NS, SMALL_CHUNKS, T0_NS, Items, Plan, plant_data, publish
from tests.engine.sandbox import MakeStore, Sandbox, both_kinds
from tests.pages import flip, parting_nodes
from yester.core.content import Content, iter_spans, unpack_spans
from yester.core.ids import ChunkId, chunk_id
from yester.core.records import RECORD_VERSION, Damaged, Entry, Snapshot, Tree, decode_tree, encode_damaged
from yester.engine import prune as prune_module
from yester.engine.check import check
from yester.engine.files import iter_pieces
from yester.engine.prune import PruneReport, prune
from yester.engine.repair import RepairOptions, repair
from yester.engine.trees import TreeReader, store_tree
from yester.errors import CorruptionError, SweptError
from yester.store.chunks import ChunkWriter, Location, segment_key, unpack_location
from yester.store.datafile import DATA_FILE
from yester.store.leases import HeldLease, list_leases
from yester.store.lmdb import Table, WriteTransaction
from yester.store.pages import NODE
from yester.store.salvage import DataFile
from yester.store.segments import Codec, Kind, parse_header
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

NOW_NS = T0_NS + 1000 * DAY_NS
Result = TypeVar("Result")


def prune_now(store: Store, *, dry_run: bool = False) -> PruneReport:
    return prune(store, grace_ns=0, now_ns=NOW_NS, dry_run=dry_run)


def forget(store: Store, *snapshots: StoredSnapshot, now_ns: int = NOW_NS) -> None:
    store.forget([stored.id for stored in snapshots], now_ns=now_ns)
    store.renew_lease()


def indexed(store: Store) -> set[bytes]:
    with store.environment.read() as view:
        return {key for key, _ in view.iterate(Table.CHUNKS)}


def segments(store: Store) -> int:
    with store.environment.read() as view:
        return view.count(Table.SEGMENTS)


def needed(plan: Items) -> set[bytes]:
    """The ids of all that a folder of this plan is made of."""
    sink = _Ids()
    plant_slowly(sink, plan, lambda: None)
    return sink.ids


@dataclass
class _Ids:
    ids: set[bytes] = field(default_factory=set)

    def add(self, kind: Kind, data: bytes | memoryview) -> ChunkId:
        chunk = chunk_id(data)
        self.ids.add(chunk)
        return chunk


def plant_slowly(writer: "ChunkWriter | _Ids", plan: Plan, pause: Callable[[], None], name: bytes = b"") -> Entry:
    """As `planting.plant`, with a pause after each chunk and each tree."""
    if isinstance(plan, bytes):
        content = plant_data(writer, SMALL_CHUNKS, plan)  # type: ignore[arg-type]  # all that it needs is `add`
        pause()
        return Entry(name, stat.S_IFREG | 0o644, 0, 0, T0_NS, T0_NS, len(plan), content.level, content.spans)
    assert isinstance(plan, Mapping)
    entries = tuple(plant_slowly(writer, below, pause, str(item).encode()) for item, below in sorted(plan.items()))
    tree = store_tree(Tree(RECORD_VERSION, {}, {}, entries), SMALL_CHUNKS, lambda record: writer.add(Kind.TREE, record))
    pause()
    return Entry(name, stat.S_IFDIR | 0o755, 0, 0, T0_NS, T0_NS, 0, 0, tree)


def contents(store: Store, root: Entry) -> Plan:
    """What an archived folder holds, as a plan."""
    chunks = store.reader()
    trees = TreeReader(chunks)

    def look(entry: Entry) -> Plan:
        if stat.S_ISREG(entry.mode):
            return b"".join(piece or b"" for _, piece in iter_pieces(chunks, entry.file_content))
        return {child.name.decode(): look(child) for child in trees.read(entry.tree).entries}

    return look(root)


@both_kinds
def test_what_was_forgotten_is_kept_as_long_as_it_can_be_had_back(store: Store) -> None:
    first, second = publish(store, {"a": b"one", "both": b"b"}), publish(store, {"a": b"two", "both": b"b"})
    before = indexed(store)
    forget(store, first, now_ns=NOW_NS)

    report = prune(store, grace_ns=DAY_NS, now_ns=NOW_NS + DAY_NS - 1)
    assert (report.in_grace, report.removed, report.dead_chunks) == (1, [], 0)
    assert indexed(store) == before
    assert store.undelete([first.id]) == [first]

    forget(store, first, now_ns=NOW_NS)
    generation = store.snapshots_generation()
    report = prune(store, grace_ns=DAY_NS, now_ns=NOW_NS + DAY_NS)
    assert store.snapshots_generation() > generation, "mounts show what is forgotten"
    assert [forgotten.stored for forgotten in report.removed] == [first]
    assert store.forgotten_snapshots() == []
    assert len(indexed(store)) == len(before) - 2  # the file and the folder
    assert contents(store, second.snapshot.root) == {"a": b"two", "both": b"b"}


def test_a_clock_that_was_ahead_keeps_what_it_forgot(store: Store) -> None:
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first, now_ns=NOW_NS + 100 * DAY_NS)
    assert prune_now(store).in_grace == 1
    assert store.undelete([first.id]) == [first]


def test_a_dry_run_says_what_would_go_and_leaves_it(store: Store) -> None:
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first)
    before = indexed(store)
    would = prune_now(store, dry_run=True)
    assert indexed(store) == before
    assert [forgotten.stored for forgotten in store.forgotten_snapshots()] == [first]
    did = prune_now(store)
    assert (would.removed, would.dead_chunks, would.dead_bytes) == (did.removed, did.dead_chunks, did.dead_bytes)
    assert did.dead_chunks == 2


def test_segments_with_waste_are_rewritten_and_others_are_not(make_store: MakeStore) -> None:
    store = make_store(chunking=SMALL_CHUNKS)
    kept = {f"kept{number}": bytes([number]) * 1000 for number in range(100)}
    first = publish(store, {**kept, **{f"gone{number}": b"x%03d" % number * 250 for number in range(100)}})
    publish(store, kept)
    forget(store, first)
    report = prune_now(store)
    assert report.rewritten_segments > 0
    assert report.freed_bytes > 0
    assert check(store, read_data=True).unneeded_chunks == 0
    again = prune_now(store)
    assert (again.rewritten_segments, again.removed_segments, again.dead_chunks) == (0, 0, 0)


@both_kinds
def test_many_small_segments_are_put_together(store: Store) -> None:
    for number in range(12):
        publish(store, {f"f{below}": b"%d" % below for below in range(number + 1)})
    before = segments(store)
    prune_now(store)
    assert segments(store) < before // 4
    for number, stored in enumerate(store.snapshots()):
        assert contents(store, stored.snapshot.root) == {f"f{below}": b"%d" % below for below in range(number + 1)}


def test_what_is_rewritten_lies_by_folder_though_it_came_by_time(store: Store) -> None:
    folder_of: dict[bytes, str] = {}
    for last in range(12):
        plan = {folder: {str(number): f"{folder}{number}".encode() for number in range(last + 1)} for folder in "abc"}
        folder_of |= {chunk_id(data): folder for folder, files in plan.items() for data in files.values()}
        publish(store, plan)

    def folders_by_place() -> list[str]:
        with store.environment.read() as view:
            places = {key: unpack_location(value) for key, value in view.iterate(Table.CHUNKS) if key in folder_of}
        in_order = sorted(places, key=lambda key: (places[key].segment, places[key].place))
        return [folder for folder, _ in groupby(in_order, folder_of.__getitem__)]

    assert len(folders_by_place()) > 3
    prune_now(store)
    assert sorted(folders_by_place()) == ["a", "b", "c"]


def test_numbers_of_removed_segments_are_not_used_again(store: Store) -> None:
    publish(store, {"a": b"one"})
    gone = publish(store, {"a": b"two"})
    with store.environment.read() as view:
        last = view.last_key(Table.SEGMENTS)
    assert last is not None
    forget(store, gone)
    prune_now(store)
    publish(store, {"a": b"three"})
    with store.environment.read() as view:
        now = view.last_key(Table.SEGMENTS)
    assert now is not None
    assert now > last


def test_a_reader_finds_a_chunk_again_that_was_moved(store: Store) -> None:
    reader = store.reader()
    stored = [publish(store, {f"f{below}": b"%d" % below for below in range(number + 1)}) for number in range(12)]
    reader.read(stored[0].snapshot.root.tree)
    location = store.environment.get(Table.CHUNKS, stored[0].snapshot.root.tree)
    prune_now(store)
    assert store.environment.get(Table.CHUNKS, stored[0].snapshot.root.tree) != location
    for snapshot in stored:
        assert decode_tree(reader.read(snapshot.snapshot.root.tree)).entries


def test_a_damaged_tree_ends_a_prune_before_anything_is_freed(make_store: MakeStore) -> None:
    store = make_store(may_be_damaged=True)
    first, second = publish(store, {"a": b"one"}), publish(store, {"sub": {"b": b"two"}})
    forget(store, first)
    before = indexed(store)
    tree = decode_tree(store.reader().read(second.snapshot.root.tree)).entries[0].tree
    store.environment.write(lambda transaction: transaction.delete(Table.CHUNKS, tree))
    with pytest.raises(CorruptionError, match="nothing was freed"):
        prune_now(store)
    assert indexed(store) == before - {tree}
    assert store.undelete([first.id])


def test_what_a_lost_folder_may_have_named_is_kept_until_somebody_accepts_that(make_store: MakeStore) -> None:
    store = make_store(may_be_damaged=True)
    first, second = publish(store, {"a": b"one"}), publish(store, {"sub": {"b": b"two"}, "c": b"three"})
    forget(store, first)
    tree = decode_tree(store.reader().read(second.snapshot.root.tree)).entries[1].tree

    def lose(transaction: WriteTransaction) -> None:
        transaction.delete(Table.CHUNKS, tree)
        transaction.put(Table.DAMAGED, tree, encode_damaged(Damaged(RECORD_VERSION, NOW_NS)))

    store.environment.write(lose)
    before = indexed(store)
    with pytest.raises(CorruptionError, match="1 folders or lists of chunks"):
        prune_now(store)
    assert indexed(store) == before
    prune(store, grace_ns=0, now_ns=NOW_NS, accepts_loss=True)
    assert chunk_id(b"three") in indexed(store)
    assert {chunk_id(b"one"), chunk_id(b"two")} & indexed(store) == set()


@pytest.mark.expect_log("left out")
@pytest.mark.parametrize("table", [Table.SNAPSHOTS, Table.FORGOTTEN])
def test_a_damaged_snapshot_ends_a_prune_before_anything_is_freed(make_store: MakeStore, table: Table) -> None:
    store = make_store(may_be_damaged=True)
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first)
    before = indexed(store)
    store.environment.write(lambda transaction: transaction.put(table, b"docs\0" + bytes(8), b"\x95nothing"))
    with pytest.raises(CorruptionError):
        prune_now(store)
    assert indexed(store) == before


KEPT = {f"f{number}": b"%d" % number * (500 + number) for number in range(5)}


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def thinned(make_store: MakeStore, request: pytest.FixtureRequest) -> Store:
    """Of two snapshots the first is forgotten; the second has `KEPT`. One chunk is waste already: no row leads to its place."""
    store = make_store(may_be_damaged=True, is_encrypted=request.param)
    first = publish(store, {"gone": b"one" * 500, "waste": b"two" * 600, **KEPT})
    publish(store, KEPT)
    store.environment.write(lambda transaction: transaction.delete(Table.CHUNKS, store.environment.name_chunk(b"two" * 600)))
    forget(store, first)
    return store


def row_of(store: Store, data: bytes) -> tuple[ChunkId, Location]:
    chunk = store.environment.name_chunk(data)
    return chunk, unpack_location(store.environment.get(Table.CHUNKS, chunk) or b"")


def put(store: Store, table: Table, key: bytes, value: bytes | None) -> None:
    """Set a row, or remove it."""
    store.environment.write(lambda transaction: transaction.put(table, key, value) if value is not None else transaction.delete(table, key))


def is_refused(store: Store) -> bool:
    before = indexed(store), segments(store)
    with pytest.raises(CorruptionError, match=r"[^;]; nothing was freed$"):
        prune_now(store)
    return (indexed(store), segments(store)) == before


def repair_and_prune(store: Store) -> None:
    """Nothing was lost."""
    store.close()
    assert repair(store.path, RepairOptions(), unlock=unlock).is_whole
    with Store.open(store.path, unlock=unlock) as mended:
        assert prune_now(mended).dead_chunks
        [kept] = mended.snapshots()
        assert contents(mended, kept.snapshot.root) == KEPT
        report = check(mended, read_data=True)
        assert (report.findings, report.unneeded_chunks) == ((), 0)


def test_what_only_the_index_has_lost_is_not_freed(thinned: Store) -> None:
    """Of data to which no row leads nobody knows that it is needed; a repair finds it as long as it is there."""
    chunk, location = row_of(thinned, KEPT["f1"])
    right = location.pack()
    for bit in range(64):
        put(thinned, Table.CHUNKS, chunk, (int.from_bytes(right, "little") ^ 1 << bit).to_bytes(8, "little"))
        assert is_refused(thinned), bit
    put(thinned, Table.CHUNKS, chunk, None)
    assert is_refused(thinned)
    put(thinned, Table.CHUNKS, chunk[:-1] + bytes([chunk[-1] ^ 1]), right)
    assert is_refused(thinned)
    repair_and_prune(thinned)


def test_a_row_that_leads_to_waste_of_another_length_ends_a_prune(thinned: Store) -> None:
    chunk, location = row_of(thinned, KEPT["f1"])
    with thinned.environment.read() as view:
        rows = {unpack_location(value) for _, value in view.iterate(Table.CHUNKS)}
    [waste] = [place for place in range(7) if Location(location.segment, place) not in rows]
    put(thinned, Table.CHUNKS, chunk, Location(location.segment, waste).pack())
    assert is_refused(thinned)
    repair_and_prune(thinned)


@pytest.mark.parametrize("bit", range(64))
def test_a_segment_under_another_number_ends_a_prune(thinned: Store, bit: int) -> None:
    _, location = row_of(thinned, KEPT["f1"])
    other = location.segment ^ 1 << bit
    stored = thinned.environment.get(Table.SEGMENTS, segment_key(location.segment)) or b""
    if thinned.environment.get(Table.SEGMENTS, segment_key(other)) is not None:
        pytest.skip("that number is taken")
    put(thinned, Table.SEGMENTS, segment_key(location.segment), None)
    put(thinned, Table.SEGMENTS, segment_key(other), stored)
    assert is_refused(thinned)
    repair_and_prune(thinned)


def test_damaged_pages_end_a_prune(thinned: Store) -> None:
    """LMDB may not find rows that are there, of a live folder, or write over others when it removes one."""
    publish(thinned, {f"more{number}": random.Random(number).randbytes(100) for number in range(300)})
    thinned.close()
    with DataFile(thinned.path) as file:
        root = file.tables[Table.CHUNKS.value].root
    data = (thinned.path / DATA_FILE).read_bytes()
    flip(thinned.path, data, parting_nodes(data, root)[0] + NODE.size, 7)
    with Store.open(thinned.path, unlock=unlock) as store, pytest.raises(CorruptionError, match=r"branch page .*; nothing was freed"):
        prune_now(store)
    assert repair(thinned.path, RepairOptions(), unlock=unlock).is_whole
    with Store.open(thinned.path, unlock=unlock) as store:
        assert prune_now(store).dead_chunks


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("filler", [500, 0], ids=["compressed", "raw"])
def test_a_segment_with_a_damaged_chunk_is_left_to_a_repair(make_store: MakeStore, filler: int, *, is_encrypted: bool) -> None:
    store = make_store(may_be_damaged=True, is_encrypted=is_encrypted)
    rng = random.Random("damaged")
    kept = {f"kept{number}": rng.randbytes(1000) for number in range(3)}
    first = publish(store, {**{f"gone{number}": bytes(filler) + rng.randbytes(100) for number in range(100)}, **kept})
    publish(store, kept)
    forget(store, first)
    location = store.environment.get(Table.CHUNKS, store.environment.name_chunk(kept["kept0"]))
    key = segment_key(unpack_location(location or b"").segment)
    stored = (store.environment.get(Table.SEGMENTS, key) or b"")[:-40] + bytes(40)
    store.environment.write(lambda transaction: transaction.put(Table.SEGMENTS, key, stored))
    report = prune_now(store)
    assert (report.damaged_segments, report.rewritten_segments) == (1, 0)
    assert store.environment.get(Table.SEGMENTS, key) == stored


def lose(store: Store, data: bytes) -> None:
    """Have other bytes where a chunk is."""
    _, location = row_of(store, data)
    stored = store.environment.get(Table.SEGMENTS, segment_key(location.segment)) or b""
    header = parse_header(stored, None)
    payload = Codec().decode(stored, header)
    parts = [payload[start:end] for start, end in pairwise(header.bounds)]
    parts[location.place] = bytes(len(data))
    put(store, Table.SEGMENTS, segment_key(location.segment), Codec().encode(header.kind, parts))


@pytest.mark.parametrize("name", ["b", "a/b", ".."])
def test_data_that_a_repair_did_not_find_ends_no_prune(make_store: MakeStore, name: str) -> None:
    """Nor of an entry that must not be shown: nobody looks what that needs."""
    store = make_store(may_be_damaged=True)
    first, _ = publish(store, {"a": b"one"}), publish(store, {name: b"two" * 100})
    forget(store, first)
    lose(store, b"two" * 100)
    put(store, Table.CHUNKS, chunk_id(b"two" * 100), None)
    if name == "b":
        assert is_refused(store)
    store.close()
    repair(store.path, RepairOptions())
    with Store.open(store.path) as store:
        prune_now(store)
        assert chunk_id(b"one") not in indexed(store)


def test_what_else_a_file_needs_that_cannot_be_shown_stays(make_store: MakeStore) -> None:
    store = make_store(chunking=SMALL_CHUNKS, may_be_damaged=True)
    data = random.Random("hidden").randbytes(60_000)
    first, second = publish(store, {"gone": b"one"}), publish(store, {"a/b": data})
    forget(store, first)
    [entry] = decode_tree(store.reader().read(second.snapshot.root.tree)).entries
    assert entry.level
    chunks = [span.chunk for span in iter_spans(entry.file_content, store.reader().read)]
    put(store, Table.CHUNKS, chunks[20], None)
    prune_now(store)
    assert chunk_id(b"one") not in indexed(store)
    assert set(chunks) - indexed(store) == {chunks[20]}


def test_a_lost_part_of_a_large_folder_is_accepted_as_a_loss(make_store: MakeStore) -> None:
    store = make_store(chunking=SMALL_CHUNKS, may_be_damaged=True)
    first = publish(store, {"gone": b"one"})
    second = publish(store, {"a": b"two", "sub": {f"n{number}": bytes([number]) for number in range(60)}})
    forget(store, first)
    sub = next(entry.tree for entry in TreeReader(store.reader()).read(second.snapshot.root.tree).entries if entry.name == b"sub")
    record = bytes(store.reader().read(sub))
    [part, *_] = iter_spans(Content(record[1], record[2:]), store.reader().read)
    lose(store, bytes(store.reader().read(part.chunk)))
    store.close()
    assert repair(store.path, RepairOptions()).newly_lost
    with Store.open(store.path) as store:
        with pytest.raises(CorruptionError, match="1 folders or lists"):
            prune_now(store)
        prune(store, grace_ns=0, now_ns=NOW_NS, accepts_loss=True)
        assert chunk_id(b"one") not in indexed(store)
        assert chunk_id(b"two") in indexed(store)


@both_kinds
def test_what_backups_remember_of_swept_folders_goes_with_them(sandbox: Sandbox) -> None:
    sandbox.write("gone/a", b"one")
    first = sandbox.back_up().stored
    shutil.rmtree(sandbox.folder / "gone")
    sandbox.write("b", b"two")
    sandbox.back_up()
    assert first is not None
    forget(sandbox.store, first)
    prune_now(sandbox.store)
    report = check(sandbox.store, read_data=True)
    assert (report.findings, report.unneeded_chunks) == ((), 0)


def test_a_backup_whose_last_snapshot_was_swept_stores_it_again(sandbox: Sandbox) -> None:
    sandbox.write("sub/a", b"one")
    stored = sandbox.back_up().stored
    assert stored is not None
    forget(sandbox.store, stored)
    prune_now(sandbox.store)
    assert indexed(sandbox.store) == set()
    again = sandbox.back_up().stored
    assert again is not None
    assert contents(sandbox.store, again.snapshot.root) == {"sub": {"a": b"one"}}


def test_file_data_that_looks_like_a_tree_is_stored_as_a_tree_again(store: Store) -> None:
    stored = publish(store, {"a": b"one"})
    record = bytes(store.reader().read(stored.snapshot.root.tree))
    forget(store, stored)
    prune_now(store)
    copy = publish(store, {"copy": record}, "copies")
    assert contents(store, copy.snapshot.root) == {"copy": record}
    assert contents(store, publish(store, {"a": b"one"}).snapshot.root) == {"a": b"one"}
    with store.environment.read() as view:
        location = view.get(Table.CHUNKS, stored.snapshot.root.tree)
        assert location is not None
        segment = view.get(Table.SEGMENTS, unpack_location(location).segment.to_bytes(8, "big"))
        assert segment is not None
        assert segment[3] == Kind.TREE


# --- leases -------------------------------------------------------------------------------------------------------------


def test_a_lease_for_reading_keeps_what_was_forgotten_after_it_was_taken(store: Store) -> None:
    first, second, _ = (publish(store, {"a": b"%d" % number}) for number in range(3))
    forget(store, first)
    lease = HeldLease(store.leases_folder, generation=store.snapshots_generation())
    forget(store, second)

    report = prune_now(store)
    assert [forgotten.stored for forgotten in report.removed] == [first]
    assert report.leased == 1
    assert contents(store, second.snapshot.root) == {"a": b"1"}

    lease.renew(store.snapshots_generation())
    assert [forgotten.stored for forgotten in prune_now(store).removed] == [second]
    lease.release()


def test_a_lease_for_adding_keeps_what_nothing_names_yet(store: Store) -> None:
    publish(store, {"a": b"one"})
    with store.adding():
        with store.writer() as writer:
            root = plant_slowly(writer, {"b": b"two"}, lambda: None)
        prune_now(store)
        stored = store.add_snapshot(Snapshot(RECORD_VERSION, "other", "", T0_NS, T0_NS, root))
    assert contents(store, stored.snapshot.root) == {"b": b"two"}


def test_without_a_lease_what_nothing_names_goes(store: Store) -> None:
    publish(store, {"a": b"one"})
    with store.writer() as writer:
        root = plant_slowly(writer, {"b": b"two"}, lambda: None)
    prune_now(store)
    with pytest.raises(SweptError):
        store.add_snapshot(Snapshot(RECORD_VERSION, "other", "", T0_NS, T0_NS, root))


@both_kinds
def test_what_a_tree_names_that_is_about_to_be_published_is_kept(store: Store) -> None:
    """Also where somebody relied on what was garbage already."""
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first)
    with store.adding():
        with store.writer() as writer:
            root = plant_slowly(writer, {"c": b"one"}, lambda: None)
        prune_now(store)
        stored = store.add_snapshot(Snapshot(RECORD_VERSION, "other", "", T0_NS, T0_NS, root))
    assert contents(store, stored.snapshot.root) == {"c": b"one"}


def test_what_a_writer_relied_on_and_a_prune_swept_ends_the_writer(store: Store) -> None:
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first)

    def add(writer: ChunkWriter) -> None:
        with writer:
            writer.add(Kind.DATA, b"one")
            prune_now(store)
            plant_slowly(writer, {"c": b"one"}, lambda: None)

    with store.adding(), pytest.raises(SweptError):
        add(store.writer())
    assert check(store, read_data=True).unneeded_chunks == 0


def test_what_was_asked_before_a_sweep_and_is_noted_after_it_is_looked_at_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that adds may be interrupted between the two, while the other commits."""
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first)
    has = ChunkWriter.has

    def has_and_is_late(writer: ChunkWriter, chunk: ChunkId) -> bool:
        answer = has(writer, chunk)
        if chunk == store.chunk_id(b"one") and answer:
            prune_now(store)
            writer.add(Kind.DATA, b"something else")
            writer.flush()
        return answer

    monkeypatch.setattr(ChunkWriter, "has", has_and_is_late)

    def add(writer: ChunkWriter) -> None:
        with writer:
            plant_slowly(writer, {"c": b"one"}, lambda: None)

    with store.adding(), pytest.raises(SweptError):
        add(store.writer())
    assert check(store, read_data=True).findings == ()


def test_a_snapshot_that_is_had_back_and_forgotten_again_during_a_prune_is_another_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first)
    write = store.environment.write
    is_done = False

    def interfere(apply: Callable[[WriteTransaction], Result]) -> Result:
        nonlocal is_done
        if not is_done:
            is_done = True
            store.undelete([first.id])
            store.forget([first.id], now_ns=NOW_NS)
        return write(apply)

    monkeypatch.setattr(store.environment, "write", interfere)
    prune_now(store)
    monkeypatch.undo()
    assert is_done
    assert store.undelete([first.id]) == [first]
    assert contents(store, first.snapshot.root) == {"a": b"one"}


def test_what_is_published_by_somebody_who_cannot_begin_again_is_kept_though_all_of_it_was_garbage(store: Store) -> None:
    """A live folder that is again as it was in a version that was forgotten."""
    first, _ = publish(store, {"a": b"one"}), publish(store, {"a": b"two"})
    forget(store, first)
    record = bytes(store.reader().read(first.snapshot.root.tree))
    with store.adding():
        with store.writer() as writer:
            assert writer.add(Kind.TREE, record, is_root=True) == first.snapshot.root.tree
        prune_now(store)
        again = store.add_snapshot(msgspec.structs.replace(first.snapshot, source="again"))
    assert contents(store, again.snapshot.root) == {"a": b"one"}


# --- everything at once -------------------------------------------------------------------------------------------------

FILES = [b"a" * 10, b"b" * 20, b"c" * 3000]
SUBFOLDERS: list[Items] = [{"p": FILES[0]}, {"p": FILES[1], "q": FILES[2]}, {"p": {"q": FILES[0]}}]
FOLDERS: list[Items] = [*({"x": file} for file in FILES), *({"x": below} for below in SUBFOLDERS), {"x": SUBFOLDERS[0], "y": FILES[1]}]
"""Few, and alike: what one backup adds is what another has just forgotten."""
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["back up", "begin", "begin and flush"]), st.integers(0, len(FOLDERS) - 1)),
        st.tuples(st.sampled_from(["step", "step", "forget", "prune"]), st.integers(0, 7)),
        st.tuples(st.sampled_from(["step", "step", "undelete", "forget again", "look", "prune"]), st.integers(0, 7)),
    ),
    min_size=20,
    max_size=60,
)


class World:
    """A store to which things happen one after the other, also in the midst of a prune."""

    def __init__(self, store: Store, operations: list[tuple[str, int]]) -> None:
        self.store = store
        self.waiting = list(reversed(operations))
        self.backups: list[Iterator[None]] = []
        self.plans: dict[bytes, Items] = {}
        self.leases: list[tuple[HeldLease, set[bytes]]] = []
        self.is_pruning = False
        self.clock_ns = T0_NS

    def run(self) -> None:
        while self.waiting:
            self.do_next()
            self.judge()
        for lease, _ in self.leases:
            lease.release()
        self.leases = []
        for backup in self.backups:
            list(backup)
        self.judge()

    def do_next(self) -> None:
        what, number = self.waiting.pop()
        snapshots, forgotten = self.store.snapshots(), self.store.forgotten_snapshots()
        match what:
            case "back up":
                list(self.back_up(FOLDERS[number], is_flushed=False))
            case "begin" | "begin and flush":
                self.backups.append(self.back_up(FOLDERS[number], is_flushed=what != "begin"))
            case "step" if self.backups:
                backup = self.backups[number % len(self.backups)]
                if next(backup, "ended") == "ended":
                    self.backups.remove(backup)
            case "forget" if snapshots:
                self.store.forget([snapshots[number % len(snapshots)].id], now_ns=NOW_NS)
            case "undelete" if forgotten:
                self.store.undelete([forgotten[number % len(forgotten)].stored.id])
            case "forget again" if forgotten:
                id_ = forgotten[number % len(forgotten)].stored.id
                self.store.undelete([id_])
                self.store.forget([id_], now_ns=NOW_NS)
            case "look" if self.leases and number % 2:
                self.leases.pop(0)[0].release()
            case "look":
                lease = HeldLease(self.store.leases_folder, generation=self.store.snapshots_generation())
                self.leases.append((lease, {stored.id for stored in snapshots}))
            case "prune" if not self.is_pruning:
                self.prune()

    def back_up(self, plan: Items, *, is_flushed: bool) -> Iterator[None]:
        """A backup that goes on by a step each time it is asked."""
        with ExitStack() as stack:
            stack.enter_context(self.store.adding())
            while True:
                try:
                    with self.store.writer() as writer:
                        root = yield from self.plant(writer, plan, is_flushed=is_flushed)
                    yield
                    self.clock_ns += 1
                    snapshot = Snapshot(RECORD_VERSION, "docs", "", self.clock_ns, self.clock_ns, root)
                    self.plans[self.store.add_snapshot(snapshot).id] = plan
                except SweptError:
                    yield
                else:
                    return

    def plant(self, writer: ChunkWriter, plan: Plan, *, is_flushed: bool, name: bytes = b"") -> Generator[None, None, Entry]:
        """As `plant_slowly`."""
        if isinstance(plan, bytes):
            content = plant_data(writer, SMALL_CHUNKS, plan)
            entry = Entry(name, stat.S_IFREG | 0o644, 0, 0, T0_NS, T0_NS, len(plan), content.level, content.spans)
        else:
            assert isinstance(plan, Mapping)
            entries = []
            for item, below in sorted(plan.items()):
                entries.append((yield from self.plant(writer, below, is_flushed=is_flushed, name=str(item).encode())))
            tree = Tree(RECORD_VERSION, {}, {}, tuple(entries))
            tree_id = store_tree(tree, SMALL_CHUNKS, lambda record: writer.add(Kind.TREE, record))
            entry = Entry(name, stat.S_IFDIR | 0o755, 0, 0, T0_NS, T0_NS, 0, 0, tree_id)
        if is_flushed:
            writer.flush()
        yield
        return entry

    def prune(self) -> None:
        self.is_pruning = True
        try:
            prune_now(self.store)
        finally:
            self.is_pruning = False

    def interfere(self) -> None:
        """Between two steps of a prune."""
        if self.is_pruning:
            self.is_pruning = False
            for _ in range(3):
                if self.waiting and self.waiting[-1][0] != "prune":
                    self.do_next()
            self.is_pruning = True

    def judge(self) -> None:
        """All that can be named is there, and what it names."""
        present = indexed(self.store)
        for stored in [*self.store.snapshots(), *(forgotten.stored for forgotten in self.store.forgotten_snapshots())]:
            assert needed(self.plans[stored.id]) <= present
        for _, ids in self.leases:
            for id_ in ids:
                assert needed(self.plans[id_]) <= present
        reader = self.store.reader()
        for chunk in present:
            data = bytes(reader.read(ChunkId(chunk)))
            if data[:1] == b"T" and len(data) < SMALL_CHUNKS.max_bytes:
                for entry in decode_tree(data).entries:
                    named = [entry.content] if stat.S_ISDIR(entry.mode) else [span.chunk for span in unpack_spans(entry.content)]
                    assert set(named) <= present


@given(OPERATIONS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_a_prune_frees_what_nothing_needs_and_nothing_else_whatever_happens_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    with Store.create(tmp_path_factory.mktemp("prune") / "store", chunking=SMALL_CHUNKS) as store, pytest.MonkeyPatch.context() as patch:
        store._lease.release()  # type: ignore[union-attr]  # this process is many here, each with leases of its own
        store._lease = None
        world = World(store, operations)
        write = store.environment.write

        def interrupted_write(apply: Callable[[WriteTransaction], Result]) -> Result:
            world.interfere()
            return write(apply)

        def interrupted_list(folder: Path) -> object:
            world.interfere()
            leases = list_leases(folder)
            world.interfere()
            return leases

        patch.setattr(store.environment, "write", interrupted_write)
        patch.setattr(prune_module, "list_leases", interrupted_list)
        patch.setattr(prune_module, "ROWS_MAX", 2)
        patch.setattr(prune_module, "SOURCES_MAX", 2)
        world.run()
        prune_now(store)
        kept = [needed(world.plans[stored.id]) for stored in store.snapshots()]
        assert indexed(store) == set().union(*kept)
        report = check(store, read_data=True)
        assert (report.findings, report.findings_more) == ((), 0)
        for stored in store.snapshots():
            assert contents(store, stored.snapshot.root) == world.plans[stored.id]

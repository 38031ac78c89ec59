# SPDX-License-Identifier: MIT
"""Repairing: what is still anywhere is put back, what is not is noted, exactly what needs it gives an error, and the rest is as it was."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.encrypted import unlock
from tests.engine.damaging import drop, find_content, flip, flip_chunk, locate, put
from tests.engine.planting import SMALL_CHUNKS, T0_NS, publish
from tests.engine.sandbox import MakeStore, Sandbox
from yester.core.content import Content, Span, iter_spans, read_list, unpack_spans
from yester.core.ids import ChunkId, chunk_id, snapshot_id
from yester.core.records import RECORD_VERSION, Forgotten, encode_forgotten
from yester.engine import repair as repair_module
from yester.engine.check import check
from yester.engine.prune import prune
from yester.engine.repair import RepairOptions, RepairReport, repair
from yester.engine.repair_records import RecordAction, RecordChange, plan_records
from yester.engine.trees import TreeReader
from yester.errors import BusyError, ConflictError, CorruptionError, NotFoundError, StoreAccessError
from yester.store.chunks import SWEEPS_KEY, Location, segment_key
from yester.store.damage import count_damaged, note_damaged
from yester.store.datafile import DATA_FILE
from yester.store.live import LiveFolders
from yester.store.lmdb import Environment, ReadTransaction, Table, WriteTransaction
from yester.store.parameters import SLOT_PREFIX
from yester.store.segments import Kind, parse_header
from yester.store.slots import KeySlots, recovery_secret
from yester.store.snapshots import snapshot_key
from yester.store.store import Store

BIG = random.Random(1).randbytes(30_000)
"""With small chunks: a file with a span list."""

FORGET = """
import sys
from pathlib import Path
from yester.store.store import Store
with Store.open(Path(sys.argv[1])) as store:
    store.forget([bytes.fromhex(sys.argv[2])], now_ns=1)
"""


both_kinds = pytest.mark.parametrize("patient", [False, True], ids=["plain", "encrypted"], indirect=True)
"""A test that is done with a plain store, and with an encrypted one."""


@pytest.fixture
def patient(make_store: MakeStore, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A folder that is backed up into a store with small chunks, which is closed and opened again for each repair."""
    folder = tmp_path / "source"
    folder.mkdir()
    store = make_store(chunking=SMALL_CHUNKS, may_be_damaged=True, is_encrypted=getattr(request, "param", False))
    sandbox = Sandbox(store, folder, T0_NS)
    yield sandbox
    sandbox.store.close()


def mend(patient: Sandbox, options: RepairOptions | None = None) -> RepairReport:
    path = patient.store.path
    patient.store.close()
    try:
        return repair(path, options or RepairOptions(), unlock=unlock)
    finally:
        patient.store = Store.open(path, unlock=unlock)


def latest(patient: Sandbox, path: bytes) -> ChunkId:
    """The first chunk of a path in the newest snapshot."""
    return find_content(patient.store, patient.store.snapshots("docs")[-1], path)


def spans(patient: Sandbox, path: str) -> list[Span]:
    return list(iter_spans(patient.entry(path).file_content, patient.store.reader().read))


def affected(report: RepairReport) -> list[bytes]:
    return sorted({item.path for finding in report.after.findings for item in finding.affected})


def assert_whole(patient: Sandbox, report: RepairReport) -> None:
    assert report.after.findings == ()
    assert check(patient.store, read_data=True).findings == ()
    assert count_damaged(patient.store.environment) == 0


# --- from where it still is -------------------------------------------------------------------------------------------


@both_kinds
def test_a_whole_store_is_left_as_it_is(patient: Sandbox) -> None:
    patient.write("a", b"1")
    patient.write("big", BIG)
    patient.back_up()
    before = (patient.store.path / DATA_FILE).read_bytes()
    report = mend(patient)
    assert_whole(patient, report)
    assert (report.from_segments, report.from_files, report.newly_lost, report.records) == (0, 0, 0, [])
    assert report.read_bytes > len(BIG)
    assert (patient.store.path / DATA_FILE).read_bytes() == before


@both_kinds
def test_damaged_file_data_comes_back_from_the_file_itself(patient: Sandbox) -> None:
    patient.write("d/a", b"lost")
    patient.write("d/b", b"kept")
    first = patient.back_up()
    flip_chunk(patient.store, latest(patient, b"d/a"))
    report = mend(patient)
    assert_whole(patient, report)
    assert [(found.path, found.chunks) for found in report.found_in] == [(os.fsencode(patient.folder / "d" / "a"), 1)]
    assert patient.read("d/a", first) == b"lost"


@both_kinds
@pytest.mark.parametrize("which", range(4))
def test_chunks_of_a_large_file_come_back_from_it(patient: Sandbox, which: int) -> None:
    patient.write("big", BIG)
    first = patient.back_up()
    found = spans(patient, "big")
    flip_chunk(patient.store, found[which * (len(found) - 1) // 3].chunk)
    assert_whole(patient, mend(patient))
    assert patient.read("big", first) == BIG


@both_kinds
def test_a_lost_span_list_and_what_it_names_come_back_from_the_file(patient: Sandbox) -> None:
    """What the list names cannot be known to be lost before the list is there again."""
    patient.write("big", BIG)
    first = patient.back_up()
    inner = spans(patient, "big")[3].chunk
    drop(patient.store, Table.SEGMENTS, segment_key(locate(patient.store, inner).segment))
    drop(patient.store, Table.CHUNKS, latest(patient, b"big"))
    flip_chunk(patient.store, first.snapshot.root.content)
    assert not mend(patient).is_whole, "the folder is found nowhere"
    patient.back_up()
    assert_whole(patient, mend(patient))
    assert patient.read("big", first) == BIG


def test_a_list_of_a_file_that_has_changed_elsewhere_still_brings_all_it_names(patient: Sandbox) -> None:
    data = random.Random(2).randbytes(900_000)
    patient.write("huge", data)
    patient.back_up()
    entry = patient.entry("huge")
    inner = spans(patient, "huge")[20].chunk
    flip_chunk(patient.store, first_list(patient, entry.file_content))
    with patient.store.environment.read() as view:
        keys = [key for key, value in view.iterate(Table.SEGMENTS) if parse_header(value, None).kind is Kind.DATA]
    for key in keys:
        drop(patient.store, Table.SEGMENTS, key)
    patient.write("huge", data[:-1000] + bytes(1000))
    report = mend(patient)
    assert report.from_files > 1000
    assert bytes(patient.store.reader().read(inner)) in data
    assert affected(report) == [b"huge"]


def first_list(patient: Sandbox, content: Content) -> ChunkId:
    """The list of level-0 spans that a file begins with."""
    while content.level > 1:
        content = read_list(unpack_spans(content.spans)[0], content.level, patient.store.reader().read)
    return unpack_spans(content.spans)[0].chunk


@both_kinds
def test_a_file_that_was_renamed_is_found_by_its_size(patient: Sandbox) -> None:
    file = patient.write("old/a", b"lost bytes")
    patient.write("other", b"0123456789")
    first = patient.back_up()
    (patient.folder / "new").mkdir()
    file.rename(patient.folder / "new" / "renamed")
    flip_chunk(patient.store, latest(patient, b"old/a"))
    report = mend(patient)
    assert_whole(patient, report)
    assert report.found_in[0].path == os.fsencode(patient.folder / "new" / "renamed")
    assert patient.read("old/a", first) == b"lost bytes"


@both_kinds
def test_files_of_several_paths_are_found(patient: Sandbox) -> None:
    patient.write("one/a", b"lost a")
    patient.write("lone", b"lost b")
    first = patient.back_up(patient.folder / "one", patient.folder / "lone")
    for path in (b"one/a", b"lone"):
        flip_chunk(patient.store, latest(patient, path))
    report = mend(patient)
    assert_whole(patient, report)
    assert report.from_files == 2
    assert patient.read("lone", first) == b"lost b"


def test_a_sparse_file_is_found(patient: Sandbox) -> None:
    path = patient.folder / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 20)
        file.seek(500_000)
        file.write(BIG)
    patient.back_up()
    flip_chunk(patient.store, spans(patient, "sparse")[5].chunk)
    assert_whole(patient, mend(patient))


def test_a_special_file_where_a_file_was_is_not_opened(patient: Sandbox) -> None:
    """A repair that waits for somebody to write into a FIFO would wait for ever."""
    file = patient.write("a", b"lost")
    patient.back_up()
    flip_chunk(patient.store, latest(patient, b"a"))
    file.unlink()
    os.mkfifo(file)
    assert mend(patient).newly_lost == 1


def test_a_chunk_that_two_writers_stored_is_found_at_its_other_place(patient: Sandbox) -> None:
    publish(patient.store, {"x": b"before"})
    with patient.store.writer() as one, patient.store.writer() as other:
        for writer in (one, other):
            writer.add(Kind.DATA, b"stored twice")
        one.flush()
    publish(patient.store, {"a": b"stored twice"})
    flip_chunk(patient.store, chunk_id(b"stored twice"))
    report = mend(patient)
    assert_whole(patient, report)
    assert (report.from_segments, report.from_files) == (1, 0)


@both_kinds
def test_a_lost_index_is_made_again_from_the_segments(patient: Sandbox) -> None:
    patient.write("d/a", b"1")
    patient.write("big", BIG)
    patient.back_up()
    patient.write("d/a", b"2")
    patient.back_up()
    with patient.store.environment.read() as view:
        rows = {key: bytes(value) for key, value in view.iterate(Table.CHUNKS)}
    for key in rows:
        drop(patient.store, Table.CHUNKS, key)
    shutil.rmtree(patient.folder)
    report = mend(patient)
    assert_whole(patient, report)
    assert report.from_segments == len(rows)
    with patient.store.environment.read() as view:
        assert {key: bytes(value) for key, value in view.iterate(Table.CHUNKS)} == rows


def test_index_entries_that_lead_astray_are_put_right(patient: Sandbox) -> None:
    names = "abcdef"
    for name in names:
        patient.write(name, name.encode() * 5)
    patient.back_up()
    shutil.rmtree(patient.folder)
    places = {name: locate(patient.store, latest(patient, name.encode())) for name in names}
    wrong = [places["b"].pack(), b"short", Location(2**48 - 1, 0).pack(), Location(places["a"].segment, 999).pack()]
    for name, value in zip(names, wrong, strict=False):
        put(patient.store, Table.CHUNKS, chunk_id(name.encode() * 5), value)
    put(patient.store, Table.CHUNKS, b"strange key", places["a"].pack())
    put(patient.store, Table.CHUNKS, b"\7" * 32, places["f"].pack())
    report = mend(patient)
    assert_whole(patient, report)
    assert (report.from_segments, report.dropped_entries) == (4, 2)


def test_entries_are_removed_in_a_transaction_that_counts_as_a_sweep(patient: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that asked for such a chunk before would else publish a tree that names it."""
    publish(patient.store, {"a": b"1"})
    put(patient.store, Table.CHUNKS, b"\7" * 32, Location(1, 77).pack())
    write, removing = Environment.write, []

    def watched(environment: Environment, apply: Callable[[WriteTransaction], object]) -> object:
        def compare(transaction: WriteTransaction) -> object:
            rows, sweeps = transaction.count(Table.CHUNKS), bytes(transaction.get(Table.META, SWEEPS_KEY) or b"")
            result = apply(transaction)
            if transaction.count(Table.CHUNKS) < rows:
                removing.append(bytes(transaction.get(Table.META, SWEEPS_KEY) or b"") != sweeps)
            return result

        return write(environment, compare)

    monkeypatch.setattr(Environment, "write", watched)
    assert mend(patient).dropped_entries == 1
    assert removing == [True]


@pytest.mark.parametrize("key", [b"short", b"x" * 40, bytes(9), b"\xff" * 8, b"\0" + b"\xff" * 7])
def test_a_segment_with_a_key_that_is_no_number_gets_one(patient: Sandbox, key: bytes) -> None:
    publish(patient.store, {"a": b"1"})
    first = segment_key(locate(patient.store, chunk_id(b"1")).segment)
    put(patient.store, Table.SEGMENTS, key, patient.store.environment.get(Table.SEGMENTS, first) or b"")
    drop(patient.store, Table.SEGMENTS, first)
    report = mend(patient)
    assert_whole(patient, report)
    assert report.from_segments == 1
    publish(patient.store, {"b": b"2"})


# --- what is found nowhere --------------------------------------------------------------------------------------------


def test_what_is_found_nowhere_is_noted_and_costs_exactly_the_files_that_need_it(patient: Sandbox) -> None:
    patient.write("a", b"lost")
    patient.write("d/twin", b"lost")
    patient.write("d/kept", b"kept")
    first = patient.back_up()
    patient.write("a", b"changed since")
    patient.write("d/twin", b"as well")
    second = patient.back_up()
    flip_chunk(patient.store, chunk_id(b"lost"))
    report = mend(patient)
    assert report.newly_lost == 1
    assert affected(report) == [b"a", b"d/twin"]
    assert report.after.is_as_known
    for path in ("a", "d/twin"):
        with pytest.raises(CorruptionError, match="is lost"):
            patient.read(path, first)
    assert [patient.read(path, second) for path in ("a", "d/twin", "d/kept")] == [b"changed since", b"as well", b"kept"]
    assert patient.read("d/kept", first) == b"kept"
    assert check(patient.store, read_data=True).is_as_known


def test_a_second_repair_finds_nothing_to_do(patient: Sandbox) -> None:
    patient.write("a", b"lost").unlink()
    patient.write("b", b"lost")
    patient.back_up()
    flip_chunk(patient.store, chunk_id(b"lost"))
    (patient.folder / "b").unlink()
    first = mend(patient)
    data = (patient.store.path / DATA_FILE).read_bytes()
    second = mend(patient)
    assert (first.newly_lost, second.newly_lost) == (1, 0)
    assert second.after.findings == first.after.findings
    assert (second.dropped_entries, second.from_segments, second.from_files) == (0, 0, 0)
    assert (patient.store.path / DATA_FILE).read_bytes() == data


def test_the_next_backup_of_the_same_bytes_heals_it(patient: Sandbox) -> None:
    patient.write("a", b"lost")
    first = patient.back_up()
    flip_chunk(patient.store, chunk_id(b"lost"))
    (patient.folder / "a").unlink()
    mend(patient)
    patient.write("elsewhere", b"lost")
    patient.back_up()
    assert patient.read("a", first) == b"lost"
    assert check(patient.store, read_data=True).is_whole


@both_kinds
def test_a_lost_folder_costs_what_is_in_it_and_a_backup_makes_it_anew(patient: Sandbox) -> None:
    patient.write("d/a", b"1")
    patient.write("b", b"2")
    first = patient.back_up()
    flip_chunk(patient.store, latest(patient, b"d"))
    report = mend(patient)
    assert affected(report) == [b"d"]
    assert patient.read("b", first) == b"2"
    patient.back_up()
    assert patient.read("d/a", first) == b"1"
    assert check(patient.store, read_data=True).is_whole


def test_damage_that_nothing_needs_any_more_is_forgotten(patient: Sandbox) -> None:
    publish(patient.store, {"a": b"1"})
    patient.store.environment.write(lambda transaction: note_damaged(transaction, chunk_id(b"of no snapshot"), now_ns=T0_NS))
    assert_whole(patient, mend(patient))


def test_damage_in_what_only_a_forgotten_snapshot_needs_is_noted(patient: Sandbox) -> None:
    stored = publish(patient.store, {"a": b"lost"})
    publish(patient.store, {"b": b"1"})
    patient.store.forget([stored.id], now_ns=T0_NS)
    flip_chunk(patient.store, chunk_id(b"lost"))
    assert affected(mend(patient)) == [b"a"]


def test_damage_that_nothing_needs_costs_nothing(patient: Sandbox) -> None:
    publish(patient.store, {"a": b"1"})
    with patient.store.writer() as writer:
        chunk = writer.add(Kind.DATA, b"left over")
    flip_chunk(patient.store, chunk)
    report = mend(patient)
    assert_whole(patient, report)
    assert report.dropped_entries == 1


@pytest.mark.parametrize("header", [b"", b"ys", b"xx" + bytes(18), b"ys\x01\x01\x00\x00" + b"\xff" * 14])
def test_a_segment_that_is_none_is_taken_away(patient: Sandbox, header: bytes) -> None:
    patient.write("a", b"1")
    patient.back_up()
    put(patient.store, Table.SEGMENTS, segment_key(locate(patient.store, chunk_id(b"1")).segment), header)
    report = mend(patient)
    assert_whole(patient, report)
    assert (report.dropped_segments, report.from_files) == (1, 1)


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5, 8, 11, 12, 15])
def test_a_segment_whose_header_is_damaged_is_made_whole(patient: Sandbox, at: int) -> None:
    """What follows the header says what it must have been, and the index that it was so."""
    publish(patient.store, {"a": b"1" * 500, "b": random.Random(6).randbytes(1000)})
    flip(patient.store, Table.SEGMENTS, segment_key(locate(patient.store, chunk_id(b"1" * 500)).segment), at, 0x41)
    report = mend(patient)
    assert_whole(patient, report)
    assert (report.mended_segments, report.dropped_entries) == (1, 0)


@pytest.mark.parametrize("patient", [True], ids=["encrypted"], indirect=True)
@pytest.mark.parametrize("at", [0, 2, 3, 4, 5, 12, 19])
def test_a_sealed_segment_whose_header_is_damaged_is_made_whole(patient: Sandbox, at: int) -> None:
    stored = publish(patient.store, {"a": b"1" * 500})
    flip(patient.store, Table.SEGMENTS, segment_key(locate(patient.store, find_content(patient.store, stored, b"a")).segment), at, 0x41)
    report = mend(patient)
    assert_whole(patient, report)
    assert report.mended_segments == 1


def test_a_segment_that_may_be_of_a_newer_release_stays(patient: Sandbox) -> None:
    stored = publish(patient.store, {"a": b"1", "b": b"2"})
    key = segment_key(locate(patient.store, chunk_id(b"1")).segment)
    put(patient.store, Table.SEGMENTS, key, b"ys\x02\x01\x01\x07" + bytes(2) + random.Random(1).randbytes(500))
    before = patient.store.environment.get(Table.SEGMENTS, key)
    report = mend(patient)
    assert (report.foreign_segments, report.newly_lost) == (1, 2)
    assert patient.store.environment.get(Table.SEGMENTS, key) == before
    assert patient.store.snapshots() == [stored]


# --- records ----------------------------------------------------------------------------------------------------------


def test_lists_of_snapshots_are_made_again_from_their_records(patient: Sandbox) -> None:
    stored = [publish(patient.store, {"a": b"%d" % number}) for number in range(3)]
    drop(patient.store, Table.SNAPSHOT_IDS, stored[0].id)
    put(patient.store, Table.SNAPSHOT_IDS, b"\1" * 32, b"docs\0" + bytes(8))
    record = patient.store.environment.get(Table.SNAPSHOTS, patient.store.environment.get(Table.SNAPSHOT_IDS, stored[1].id) or b"") or b""
    put(patient.store, Table.SNAPSHOTS, b"wrong\0" + bytes(8), record)
    drop(patient.store, Table.SNAPSHOTS, patient.store.environment.get(Table.SNAPSHOT_IDS, stored[1].id) or b"")
    report = mend(patient)
    assert_whole(patient, report)
    assert [(record.action, record.source, record.id) for record in report.records] == [
        (RecordAction.FILED, "docs", stored[1].id),
        (RecordAction.LISTED, "docs", stored[0].id),
        (RecordAction.UNLISTED, "docs", b"\1" * 32),
    ]
    assert patient.store.snapshots() == stored
    assert [patient.store.find_snapshots_by_id(one.id.hex()) for one in stored] == [[one] for one in stored]


def test_a_record_that_is_none_is_taken_away_and_said(patient: Sandbox) -> None:
    stored = publish(patient.store, {"a": b"1"})
    put(patient.store, Table.SNAPSHOTS, b"docs\0" + bytes(8), b"junk")
    put(patient.store, Table.FORGOTTEN, b"gone\0" + bytes(8), encode_forgotten(Forgotten(RECORD_VERSION, 1, b"junk", 1)))
    put(patient.store, Table.SCAN, b"\1" * 32, b"junk")
    generation = patient.store.snapshots_generation()
    report = mend(patient)
    assert_whole(patient, report)
    assert len(report.records) == 2
    assert patient.store.snapshots() == [stored]
    assert patient.store.snapshots_generation() != generation


@both_kinds
def test_what_a_lost_record_named_is_kept_and_no_prune_takes_it(patient: Sandbox) -> None:
    patient.write("d/a", b"only here")
    patient.write("b", BIG)
    stored = patient.back_up()
    for path in ("d/a", "b"):
        patient.write(path, b"changed")
    patient.back_up()
    flip(patient.store, Table.SNAPSHOTS, snapshot_key(stored.snapshot), 1, 0x80)
    with pytest.raises(CorruptionError, match=r"cannot be read.*; what it names is not known; nothing was freed") as refused:
        prune(patient.store, grace_ns=0)
    assert "yester repair" in (refused.value.hint or "")
    dry = mend(patient, RepairOptions(is_dry_run=True))
    report = mend(patient)
    assert (dry.recovered_folders, report.recovered_folders) == (1, 1)
    assert not dry.is_whole
    assert not report.is_whole
    assert report.after.findings == ()
    assert report.recovered is not None
    assert prune(patient.store, grace_ns=0).dead_chunks == 0
    [name] = [entry.name for entry in TreeReader(patient.store.reader()).read(report.recovered.snapshot.root.tree).entries]
    assert patient.read(f"{name.decode()}/d/a", report.recovered) == b"only here"
    assert patient.read(f"{name.decode()}/b", report.recovered) == BIG
    assert list(patient.store.pins()) == [report.recovered.id]
    assert_whole(patient, again := mend(patient))
    assert again.is_whole


def test_a_repair_that_ended_before_it_took_a_record_away_keeps_no_folder_twice(patient: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was lost is known only while the damaged record is there, so that goes last."""
    stored = publish(patient.store, {"a": b"1"})
    put(patient.store, Table.SNAPSHOTS, snapshot_key(stored.snapshot), b"junk")

    def end(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("yester.engine.repair._Repair._plan", end)
        with pytest.raises(KeyboardInterrupt):
            mend(patient)
    report = mend(patient)
    assert report.after.findings == ()
    assert not report.is_whole
    assert [found.snapshot.source for found in patient.store.snapshots()] == ["recovered"]


def test_a_lost_record_costs_no_folder_that_is_in_parts_and_a_remnant_no_prune(patient: Sandbox) -> None:
    stored = publish(patient.store, {f"f{number:02}": {"deep": b"%d" % number} for number in range(40)})
    publish(patient.store, {"b": {"x": b"gone", "y": {"z": b"kept"}}})
    for one in patient.store.snapshots():
        put(patient.store, Table.SNAPSHOTS, snapshot_key(one.snapshot), b"junk")
    drop(patient.store, Table.CHUNKS, chunk_id(b"gone"))
    with patient.store.environment.read() as view:
        segments = [key for key, value in view.iterate(Table.SEGMENTS) if parse_header(value, None).kind is Kind.DATA]
    drop(patient.store, Table.SEGMENTS, segments[-1])
    report = mend(patient)
    assert report.recovered is not None
    assert report.recovered_folders == 2
    assert report.after.findings
    assert report.after.is_as_known
    assert prune(patient.store, grace_ns=0).dead_chunks == 0
    name = stored.snapshot.root.tree.hex()[:16]
    assert patient.read(f"{name}/f17/deep", report.recovered) == b"17"


def test_a_record_whose_root_was_changed_costs_no_data(patient: Sandbox) -> None:
    """It can be decoded; only the list of ids tells that it is not what was written."""
    stored = publish(patient.store, {"a": b"1"})
    record = patient.store.environment.get(Table.SNAPSHOTS, snapshot_key(stored.snapshot)) or b""
    root = stored.snapshot.root.tree
    put(patient.store, Table.SNAPSHOTS, snapshot_key(stored.snapshot), record.replace(root, bytes([root[0] ^ 1]) + root[1:]))
    report = mend(patient)
    assert report.recovered is not None
    with pytest.raises(CorruptionError, match="would be removed for good; nothing was freed"):
        prune(patient.store, grace_ns=0)  # what is lost might have named more
    assert prune(patient.store, grace_ns=0, accepts_loss=True).dead_chunks == 0
    assert patient.read(f"{root.hex()[:16]}/a", report.recovered) == b"1"


def test_a_record_that_was_changed_stays_under_the_id_it_has_now(patient: Sandbox) -> None:
    stored = publish(patient.store, {"a": b"1"})
    key = patient.store.environment.get(Table.SNAPSHOT_IDS, stored.id) or b""
    record = (patient.store.environment.get(Table.SNAPSHOTS, key) or b"").replace(b"/home/ann", b"/home/anm")
    put(patient.store, Table.SNAPSHOTS, key, record)
    report = mend(patient)
    assert_whole(patient, report)
    assert [found.id for found in patient.store.snapshots()] == [snapshot_id(record)]
    assert len(report.records) == 2


def test_a_snapshot_that_is_forgotten_meanwhile_stays_forgotten(patient: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing locks out who forgets: a plan that is not true any more is not carried out."""
    stored = [publish(patient.store, {"a": b"%d" % number}) for number in range(2)]
    record = patient.store.environment.get(Table.SNAPSHOTS, snapshot_key(stored[0].snapshot)) or b""
    drop(patient.store, Table.SNAPSHOTS, snapshot_key(stored[0].snapshot))
    put(patient.store, Table.SNAPSHOTS, b"wrong\0" + bytes(8), record)
    put(patient.store, Table.SNAPSHOT_IDS, stored[0].id, b"wrong\0" + bytes(8))

    def plan(view: ReadTransaction) -> list[RecordChange]:
        changes = plan_records(view)
        assert [change.action for change in changes] == [RecordAction.FILED, RecordAction.LISTED]
        subprocess.run([sys.executable, "-c", FORGET, patient.store.path, stored[0].id.hex()], check=True)
        return changes

    monkeypatch.setattr(repair_module, "plan_records", plan)
    report = mend(patient)
    assert report.records == []
    assert patient.store.snapshots() == stored[1:]
    assert [one.stored for one in patient.store.forgotten_snapshots()] == stored[:1]
    assert patient.store.find_snapshots_by_id(stored[0].id.hex()) == []


# --- how it is done ---------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_a_repair_does_and_does_nothing(patient: Sandbox) -> None:
    patient.write("found", b"FOUND")
    patient.write("gone", b"GONE")
    patient.back_up()
    put(patient.store, Table.CHUNKS, chunk_id(b"FOUND"), Location(1, 77).pack())
    patient.write("there", b"THERE")
    second = patient.back_up()
    for data in (b"GONE", b"THERE"):
        flip_chunk(patient.store, chunk_id(data))
    (patient.folder / "gone").unlink()
    drop(patient.store, Table.SNAPSHOT_IDS, patient.store.snapshots()[0].id)
    before = (patient.store.path / DATA_FILE).read_bytes()
    dry = mend(patient, RepairOptions(is_dry_run=True))
    assert (patient.store.path / DATA_FILE).read_bytes() == before
    real = mend(patient)
    assert affected(dry) == affected(real) == [b"gone"]
    for field in ("from_segments", "from_files", "found_in", "newly_lost", "dropped_entries", "dropped_segments", "records", "read_bytes"):
        assert getattr(dry, field) == getattr(real, field), field
    assert (real.from_segments, real.from_files, real.newly_lost) == (1, 1, 1)
    assert patient.read("there", second) == b"THERE"


@pytest.mark.expect_log("the keys of .* are not those that were recorded")
@pytest.mark.parametrize("patient", [True], ids=["encrypted"], indirect=True)
def test_a_dry_run_tells_of_a_damaged_key_as_a_repair_does(patient: Sandbox) -> None:
    """Nobody but who knows its passphrase can put that right."""
    KeySlots(patient.store.environment).add(recovery_secret(bytes(32)))
    flip(patient.store, Table.META, SLOT_PREFIX + (2).to_bytes(4, "big"), -1)
    dry, real = mend(patient, RepairOptions(is_dry_run=True)), mend(patient)
    assert dry.after.findings == real.after.findings != ()


def test_a_copy_is_made_before_anything_is_written(patient: Sandbox, tmp_path: Path) -> None:
    patient.write("a", b"lost")
    patient.back_up()
    flip_chunk(patient.store, chunk_id(b"lost"))
    patient.store.close()
    before = (patient.store.path / DATA_FILE).read_bytes()
    report = mend(patient, RepairOptions(copy_to=tmp_path / "some" / "copy"))
    assert (tmp_path / "some" / "copy" / DATA_FILE).read_bytes() == before
    assert report.copied_bytes == len(before)
    with Store.open(tmp_path / "some" / "copy") as copy:
        assert len(copy.snapshots()) == 1
        assert not check(copy, read_data=True).is_whole


def test_a_copy_in_the_store_or_over_something_is_refused_before_anything_is_done(patient: Sandbox, tmp_path: Path) -> None:
    patient.write("a", b"lost")
    patient.back_up()
    flip_chunk(patient.store, chunk_id(b"lost"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    patient.store.close()
    before = (patient.store.path / DATA_FILE).read_bytes()
    for folder in (patient.store.path / "copy", tmp_path / "full", patient.store.path):
        with pytest.raises(ConflictError, match="nothing was changed"):
            mend(patient, RepairOptions(copy_to=folder))
    with pytest.raises(StoreAccessError, match="nothing was changed"):
        mend(patient, RepairOptions(copy_to=tmp_path / "full" / "something" / "copy"))
    assert (patient.store.path / DATA_FILE).read_bytes() == before


def test_it_is_refused_while_somebody_backs_up_or_uses_a_live_folder(patient: Sandbox) -> None:
    path = patient.store.path
    with patient.store.backup_lock(lambda _: None):
        patient.store.close()
        with pytest.raises(BusyError, match=r"in use by process \d+; nothing was changed"):
            repair(path, RepairOptions())
        repair(path, RepairOptions(is_dry_run=True))
    patient.store = Store.open(path)
    folders = LiveFolders(patient.store.environment)
    head = folders.create("work", next_node=2, nodes={})
    with folders.lock(head, lambda _: None):
        patient.store.close()
        with pytest.raises(BusyError):
            repair(path, RepairOptions())
    patient.store = Store.open(path)


def test_what_is_no_store_is_not_made_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(NotFoundError):
            repair(folder, RepairOptions())
    assert list((tmp_path / "empty").iterdir()) == []

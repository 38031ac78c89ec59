# SPDX-License-Identifier: MIT
"""Looking for damage: `check` finds all that there is, tells what it touches, and never cries wolf."""

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.encrypted import CHEAP
from tests.engine.damaging import drop, find_content, flip, flip_chunk, locate, put
from tests.engine.planting import DAY_NS, SMALL_CHUNKS, T0_NS, Plan, plant, plant_data, plant_deep, publish
from tests.engine.sandbox import MakeStore, Sandbox, both_kinds, children
from yester.core.content import pack_span, unpack_spans
from yester.core.ids import ChunkId, TreeId, chunk_id
from yester.core.records import (
    RECORD_VERSION,
    UNTRUSTED,
    Damaged,
    Entry,
    Forgotten,
    SeenDirectory,
    Snapshot,
    Tree,
    encode_damaged,
    encode_forgotten,
    encode_snapshot,
    encode_tree,
)
from yester.engine import check as check_module
from yester.engine.check import Sample, StructureCheck, check, check_path
from yester.engine.check_data import DataRead
from yester.engine.check_report import CheckReport, FindingKind
from yester.engine.check_worker import DataReader, Report
from yester.engine.files import FileReader
from yester.engine.prune import prune
from yester.engine.steps import StepProgress
from yester.engine.trees import TreeReader
from yester.engine.worker import Line, StoreAccess
from yester.errors import NotFoundError, YesterError
from yester.store.chunks import Location, segment_key
from yester.store.damage import note_damaged
from yester.store.lmdb import Table
from yester.store.parameters import SLOT_PREFIX
from yester.store.segments import Kind
from yester.store.slots import KeySlots, passphrase_secret
from yester.store.snapshots import seen_change, snapshot_key
from yester.store.store import Store

RANDOM = random.Random(1)
BIG = RANDOM.randbytes(30_000)
"""With small chunks: a file with a span list."""
WIDE = {f"name{number:03}": b"" for number in range(60)}
"""With small chunks: a folder stored in parts."""


@pytest.fixture
def damaged(make_store: MakeStore) -> Store:
    """A store that a test may damage, with small chunks."""
    return make_store(chunking=SMALL_CHUNKS, may_be_damaged=True)


@pytest.fixture(params=[False, True], ids=["here", "beside"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Data is read in this process, and then in one of its own."""
    monkeypatch.setattr(check_module, "BESIDE_BYTES_MIN", 0 if request.param else 1 << 62)
    monkeypatch.setattr(check_module, "BESIDE_SEGMENTS_MIN", 0)
    yield
    assert children() == set()


beside = pytest.mark.parametrize("reading", [True], ids=["beside"], indirect=True)
"""Only in one of its own."""


# --- tools ------------------------------------------------------------------------------------------------------------


@dataclass
class NotedSteps(StepProgress):
    """Keeps the names of the steps."""

    steps: list[str] = field(default_factory=list)

    def begin(self, step: str, total: int = 0) -> None:
        self.steps.append(step)
        super().begin(step, total)


def kinds(report: CheckReport) -> list[str]:
    return [finding.kind.value for finding in report.findings]


def affected(report: CheckReport) -> list[list[tuple[str, str, int, int, int]]]:
    """Of each finding that is not about `scan`: source, path (a slash after a folder), days of first and last, and how many."""
    return [
        [
            (
                item.source,
                item.path.decode() + "/" * item.is_folder,
                (item.first.snapshot.time_ns - T0_NS) // DAY_NS,
                (item.last.snapshot.time_ns - T0_NS) // DAY_NS,
                item.count,
            )
            for item in finding.affected
        ]
        for finding in report.findings
        if finding.kind is not FindingKind.SCAN
    ]


# --- whole stores -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("reading")
@both_kinds
def test_a_whole_store_is_whole(sandbox: Sandbox) -> None:
    sandbox.write("a", b"1")
    sandbox.write("d/b", b"2" * 3_000_000)
    sandbox.back_up()
    sandbox.write("a", b"3")
    sandbox.back_up()
    for read_data in (False, True):
        report = check(sandbox.store, read_data=read_data)
        assert report.is_whole
        assert (report.snapshots, report.trees, report.files, report.unneeded_chunks) == (2, 3, 3, 0)
        assert (report.read_bytes > 0) is read_data


@pytest.mark.usefixtures("reading")
def test_an_empty_store_is_whole(store: Store) -> None:
    assert check(store, read_data=True) == CheckReport(())


def test_large_files_and_folders_and_depth_are_whole(make_store: MakeStore) -> None:
    store = make_store(chunking=SMALL_CHUNKS)
    publish(store, {"big": BIG, "again": BIG, "wide": WIDE})
    deep = plant_deep(store, 3000)
    store.add_snapshot(Snapshot(RECORD_VERSION, "deep", "", T0_NS, T0_NS, msgspec.structs.replace(deep, name=b"")))
    report = check(store, read_data=True)
    assert report.findings == ()
    assert report.unneeded_chunks == 0
    assert report.trees == 3003


@pytest.mark.usefixtures("reading")
def test_what_nothing_needs_is_counted_and_no_error(store: Store) -> None:
    publish(store, {"a": b"1"})
    plant(store, {"b": b"22", "c": {}})
    report = check(store, read_data=True)
    assert report.is_whole
    assert (report.unneeded_chunks, report.unneeded_segments) == (3, 2)
    assert report.unneeded_bytes > 2


def test_an_interrupted_backup_is_no_damage(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.write("a", b"1")

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sandbox.store, "add_snapshot", fail)
    with pytest.raises(KeyboardInterrupt):
        sandbox.back_up()
    report = check(sandbox.store, read_data=True)
    assert (report.findings, report.snapshots, report.trees, report.unneeded_chunks) == ((), 0, 1, 0)


def test_progress_is_told(store: Store) -> None:
    publish(store, {"a": b"1"})
    progress = NotedSteps()
    check(store, read_data=True, progress=progress)
    assert progress.steps[0] == "database pages"
    assert {"data", "segments", "chunk index", "snapshots", "folders"} <= set(progress.steps)


# --- chunks and trees -------------------------------------------------------------------------------------------------


def test_a_missing_chunk_is_told_with_the_files_that_need_it(damaged: Store) -> None:
    publish(damaged, {"a": b"other"})
    second = publish(damaged, {"a": b"lost", "d": {"copy": b"lost"}})
    publish(damaged, {"a": b"other", "d": {"copy": b"lost"}})
    publish(damaged, {"x": b"lost"}, "home")
    drop(damaged, Table.CHUNKS, find_content(damaged, second, b"a"))
    report = check(damaged, read_data=False)
    assert kinds(report) == ["chunk"]
    assert affected(report) == [[("docs", "a", 1, 1, 1), ("docs", "d/copy", 1, 2, 2), ("home", "x", 0, 0, 1)]]


def test_a_missing_tree_is_told_with_the_folders_it_is(damaged: Store) -> None:
    stored = publish(damaged, {"d": {"e": {"a": b"1"}}, "b": b"1"})
    drop(damaged, Table.CHUNKS, find_content(damaged, stored, b"d/e"))
    report = check(damaged, read_data=False)
    assert kinds(report) == ["tree"]
    assert affected(report) == [[("docs", "d/e/", 0, 0, 1)]]
    drop(damaged, Table.CHUNKS, stored.snapshot.root.content)
    assert affected(check(damaged, read_data=False)) == [[("docs", "/", 0, 0, 1)]]


def test_a_span_list_that_is_missing_or_damaged_is_told(damaged: Store) -> None:
    stored = publish(damaged, {"big": BIG, "small": b"1"})
    chunk = find_content(damaged, stored, b"big")
    flip_chunk(damaged, chunk)
    report = check(damaged, read_data=False)
    assert "chunk" in kinds(report)
    assert [("docs", "big", 0, 0, 1)] in affected(report)
    drop(damaged, Table.CHUNKS, chunk)
    assert affected(check(damaged, read_data=False)) == [[("docs", "big", 0, 0, 1)]]


def test_a_missing_chunk_below_a_span_list_is_told(damaged: Store) -> None:
    publish(damaged, {"big": BIG, "d": {"again": BIG}})
    drop(damaged, Table.CHUNKS, chunk_id(BIG[10 * 1024 : 11 * 1024]))
    assert affected(check(damaged, read_data=False)) == [[("docs", "big", 0, 0, 1), ("docs", "d/again", 0, 0, 1)]]


def test_a_missing_part_of_a_wide_folder_is_told(damaged: Store) -> None:
    stored = publish(damaged, {"wide": WIDE, "a": b"1"})
    record = bytes(damaged.reader().read(find_content(damaged, stored, b"wide")))
    assert record[:1] == b"L"
    drop(damaged, Table.CHUNKS, unpack_spans(record[2:])[1].chunk)
    report = check(damaged, read_data=False)
    assert kinds(report)[-1] == "tree"
    assert affected(report)[-1] == [("docs", "wide/", 0, 0, 1)]


def test_contents_that_do_not_add_up_are_told(damaged: Store) -> None:
    chunks = damaged.parameters.chunking
    with damaged.writer() as writer:
        span = plant_data(writer, chunks, b"12345").spans
        good = Entry(b"", 0o100644, 0, 0, 0, 0, 5, 0, span)
        too_long = pack_span(ChunkId(span[:32]), 6)
        entries = [
            msgspec.structs.replace(good, name=b"empty span", content=pack_span(ChunkId(span[:32]), 0)),
            msgspec.structs.replace(good, name=b"good"),
            msgspec.structs.replace(good, name=b"size", size=4),
            msgspec.structs.replace(good, name=b"span", size=6, content=too_long),
        ]
        big = plant_data(writer, chunks, BIG)
        [list_span] = unpack_spans(big.spans)
        entries.append(msgspec.structs.replace(good, name=b"tall", size=30_001, level=1, content=pack_span(list_span.chunk, 30_001)))
        entries.append(msgspec.structs.replace(good, name=b"taller", size=30_000, level=2, content=big.spans))
        tree = writer.add(Kind.TREE, encode_tree(Tree(RECORD_VERSION, {}, {}, tuple(entries))))
    damaged.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", T0_NS, T0_NS, Entry(b"", 0o40755, 0, 0, 0, 1, 0, 0, tree)))
    found = [item[1] for items in affected(check(damaged, read_data=False)) for item in items]
    assert sorted(found) == ["empty span", "size", "span", "tall", "taller"]


def test_entries_that_must_not_be_shown_are_told(damaged: Store) -> None:
    good = Entry(b"good", 0o100644, 0, 0, 0, 0, 0, 0, b"")
    bad = [
        msgspec.structs.replace(good, name=b"a/b"),
        msgspec.structs.replace(good, name=b"d", mode=0o40755, content=b"short"),
        good,
        good,
        msgspec.structs.replace(good, name=b"strange", mode=0o170000),
    ]
    with damaged.writer() as writer:
        tree = writer.add(Kind.TREE, encode_tree(Tree(RECORD_VERSION, {}, {}, tuple(bad))))
    damaged.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", T0_NS, T0_NS, Entry(b"", 0o40755, 0, 0, 0, 1, 0, 0, tree)))
    report = check(damaged, read_data=False)
    assert [item[1] for items in affected(report) for item in items] == ["a/b", "d/", "/", "strange"]
    assert set(kinds(report)) == {"tree"}


def test_a_chunk_that_is_no_tree_where_one_is_needed_is_told(damaged: Store) -> None:
    with damaged.writer() as writer:
        chunk = writer.add(Kind.DATA, b"no tree")
    damaged.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", T0_NS, T0_NS, Entry(b"", 0o40755, 0, 0, 0, 1, 0, 0, chunk)))
    report = check(damaged, read_data=False)
    assert kinds(report) == ["tree"]
    assert affected(report) == [[("docs", "/", 0, 0, 1)]]


# --- the index and the segments ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("reading")
def test_damaged_file_data_is_found_by_reading_it(damaged: Store) -> None:
    stored = publish(damaged, {"a": b"lost", "b": {}})
    plant(damaged, {"c": b"kept"})
    publish(damaged, {"a": b"lost", "c": b"kept"})
    flip_chunk(damaged, find_content(damaged, stored, b"a"))
    assert check(damaged, read_data=False).is_whole
    report = check(damaged, read_data=True)
    assert kinds(report) == ["segment"]
    assert "1 of its 1 chunks" in report.findings[0].what
    assert affected(report) == [[("docs", "a", 0, 1, 2)]]


def test_chunks_of_one_file_in_one_damaged_segment_do_not_count_its_snapshots_again(damaged: Store) -> None:
    stored = publish(damaged, {"big": BIG})
    publish(damaged, {"big": BIG, "new": b"1"})
    lists = TreeReader(damaged.reader()).get(stored.snapshot.root, b"big").file_content
    chunks = unpack_spans(bytes(damaged.reader().read(ChunkId(lists.spans[:32])))[2:])[:4]
    assert len({locate(damaged, span.chunk).segment for span in chunks}) == 1
    for span in chunks:
        flip_chunk(damaged, span.chunk)
    report = check(damaged, read_data=True)
    assert kinds(report) == ["segment"]
    assert affected(report) == [[("docs", "big", 0, 1, 2)]]


@pytest.mark.usefixtures("reading")
def test_a_damaged_tree_is_found_without_reading_data(damaged: Store) -> None:
    stored = publish(damaged, {"a": b"1"})
    flip_chunk(damaged, stored.snapshot.root.content)
    for read_data, kind in ((False, "tree"), (True, "segment")):
        report = check(damaged, read_data=read_data)
        assert kinds(report) == [kind]
        assert affected(report) == [[("docs", "/", 0, 0, 1)]]


@pytest.mark.usefixtures("reading")
def test_a_missing_segment_is_one_finding_with_all_its_files(damaged: Store) -> None:
    stored = publish(damaged, {f"f{number}": b"%d" % number for number in range(8)})
    segment = locate(damaged, find_content(damaged, stored, b"f0")).segment
    drop(damaged, Table.SEGMENTS, segment_key(segment))
    for read_data in (False, True):
        report = check(damaged, read_data=read_data)
        assert kinds(report) == ["segment"]
        assert [item[1] for item in affected(report)[0]] == [f"f{number}" for number in range(8)]


@pytest.mark.parametrize("header", [b"", b"ys", b"xx" + bytes(18), b"ys\x02\x01\x00\x00" + bytes(14), b"ys\x01\x01\x00\x00" + b"\xff" * 14])
def test_a_segment_without_a_header_is_found(damaged: Store, header: bytes) -> None:
    stored = publish(damaged, {"a": b"1"})
    segment = locate(damaged, find_content(damaged, stored, b"a")).segment
    put(damaged, Table.SEGMENTS, segment_key(segment), header)
    report = check(damaged, read_data=True)
    assert kinds(report) == ["segment"]
    assert affected(report) == [[("docs", "a", 0, 0, 1)]]


@pytest.mark.parametrize("key", [b"short", b"x" * 40, bytes(9), b"\xff" * 8])
def test_a_segment_with_a_strange_key_is_found(damaged: Store, key: bytes) -> None:
    publish(damaged, {"a": b"1"})
    put(damaged, Table.SEGMENTS, key, damaged.environment.get(Table.SEGMENTS, segment_key(1)) or b"")
    put(damaged, Table.CHUNKS, key, Location(1, 0).pack())
    assert "segment" in kinds(check(damaged, read_data=True))


def test_index_entries_that_lead_nowhere_are_found(damaged: Store) -> None:
    stored = publish(damaged, {"a": b"1", "b": b"2", "c": b"3"})
    location = locate(damaged, find_content(damaged, stored, b"a"))
    put(damaged, Table.CHUNKS, find_content(damaged, stored, b"a"), Location(location.segment, 3).pack())
    put(damaged, Table.CHUNKS, find_content(damaged, stored, b"b"), b"short")
    put(damaged, Table.CHUNKS, find_content(damaged, stored, b"c"), Location(2**48 - 1, 0).pack())
    report = check(damaged, read_data=False)
    assert sorted(kinds(report)) == ["index", "segment", "segment"]
    assert sorted(item[1] for items in affected(report) for item in items) == ["a", "b", "c"]


@pytest.mark.usefixtures("reading")
def test_two_chunks_in_one_place_are_found(damaged: Store) -> None:
    stored = publish(damaged, {"a": b"1", "b": b"2"})
    chunk = find_content(damaged, stored, b"a")
    put(damaged, Table.CHUNKS, chunk, locate(damaged, find_content(damaged, stored, b"b")).pack())
    for read_data in (False, True):
        report = check(damaged, read_data=read_data)
        assert kinds(report) == ["index"]
        assert affected(report) == [[("docs", "a", 0, 0, 1), ("docs", "b", 0, 0, 1)]]


def test_chunks_that_nothing_needs_are_not_hashed_twice(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(chunking=SMALL_CHUNKS)
    first = publish(store, {str(number): b"%d" % number * 1000 for number in range(20)})
    publish(store, {str(number): b"%d" % number * 1000 for number in range(0, 20, 2)})
    store.forget([first.id], now_ns=T0_NS)
    store.renew_lease()
    monkeypatch.setattr("yester.engine.prune.WASTE_MAX", 2)
    assert prune(store, grace_ns=0, now_ns=T0_NS).rewritten_segments == 0
    hashed: list[bytes] = []
    name = store.environment.name_chunk

    def name_and_note(data: bytes | memoryview) -> ChunkId:
        hashed.append(bytes(data))
        return name(data)

    monkeypatch.setattr(store.environment, "name_chunk", name_and_note)
    assert check(store, read_data=True).is_whole
    of_files = [data for data in hashed if data[:1].isdigit()]
    assert len(of_files) == len(set(of_files)) >= 20


# --- key slots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"\xc1garbage", b""], ids=["unreadable", "flipped"])
def test_a_damaged_key_slot_is_told(make_store: MakeStore, damage: bytes) -> None:
    store = make_store(is_encrypted=True, may_be_damaged=True)
    KeySlots(store.environment).add(passphrase_secret("a second one", CHEAP))
    assert check(store, read_data=True).is_whole
    key = SLOT_PREFIX + (2).to_bytes(4, "big")
    stored = bytearray(store.environment.get(Table.META, key) or b"")
    stored[len(stored) // 2] ^= 1  # in `sealed`
    store.environment.write(lambda transaction: transaction.put(Table.META, key, damage or bytes(stored)))
    [finding] = check(store, read_data=False).findings
    assert (finding.kind, finding.what[:16]) == (FindingKind.KEY, "key 2 is damaged")


# --- snapshots and what backups remember ------------------------------------------------------------------------------


def test_a_damaged_snapshot_record_is_found(damaged: Store) -> None:
    stored = publish(damaged, {"a": b"1"})
    publish(damaged, {"a": b"1"}, "home")
    key = damaged.environment.get(Table.SNAPSHOT_IDS, stored.id) or b""
    flip(damaged, Table.SNAPSHOTS, key, 0)
    report = check(damaged, read_data=False)
    assert set(kinds(report)) == {"snapshot"}
    assert report.snapshots == 1
    assert all(stored.id.hex() in finding.what or "'docs'" in finding.what for finding in report.findings)


def test_a_flipped_bit_that_leaves_a_snapshot_readable_is_found(damaged: Store) -> None:
    stored = publish(damaged, {"a": b"1"})
    key = damaged.environment.get(Table.SNAPSHOT_IDS, stored.id) or b""
    record = damaged.environment.get(Table.SNAPSHOTS, key) or b""
    put(damaged, Table.SNAPSHOTS, key, record.replace(b"/home/ann", b"/home/bob"))
    report = check(damaged, read_data=False)
    assert set(kinds(report)) == {"snapshot"}
    assert report.snapshots == 1


def test_the_lists_of_snapshots_must_agree(damaged: Store) -> None:
    first, second, third = (publish(damaged, {"a": b"%d" % number}) for number in range(3))
    key = damaged.environment.get(Table.SNAPSHOT_IDS, second.id) or b""
    drop(damaged, Table.SNAPSHOT_IDS, first.id)
    drop(damaged, Table.SNAPSHOTS, key)
    put(damaged, Table.SNAPSHOT_IDS, third.id, b"")
    report = check(damaged, read_data=False)
    assert kinds(report) == ["snapshot"] * 4
    for stored, times in ((first, 1), (second, 1), (third, 2)):
        assert sum(stored.id.hex() in finding.what for finding in report.findings) == times


def test_a_snapshot_filed_under_another_source_is_found(damaged: Store) -> None:
    stored = publish(damaged, {})
    id_, record = encode_snapshot(stored.snapshot)
    put(damaged, Table.SNAPSHOTS, b"home\0" + bytes(8), record)
    put(damaged, Table.SNAPSHOT_IDS, id_, b"home\0" + bytes(8))
    assert any("filed under another source" in finding.what for finding in check(damaged, read_data=False).findings)


def test_a_snapshot_of_a_newer_release_is_told(damaged: Store) -> None:
    stored = publish(damaged, {})
    damaged.add_snapshot(msgspec.structs.replace(stored.snapshot, source="new", version=99))
    report = check(damaged, read_data=False)
    assert kinds(report) == ["snapshot"]
    assert "version 99" in report.findings[0].what


def test_what_backups_remember_is_checked(damaged: Store) -> None:
    tree = plant(damaged, {"a": b"lost"}).tree
    with damaged.writer() as writer:
        for path, seen_tree in ((b"good", tree), (b"gone", TreeId(ChunkId(b"\1" * 32)))):
            writer.after_trees(seen_change("docs", path, SeenDirectory(RECORD_VERSION, seen_tree, (UNTRUSTED,))))
    put(damaged, Table.SCAN, b"\0" * 32, b"\xc1")
    report = check(damaged, read_data=False)
    assert kinds(report) == ["scan"]  # of what cannot be read: a prune may take a folder that only backups remember
    drop(damaged, Table.CHUNKS, chunk_id(b"lost"))
    assert "new snapshots will have the same damage" in check(damaged, read_data=False).findings[-1].what


# --- much damage ------------------------------------------------------------------------------------------------------


def test_findings_are_bounded(damaged: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "FINDINGS_MAX", 10)
    stored = publish(damaged, {f"f{number:02}": b"%d" % number for number in range(30)})
    for number in range(30):
        drop(damaged, Table.CHUNKS, find_content(damaged, stored, b"f%02d" % number))
    report = check(damaged, read_data=True)
    assert (len(report.findings), report.findings_more) == (10, 20)
    assert [items[0][1] for items in affected(report)] == [f"f{number:02}" for number in range(10)]


def test_affected_paths_are_bounded(damaged: Store) -> None:
    publish(damaged, {f"f{number:02}": b"lost" for number in range(30)})
    drop(damaged, Table.CHUNKS, chunk_id(b"lost"))
    [finding] = check(damaged, read_data=False).findings
    assert (len(finding.affected), finding.affected_more) == (20, 10)


Contents = dict[tuple[str, bytes], tuple[Entry, bytes | YesterError]]
"""By snapshot and path: the entry, and a file's bytes, or the error that came instead of what it holds."""


def _contents(store: Store) -> Contents:
    """Everything that can be seen in a store."""
    found: Contents = {}
    trees = TreeReader(store.reader())
    for stored in store.snapshots():
        label = f"{stored.snapshot.source}@{stored.snapshot.name} {stored.id.hex()}"
        waiting = [(b"", stored.snapshot.root)]
        while waiting:
            path, entry = waiting.pop()
            data: bytes | YesterError = b""
            try:
                if entry.mode & 0o170000 == 0o40000:
                    waiting += [(path + b"/" + child.name, child) for child in trees.read(entry.tree).entries]
                elif entry.mode & 0o170000 == 0o100000:
                    data = bytes(FileReader(trees.chunks, entry.file_content, entry.size).read(0, entry.size))
            except YesterError as error:
                data = error
            found[label, path] = entry, data
    return found


PLAN: Plan = {"a": b"1", "big": BIG[:5000], "d": {"text": b"text " * 100, "link": "a"}, "wide": WIDE}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store to make damaged copies of."""
    path = tmp_path_factory.mktemp("template") / "store"
    with Store.create(path, chunking=SMALL_CHUNKS) as store:
        publish(store, PLAN)
        publish(store, {"a": b"2", "d": {"text": b"text " * 100}, "wide": WIDE})
        publish(store, {"x": b"1"}, "home")
    return path


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@pytest.mark.expect_log
def test_every_flipped_bit_that_matters_is_found(template: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One bit of one value of any table but `scan`: either check finds it, or all that is in the store is as before."""
    path = tmp_path_factory.mktemp("flip") / "store"
    shutil.copytree(template, path)
    with Store.open(path) as store:
        before = _contents(store)
        table = data.draw(st.sampled_from([Table.SEGMENTS, Table.CHUNKS, Table.SNAPSHOTS, Table.SNAPSHOT_IDS]))
        with store.environment.read() as view:
            values = [(key, len(value)) for key, value in view.iterate(table)]
        key, length = data.draw(st.sampled_from(values))
        flip(store, table, key, data.draw(st.integers(0, length - 1)), 1 << data.draw(st.integers(0, 7)))
        report = check(store, read_data=True)
        try:
            after = _contents(store)
        except YesterError:
            after = {}
        assert not report.is_whole or before == after
        for place, (entry, content) in after.items():
            if not isinstance(content, YesterError) and place in before:
                assert (entry, content) == before[place]
    shutil.rmtree(path.parent)


# --- a process that reads the data --------------------------------------------------------------------------------------


@beside
@pytest.mark.usefixtures("reading")
def test_the_structure_is_looked_at_again_only_if_data_is_damaged(damaged: Store) -> None:
    progress = NotedSteps()
    stored = publish(damaged, {"a": b"1", "b": b"2"})
    drop(damaged, Table.SNAPSHOTS, snapshot_key(stored.snapshot))
    drop(damaged, Table.SNAPSHOT_IDS, stored.id)
    publish(damaged, {"a": b"1"})
    drop(damaged, Table.CHUNKS, find_content(damaged, stored, b"b"))  # as a prune leaves it
    assert check(damaged, read_data=True, progress=progress).is_whole
    assert progress.steps.count("folders") == 1
    flip_chunk(damaged, find_content(damaged, stored, b"a"))
    report = check(damaged, read_data=True, progress=progress)
    assert (kinds(report), affected(report)) == (["segment"], [[("docs", "a", 0, 0, 1)]])
    assert progress.steps.count("folders") == 3


def test_what_was_found_in_a_segment_that_is_newer_than_the_view_is_looked_at(damaged: Store) -> None:
    publish(damaged, {"a": b"1"})
    with damaged.environment.read() as view:
        structure = StructureCheck(damaged, view, {}, StepProgress(), findings_max=9, affected_max=9)
        assert structure.report().is_whole
        last = view.count(Table.SEGMENTS)
    assert not structure.needs_suspects({})
    assert structure.needs_suspects({last: b""})
    assert structure.needs_suspects({last + 1: b"\0"})


@pytest.mark.expect_log("was ended by SIGKILL, so the data is read without it")
@beside
@pytest.mark.usefixtures("reading")
def test_where_the_process_is_killed_one_checks_everything(damaged: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = publish(damaged, {"a": b"1"})
    flip_chunk(damaged, find_content(damaged, stored, b"a"))
    finish = DataReader.finish

    def kill(self: DataReader, progress: StepProgress) -> DataRead | None:
        self._worker.process.kill()
        self._worker.process.wait()
        while self._worker.receive() is not None:
            pass
        assert finish(self, progress) is None
        return None

    monkeypatch.setattr(DataReader, "finish", kill)
    assert kinds(check(damaged, read_data=True)) == ["segment"]


def test_a_process_to_which_nobody_listens_sees_that_there_is_no_room() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)  # sending raises where it would wait
        line = Line(ours)
        sent = 0
        while line.has_room():
            line.send(Report(sent, 0))
            sent += 1
        assert sent > 0
        for _ in range(sent):
            Line(theirs).receive()
        assert line.has_room()


@beside
@pytest.mark.usefixtures("reading")
def test_what_ends_the_process_ends_the_check(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, {"a": b"1"})
    with monkeypatch.context() as patch:
        patch.setattr(StoreAccess, "to", lambda _store: StoreAccess(b"/nowhere", b""))
        with pytest.raises(NotFoundError, match="/nowhere"):
            check(store, read_data=True)


@beside
@pytest.mark.usefixtures("reading")
def test_a_check_that_is_interrupted_ends_its_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    publish(store, {"a": b"1"})
    with monkeypatch.context() as patch:
        patch.setattr(StructureCheck, "report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            check(store, read_data=True)


@beside
@pytest.mark.usefixtures("reading")
def test_where_no_process_can_be_started_one_checks_everything(damaged: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = publish(damaged, {"a": b"1"})
    flip_chunk(damaged, find_content(damaged, stored, b"a"))
    monkeypatch.setattr(sys, "executable", "/no/python")
    report = check_module._check_open(damaged, read_data=True, progress=StepProgress())
    assert kinds(report) == ["segment"]


# --- LMDB's own pages -------------------------------------------------------------------------------------------------


def test_damaged_pages_are_found_before_anything_is_opened(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "store"
    shutil.copytree(template, path)
    data = bytearray((path / "data.mdb").read_bytes())
    pages = len(data) // 4096
    found = set()
    for page in range(2, pages):
        copy = bytearray(data)
        copy[page * 4096 : page * 4096 + 16] = b"\xff" * 16
        (path / "data.mdb").write_bytes(copy)
        report = check_path(path, read_data=True)
        # The first bytes of most pages are LMDB's; of others they are the middle of a segment, or nobody's.
        assert set(kinds(report)) in (set(), {"database"}, {"segment"})
        found |= set(kinds(report))
    assert "database" in found


@pytest.mark.usefixtures("reading")
def test_a_store_that_is_written_meanwhile_is_not_damaged(sandbox: Sandbox) -> None:
    """Another process commits all the time, new chunks and freed pages; check looks again and again."""
    sandbox.write("a", os.urandom(100_000))
    sandbox.back_up()
    program = """
import os, sys
from pathlib import Path
from yester.engine.backup import BackupOptions, back_up
from yester.store.store import Store
store, folder = map(Path, sys.argv[1:])
with Store.open(store) as opened:
    number = 0
    print("ready", flush=True)
    while True:
        number += 1
        (folder / f"file{number % 5}").write_bytes(os.urandom(20_000))
        back_up(opened, [folder], BackupOptions(source="busy"))
"""
    busy = sandbox.folder / "busy"
    busy.mkdir()
    command = [sys.executable, "-c", program, os.fspath(sandbox.store.path), os.fspath(busy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            checks = 0
            while checks < 5 or len(sandbox.store.snapshots("busy")) < 5:
                assert check(sandbox.store, read_data=True).findings == ()
                checks += 1
        finally:
            writer.kill()


@pytest.mark.usefixtures("reading")
def test_check_does_not_keep_a_backup_waiting(sandbox: Sandbox) -> None:
    sandbox.write("a", b"1")
    sandbox.back_up()
    with sandbox.store.backup_lock(lambda _: None):
        assert check(sandbox.store, read_data=True).is_whole


# --- samples, forgotten snapshots, damage that is known ------------------------------------------------------------------


def _wide_store(make_store: MakeStore) -> Store:
    """A store with many segments."""
    store = make_store(may_be_damaged=True)
    for number in range(12):
        publish(store, {"a": random.Random(number).randbytes(1_100_000)})
    return store


@pytest.mark.usefixtures("reading")
def test_a_sample_reads_its_share_and_the_same_one_for_the_same_seed(make_store: MakeStore) -> None:
    store = _wide_store(make_store)
    segments = check(store, read_data=False).segments
    one, again = (check(store, read_data=Sample(0.25, 7)) for _ in range(2))
    assert one == again
    assert (one.read_segments, one.seed) == (-(-segments // 4), 7)
    assert 0 < one.read_bytes < check(store, read_data=True).read_bytes
    assert check(store, read_data=Sample(0.0001, 1)).read_segments == 1
    assert check(store, read_data=Sample(1.0, 1)).read_segments == segments


def test_samples_find_damage_sooner_or_later_and_only_where_they_look(make_store: MakeStore) -> None:
    store = _wide_store(make_store)
    flip_chunk(store, find_content(store, store.snapshots("docs")[5], b"a"))
    found = [not check(store, read_data=Sample(0.2, seed)).is_whole for seed in range(40)]
    assert True in found
    assert False in found


def test_a_sample_of_an_empty_store_is_empty(store: Store) -> None:
    assert check(store, read_data=Sample(0.5, 1)).read_segments == 0


def test_what_a_forgotten_snapshot_lacks_is_told(damaged: Store) -> None:
    """It can be had back as long as it is listed."""
    stored = publish(damaged, {"a": b"lost"})
    publish(damaged, {"b": b"other"})
    damaged.forget([stored.id], now_ns=T0_NS)
    drop(damaged, Table.CHUNKS, find_content(damaged, stored, b"a"))
    report = check(damaged, read_data=False)
    assert report.snapshots == 1
    assert affected(report) == [[("docs", "a", 0, 0, 1)]]


def test_a_forgotten_snapshot_keeps_its_chunks_from_being_told_unneeded(store: Store) -> None:
    stored = publish(store, {"a": b"1"})
    store.forget([stored.id], now_ns=T0_NS)
    assert check(store, read_data=True).unneeded_chunks == 0


@pytest.mark.parametrize("value", [b"", b"junk", encode_forgotten(Forgotten(RECORD_VERSION, 1, b"junk", 1))])
def test_a_forgotten_snapshot_that_cannot_be_read_is_told(damaged: Store, value: bytes) -> None:
    put(damaged, Table.FORGOTTEN, b"docs\0" + bytes(8), value)
    assert kinds(check(damaged, read_data=False)) == ["snapshot"]


def test_damage_that_was_noted_is_told_from_new_damage(damaged: Store) -> None:
    stored = publish(damaged, {"a": b"lost", "b": b"fine", "d": {"c": b"fine too"}})
    damaged.environment.write(lambda transaction: note_damaged(transaction, find_content(damaged, stored, b"a"), now_ns=T0_NS))
    report = check(damaged, read_data=True)
    assert not report.is_whole
    assert report.is_as_known
    [finding] = report.findings
    assert (finding.chunk, finding.known_since_ns) == (chunk_id(b"lost"), T0_NS)
    assert "known since 2026-11-22_10-00-00" in finding.what
    assert affected(report) == [[("docs", "a", 0, 0, 1)]]
    drop(damaged, Table.CHUNKS, chunk_id(b"fine"))
    assert not check(damaged, read_data=True).is_as_known


@pytest.mark.parametrize("record", [b"", b"\xc0", encode_damaged(Damaged(RECORD_VERSION, 2**63)), encode_damaged(Damaged(9, 1))])
def test_a_note_of_damage_that_cannot_be_read_is_no_note(damaged: Store, record: bytes) -> None:
    stored = publish(damaged, {"a": b"lost"})
    chunk = find_content(damaged, stored, b"a")
    drop(damaged, Table.CHUNKS, chunk)
    put(damaged, Table.DAMAGED, chunk, record)
    assert not check(damaged, read_data=False).is_as_known


def test_space_that_nothing_needs_is_told_as_it_is_on_the_disk(store: Store) -> None:
    publish(store, {"a": b"1"})
    plant(store, {"b": random.Random(3).randbytes(50_000)})
    report = check(store, read_data=False)
    assert report.unneeded_segments == 2
    assert 50_000 < report.unneeded_stored_bytes < 52_000

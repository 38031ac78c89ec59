# SPDX-License-Identifier: MIT
"""A new data file from what can be read of a damaged one.

`tests/faults/test_repair.py` does damage of every kind, here is what needs a certain one.
"""

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.encrypted import unlock
from tests.engine.planting import SMALL_CHUNKS, T0_NS, publish
from tests.engine.sandbox import MakeStore
from tests.pages import flip, parting_nodes
from yester.core.node_row import NodeRow
from yester.engine import repair as repair_module
from yester.engine import repair_pages as repair_pages_module
from yester.engine.check import check
from yester.engine.check_report import FindingKind
from yester.engine.prune import prune
from yester.engine.repair import RepairOptions, RepairReport, repair
from yester.engine.trees import TreeReader
from yester.errors import BusyError, CorruptionError, LockedError, StoreAccessError
from yester.store.datafile import DATA_FILE
from yester.store.folder import lock_for_repair
from yester.store.live import LiveFolders
from yester.store.lmdb import Environment, Table
from yester.store.pages import IS_BIG, NODE, NUMBER, node_places
from yester.store.salvage import DataFile
from yester.store.snapshots import snapshot_key
from yester.store.store import Store

PAGE = 4096
HOLD_OPEN = """
import sys
from pathlib import Path
from tests.encrypted import unlock
from yester.store.store import Store
with Store.open(Path(sys.argv[1]), unlock=unlock):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def path(make_store: MakeStore, request: pytest.FixtureRequest) -> Path:
    """A store with some of everything; closed."""
    store = make_store(chunking=SMALL_CHUNKS, may_be_damaged=True, is_encrypted=request.param)
    stored = [publish(store, {f"f{number}": random.Random(number).randbytes(20_000), "same": b"1" * 5000}) for number in range(4)]
    store.pin(stored[1].id, now_ns=T0_NS, message="keep")
    store.forget([stored[3].id], now_ns=T0_NS)
    store.environment.write(lambda transaction: transaction.put(Table.META, b"of a later release", b"kept"))
    store.close()
    return store.path


def zero_page(path: Path, number: int) -> None:
    with (path / DATA_FILE).open("r+b") as file:
        file.seek(number * PAGE)
        file.write(bytes(PAGE))


def page_of(path: Path, table: Table) -> int:
    """A leaf page with rows of a table."""
    with DataFile(path) as file:
        return next(file.walk(table.value)).page


def mend(path: Path) -> RepairReport:
    report = repair(path, RepairOptions(), unlock=unlock)
    with Store.open(path, unlock=unlock) as store:
        assert check(store, read_data=True).findings == report.after.findings
    return report


@pytest.mark.parametrize("where", [0, -1])
def test_rows_that_searching_does_not_find_are_damage_of_pages_and_nothing_else(path: Path, where: int) -> None:
    """A key in a branch page was hit. Whoever looked for a row would take it for lost, and put it a second time."""
    with Store.open(path, unlock=unlock) as store:
        publish(store, {f"more{number}": random.Random(number).randbytes(50_000) for number in range(20, 30)})
        before = store.snapshots()
    with DataFile(path) as file:
        root = file.tables[Table.CHUNKS.value].root
    data = (path / DATA_FILE).read_bytes()
    flip(path, data, parting_nodes(data, root)[where] + NODE.size, 7)
    with Store.open(path, unlock=unlock) as store:
        with store.environment.read() as view:
            assert any(view.get(Table.CHUNKS, key) is None for key, _ in view.iterate(Table.CHUNKS))
        found = check(store, read_data=True).findings
    assert [(finding.kind, finding.affected) for finding in found] == [(FindingKind.DATABASE, ())]
    assert "branch page" in found[0].what
    report = mend(path)
    assert report.is_whole
    assert report.pages is not None
    assert report.pages.problems == [found[0].what]
    assert (report.from_segments, report.dropped_entries, report.pages.stray_segments, report.pages.recovered) == (0, 0, 0, None)
    with Store.open(path, unlock=unlock) as store:
        assert store.snapshots() == before


def test_one_bit_of_what_leads_to_segments_costs_nothing(path: Path, tmp_path: Path) -> None:
    """Of a page with their rows, its header and all parts of a node; and of the header of a run of pages."""
    with Store.open(path, unlock=unlock) as store:
        publish(store, {f"more{number}": random.Random(number).randbytes(50_000) for number in range(20, 30)})
        before = store.snapshots()
        (tmp_path / "compact").mkdir()
        store.environment.copy_to(tmp_path / "compact")
    os.replace(tmp_path / "compact" / DATA_FILE, path / DATA_FILE)
    data = (path / DATA_FILE).read_bytes()
    with DataFile(path) as file:
        start = next(file.walk(Table.SEGMENTS.value)).page * PAGE
    page = data[start : start + PAGE]
    big = [place for place in node_places(page) if NODE.unpack_from(page, place)[2] & IS_BIG]
    assert len(big) > 2
    fields = {
        "header": range(start, start + 16),
        "places": range(start + 16, start + 16 + 2 * len(node_places(page))),
        **{f"node {place}": range(start + place, start + place + 24) for place in big[:2]},
        **{f"run {place}": range(run, run + 16) for place in big[:2] for run in [NUMBER.unpack_from(page, place + 16)[0] * PAGE]},
    }
    rng = random.Random("bits")
    for what, places in fields.items():
        for at, bit in rng.sample([(at, bit) for at in places for bit in range(8)], 12):
            hurt = shutil.copytree(path, tmp_path / "hurt", ignore=shutil.ignore_patterns(DATA_FILE))
            flip(hurt, data, at, bit)
            mend(hurt)
            with Store.open(hurt, unlock=unlock) as store:
                assert check(store, read_data=True).findings == (), (what, at - start, bit)
                assert store.snapshots() == before
            shutil.rmtree(hurt)


@pytest.mark.parametrize("table", [Table.CHUNKS, Table.SNAPSHOT_IDS, Table.SEGMENTS])
def test_what_can_be_made_again_is(path: Path, table: Table) -> None:
    with Store.open(path, unlock=unlock) as store:
        before = store.snapshots(), store.forgotten_snapshots(), store.pins(), store.parameters
    zero_page(path, page_of(path, table))
    report = mend(path)
    assert report.pages is not None
    assert report.is_whole or table is Table.SEGMENTS
    with Store.open(path, unlock=unlock) as store:
        assert (store.snapshots(), store.forgotten_snapshots(), store.pins(), store.parameters) == before
        assert store.environment.get(Table.META, b"of a later release") == b"kept"


@pytest.mark.expect_log("are not those that were recorded")
def test_what_snapshots_on_a_lost_page_named_is_kept_and_no_prune_takes_it(path: Path) -> None:
    with Store.open(path, unlock=unlock) as store:
        roots = {one.snapshot.root.tree for one in store.snapshots()}
    zero_page(path, page_of(path, Table.SNAPSHOTS))
    report = mend(path)
    assert report.pages is not None
    assert report.pages.recovered is not None
    assert not report.is_whole
    with Store.open(path, unlock=unlock) as store:
        [stored] = store.snapshots()
        found = TreeReader(store.reader()).read(stored.snapshot.root.tree).entries
        assert roots == {entry.tree for entry in found}
        if store.environment.key is not None:
            with pytest.raises(CorruptionError, match="nothing was freed"):
                prune(store, grace_ns=10**17)
            store.accept_snapshots()
        assert prune(store, grace_ns=10**17).dead_chunks == 0


@pytest.mark.expect_log("are not those that were recorded")
@pytest.mark.parametrize("path", [True], ids=["encrypted"], indirect=True)
def test_snapshots_that_somebody_without_the_key_took_away_are_told_of(path: Path) -> None:
    """Damaging a page besides must not be a way to have the rest believed."""
    with Store.open(path, unlock=unlock) as store:
        changes = store.changes()
        [first, *kept] = store.snapshots()
    with Environment(path) as environment:
        with environment.read() as view:
            key = next(key for key, _ in view.iterate_stored(Table.SNAPSHOTS) if key.endswith(snapshot_key(first.snapshot)[-8:]))
        environment.write(lambda transaction: transaction.delete(Table.SNAPSHOTS, key))
    zero_page(path, page_of(path, Table.CHUNKS))
    report = mend(path)
    assert report.pages is not None
    assert report.pages.is_listing_doubtful
    assert not report.is_whole
    with Store.open(path, unlock=unlock) as store:
        assert [one for one in store.snapshots() if one.snapshot.source != "recovered"] == kept
        store.pin(store.snapshots()[0].id, now_ns=T0_NS)
        assert "are not those that were recorded" in store.snapshots_problem()
        store.accept_snapshots()
        assert not store.snapshots_problem()
        assert store.changes() > changes


def test_without_the_page_that_names_the_tables_all_is_found_by_its_bytes(path: Path) -> None:
    with Store.open(path, unlock=unlock) as store:
        before = store.snapshots(), store.forgotten_snapshots(), store.pins(), store.parameters
    zero_page(path, 0)
    zero_page(path, 1)
    report = mend(path)
    assert report.pages is not None
    assert report.is_whole
    assert report.pages.stray_segments == report.pages.segments > 0
    with Store.open(path, unlock=unlock) as store:
        assert (store.snapshots(), store.forgotten_snapshots(), store.pins(), store.parameters) == before


@pytest.mark.parametrize("path", [False], ids=["plain"], indirect=True)
def test_lost_parameters_are_replaced(path: Path) -> None:
    zero_page(path, page_of(path, Table.META))
    report = mend(path)
    assert report.pages is not None
    assert report.pages.has_new_parameters
    assert report.is_whole


@pytest.mark.parametrize("path", [True], ids=["encrypted"], indirect=True)
def test_an_encrypted_store_needs_its_key_and_is_left_as_it_is_where_that_is_lost(path: Path) -> None:
    whole = (path / DATA_FILE).read_bytes()
    zero_page(path, page_of(path, Table.CHUNKS))
    before = (path / DATA_FILE).read_bytes()
    with pytest.raises(LockedError):
        repair(path, RepairOptions())
    assert (path / DATA_FILE).read_bytes() == before
    (path / DATA_FILE).write_bytes(whole)
    zero_page(path, page_of(path, Table.META))
    before = (path / DATA_FILE).read_bytes()
    with pytest.raises(CorruptionError, match="nothing was changed"):
        repair(path, RepairOptions(), unlock=unlock)
    assert (path / DATA_FILE).read_bytes() == before


def test_the_old_file_is_kept_and_nothing_else_is_left(path: Path) -> None:
    zero_page(path, page_of(path, Table.CHUNKS))
    before = (path / DATA_FILE).read_bytes()
    (path / "repair.tmp").mkdir()
    (path / "repair.tmp" / "left over").touch()
    report = mend(path)
    assert report.pages is not None
    assert report.pages.kept_as is not None
    assert report.pages.kept_as.read_bytes() == before
    names = {DATA_FILE, report.pages.kept_as.name, "lock.mdb", "data.id", "leases"}
    assert {name for name in os.listdir(path) if name.count(".lock") == 0} == names


def test_a_dry_run_only_tells(path: Path) -> None:
    zero_page(path, page_of(path, Table.CHUNKS))
    before = (path / DATA_FILE).read_bytes()
    report = repair(path, RepairOptions(is_dry_run=True), unlock=unlock)
    assert report.pages is not None
    assert report.pages.problems
    assert not report.is_whole
    assert (path / DATA_FILE).read_bytes() == before
    assert "repair.tmp" not in os.listdir(path)


def test_a_copy_is_made_of_the_damaged_file(path: Path, tmp_path: Path) -> None:
    zero_page(path, page_of(path, Table.CHUNKS))
    before = (path / DATA_FILE).read_bytes()
    repair(path, RepairOptions(copy_to=tmp_path / "copy"), unlock=unlock)
    assert (tmp_path / "copy" / DATA_FILE).read_bytes() == before


def test_what_is_no_store_is_left_as_it_is(tmp_path: Path) -> None:
    for number, data in enumerate([b"", bytes(100_000), random.Random(1).randbytes(100_000)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / DATA_FILE).write_bytes(data)
        with pytest.raises(CorruptionError, match="nothing was changed"):
            repair(folder, RepairOptions())
        assert (folder / DATA_FILE).read_bytes() == data


def test_a_database_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    with Environment(tmp_path, create=True) as environment:
        environment._env.open_db(b"theirs")
    before = (tmp_path / DATA_FILE).read_bytes()
    with pytest.raises(CorruptionError, match=r"nothing in .* is from a store; nothing was changed"):
        repair(tmp_path, RepairOptions())
    assert (tmp_path / DATA_FILE).read_bytes() == before


def _live(path: Path, names: list[str]) -> None:
    row = NodeRow(1, bytes(16), 0o40755, 0, 0, 0, 0, 0, 0, 0, ())
    with Store.open(path, unlock=unlock) as store:
        for name in names:
            LiveFolders(store.environment).create(name, next_node=2, nodes={1: msgspec.msgpack.encode(row)})


def test_live_folders_are_kept_where_no_row_of_theirs_is_lost(path: Path) -> None:
    _live(path, ["one", "two"])
    with Store.open(path, unlock=unlock) as store:
        before = [LiveFolders(store.environment).load(name) for name in ("one", "two")]
    zero_page(path, page_of(path, Table.CHUNKS))
    report = mend(path)
    assert report.pages is not None
    assert report.pages.lost_live_folders == []
    with Store.open(path, unlock=unlock) as store:
        assert [LiveFolders(store.environment).load(name) for name in ("one", "two")] == before


def test_a_live_folder_that_may_lack_a_row_is_not_believed(path: Path) -> None:
    """It would show old bytes, or none, for what was written."""
    _live(path, ["one", "two"])
    zero_page(path, page_of(path, Table.LIVE_NODES))
    report = mend(path)
    assert report.pages is not None
    assert report.pages.lost_live_folders == ["one", "two"]
    with Store.open(path, unlock=unlock) as store:
        assert LiveFolders(store.environment).names() == []
        assert store.environment.get(Table.LIVE_FOLDERS, b"one") is None


def test_one_damaged_live_folder_does_not_cost_the_other(path: Path) -> None:
    _live(path, ["one", "two"])
    with Store.open(path, unlock=unlock) as store:
        store.environment.write(lambda transaction: transaction.put(Table.LIVE_FOLDERS, b"one", msgspec.msgpack.encode("junk")))
    zero_page(path, page_of(path, Table.CHUNKS))
    report = mend(path)
    assert report.pages is not None
    assert report.pages.lost_live_folders == ["one"]
    with Store.open(path, unlock=unlock) as store:
        assert LiveFolders(store.environment).names() == ["two"]
        assert [key[:4] for key, _ in _rows(store, Table.LIVE_NODES)] == [b"\0\0\0\2"]


def _rows(store: Store, table: Table) -> list[tuple[bytes, bytes]]:
    with store.environment.read() as view:
        return [(key, bytes(value)) for key, value in view.iterate(table)]


def test_it_is_refused_while_a_mount_has_the_old_file(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD_OPEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        zero_page(path, page_of(path, Table.SNAPSHOT_IDS))
        before = (path / DATA_FILE).read_bytes()
        with pytest.raises(BusyError, match=r"is open in other processes .*; nothing was changed"):
            repair(path, RepairOptions(), unlock=unlock)
        assert (path / DATA_FILE).read_bytes() == before
        other.communicate()
    assert mend(path).is_whole


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_new_file_stays_whose_the_old_one_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero_page(path, page_of(path, Table.CHUNKS))
    os.chown(path / DATA_FILE, 65534, 65533)

    def refuse(*_arguments: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "fchown", refuse)
        with pytest.raises(StoreAccessError, match=r"belongs to another user.*; nothing was changed"):
            repair(path, RepairOptions(), unlock=unlock)
    assert mend(path).is_whole
    found = (path / DATA_FILE).stat()
    assert (found.st_uid, found.st_gid) == (65534, 65533)


def test_without_hard_links_the_old_file_is_on_the_disk_before_the_new_one_takes_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the only copy there is."""
    zero_page(path, page_of(path, Table.CHUNKS))
    before = (path / DATA_FILE).read_bytes()
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def link(*_paths: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def note_sync(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def note_replace(source: Path, target: Path) -> None:
        done.append("replaced" if target.name == DATA_FILE else "")
        replace(source, target)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    report = mend(path)
    assert report.pages is not None
    assert report.pages.kept_as is not None
    assert report.pages.kept_as.read_bytes() == before
    kept, folder, new, replaced = (done.index(name) for name in (report.pages.kept_as.name, path.name, DATA_FILE, "replaced"))
    assert kept < folder < new < replaced


@pytest.mark.parametrize(("fails", "says"), [(1, "nothing was changed"), (2, "nothing was changed"), (3, "took the place of the old one")])
def test_a_folder_that_cannot_be_synced_is_told_of_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch, fails: int, says: str) -> None:
    zero_page(path, page_of(path, Table.CHUNKS))
    before = (path / DATA_FILE).read_bytes()
    calls = 0

    def fail(_path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == fails:
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(repair_pages_module, "sync_folder", fail)
        with pytest.raises(StoreAccessError, match=says):
            repair(path, RepairOptions(), unlock=unlock)
    kept = list(path.glob("data.mdb.damaged-*"))
    assert ((path / DATA_FILE).read_bytes() == before) == (fails < 3)
    assert [one.read_bytes() for one in kept] == ([] if fails < 3 else [before])
    assert mend(path).is_whole


def test_who_comes_while_pages_are_repaired_is_refused_and_does_not_end_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that could open the store, and then waited for its lock, would keep the repair from having the store alone."""
    zero_page(path, page_of(path, Table.CHUNKS))
    refused: list[bool] = []

    @contextmanager
    def lock(path: Path) -> Iterator[None]:
        with pytest.raises(BusyError, match="compacted or repaired"):
            Store.open(path, unlock=unlock)
        refused.append(True)
        with lock_for_repair(path):
            yield

    monkeypatch.setattr(repair_module, "lock_for_repair", lock)
    assert mend(path).is_whole
    assert refused

# SPDX-License-Identifier: MIT
"""Stores: made once, opened by many, refused when they are something else; and the snapshots in them."""

import os
import shutil
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import lmdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.encrypted import unlock
from yester.core.chunking import ChunkParams
from yester.core.ids import ChunkId, SnapshotId, TreeId, chunk_id
from yester.core.records import RECORD_VERSION, UNTRUSTED, Entry, SeenDirectory, Snapshot, Tree, encode_tree
from yester.core.times import snapshot_name
from yester.errors import ConflictError, CorruptionError, FormatError, NotFoundError, StoreAccessError, SweptError, YesterError
from yester.store.lmdb import Table, WriteTransaction
from yester.store.parameters import FORMAT_VERSION
from yester.store.segments import Kind
from yester.store.snapshots import ForgottenSnapshot, Listing, StoredSnapshot, forget_seen_change, seen_change, snapshot_key
from yester.store.store import Store

T0_NS = 1_795_341_600 * 10**9
"""2026-11-22 10:00:00 UTC."""
SECOND_NS = 10**9


def add(store: Store, source: str = "docs", time_ns: int = T0_NS, **fields: object) -> StoredSnapshot:
    """Publish a snapshot of an empty folder."""
    with store.writer() as writer:
        tree = writer.add(Kind.TREE, encode_tree(Tree(RECORD_VERSION, {}, {}, ())))
    root = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0, tree)
    snapshot = Snapshot(RECORD_VERSION, source, "", time_ns, time_ns, root)
    return store.add_snapshot(msgspec.structs.replace(snapshot, **fields))


def names(snapshots: list[StoredSnapshot]) -> list[str]:
    return [stored.snapshot.name for stored in snapshots]


# --- making and opening -----------------------------------------------------------------------------------------------


def test_a_store_is_made_and_opened(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "store"
    with Store.create(path, chunking=ChunkParams(64, 256, 1024)) as store:
        parameters = store.parameters
        add(store)
    with Store.open(path) as store:
        assert store.parameters == parameters
        assert len(store.snapshots()) == 1
    assert parameters.chunking == ChunkParams(64, 256, 1024)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600, 0o700}


def test_stores_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a") as one, Store.create(tmp_path / "b") as other:
        assert one.parameters.store_id != other.parameters.store_id


def test_a_store_is_not_made_twice(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        add(store)
        parameters = store.parameters
    with pytest.raises(ConflictError, match="is a store already; nothing was changed"):
        Store.create(tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        assert (store.parameters, len(store.snapshots())) == (parameters, 1)


def test_a_store_is_not_made_among_other_things(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(ConflictError, match="not empty and is not a store; nothing was changed"):
        Store.create(tmp_path)
    with pytest.raises(ConflictError, match="is a file"):
        Store.create(tmp_path / "letter.txt")
    with pytest.raises((ConflictError, StoreAccessError)):
        Store.create(tmp_path / "letter.txt" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_store_can_be_made_in_an_empty_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    Store.create(tmp_path).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


@pytest.mark.parametrize("files", [[], ["data.mdb", "lock.mdb"], ["lock.mdb"], ["backup.lock"]])
def test_a_store_whose_making_was_interrupted_is_made_anew(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    if files:
        with pytest.raises(YesterError):
            Store.open(tmp_path)
    with Store.create(tmp_path) as store:
        add(store)


def test_making_that_was_interrupted_before_the_parameters_is_done_again(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=8) as environment:
        environment.open_db(Table.META.value)
    with pytest.raises(NotFoundError, match="interrupted") as caught:
        Store.open(tmp_path)
    assert "yester init" in caught.value.hint
    with Store.create(tmp_path) as store:
        add(store)


def test_two_that_make_the_same_store_make_one(tmp_path: Path) -> None:
    """In two processes at once: one makes it, the other is told so."""
    program = """
import sys
from pathlib import Path
from yester.errors import ConflictError
from yester.store.store import Store
sys.stdin.readline()
try:
    with Store.create(Path(sys.argv[1])) as store:
        print("made", store.parameters.store_id.hex())
except ConflictError:
    print("found")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for number in range(5):
        path = tmp_path / f"store{number}"
        makers = [
            subprocess.Popen(
                [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            for _ in range(2)
        ]
        for maker in makers:
            assert maker.stdin is not None
            maker.stdin.write("\n")
            maker.stdin.flush()
        said = sorted(maker.communicate()[0].split()[0] for maker in makers)
        assert said == ["found", "made"]
        Store.open(path).close()


@pytest.mark.parametrize(
    ("what", "error"), [("missing", NotFoundError), ("empty", NotFoundError), ("file", ConflictError), ("other", ConflictError)]
)
def test_what_is_no_store_is_not_opened(tmp_path: Path, what: str, error: type[YesterError]) -> None:
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_bytes(b"a file")
    elif what == "other":
        (path / "folder").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error) as caught:
        Store.open(path)
    assert os.fspath(path) in caught.value.message
    assert caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_a_foreign_database_is_not_opened(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as foreign:
        foreign.open_db(b"somebody's")
    for what in (Store.open, Store.create):
        with pytest.raises(ConflictError, match="nothing was changed"):
            what(tmp_path)


def test_a_newer_format_is_refused_before_anything_else_is_looked_at(store: Store) -> None:
    _set_parameters(store, msgspec.msgpack.encode([FORMAT_VERSION + 1, {"all": "different"}]))
    with pytest.raises(FormatError, match=f"reads up to {FORMAT_VERSION}; nothing was changed") as caught:
        Store.open(store.path)
    assert "newer yester" in caught.value.hint


@pytest.mark.parametrize(
    "record", [b"", b"\xc1", b"\x90", b"\x00", b"\x91\x01", b"\x93\x01\xc4\x00\x01\x93\x01\x02\x03", b"\x80", b"\x91\xa1x", b"\xc0"]
)
def test_damaged_parameters_are_told(store: Store, record: bytes) -> None:
    _set_parameters(store, record)
    with pytest.raises(CorruptionError, match="parameters of the store"):
        Store.open(store.path)


def _set_parameters(store: Store, record: bytes) -> None:
    store.environment.write(lambda transaction: transaction.put(Table.META, b"format", record))
    store.close()


def test_parameters_of_later_releases_are_read_as_far_as_they_are_known(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    fields = msgspec.msgpack.decode(store.environment.get(Table.META, b"format") or b"")
    _set_parameters(store, msgspec.msgpack.encode([*fields, "new field"]))
    with Store.open(store.path) as again:
        assert again.parameters == store.parameters


def test_a_cut_store_is_damaged_and_not_missing(store: Store) -> None:
    add(store)
    store.close()
    os.truncate(store.path / "data.mdb", (store.path / "data.mdb").stat().st_size - 4096)
    with pytest.raises(CorruptionError, match="cut short"):
        Store.open(store.path)


def test_a_store_can_be_read_from_a_read_only_copy(store: Store, tmp_path: Path) -> None:
    stored = add(store)
    store.close()
    shutil.copytree(store.path, tmp_path / "copy")
    with Store.open(tmp_path / "copy", readonly=True, unlock=unlock) as copy:
        assert copy.snapshots() == [stored]
        with pytest.raises(YesterError):
            add(copy)


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_snapshots_come_by_source_and_time(store: Store) -> None:
    for source, time_ns in (("b", 3), ("a", 5), ("b", 1), ("a b", 2), ("ab", 4), ("ä", 6), ("b", -7)):
        add(store, source, time_ns)
    assert store.sources() == ["a", "a b", "ab", "b", "ä"]
    assert [(stored.snapshot.source, stored.snapshot.time_ns) for stored in store.snapshots()] == [
        ("a", 5),
        ("a b", 2),
        ("ab", 4),
        ("b", -7),
        ("b", 1),
        ("b", 3),
        ("ä", 6),
    ]
    assert [stored.snapshot.time_ns for stored in store.snapshots("b")] == [-7, 1, 3]
    assert store.snapshots("nobody") == []


def test_the_newest_is_the_last(store: Store) -> None:
    assert store.latest_snapshot("docs") is None
    middle, newest, _ = add(store, time_ns=5), add(store, time_ns=9), add(store, time_ns=1)
    add(store, "docs2", 99)
    add(store, "doc", 99)
    assert store.latest_snapshot("docs") == newest
    assert store.snapshot_at("docs", 8) == middle
    assert store.snapshot_at("docs", 5) == middle
    assert store.snapshot_at("docs", 0) is None
    assert store.snapshot_at("docs", 10**30) == newest
    assert store.snapshot_at("docs", -(10**30)) is None


@given(times=st.lists(st.integers(-3, 3), min_size=1, max_size=8), asked=st.integers(-5, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_the_newest_at_a_time_is_as_in_a_list(store: Store, times: list[int], asked: int) -> None:
    source = f"source{store.snapshots_generation()}"
    for time_ns in times:
        add(store, source, time_ns)
    taken = [stored.snapshot.time_ns for stored in store.snapshots(source)]
    assert taken == sorted(set(taken))
    found = store.snapshot_at(source, asked)
    assert (found.snapshot.time_ns if found else None) == max((time_ns for time_ns in taken if time_ns <= asked), default=None)


def test_names_of_one_second_are_numbered(store: Store) -> None:
    base = snapshot_name(T0_NS)
    for time_ns in (T0_NS + 5, T0_NS + 5, T0_NS, T0_NS + SECOND_NS - 1, T0_NS + SECOND_NS, T0_NS - 1):
        add(store, time_ns=time_ns)
    add(store, "other")
    found = store.snapshots("docs")
    assert sorted(names(found)) == sorted(
        [snapshot_name(T0_NS - 1), base, f"{base}-2", f"{base}-3", f"{base}-4", snapshot_name(T0_NS + SECOND_NS)]
    )
    assert len({stored.snapshot.time_ns for stored in found}) == 6
    assert names(store.snapshots("other")) == [base]


def test_a_name_that_was_forgotten_may_be_given_again_but_no_two_have_the_same(store: Store) -> None:
    for _ in range(12):
        add(store)
    assert len(set(names(store.snapshots()))) == 12


def test_snapshots_are_found_by_the_start_of_their_ids(store: Store) -> None:
    stored = [add(store, time_ns=number) for number in range(50)]
    for one in stored:
        digits = one.id.hex()
        assert store.find_snapshots_by_id(digits) == [one]
        assert store.find_snapshots_by_id(digits.upper()[:20]) == [one]
    for prefix in ("0", "a", "7f"):
        found = {one.id for one in store.find_snapshots_by_id(prefix)}
        assert found == {one.id for one in stored if one.id.hex().startswith(prefix)}
    for nonsense in ("", "xyz", "0x12", " 12", "\uff11\uff12", stored[0].id.hex() + "0"):
        assert store.find_snapshots_by_id(nonsense) == []


def test_an_id_without_a_record_is_damage(store: Store) -> None:
    stored = add(store)
    store.environment.write(lambda transaction: transaction.delete(Table.SNAPSHOTS, snapshot_key(stored.snapshot)))
    with pytest.raises(CorruptionError, match="its record is not there"):
        store.find_snapshots_by_id(stored.id.hex())


def test_a_snapshot_without_its_root_is_not_published(store: Store) -> None:
    root = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0, chunk_id(b"nowhere"))
    with pytest.raises(SweptError, match="nothing was published"):
        store.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", 0, 0, root))
    assert (store.snapshots(), store.sources()) == ([], [])


def test_whoever_watches_the_generation_hears_of_new_snapshots(store: Store) -> None:
    before = store.snapshots_generation()
    with store.writer() as writer:
        writer.add(Kind.DATA, b"1")
    assert store.snapshots_generation() == before
    add(store)
    assert store.snapshots_generation() == before + 1


def test_snapshots_of_other_processes_are_seen(store: Store) -> None:
    program = """
import sys
from pathlib import Path
from tests.encrypted import unlock
from tests.store.test_store import add
from yester.store.store import Store
with Store.open(Path(sys.argv[1]), unlock=unlock) as store:
    add(store, "elsewhere")
"""
    root = os.fspath(Path(__file__).parent.parent.parent)
    subprocess.run(
        [sys.executable, "-c", program, store.path], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    )
    assert store.sources() == ["elsewhere"]


# --- what backups remember --------------------------------------------------------------------------------------------


def test_what_was_seen_is_remembered_by_source_and_path(store: Store) -> None:
    seen = _remember(store, "docs", b"a/b", b"tree")
    assert store.find_seen("docs", b"a/b") == seen
    assert store.find_seen("docs", b"a") is None
    assert store.find_seen("doc", b"sa/b") is None
    with store.writer() as writer:
        writer.after_trees(forget_seen_change("docs", b"a/b"))
        writer.after_trees(forget_seen_change("docs", b"never was"))
    assert store.find_seen("docs", b"a/b") is None


def test_what_was_seen_is_forgotten_with_its_tree(store: Store) -> None:
    """Else the next backup would take over what is not there any more."""
    seen = _remember(store, "docs", b"", b"tree")
    store.environment.write(lambda transaction: transaction.delete(Table.CHUNKS, seen.tree))
    assert store.find_seen("docs", b"") is None


def test_paths_may_be_longer_than_a_key(store: Store) -> None:
    path = b"/".join([b"x" * 255] * 100)
    seen = _remember(store, "docs", path, b"tree")
    assert store.find_seen("docs", path) == seen


def _remember(store: Store, source: str, path: bytes, tree: bytes) -> SeenDirectory:
    with store.writer() as writer:
        seen = SeenDirectory(RECORD_VERSION, TreeId(ChunkId(writer.add(Kind.TREE, tree))), (UNTRUSTED, (7, 8)), (b"user.x",))
        writer.after_trees(seen_change(source, path, seen))
    return seen


# --- the backup lock --------------------------------------------------------------------------------------------------


def test_the_backup_lock_is_held_by_one(store: Store) -> None:
    order: list[str] = []
    is_held = threading.Event()

    def note(holder: str) -> None:
        order.append(f"waits for {holder}")
        is_held.set()

    def wait() -> None:
        with store.backup_lock(note):
            order.append("second")

    with store.backup_lock(order.append):
        second = threading.Thread(target=wait)
        second.start()
        assert is_held.wait(10)
        order.append("first")
    second.join()
    assert order == [f"waits for process {os.getpid()}", "first", "second"]


def test_the_backup_lock_is_free_after_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.backup_lock(lambda _: None):
        raise ZeroDivisionError
    waits: list[str] = []
    with store.backup_lock(waits.append):
        assert waits == []


def test_reading_needs_no_lock(store: Store) -> None:
    with store.backup_lock(lambda _: None):
        assert store.snapshots() == []


@pytest.mark.expect_log("a snapshot of docs is left out")
@pytest.mark.parametrize("record", [b"", b"\xc1", b"\x93\x01\xc4\x00\x90", msgspec.msgpack.encode([99])])
def test_a_damaged_snapshot_does_not_hide_the_others(store: Store, record: bytes) -> None:
    first, second, third = (add(store, time_ns=T0_NS + number * SECOND_NS) for number in range(3))
    other = add(store, "other")
    for damaged, newest in ((second, third), (third, first)):
        store.environment.write(partial(WriteTransaction.put, table=Table.SNAPSHOTS, key=snapshot_key(damaged.snapshot), value=record))
        assert store.latest_snapshot("docs") == newest
        assert store.snapshot_at("docs", damaged.snapshot.time_ns) == first
        with pytest.raises((CorruptionError, FormatError)):
            store.find_snapshots_by_id(damaged.id.hex())
    assert store.snapshots() == [first, other]
    assert add(store, time_ns=T0_NS + SECOND_NS).snapshot.name == snapshot_name(T0_NS + SECOND_NS)


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "backup.lock"])
@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_a_file_of_the_store_that_leads_elsewhere_is_not_followed(tmp_path: Path, name: str, kind: str) -> None:
    """Somebody else may have put it there, to have this user's files overwritten."""
    store = tmp_path / "store"
    Store.create(store).close()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 10_000)
    (store / name).unlink(missing_ok=True)
    if kind == "symlink":
        (store / name).symlink_to(victim)
    else:
        os.mkfifo(store / name)
    for attempt in (Store.open, Store.create):
        with pytest.raises(ConflictError, match="is not a regular file"):
            attempt(store)
    assert victim.read_bytes() == b"precious" * 10_000


def test_a_store_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff \n")
    with Store.create(path) as store:
        add(store)
    with Store.open(path) as store:
        assert len(store.snapshots()) == 1


def test_a_path_that_cannot_be_a_store_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, match in ((tmp_path / "file/x", "below one"), (tmp_path / ("x" * 300), "too long"), (tmp_path / "dangling", "a symlink to")):
        with pytest.raises(YesterError, match=match):
            Store.open(path)
        with pytest.raises(YesterError):
            Store.create(path)


def test_a_store_whose_last_segment_has_an_impossible_number_is_damaged(store: Store) -> None:
    store.environment.write(lambda transaction: transaction.put(Table.SEGMENTS, b"\xff" * 9, b""))
    with pytest.raises(CorruptionError, match="impossible number"):
        add(store)


def test_a_forgotten_snapshot_is_listed_apart_and_comes_back_as_it_was(store: Store) -> None:
    first, second = (add(store, "a", time_ns) for time_ns in (1, 2))

    assert store.forget([first.id], now_ns=7) == [first]
    before = store.snapshots_generation()
    assert store.snapshots() == [second]
    assert store.find_snapshots_by_id(first.id.hex()) == []
    assert store.forgotten_snapshots() == [ForgottenSnapshot(first, 7, before)]
    assert store.forget([first.id], now_ns=8) == []

    assert store.undelete([first.id]) == [first]
    assert store.snapshots() == [first, second]
    assert store.find_snapshots_by_id(first.id.hex()) == [first]
    assert store.forgotten_snapshots() == []
    assert store.snapshots_generation() > before


def test_undeleting_what_is_not_forgotten_changes_nothing(store: Store) -> None:
    first, second = (add(store, "a", time_ns) for time_ns in (1, 2))
    store.forget([first.id], now_ns=7)

    with pytest.raises(NotFoundError, match="not among the forgotten ones"):
        store.undelete([first.id, second.id])

    assert store.snapshots() == [second]


def test_a_pinned_snapshot_cannot_be_forgotten_and_nor_can_others_with_it(store: Store) -> None:
    first, second = (add(store, "a", time_ns) for time_ns in (1, 2))
    store.pin(second.id, now_ns=5, message="the wedding")

    with pytest.raises(ConflictError, match="pinned"):
        store.forget([first.id, second.id], now_ns=7)

    assert store.snapshots() == [first, second]
    assert store.pins()[second.id].message == "the wedding"
    assert store.unpin(second.id)
    assert not store.unpin(second.id)
    assert store.forget([first.id, second.id], now_ns=7) == [first, second]


def test_what_is_not_there_cannot_be_pinned(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no snapshot"):
        store.pin(SnapshotId(bytes(32)), now_ns=5)


def test_a_new_snapshot_has_neither_time_nor_name_of_a_forgotten_one(store: Store) -> None:
    first = add(store, "a", 1)
    store.forget([first.id], now_ns=7)

    second = add(store, "a", 1)
    store.undelete([first.id])

    assert second.snapshot.time_ns == 2
    assert second.snapshot.name == f"{first.snapshot.name}-2"
    assert store.snapshots() == [first, second]


@pytest.mark.expect_log("the pin of snapshot")
def test_a_pin_that_cannot_be_read_is_a_pin_all_the_same(store: Store) -> None:
    stored = add(store, "a", 1)
    store.environment.write(lambda transaction: transaction.put(Table.PINS, stored.id, b"\xc1"))

    assert set(store.listing().pins) == set(store.pins()) == {stored.id}
    with pytest.raises(ConflictError, match="pinned"):
        store.forget([stored.id], now_ns=7)


def test_a_snapshot_whose_time_no_clock_has_can_be_forgotten_and_had_back(store: Store) -> None:
    odd = add(store, "a", 2**63)
    store.forget([odd.id], now_ns=7)
    assert store.forgotten_snapshots() == [ForgottenSnapshot(odd, 2**63 - 1, store.snapshots_generation())]
    assert store.undelete([odd.id]) == [odd]


def test_what_is_chosen_is_chosen_in_the_transaction_that_forgets_it(store: Store) -> None:
    first, second = (add(store, "a", time_ns) for time_ns in (1, 2))
    other = add(store, "b", 3)
    seen: list[Listing] = []

    def choose(listing: Listing) -> list[SnapshotId]:
        seen.append(listing)
        return [listing.snapshots[0].id]

    before = store.last_transaction()
    done = []
    assert store.forget_chosen(choose, source="a", now_ns=7, also=lambda _: done.append(store.last_transaction())) == [first]
    assert done == [before]
    assert seen == [Listing([first, second], {})]
    assert store.snapshots() == [second, other]

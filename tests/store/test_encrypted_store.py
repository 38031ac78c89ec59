# SPDX-License-Identifier: MIT
"""An encrypted store as somebody without its key sees it, and what he can do to it."""

import os
from pathlib import Path

import pytest

from tests.encrypted import create_encrypted, open_encrypted
from tests.store.test_store import T0_NS, add
from tests.store.test_summary import meddle, rows
from yester.core.extents import Extent
from yester.core.ids import ChunkId, TreeId, chunk_id
from yester.core.node_row import decode_row
from yester.core.records import RECORD_VERSION, SeenDirectory, decode_snapshot
from yester.errors import CorruptionError
from yester.store.chunks import segment_key
from yester.store.datafile import DATA_FILE
from yester.store.live import LIVE_VERSION, LiveChange, LiveFolders, LiveHead
from yester.store.lmdb import Table
from yester.store.segments import Kind
from yester.store.snapshots import seen_change, snapshot_key
from yester.store.store import Store

MARK = b"planted mark"
LONG = bytes(range(251)) * 5000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with something in every table, and a mark in everything that has a name or content."""
    path = tmp_path / "store"
    text = MARK.decode()
    with create_encrypted(path) as store:
        with store.writer() as writer:
            writer.add(Kind.DATA, MARK * 100)
            writer.add(Kind.DATA, MARK + os.urandom(1 << 20))  # does not compress
            tree = writer.add(Kind.TREE, b"T" + MARK * 10)
            writer.after_trees(seen_change(text, MARK, SeenDirectory(RECORD_VERSION, TreeId(tree), (), (MARK,))))
        one, two = (add(store, text, T0_NS + number, message=text) for number in range(2))
        store.pin(one.id, now_ns=1, message=text)
        store.forget([two.id], now_ns=1)
        folders = LiveFolders(store.environment)
        folders.create(text, next_node=2, nodes={1: MARK})
        head = LiveHead(LIVE_VERSION, 1, 3, 2)
        extents = {(2, 0): Extent(0, len(LONG), 1, 0)}
        folders.apply(text, LiveChange(head, {2: MARK}, {(1, MARK): 2}, extents, {1: (MARK * 5, LONG[len(MARK) * 5 :])}))
        store.environment.write(lambda transaction: transaction.put(Table.DAMAGED, bytes(32), MARK))
        with store.environment.read() as view:
            assert all(view.count(table) for table in Table), "every table has a row: else add one here"
    return path


def test_nothing_of_names_and_content_is_in_the_file(path: Path) -> None:
    data = (path / DATA_FILE).read_bytes()
    for mark in (MARK, MARK[:8], LONG[100:116], chunk_id(MARK * 100)):
        assert mark not in data
    with Store.create(path.with_name("plain")) as plain:
        add(plain, MARK.decode())
    assert MARK in (path.with_name("plain") / DATA_FILE).read_bytes(), "it would be found"


def test_all_of_it_comes_back(path: Path) -> None:
    with open_encrypted(path) as store:
        text = MARK.decode()
        [stored] = store.snapshots()
        assert (store.sources(), stored.snapshot.message) == ([text], text)
        assert [forgotten.stored.snapshot.source for forgotten in store.forgotten_snapshots()] == [text]
        assert store.pins()[stored.id].message == text
        seen = store.find_seen(text, MARK)
        assert seen is not None
        assert seen.xattr_names == (MARK,)
        folders = LiveFolders(store.environment)
        assert folders.names() == [text]
        live = folders.load(text)
        assert (live.nodes, live.names, live.batch_bytes) == ({1: MARK, 2: MARK}, {(1, MARK): 2}, {1: len(LONG)})
        assert folders.read(live.head, Extent(100_000, 70_000, 1, 100_000)) == LONG[100_000:170_000]
        assert bytes(store.reader().read(store.chunk_id(MARK * 100))) == MARK * 100


def test_segments_that_changed_places_are_refused(path: Path) -> None:
    """The ids say what each has to be, wherever it is."""
    segments = rows(path, Table.SEGMENTS)
    one, two = sorted(segments)[:2]
    meddle(path, Table.SEGMENTS, one, segments[two])
    meddle(path, Table.SEGMENTS, two, segments[one])
    with open_encrypted(path) as store:
        for _, chunk in _chunks(store):
            with pytest.raises(CorruptionError):
                store.reader().read(chunk)


def test_a_segment_of_another_store_is_refused(path: Path, tmp_path: Path) -> None:
    with create_encrypted(tmp_path / "other") as other, other.writer() as writer:
        writer.add(Kind.DATA, MARK * 100)
    meddle(path, Table.SEGMENTS, segment_key(1), rows(tmp_path / "other", Table.SEGMENTS)[segment_key(1)])
    with open_encrypted(path) as store, pytest.raises(CorruptionError):
        store.reader().read(store.chunk_id(MARK * 100))


def test_a_plain_segment_is_refused(path: Path, tmp_path: Path) -> None:
    with Store.create(tmp_path / "other") as other, other.writer() as writer:
        writer.add(Kind.DATA, MARK * 100)
    meddle(path, Table.SEGMENTS, segment_key(1), rows(tmp_path / "other", Table.SEGMENTS)[segment_key(1)])
    with open_encrypted(path) as store, pytest.raises(CorruptionError, match="not encrypted as the store is"):
        store.reader().read(store.chunk_id(MARK * 100))


def test_an_index_that_leads_elsewhere_gives_no_other_bytes(path: Path) -> None:
    index = rows(path, Table.CHUNKS)
    one, *_, other = sorted(index)
    meddle(path, Table.CHUNKS, one, index[other])
    with open_encrypted(path) as store, pytest.raises(CorruptionError):
        store.reader().read(ChunkId(one))


@pytest.mark.expect_log
def test_a_snapshot_moved_to_another_time_is_refused(path: Path) -> None:
    """A later one is the newest: so an old version could be made to look like it."""
    [(key, value)] = rows(path, Table.SNAPSHOTS).items()
    later = key[:-8] + (int.from_bytes(key[-8:], "big") + 10**15).to_bytes(8, "big")
    meddle(path, Table.SNAPSHOTS, later, value)
    with open_encrypted(path) as store:
        latest = store.latest_snapshot(MARK.decode())
        assert latest is not None
        assert latest.snapshot.time_ns == T0_NS
        assert "not those that were recorded" in store.snapshots_problem()


@pytest.mark.expect_log
def test_a_forgotten_snapshot_is_no_snapshot_for_being_moved(path: Path) -> None:
    [(key, value)] = rows(path, Table.FORGOTTEN).items()
    meddle(path, Table.SNAPSHOTS, key, value)
    with open_encrypted(path) as store:
        assert len(store.snapshots()) == 1


@pytest.mark.expect_log
def test_a_snapshot_that_somebody_made_up_is_refused(path: Path) -> None:
    with open_encrypted(path) as store:
        [stored] = store.snapshots()
        with store.environment.read() as view:
            record = bytes(view.get(Table.SNAPSHOTS, snapshot_key(stored.snapshot)) or b"")
    assert decode_snapshot(record) == stored.snapshot
    meddle(path, Table.SNAPSHOTS, b"made up\0" + bytes(8), record)
    with open_encrypted(path) as store:
        assert store.snapshots() == [stored]


@pytest.mark.parametrize("table", [Table.LIVE_NODES, Table.LIVE_NAMES, Table.LIVE_EXTENTS, Table.LIVE_BATCHES, Table.LIVE_FOLDERS])
def test_a_row_of_a_live_folder_that_was_changed_is_an_error(path: Path, table: Table) -> None:
    key, value = max(rows(path, table).items())
    meddle(path, table, key, value[:-1] + bytes([value[-1] ^ 1]))
    with open_encrypted(path) as store, pytest.raises(CorruptionError):
        _read_live_folder(store)


def test_files_are_cut_elsewhere_in_every_store(tmp_path: Path) -> None:
    chunkings = []
    for name in "ab":
        with create_encrypted(tmp_path / name) as store:
            chunkings.append(store.chunking)
    with open_encrypted(tmp_path / "a") as store:
        assert store.chunking == chunkings[0]
    assert chunkings[0] != chunkings[1]
    assert "seed" not in repr(chunkings[0])


def _chunks(store: Store) -> list[tuple[bytes, ChunkId]]:
    """Chunks of the first two segments."""
    with store.environment.read() as view:
        found = [(bytes(value), ChunkId(key)) for key, value in view.iterate(Table.CHUNKS)]
    return [(value, chunk) for value, chunk in found if int.from_bytes(value, "little") >> 16 <= 2]


def _read_live_folder(store: Store) -> None:
    folders = LiveFolders(store.environment)
    live = folders.load(MARK.decode())
    for number, row in live.nodes.items():
        if row != MARK:
            decode_row(number, row)
    folders.read(live.head, Extent(0, len(LONG), 1, 0))

# SPDX-License-Identifier: MIT
"""The summary of snapshots: a row that was taken away, or put back as it was, is noticed; what the store itself does is not."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.encrypted import create_encrypted, open_encrypted
from tests.store.test_store import SECOND_NS, T0_NS, add
from yester.core.ids import SnapshotId
from yester.store.lmdb import Environment, Table
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store
from yester.store.summary import SUMMARY_KEY

PROBLEM = "are not those that were recorded"
pytestmark = pytest.mark.expect_log(PROBLEM)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with create_encrypted(tmp_path / "store") as store:
        yield store


def three(store: Store) -> list[StoredSnapshot]:
    return [add(store, time_ns=T0_NS + number * SECOND_NS) for number in range(3)]


def rows(path: Path, table: Table) -> dict[bytes, bytes]:
    """As they are stored: what somebody without the key sees."""
    with Environment(path) as environment, environment.read() as view:
        return {key: bytes(value) for key, value in view.iterate_stored(table)}


def meddle(path: Path, table: Table, key: bytes, value: bytes | None) -> None:
    """Change a row as somebody without the key can."""
    with Environment(path) as environment:
        if value is None:
            environment.write(lambda transaction: transaction.delete(table, key))
        else:
            environment.write(lambda transaction: transaction.put(table, key, value))


def test_what_the_store_does_itself_is_right(store: Store) -> None:
    one, two, three_ = three(store)
    seen = [store.changes()]
    store.pin(one.id, now_ns=1)
    store.forget([two.id, three_.id], now_ns=1)
    store.undelete([two.id])
    store.unpin(one.id)
    store.unpin(one.id)
    seen.append(store.changes())
    assert store.snapshots_problem() == ""
    assert seen == sorted(seen)
    store.close()
    with open_encrypted(store.path) as again:
        assert (again.snapshots_problem(), again.changes()) == ("", seen[-1])


def test_a_snapshot_that_was_taken_away_is_missed(store: Store) -> None:
    three(store)
    store.close()
    meddle(store.path, Table.SNAPSHOTS, min(rows(store.path, Table.SNAPSHOTS)), None)
    _is_told(store.path)


def test_a_forgotten_snapshot_that_was_put_back_is_noticed(store: Store) -> None:
    """Both rows, as an older copy of the store has them."""
    one, *_ = three(store)
    store.close()
    before = rows(store.path, Table.SNAPSHOTS), rows(store.path, Table.SNAPSHOT_IDS)
    with open_encrypted(store.path) as again:
        again.forget([one.id], now_ns=1)
    after = rows(store.path, Table.SNAPSHOTS), rows(store.path, Table.SNAPSHOT_IDS)
    for table, old, new in zip((Table.SNAPSHOTS, Table.SNAPSHOT_IDS), before, after, strict=True):
        [key] = old.keys() - new.keys()
        meddle(store.path, table, key, old[key])
    _is_told(store.path)


def test_a_pin_that_was_taken_away_is_missed(store: Store) -> None:
    one, *_ = three(store)
    store.pin(one.id, now_ns=1)
    store.close()
    meddle(store.path, Table.PINS, one.id, None)
    _is_told(store.path)


def test_an_older_summary_does_not_hide_it(store: Store) -> None:
    """A summary that was put back with an older copy of the rows is right; with only some of them it is not."""
    one, *_ = three(store)
    store.close()
    summary, snapshots = rows(store.path, Table.META)[SUMMARY_KEY], rows(store.path, Table.SNAPSHOTS)
    with open_encrypted(store.path) as again:
        again.forget([one.id], now_ns=1)
        add(again, time_ns=T0_NS + 99 * SECOND_NS)
    meddle(store.path, Table.META, SUMMARY_KEY, summary)
    for key, value in snapshots.items():
        meddle(store.path, Table.SNAPSHOTS, key, value)
    _is_told(store.path)


@pytest.mark.parametrize("value", [None, b"", b"x" * 80])
def test_a_summary_that_is_lost_is_told_and_stays_lost_until_somebody_decides(store: Store, value: bytes | None) -> None:
    store.close()
    meddle(store.path, Table.META, SUMMARY_KEY, value)
    with open_encrypted(store.path) as again:
        three(again)
        assert PROBLEM in again.snapshots_problem()
        again.accept_snapshots()
        assert again.snapshots_problem() == ""
        assert len(again.snapshots()) == 3


def test_what_was_accepted_counts_on(store: Store) -> None:
    three(store)
    before = store.changes()
    store.close()
    meddle(store.path, Table.SNAPSHOTS, min(rows(store.path, Table.SNAPSHOTS)), None)
    with open_encrypted(store.path) as again:
        again.accept_snapshots()
        assert again.changes() > before


def test_the_whole_store_put_back_has_fewer_changes(store: Store, tmp_path: Path) -> None:
    three(store)
    store.close()
    shutil.copytree(store.path, tmp_path / "older")
    with open_encrypted(store.path) as again:
        add(again, time_ns=T0_NS + 99 * SECOND_NS)
        newer = again.changes()
    with open_encrypted(tmp_path / "older") as older:
        assert older.snapshots_problem() == ""
        assert older.changes() < newer


def test_a_plain_store_has_no_summary(tmp_path: Path) -> None:
    with Store.create(tmp_path / "plain") as store:
        three(store)
        assert (store.snapshots_problem(), store.changes()) == ("", 0)
        store.unpin(SnapshotId(bytes(32)))
        store.accept_snapshots()
        assert store.environment.get(Table.META, SUMMARY_KEY) is None


def _is_told(path: Path) -> None:
    with open_encrypted(path) as store:
        assert PROBLEM in store.snapshots_problem()

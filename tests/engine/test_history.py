# SPDX-License-Identifier: MIT
"""The versions of a path."""

import pytest

from tests.engine.planting import DAY_NS, T0_NS, File, Folder, Plan, publish
from tests.engine.sandbox import MakeStore
from yester.core.ids import TreeId
from yester.core.records import Entry, Tree
from yester.engine.files import FileReader
from yester.engine.history import file_history
from yester.engine.trees import TreeReader
from yester.errors import CorruptionError
from yester.store.lmdb import Table, WriteTransaction
from yester.store.store import Store


class CountingTrees(TreeReader):
    """Notes which trees are asked for, and refuses some."""

    def __init__(self, store: Store, *, damaged: frozenset[TreeId] = frozenset()) -> None:
        super().__init__(store.reader())
        self.asked: list[TreeId] = []
        self.damaged = damaged

    def read(self, tree: TreeId) -> Tree:
        self.asked.append(tree)
        if tree in self.damaged:
            message = "it is damaged"
            raise CorruptionError(message)
        return super().read(tree)


def history(store: Store, path: bytes) -> list[tuple[bytes | None, int, int, int]]:
    """Each version's content or None, the days of its first and last snapshot, and how many there are."""
    return [
        (_data(store, version.entry), _day(version.first.snapshot.time_ns), _day(version.last.snapshot.time_ns), version.count)
        for version in file_history(store, TreeReader(store.reader()), "docs", path)
    ]


def _data(store: Store, entry: Entry | None) -> bytes | None:
    return None if entry is None else bytes(FileReader(store.reader(), entry.file_content, entry.size).read(0, entry.size))


def _day(time_ns: int) -> int:
    return (time_ns - T0_NS) // DAY_NS


def test_unchanged_runs_are_folded_and_deletions_shown(store: Store) -> None:
    plans: list[Plan] = [{}, {"a": b"1"}, {"a": b"1", "b": b""}, {"a": b"2"}, {}, {"x": b""}, {"a": b"1"}, {"a": b"1"}]
    for plan in plans:
        publish(store, plan)
    assert history(store, b"a") == [(b"1", 1, 2, 2), (b"2", 3, 3, 1), (None, 4, 5, 2), (b"1", 6, 7, 2)]


def test_a_path_that_never_was_has_no_history(store: Store) -> None:
    publish(store, {"a": b"1", "d": {}})
    assert history(store, b"b") == []
    assert history(store, b"a/b") == []
    assert history(store, b"d/b/c") == []
    assert file_history(store, TreeReader(store.reader()), "nobody", b"a") == ()


def test_metadata_makes_a_version_but_an_access_time_does_not(store: Store) -> None:
    publish(store, {"a": b"1"})
    publish(store, {"a": File(b"1", mode=0o600)})
    publish(store, {"a": File(b"1", mode=0o600, mtime_ns=T0_NS + 1)})
    assert [version[1:] for version in history(store, b"a")] == [(0, 0, 1), (1, 1, 1), (2, 2, 1)]


def test_a_folder_changes_with_what_it_holds_alone(store: Store) -> None:
    for plan in ({"d": {"a": b"1"}}, {"d": Folder({"a": b"1"}, mtime_ns=T0_NS + 1)}, {"d": {"a": b"2"}}, {"d": b"now a file"}):
        publish(store, plan)
    versions = file_history(store, TreeReader(store.reader()), "docs", b"d")
    assert [(version.count, _day(version.first.snapshot.time_ns)) for version in versions] == [(2, 0), (1, 2), (1, 3)]
    assert [version[1:] for version in history(store, b"d/a")] == [(0, 1, 2), (2, 2, 1), (3, 3, 1)]


def test_the_root_has_a_history(store: Store) -> None:
    for plan in ({"a": b"1"}, {"a": b"1"}, {}):
        publish(store, plan)
    assert [version.count for version in file_history(store, TreeReader(store.reader()), "docs", b"")] == [2, 1]


def test_each_folder_on_the_way_is_read_once(store: Store) -> None:
    """However often snapshots go back to it, or change beside it."""
    for number in range(20):
        publish(store, {"beside": b"%d" % (number % 4), "d": {"e": {"a": b"%d" % (number // 10)}, "f": b"%d" % (number % 3)}})
    trees = CountingTrees(store)
    versions = file_history(store, trees, "docs", b"d/e/a")
    assert [version.count for version in versions] == [10, 10]
    assert len(trees.asked) == len(set(trees.asked))


@pytest.mark.expect_log("docs@2026-11-23_10-00-00 is left out of the history of a: it is damaged")
def test_a_snapshot_with_damage_on_the_way_is_left_out(store: Store) -> None:
    """It is no deletion, and it does not hide the other versions."""
    middle = [publish(store, {"a": b"1", "n": b"%d" % number}) for number in range(3)][1]
    trees = CountingTrees(store, damaged=frozenset({middle.snapshot.root.tree}))
    assert [version.count for version in file_history(store, trees, "docs", b"a")] == [2]


@pytest.mark.expect_log("is left out of the history")
def test_a_missing_tree_is_damage_and_not_a_deletion(make_store: MakeStore) -> None:
    store = make_store(may_be_damaged=True)
    gone = publish(store, {"a": b"1"})
    publish(store, {"a": b"1", "b": b""})

    def drop(transaction: WriteTransaction) -> None:
        transaction.delete(Table.CHUNKS, gone.snapshot.root.content)

    store.environment.write(drop)
    assert [version.count for version in file_history(store, TreeReader(store.reader()), "docs", b"a")] == [1]

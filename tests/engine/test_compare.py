# SPDX-License-Identifier: MIT
"""What differs between two entries."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from tests.engine.planting import T0_NS, File, Folder, Plan, plant, plant_deep
from tests.engine.test_walk import ROOTS, flatten
from yester.core.ids import TreeId
from yester.core.records import Entry, Tree
from yester.core.treediff import ChangeKind
from yester.engine.compare import compare
from yester.engine.trees import TreeReader
from yester.errors import CorruptionError
from yester.store.store import Store


def differences(store: Store, old: Plan, new: Plan) -> list[tuple[str, str]]:
    return [(found.path.decode(), found.kind.value) for found in compare(TreeReader(store.reader()), plant(store, old), plant(store, new))]


def test_every_kind_of_difference_is_told(store: Store) -> None:
    old: Plan = {"same": b"1", "gone": b"1", "data": b"1", "mode": b"1", "kind": b"1", "link": "a", "d": {"x": b"1"}}
    new: Plan = {
        "same": b"1",
        "data": b"2",
        "mode": File(b"1", mode=0o600),
        "kind": {},
        "link": "b",
        "d": {"x": b"2", "y": b""},
        "new": b"",
    }
    assert differences(store, old, new) == [
        ("d/x", "content"),
        ("d/y", "added"),
        ("data", "content"),
        ("gone", "removed"),
        ("kind", "type"),
        ("link", "content"),
        ("mode", "metadata"),
        ("new", "added"),
    ]


def test_folders_come_and_go_with_all_they_hold(store: Store) -> None:
    folder: Plan = {"d": {"e": {"x": b""}, "y": b""}}
    paths = ["d", "d/e", "d/e/x", "d/y"]
    assert differences(store, {}, folder) == [(path, "added") for path in paths]
    assert differences(store, folder, {}) == [(path, "removed") for path in paths]
    assert differences(store, folder, {"d": b"a file"}) == [("d", "type"), *((path, "removed") for path in paths[1:])]
    assert differences(store, {"d": b"a file"}, folder) == [("d", "type"), *((path, "added") for path in paths[1:])]


def test_a_folder_differs_only_if_it_does_itself(store: Store) -> None:
    assert differences(store, {"d": {"x": b"1"}}, {"d": Folder({"x": b"1"}, mtime_ns=T0_NS + 1)}) == []
    assert differences(store, {"d": {"x": b"1"}}, {"d": Folder({"x": b"2"}, mode=0o700)}) == [("d", "metadata"), ("d/x", "content")]
    assert differences(store, Folder({}, mode=0o700), {"x": b""}) == [("", "metadata"), ("x", "added")]


def test_files_can_be_compared(store: Store) -> None:
    assert differences(store, b"1", b"1") == []
    assert differences(store, b"1", b"2") == [("", "content")]
    assert differences(store, b"1", {"x": b""}) == [("", "type"), ("x", "added")]


def test_names_and_access_times_of_what_is_compared_do_not_matter(store: Store) -> None:
    entry = plant(store, b"1")
    other = msgspec.structs.replace(entry, name=b"other", atime_ns=1)
    assert list(compare(TreeReader(store.reader()), entry, other)) == []


def test_paths_are_sorted_by_components(store: Store) -> None:
    found = differences(store, {}, {"a": {"z": b""}, "a.b": b"", "a-b": b"", "b": b""})
    assert [path for path, _ in found] == ["a", "a/z", "a-b", "a.b", "b"]


@given(old=ROOTS.map(lambda plans: plans[0]), new=ROOTS.map(lambda plans: plans[0]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
def test_differences_turn_the_old_into_the_new(store: Store, old: Plan, new: Plan) -> None:
    trees = TreeReader(store.reader())
    old_root, new_root = plant(store, old), plant(store, new)
    before, after = flatten(trees, old_root.tree), flatten(trees, new_root.tree)
    found = list(compare(trees, old_root, new_root))
    assert [difference.path for difference in found] == sorted((difference.path for difference in found), key=lambda path: path.split(b"/"))
    for difference in found:
        assert (difference.old, difference.new) == (before.get(difference.path), after.get(difference.path))
        if difference.kind is ChangeKind.REMOVED:
            del before[difference.path]
        else:
            assert difference.new is not None
            before[difference.path] = difference.new
    assert _without_folder_ids(before) == _without_folder_ids(after)


def _without_folder_ids(entries: dict[bytes, Entry]) -> dict[bytes, Entry]:
    return {path: entry if entry.size else msgspec.structs.replace(entry, content=b"") for path, entry in entries.items()}


def test_equal_folders_are_not_read(store: Store) -> None:
    reads: list[TreeId] = []

    class CountingTrees(TreeReader):
        def read(self, tree: TreeId) -> Tree:
            reads.append(tree)
            return super().read(tree)

    old, new = (
        plant(store, {"same": {"x": b""}, "d": {"e": {"y": b""}, "z": b""}}),
        plant(store, {"same": {"x": b""}, "d": {"e": {"y": b""}}}),
    )
    assert len(list(compare(CountingTrees(store.reader()), old, new))) == 1
    assert len(reads) == 4
    reads.clear()
    assert list(compare(CountingTrees(store.reader()), old, old)) == []
    assert reads == []


def test_depth_is_no_limit(store: Store) -> None:
    empty, deep = plant(store, {}), plant_deep(store, 2000)
    assert sum(1 for _ in compare(TreeReader(store.reader()), empty, deep)) == 2001


@pytest.mark.expect_log("the folder d is left out: it is damaged")
def test_a_damaged_folder_does_not_hide_other_differences(store: Store) -> None:
    old, new = plant(store, {"d": {"x": b"1"}, "e": b"1"}), plant(store, {"d": {"x": b"2"}, "e": b"2"})
    damaged = TreeReader(store.reader()).get(new, b"d").tree

    class DamagedTrees(TreeReader):
        def read(self, tree: TreeId) -> Tree:
            if tree == damaged:
                message = "it is damaged"
                raise CorruptionError(message)
            return super().read(tree)

    assert [found.path for found in compare(DamagedTrees(store.reader()), old, new)] == [b"e"]

# SPDX-License-Identifier: MIT
"""Rewinding, and beginning as a snapshot was: in the end all is as it was then, and little was done for it."""

import random
import stat

import pytest

from tests.fs.live_folder import LiveSandbox, Shape, do_something, new_file, snapshot_shapes, stored_shapes
from yester.core.records import Entry
from yester.engine.trees import TreeReader
from yester.fs.live_nodes import ROOT, NewNode
from yester.fs.live_start import start_from
from yester.fs.rewind import Rewind, Touched


def rewind(mine: LiveSandbox, root: Entry, path: bytes = b"") -> list[Touched]:
    return [step for step in Rewind(mine.tree, TreeReader(mine.store.reader())).run(root, path) if step is not None]


def without_root(shapes: dict[bytes, Shape]) -> dict[bytes, tuple[object, ...]]:
    """By path, with hard links told by the first of their names: numbers are new ones. The root keeps its times."""
    first: dict[int, bytes] = {}
    for path, shape in sorted(shapes.items()):
        first.setdefault(shape[1], path)
    return {path: (shape[0], first[shape[1]] if shape[1] else b"", *shape[2:]) for path, shape in shapes.items() if path}


def publish(mine: LiveSandbox) -> tuple[Entry, dict[bytes, Shape]]:
    shapes = snapshot_shapes(mine)
    mine.publish()
    latest = mine.store.latest_snapshot("live/mine")
    assert latest is not None
    assert stored_shapes(mine.store, latest.snapshot.root) == shapes
    return latest.snapshot.root, shapes


@pytest.mark.parametrize("seed", range(25))
def test_after_rewinding_all_is_as_it_was(mine: LiveSandbox, seed: int) -> None:
    rng = random.Random(seed)
    found = []
    for _ in range(4):
        for _ in range(rng.randrange(60)):
            do_something(mine, rng)
        found.append(publish(mine))
    for _ in range(rng.randrange(40)):
        do_something(mine, rng)
    for root, shapes in rng.sample(found, len(found)):
        rewind(mine, root)
        assert without_root(snapshot_shapes(mine)) == without_root(shapes)
        again, _ = publish(mine)
        assert without_root(stored_shapes(mine.store, again)) == without_root(shapes)
    mine.load()
    assert without_root(snapshot_shapes(mine)) == without_root(shapes)


def test_what_is_the_same_is_not_touched(mine: LiveSandbox) -> None:
    for number in range(20):
        folder = mine.tree.create(ROOT, b"%d" % number, NewNode(stat.S_IFDIR | 0o755, 0, 0))
        new_file(mine, b"file", b"x", parent=folder.number)
    root, _ = publish(mine)
    changed = mine.tree.lookup(mine.tree.lookup(ROOT, b"7").number, b"file")
    mine.tree.write(changed.number, 0, b"changed")
    touched = rewind(mine, root)
    assert {step.node for step in touched} == {changed.number}
    assert mine.tree.lookup(mine.tree.lookup(ROOT, b"7").number, b"file").number == changed.number, "it is the same file"
    publish(mine)
    assert rewind(mine, root) == []


def test_names_of_one_file_far_apart_are_one_again(mine: LiveSandbox) -> None:
    file = new_file(mine, b"a", b"one")
    mine.tree.link(file.number, ROOT, b"z")
    for number in range(1200):
        new_file(mine, b"m%d" % number)
    root, _ = publish(mine)
    mine.load()
    assert rewind(mine, root) == [], "nothing differs"
    mine.tree.unlink(ROOT, b"z")
    publish(mine)
    mine.load()
    rewind(mine, root)
    assert mine.tree.lookup(ROOT, b"a").number == mine.tree.lookup(ROOT, b"z").number


def test_others_have_a_turn_while_nothing_has_to_be_done(mine: LiveSandbox) -> None:
    for number in range(3000):
        new_file(mine, b"m%d" % number)
    root, _ = publish(mine)
    new_file(mine, b"more")
    steps = list(Rewind(mine.tree, TreeReader(mine.store.reader())).run(root, b""))
    assert steps.count(None) >= 30


def test_one_path_is_rewound_and_nothing_else(mine: LiveSandbox) -> None:
    folder = mine.tree.create(ROOT, b"folder", NewNode(stat.S_IFDIR | 0o750, 3, 4))
    for name in (b"a", b"b"):
        new_file(mine, name, b"old " + name, parent=folder.number)
    new_file(mine, b"c", b"old c")
    root, _ = publish(mine)
    for name in (b"a", b"b"):
        mine.tree.unlink(folder.number, name)
    mine.tree.rmdir(ROOT, b"folder")
    new_file(mine, b"folder", b"a file is in the way")
    mine.tree.write(mine.tree.lookup(ROOT, b"c").number, 0, b"new")
    rewind(mine, root, b"folder/a")
    found = snapshot_shapes(mine)
    assert set(found) == {b"", b"/folder", b"/folder/a", b"/c"}
    assert (found[b"/folder/a"][5], found[b"/c"][5], found[b"/folder"][0]) == (b"old a", b"new c", stat.S_IFDIR | 0o750)
    rewind(mine, root, b"nothing/there")
    rewind(mine, root, b"new")
    assert snapshot_shapes(mine) == found


def test_folders_may_be_nested_deeper_than_calls(mine: LiveSandbox) -> None:
    empty, _ = publish(mine)
    number: int = ROOT
    for _ in range(1500):
        number = mine.tree.create(number, b"d", NewNode(stat.S_IFDIR | 0o755, 0, 0)).number
    mine.publish()
    deep = mine.store.latest_snapshot("live/mine")
    assert deep is not None
    rewind(mine, empty)
    assert mine.tree.names(ROOT) == []
    rewind(mine, deep.snapshot.root)
    assert sum(1 for _ in mine.walk()) == 1501


def test_what_was_made_since_is_removed(mine: LiveSandbox) -> None:
    root, _ = publish(mine)
    folder = mine.tree.create(ROOT, b"folder", NewNode(stat.S_IFDIR | 0o755, 0, 0))
    new_file(mine, b"below", b"x", parent=folder.number)
    trash = mine.tree.create(ROOT, b".Trash-0", NewNode(stat.S_IFDIR | 0o700, 0, 0))
    new_file(mine, b"deleted", b"x", parent=trash.number)
    rewind(mine, root, b"folder")
    assert mine.tree.names(ROOT) == [b".Trash-0"]
    rewind(mine, root)
    assert mine.tree.names(trash.number) == [b"deleted"]


@pytest.mark.parametrize("seed", range(15))
def test_a_folder_that_begins_as_a_snapshot_was_is_that(mine: LiveSandbox, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(rng.randrange(200)):
        do_something(mine, rng)
    root, shapes = publish(mine)
    next_node, nodes = start_from(mine.store, root, now_ns=5)
    mine.folders.create("other", next_node=next_node, nodes=nodes)
    old_ids = {found.node_id for _, found in mine.walk()}
    mine.load("other")
    assert without_root(snapshot_shapes(mine)) == without_root(shapes)
    walked = dict(mine.walk())
    assert {node.node_id for node in walked.values()}.isdisjoint(old_ids), "it is another folder"
    numbers = {node.number for node in walked.values()}
    assert max(numbers) < next_node
    linked = [node for node in walked.values() if not node.is_folder and node.nlink > 1]
    assert mine.tree._inodes.rows <= {ROOT, *(node.number for node in linked)} | {n.number for n in walked.values() if n.is_folder}
    for _ in range(50):
        do_something(mine, rng)
    expected = snapshot_shapes(mine)
    cut = mine.tree.begin_version()
    if cut is not None:
        change = mine.tree.take_change()
        assert change is not None
        mine.folders.apply("other", change)
        mine.tree.committed(change)
        assert without_root(stored_shapes(mine.store, mine.store_version(cut).root)) == without_root(expected)

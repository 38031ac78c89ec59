# SPDX-License-Identifier: MIT
"""Walking many snapshots at once, against walking each alone."""

import stat
from collections.abc import Iterable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.planting import Plan, plant, plant_deep
from yester.core.ids import TreeId
from yester.core.records import Entry
from yester.engine.trees import TreeReader
from yester.engine.walk import Run, walk_snapshots
from yester.store.store import Store

NAMES = st.sampled_from(["a", "b", "b.c", "c"])
PLANS = st.recursive(st.sampled_from([b"1", b"2"]), lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=8)
ROOTS = st.lists(st.dictionaries(NAMES, PLANS, max_size=3), min_size=1, max_size=6)


def flatten(trees: TreeReader, tree: TreeId, prefix: bytes = b"") -> dict[bytes, Entry]:
    """Every path below a tree, by plain recursion."""
    found = {}
    for entry in trees.read(tree).entries:
        found[prefix + entry.name] = entry
        if stat.S_ISDIR(entry.mode):
            found |= flatten(trees, entry.tree, prefix + entry.name + b"/")
    return found


@given(plans=ROOTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_it_finds_what_walking_each_snapshot_finds(store: Store, plans: list[Plan]) -> None:
    trees = TreeReader(store.reader())
    roots = [plant(store, plan).tree for plan in plans]
    each = [flatten(trees, root) for root in roots]
    reads: list[tuple[bytes, TreeId]] = []

    def read(tree: TreeId, path: bytes) -> Iterable[Entry]:
        reads.append((path, tree))
        return trees.read(tree).entries

    walked = list(walk_snapshots(roots, read))
    paths = [occurrence.path for occurrence in walked]
    assert paths == sorted({path for snapshot in each for path in snapshot}, key=lambda path: path.split(b"/"))
    assert len(reads) == len(set(reads))
    for path, entries in walked:
        having = [number for number, snapshot in enumerate(each) if path in snapshot]
        assert sum(run.times for _, run in entries) == len(having)
        for entry, run in entries:
            numbers = [number for number in having if each[number][path] == entry]
            assert run == Run(numbers[0], numbers[-1], len(numbers))


def test_nothing_is_read_below_what_the_reader_leaves_out(store: Store) -> None:
    trees = TreeReader(store.reader())
    root = plant(store, {"a": {"x": b""}, "b": {"y": b""}}).tree
    walked = walk_snapshots([root], lambda tree, path: () if path == b"a" else trees.read(tree).entries)
    assert [occurrence.path for occurrence in walked] == [b"a", b"b", b"b/y"]


def test_depth_is_no_limit(store: Store) -> None:
    root = plant_deep(store, 2000).tree
    trees = TreeReader(store.reader())
    deepest = list(walk_snapshots([root, root], lambda tree, _: trees.read(tree).entries))[-1]
    assert deepest.path.count(b"/") == 2000
    assert deepest.entries[0][1] == Run(0, 1, 2)

# SPDX-License-Identifier: MIT
"""A prune takes nothing from a live folder, whatever versions were forgotten and whatever is going on in it."""

import random
import stat

import pytest

from tests.fs.live_folder import LiveSandbox, do_something, new_file, snapshot_shapes, stored_shapes
from yester.engine.check import check
from yester.engine.prune import prune
from yester.fs.live_nodes import ROOT


def contents(mine: LiveSandbox) -> dict[int, bytes]:
    """What every file that is in use holds, also those that have no name any more."""
    files = [node for node in mine.tree._inodes.loaded.values() if stat.S_ISREG(node.mode)]
    return {node.number: mine.tree.read(node.number, 0, node.size) for node in files}


def prune_all(mine: LiveSandbox, rng: random.Random) -> None:
    """Forget some versions, often all; the folder stays what it is."""
    before = snapshot_shapes(mine), contents(mine)
    versions = mine.store.snapshots()
    forgotten = versions if rng.random() < 0.6 else rng.sample(versions, rng.randrange(len(versions) + 1))
    mine.store.forget([stored.id for stored in forgotten], now_ns=mine.now_ns())
    mine.store.renew_lease()
    prune(mine.store, grace_ns=0, now_ns=mine.now_ns())
    assert (snapshot_shapes(mine), contents(mine)) == before


@pytest.mark.parametrize("seed", range(15))
def test_a_prune_at_any_moment_takes_nothing_from_a_live_folder(mine: LiveSandbox, seed: int) -> None:
    rng = random.Random(seed)

    def work() -> None:
        for _ in range(rng.randrange(40)):
            do_something(mine, rng)

    for _ in range(6):
        work()
        prune_all(mine, rng)
        with mine.store.adding():
            cut = mine.tree.begin_version()
            work()
            mine.commit()
            prune_all(mine, rng)
            if cut is not None:
                version = mine.store_version(cut)
                work()
                prune_all(mine, rng)
                if rng.random() < 0.2:
                    mine.tree.abandon_version()
                else:
                    mine.finish(cut, version)
        prune_all(mine, rng)
        if rng.random() < 0.3:
            mine.commit()
            before = snapshot_shapes(mine)
            mine.load()
            assert snapshot_shapes(mine) == before
    mine.publish()
    latest = mine.store.latest_snapshot("live/mine")
    if latest is not None:
        assert stored_shapes(mine.store, latest.snapshot.root) == snapshot_shapes(mine)
    report = check(mine.store, read_data=True)
    assert (report.findings, report.findings_more) == ((), 0)


def test_a_folder_that_is_empty_again_has_its_version_published_whatever_is_pruned_before(mine: LiveSandbox) -> None:
    """Its trees are those of a version that was forgotten: nothing new is stored but a second copy of them."""
    new_file(mine, b"a", b"x")
    mine.publish()
    mine.tree.unlink(ROOT, b"a")
    mine.publish()
    new_file(mine, b"b", b"y")
    mine.publish()
    mine.store.forget([stored.id for stored in mine.store.snapshots()[:-1]], now_ns=mine.now_ns())
    mine.store.renew_lease()
    mine.tree.unlink(ROOT, b"b")
    with mine.store.adding():
        cut = mine.tree.begin_version()
        assert cut is not None
        mine.commit()
        version = mine.store_version(cut)
        prune(mine.store, grace_ns=0, now_ns=mine.now_ns())
        mine.finish(cut, version)
    latest = mine.store.latest_snapshot("live/mine")
    assert latest is not None
    assert set(stored_shapes(mine.store, latest.snapshot.root)) == {b""}
    assert check(mine.store, read_data=True).findings == ()

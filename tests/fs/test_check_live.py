# SPDX-License-Identifier: MIT
"""`check` finds what is wrong with live folders and the node tables of their versions, and nothing where nothing is."""

import random
from collections.abc import Callable

import pytest

from tests.fs.live_folder import NAME, LiveSandbox, do_something, new_file
from yester.core.ids import ChunkId
from yester.engine.check import check
from yester.engine.check_report import FindingKind
from yester.fs.live_nodes import ROOT
from yester.store.live import LiveChange
from yester.store.lmdb import Table, WriteTransaction


@pytest.mark.parametrize("seed", range(5))
def test_a_sound_folder_has_nothing_wrong_and_needs_all_that_is_stored(mine: LiveSandbox, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(3):
        for _ in range(80):
            do_something(mine, rng)
        mine.publish()
    for _ in range(40):
        do_something(mine, rng)
    mine.commit()
    report = check(mine.store, read_data=True)
    assert report.findings == ()
    assert report.unneeded_chunks == 0


def first_key(mine: LiveSandbox, table: Table) -> bytes:
    with mine.store.environment.read() as view:
        return next(key for key, _ in view.iterate(table))


def remove_table(mine: LiveSandbox) -> Callable[[WriteTransaction], object]:
    latest = mine.store.latest_snapshot(f"live/{NAME}")
    assert latest is not None
    assert latest.snapshot.live is not None
    table = ChunkId(latest.snapshot.live.table)
    return lambda transaction: transaction.delete(Table.CHUNKS, table)


def remove_batch(mine: LiveSandbox) -> Callable[[WriteTransaction], object]:
    return lambda transaction: transaction.delete(Table.LIVE_BATCHES, first_key(mine, Table.LIVE_BATCHES))


def spoil_row(mine: LiveSandbox) -> Callable[[WriteTransaction], object]:
    return lambda transaction: transaction.put(Table.LIVE_NODES, first_key(mine, Table.LIVE_NODES), b"\xc1")


def spoil_head(mine: LiveSandbox) -> Callable[[WriteTransaction], object]:
    return lambda transaction: transaction.put(Table.LIVE_FOLDERS, NAME.encode(), b"\xc1")


@pytest.mark.parametrize("damage", [remove_table, remove_batch, spoil_row, spoil_head])
def test_damage_is_found(mine: LiveSandbox, damage: Callable[[LiveSandbox], Callable[[WriteTransaction], object]]) -> None:
    new_file(mine, b"published", b"x" * 3000)
    mine.publish()
    new_file(mine, b"dirty", b"y" * 3000)
    mine.commit()
    mine.store.environment.write(damage(mine))
    found = check(mine.store, read_data=False).findings
    assert found
    assert {finding.kind for finding in found} <= {FindingKind.LIVE, FindingKind.TREE}


def test_a_name_in_no_folder_is_found(mine: LiveSandbox) -> None:
    mine.folders.apply(NAME, LiveChange(mine.head, names={(77, b"lost"): ROOT}))
    [finding] = check(mine.store, read_data=False).findings
    assert "lost" in finding.what


def test_a_damaged_base_of_a_row_is_found(mine: LiveSandbox) -> None:
    node = new_file(mine, b"file", b"x" * 3000)
    mine.publish()
    mine.tree.write(node.number, 0, b"new")
    mine.commit()
    base = mine.tree.node(node.number).base
    [latest] = mine.store.snapshots()
    chunk = ChunkId(base.spans[:32])
    assert latest.snapshot.totals.files == 1
    mine.store.environment.write(lambda transaction: transaction.delete(Table.CHUNKS, chunk))
    kinds = {finding.kind for finding in check(mine.store, read_data=False).findings}
    assert kinds == {FindingKind.CHUNK, FindingKind.LIVE}

# SPDX-License-Identifier: MIT
"""One damaged row of a live folder costs what it says, and not the folder: after a repair that is used as before."""

import random
import stat

import pytest

from tests.fs.live_folder import NAME, LiveSandbox, do_something, new_file, snapshot_shapes, stored_shapes
from yester.engine.check import check
from yester.engine.forget import forget_source
from yester.engine.prune import prune
from yester.engine.repair import RepairOptions, RepairReport, repair
from yester.engine.repair_live import Outcome, plan_live
from yester.errors import CorruptionError
from yester.fs.live_control import find_live_folders
from yester.fs.live_nodes import ROOT, NewNode
from yester.store.live import source_of
from yester.store.lmdb import Table
from yester.store.store import Store

TABLES = (Table.LIVE_NODES, Table.LIVE_NAMES, Table.LIVE_EXTENTS, Table.LIVE_FOLDERS)


def rows_of(mine: LiveSandbox, table: Table) -> list[tuple[bytes, bytes]]:
    with mine.store.environment.read() as view:
        return [(key, bytes(value)) for key, value in view.iterate(table)]


def spoil(mine: LiveSandbox, table: Table, key: bytes, value: bytes | None) -> None:
    """Set a row, or take it away."""
    if value is None:
        mine.store.environment.write(lambda transaction: transaction.delete(table, key))
    else:
        mine.store.environment.write(lambda transaction: transaction.put(table, key, value))


def node_key(mine: LiveSandbox, number: int) -> bytes:
    return mine.head.number.to_bytes(4, "big") + number.to_bytes(8, "big")


def mend(mine: LiveSandbox, *, dry_run: bool = False) -> RepairReport:
    """Repair the store, and load the folder again."""
    path = mine.store.path
    mine.store.close()
    report = repair(path, RepairOptions(is_dry_run=dry_run))
    mine.store = Store.open(path)
    mine.folders._environment = mine.store.environment
    if not dry_run:
        mine.load()
    return report


def told(report: RepairReport) -> list[tuple[bytes | None, Outcome]]:
    return [(loss.path, loss.outcome) for loss in report.live_losses]


def is_sound(mine: LiveSandbox) -> bool:
    """Whether nothing in a folder would be mended."""
    latest = mine.store.latest_snapshot(source_of(NAME))
    with mine.store.environment.read() as view:
        plan = plan_live(view, mine.store.reader(), NAME, latest)
    return not plan.rows and not plan.losses


@pytest.mark.parametrize("seed", range(8))
def test_a_sound_folder_is_left_alone(mine: LiveSandbox, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(4):
        for _ in range(60):
            do_something(mine, rng, b".Trash-1000")
        mine.commit()
        assert is_sound(mine)
        mine.publish()
        assert is_sound(mine)


def others(mine: LiveSandbox, number: int) -> dict[bytes, object]:
    """Everything about every path but those of one node."""
    numbers = {path: node.number for path, node in mine.walk()}
    return {path: shape for path, shape in snapshot_shapes(mine).items() if numbers[path] != number}


@pytest.mark.parametrize("seed", range(40))
def test_whatever_row_is_damaged_the_folder_is_one_again(mine: LiveSandbox, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(rng.randrange(3)):
        for _ in range(60):
            do_something(mine, rng)
        mine.publish()
    for _ in range(60):
        do_something(mine, rng)
    mine.commit()
    before = snapshot_shapes(mine)
    table, key, value = rng.choice([(table, *row) for table in TABLES for row in rows_of(mine, table)])
    damage = [value[: rng.randrange(len(value))], rng.randbytes(len(value)), b"", *([None] * (table is Table.LIVE_NODES))]
    of_others = others(mine, int.from_bytes(key[4:12], "big") if table in (Table.LIVE_NODES, Table.LIVE_EXTENTS) else 0)
    spoil(mine, table, key, rng.choice(damage))
    mend(mine)
    assert of_others.items() <= others(mine, 0).items()
    assert is_sound(mine)
    after = snapshot_shapes(mine)
    mine.publish()
    latest = mine.store.latest_snapshot(source_of(NAME))
    if latest is not None:
        assert stored_shapes(mine.store, latest.snapshot.root) == snapshot_shapes(mine) == after
    mine.load()
    assert snapshot_shapes(mine) == after
    report = check(mine.store, read_data=True)
    assert (report.findings, report.findings_more) == ((), 0)
    if table is Table.LIVE_FOLDERS:
        assert after == before


def test_a_damaged_row_costs_one_file_and_the_report_names_it(mine: LiveSandbox) -> None:
    old = new_file(mine, b"old", b"1" * 3000)
    mine.publish()
    folder = mine.tree.create(ROOT, b"folder", NewNode(stat.S_IFDIR | 0o750, 1000, 1000))
    new_file(mine, b"kept", b"2" * 3000, folder.number)
    gone = new_file(mine, b"gone", b"3" * 3000, folder.number)
    mine.tree.write(old.number, 10, b"changed")
    mine.tree.rename(ROOT, b"old", folder.number, b"moved")
    mine.commit()
    for number in (old.number, gone.number, folder.number):
        key = node_key(mine, number)
        spoil(mine, Table.LIVE_NODES, key, dict(rows_of(mine, Table.LIVE_NODES))[key][:-3])
    assert not told_by_check(mine)
    dry = mend(mine, dry_run=True)
    report = mend(mine)
    assert told(report) == told(dry)
    assert dry.after.is_whole
    assert told(report) == [(b"folder/moved", Outcome.AS_IN_BASE), (b"folder", Outcome.MADE_AGAIN), (b"folder/gone", Outcome.GONE)]
    assert not report.is_whole
    shapes = snapshot_shapes(mine)
    assert {path: shape[5] for path, shape in shapes.items()} == {
        b"": b"",
        b"/folder": b"",
        b"/folder/moved": b"1" * 3000,
        b"/folder/kept": b"2" * 3000,
    }
    assert len(rows_of(mine, Table.LIVE_EXTENTS)) == 1, "the bytes of what is lost are gone with it"
    assert told_by_check(mine)


def told_by_check(mine: LiveSandbox) -> bool:
    """Whether a check finds nothing."""
    return check(mine.store, read_data=False).is_whole


def test_the_root_of_a_folder_that_has_no_version_is_made_again(mine: LiveSandbox) -> None:
    new_file(mine, b"file", b"1")
    mine.commit()
    spoil(mine, Table.LIVE_NODES, node_key(mine, ROOT), b"")
    report = mend(mine)
    assert told(report) == [(b"", Outcome.MADE_AGAIN)]
    assert set(snapshot_shapes(mine)) == {b"", b"/file"}


@pytest.mark.parametrize(("table", "told"), [(Table.LIVE_NODES, "node 1"), (Table.LIVE_FOLDERS, "the head of")])
def test_a_damaged_folder_is_shown_and_can_be_removed(mine: LiveSandbox, table: Table, told: str) -> None:
    new_file(mine, b"file", b"1")
    mine.publish()
    key, _ = rows_of(mine, table)[0]
    spoil(mine, table, key, b"\xc1")
    [shown] = find_live_folders(mine.store)
    assert told in shown.status.problem
    assert "yester repair" in shown.status.problem
    with pytest.raises(CorruptionError) as caught:
        prune(mine.store, grace_ns=0)
    assert "yester repair" in caught.value.hint
    source = source_of(NAME)
    done = forget_source(mine.store, source, remove_folder=True, is_meant=True, now_ns=mine.now_ns())
    assert told in done.problem
    assert mine.folders.names() == []
    assert not any(rows_of(mine, table) for table in TABLES), "no row is left for a folder that gets its number"
    prune(mine.store, grace_ns=0)

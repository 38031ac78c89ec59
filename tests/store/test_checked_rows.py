# SPDX-License-Identifier: MIT
"""What is written in a live folder of a plain store is what was written, or damaged, and never something else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fs.live_folder import LiveSandbox, new_file
from yester.engine.check import check
from yester.errors import CorruptionError
from yester.store.blocks import BLOCK_BYTES
from yester.store.checked_rows import CHECKED_TABLES, CheckedForm
from yester.store.lmdb import Table

SIZES = st.sampled_from([1, 2, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES + 17])
FORM = CheckedForm(Table.LIVE_BATCHES)


def value(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(size))


@given(SIZES, st.data())
def test_any_part_of_a_value_comes_out_as_it_went_in(size: int, data: st.DataObject) -> None:
    stored = memoryview(FORM.seal(b"key", value(size)))
    assert FORM.value_bytes(stored) == size
    assert FORM.open(b"key", stored) == value(size)
    start = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - start))
    assert FORM.open_part(b"key", stored, start, length) == value(size)[start : start + length]


@given(SIZES, st.data())
def test_a_flipped_bit_a_cut_and_another_place_are_damage(size: int, data: st.DataObject) -> None:
    stored = FORM.seal(b"key", value(size))
    at = data.draw(st.integers(0, 8 * len(stored) - 1))
    flipped = bytearray(stored)
    flipped[at // 8] ^= 1 << at % 8
    assert not FORM.open(b"key", memoryview(bytes(flipped)))
    assert not FORM.open(b"key", memoryview(stored[: data.draw(st.integers(0, len(stored) - 1))]))
    assert not FORM.open(b"another key", memoryview(stored))
    assert not CheckedForm(Table.LIVE_NODES).open(b"key", memoryview(stored))


def test_bytes_that_the_disk_has_changed_are_an_error_and_found(tmp_path: Path) -> None:
    mine = LiveSandbox(tmp_path / "live")
    node, other = new_file(mine, b"a", b"x" * 300_000), new_file(mine, b"b", b"y" * 10)
    mine.commit()
    [batch] = [key for key, _ in _stored(mine, Table.LIVE_BATCHES)]
    damaged = bytearray(dict(_stored(mine, Table.LIVE_BATCHES))[batch])
    damaged[100_000:104_096] = bytes(4096)
    form, mine.store.environment.row_forms = mine.store.environment.row_forms, {}
    mine.store.environment.write(lambda transaction: transaction.put(Table.LIVE_BATCHES, batch, bytes(damaged)))
    mine.store.environment.row_forms = form

    assert [finding.what for finding in check(mine.store, read_data=True).findings] == [
        "the live folder 'mine': 300000 bytes of a from 0 on are damaged"
    ]
    mine.load()
    with pytest.raises(CorruptionError):
        mine.tree.read(node.number, 100_000, 10)
    assert mine.tree.read(other.number, 0, 10) == b"y" * 10
    mine.close()


def _stored(mine: LiveSandbox, table: Table) -> list[tuple[bytes, bytes]]:
    with mine.store.environment.read() as view:
        return [(key, bytes(value)) for key, value in view.iterate_stored(table)]


@pytest.mark.parametrize("table", CHECKED_TABLES)
def test_every_table_of_live_folders_is_checked(tmp_path: Path, table: Table) -> None:
    mine = LiveSandbox(tmp_path / "live")
    new_file(mine, b"a", b"x")
    mine.commit()
    with mine.store.environment.read() as view:
        for key, stored in view.iterate_stored(table):
            assert CheckedForm(table).open(key, stored) == view.get(table, key)
            assert view.get(table, key)
    mine.close()

# SPDX-License-Identifier: MIT
"""Sealed rows: what was put comes back, and whatever else stands there comes back as nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.encrypted import KEY, OTHER_KEY
from yester.store.blocks import BLOCK_BYTES
from yester.store.lmdb import Table
from yester.store.sealing import RowForm, row_forms

FORMS = row_forms(KEY)
SIZES = st.one_of(
    st.integers(0, 200), st.sampled_from([BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 3 * BLOCK_BYTES + 7])
)
NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)


def sealed(form: RowForm, key: bytes, value: bytes) -> tuple[bytes, memoryview]:
    stored_key = form.stored_key(key)
    return stored_key, memoryview(form.seal(stored_key, value))


def pattern(size: int) -> bytes:
    return bytes(number * 31 % 251 for number in range(size))


def a_key(table: Table, draw: st.DataObject) -> bytes:
    match table:
        case Table.SNAPSHOTS | Table.FORGOTTEN:
            return draw.draw(NAMES) + b"\0" + draw.draw(st.binary(min_size=8, max_size=8))
        case Table.LIVE_FOLDERS:
            return draw.draw(NAMES)
        case Table.LIVE_NAMES:
            return draw.draw(st.binary(min_size=12, max_size=12)) + draw.draw(NAMES)
        case _:
            return draw.draw(st.binary(min_size=32, max_size=32))


@given(table=st.sampled_from(sorted(FORMS, key=lambda table: table.value)), size=SIZES, draw=st.data())
@settings(max_examples=200)
def test_a_row_comes_back_as_it_was_put(table: Table, size: int, draw: st.DataObject) -> None:
    form, key = FORMS[table], a_key(table, draw)
    stored_key, stored = sealed(form, key, pattern(size))
    assert form.shown_key(stored_key) == key
    assert bytes(form.open(stored_key, stored)) == pattern(size)
    assert form.value_bytes(stored) == size
    assert len(stored_key) <= 511, "LMDB has no longer keys"


@given(size=SIZES, draw=st.data())
@settings(max_examples=100)
def test_any_part_of_a_long_value_comes_back(size: int, draw: st.DataObject) -> None:
    form = FORMS[Table.LIVE_BATCHES]
    stored_key, stored = sealed(form, b"folder and number", pattern(size))
    start = draw.draw(st.integers(0, size))
    length = draw.draw(st.integers(0, size - start))
    assert bytes(form.open_part(stored_key, stored, start, length)) == pattern(size)[start : start + length]


@given(size=SIZES.filter(bool), draw=st.data())
@settings(max_examples=150)
def test_any_flipped_bit_is_noticed(size: int, draw: st.DataObject) -> None:
    form = FORMS[Table.LIVE_NODES]
    stored_key, stored = sealed(form, b"key", pattern(size))
    flipped = bytearray(stored)
    flipped[draw.draw(st.integers(0, len(stored) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    assert not form.open(stored_key, memoryview(flipped))


@given(size=SIZES.filter(bool), draw=st.data())
def test_a_value_that_was_cut_short_or_made_longer_is_noticed(size: int, draw: st.DataObject) -> None:
    form = FORMS[Table.LIVE_BATCHES]
    stored_key, stored = sealed(form, b"key", pattern(size))
    shorter = stored[: draw.draw(st.integers(0, len(stored) - 1))]
    assert not form.open(stored_key, shorter)
    assert not form.open(stored_key, memoryview(bytes(stored) + draw.draw(st.binary(min_size=1, max_size=40))))


def test_blocks_of_a_value_cannot_be_exchanged_or_dropped() -> None:
    form = FORMS[Table.LIVE_BATCHES]
    stored_key, stored = sealed(form, b"key", bytes(BLOCK_BYTES * 3))
    block = BLOCK_BYTES + 16
    one, two, three = (bytes(stored[16 + number * block :][:block]) for number in range(3))
    salt = bytes(stored[:16])
    for blocks in ((two, one, three), (one, two), (one, three), (one, two, two), (two, three)):
        assert not form.open(stored_key, memoryview(salt + b"".join(blocks)))


def test_a_value_is_good_only_where_it_was_put() -> None:
    form = FORMS[Table.LIVE_NODES]
    stored_key, stored = sealed(form, b"one", b"value")
    assert bytes(form.open(stored_key, stored)) == b"value"
    assert not form.open(form.stored_key(b"two"), stored), "under another key"
    assert not FORMS[Table.LIVE_EXTENTS].open(stored_key, stored), "in another table"
    assert not row_forms(OTHER_KEY)[Table.LIVE_NODES].open(stored_key, stored), "in another store"


def test_equal_values_are_not_stored_alike_and_equal_names_are() -> None:
    form = FORMS[Table.LIVE_FOLDERS]
    assert sealed(form, b"name", b"value")[0] == sealed(form, b"name", b"value")[0]
    assert sealed(form, b"name", b"value")[1] != sealed(form, b"name", b"value")[1]
    assert FORMS[Table.LIVE_FOLDERS].stored_key(b"name") != FORMS[Table.LIVE_NAMES].stored_key(b"name")


@given(one=NAMES, other=NAMES)
def test_lengths_of_names_are_blurred(one: bytes, other: bytes) -> None:
    form = FORMS[Table.LIVE_FOLDERS]
    is_same = len(form.stored_key(one)) == len(form.stored_key(other))
    assert is_same == ((len(one) - 1) // 32 == (len(other) - 1) // 32)


def test_rows_of_a_source_begin_alike_and_are_in_order_of_time() -> None:
    form = FORMS[Table.SNAPSHOTS]
    keys = [form.stored_key(b"letters\0" + time.to_bytes(8, "big")) for time in (1, 2, 255, 256)]
    assert keys == sorted(keys)
    assert all(key.startswith(form.stored_key(b"letters\0")) for key in keys)
    assert not form.stored_key(b"letters2\0").startswith(form.stored_key(b"letters\0"))


def test_a_key_that_nobody_has_sealed_is_shown_as_it_is() -> None:
    for table, key in ((Table.SNAPSHOTS, b"letters\0" + bytes(8)), (Table.LIVE_NAMES, bytes(12) + b"name"), (Table.SCAN, bytes(32))):
        assert FORMS[table].shown_key(key) == key

# SPDX-License-Identifier: MIT
"""Pages as LMDB leaves them, and with one part that was hit."""

import random
import struct
from pathlib import Path

import pytest

from tests.pages import PAGE_BYTES, flipped
from yester.store.datafile import DATA_FILE
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.pages import IS_BRANCH, NODE, PAGE, mended, node_key, node_places, packed_places
from yester.store.salvage import DataFile


@pytest.fixture(scope="module", params=["leaf", "branch"])
def numbered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """A page, and its number. Rows have been removed from it: there is something left of them in its free space."""
    path = tmp_path_factory.mktemp("pages")
    rng = random.Random("pages")
    keys = [rng.randbytes(32) for _ in range(400)]

    def fill(transaction: WriteTransaction) -> None:
        for key in keys:
            transaction.put(Table.CHUNKS, key, bytes(8))

    def thin(transaction: WriteTransaction) -> None:
        for key in keys[::3]:
            transaction.delete(Table.CHUNKS, key)

    with Environment(path, create=True) as environment:
        environment.write(fill)
        environment.write(thin)
    data = (path / DATA_FILE).read_bytes()
    with DataFile(path) as file:
        number = file.tables[Table.CHUNKS.value].root if request.param == "branch" else next(file.walk(Table.CHUNKS.value)).page
    page = data[number * PAGE_BYTES :][:PAGE_BYTES]
    assert bool(PAGE.unpack_from(page)[2] & IS_BRANCH) is (request.param == "branch")
    return page, number


def rows(page: bytes) -> set[bytes]:
    return {node_key(page, place) for place in node_places(page)}


def test_a_page_is_packed(numbered: tuple[bytes, int]) -> None:
    page, number = numbered
    assert packed_places(page) == node_places(page)
    assert mended(page, number) == page


def test_each_bit_of_a_header_and_of_places_is_mended(numbered: tuple[bytes, int]) -> None:
    page, number = numbered
    for at in (*range(8), *range(10, PAGE.size), *range(PAGE.size, PAGE.size + 2 * len(node_places(page)))):
        for bit in range(8):
            hit = mended(flipped(page, at, bit), number)
            assert hit is not None, (at, bit)
            assert packed_places(hit) is not None, (at, bit)
            assert (rows(hit), PAGE.unpack_from(hit)) == (rows(page), PAGE.unpack_from(page)), (at, bit)


def test_no_bit_of_a_length_makes_a_page_that_lacks_a_row(numbered: tuple[bytes, int]) -> None:
    page, number = numbered
    for place in node_places(page):
        for at in (place, place + 1, place + 2, place + 3, place + 6, place + 7):
            for bit in range(8):
                hit = mended(flipped(page, at, bit), number)
                assert hit is None or len(node_places(hit)) == len(node_places(page))


def test_a_node_that_seems_to_hold_the_next_one_is_not_believed() -> None:
    """A length was hit such that the page would be packed without the last row, which it covers."""
    start = PAGE_BYTES - 4 * 64
    nodes = [NODE.pack(64 - NODE.size - 4, 0, 0, 4) + key + bytes(64 - NODE.size - 4) for key in (b"key0", b"key3", b"key1", b"key2")]
    header = PAGE.pack(7, 0, 2, PAGE.size + 8, start)
    places = struct.pack("<4H", *(start + 64 * index for index in (0, 2, 3, 1)))
    page = (header + places).ljust(start, b"\0") + b"".join(nodes)
    assert packed_places(page) == node_places(page)
    hit = flipped(page, start, 6)  # 64 bytes more
    assert packed_places(hit) is None
    assert mended(hit, 7) is None


def test_pages_of_anything_are_not_mended() -> None:
    rng = random.Random("anything")
    for page in (bytes(PAGE_BYTES), b"\xff" * PAGE_BYTES, *(rng.randbytes(PAGE_BYTES) for _ in range(20))):
        assert mended(page, 5) is None


def test_a_length_of_a_run_that_was_hit_costs_no_value(tmp_path: Path) -> None:
    with Environment(tmp_path, create=True) as environment:
        environment.write(lambda transaction: transaction.put(Table.LIVE_BATCHES, b"key", b"v" * 9000))
    data = (tmp_path / DATA_FILE).read_bytes()
    run = data.index(b"v" * 9000) - PAGE.size
    for bit in range(32):
        (tmp_path / DATA_FILE).write_bytes(flipped(data, run + 12 + bit // 8, bit % 8))
        with DataFile(tmp_path) as file:
            assert [bytes(row.value) for row in file.walk(Table.LIVE_BATCHES.value)] == [b"v" * 9000]
            assert not file.tables[Table.LIVE_BATCHES.value].is_damaged

# SPDX-License-Identifier: MIT
"""Reading a data file by its bytes: all of a whole one, what is left of a damaged one, and no trouble with a hostile one."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from yester.errors import StoreAccessError
from yester.store.datafile import DATA_FILE
from yester.store.lmdb import Environment, Table
from yester.store.salvage import VALUE_BYTES_MAX, DataFile, Row
from yester.store.segments import Codec, Kind

PAGE = 4096


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """A plain one: rows of an encrypted one are read as they are stored."""
    path = tmp_path / "environment"
    path.mkdir()
    with Environment(path, create=True) as environment:
        yield environment


def fill(environment: Environment, *, seed: int = 1, rounds: int = 6) -> dict[Table, dict[bytes, bytes]]:
    """Random rows of all sizes in some tables, put and removed in several transactions; returns what is there at the end."""
    rng = random.Random(seed)
    tables: dict[Table, dict[bytes, bytes]] = {Table.CHUNKS: {}, Table.SCAN: {}, Table.SEGMENTS: {}}

    def apply_to(table: Table) -> None:
        rows = tables[table]
        new = {rng.randbytes(rng.choice([8, 32])): rng.randbytes(rng.choice([0, 8, 300, 2500, 9000])) for _ in range(120)}
        gone = rng.sample(sorted(rows), len(rows) // 3)

        def apply(transaction: object) -> None:
            for key, value in new.items():
                transaction.put(table, key, value)  # type: ignore[attr-defined]  # a WriteTransaction
            for key in gone:
                transaction.delete(table, key)  # type: ignore[attr-defined]

        environment.write(apply)
        rows.update(new)
        for key in gone:
            rows.pop(key, None)

    for _ in range(rounds):
        for table in tables:
            apply_to(table)
    return tables


def walk_all(path: Path) -> tuple[dict[bytes, dict[bytes, bytes]], bool, list[Row]]:
    """What the trees have, whether all of it, and what stray pages have."""
    with DataFile(path) as file:
        names = sorted(file.tables)
        found = {name: {row.key: row.value for row in file.walk(name)} for name in names}
        is_whole = len(names) == len(Table) and not any(file.tables[name].is_damaged for name in names)
        return found, is_whole, list(file.iter_stray_rows())


@pytest.mark.parametrize("seed", range(3))
def test_a_whole_file_is_read_as_lmdb_reads_it(environment: Environment, seed: int) -> None:
    rows = fill(environment, seed=seed)
    found, is_whole, stray = walk_all(environment.path)
    assert is_whole
    assert {table: found[table.value] for table in rows} == rows
    assert stray == [], "pages that nothing uses are known as that"


def test_rows_below_a_lost_page_are_stray_ones(environment: Environment) -> None:
    """None of those on other pages is lost, and each that is found is as it was."""
    rows = fill(environment)
    data = (environment.path / DATA_FILE).read_bytes()
    with DataFile(environment.path) as file:
        roots = [table.root for name, table in file.tables.items() if name in {table.value for table in rows}]
    for root in roots:
        (environment.path / DATA_FILE).write_bytes(data[: root * PAGE] + bytes(PAGE) + data[(root + 1) * PAGE :])
        found, is_whole, stray = walk_all(environment.path)
        assert not is_whole
        everything = {(row.key, row.value) for row in stray} | {item for table in found.values() for item in table.items()}
        missing = {item for table in rows.values() for item in table.items()} - everything
        assert not missing, "a branch page has no rows of its own"
    (environment.path / DATA_FILE).write_bytes(data)


def test_segments_that_nothing_leads_to_are_found_by_what_they_begin_with(environment: Environment) -> None:
    segments = [Codec().encode(Kind.DATA, [random.Random(number).randbytes(20_000)]) for number in range(5)]
    for number, stored in enumerate(segments, start=1):
        environment.write(lambda transaction, key=bytes([number]), stored=stored: transaction.put(Table.SEGMENTS, key, stored))  # type: ignore[misc]
    data = (environment.path / DATA_FILE).read_bytes()
    (environment.path / DATA_FILE).write_bytes(bytes(2 * PAGE) + data[2 * PAGE :])
    with DataFile(environment.path) as file:
        assert sorted(file.iter_stray_segments(None)) == sorted(segments)
    (environment.path / DATA_FILE).write_bytes(data)


@pytest.mark.parametrize("seed", range(6))
def test_hostile_bytes_end_soon_and_take_no_more_memory_than_the_file(environment: Environment, seed: int) -> None:
    """Loops, numbers beyond the file, lengths beyond everything: no page is read twice, so the rows are never larger than the file."""
    fill(environment, seed=seed, rounds=2)
    original = (environment.path / DATA_FILE).read_bytes()
    rng = random.Random(seed)
    path = environment.path.parent / "hostile"
    path.mkdir()
    for _ in range(25):
        data = bytearray(original)
        for _ in range(rng.choice([1, 5, 200])):
            at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(len(data) // PAGE) * PAGE + rng.randrange(40)
            data[at : at + 8] = rng.choice([rng.randbytes(8), b"\xff" * 8, bytes(8), (rng.randrange(300)).to_bytes(8, "little")])
        (path / DATA_FILE).write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        found, _, stray = walk_all(path)
        assert sum(len(value) for table in found.values() for value in table.values()) <= len(data)
        assert all(len(row.value) <= VALUE_BYTES_MAX for row in stray)


@pytest.mark.parametrize("data", [b"", b"x", bytes(PAGE), bytes(10 * PAGE), b"\xff" * 3 * PAGE])
def test_what_is_no_data_file_has_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / DATA_FILE).write_bytes(data)
    assert walk_all(tmp_path) == ({}, False, [])


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreAccessError):
        DataFile(tmp_path)

# SPDX-License-Identifier: MIT
"""Judging the data file by its bytes alone."""

import random
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from yester.errors import CorruptionError, NotFoundError
from yester.store.datafile import DATA_FILE, check_data_file

PAGE = 4096
COUNT_KEYS = """
import lmdb, sys
with lmdb.open(sys.argv[1], readonly=True, lock=False) as environment, environment.begin() as transaction:
    print(sum(1 for _ in transaction.cursor()))
"""
LAST_PAGE_AT = 136
FREE_ROOT_AT = 80


def run_transactions(path: Path, seed: int, *, count: int = 12) -> int:
    """Random puts and deletes; returns how many pages the file is shorter than its meta page says."""
    luck = random.Random(seed)
    with lmdb.open(str(path), map_size=1 << 28, sync=False) as environment:
        keys: list[bytes] = []
        for _ in range(count):
            with environment.begin(write=True) as transaction:
                for _ in range(luck.choice([1, 5, 50, 300])):
                    if luck.random() < 0.55 or not keys:
                        keys.append(luck.randbytes(8))
                        transaction.put(keys[-1], luck.randbytes(luck.choice([10, 100, 1500, 5000, 20_000])))
                    else:
                        transaction.delete(keys.pop(luck.randrange(len(keys))))
        last_page = int(environment.info()["last_pgno"])
    return last_page + 1 - (path / DATA_FILE).stat().st_size // PAGE


def newer_meta(data: bytes | bytearray) -> int:
    """Where the newer meta page begins."""
    first, second = (struct.unpack_from("<Q", data, at + 144)[0] for at in (0, PAGE))
    return 0 if first > second else PAGE


def test_a_file_that_ends_in_free_pages_is_whole(tmp_path: Path) -> None:
    """LMDB leaves it so; taking it for a damaged one would lock people out of their backups."""
    short = 0
    for seed in range(20):
        path = tmp_path / str(seed)
        path.mkdir()
        short += run_transactions(path, seed) > 0
        check_data_file(path)
    assert short > 0


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    """Whenever a page is missing that is not free: LMDB would die of it when it reads that page."""
    run_transactions(tmp_path, 1)
    data = (tmp_path / DATA_FILE).read_bytes()
    pages = len(data) // PAGE
    with lmdb.open(str(tmp_path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        number_of_keys = sum(1 for _ in transaction.cursor())
    assert number_of_keys > 0
    refused = 0
    for count in range(pages):
        (tmp_path / DATA_FILE).write_bytes(data[: count * PAGE + count % 7])
        try:
            check_data_file(tmp_path)
        except CorruptionError:
            refused += 1
        else:
            ran = subprocess.run([sys.executable, "-c", COUNT_KEYS, tmp_path], capture_output=True, text=True, check=False)
            assert ran.stdout == f"{number_of_keys}\n"
    assert refused > pages // 2


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 100_000, bytes(8192)])
def test_what_is_no_database_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / DATA_FILE).write_bytes(data)
    with pytest.raises(CorruptionError):
        check_data_file(tmp_path)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no store"):
        check_data_file(tmp_path)
    with pytest.raises(NotFoundError):
        check_data_file(tmp_path / "nowhere")


@pytest.mark.parametrize("number", [0, 1, 2, 2**31, 2**52, 2**63, 2**64 - 1])
@pytest.mark.parametrize("field_at", [FREE_ROOT_AT, LAST_PAGE_AT])
def test_hostile_meta_pages_end_soon(tmp_path: Path, field_at: int, number: int) -> None:
    run_transactions(tmp_path, 2)
    data = bytearray((tmp_path / DATA_FILE).read_bytes())
    meta = newer_meta(data)
    last_page = struct.unpack_from("<Q", data, meta + LAST_PAGE_AT)[0]
    struct.pack_into("<Q", data, meta + LAST_PAGE_AT, last_page + 5)
    struct.pack_into("<Q", data, meta + field_at, number)
    (tmp_path / DATA_FILE).write_bytes(data)
    if (field_at, number) in {(LAST_PAGE_AT, 0), (LAST_PAGE_AT, 1), (LAST_PAGE_AT, 2)}:
        check_data_file(tmp_path)
    else:
        with pytest.raises(CorruptionError, match="cut short"):
            check_data_file(tmp_path)


def test_a_hostile_list_of_free_pages_ends_soon(tmp_path: Path) -> None:
    """Whatever its pages hold: random bytes in them neither hang, nor crash, nor make missing pages good."""
    run_transactions(tmp_path, 3)
    original = (tmp_path / DATA_FILE).read_bytes()
    meta = newer_meta(original)
    root = struct.unpack_from("<Q", original, meta + FREE_ROOT_AT)[0]
    luck = random.Random(5)
    path = tmp_path / "hostile"
    path.mkdir()
    for _ in range(300):
        data = bytearray(original)
        last_page = struct.unpack_from("<Q", data, meta + LAST_PAGE_AT)[0]
        struct.pack_into("<Q", data, meta + LAST_PAGE_AT, last_page + luck.choice([1, 10, 1000]))
        for _ in range(luck.choice([1, 3, 30])):
            data[root * PAGE + luck.randrange(PAGE if luck.random() < 0.5 else 40)] = luck.randrange(256)
        (path / DATA_FILE).write_bytes(data)
        with pytest.raises(CorruptionError, match="cut short"):
            check_data_file(path)


def test_a_file_that_is_being_written_is_never_refused(tmp_path: Path) -> None:
    """It grows between two looks at it; the other process starts from nothing again and again."""
    program = """
import lmdb, os, random, sys
luck = random.Random(1)
with lmdb.open(sys.argv[1], map_size=1 << 30, sync=False, metasync=False) as environment:
    print("ready", flush=True)
    while True:
        with environment.begin(write=True) as transaction:
            for _ in range(luck.choice([1, 20])):
                transaction.put(luck.randbytes(1), luck.randbytes(luck.choice([100, 5000, 40_000])))
                transaction.delete(luck.randbytes(1))
"""
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            for _ in range(3000):
                check_data_file(tmp_path)
        finally:
            writer.kill()


def test_an_absurd_page_size_is_refused(tmp_path: Path) -> None:
    run_transactions(tmp_path, 4)
    data = bytearray((tmp_path / DATA_FILE).read_bytes())
    for size in (0, 511, 1 << 20):
        struct.pack_into("<I", data, 40, size)
        (tmp_path / DATA_FILE).write_bytes(data)
        with pytest.raises(CorruptionError, match="is not an LMDB database"):
            check_data_file(tmp_path)

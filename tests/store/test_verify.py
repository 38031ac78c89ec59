# SPDX-License-Identifier: MIT
"""Whether damage of LMDB's pages is told, and nothing else is."""

import os
import random
import threading
from pathlib import Path

import pytest

from tests.pages import PAGE_BYTES, flip, parting_keys
from yester.errors import CorruptionError, NotFoundError, StoreAccessError
from yester.store import verify as verify_module
from yester.store.datafile import DATA_FILE, read_meta
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.verify import are_pages_sound, verify_data_file


def put(environment: Environment, key: bytes, value: bytes, table: Table = Table.CHUNKS) -> None:
    environment.write(lambda transaction: transaction.put(table, key, value))


def test_a_sound_file_verifies(environment: Environment) -> None:
    for number in range(50):
        put(environment, b"%02d" % number, bytes(10_000), Table.SEGMENTS)
    assert verify_data_file(environment.path) == []


def test_a_file_in_a_folder_with_a_module_called_lmdb_verifies(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever checks a store from elsewhere may well stand in it."""
    (environment.path / "lmdb.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(environment.path)
    assert verify_data_file(environment.path) == []


def test_damaged_pages_are_told(environment: Environment) -> None:
    for number in range(200):
        put(environment, b"%03d" % number, bytes(100))
    environment.close()
    file = environment.path / DATA_FILE
    data = bytearray(file.read_bytes())
    for page in range(8192, len(data), 4096):
        if data[page + 10] == 2:  # its flags say that it is a leaf
            data[page + 16 : page + 40] = b"\xff" * 24
    file.write_bytes(data)
    assert verify_data_file(environment.path)


def test_a_crash_of_the_verifier_is_damage(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "_CHILD", ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"])
    assert verify_data_file(environment.path) == ["reading it crashes LMDB (signal 11)"]


def test_a_verifier_that_does_not_work_is_no_damage(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "_CHILD", ["-c", "import no_such_module"])
    with pytest.raises(StoreAccessError, match="No module named 'no_such_module'"):
        verify_data_file(environment.path)


def test_a_file_that_is_missing_or_cut_is_not_verified(environment: Environment, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify_data_file(tmp_path)
    put(environment, b"a", bytes(100_000))
    environment.close()
    os.truncate(environment.path / DATA_FILE, 20_000)
    with pytest.raises(CorruptionError):
        verify_data_file(environment.path)


def test_a_file_that_is_written_meanwhile_verifies(environment: Environment) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            put(environment, b"%d" % (number % 50), bytes(number % 9 * 1000), Table.SEGMENTS)
            environment.write(lambda transaction: transaction.delete(Table.SEGMENTS, b"%d" % (number * 7 % 50)))  # noqa: B023 (runs at once)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert [verify_data_file(environment.path) for _ in range(10)] == [[]] * 10
    finally:
        stop.set()
        writer.join()


# --- keys in branch pages ---------------------------------------------------------------------------------------------


def are_all_found(path: Path) -> bool:
    """Whether searching finds every row."""
    with Environment(path, readonly=True) as environment, environment.read() as view:
        return all(view.get_stored(table, key) is not None for table in Table for key, _ in view.iterate_stored(table))


def test_a_key_that_was_hit_in_a_branch_page_is_told_if_it_leads_astray(environment: Environment, tmp_path: Path) -> None:
    rng = random.Random("keys")
    ids = [rng.randbytes(32) for _ in range(9000)]

    def change(transaction: WriteTransaction) -> None:
        for key in ids:
            transaction.put(Table.CHUNKS, key, bytes(8))
        for key in rng.sample(ids, 3000):
            transaction.delete(Table.CHUNKS, key)

    environment.write(change)
    for number in range(300):
        put(environment, number.to_bytes(8, "big"), bytes(5000), Table.SEGMENTS)
    path = tmp_path / "copy"
    path.mkdir()
    environment.copy_to(path)  # without pages that nothing leads to
    data = (path / DATA_FILE).read_bytes()
    assert verify_data_file(path) == []
    keys = [key for page in range(2, len(data) // PAGE_BYTES) for key in parting_keys(data, page)]
    assert {end - start for start, end in keys} == {8, 32}
    is_sound = []
    for start, end in rng.choices(keys, k=300):
        at = rng.choice([start, rng.randrange(start, end)])
        flip(path, data, at, rng.randrange(8))
        is_sound.append(are_pages_sound(path))
        assert is_sound[-1] == are_all_found(path), at
    assert 50 < sum(is_sound) < 250
    flip(path, data, keys[0][0], 7)
    [problem, *_] = verify_data_file(path)
    assert "branch page" in problem


def test_a_key_that_was_hit_in_the_list_of_free_pages_is_told(environment: Environment) -> None:
    """A row could be used twice, as LMDB goes on from one by searching for the next."""
    put(environment, b"a", b"")
    with environment.read():  # so what is freed cannot be used, and is listed
        for number in range(400):
            put(environment, b"a", b"%d" % number)
    environment.close()
    file = environment.path / DATA_FILE
    data = file.read_bytes()
    with file.open("rb") as opened:
        root = read_meta(file, opened).free_root
    keys = parting_keys(data, root)
    assert keys
    assert are_pages_sound(environment.path)
    for start, _ in keys:
        flip(environment.path, data, start, 0)
        [problem, *_] = verify_data_file(environment.path)
        assert "list of free pages" in problem

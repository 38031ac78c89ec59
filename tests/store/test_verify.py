# SPDX-License-Identifier: MIT
"""Whether damage of LMDB's pages is told, and nothing else is."""

import os
import random
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pages import PAGE_BYTES, flip, parting_nodes
from yester.errors import CorruptionError, NotFoundError, StoreAccessError
from yester.store import verify as verify_module
from yester.store.datafile import DATA_FILE, read_meta
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.pages import IS_BIG, IS_DATABASE, NODE, NUMBER, PAGE, node_places
from yester.store.salvage import DataFile
from yester.store.verify import verify_data_file, verifying


def put(environment: Environment, key: bytes, value: bytes, table: Table = Table.CHUNKS) -> None:
    environment.write(lambda transaction: transaction.put(table, key, value))


def run_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(verify_module, "module_command", lambda *_: [sys.executable, "-c", program])


def in_child(path: Path) -> list[str]:
    with verify_module._Child(path) as child:
        return child.outcome()


def test_a_sound_file_verifies(environment: Environment) -> None:
    for number in range(50):
        put(environment, b"%02d" % number, bytes(10_000), Table.SEGMENTS)
    assert verify_data_file(environment.path) == []


def test_a_file_in_a_folder_with_a_module_called_lmdb_verifies(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever checks a store from elsewhere may well stand in it."""
    (environment.path / "lmdb.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(environment.path)
    assert verify_data_file(environment.path) == []


@pytest.mark.parametrize("least_bytes", [0, 1 << 40], ids=["beside", "here"])
def test_a_file_is_verified_beside_other_work(environment: Environment, monkeypatch: pytest.MonkeyPatch, least_bytes: int) -> None:
    monkeypatch.setattr(verify_module, "_BESIDE_BYTES_MIN", least_bytes)
    for number in range(400):
        put(environment, b"%03d" % number, bytes(100))
    with verifying(environment.path) as find_problems:
        assert find_problems() == []
    with verifying(environment.path):
        pass  # whoever does not ask waits for nothing
    environment.close()
    data = (environment.path / DATA_FILE).read_bytes()
    with DataFile(environment.path) as file:
        node = parting_nodes(data, file.tables[Table.CHUNKS.value].root)[0]
    flip(environment.path, data, node + NODE.size, 7)
    with verifying(environment.path) as find_problems:
        [problem, *_] = find_problems()
    assert "branch page" in problem


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
    run_instead(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert in_child(environment.path) == ["reading it crashes LMDB (signal 11)"]


def test_a_verifier_that_does_not_work_is_no_damage(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, "import no_such_module")
    with pytest.raises(StoreAccessError, match="No module named 'no_such_module'"):
        in_child(environment.path)


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


# --- what lmdb.verify does not look at --------------------------------------------------------------------------------


def are_all_found(path: Path) -> bool:
    """Whether searching finds every row."""
    with Environment(path, readonly=True) as environment, environment.read() as view:
        return all(view.get_stored(table, key) is not None for table in Table for key, _ in view.iterate_stored(table))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of some leaf pages, and no pages that nothing leads to."""
    path, copy = tmp_path_factory.mktemp("filled"), tmp_path_factory.mktemp("copy")
    rng = random.Random("filled")
    ids = [rng.randbytes(32) for _ in range(9000)]

    def change(transaction: WriteTransaction) -> None:
        for key in ids:
            transaction.put(Table.CHUNKS, key, bytes(8))
        for key in rng.sample(ids, 3000):
            transaction.delete(Table.CHUNKS, key)
        for number in range(300):
            transaction.put(Table.SEGMENTS, number.to_bytes(8, "big"), bytes(5000))

    with Environment(path, create=True) as environment:
        environment.write(change)
        environment.copy_to(copy)
    return copy


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_key_that_was_hit_in_a_branch_page_is_told_if_it_leads_astray(path: Path) -> None:
    data = (path / DATA_FILE).read_bytes()
    assert verify_data_file(path) == []
    rng = random.Random("keys")
    nodes = [node for page in range(2, len(data) // PAGE_BYTES) for node in parting_nodes(data, page)]
    is_sound = []
    for node in rng.choices(nodes, k=200):
        key_bytes = NODE.unpack_from(data, node)[3]
        at = node + NODE.size + rng.choice([0, rng.randrange(key_bytes)])
        flip(path, data, at, rng.randrange(8))
        is_sound.append(not verify_module._find_problems(path))
        assert is_sound[-1] == are_all_found(path), at
    assert 50 < sum(is_sound) < 150
    flip(path, data, nodes[-1] + NODE.size, 7)
    [problem, *_] = verify_data_file(path)
    assert "a key in branch page" in problem


def test_a_length_or_place_that_was_hit_is_told(path: Path) -> None:
    """Each bit of places of nodes, of lengths of keys and values, and of where free space ends, in branch and leaf pages."""
    data = (path / DATA_FILE).read_bytes()
    pages = {}
    with DataFile(path) as file:
        for table in (Table.CHUNKS, Table.SEGMENTS):
            pages[table, "branch"] = file.tables[table.value].root
            pages[table, "leaf"] = next(file.walk(table.value)).page
    for (table, kind), number in pages.items():
        page = data[number * PAGE_BYTES :][:PAGE_BYTES]
        places = node_places(page)
        fields = [14, 15, PAGE.size, PAGE.size + 1]
        for place in (places[0], places[1], places[-1]):
            fields += [place + 6, place + 7]
            if kind == "leaf" and table is not Table.SEGMENTS:  # a value in pages of its own has no length on this page
                fields += [place, place + 1]
        for field in fields:
            for bit in range(8):
                flip(path, data, number * PAGE_BYTES + field, bit)
                assert verify_module._find_problems(path), (table, kind, field, bit)


def test_flags_of_a_table_that_were_hit_are_told(path: Path) -> None:
    data = (path / DATA_FILE).read_bytes()
    with (path / DATA_FILE).open("rb") as opened:
        number = read_meta(path, opened).main_root
    page = data[number * PAGE_BYTES :][:PAGE_BYTES]
    for place in node_places(page):
        key_bytes = NODE.unpack_from(page, place)[3]
        for bit in range(16):
            flip(path, data, number * PAGE_BYTES + place + NODE.size + key_bytes + 4 + bit // 8, bit % 8)
            assert verify_module._find_problems(path)


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
    nodes = parting_nodes(data, root)
    assert nodes
    assert verify_data_file(environment.path) == []
    for node in nodes:
        flip(environment.path, data, node + NODE.size, 0)
        [problem, *_] = verify_data_file(environment.path)
        assert "list of free pages" in problem


@pytest.mark.parametrize(("flags", "length", "root"), [(IS_BIG | IS_DATABASE, 48, 2), (IS_DATABASE, 40, 2), (IS_DATABASE, 48, 1 << 62)])
def test_a_list_of_tables_that_leads_anywhere_ends_nobody(path: Path, flags: int, length: int, root: int) -> None:
    data = bytearray((path / DATA_FILE).read_bytes())
    with (path / DATA_FILE).open("rb") as opened:
        number = read_meta(path, opened).main_root
    start = number * PAGE_BYTES
    place = node_places(bytes(data[start : start + PAGE_BYTES]))[0]
    key_bytes = NODE.unpack_from(data, start + place)[3]
    NODE.pack_into(data, start + place, length, 0, flags, key_bytes)
    NUMBER.pack_into(data, start + place + NODE.size + key_bytes + 40, root)
    (path / DATA_FILE).write_bytes(data)
    assert verify_module._find_problems(path)
    with (path / DATA_FILE).open("rb") as opened, suppress(CorruptionError):  # also if `lmdb.verify` had not seen it
        assert list(verify_module._Trees(opened, read_meta(path, opened)).iter_problems())

# SPDX-License-Identifier: MIT
"""Compacting gives free pages back to the disk, needs the store alone, and changes nothing else."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from yester.errors import BusyError, CorruptionError, StoreAccessError, StoreFullError
from yester.store import compact as compact_module
from yester.store.compact import compact
from yester.store.datafile import DATA_FILE
from yester.store.folder import COMPACT_FOLDER
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.store import Store

Rows = dict[Table, dict[bytes, bytes]]


def test_a_disk_that_becomes_full_is_told_as_one_of_compacting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def be_full(_environment: Environment, _folder: Path) -> None:
        message = "the disk is full"
        raise StoreFullError(message, hint="it goes on from what is stored")

    monkeypatch.setattr(Environment, "copy_to", be_full)
    with pytest.raises(StoreFullError, match="no space left for a second file") as caught:
        compact(path)
    assert "goes on from" not in caught.value.hint
    assert not (path / COMPACT_FOLDER).exists()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store most of whose pages are free."""
    path = tmp_path / "store"
    with Store.create(path) as store:

        def fill(transaction: WriteTransaction) -> None:
            for number in range(1, 60):
                transaction.put(Table.SEGMENTS, number.to_bytes(8, "big"), os.urandom(50_000))

        def thin(transaction: WriteTransaction) -> None:
            for number in range(1, 50):
                transaction.delete(Table.SEGMENTS, number.to_bytes(8, "big"))

        store.environment.write(fill)
        store.environment.write(thin)
    return path


def rows(path: Path) -> Rows:
    with Environment(path) as environment, environment.read() as view:
        return {table: {key: bytes(value) for key, value in view.iterate(table)} for table in Table}


def test_the_file_gets_small_and_holds_what_it_held(path: Path) -> None:
    before, mode = rows(path), stat.S_IMODE((path / DATA_FILE).stat().st_mode)
    done = compact(path)
    assert done.after_bytes == (path / DATA_FILE).stat().st_size < done.before_bytes / 4
    assert rows(path) == before
    assert stat.S_IMODE((path / DATA_FILE).stat().st_mode) == mode == 0o600
    with Store.open(path) as store:
        store.environment.write(lambda transaction: transaction.put(Table.META, b"key", b"value"))
    assert not (path / COMPACT_FOLDER).exists()


def test_a_store_that_is_open_elsewhere_is_not_compacted(path: Path) -> None:
    program = """
import sys
from pathlib import Path
from yester.store.store import Store
with Store.open(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        inode = (path / DATA_FILE).stat().st_ino
        with pytest.raises(BusyError, match=rf"open in other processes \({other.pid}\); nothing was changed"):
            compact(path)
        other.communicate()
    assert (path / DATA_FILE).stat().st_ino == inode
    compact(path)


def test_a_store_is_not_opened_while_it_is_compacted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def judge(environment: Environment, folder: Path) -> None:
        with pytest.raises(BusyError, match="is being compacted or repaired by process"):
            Store.open(path)
        tried.append(True)

    monkeypatch.setattr(compact_module, "_judge_copy", judge)
    compact(path)
    assert tried


def test_a_copy_that_is_not_as_the_store_does_not_take_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(path)
    copy_to = Environment.copy_to

    def lossy(environment: Environment, folder: Path) -> None:
        copy_to(environment, folder)
        with Environment(folder) as copy:
            copy.write(lambda transaction: transaction.delete(Table.SEGMENTS, (55).to_bytes(8, "big")))

    monkeypatch.setattr(Environment, "copy_to", lossy)
    with pytest.raises(CorruptionError, match="nothing was changed"):
        compact(path)
    assert rows(path) == before
    assert not (path / COMPACT_FOLDER).exists()


def test_what_a_crash_left_is_cleared_away(path: Path) -> None:
    (path / COMPACT_FOLDER).mkdir()
    shutil.copy(path / DATA_FILE, path / COMPACT_FOLDER)
    with Store.open(path, readonly=True):
        assert (path / COMPACT_FOLDER).exists()
    before = rows(path)
    Store.open(path).close()
    assert not (path / COMPACT_FOLDER).exists()
    assert rows(path) == before


def test_without_room_for_a_second_file_nothing_is_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail = 1
        f_frsize = 4096

    monkeypatch.setattr(Environment, "disk", lambda _environment: Full())
    with pytest.raises(StoreFullError, match="nothing was changed"):
        compact(path)
    assert not (path / COMPACT_FOLDER).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_a_store_whose_lock_cannot_be_held_is_not_written(path: Path) -> None:
    """Else somebody could compact it meanwhile, and what is committed would go into a file that is gone."""
    for place in (path, *path.rglob("*")):
        os.chown(place, 65534, 65534)
    os.chown(path / "use.lock", 0, 0)
    program = """
import os, sys
from pathlib import Path
from yester.errors import StoreAccessError
from yester.store.store import Store
path = Path(sys.argv[1])
os.setuid(65534)
try:
    Store.open(path)
except StoreAccessError as error:
    print(error.message)
with Store.open(path, readonly=True) as store:
    print(store.snapshots())
"""
    for above in path.parents[:3]:
        above.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert (
        done.stdout == f"{path / 'use.lock'} cannot be opened or made, so the store was not opened for writing; nothing was changed\n[]\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_file_stays_whose_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could not open a store any more that root has compacted."""
    os.chown(path / DATA_FILE, 65534, 65533)
    os.chmod(path / DATA_FILE, 0o640)
    compact(path)
    found = (path / DATA_FILE).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o640)

    def refuse(*_arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(Environment, "copy_to", refuse)
    before = (path / DATA_FILE).read_bytes()
    with pytest.raises(StoreAccessError, match=r"belongs to another user.*; nothing was changed"):
        compact(path)
    assert (path / DATA_FILE).read_bytes() == before
    assert not (path / COMPACT_FOLDER).exists()

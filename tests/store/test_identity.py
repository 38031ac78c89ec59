# SPDX-License-Identifier: MIT
"""Telling a store's own data file from a copy."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from yester.errors import CorruptionError
from yester.store import folder as folder_module
from yester.store import identity as identity_module
from yester.store.datafile import DATA_FILE
from yester.store.identity import IDENTITY_FILE, is_own_file, remember_file
from yester.store.store import Store
from yester.store.verify import verify_data_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "store") as store:
        return store.path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The stores whose pages were looked at."""
    found: list[Path] = []

    def look(path: Path) -> list[str]:
        found.append(path)
        return verify_data_file(path)

    monkeypatch.setattr(folder_module, "verify_data_file", look)
    return found


def test_a_store_knows_its_own_file(path: Path, looks: list[Path]) -> None:
    assert is_own_file(path)
    for _ in range(2):
        Store.open(path).close()
    assert looks == []


def test_a_copy_is_looked_at_once(path: Path, looks: list[Path]) -> None:
    copy = path.parent / "copy"
    shutil.copytree(path, copy)
    for _ in range(2):
        Store.open(copy).close()
    assert looks == [copy]
    assert is_own_file(copy)


def test_a_copy_that_is_only_read_is_looked_at_each_time(path: Path, looks: list[Path]) -> None:
    copy = path.parent / "copy"
    shutil.copytree(path, copy)
    before = sorted(os.listdir(copy))
    for _ in range(2):
        Store.open(copy, readonly=True).close()
    assert looks == [copy, copy]
    assert sorted(os.listdir(copy)) == before


def test_a_store_that_was_moved_knows_its_file(path: Path, looks: list[Path]) -> None:
    Store.open(path.rename(path.parent / "moved")).close()
    assert looks == []


@pytest.mark.parametrize("content", [None, b"", b"junk", b"1 1\n", b"x" * 1000])
def test_what_cannot_be_right_is_not_believed(path: Path, looks: list[Path], content: bytes | None) -> None:
    (path / IDENTITY_FILE).unlink()
    if content is not None:
        (path / IDENTITY_FILE).write_bytes(content)
    Store.open(path).close()
    assert looks == [path]


def test_a_symlink_or_a_fifo_in_its_place_is_not_followed_nor_waited_for(path: Path, looks: list[Path]) -> None:
    target = path.parent / "target"
    shutil.move(path / IDENTITY_FILE, target)
    (path / IDENTITY_FILE).symlink_to(target)
    assert not is_own_file(path)
    remember_file(path)
    assert is_own_file(path)
    (path / IDENTITY_FILE).unlink()
    os.mkfifo(path / IDENTITY_FILE)
    assert not is_own_file(path)


def test_a_copy_whose_pages_do_not_belong_together_is_refused_before_lmdb_gets_it(path: Path) -> None:
    data = (path / DATA_FILE).read_bytes()
    copy = path.parent / "copy"
    copy.mkdir()
    (copy / DATA_FILE).write_bytes(data[: 2 * 4096] + bytes(len(data) - 2 * 4096))
    with pytest.raises(CorruptionError, match="was copied, moved or restored, and its database is not whole"):
        Store.open(copy)
    assert IDENTITY_FILE not in os.listdir(copy)


def test_a_copy_that_got_the_same_inode_number_is_looked_at(path: Path, looks: list[Path]) -> None:
    """As ext4 does for whoever removes the file and puts back a copy."""
    before = (path / DATA_FILE).stat().st_ino
    if not identity_module._generation(path / DATA_FILE):
        pytest.skip("this file system has no generations")
    copy = path.parent / "copy"
    shutil.copy(path / DATA_FILE, copy)
    for _ in range(50):
        (path / DATA_FILE).unlink()
        shutil.copy(copy, path / DATA_FILE)
        if (path / DATA_FILE).stat().st_ino == before:
            break
    else:
        pytest.skip("this file system gives no inode number twice in a row")
    Store.open(path).close()
    assert looks == [path]


def test_without_generations_files_are_told_by_their_inodes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert not is_own_file(path) or (path / IDENTITY_FILE).read_bytes().endswith(b" 0\n")
    remember_file(path)
    assert is_own_file(path)
    shutil.copy(path / DATA_FILE, path / "new")
    (path / "new").replace(path / DATA_FILE)
    assert not is_own_file(path)

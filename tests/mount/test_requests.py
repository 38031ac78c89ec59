# SPDX-License-Identifier: MIT
"""What the kernel asks of a mount, and what it remembers: no request that is not needed."""

import errno
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.conftest import Place, errno_of
from yester.store.snapshots import StoredSnapshot

SMALL_FILES = 100
TESTS = 7
REQUEST_BYTES = 128 * 1024
"""The kernel asks for so much at once."""


@dataclass
class Counted:
    """A mount that writes its requests down, of two snapshots of one folder. In it are folders enough for each test to have one."""

    place: Place
    first: StoredSnapshot
    second: StoredSnapshot
    counts: Path
    used: int = 0

    def requests(self) -> Counter[str]:
        """How many of each kind there were since this was last asked."""
        os.statvfs(self.place.point)  # answered after all that were sent before it
        found = Counter(self.counts.read_text().split())
        self.counts.write_text("")
        del found["statfs"]
        return found

    def take_folder(self) -> tuple[Path, Path]:
        """A folder, in both snapshots, that nothing was asked of yet: some small files, and one of many chunks."""
        name = str(self.used)
        self.used += 1
        return self.place.shown(self.first) / name, self.place.shown(self.second) / name


@pytest.fixture(scope="module")
def counted(module_place: Place) -> Iterator[Counted]:
    rng = random.Random(1)
    for folder in range(TESTS):
        module_place.write(f"{folder}/big", rng.randbytes(3 << 20))
        for number in range(SMALL_FILES):
            module_place.write(f"{folder}/{number}", b"%d" % number)
    first, second = module_place.back_up(), module_place.back_up()
    counts = module_place.path / "requests"
    module_place.mount_counting(counts)
    yield Counted(module_place, first, second, counts)
    module_place.unmount()


def _read_all(folder: Path) -> int:
    return sum(len(file.read_bytes()) for file in folder.iterdir())


def test_the_second_snapshot_of_the_same_content_is_read_without_a_request_for_data(counted: Counted) -> None:
    first, second = counted.take_folder()
    counted.requests()
    size = _read_all(first)
    assert counted.requests()["read"] >= (3 << 20) // REQUEST_BYTES
    assert _read_all(second) == size
    assert counted.requests()["read"] == 0


def test_a_small_file_comes_with_its_opening(counted: Counted) -> None:
    folder, _ = counted.take_folder()
    counted.requests()
    for number in range(SMALL_FILES):
        assert (folder / str(number)).read_bytes() == b"%d" % number
    asked = counted.requests()
    assert asked["read"] == 0
    assert asked["open"] == SMALL_FILES


def test_what_was_read_once_is_not_asked_for_again(counted: Counted) -> None:
    folder, _ = counted.take_folder()
    size = _read_all(folder)
    counted.requests()
    assert _read_all(folder) == size
    asked = counted.requests()
    assert asked["read"] == 0
    assert asked["getattr"] + asked["lookup"] + asked["getxattr"] <= 5, asked


def test_a_listed_folder_is_not_asked_about_its_entries_one_by_one(counted: Counted) -> None:
    folder, _ = counted.take_folder()
    names = os.listdir(folder)
    counted.requests()
    assert sum((folder / name).lstat().st_size for name in names) > 3 << 20
    asked = counted.requests()
    assert asked["lookup"] + asked["getattr"] <= 5, asked


def test_a_name_that_is_not_there_is_asked_for_once(counted: Counted) -> None:
    folder, _ = counted.take_folder()
    assert not (folder / "missing").exists()
    counted.requests()
    for _ in range(10):
        assert not (folder / "missing").exists()
    asked = counted.requests()
    assert asked["lookup"] <= 5, asked  # the folders that grow, once half a second is over


def test_ls_stops_asking_for_attributes_that_nothing_has(counted: Counted) -> None:
    """It asks for each file of a folder until it is told that there is no such thing here."""
    folder, _ = counted.take_folder()
    counted.requests()
    subprocess.run(["ls", "-l", folder], check=True, stdout=subprocess.DEVNULL)
    asked = counted.requests()
    assert asked["getxattr"] <= 5, asked


def test_xattrs_that_nothing_has_are_not_supported(counted: Counted) -> None:
    folder, _ = counted.take_folder()
    for name in ("security.selinux", "system.posix_acl_access", "user.a"):
        assert errno_of(os.getxattr, folder / "big", name) == errno.EOPNOTSUPP
    assert os.listxattr(folder / "big") == []

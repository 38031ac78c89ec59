# SPDX-License-Identifier: MIT
"""A snapshot in a mount against the folder it is of, entry by entry."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import Place, Rich, errno_of
from tests.mount.richness import (
    DEEP_LEVELS,
    DEEP_NAME,
    IS_ROOT,
    LONG_NAME,
    SPARSE_BYTES,
    STRANGE_NAMES,
    access_times,
    describe,
    differences,
)

BLOCKS_OFF_MAX = 16
"""A file system rounds each run of data up to its own blocks, and may keep attributes in one more."""


def test_the_folder_has_one_of_everything(rich: Rich) -> None:
    kinds = {facts.mode[0] for facts in rich.described.facts.values()}
    assert kinds == (set("-dlpscb") if IS_ROOT else set("-dlps"))
    assert {facts.xattrs for facts in rich.described.facts.values() if len(facts.xattrs) > 3}
    assert any("system.posix_acl_default" in dict(facts.xattrs) for facts in rich.described.facts.values())
    assert sum(bool(facts.linked_to) for facts in rich.described.facts.values()) == 5


def test_a_snapshot_is_the_folder_it_is_of(rich: Rich, rich_mount: Path) -> None:
    assert not differences(rich.described, describe(rich_mount))


def test_times_of_access_are_those_before_the_backup(rich: Rich, rich_mount: Path) -> None:
    assert access_times(rich_mount) == rich.accessed


def test_blocks_are_those_of_the_folder_but_for_rounding(rich: Rich, rich_mount: Path) -> None:
    shown = describe(rich_mount).blocks
    off = {path: (blocks, shown[path]) for path, blocks in rich.described.blocks.items() if abs(shown[path] - blocks) > BLOCKS_OFF_MAX}
    assert not off
    assert shown[b"./files/sparse"] * 512 < SPARSE_BYTES // 100
    assert shown[b"./files/nothing but a hole"] == 0
    assert shown[b"./files/empty"] == 0
    assert shown[b"./files/one byte"] == 1


def test_the_entries_of_a_listing_have_the_type_and_the_inode_that_they_have(rich_mount: Path) -> None:
    for folder in ("files", "links", "special", "names", "."):
        with os.scandir(rich_mount / folder) as listing:
            for item in listing:
                status = os.lstat(item.path)
                assert item.inode() == status.st_ino
                assert item.is_symlink() == stat.S_ISLNK(status.st_mode)
                assert item.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
                assert item.is_file(follow_symlinks=False) == stat.S_ISREG(status.st_mode)


def test_a_folder_lists_itself_and_its_parent(rich_mount: Path) -> None:
    listed = subprocess.run(["ls", "-ai", rich_mount / "links"], capture_output=True, text=True, check=True).stdout.splitlines()
    inodes = {name: int(inode) for inode, name in (line.split(maxsplit=1) for line in listed)}
    assert inodes["."] == (rich_mount / "links").stat().st_ino
    assert inodes[".."] == rich_mount.stat().st_ino


def test_names_of_any_bytes_are_found_by_name(rich_mount: Path) -> None:
    folder = os.fsencode(rich_mount) + b"/names/"
    for name in [*STRANGE_NAMES, LONG_NAME]:
        with open(folder + name, "rb") as file:
            assert file.read() == b"data"


def test_a_long_path_leads_to_its_file(rich_mount: Path) -> None:
    path = os.fsencode(rich_mount) + b"/deep" + (b"/" + DEEP_NAME) * DEEP_LEVELS + b"/bottom"
    with open(path, "rb") as file:
        assert file.read() == b"data"


def test_a_path_longer_than_any_call_takes_can_be_walked(place: Place) -> None:
    name = b"x" * 200
    levels = 30
    folder = os.open(place.folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=folder)
        folder = _step(folder, name)
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    stored = place.back_up()
    place.mount()
    folder = os.open(place.shown(stored), os.O_RDONLY)
    for _ in range(levels):
        assert os.listdir(folder) == [name.decode()]
        folder = _step(folder, name)
    assert os.listdir(folder) == ["bottom"]
    os.close(folder)
    place.unmount()
    subprocess.run(["rm", "-rf", place.folder], check=True)  # pytest's own way to clean up does not get there


def _step(folder: int, name: bytes) -> int:
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    os.close(folder)
    return below


def test_hard_links_are_one_file_and_files_that_are_only_alike_have_one_link(rich_mount: Path) -> None:
    links = [rich_mount / "links" / name for name in ("hard 1", "hard 2", "folder/hard 3")]
    assert {os.lstat(link).st_ino for link in links} == {os.lstat(links[0]).st_ino}
    assert {os.lstat(link).st_nlink for link in links} == {3}
    assert {os.lstat(rich_mount / "links" / f"alike {number}").st_nlink for number in (1, 2)} == {1}


def test_xattrs_are_read_by_size_and_missing_ones_are_told(rich_mount: Path) -> None:
    file = rich_mount / "metadata" / "file with xattrs"
    assert sorted(os.listxattr(file)) == ["user.bytes", "user.empty", "user.long", "user.text"]
    assert os.getxattr(file, "user.long") == b"x" * 2000
    assert errno_of(os.getxattr, rich_mount / "metadata" / "file with an ACL", "user.text") == errno.ENODATA


def test_an_attribute_that_nothing_has_is_not_supported_at_all(rich_mount: Path) -> None:
    """Else `ls -l` would ask for it for every file."""
    assert errno_of(os.getxattr, rich_mount / "files" / "text", "security.selinux") == errno.EOPNOTSUPP


def test_device_nodes_cannot_be_opened(rich_mount: Path) -> None:
    if not IS_ROOT:
        pytest.skip("only root can make device nodes")
    with pytest.raises(PermissionError):
        os.open(rich_mount / "special" / "null", os.O_RDONLY)


def test_a_fifo_and_a_socket_can_be_looked_at_but_lead_nowhere(rich_mount: Path) -> None:
    fifo = os.open(rich_mount / "special" / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(fifo, 1) == b""
    os.close(fifo)
    assert errno_of(os.open, rich_mount / "special" / "socket", os.O_RDONLY) == errno.ENXIO


def test_hard_links_stay_one_file_when_one_of_them_is_renamed_after_it_was_read(place: Place) -> None:
    """Reading changes the time of access, which alone does not make an entry a new one: the names may have different ones."""
    first = place.write("a", b"linked")
    second = place.folder / "b"
    os.link(first, second)
    os.utime(first, ns=(10**18, 10**18))
    place.back_up()
    os.utime(first, ns=(2 * 10**18, 10**18))
    second.rename(place.folder / "c")
    folder = place.shown(place.back_up())
    place.mount()
    assert os.path.samefile(folder / "a", folder / "c")
    assert (folder / "a").stat().st_nlink == 2
    place.unmount()

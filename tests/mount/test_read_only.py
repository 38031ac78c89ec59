# SPDX-License-Identifier: MIT
"""A mount is read-only and says so: every call that would change something gives EROFS, and nothing changes."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Place, errno_of
from tests.mount.richness import describe, differences


@pytest.fixture(scope="module")
def snapshot(module_place: Place) -> Iterator[Path]:
    """A snapshot in a mount: a file, an empty folder and a symlink."""
    place = module_place
    place.write("file", b"data")
    (place.folder / "empty").mkdir()
    (place.folder / "link").symlink_to("file")
    os.setxattr(place.folder / "file", "user.a", b"1")
    stored = place.back_up()
    place.mount()
    yield place.shown(stored)
    place.unmount()


def _open(flags: int) -> Callable[[Path], object]:
    return lambda path: os.open(path, flags, 0o644)


CALLS: dict[str, Callable[[Path], object]] = {
    "open to write": _open(os.O_WRONLY),
    "open to read and write": _open(os.O_RDWR),
    "open to append": _open(os.O_WRONLY | os.O_APPEND),
    "open and truncate": _open(os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda path: os.truncate(path, 0),
    "chmod": lambda path: os.chmod(path, 0o777),
    "chown": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "utime": os.utime,
    "set an xattr": lambda path: os.setxattr(path, "user.b", b"1"),
    "replace an xattr": lambda path: os.setxattr(path, "user.a", b"2"),
    "remove an xattr": lambda path: os.removexattr(path, "user.a"),
    "unlink": os.unlink,
    "rename": lambda path: os.rename(path, path.with_name("renamed")),
    "link": lambda path: os.link(path, path.with_name("linked")),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_file_cannot_be_changed(snapshot: Path, call: str) -> None:
    _assert_refused(CALLS[call], snapshot / "file")


CREATING_CALLS: dict[str, Callable[[Path], object]] = {
    "create": _open(os.O_WRONLY | os.O_CREAT),
    "create what must be new": _open(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o644),
    "symlink": lambda path: os.symlink("target", path),
}


@pytest.mark.parametrize("call", CREATING_CALLS)
@pytest.mark.parametrize("place", ["snapshot", "snapshot/empty", "source", "snapshots", "at", "versions", "mount point"])
def test_nothing_can_be_made_anywhere(snapshot: Path, call: str, place: str) -> None:
    point = snapshot.parents[2]
    folder = {
        "snapshot": snapshot,
        "snapshot/empty": snapshot / "empty",
        "source": snapshot.parent,
        "snapshots": point / "snapshots",
        "at": point / "at",
        "versions": point / "versions",
        "mount point": point,
    }[place]
    _assert_refused(CREATING_CALLS[call], folder / "new")


def test_a_temporary_file_cannot_be_made(snapshot: Path) -> None:
    assert errno_of(os.open, snapshot, os.O_TMPFILE | os.O_RDWR) in (errno.EROFS, errno.EOPNOTSUPP)


@pytest.mark.parametrize("call", ["rmdir", "rename", "chmod", "utime"])
def test_a_folder_cannot_be_changed(snapshot: Path, call: str) -> None:
    calls: dict[str, Callable[[Path], object]] = CALLS | {"rmdir": os.rmdir}
    for folder in (snapshot / "empty", snapshot, snapshot.parent, snapshot.parents[1]):
        _assert_refused(calls[call], folder)


def test_a_symlink_cannot_be_changed(snapshot: Path) -> None:
    for link in (snapshot / "link", snapshot.parent / "latest"):
        _assert_refused(os.unlink, link)
        _assert_refused(os.utime, link, follow_symlinks=False)


def test_a_file_says_that_it_may_not_be_written(snapshot: Path) -> None:
    assert os.access(snapshot / "file", os.R_OK)
    assert not os.access(snapshot / "file", os.W_OK)


def test_a_file_cannot_be_mapped_to_write_or_changed_through_its_handle(snapshot: Path) -> None:
    file = os.open(snapshot / "file", os.O_RDONLY)
    _assert_refused(os.fchmod, file, 0o777)
    for change in (lambda: os.write(file, b"x"), lambda: os.ftruncate(file, 0), lambda: os.posix_fallocate(file, 0, 1)):
        assert errno_of(change) in (errno.EBADF, errno.EINVAL)
    os.close(file)


def test_after_all_of_that_nothing_has_changed(snapshot: Path, module_place: Place) -> None:
    assert not differences(describe(module_place.folder), describe(snapshot))


def _assert_refused(call: Callable[..., object], *arguments: object, **options: object) -> None:
    assert errno_of(call, *arguments, **options) == errno.EROFS


# --- what the system knows of the mount -------------------------------------------------------------------------------


def test_the_mount_table_shows_type_store_and_options(snapshot: Path, module_place: Place) -> None:
    [line] = [line for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[1] == str(module_place.point)]
    device, _, kind, options, *_ = line.split()
    assert device == str(module_place.store)
    assert kind == "fuse.yester"
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= set(options.split(","))
    assert "allow_other" not in options


def test_statfs_says_that_it_is_read_only_and_how_long_names_may_be(snapshot: Path) -> None:
    for path in (snapshot, snapshot.parents[2], snapshot / "file"):
        shown = os.statvfs(path)
        assert shown.f_namemax == 255
        assert shown.f_flag & os.ST_RDONLY
        assert shown.f_flag & os.ST_NOSUID
        assert shown.f_flag & os.ST_NODEV
        assert shown.f_blocks > 0
        assert shown.f_bavail == 0


@pytest.mark.parametrize("length", [256, 1024, 1025, 4000])
def test_a_name_of_more_than_255_bytes_is_too_long(snapshot: Path, length: int) -> None:
    for folder in (snapshot, snapshot.parents[2]):
        assert errno_of(os.lstat, folder / ("n" * length)) == errno.ENAMETOOLONG


def test_a_name_of_255_bytes_is_only_not_there(snapshot: Path) -> None:
    with pytest.raises(FileNotFoundError):
        os.lstat(snapshot / ("n" * 255))

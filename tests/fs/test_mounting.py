# SPDX-License-Identifier: MIT
"""What is refused before anything is mounted, and reading the system's mount table. Real mounts: tests/mount."""

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from yester.errors import BusyError, ConflictError, MountError, NotFoundError, YesterError
from yester.fs import mount_table, mounting
from yester.fs.mount_table import MountedAt, find_mount, mounts, parse_mount_table
from yester.fs.mounting import MountOptions, check_fuse, prepare_mount_point, unmount
from yester.store.store import Store


@pytest.fixture
def mount_point(tmp_path: Path) -> Path:
    point = tmp_path / "mnt"
    point.mkdir()
    return point


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


# --- the mount table --------------------------------------------------------------------------------------------------


def test_a_line_of_the_mount_table_is_read() -> None:
    line = b"36 35 0:41 / /home/ann/Snapshots ro,nosuid,nodev shared:1 master:2 - fuse.yester /srv/store ro,user_id=0\n"
    assert parse_mount_table(line) == [MountedAt(Path("/home/ann/Snapshots"), "fuse.yester", "/srv/store", os.makedev(0, 41))]


@pytest.mark.parametrize(
    ("field", "path"),
    [
        (rb"/a\040b", "/a b"),
        (rb"/a\011b\012c", "/a\tb\nc"),
        (rb"/a\134040b", r"/a\040b"),
        (b"/a\xff", os.fsdecode(b"/a\xff")),
        ("/a\u00a0b\u2003c\u2028d".encode(), "/a\u00a0b\u2003c\u2028d"),
        (b"/a\x0cb\rc\x1cd", "/a\x0cb\rc\x1cd"),
        (b"/a,b", "/a,b"),
    ],
)
def test_a_mount_point_may_have_any_bytes_in_its_name(field: bytes, path: str) -> None:
    table = b"22 1 8:1 / / rw - ext4 /dev/root rw\n36 35 0:41 / " + field + b" ro - fuse.yester " + field + b" ro\n"
    assert parse_mount_table(table)[1] == MountedAt(Path(path), "fuse.yester", path, os.makedev(0, 41))


def test_a_mount_without_a_device_is_read() -> None:
    assert parse_mount_table(b"36 35 0:41 / /x rw - tmpfs  rw\n")[0].source == ""


def test_the_table_of_this_process_has_the_root_and_each_mount_can_be_found_by_its_path() -> None:
    assert Path("/") in {mount.path for mount in mounts()}
    root = find_mount(Path("/usr/.."))
    assert root is not None
    assert not root.is_ours


def test_the_topmost_of_two_mounts_at_one_place_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = b"36 1 0:41 / /x rw - tmpfs a rw\n37 36 0:42 / /x ro - fuse.yester b ro\n"
    monkeypatch.setattr(mount_table, "mounts", lambda: parse_mount_table(table))
    found = find_mount(Path("/x"))
    assert found is not None
    assert found.is_ours


def test_a_mount_is_found_through_a_symlink(tmp_path: Path, mount_point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(mount_point)
    here = MountedAt(mount_point, "fuse.yester", "store", 1)
    monkeypatch.setattr(mount_table, "mounts", lambda: [here])
    assert find_mount(tmp_path / "link") == here
    assert find_mount(tmp_path) is None


@pytest.mark.parametrize(("number", "is_dead"), [(errno.ENOTCONN, True), (errno.ECONNABORTED, True), (errno.EACCES, False), (0, False)])
def test_a_mount_is_dead_when_nobody_answers_for_it(mount_point: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_dead: bool) -> None:
    def statvfs(_path: Path) -> None:
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert MountedAt(mount_point, "fuse.yester", "store", 1).is_dead() == is_dead


# --- mount points -----------------------------------------------------------------------------------------------------


def test_an_empty_folder_can_be_mounted_on(tmp_path: Path, mount_point: Path, store_path: Path) -> None:
    (tmp_path / "link").symlink_to(mount_point)
    assert prepare_mount_point(mount_point, store_path) == mount_point
    assert prepare_mount_point(tmp_path / "link", store_path) == mount_point


def _refusal(path: Path, store_path: Path) -> YesterError:
    with pytest.raises(YesterError) as refused:
        prepare_mount_point(path, store_path)
    assert "nothing was mounted" in refused.value.message
    return refused.value


def test_a_missing_mount_point_is_refused(tmp_path: Path, store_path: Path) -> None:
    refused = _refusal(tmp_path / "missing", store_path)
    assert isinstance(refused, NotFoundError)
    assert refused.hint == f"make it first: mkdir -p {tmp_path / 'missing'}"


def test_a_file_is_refused_as_a_mount_point(tmp_path: Path, store_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        refused = _refusal(path, store_path)
        assert isinstance(refused, ConflictError)
        assert "is not a folder" in refused.message


def test_a_folder_that_is_not_empty_is_refused(mount_point: Path, store_path: Path) -> None:
    (mount_point / ".hidden").touch()
    refused = _refusal(mount_point, store_path)
    assert isinstance(refused, ConflictError)
    assert "is not empty" in refused.message
    assert "would hide" in refused.hint


@pytest.mark.parametrize("place", [".", "inside", "inside/deeper", ".."])
def test_the_store_is_refused_and_what_is_inside_and_around_it(store_path: Path, place: str) -> None:
    (store_path / "inside" / "deeper").mkdir(parents=True)
    for path in (store_path / place, Path(os.path.relpath(store_path / place))):
        refused = _refusal(path, store_path)
        assert isinstance(refused, ConflictError)
        assert "inside one another" in refused.message


def test_a_symlink_into_the_store_is_refused(tmp_path: Path, store_path: Path) -> None:
    (store_path / "inside").mkdir()
    (tmp_path / "link").symlink_to(store_path / "inside")
    assert "inside one another" in _refusal(tmp_path / "link", store_path).message


def test_a_folder_that_may_not_be_written_is_refused(mount_point: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    refused = _refusal(mount_point, store_path)
    assert isinstance(refused, MountError)
    assert "may not write" in refused.message


def test_a_folder_that_may_not_be_listed_is_refused(mount_point: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(_path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", listdir)
    refused = _refusal(mount_point, store_path)
    assert isinstance(refused, MountError)
    assert "Permission denied" in refused.message


@pytest.fixture
def fusermount(mount_point: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A live mount of ours at `mount_point`, which the first call of fusermount3 ends. Holds the arguments of each call."""
    table = [MountedAt(mount_point, "fuse.yester", "store", 1)]
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command[1:])
        table.clear()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(mount_table, "mounts", lambda: table)
    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_a_mount_that_is_there_already_is_refused(mount_point: Path, store_path: Path, fusermount: list[list[str]]) -> None:
    with pytest.raises(ConflictError, match="is a yester mount already") as refused:
        prepare_mount_point(mount_point, store_path)
    assert refused.value.hint == f"unmount it first: yester umount {mount_point}"
    assert not fusermount


@pytest.mark.expect_log("cleaning up")
def test_a_dead_mount_is_cleaned_up(
    mount_point: Path, store_path: Path, fusermount: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MountedAt, "is_dead", lambda _self: True)
    assert prepare_mount_point(mount_point, store_path) == mount_point
    assert fusermount == [["-uz", "--", str(mount_point)]]


def test_a_mount_of_something_else_is_left_alone(mount_point: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_table, "mounts", lambda: [MountedAt(mount_point, "tmpfs", "tmpfs", 1)])
    assert prepare_mount_point(mount_point, store_path) == mount_point
    with pytest.raises(NotFoundError, match="is not a yester mount; nothing was unmounted"):
        unmount(mount_point)


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fuse_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that stands for /etc/fuse.conf; with it comes FUSE as an ordinary user has it: a device, and fusermount3."""
    device, conf = tmp_path / "fuse", tmp_path / "fuse.conf"
    device.touch(mode=0o666)
    places = {"/dev/fuse": device, "/etc/fuse.conf": conf}
    monkeypatch.setattr(mounting, "Path", lambda path: places.get(path) or Path(path))
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return conf


def _fuse_refusal(options: MountOptions) -> MountError:
    with pytest.raises(MountError) as refused:
        check_fuse(options)
    assert "nothing was mounted" in refused.value.message
    return refused.value


def test_fuse_that_is_there_is_accepted(fuse_conf: Path) -> None:
    check_fuse(MountOptions())


def test_a_system_without_fuse_is_told_so(fuse_conf: Path, tmp_path: Path) -> None:
    (tmp_path / "fuse").unlink()
    refused = _fuse_refusal(MountOptions())
    assert "there is no /dev/fuse" in refused.message
    assert "modprobe fuse" in refused.hint
    assert "--device /dev/fuse" in refused.hint


def test_a_user_without_rights_on_the_device_is_told_of_its_group(fuse_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused = _fuse_refusal(MountOptions())
    assert "may not use /dev/fuse" in refused.message
    assert "group" in refused.hint


def test_a_missing_fusermount_is_told_by_its_package(fuse_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    refused = _fuse_refusal(MountOptions())
    assert "fusermount3 is not installed" in refused.message
    assert "apt-get install fuse3" in refused.hint


@pytest.mark.parametrize("text", [None, "", "# user_allow_other\n", "user_allow_others\n", "mount_max = 10\n"])
def test_allow_other_is_refused_to_ordinary_users_unless_the_system_allows_it(fuse_conf: Path, text: str | None) -> None:
    if text is not None:
        fuse_conf.write_text(text)
    refused = _fuse_refusal(MountOptions(allow_other=True))
    assert "--allow-other is not permitted" in refused.message
    assert "`user_allow_other` into /etc/fuse.conf" in refused.hint
    check_fuse(MountOptions())


def test_allow_other_is_for_root_and_where_the_system_allows_it(fuse_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuse_conf.write_text("mount_max = 10\n user_allow_other \n")
    check_fuse(MountOptions(allow_other=True))
    fuse_conf.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_fuse(MountOptions(allow_other=True))


# --- unmounting -------------------------------------------------------------------------------------------------------


def test_unmounting_says_whether_the_mount_was_dead(mount_point: Path, fusermount: list[list[str]]) -> None:
    assert not unmount(mount_point).was_dead
    assert fusermount == [["-u", "--", str(mount_point)]]


def test_a_dead_mount_is_unmounted_lazily(mount_point: Path, fusermount: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MountedAt, "is_dead", lambda _self: True)
    assert unmount(mount_point).was_dead
    assert fusermount == [["-uz", "--", str(mount_point)]]


def test_a_folder_that_is_no_mount_is_not_unmounted(mount_point: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a yester mount") as refused:
        unmount(mount_point)
    assert "findmnt -t fuse.yester" in refused.value.hint


def _fusermount_says(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", said))


def test_a_mount_in_use_stays_and_the_message_says_how_to_go_on(
    mount_point: Path, fusermount: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _fusermount_says(monkeypatch, f"fusermount3: failed to unmount {mount_point}: Device or resource busy\n")
    with pytest.raises(BusyError, match="is in use and stays mounted") as refused:
        unmount(mount_point)
    assert f"fuser -vm {mount_point}" in refused.value.hint
    assert f"yester umount --lazy {mount_point}" in refused.value.hint


def test_what_fusermount_says_otherwise_is_passed_on(
    mount_point: Path, fusermount: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _fusermount_says(monkeypatch, "fusermount3: entry not found in /etc/mtab\n")
    with pytest.raises(MountError, match=re.escape("could not be unmounted: fusermount3: entry not found in /etc/mtab")):
        unmount(mount_point)


def test_unmounting_without_fusermount_names_its_package(
    mount_point: Path, fusermount: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(MountError, match="cannot run fusermount3") as refused:
        unmount(mount_point)
    assert "apt-get install fuse3" in refused.value.hint


# --- what the mount table shows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option"),
    [("plain", "plain"), ("a,b", r"a\054b"), ("a\\b", r"a\134b"), ("a b\n", r"a\040b\012"), ("\u00e9", r"\303\251")],
)
def test_the_stores_path_becomes_one_option_of_libfuse(tmp_path: Path, name: str, option: str) -> None:
    with Store.create(tmp_path / name) as store:
        assert mounting._fsname(store.path) == f"{tmp_path}/{option}"

# SPDX-License-Identifier: MIT
"""Mounting and unmounting, and what can go wrong with each. Nothing stays behind, and nothing is left half done."""

import contextlib
import errno
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import COMMAND, DEADLINE_S, Place, environment, errno_of, find_server, mounted_below, new_place, run
from tests.mount.richness import IS_ROOT


@pytest.fixture
def backed_up(place: Place) -> Place:
    """A place with one snapshot of a file `a`; not mounted."""
    place.write("a", b"data")
    place.back_up()
    return place


def latest(place: Place, point: Path | None = None) -> Path:
    return (point or place.point) / "snapshots" / "docs" / "latest"


# --- mounting and unmounting ------------------------------------------------------------------------------------------


def test_a_mount_serves_once_the_command_returns_and_nothing_stays_when_it_ends(backed_up: Place) -> None:
    server = backed_up.mount()
    assert (latest(backed_up) / "a").read_bytes() == b"data"
    assert os.getsid(server.pid) == server.pid
    assert os.readlink(f"/proc/{server.pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{server.pid}/fd/{number}") for number in (0, 1, 2)} == {os.devnull}
    done = backed_up.run("umount", backed_up.point)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not mounted_below(backed_up.path)
    assert os.listdir(backed_up.point) == []
    server.wait_ended()


def test_a_store_and_a_mount_point_may_be_named_from_here(backed_up: Place) -> None:
    point = Path(f"point of {os.getpid()}")
    (backed_up.path / point).mkdir()
    done = backed_up.run("mount", "--store", "store", "--log", "mount.log", point, cwd=backed_up.path)
    assert (done.returncode, done.stderr) == (0, "")
    backed_up.watch(find_server(point))
    assert os.statvfs(backed_up.path / point).f_blocks > 0
    assert (latest(backed_up, backed_up.path / point) / "a").read_bytes() == b"data"
    done = backed_up.run("umount", point, cwd=backed_up.path)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_shell_has_open_does_not_stay_open(backed_up: Place) -> None:
    read_end, write_end = os.pipe()
    command = [*COMMAND, "mount", "--store", str(backed_up.store), "--log", str(backed_up.log), str(backed_up.point)]
    subprocess.run(command, env=environment(backed_up.path), pass_fds=[write_end], check=True)
    backed_up.watch(find_server(backed_up.point))
    os.close(write_end)
    assert select.select([read_end], [], [], DEADLINE_S) == ([read_end], [], []), "the mount holds the other end of a pipe"
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    backed_up.unmount()


@pytest.mark.parametrize("name", [" blank, ro\\040 new\nline ", "no\u00a0break space \u00fc\U0001f600"])
def test_store_and_mount_point_may_have_any_name(tmp_path: Path, name: str) -> None:
    with new_place(tmp_path / name) as place:
        place.write("a", b"data")
        place.back_up()
        place.mount()
        assert (latest(place) / "a").read_bytes() == b"data"
        assert "is a yester mount already" in place.run("mount", "--store", place.store, place.point).stderr
        assert place.run("umount", place.point).returncode == 0


def test_one_store_may_be_mounted_twice(backed_up: Place) -> None:
    second = backed_up.path / "second"
    second.mkdir()
    backed_up.mount()
    backed_up.mount(point=second)
    assert (latest(backed_up) / "a").read_bytes() == (latest(backed_up, second) / "a").read_bytes()
    backed_up.unmount()


def test_backing_up_a_folder_leaves_out_the_mount_in_it(place: Place) -> None:
    inner = place.folder / "mnt"
    inner.mkdir()
    place.write("a", b"data")
    place.back_up()
    place.mount(point=inner)
    stored = place.back_up()
    assert stored.snapshot.totals.files == 1
    assert os.listdir(inner / "snapshots" / "docs" / stored.snapshot.name / "mnt") == []
    place.unmount()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(backed_up: Place, number: signal.Signals) -> None:
    server = backed_up.mount()
    server.signal(number)
    server.wait_ended()
    assert not mounted_below(backed_up.path)
    assert os.listdir(backed_up.point) == []


def test_a_mount_in_the_foreground_ends_with_its_mount(backed_up: Place) -> None:
    server = backed_up.mount_counting(backed_up.path / "requests")
    assert (latest(backed_up) / "a").read_bytes() == b"data"
    subprocess.run(["fusermount3", "-u", backed_up.point], check=True)
    server.wait_ended()
    assert backed_up.processes[0].wait() == 0


def test_a_mount_that_is_unmounted_from_outside_ends(backed_up: Place) -> None:
    server = backed_up.mount()
    subprocess.run(["fusermount3", "-u", backed_up.point], check=True)
    server.wait_ended()


def test_a_mount_whose_connection_is_cut_ends_and_can_be_cleaned_up(backed_up: Place) -> None:
    server = backed_up.mount()
    with connections(backed_up.path) as folder:
        (folder / str(os.minor(os.stat(backed_up.point).st_dev)) / "abort").write_text("1")
    server.wait_ended()
    assert backed_up.run("umount", backed_up.point).returncode == 0
    assert not mounted_below(backed_up.path)


@contextmanager
def connections(path: Path) -> Iterator[Path]:
    """Where FUSE connections are controlled. Containers often lack it."""
    folder = Path("/sys/fs/fuse/connections")
    if any(folder.iterdir()):
        yield folder
        return
    if not IS_ROOT:
        pytest.skip("connections cannot be controlled here")
    folder = path / "connections"
    folder.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# --- mounting where that cannot be ------------------------------------------------------------------------------------


def refused(place: Place, *arguments: str | Path) -> str:
    """What a mount that must be refused says; nothing is mounted."""
    before = set(place.path.rglob("*"))
    done = place.run("mount", "--log", place.log, "--store", place.store, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not mounted_below(place.path)
    assert set(place.path.rglob("*")) - before <= {place.log}
    return done.stderr


def test_a_mount_point_that_cannot_be_one_is_refused(backed_up: Place) -> None:
    (backed_up.store / "inside").mkdir()
    for path, said in {
        backed_up.folder: "is not empty",
        backed_up.path / "missing": "does not exist",
        backed_up.folder / "a": "is not a folder",
        backed_up.store / "inside": "lie inside one another",
    }.items():
        text = refused(backed_up, path)
        assert said in text
        assert "nothing was mounted" in text
    (backed_up.store / "inside").rmdir()


def test_a_store_that_is_none_is_refused(place: Place) -> None:
    assert "there is no store in" in refused(place, place.point)
    place.store.write_text("a file")
    assert "is a file" in refused(place, place.point)


def test_a_mount_that_is_there_already_stays_as_it_is(backed_up: Place) -> None:
    backed_up.mount()
    done = backed_up.run("mount", "--store", backed_up.store, backed_up.point)
    assert done.returncode == 1
    assert "is a yester mount already" in done.stderr
    assert f"hint: unmount it first: yester umount {backed_up.point}" in done.stderr
    assert (latest(backed_up) / "a").read_bytes() == b"data"
    backed_up.unmount()


def test_a_log_that_cannot_be_written_is_told_and_does_not_matter(backed_up: Place) -> None:
    done = backed_up.run("mount", "--store", backed_up.store, "--log", backed_up.folder, backed_up.point)
    assert done.returncode == 0
    assert "cannot write the log" in done.stderr
    backed_up.watch(find_server(backed_up.point))
    backed_up.unmount()


# --- unmounting what cannot be ----------------------------------------------------------------------------------------


def test_a_mount_in_use_stays_unless_it_is_taken_away(backed_up: Place) -> None:
    server = backed_up.mount()
    with (latest(backed_up) / "a").open("rb") as file:
        done = backed_up.run("umount", backed_up.point)
        assert done.returncode == 1
        assert "is in use and stays mounted" in done.stderr
        assert f"yester umount --lazy {backed_up.point}" in done.stderr
        assert file.read(2) == b"da"
        assert backed_up.run("umount", "--lazy", backed_up.point).returncode == 0
        assert not mounted_below(backed_up.path)
        assert os.listdir(backed_up.point) == []
        assert file.read() == b"ta"
        assert server.is_running
    server.wait_ended()


def test_a_shell_in_a_mount_keeps_it(backed_up: Place) -> None:
    backed_up.mount()
    with subprocess.Popen(["cat"], cwd=latest(backed_up), stdin=subprocess.PIPE):
        done = backed_up.run("umount", backed_up.point)
        assert done.returncode == 1
        assert "is in use and stays mounted" in done.stderr
    backed_up.unmount()


def test_what_is_no_mount_of_ours_is_not_unmounted(backed_up: Place) -> None:
    done = backed_up.run("umount", backed_up.point)
    assert done.returncode == 1
    assert "is not a yester mount; nothing was unmounted" in done.stderr


# --- a process that died ----------------------------------------------------------------------------------------------


@pytest.fixture
def dead(backed_up: Place) -> Place:
    """A mount whose process was killed, after it had been looked at."""
    server = backed_up.mount()
    assert (latest(backed_up) / "a").read_bytes() == b"data"
    os.stat(backed_up.point)
    server.signal(signal.SIGKILL)
    server.wait_ended()
    return backed_up


def test_a_dead_mount_does_not_look_like_an_empty_folder(dead: Place) -> None:
    for look in (os.listdir, os.statvfs, lambda point: os.listdir(point / "snapshots")):
        assert errno_of(look, dead.point) == errno.ENOTCONN
    assert mounted_below(dead.path) == [dead.point]


def test_umount_cleans_up_a_dead_mount(dead: Place) -> None:
    done = dead.run("umount", dead.point)
    assert done.returncode == 0
    assert done.stderr == f"cleaned up {dead.point}: the process that served it had died\n"
    assert os.listdir(dead.point) == []


def test_umount_cleans_up_a_dead_mount_that_is_in_use(backed_up: Place) -> None:
    server = backed_up.mount()
    file = os.open(latest(backed_up) / "a", os.O_RDONLY)
    server.signal(signal.SIGKILL)
    server.wait_ended()
    assert backed_up.run("umount", backed_up.point).returncode == 0
    assert not mounted_below(backed_up.path)
    with contextlib.suppress(OSError):  # nobody is there to be told
        os.close(file)


def test_mount_cleans_up_a_dead_mount_and_mounts(dead: Place) -> None:
    link = dead.path / "link"
    link.symlink_to(dead.point)
    done = dead.run("mount", "--store", dead.store, "--log", dead.log, link)
    assert done.returncode == 0
    assert done.stderr == f"cleaning up {link}: the process that served it is gone\n"
    dead.watch(find_server(link))
    assert mounted_below(dead.path) == [dead.point]
    assert (latest(dead) / "a").read_bytes() == b"data"
    dead.unmount()


def test_a_mount_whose_process_hangs_can_be_taken_away(backed_up: Place) -> None:
    """And without --lazy it is told how."""
    server = backed_up.mount()
    server.signal(signal.SIGSTOP)
    try:
        waited = backed_up.run("umount", backed_up.point)
        assert waited.returncode == 1
        assert "is there but does not answer; nothing was changed" in waited.stderr
        assert "umount --lazy" in waited.stderr
        assert backed_up.run("umount", "--lazy", backed_up.point).returncode == 0
        assert not mounted_below(backed_up.path)
    finally:
        server.signal(signal.SIGCONT)
    server.wait_ended()


# --- no FUSE, no rights -----------------------------------------------------------------------------------------------


def test_without_fusermount3_its_package_is_named(backed_up: Place) -> None:
    done = backed_up.run("mount", "--store", backed_up.store, backed_up.point, PATH="/nonexistent")
    assert done.returncode == 1
    assert "fusermount3 is not installed; nothing was mounted" in done.stderr
    assert "apt-get install fuse3" in done.stderr


def test_without_a_fuse_device_the_message_says_how_to_get_one(backed_up: Place) -> None:
    done = _mount_with_own_dev(backed_up, "true")
    assert done.returncode == 1
    assert "there is no /dev/fuse" in done.stderr
    assert "modprobe fuse" in done.stderr
    assert not mounted_below(backed_up.path)


def _mount_with_own_dev(place: Place, make_device: str) -> subprocess.CompletedProcess[str]:
    """`yester mount` where /dev is another."""
    script = f'mount -t tmpfs none /dev && {make_device} && exec "$@"'
    own = ["unshare", "--mount"] if IS_ROOT else ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*own, "sh", "-c", "mount -t tmpfs none /dev"], check=False, capture_output=True).returncode:
        pytest.skip("this user may make no namespaces")
    return run([*own, "sh", "-c", script, "sh", *COMMAND, "mount", "--store", place.store, place.point], place.path)


def test_a_user_without_rights_on_the_device_is_told_of_its_group(backed_up: Place) -> None:
    if not IS_ROOT:
        pytest.skip("only root can make a device that it may not use")
    as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    if run([*as_nobody.split(), *COMMAND, "--version"], backed_up.path).returncode:
        pytest.skip("others may not run this Python")
    done = _mount_with_own_dev(backed_up, f'mknod -m 600 /dev/fuse c 10 229 && set -- {as_nobody} "$@"')
    assert done.returncode == 1
    assert "you may not use /dev/fuse; nothing was mounted" in done.stderr
    assert "group that owns it" in done.stderr


def test_a_mount_that_the_system_refuses_leaves_nothing_behind(backed_up: Place) -> None:
    if not IS_ROOT:
        pytest.skip("fusermount3 would mount")
    without_rights = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    done = run([*without_rights, *COMMAND, "mount", "--store", backed_up.store, backed_up.point], backed_up.path)
    assert done.returncode == 1
    assert f"FUSE refused to mount on {backed_up.point}; nothing was mounted" in done.stderr
    assert "Operation not permitted" in done.stderr
    assert not mounted_below(backed_up.path)
    assert not find_server(backed_up.point)

# SPDX-License-Identifier: MIT
"""Mounts of an encrypted store: they show and keep the same, and the passphrase is asked for before they go into the background."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.encrypted import PASSPHRASE
from tests.mount.conftest import COMMAND, Place, environment, find_server, new_place, wait_until
from tests.mount.richness import describe, differences, make_rich_folder


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with new_place(tmp_path) as place:
        place.is_encrypted = True
        place.open_store().close()
        yield place


def test_a_snapshot_is_the_folder_it_is_of(place: Place) -> None:
    make_rich_folder(place.folder)
    before = describe(place.folder)
    stored = place.back_up()
    place.mount()
    assert not differences(before, describe(place.shown(stored)))


def test_a_restore_by_several_processes_is_the_folder(place: Place) -> None:
    make_rich_folder(place.folder)
    before = describe(place.folder)
    place.back_up()
    done = place.run("restore", "--store", place.store, "docs", "--to", place.path / "restored")
    assert done.returncode == 0, done.stderr
    assert not differences(before, describe(place.path / "restored"))


def test_what_is_written_in_a_live_folder_is_there_after_it_was_killed_and_in_its_versions(place: Place) -> None:
    server = place.mount_live()
    data = os.urandom(300_000)
    for number in range(50):
        (place.point / f"file {number}").write_bytes(data[number * 1000 :])
    place.make_version()
    with open(place.point / "file 7", "r+b") as file:
        file.seek(100_000)
        file.write(b"x" * 70_000)
        file.flush()
        os.fsync(file.fileno())
        server.signal(signal.SIGKILL)
    server.wait_ended()
    assert b"file 7" not in (place.store / "data.mdb").read_bytes()
    place.mount_live()
    assert (place.point / "file 7").read_bytes() == data[7000:107_000] + b"x" * 70_000 + data[177_000:]
    [version] = os.listdir(place.point / ".snapshots")
    assert all((place.point / ".snapshots" / version / f"file {number}").read_bytes() == data[number * 1000 :] for number in range(50))


def test_unmounting_waits_and_asks_for_nothing(place: Place) -> None:
    server = place.mount_live()
    (place.point / "file").write_bytes(b"text")
    done = place.run("umount", place.point, YESTER_PASSPHRASE="")
    assert (done.returncode, done.stdout) == (0, f"unmounted {place.point}; everything that was written is in the store\n"), done.stderr
    assert not server.is_running or "waiting" in done.stderr
    server.wait_ended()
    with place.open_store() as store:
        assert store.sources() == ["live/work"]


@pytest.mark.parametrize("command", ["mount", "live"])
def test_without_the_passphrase_nothing_is_mounted_and_it_is_said(place: Place, command: str) -> None:
    for passphrase, said in (("", "nothing here tells its passphrase"), ("wrong", "wrong passphrase")):
        done = place.run(command, "--store", place.store, place.point, YESTER_PASSPHRASE=passphrase)
        assert (done.returncode, said in done.stderr) == (1, True)
        assert not os.path.ismount(place.point)


def test_the_passphrase_is_asked_for_where_there_is_a_terminal_and_is_in_no_argument(place: Place) -> None:
    place.write("letter", b"text")
    place.back_up()
    child, terminal = os.forkpty()
    if not child:
        arguments = ["mount", "--store", str(place.store), "--log", str(place.log), str(place.point)]
        os.execve(COMMAND[0], [*COMMAND, *arguments], environment(place.path))
    said = b""
    while b"passphrase of" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, PASSPHRASE.encode() + b"\n")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    wait_until(lambda: os.path.ismount(place.point), "it is mounted")
    os.close(terminal)
    server = place.watch(find_server(place.point))
    assert PASSPHRASE.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes() + Path(f"/proc/{server.pid}/environ").read_bytes()
    assert (place.point / "snapshots" / "docs" / "latest" / "letter").read_bytes() == b"text"

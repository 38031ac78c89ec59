# SPDX-License-Identifier: MIT
"""A disk under the store that is full, limited, or that fails: a clear error, nothing published, all that was stored is whole."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest

from tests.faults.sabotage import Call, Ending, Fault, Saboteur
from tests.faults.witness import SMALL_CHUNKS, Nodes, judge, sample_nodes, write_nodes
from yester.core.chunking import KIB
from yester.engine.check import check
from yester.store.datafile import DATA_FILE
from yester.store.store import Store

DISK_BYTES = 8 * 1024 * KIB
SAFE = "what was committed before is whole"
STEP_BYTES = 256 * KIB


@contextmanager
def small_disk(kind: str, folder: Path) -> Iterator[Path]:
    """An empty file system of 8 MB, mounted in `folder`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = folder / "disk"
    mount.mkdir()
    with ExitStack() as stack:
        if kind == "tmpfs":
            command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", mount]
        else:
            image = folder / "disk.img"
            with image.open("wb") as file:
                file.truncate(DISK_BYTES)
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
            command = ["mount", "-o", "loop", image, mount]
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"this machine mounts no {kind}: {mounted.stderr.strip()}")
        stack.callback(lambda: subprocess.run(["umount", mount], check=True))
        yield mount


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with small_disk(request.param, tmp_path) as mount:
        yield mount


class Sample:
    """Folders to back up."""

    def __init__(self, folder: Path) -> None:
        self.nodes: dict[str, Nodes] = {
            name: sample_nodes(1, 0, files=files) for name, files in (("first", 9), ("second", 60), ("third", 18))
        }
        self.first, self.second, self.third = folder / "first", folder / "second", folder / "third"
        for name, nodes in self.nodes.items():
            write_nodes(folder / name, nodes)

    def make_store(self, path: Path, saboteur: Saboteur) -> None:
        """A store with a snapshot of the first folder."""
        Store.create(path, chunking=SMALL_CHUNKS).close()
        assert saboteur.run("backup", "--store", path, self.first).status == 0

    def assert_whole(self, path: Path, *sources: str) -> None:
        """The store holds a snapshot of just these sources, every byte is right, and check says so."""
        with Store.open(path) as store:
            report = check(store, read_data=True)
            assert report.is_whole, report
            snapshots = store.snapshots()
            assert tuple(stored.snapshot.source for stored in snapshots) == sources
            for stored in snapshots:
                judgement = judge(store, stored, self.nodes[stored.snapshot.source])
                assert judgement.is_whole(), judgement


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("full"))


def fill(disk: Path, *, leave_bytes: int) -> Path:
    """Fill a disk with a file, but for so much."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for piece_bytes in (64 * KIB, 4 * KIB):
            with suppress(OSError):
                while True:
                    file.write(bytes(piece_bytes))
        file.truncate(max(0, file.tell() - leave_bytes))
        os.fsync(file.fileno())
    return ballast


def assert_says_full(ending: Ending) -> None:
    """Exit status, what failed, in which state things are, what to do."""
    assert ending.status == 1, ending
    assert ending.err.startswith("yester: no space left for the store "), ending
    assert f"{SAFE}\nhint: free space on that disk and run the command again" in ending.err
    assert not ending.out


def test_a_disk_that_gets_full_ends_a_backup_which_goes_on_when_there_is_room(disk: Path, sample: Sample, saboteur: Saboteur) -> None:
    full = 0
    for leave_bytes in range(0, DISK_BYTES, STEP_BYTES):
        store = disk / f"store{leave_bytes}"
        sample.make_store(store, saboteur)
        ballast = fill(disk, leave_bytes=leave_bytes)
        ending = saboteur.run("backup", "--store", store, sample.second)
        if ending.status == 0:
            break
        full += 1
        assert_says_full(ending)
        sample.assert_whole(store, "first")

        ballast.unlink()
        assert saboteur.run("backup", "--store", store, sample.second).status == 0
        sample.assert_whole(store, "first", "second")
        shutil.rmtree(store)
    sample.assert_whole(store, "first", "second")
    assert full >= 3


@pytest.mark.expect_log("no lease could be taken")  # by this process, while the disk is full
def test_a_disk_without_room_for_a_store_says_so_and_a_store_can_be_made_when_there_is(
    disk: Path, sample: Sample, saboteur: Saboteur
) -> None:
    full = 0
    for leave_bytes in range(4 * KIB, 400 * KIB, 8 * KIB):
        store = disk / f"store{leave_bytes}"
        ballast = fill(disk, leave_bytes=leave_bytes)
        ending = saboteur.run("init", "--store", store)
        if ending.status == 0:
            break
        full += 1
        assert_says_full(ending)

        ballast.unlink()
        assert saboteur.run("backup", "--store", store, sample.first).status == 0
        sample.assert_whole(store, "first")
        shutil.rmtree(store)
    sample.assert_whole(store)
    assert full >= 2


def test_a_limit_on_the_size_of_files_is_told_from_a_full_disk(sample: Sample, saboteur: Saboteur, tmp_path: Path) -> None:
    """`ulimit -f`, and file systems such as FAT. Needs no rights, so an ordinary user's tests cover this much, too."""
    sample.make_store(tmp_path / "store", saboteur)
    first_bytes = (tmp_path / "store" / DATA_FILE).stat().st_size
    for number in count():
        store = shutil.copytree(tmp_path / "store", tmp_path / str(number))
        limit = Fault(file_size=first_bytes + number * STEP_BYTES)
        ending = saboteur.run("backup", "--store", store, sample.second, fault=limit)
        if ending.status == 0:
            break
        assert ending.status == 1, ending
        assert "allows no larger file" in ending.err or "Input/output error" in ending.err  # a write that got half way
        assert SAFE in ending.err
        sample.assert_whole(store, "first")
        assert saboteur.run("backup", "--store", store, sample.second).status == 0
        sample.assert_whole(store, "first", "second")
    assert number >= 3
    sample.assert_whole(store, "first", "second")


@pytest.mark.parametrize("address_space", [1 << 30, 1 << 38])
def test_a_process_with_less_address_space_than_a_map_usually_has_works(
    sample: Sample, saboteur: Saboteur, tmp_path: Path, address_space: int
) -> None:
    """`ulimit -v`; and 64-bit ARM, where some kernels give a process 512 GiB."""
    limit = Fault(address_space=address_space)
    assert saboteur.run("backup", "--store", tmp_path, sample.first, fault=limit).status == 0
    ending = saboteur.run("check", "--read-data", "--store", tmp_path, fault=limit)
    assert ending.out.endswith("nothing wrong\n"), ending
    sample.assert_whole(tmp_path, "first")


@pytest.mark.parametrize(
    "kind",
    [
        Fault(action=Call.FAIL, error=errno.EIO),
        Fault(action=Call.FAIL, error=errno.ENOSPC, is_lasting=True),
        Fault(action=Call.FAIL_HALF, error=errno.EIO, is_lasting=True),
    ],
    ids=["I-O error once", "no space from then on", "half written and I-O errors from then on"],
)
def test_a_write_or_sync_that_fails_ends_the_backup_and_nothing_is_lost(
    sample: Sample, saboteur: Saboteur, tmp_path: Path, kind: Fault
) -> None:
    """Each system call of a backup in its turn."""
    sample.make_store(tmp_path / "store", saboteur)
    for number in count(1):
        store = shutil.copytree(tmp_path / "store", tmp_path / str(number))
        ending = saboteur.run("backup", "--store", store, sample.third, fault=msgspec.structs.replace(kind, call=number))
        if ending.status == 0:
            break
        if kind.error == errno.ENOSPC:
            assert_says_full(ending)
        else:
            assert ending.status == 1, ending
            assert f"Input/output error; {SAFE}\nhint: check the disk" in ending.err
        sample.assert_whole(store, "first")
        assert saboteur.run("backup", "--store", store, sample.third).status == 0
        sample.assert_whole(store, "first", "third")
        shutil.rmtree(store)
    sample.assert_whole(store, "first", "third")
    assert number >= 20


@pytest.mark.parametrize("command", ["init", "snapshots"])
def test_a_disk_without_room_for_the_lock_file_is_an_error_and_no_signal(disk: Path, tmp_path: Path, command: str) -> None:
    """LMDB maps it while it is all hole: touching it is SIGBUS where no block is left."""
    store = disk / "store"
    if command == "snapshots":
        Store.create(store).close()
        (store / "lock.mdb").unlink()
    with suppress(OSError), (disk / "filling").open("wb", buffering=0) as filling:
        while True:
            filling.write(bytes(4 * KIB))
    arguments: list[str | Path] = [sys.executable, "-m", "yester", command, "--store", store]
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == 1, done
    assert "no space left" in done.stderr.lower() or "No space left" in done.stderr
    assert "Traceback" not in done.stderr

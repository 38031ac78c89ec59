# SPDX-License-Identifier: MIT
"""A prune or a compaction that is killed, or whose disk fails or is full, at any moment loses nothing that is needed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import msgspec
import pytest

from tests.faults.sabotage import ROOT, Call, Fault, Saboteur
from tests.faults.test_disk_full import disk as disk  # noqa: PLC0414 (a fixture)
from tests.faults.test_disk_full import fill
from tests.faults.witness import SMALL_CHUNKS, judge, sample_nodes, write_nodes
from yester.engine.check import check
from yester.engine.prune import prune
from yester.store.lmdb import Table
from yester.store.store import Store

FILES = 40
VERSIONS = 3
COMMITS_MIN = 5
CALLS_MIN = 20


class Sample:
    """A store with three snapshots of which two are forgotten, one of them with nobody who could still want it."""

    def __init__(self, folder: Path, saboteur: Saboteur) -> None:
        self.versions = [sample_nodes(3, version, files=FILES) for version in range(VERSIONS)]
        self.folder, self.store = folder / "sample", folder / "store"
        Store.create(self.store, chunking=SMALL_CHUNKS).close()
        for nodes in self.versions:
            write_nodes(self.folder, nodes)
            assert saboteur.run("backup", "--store", self.store, self.folder).status == 0
        with Store.open(self.store) as store:
            self.ids = [stored.id for stored in store.snapshots()]
            store.forget(self.ids[:2], now_ns=1)

    def copy_store(self, path: Path) -> Path:
        return shutil.copytree(self.store, path, ignore=shutil.ignore_patterns("leases"))

    def look(self, path: Path) -> tuple[int, int, int]:
        """Everything that is listed must be whole. Returns how many forgotten snapshots, chunks and segments there are."""
        with Store.open(path) as store:
            report = check(store, read_data=True)
            assert report.is_whole, report
            forgotten = [found.stored for found in store.forgotten_snapshots()]
            assert [stored.id for stored in store.snapshots("sample")] == self.ids[2:]
            for stored in [*store.snapshots("sample"), *forgotten]:
                judgement = judge(store, stored, self.versions[self.ids.index(stored.id)])
                assert judgement.is_whole(), judgement
            with store.environment.read() as view:
                return len(forgotten), view.count(Table.CHUNKS), view.count(Table.SEGMENTS)

    def finish(self, path: Path, saboteur: Saboteur) -> tuple[int, int, int]:
        """Prune without a fault."""
        ending = saboteur.run("prune", "--grace", "0", "--store", path)
        assert ending.status == 0, ending
        return self.look(path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, saboteur: Saboteur) -> Sample:
    return Sample(tmp_path_factory.mktemp("prune"), saboteur)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_prune_killed_at_any_commit_harms_nothing_and_is_gone_on_with(
    sample: Sample, saboteur: Saboteur, tmp_path: Path, moment: str
) -> None:
    before = sample.look(sample.copy_store(tmp_path / "0"))
    whole = sample.finish(tmp_path / "0", saboteur)
    assert before[0] == 2
    assert whole[0] == 0
    assert whole[1] < before[1]
    found = []
    for number in count(1):
        path = sample.copy_store(tmp_path / str(number))
        fault = Fault(before_commit=number) if moment == "before" else Fault(after_commit=number)
        ending = saboteur.run("prune", "--grace", "0", "--store", path, fault=fault)
        if ending.status == 0:
            break
        assert ending.status == -signal.SIGKILL, ending
        found.append(sample.look(path))
        forgotten, chunks, _ = sample.finish(path, saboteur)
        assert (forgotten, chunks) == whole[:2]
        shutil.rmtree(path)
    assert len(found) >= COMMITS_MIN
    assert len(set(found)) >= COMMITS_MIN - 2, "it was killed at different moments"
    assert [forgotten for forgotten, _, _ in found] == sorted((forgotten for forgotten, _, _ in found), reverse=True)


KINDS = [
    Fault(action=Call.KILL_BEFORE),
    Fault(action=Call.KILL_HALF),
    Fault(action=Call.FAIL, error=errno.EIO),
    Fault(action=Call.FAIL, error=errno.ENOSPC, is_lasting=True),
    Fault(action=Call.FAIL_HALF, error=errno.EIO, is_lasting=True),
]
NAMES = ["killed", "killed half way", "I-O error once", "no space from then on", "half written and I-O errors from then on"]


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("command", ["prune", "compact"])
def test_a_system_call_that_fails_or_is_the_last_loses_nothing(
    sample: Sample, saboteur: Saboteur, tmp_path: Path, kind: Fault, command: str
) -> None:
    """Each sixth system call of a prune that writes or syncs a data file, each of a compaction."""
    arguments = ["prune", "--grace", "0"] if command == "prune" else ["compact"]
    base = sample.copy_store(tmp_path / "base")
    if command == "compact":
        sample.finish(base, saboteur)
    before = sample.look(base)
    for number in count(1, step=6 if command == "prune" else 1):
        path = shutil.copytree(base, tmp_path / str(number), ignore=shutil.ignore_patterns("leases"))
        ending = saboteur.run(*arguments, "--store", path, fault=msgspec.structs.replace(kind, call=number))
        if ending.status == 0:
            break
        if kind.error:
            assert ending.status == 1, ending
            assert "Traceback" not in ending.err
            assert kind.error != errno.ENOSPC or "no space left" in ending.err
            assert "nothing was changed" in ending.err or "what was committed before is whole" in ending.err
        after = sample.look(path)
        assert all(now <= then for now, then in zip(after[:2], before[:2], strict=True))
        if command == "compact":
            assert after == before
        assert not (path / "compact.new").exists()
        ending = saboteur.run(*arguments, "--store", path)
        assert ending.status == 0, ending
        shutil.rmtree(path)
    assert number >= (CALLS_MIN if command == "prune" else 3)
    sample.look(path)


def test_a_full_disk_can_be_pruned(disk: Path, sample: Sample, saboteur: Saboteur, tmp_path: Path) -> None:
    """Removing needs pages as well: they are kept ready."""
    filler = tmp_path / "filler"
    filler.mkdir()
    path = sample.copy_store(disk / "store")
    with Store.open(path) as store:
        store.keep_reserve(free_bytes_min=0)
        assert (path / "reserve").stat().st_blocks
    ballast = fill(disk, leave_bytes=0)
    for number in count():
        (filler / str(number)).write_bytes(os.urandom(100_000))
        if saboteur.run("backup", "--store", path, filler).status == 1:
            break
    ending = saboteur.run("prune", "--grace", "0", "--store", path)
    assert ending.status == 0, ending
    assert sample.look(path)[0] == 0
    assert ballast.exists()
    assert not (path / "reserve").exists()


def test_a_second_prune_waits_for_the_first_and_says_so(sample: Sample, tmp_path: Path) -> None:
    path = sample.copy_store(tmp_path / "store")
    command: list[str | Path] = [sys.executable, "-m", "yester", "prune", "--grace", "0", "--store", path]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with Store.open(path) as store:
        with store.prune_lock(lambda _holder: None):
            second = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            assert second.stderr is not None
            assert second.stderr.readline() == f"waiting for another prune of this store (process {os.getpid()})\n"
        with second:
            assert second.wait(timeout=60) == 0
        assert prune(store, grace_ns=0).dead_chunks == 0
    assert sample.look(path)[0] == 0

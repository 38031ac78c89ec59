# SPDX-License-Identifier: MIT
"""A backup that is killed or interrupted at any moment harms nothing, and the next one goes on from what it stored."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from tests.encrypted import PASSPHRASE, create_encrypted, unlock
from tests.faults.sabotage import ROOT, Call, Fault, Saboteur
from tests.faults.witness import SMALL_CHUNKS, Nodes, judge, sample_nodes, write_nodes
from yester.cli.main import INTERRUPTED
from yester.engine.check import check
from yester.errors import NotFoundError
from yester.store.datafile import DATA_FILE
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.store import Store

FILES = 60
COMMITS_MIN = 12
CALLS_MIN = 30
SEED = 5


class Sample:
    """A folder to back up, and a store that holds a snapshot of another."""

    def __init__(self, folder: Path, *, is_encrypted: bool) -> None:
        self.options: list[str | Path] = []
        """What tells commands the passphrase."""
        self.nodes: Nodes = sample_nodes(1, 0, files=FILES)
        self.other_nodes: Nodes = sample_nodes(2, 0, files=5)
        self.folder = folder / "sample"
        self.other = folder / "other"
        self.store = folder / "store"
        write_nodes(self.folder, self.nodes)
        write_nodes(self.other, self.other_nodes)
        if is_encrypted:
            self.options = ["--passphrase-file", folder / "passphrase"]
            (folder / "passphrase").write_text(PASSPHRASE)
        (create_encrypted if is_encrypted else Store.create)(self.store, chunking=SMALL_CHUNKS).close()

    def copy_store(self, path: Path) -> Path:
        """A store to be harmed."""
        shutil.copytree(self.store, path)
        return path

    def nodes_of(self, source: str) -> Nodes:
        return self.other_nodes if source == "other" else self.nodes


def make_sample(folder: Path, saboteur: Saboteur, *, is_encrypted: bool) -> Sample:
    sample = Sample(folder, is_encrypted=is_encrypted)
    assert saboteur.run("backup", "--store", sample.store, *sample.options, sample.other).status == 0
    return sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, saboteur: Saboteur) -> Sample:
    return make_sample(tmp_path_factory.mktemp("kill"), saboteur, is_encrypted=False)


@pytest.fixture(scope="module")
def whole(sample: Sample, saboteur: Saboteur, tmp_path_factory: pytest.TempPathFactory) -> "Backup":
    """What a backup of the sample does if nothing goes wrong."""
    return back_up(sample, sample.copy_store(tmp_path_factory.mktemp("whole") / "store"), saboteur)


class Look(NamedTuple):
    """What is in a store."""

    sources: list[str]
    """Of its snapshots, sorted."""
    chunks: int
    remembered: int
    """Folders of which a backup has remembered what it saw."""


def look(sample: Sample, path: Path) -> Look:
    """Check a store, and read all of it."""
    with Store.open(path, unlock=unlock) as store:
        report = check(store, read_data=True)
        assert report.is_whole, report
        snapshots = store.snapshots()
        for stored in snapshots:
            judgement = judge(store, stored, sample.nodes_of(stored.snapshot.source))
            assert judgement.is_whole(), judgement
        with store.environment.read() as view:
            return Look([stored.snapshot.source for stored in snapshots], view.count(Table.CHUNKS), view.count(Table.SCAN))


class Backup(NamedTuple):
    """What a backup that succeeded did."""

    read_files: int
    new_bytes: int


def back_up(sample: Sample, path: Path, saboteur: Saboteur) -> Backup:
    """A backup with which nothing goes wrong; all must be whole after it."""
    ending = saboteur.run("backup", "--json", "--store", path, *sample.options, sample.folder)
    assert ending.status == 0, ending
    summary = json.loads(ending.out)
    assert summary["skipped"] == []
    assert "sample" in look(sample, path).sources
    return Backup(ending.files, summary["new_bytes"])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_backup_killed_at_any_commit_harms_nothing_and_is_gone_on_with(
    sample: Sample, whole: "Backup", saboteur: Saboteur, tmp_path: Path, moment: str
) -> None:
    _kill_at_every_commit(sample, whole, saboteur, tmp_path, moment)


def test_a_backup_into_an_encrypted_store_killed_at_any_commit_harms_nothing_either(saboteur: Saboteur, tmp_path: Path) -> None:
    sample = make_sample(tmp_path, saboteur, is_encrypted=True)
    whole = back_up(sample, sample.copy_store(tmp_path / "whole"), saboteur)
    _kill_at_every_commit(sample, whole, saboteur, tmp_path, "after")


def _kill_at_every_commit(sample: Sample, whole: "Backup", saboteur: Saboteur, tmp_path: Path, moment: str) -> None:
    before = look(sample, sample.copy_store(tmp_path / "0"))
    nexts, published = [], []
    for number in count(1):
        path = sample.copy_store(tmp_path / str(number))
        fault = Fault(before_commit=number) if moment == "before" else Fault(after_commit=number)
        ending = saboteur.run("backup", "--store", path, *sample.options, sample.folder, fault=fault)
        if ending.status == 0:
            break  # it has fewer commits than that
        assert ending.status == -signal.SIGKILL, ending
        left = look(sample, path)
        next_ = back_up(sample, path, saboteur)
        assert (next_.new_bytes < whole.new_bytes) == (left.chunks > before.chunks)
        assert (next_.read_files < whole.read_files) == (left.remembered > before.remembered)
        nexts.append(next_)
        published.append("sample" in left.sources)
        shutil.rmtree(path)
    assert len(nexts) >= COMMITS_MIN
    assert published == [False] * (len(nexts) - 1) + [moment == "after"], "the last commit publishes the snapshot, and no other"
    assert nexts[-1] == Backup(0, 0)
    assert nexts == sorted(nexts, reverse=True), "the later it was killed, the less is left to do"
    assert sum(0 < next_.read_files < whole.read_files for next_ in nexts) >= COMMITS_MIN // 2


@pytest.mark.parametrize("action", [Call.KILL_BEFORE, Call.KILL_HALF], ids=["before", "half done"])
def test_a_first_backup_killed_at_any_system_call_leaves_nothing_that_the_next_minds(
    sample: Sample, saboteur: Saboteur, tmp_path: Path, action: Call
) -> None:
    """Making the store, all commits of the backup, and publishing the snapshot."""
    seen = []
    for number in count(1):
        path = tmp_path / str(number)
        ending = saboteur.run("backup", "--store", path, sample.other, fault=Fault(call=number, action=action))
        if ending.status == 0:
            break
        assert ending.status == -signal.SIGKILL, ending
        seen.append(_stage(sample, path))
        ending = saboteur.run("backup", "--store", path, sample.other)
        assert ending.status == 0, ending
        assert set(look(sample, path).sources) == {"other"}
        shutil.rmtree(path)
    assert len(seen) >= CALLS_MIN
    stages = list(dict.fromkeys(seen))
    assert stages[:2] == ["making one there was interrupted", "empty"]
    assert stages[2:] in ([], ["published"])
    assert seen == sorted(seen, key=stages.index)


def _stage(sample: Sample, path: Path) -> str:
    try:
        return "published" if look(sample, path).sources else "empty"
    except NotFoundError as error:
        return error.message.partition(": ")[2]


@pytest.mark.parametrize("data_bytes", [None, 0, 4096])
@pytest.mark.parametrize("command", ["init", "backup"])
def test_a_store_of_which_only_the_first_bytes_were_made_is_made_again(
    sample: Sample, saboteur: Saboteur, tmp_path: Path, data_bytes: int | None, command: str
) -> None:
    path = tmp_path / "store"
    path.mkdir()
    (path / "lock.mdb").touch()
    if data_bytes is not None:
        (path / DATA_FILE).write_bytes((sample.store / DATA_FILE).read_bytes()[:data_bytes])

    with pytest.raises(NotFoundError, match="making one there was interrupted"):
        Store.open(path)
    ending = saboteur.run(command, "--store", path, *([sample.other] if command == "backup" else []))

    assert ending.status == 0, ending
    assert look(sample, path).sources == (["other"] if command == "backup" else [])


def test_a_store_that_was_in_use_and_is_empty_now_is_not_made_again(sample: Sample, saboteur: Saboteur, tmp_path: Path) -> None:
    """Somebody must hear that all is gone."""
    path = sample.copy_store(tmp_path / "store")
    os.truncate(path / DATA_FILE, 0)
    ending = saboteur.run("backup", "--store", path, sample.other)
    assert ending.status == 1
    assert "is only 0 bytes long" in ending.err
    assert (path / DATA_FILE).stat().st_size == 0


def _interruptions() -> Iterator[Fault]:
    """SIGINT at seeded moments: after a number of files, at a commit; and impatiently twice."""
    rng = random.Random(SEED)
    for _ in range(6):
        yield Fault(signal=signal.SIGINT, after_files=(rng.randrange(1, FILES - 5),))
        yield Fault(signal=signal.SIGINT, before_commit=rng.randrange(1, COMMITS_MIN))
        yield Fault(signal=signal.SIGINT, after_commit=rng.randrange(1, COMMITS_MIN))
        file = rng.randrange(1, FILES - 5)
        yield Fault(signal=signal.SIGINT, after_files=(file,), before_commit=rng.randrange(1, COMMITS_MIN))


def _name(fault: Fault) -> str:
    steps = {"before commit": fault.before_commit, "after commit": fault.after_commit, "after file": sum(fault.after_files)}
    return ", ".join(f"{step} {number}" for step, number in steps.items() if number)


@pytest.mark.parametrize("fault", [*_interruptions()], ids=_name)
def test_an_interrupted_backup_says_so_and_harms_nothing(
    sample: Sample, whole: "Backup", saboteur: Saboteur, tmp_path: Path, fault: Fault
) -> None:
    path = sample.copy_store(tmp_path / "store")
    ending = saboteur.run("backup", "--store", path, sample.folder, fault=fault)
    assert ending.status == INTERRUPTED, ending
    assert ending.out == ""
    assert [line for line in ending.err.splitlines() if line] == [
        "nothing was published; what was stored so far is kept, and the next backup goes on from it",
        "yester: interrupted",
    ]
    left = look(sample, path)
    assert left.sources == ["other"]
    assert back_up(sample, path, saboteur).new_bytes <= whole.new_bytes


def test_an_environment_is_not_closed_under_a_commit(tmp_path: Path) -> None:
    """Who interrupts twice ends the wait for the thread that commits. LMDB would then use memory that is gone."""
    may_commit = threading.Event()
    has_begun = threading.Event()

    def apply(transaction: WriteTransaction) -> str:
        has_begun.set()
        may_commit.wait()
        transaction.put(Table.META, b"key", b"value")
        return "committed"

    environment = Environment(tmp_path, create=True)
    with ThreadPoolExecutor() as pool:
        written = pool.submit(environment.write, apply)
        has_begun.wait()
        closed = pool.submit(environment.close)
        while not _is_running(environment.close):
            time.sleep(0.001)  # nothing tells when a thread gets there
        may_commit.set()
        assert written.result() == "committed"
        closed.result()
    with Environment(tmp_path) as environment:
        assert environment.get(Table.META, b"key") == b"value"


def _is_running(method: Callable[[], object]) -> bool:
    return any(frame.f_code is method.__code__ for frame in _all_frames())


def _all_frames() -> Iterator[FrameType]:
    for newest in sys._current_frames().values():
        frame: FrameType | None = newest
        while frame is not None:
            yield frame
            frame = frame.f_back


def _start(store: Path, folder: Path) -> subprocess.Popen[str]:
    command: list[str | Path] = [sys.executable, "-m", "yester", "backup", "--store", store, folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_backups_at_once_wait_for_each_other_say_so_and_are_all_whole(sample: Sample, tmp_path: Path) -> None:
    path = sample.copy_store(tmp_path / "store")
    folders = {f"folder{number}": sample_nodes(10 + number, 0, files=15) for number in range(3)}
    for name, nodes in folders.items():
        write_nodes(tmp_path / name, nodes)
    with ExitStack() as stack, Store.open(path) as store:
        with store.backup_lock(lambda _holder: None):
            processes = [stack.enter_context(_start(path, tmp_path / name)) for name in folders]
            for process in processes:
                assert process.stderr is not None
                said = process.stderr.readline()
                assert said == f"waiting: another backup into this store is running (process {os.getpid()})\n"
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert out.startswith("snapshot ")
        assert check(store, read_data=True).is_whole
        snapshots = {stored.snapshot.source: stored for stored in store.snapshots()}
        assert set(snapshots) == {"other", *folders}
        for name, nodes in folders.items():
            assert judge(store, snapshots[name], nodes).is_whole()


def test_backups_that_all_find_no_store_make_one_together(sample: Sample, tmp_path: Path) -> None:
    """One of several at once makes it; before there was a lock, in half of such rounds some backup failed."""
    folders = {f"folder{number}": sample_nodes(10 + number, 0, files=3) for number in range(4)}
    for name, nodes in folders.items():
        write_nodes(tmp_path / name, nodes)
    for number in range(3):
        path = tmp_path / f"store{number}"
        with ExitStack() as stack:
            processes = [stack.enter_context(_start(path, tmp_path / name)) for name in folders]
            endings = [(*process.communicate(timeout=60), process.returncode) for process in processes]
        assert [status for _, _, status in endings] == [0, 0, 0, 0], endings
        assert sum("made a new store" in err for _, err, _ in endings) == 1
        with Store.open(path) as store:
            assert check(store, read_data=True).is_whole
            for stored in store.snapshots():
                assert judge(store, stored, folders.pop(stored.snapshot.source)).is_whole()
        assert not folders
        folders = {f"folder{number}": sample_nodes(10 + number, 0, files=3) for number in range(4)}

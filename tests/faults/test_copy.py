# SPDX-License-Identifier: MIT
"""A store that is copied while a backup writes to it: the copy is refused, or what it shows is right or an error. Nothing crashes.

`cp` reads a file from front to back, so what it gets is the front of the file as it was, and the rest as it was later. Here the moments
between are chosen, and not left to chance.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.examine import CRASHED, SOURCE, Examiner, Job
from tests.faults.patient import FILES, SEED, VERSIONS
from tests.faults.sabotage import Fault, Saboteur
from tests.faults.witness import SMALL_CHUNKS, sample_nodes, write_nodes
from yester.store.datafile import DATA_FILE
from yester.store.store import Store

COPIES = 60


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory, saboteur: Saboteur) -> tuple[list[bytes], list[str], Path]:
    """The data file as it was after each commit of a backup; the ids of the snapshots there are at the end; a store's folder."""
    folder = tmp_path_factory.mktemp("copies")
    path = folder / "store"
    Store.create(path, chunking=SMALL_CHUNKS).close()
    found = []
    for version in range(VERSIONS):
        write_nodes(folder / "files", sample_nodes(SEED, version, files=FILES))
        command = ("backup", "--name", SOURCE, "--store", path, folder / "files")
        commit = 0
        while True:
            commit += 1
            shutil.copytree(path, folder / "trial")
            ending = saboteur.run(*command[:4], folder / "trial", command[5], fault=Fault(after_commit=commit))
            found.append((folder / "trial" / DATA_FILE).read_bytes())
            shutil.rmtree(folder / "trial")
            if ending.status == 0:
                break
        assert saboteur.run(*command).status == 0
        found.append((path / DATA_FILE).read_bytes())
    with Store.open(path) as store:
        return found, [stored.id.hex() for stored in store.snapshots(SOURCE)], path


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    with Examiner(SEED, FILES, VERSIONS) as examiner:
        yield examiner


def test_a_copy_made_during_a_backup_is_refused_or_right(
    moments: tuple[list[bytes], list[str], Path], examiner: Examiner, tmp_path: Path
) -> None:
    states, ids, path = moments
    assert len(states) > 20
    rng = random.Random(SEED)
    refused = opened = 0
    for number in range(COPIES):
        first = rng.randrange(len(states) - 1)
        before, after = states[first], states[min(len(states) - 1, first + rng.choice([1, 1, 2, 5, 100]))]
        split = rng.choice([4096, 8192, rng.randrange(len(before))]) // 4096 * 4096
        copy = tmp_path / str(number)
        shutil.copytree(path, copy)
        (copy / DATA_FILE).unlink()
        (copy / DATA_FILE).write_bytes(before[:split] + after[split:])
        findings = examiner.ask(Job(str(copy), ids))
        assert not findings.error.startswith(CRASHED), f"copy {number}: {findings.error}"
        assert not any(findings.wrong), f"copy {number}: {findings.wrong}"
        if findings.error:
            assert findings.error.startswith("CorruptionError"), findings.error
            refused += 1
        else:
            opened += 1
        shutil.rmtree(copy)
    assert refused > COPIES // 10
    assert opened > COPIES // 10

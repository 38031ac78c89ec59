# SPDX-License-Identifier: MIT
"""Repairs that are interrupted, and repairs of whatever damage: what is not touched by it is there afterwards, byte for byte."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.examine import CRASHED, SOURCE, Examiner, Job
from tests.faults.patient import FILES, SEED, VERSIONS, Patient, changed, named_paths
from tests.faults.sabotage import Fault, Saboteur
from tests.faults.witness import sample_nodes, write_nodes
from tests.pages import PAGE_BYTES, flipped
from yester.core.records import decode_snapshot
from yester.store.chunks import Location
from yester.store.datafile import DATA_FILE
from yester.store.lmdb import Table
from yester.store.salvage import DataFile, Row
from yester.store.segments import Compression


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, saboteur: Saboteur) -> Patient:
    return Patient(tmp_path_factory.mktemp("repair"), saboteur)


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    with Examiner(SEED, FILES, VERSIONS) as examiner:
        yield examiner


def hurt(patient: Patient) -> bytes:
    """Damage in many segments."""
    rng = random.Random(f"hurt.{SEED}")
    data = patient.data
    for segment in rng.sample([one for one in patient.segments if one.header.compression is Compression.NONE], 12):
        data = flipped(data, segment.payload_offset + rng.randrange(segment.header.raw_bytes), 1)
    return data


def test_a_repair_that_is_killed_at_any_commit_can_be_run_again(
    patient: Patient, examiner: Examiner, saboteur: Saboteur, tmp_path: Path
) -> None:
    """The source is as in the second version, so some of what is lost comes back from it, and some does not."""
    write_nodes(patient.path.parent / "files", sample_nodes(SEED, VERSIONS - 1, files=FILES))
    data = hurt(patient)
    whole = patient.infect(tmp_path / "whole", data)
    ending = saboteur.run("repair", "--no-copy", "--store", whole)
    assert ending.status == 3, ending.err
    assert "from files of this computer" in ending.out
    expected = examiner.ask(Job(str(whole), patient.ids))
    assert any(expected.damaged)
    assert ending.commits >= 3
    for commit in range(1, ending.commits + 1):
        for fault in (Fault(before_commit=commit), Fault(after_commit=commit)):
            path = patient.infect(tmp_path / f"killed{commit}{fault.after_commit}", data)
            assert saboteur.run("repair", "--no-copy", "--store", path, fault=fault).status == -9
            between = examiner.ask(Job(str(path), patient.ids))
            assert not any(between.wrong)
            assert not between.error
            assert saboteur.run("repair", "--no-copy", "--store", path).status == 3
            assert examiner.ask(Job(str(path), patient.ids)) == expected
            shutil.rmtree(path)
    assert saboteur.run("backup", "--name", SOURCE, "--store", whole, patient.path.parent / "files").status == 0


TRIALS = 200
GROUPS = 4


class Damage(NamedTuple):
    """Which bytes of the data file are other than they were; and what the file is then."""

    start: int
    end: int
    data: bytes

    def touches(self, start: int, end: int) -> bool:
        return start < self.end and self.start < end


def damage(rng: random.Random, patient: Patient) -> Damage:
    """Flip a bit, zero a page or some, or cut the file: in a segment, or in a page of LMDB's own."""
    data = patient.data
    starts = [segment.offset for segment in patient.segments]
    in_segments = {
        page for one in patient.segments for page in range(one.offset // PAGE_BYTES + 1, (one.offset + one.length) // PAGE_BYTES)
    }
    others = [page for page in range(len(data) // PAGE_BYTES) if page not in in_segments]
    page = rng.choice([rng.choice(others), rng.choice(others), rng.choice(sorted(in_segments)), rng.choice(starts) // PAGE_BYTES])
    if rng.random() < 0.15:
        page = rng.randrange(2)
    start = page * PAGE_BYTES
    kind = rng.choice(["flip", "flip", "zero", "cut"]) if page > 1 else rng.choice(["flip", "zero"])
    if kind == "flip":
        at = rng.choice([at for at in range(start, start + PAGE_BYTES) if data[at]] or [start])
        return Damage(at, at + 1, flipped(data, at, rng.randrange(8)))
    if kind == "zero":
        end = min(len(data), start + rng.choice([1, 1, 3]) * PAGE_BYTES)
        return Damage(start, end, changed(data, start, bytes(end - start)))
    at = rng.randrange(max(start, len(data) * 9 // 10), len(data))
    return Damage(at, len(data), data[:at])


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_is_damaged_check_finds_it_and_repair_keeps_all_the_rest(
    patient: Patient, examiner: Examiner, saboteur: Saboteur, tmp_path: Path, group: int
) -> None:
    """The source is gone, so nothing comes from there. A page is lost with all the rows on it, a segment with all that is in it."""
    shutil.rmtree(patient.path.parent / "files", ignore_errors=True)
    rows = find_rows(patient)
    rng = random.Random(f"places.{SEED}.{group}")
    rebuilt = lossy = 0
    for trial in range(TRIALS // GROUPS):
        hit = damage(rng, patient)
        path = patient.infect(tmp_path / str(trial), hit.data)
        before = examiner.ask(Job(str(path), patient.ids, checks=True))
        assert not before.error.startswith(CRASHED), f"trial {trial}: {before.error}"
        is_harmless = not before.error and not any(before.damaged) and before.snapshots == patient.snapshots
        assert is_harmless or before.check_found or before.error, f"trial {trial}"
        ending = saboteur.run("repair", "--no-copy", "--json", "--store", path)
        assert ending.status in {0, 3}, f"trial {trial}: {ending}"
        rebuilt += (path / DATA_FILE).stat().st_size != len(hit.data) or "damaged-" in "".join(os.listdir(path))
        after = examiner.ask(Job(str(path), patient.ids, checks=True))
        assert not after.error, f"trial {trial}: {after.error}"
        assert not any(after.wrong), f"trial {trial}"
        assert (ending.status == 0) == (not after.check_found and not is_record_lost(ending.out)), f"trial {trial}: {after.check_found}"
        for row, snapshot in zip(rows, patient.snapshots, strict=True):
            is_hit = hit.touches(row.page * PAGE_BYTES, (row.page + 1) * PAGE_BYTES)
            assert is_hit or snapshot in after.snapshots, f"trial {trial}: {snapshot.name}"
        hurt_places = {
            Location(segment.number, place)
            for segment in patient.segments
            if hit.touches(segment.offset, segment.offset + segment.length)
            for place in range(segment.header.chunk_count)
        }
        # A record that was hit and can be decoded all the same is another snapshot, under an id of its own and maybe of another time.
        as_they_were = [snapshot for snapshot in after.snapshots if snapshot in patient.snapshots]
        for snapshot, damaged in zip(as_they_were, after.damaged, strict=True):
            version = patient.snapshots.index(snapshot)
            assert damaged <= patient.touched(version, hurt_places), f"trial {trial}: version {version}"
            if after.check_named_all and len(as_they_were) == len(after.snapshots):
                assert named_paths(after, patient, version) == damaged, f"trial {trial}: version {version}"
        lossy += any(after.damaged)
        shutil.rmtree(path)
    assert rebuilt >= TRIALS // GROUPS // 4
    assert lossy >= TRIALS // GROUPS // 10


def is_record_lost(told: str) -> bool:
    """Whether a repair says that something named folders, and does no more; these are in a snapshot of their own then."""
    report = json.loads(told)
    found = report["recovered_folders"] or (report["pages"] is not None and report["pages"]["recovered_folders"])
    return bool(found) or any(record["action"] in {"taken away", "unlisted"} for record in report["records"])


def find_rows(patient: Patient) -> list[Row]:
    """The rows of the snapshots, by version."""
    with DataFile(patient.path) as file:
        rows = list(file.walk(Table.SNAPSHOTS.value))
    assert [decode_snapshot(row.value) for row in rows] == patient.snapshots
    return rows

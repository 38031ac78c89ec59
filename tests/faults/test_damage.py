# SPDX-License-Identifier: MIT
"""A store with damaged bytes: what is read is right or an error, damage costs only what it touches, and no process crashes.

Damage to stored data is told from damage to LMDB's own pages: the first is met by hashes wherever it is read. The second
can crash LMDB, which has no checksums; `yester check --read-data` looks at pages first, in a process of its own, and there
must find everything that would.
"""

import os
import random
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.examine import CRASHED, SOURCE, Examiner, Findings, Job
from tests.faults.patient import FILES, SEED, VERSIONS, Patient, changed, named_paths, wound
from tests.faults.sabotage import Saboteur
from tests.faults.witness import sample_nodes
from tests.pages import PAGE_BYTES, flipped
from yester.store.chunks import Location
from yester.store.segments import Compression

PAYLOAD_TRIALS = 120
FLIP_TRIALS = 40
PAGE_TRIALS = 80
TRUNCATION_TRIALS = 60
GROUPS = 4


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, saboteur: Saboteur) -> Patient:
    return Patient(tmp_path_factory.mktemp("damage"), saboteur)


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    with Examiner(SEED, FILES, VERSIONS) as examiner:
        yield examiner


def examine(examiner: Examiner, patient: Patient, path: Path, *, checks: bool = False) -> Findings:
    """Read a store; nothing may crash, and nothing wrong may pass for right. Then remove it."""
    findings = examiner.ask(Job(str(path), patient.ids, checks))
    assert not findings.error.startswith(CRASHED), findings.error
    assert not any(findings.wrong), findings.wrong
    shutil.rmtree(path)
    return findings


def test_the_patient_is_well(patient: Patient, examiner: Examiner, tmp_path: Path) -> None:
    """What the other tests rely on."""
    findings = examine(examiner, patient, patient.infect(tmp_path / "store", patient.data), checks=True)
    assert findings == Findings(damaged=[set()] * VERSIONS, wrong=[{}] * VERSIONS, snapshots=patient.snapshots)
    assert {segment.header.compression for segment in patient.segments} == set(Compression)
    assert len({segment.header.kind for segment in patient.segments}) == 2
    for version, needs in enumerate(patient.needs):
        assert needs.keys() == sample_nodes(SEED, version, files=FILES).keys()


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_damaged_segment_costs_no_file_that_has_nothing_in_it(patient: Patient, examiner: Examiner, tmp_path: Path, group: int) -> None:
    """Anywhere in it: header, table of lengths, payload."""
    rng = random.Random(f"segments.{SEED}.{group}")
    damages = 0
    for number in range(PAYLOAD_TRIALS // GROUPS):
        segment = rng.choice(patient.segments)
        start, end = rng.choice([(0, 20), (20, segment.header.payload_offset), (segment.header.payload_offset, segment.length)])
        data = wound(rng, patient.data, segment.offset + start, segment.offset + end)
        findings = examine(examiner, patient, patient.infect(tmp_path / str(number), data))
        assert not findings.error
        assert findings.snapshots == patient.snapshots
        everything = {Location(segment.number, place) for place in range(segment.header.chunk_count)}
        for version in range(VERSIONS):
            assert findings.damaged[version] <= patient.touched(version, everything), f"trial {number}"
        damages += any(findings.damaged)
    assert damages >= PAYLOAD_TRIALS // GROUPS // 2


def test_a_flipped_bit_costs_exactly_the_files_it_touches_and_check_names_them(
    patient: Patient, examiner: Examiner, tmp_path: Path
) -> None:
    """In segments that are stored uncompressed, where it can be told which these are."""
    rng = random.Random(f"flips.{SEED}")
    segments = [segment for segment in patient.segments if segment.header.compression is Compression.NONE]
    touched_files = 0
    for number in range(FLIP_TRIALS):
        segment = rng.choice(segments)
        at = rng.randrange(segment.header.raw_bytes)
        data = flipped(patient.data, segment.payload_offset + at, rng.randrange(8))
        findings = examine(examiner, patient, patient.infect(tmp_path / str(number), data), checks=True)
        expected = [patient.touched(version, segment.places(at, at + 1)) for version in range(VERSIONS)]
        assert findings.damaged == expected, f"trial {number}"
        assert findings.check_found
        if findings.check_named_all:
            assert [named_paths(findings, patient, version) for version in range(VERSIONS)] == expected
        touched_files += len(set().union(*expected))
    assert touched_files >= FLIP_TRIALS


@pytest.mark.parametrize("group", range(GROUPS))
def test_damaged_pages_are_found_by_check_before_they_can_crash_anything(
    patient: Patient, examiner: Examiner, tmp_path: Path, group: int
) -> None:
    """Pages that are no part of a segment: LMDB's meta pages, its trees, index entries, snapshots, free pages."""
    rng = random.Random(f"pages.{SEED}.{group}")
    segment_pages = {
        page
        for segment in patient.segments
        for page in range(segment.offset // PAGE_BYTES, (segment.offset + segment.length) // PAGE_BYTES + 1)
    }
    pages = [page for page in range(len(patient.data) // PAGE_BYTES) if page not in segment_pages]
    found = 0
    for number in range(PAGE_TRIALS // GROUPS):
        start = rng.choice(pages[:2] if rng.random() < 0.2 else pages) * PAGE_BYTES
        if rng.random() < 0.2:
            data = changed(patient.data, start, rng.choice([bytes(PAGE_BYTES), rng.randbytes(PAGE_BYTES)]))
        else:
            at = rng.choice([at for at in range(start, start + PAGE_BYTES) if patient.data[at]])
            data = wound(rng, patient.data, at, start + PAGE_BYTES)
        findings = examine(examiner, patient, patient.infect(tmp_path / str(number), data), checks=True)
        is_harmless = not findings.error and not any(findings.damaged) and findings.snapshots == patient.snapshots
        assert is_harmless or findings.check_found or findings.error, f"trial {number}: check says nothing of {findings}"
        found += bool(findings.check_found or findings.error)
    assert found >= PAGE_TRIALS // GROUPS // 3


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_data_file_that_is_cut_short_is_an_error(patient: Patient, examiner: Examiner, tmp_path: Path, group: int) -> None:
    """Not the end of the process: what LMDB maps beyond the end of the file is SIGBUS."""
    rng = random.Random(f"cuts.{SEED}.{group}")
    last = len(patient.data) // PAGE_BYTES
    sizes = [0, 1, 100, PAGE_BYTES, 2 * PAGE_BYTES - 1, 2 * PAGE_BYTES, *(page * PAGE_BYTES for page in range(last - 8, last))]
    sizes += [rng.randrange(len(patient.data)) for _ in range(TRUNCATION_TRIALS - len(sizes))]
    for size in sizes[group::GROUPS]:
        findings = examine(examiner, patient, patient.infect(tmp_path / str(size), patient.data[:size]), checks=True)
        assert findings.error.startswith("CorruptionError: "), f"cut to {size}: {findings}"
        assert " was not opened, and nothing was changed" in findings.error


def test_a_restore_from_a_damaged_store_gives_all_the_rest_and_names_what_it_could_not(
    patient: Patient, saboteur: Saboteur, tmp_path: Path
) -> None:
    segment = next(segment for segment in patient.segments if segment.header.compression is Compression.NONE)
    path = patient.infect(tmp_path / "store", flipped(patient.data, segment.payload_offset + 5, 1))
    touched = patient.touched(0, segment.places(5, 6))
    assert touched
    ending = saboteur.run("restore", f"{SOURCE}@{patient.snapshots[0].name}", "--store", path, "--to", tmp_path / "out")
    assert ending.status == 1, ending
    for name, node in sample_nodes(SEED, 0, files=FILES).items():
        full = os.path.join(os.fsencode(tmp_path / "out"), name)
        assert os.path.lexists(full) == (name not in touched)
        if stat.S_ISREG(node.mode) and name not in touched:
            with open(full, "rb") as file:
                assert file.read() == node.data
    assert all(os.fsdecode(name.splitlines()[0]) in ending.err for name in touched), ending.err

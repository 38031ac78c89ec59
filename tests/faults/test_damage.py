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
from typing import NamedTuple

import pytest

from tests.faults.examine import CRASHED, SOURCE, Examiner, Findings, Job
from tests.faults.sabotage import Saboteur
from tests.faults.witness import SMALL_CHUNKS, sample_nodes, write_nodes
from yester.core.content import HOLE, Content, read_list, unpack_spans
from yester.core.ids import ChunkId
from yester.core.records import Entry, Snapshot
from yester.engine.trees import TreeReader
from yester.store.chunks import Location, unpack_location
from yester.store.datafile import DATA_FILE
from yester.store.lmdb import Table
from yester.store.segments import Compression, Header, parse_header
from yester.store.store import Store

SEED = 7
FILES = 70
VERSIONS = 2
PAGE_BYTES = 4096

PAYLOAD_TRIALS = 120
FLIP_TRIALS = 40
PAGE_TRIALS = 80
TRUNCATION_TRIALS = 60
GROUPS = 4


class StoredSegment(NamedTuple):
    """A segment, and where its value begins in the data file."""

    number: int
    header: Header
    offset: int
    length: int

    @property
    def payload_offset(self) -> int:
        return self.offset + self.header.payload_offset

    def places(self, start: int, end: int) -> set[Location]:
        """The chunks that hold these bytes of an uncompressed payload."""
        bounds = self.header.bounds
        return {Location(self.number, place) for place in range(len(bounds) - 1) if bounds[place] < end and start < bounds[place + 1]}


class Patient:
    """A store that is whole, and what is known about it. Its data file has no free pages: damage to those would be none."""

    def __init__(self, folder: Path, saboteur: Saboteur) -> None:
        self.path = folder / "store"
        Store.create(self.path, chunking=SMALL_CHUNKS).close()
        for version in range(VERSIONS):
            write_nodes(folder / "files", sample_nodes(SEED, version, files=FILES))
            assert saboteur.run("backup", "--name", SOURCE, "--store", self.path, folder / "files").status == 0
        compact = folder / "compact"
        compact.mkdir()
        with Store.open(self.path) as store:
            store.environment._env.copy(str(compact), compact=True)
        os.replace(compact / DATA_FILE, self.path / DATA_FILE)
        self.data = (self.path / DATA_FILE).read_bytes()
        with Store.open(self.path) as store:
            self.segments = list(_find_segments(store, self.data))
            snapshots = store.snapshots(SOURCE)
            self.snapshots = [stored.snapshot for stored in snapshots]
            self.ids = [stored.id.hex() for stored in snapshots]
            self.needs = [_find_needs(store, stored.snapshot) for stored in snapshots]
            """For each version and path, where the chunks are without which it cannot be read."""

    def infect(self, folder: Path, data: bytes) -> Path:
        """A copy of the store with another data file."""
        shutil.copytree(self.path, folder, ignore=shutil.ignore_patterns(DATA_FILE))
        (folder / DATA_FILE).write_bytes(data)
        return folder

    def touched(self, version: int, places: set[Location]) -> set[bytes]:
        """Paths of a version that cannot be read without these chunks."""
        return {path for path, needed in self.needs[version].items() if needed & places}


def _find_segments(store: Store, data: bytes) -> Iterator[StoredSegment]:
    with store.environment.read() as view:
        for key, value in view.iterate(Table.SEGMENTS):
            stored = bytes(value)
            yield StoredSegment(int.from_bytes(key, "big"), parse_header(stored, None), data.index(stored), len(stored))


def _find_needs(store: Store, snapshot: Snapshot) -> dict[bytes, set[Location]]:
    """For each path of a snapshot, where the chunks are that it is made of: folders above it, its own record or content."""
    trees = TreeReader(store.reader())

    def locate(chunk: ChunkId) -> Location:
        with store.environment.read() as view:
            return unpack_location(view.get(Table.CHUNKS, chunk) or b"")

    def content_places(content: Content) -> Iterator[Location]:
        for span in unpack_spans(content.spans):
            if span.chunk != HOLE:
                yield locate(span.chunk)
            if content.level:
                yield from content_places(read_list(span, content.level, trees.chunks.read))

    def walk(path: bytes, directory: Entry, above: set[Location]) -> Iterator[tuple[bytes, set[Location]]]:
        here = above | {locate(directory.tree)}
        if path:
            yield path, here
        for entry in trees.read(directory.tree).entries:
            inner = path + b"/" + entry.name if path else entry.name
            if stat.S_ISDIR(entry.mode):
                yield from walk(inner, entry, here)
            else:
                yield inner, here | set(content_places(entry.file_content))

    return dict(walk(b"", snapshot.root, set()))


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


def changed(data: bytes, start: int, new: bytes) -> bytes:
    assert start + len(new) <= len(data)
    return data[:start] + new + data[start + len(new) :]


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return changed(data, at, bytes([data[at] ^ 1 << bit]))


def wound(rng: random.Random, data: bytes, start: int, end: int) -> bytes:
    """Damage somewhere within these bytes: a flipped bit, zeros, or garbage."""
    at = rng.randrange(start, end)
    count = min(end - at, rng.choice([1, 16, 300, 4096]))
    kind = rng.choice(["flip", "zero", "garbage"])
    if kind == "flip":
        return flipped(data, at, rng.randrange(8))
    return changed(data, at, bytes(count) if kind == "zero" else rng.randbytes(count))


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
            assert [_named(findings, patient, version) for version in range(VERSIONS)] == expected
        touched_files += len(set().union(*expected))
    assert touched_files >= FLIP_TRIALS


def _named(findings: Findings, patient: Patient, version: int) -> set[bytes]:
    """Paths of a version that check says are touched."""
    name = patient.snapshots[version].name
    named = [touched for touched in findings.check_named if touched.first <= name <= touched.last]
    return {
        path
        for path in patient.needs[version]
        if any(path == touched.path or (touched.is_folder and _is_below(path, touched.path)) for touched in named)
    }


def _is_below(path: bytes, folder: bytes) -> bool:
    return not folder or path.startswith(folder + b"/")


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

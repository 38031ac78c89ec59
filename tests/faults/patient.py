# SPDX-License-Identifier: MIT
"""A store of which all is known, and damages to do to copies of it."""

import os
import random
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults.examine import SOURCE, Findings
from tests.faults.sabotage import Saboteur
from tests.faults.witness import SMALL_CHUNKS, sample_nodes, write_nodes
from tests.pages import PAGE_BYTES, flipped
from yester.core.content import HOLE, Content, read_list, unpack_spans
from yester.core.ids import ChunkId
from yester.core.records import Entry, Snapshot
from yester.engine.trees import TreeReader
from yester.store.chunks import Location, unpack_location
from yester.store.datafile import DATA_FILE
from yester.store.lmdb import Table
from yester.store.pages import PAGE
from yester.store.salvage import DataFile
from yester.store.segments import Header, parse_header
from yester.store.store import Store

SEED = 7
FILES = 70
VERSIONS = 2


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
            self.segments = list(_find_segments(self.path, self.data))
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


def _find_segments(path: Path, data: bytes) -> Iterator[StoredSegment]:
    with DataFile(path) as file:
        for key, stored, page in file.walk(Table.SEGMENTS.value):
            start = page * PAGE_BYTES
            # A small one is on the page of its row, maybe twice: what was moved stays in the page's free space as well.
            offset = data.find(stored, start + PAGE.unpack_from(data, start)[4], start + PAGE_BYTES)
            offset = offset if offset >= 0 else data.index(stored)
            yield StoredSegment(int.from_bytes(key, "big"), parse_header(stored, None), offset, len(stored))


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


def changed(data: bytes, start: int, new: bytes) -> bytes:
    assert start + len(new) <= len(data)
    return data[:start] + new + data[start + len(new) :]


def wound(rng: random.Random, data: bytes, start: int, end: int) -> bytes:
    """Damage somewhere within these bytes: a flipped bit, zeros, or garbage."""
    at = rng.randrange(start, end)
    count = min(end - at, rng.choice([1, 16, 300, 4096]))
    kind = rng.choice(["flip", "zero", "garbage"])
    if kind == "flip":
        return flipped(data, at, rng.randrange(8))
    return changed(data, at, bytes(count) if kind == "zero" else rng.randbytes(count))


def named_paths(findings: Findings, patient: Patient, version: int) -> set[bytes]:
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

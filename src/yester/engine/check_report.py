# SPDX-License-Identifier: MIT
"""What a check, or a repair, tells: findings, and the paths and snapshots they touch (see `engine.check`)."""

from dataclasses import dataclass
from enum import Enum

from yester.core.ids import ChunkId
from yester.store.snapshots import StoredSnapshot


class FindingKind(Enum):
    """What is damaged."""

    DATABASE = "database"
    """LMDB's own pages. Nothing else was looked at."""
    SEGMENT = "segment"
    INDEX = "index"
    """The chunk index contradicts itself or the segments."""
    CHUNK = "chunk"
    TREE = "tree"
    """A directory's record, or an entry in it."""
    SNAPSHOT = "snapshot"
    SCAN = "scan"
    """What a backup remembers of its source."""
    LIVE = "live"
    """A live folder, or what only its versions have."""
    KEY = "key"
    """A key slot of an encrypted store."""
    HISTORY = "history"
    """An encrypted store does not go on from what was seen of it before."""


@dataclass(frozen=True, slots=True)
class Affected:
    """A path that damage touches: all of it and below it if it `is_folder`; and which snapshots of the source have it so."""

    source: str
    path: bytes
    is_folder: bool
    first: StoredSnapshot
    last: StoredSnapshot
    count: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `affected` is sorted by source and path; `affected_more` counts those left out of it."""

    kind: FindingKind
    what: str
    affected: tuple[Affected, ...] = ()
    affected_more: int = 0
    chunk: ChunkId | None = None
    """The chunk that is not there, if that is what is wrong."""
    known_since_ns: int = 0
    """When a repair gave that chunk up; 0 if this damage is new."""
    live_folder: str | None = None
    """The live folder whose rows contradict each other or cannot be read, if that is what is wrong."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, and what is wrong. A chunk is *unneeded* if no snapshot and no unfinished backup names it: no error."""

    findings: tuple[Finding, ...]
    findings_more: int = 0
    snapshots: int = 0
    trees: int = 0
    files: int = 0
    chunks: int = 0
    segments: int = 0
    unneeded_chunks: int = 0
    unneeded_bytes: int = 0
    unneeded_segments: int = 0
    """Segments that hold no needed chunk, and what they take as stored: what removing them would give back."""
    unneeded_stored_bytes: int = 0
    read_segments: int = 0
    read_bytes: int = 0
    """Segments that were read and hashed, and their decompressed bytes."""
    seed: int | None = None
    """What the sample was chosen by, if only one was read."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def is_as_known(self) -> bool:
        """Whether nothing is wrong but what a repair has noted before."""
        return not self.findings_more and all(finding.known_since_ns for finding in self.findings)

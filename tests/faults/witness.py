# SPDX-License-Identifier: MIT
"""A folder of which every byte is known from a seed, and a walk that holds a snapshot against it.

The walk reads as restore, the mount and `yester cat` do (trees through `TreeReader`, bytes through `FileReader` and
`iter_pieces`), and does not rely on `engine.check`: it is the second opinion on what `check` says.
"""

import os
import random
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from yester.core.chunking import KIB, ChunkParams
from yester.core.records import Entry
from yester.engine import prune
from yester.engine.files import FileReader, iter_pieces
from yester.engine.trees import TreeReader
from yester.errors import YesterError
from yester.store import chunks
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

SMALL_CHUNKS = ChunkParams(4 * KIB, 16 * KIB, 64 * KIB)
"""Makes span lists of two levels in files of a few MB."""

_SMALL_BATCHES = {"SEGMENT_BYTES": 32 * KIB, "BATCH_STORED_BYTES": 48 * KIB, "BATCH_RAW_BYTES": 128 * KIB}
_SMALL_SWEEPS = {"ROWS_MAX": 30, "SOURCES_MAX": 4, "SEGMENTS_MAX": 2, "REWRITTEN_BYTES": 48 * KIB}
_FILES = 140
_FOLDERS = (b"", b"letters", b"letters/2024", b"letters/2025", b"photos", b"photos/raw", b"deep/er/and/deep\xff\xfeer", b"many")
_MTIME_NS = 1_600_000_000_123_456_789
_PATIENCE_NS = 60 * 10**9


def make_batches_small() -> None:
    """Have this process commit every few files: what goes wrong goes wrong at a commit, so there must be many."""
    for name, value in _SMALL_BATCHES.items():
        assert hasattr(chunks, name)
        setattr(chunks, name, value)
    for name, value in _SMALL_SWEEPS.items():
        assert hasattr(prune, name)
        setattr(prune, name, value)


class Node(NamedTuple):
    """What a name stands for. `data` is a symlink's target."""

    mode: int
    mtime_ns: int
    data: bytes


Nodes = Mapping[bytes, Node]
"""By path from the snapshot's root, which itself is not in it."""


def sample_nodes(seed: int, version: int, *, files: int = _FILES) -> dict[bytes, Node]:
    """The sample as of a version: from one to the next about a fourth of the files change, some come, some go. 4 MB."""
    nodes = {}
    for number in range(files):
        rng = random.Random(f"{seed}.{number}")
        born, dies = (rng.randrange(1, 4) if rng.random() < 0.1 else 0), (rng.randrange(1, 4) if rng.random() < 0.1 else 99)
        folder = _FOLDERS[rng.randrange(len(_FOLDERS))]
        name = b"%d-%s" % (number, rng.choice([b"plain", b"new\nline", b"caf\xe9", "naïve".encode(), b"x" * 200]))
        data = _first_data(rng)
        mtime_ns = _MTIME_NS + number
        for step in range(1, version + 1):
            if rng.random() < 0.25:
                data = _changed_data(rng, data)
                mtime_ns += step * 10**9
        if born <= version < dies:
            nodes[folder + b"/" + name if folder else name] = Node(stat.S_IFREG | rng.choice([0o644, 0o600, 0o755]), mtime_ns, data)
    nodes[b"letters/link"] = Node(stat.S_IFLNK | 0o777, _MTIME_NS, b"../photos/raw")
    for folder in _FOLDERS[1:]:
        parts = folder.split(b"/")
        for depth in range(1, len(parts) + 1):
            nodes[b"/".join(parts[:depth])] = Node(stat.S_IFDIR | 0o755, _MTIME_NS - depth, b"")
    return nodes


def _first_data(rng: random.Random) -> bytes:
    size = rng.choice([0, 1, 700, 3_000, 9_000, 20_000, 60_000, 150_000])
    if rng.random() < 0.5:
        return rng.randbytes(size)  # does not compress: stored as it is
    words = [rng.randbytes(3).hex().encode() for _ in range(200)]
    return b" ".join(rng.choices(words, k=size // 7 + 1))[:size]


def _changed_data(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 2000)) + data[at:]


def write_nodes(folder: Path, nodes: Nodes) -> None:
    """Make `folder` hold exactly these; files that are right already are not touched. Then let its time stamps settle."""
    folder.mkdir(exist_ok=True)
    top = os.fsencode(folder)
    present = {os.path.relpath(os.path.join(parent, name), top) for parent, _, names in os.walk(top) for name in names}
    for path in present - nodes.keys():
        os.unlink(os.path.join(top, path))
    for path, node in sorted(nodes.items()):
        full = os.path.join(top, path)
        if stat.S_ISDIR(node.mode):
            os.makedirs(full, exist_ok=True)
        elif stat.S_ISLNK(node.mode):
            if not os.path.lexists(full):
                os.symlink(node.data, full)
        elif not (os.path.exists(full) and _read(full) == node.data):
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as file:
                file.write(node.data)
    for path, node in sorted(nodes.items(), reverse=True):
        full = os.path.join(top, path)
        status = os.lstat(full)
        if not stat.S_ISLNK(node.mode) and status.st_mode != node.mode:
            os.chmod(full, stat.S_IMODE(node.mode))
        if status.st_mtime_ns != node.mtime_ns:
            os.utime(full, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
    settle(folder)


def settle(folder: Path) -> None:
    """Wait until a change of anything in `folder` would get another time stamp than it has (see `engine.backup`)."""
    newest_ns = max(os.lstat(os.path.join(parent, name)).st_ctime_ns for parent, _, names in os.walk(folder) for name in [".", *names])
    wait_until_ns = newest_ns + 30_000_000
    assert wait_until_ns < time.time_ns() + _PATIENCE_NS, "the clock and the file system disagree"
    while (left_ns := wait_until_ns - time.time_ns()) > 0:
        time.sleep(left_ns / 10**9)


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@dataclass(slots=True)
class Judgement:
    """What became of each expected path. `wrong` is what must never be: other bytes than were backed up, without an error."""

    whole: set[bytes] = field(default_factory=set)
    damaged: dict[bytes, str] = field(default_factory=dict)
    """Reading it, or a folder above it, gives one of our errors: the message."""
    wrong: dict[bytes, str] = field(default_factory=dict)

    def is_whole(self) -> bool:
        """Whether everything is there as it was."""
        return not self.damaged and not self.wrong


def judge(store: Store, stored: StoredSnapshot, nodes: Nodes) -> Judgement:
    """Read all of a snapshot and compare it with what was backed up."""
    found: dict[bytes, Node | YesterError] = {}
    trees = TreeReader(store.reader())
    waiting = [(b"", stored.snapshot.root)]
    while waiting:
        path, directory = waiting.pop()
        try:
            entries = trees.read(directory.tree).entries
        except YesterError as error:
            found[path] = error
            continue
        for entry in entries:
            inner = path + b"/" + entry.name if path else entry.name
            try:
                found[inner] = Node(entry.mode, entry.mtime_ns, _read_entry(trees, entry))
            except YesterError as error:
                found[inner] = error
            if stat.S_ISDIR(entry.mode):
                waiting.append((inner, entry))
    judgement = Judgement()
    for path, node in nodes.items():
        got = _first_found(found, path)
        if isinstance(got, YesterError):
            judgement.damaged[path] = got.message
        elif got == node:
            judgement.whole.add(path)
        else:
            judgement.wrong[path] = _difference(got, node)
    judgement.wrong |= {path: "was never backed up" for path, got in found.items() if path not in nodes and isinstance(got, Node)}
    return judgement


def _read_entry(trees: TreeReader, entry: Entry) -> bytes:
    """A symlink's target, or a file's bytes, read in both ways there are."""
    if not stat.S_ISREG(entry.mode):
        return entry.content if stat.S_ISLNK(entry.mode) else b""
    reader = FileReader(trees.chunks, entry.file_content, entry.size)
    data = b"".join(bytes(reader.read(at, 50_000)) for at in range(0, entry.size, 50_000))
    pieces = b"".join(bytes(length) if piece is None else bytes(piece) for length, piece in iter_pieces(trees.chunks, entry.file_content))
    assert data == pieces, "reading a file at once and in parts differ"
    return data


def _first_found(found: Mapping[bytes, Node | YesterError], path: bytes) -> Node | YesterError | None:
    """What was found at a path, or the error of the folder that hides it."""
    parts = path.split(b"/")
    for depth in range(len(parts)):
        above = found.get(b"/".join(parts[:depth]))
        if isinstance(above, YesterError):
            return above
    return found.get(path)


def _difference(got: Node | None, node: Node) -> str:
    if got is None:
        return "is missing"
    if got.data != node.data:
        return f"holds other bytes ({len(got.data)}, expected {len(node.data)})"
    return f"has mode {got.mode:o} and time {got.mtime_ns} instead of {node.mode:o} and {node.mtime_ns}"

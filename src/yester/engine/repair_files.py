# SPDX-License-Identifier: MIT
"""Looking for lost chunks in files of this host: a part of `engine.repair`.

A file that was backed up may still be where it was, or have been renamed: then it has the same size. It is cut as a backup cuts it, and
bytes are taken by their hash alone, so it matters neither what a store says of a path nor what has become of the file since.
Files are opened for reading and nothing else, as a backup opens them.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from yester.core.chunking import ChunkParams
from yester.core.ids import ChunkId, NameChunk
from yester.core.records import Snapshot
from yester.engine.source import OPEN_DIRECTORY, SourceReader
from yester.engine.steps import StepProgress
from yester.store.segments import Kind

Keep = Callable[[Kind, bytes | memoryview], object]


@dataclass(slots=True)
class Wanted:
    """What is looked for: lost chunks, and where on the host the files were that need them."""

    lost: set[ChunkId]
    files: set[bytes] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)
    roots: set[bytes] = field(default_factory=set)
    """The folders that were backed up."""

    def add(self, snapshot: Snapshot, path: bytes, size: int) -> None:
        """Note a file that needs a lost chunk."""
        self.roots.update(snapshot.paths)
        self.sizes.add(size)
        if place := host_path(snapshot, path):
            self.files.add(place)


@dataclass(frozen=True, slots=True)
class FoundIn:
    """A file of the host that had lost chunks, and how many."""

    path: bytes
    chunks: int


def host_path(snapshot: Snapshot, path: bytes) -> bytes:
    """Where on its host a path of a snapshot was; nothing where it was nowhere, as in versions of live folders."""
    if not snapshot.is_root_made_up:
        return snapshot.paths[0].rstrip(b"/") + b"/" + path if len(snapshot.paths) == 1 else b""
    name, _, below = path.partition(b"/")
    for root in snapshot.paths:
        if os.path.basename(root) == name:
            return root + b"/" + below if below else root
    return b""


class FileSearch:
    """Reads files and keeps what is wanted of them. Not thread-safe.

    `name` gives bytes their id in the store, `has` says whether it has a chunk, `keep` stores one. `wanted.lost` loses what is found.
    """

    def __init__(self, params: ChunkParams, wanted: Wanted, *, name: NameChunk, has: Callable[[ChunkId], bool], keep: Keep) -> None:
        self._reader = SourceReader(
            params,
            store_data=lambda data: self._look_at(Kind.DATA, data),
            store_list=lambda data: self._look_at(Kind.TREE, data),
        )
        self._wanted = wanted
        self._name = name
        self._has = has
        self._keep = keep
        self._found = 0
        self._has_list = False
        """Whether a lost span list was found in the file that is being read."""
        self._takes_all = False
        self._kept: set[ChunkId] = set()

    def run(self, progress: StepProgress) -> Iterator[FoundIn]:
        """Look into the files themselves, then, if something is still lost, into all others of their sizes."""
        progress.begin("files of this computer")
        tried: set[tuple[int, int]] = set()
        yield from self._search(sorted(self._wanted.files), tried, progress)
        if self._wanted.lost:
            yield from self._search(_files_of_size(self._wanted.roots, self._wanted.sizes), tried, progress)

    def _search(self, paths: Iterable[bytes], tried: set[tuple[int, int]], progress: StepProgress) -> Iterator[FoundIn]:
        for path in paths:
            if not self._wanted.lost:
                return
            progress.done += 1
            try:
                self._found = 0
                self._read(path, tried)
            except (OSError, ValueError):
                pass  # it is not there, or may not be read, or was never a path
            if self._found:
                yield FoundIn(path, self._found)

    def _read(self, path: bytes, tried: set[tuple[int, int]]) -> None:
        folder, name = os.path.split(path)
        directory = os.open(folder or b"/", OPEN_DIRECTORY & ~os.O_NOFOLLOW)
        try:
            status = os.lstat(name, dir_fd=directory)
            identity = (status.st_dev, status.st_ino)
            # Files of /proc have no size, and reading one can wait for ever.
            if not stat.S_ISREG(status.st_mode) or not status.st_size or identity in tried:
                return
            tried.add(identity)
            self._has_list = False
            self._reader.read_file(directory, name, status, lambda _problem: None)
            if self._has_list:
                # What the list names may be lost as well: nobody could tell without the list.
                self._takes_all = True
                self._reader.read_file(directory, name, status, lambda _problem: None)
        finally:
            self._takes_all = False
            os.close(directory)

    def _look_at(self, kind: Kind, data: bytes | memoryview) -> ChunkId:
        chunk = self._name(data)
        if chunk in self._wanted.lost:
            self._wanted.lost.remove(chunk)
            self._has_list |= kind is Kind.TREE
            self._take(kind, chunk, data)
        elif self._takes_all and chunk not in self._kept and not self._has(chunk):
            self._take(kind, chunk, data)
        return chunk

    def _take(self, kind: Kind, chunk: ChunkId, data: bytes | memoryview) -> None:
        self._kept.add(chunk)
        self._found += 1
        self._keep(kind, data)


def _files_of_size(roots: Iterable[bytes], sizes: set[int]) -> Iterator[bytes]:
    """Files below these folders that have one of these sizes; not on other file systems, where our own mounts may be."""
    for root in sorted(roots):
        try:
            device = os.lstat(root).st_dev
        except (OSError, ValueError):
            continue
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if _device(folder + b"/" + name) == device]
            for name in names:
                path = folder + b"/" + name
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode) and status.st_size in sizes:
                    yield path


def _device(path: bytes) -> int:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return -1

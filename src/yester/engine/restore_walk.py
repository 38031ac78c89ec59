# SPDX-License-Identifier: MIT
"""The walk over stored folders that each pass of a restore makes.

Reads trees from the store and touches nothing of the host. Memory: the names of folders still to be walked on the way down
from the root; trees are read anew in each walk, which takes 1 ms for 1000 entries. No recursion: depth has no limit.

Threads: a `StoredWalk` belongs to one thread.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from yester.core.ids import TreeId
from yester.core.records import Entry
from yester.engine.restore_files import StoredFolder, Tally, join, read_folder
from yester.engine.target import Owner, OwnerMap, Owners
from yester.errors import CorruptionError, FormatError
from yester.store.chunks import ChunkSource


@dataclass(slots=True)
class Visit:
    """A stored folder that a walk is at. The walker sets `is_new` and `is_pruned` when it enters."""

    path: bytes
    entry: Entry
    owners: OwnerMap | None
    """For `entry`; None: as for what it holds."""
    parent: "Visit | None"
    is_new: bool = False
    """Whether this restore made the folder: nothing is in it then but what this restore put there."""
    is_pruned: bool = False
    """To keep this walk, and later ones, out of the folder."""
    subfolders: list[Entry] | None = None
    """What is left to walk; None before it is entered."""
    inner_owners: OwnerMap | None = None

    @property
    def owner(self) -> Owner:
        """Who the folder shall belong to, once it was entered."""
        owners = self.owners or self.inner_owners
        assert owners is not None
        return owners.owner_of(self.entry)


class StoredWalk:
    """Walks the same stored folders again and again; the first time it tallies what is damaged."""

    def __init__(self, chunks: ChunkSource, root: Entry, owner_map: OwnerMap | None, *, is_new: bool, owners: Owners, tally: Tally) -> None:
        """`owner_map` is for `root` itself; `is_new` is what its visit starts with."""
        self._chunks = chunks
        self._root = root
        self._owner_map = owner_map
        self._is_new = is_new
        self._owners = owners
        self._tally = tally
        self._pruned: set[bytes] = set()
        self._is_first = True
        self._bad_trees = set[TreeId]()

    def enter(self) -> Iterator[tuple[Visit, StoredFolder]]:
        """Each stored folder, before those in it."""
        for visit, stored in self._walk():
            if stored is not None:
                yield visit, stored

    def leave(self) -> Iterator[Visit]:
        """Each stored folder, after those in it."""
        for visit, stored in self._walk():
            if stored is None:
                yield visit

    def _walk(self) -> Iterator[tuple[Visit, StoredFolder | None]]:
        stack = [Visit(b"", self._root, self._owner_map, None, is_new=self._is_new)]
        while stack:
            visit = stack[-1]
            if visit.subfolders is None:
                stored = self._read(visit)
                if stored is None:
                    stack.pop()
                    continue
                visit.inner_owners = stored.owners
                yield visit, stored
                visit.subfolders = [entry for entry in reversed(stored.entries) if stat.S_ISDIR(entry.mode)]
                if visit.is_pruned:
                    self._pruned.add(visit.path)
                    stack.pop()
            elif visit.subfolders:
                entry = visit.subfolders.pop()
                path = join(visit.path, entry.name)
                if path not in self._pruned:
                    stack.append(Visit(path, entry, visit.inner_owners, visit))
            else:
                yield stack.pop(), None
        self._is_first = False

    def _read(self, visit: Visit) -> StoredFolder | None:
        try:
            is_judged = not self._is_first and visit.entry.tree not in self._bad_trees
            stored = read_folder(self._chunks, visit.entry.tree, self._owners, is_judged=is_judged)
        except (CorruptionError, FormatError) as error:
            self._pruned.add(visit.path)
            self._tally.damaged.add(visit.path, error.message)
            return None
        if self._is_first and stored.problems:
            self._bad_trees.add(visit.entry.tree)
            for name, problem in stored.problems:
                self._tally.damaged.add(join(visit.path, name), problem)
        return stored

# SPDX-License-Identifier: MIT
"""Walking many snapshots of a source at once, each distinct folder once.

Model: snapshots are numbered from 0 in order of time. At each path the walk holds the distinct trees that the snapshots
have there, each with the *run* of snapshots that have it. Merging their entries gives the distinct entries of every
name with their runs, and so the distinct trees one level down. As snapshots of one source share most of their trees, 100
of them cost little more than one.
"""

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from yester.core.ids import TreeId
from yester.core.records import Entry
from yester.core.treediff import same_entry


class Run(NamedTuple):
    """Which snapshots hold something: the number of the first and the last, and how many do (maybe not all between)."""

    first: int
    last: int
    times: int


class Occurrence(NamedTuple):
    """One path, and what it is in the snapshots that have it: distinct entries, those of older snapshots first."""

    path: bytes
    entries: Sequence[tuple[Entry, Run]]


ReadEntries = Callable[[TreeId, bytes], Iterable[Entry]]
"""Gives a tree's entries, sorted by name; also gets the path. To keep the walk out of a folder, give none."""


def walk_snapshots(roots: Sequence[TreeId], read: ReadEntries) -> Iterator[Occurrence]:
    """Every path below the roots of snapshots, sorted by path components; folders before what they hold.

    Entries are distinct as `same_entry` says. Reads each (path, tree) pair once. Memory: the folders on the way down from
    the root, in all their versions.
    """
    trees: dict[TreeId, Run] = {}
    for number, tree in enumerate(roots):
        _note(trees, tree, Run(number, number, 1))
    stack = [_merge(trees, b"", read)]
    while stack:
        occurrence = next(stack[-1], None)
        if occurrence is None:
            stack.pop()
            continue
        yield occurrence
        trees = {}
        for entry, run in occurrence.entries:
            if stat.S_ISDIR(entry.mode):
                _note(trees, entry.tree, run)
        if trees:
            stack.append(_merge(trees, occurrence.path, read))


def _note(trees: dict[TreeId, Run], tree: TreeId, run: Run) -> None:
    known = trees.get(tree)
    trees[tree] = run if known is None else join_runs(known, run)


def join_runs(one: Run, other: Run) -> Run:
    """The run of two sets of snapshots that have none in common."""
    return Run(min(one.first, other.first), max(one.last, other.last), one.times + other.times)


def _merge(trees: dict[TreeId, Run], path: bytes, read: ReadEntries) -> Iterator[Occurrence]:
    """The names that the trees at `path` hold."""
    prefix = path + b"/" if path else b""
    if len(trees) == 1:
        [(tree, run)] = trees.items()
        for entry in read(tree, path):
            yield Occurrence(prefix + entry.name, ((entry, run),))
        return
    names: dict[bytes, list[tuple[Entry, Run]]] = {}
    for tree, run in trees.items():
        for entry in read(tree, path):
            _add(names.setdefault(entry.name, []), entry, run)
    for name in sorted(names):
        yield Occurrence(prefix + name, names[name])


def _add(entries: list[tuple[Entry, Run]], entry: Entry, run: Run) -> None:
    """Join an entry with its equal, which most often is the last; else append it."""
    for index in range(len(entries) - 1, -1, -1):
        known, known_run = entries[index]
        if known == entry or same_entry(known, entry):
            entries[index] = known, join_runs(known_run, run)
            return
    entries.append((entry, run))

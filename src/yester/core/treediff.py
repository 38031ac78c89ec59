# SPDX-License-Identifier: MIT
"""Comparing two trees, one directory level at a time.

A caller that wants a whole comparison descends itself into directories whose tree ids differ: equal ids are equal subtrees,
which is why two snapshots of a large folder with few changes compare in no time.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import msgspec

from yester.core.records import Entry, Tree


class ChangeKind(Enum):
    """How a name differs. `TYPE`: a file became a folder, or the like."""

    ADDED = "added"
    REMOVED = "removed"
    CONTENT = "content"
    METADATA = "metadata"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Change:
    """A name that differs between two directories. `old` is None where it was added, `new` where it was removed."""

    name: bytes
    old: Entry | None
    new: Entry | None

    @property
    def kind(self) -> ChangeKind:
        """The greatest difference: type before content before metadata."""
        if self.old is None:
            return ChangeKind.ADDED
        if self.new is None:
            return ChangeKind.REMOVED
        if stat.S_IFMT(self.old.mode) != stat.S_IFMT(self.new.mode):
            return ChangeKind.TYPE
        return ChangeKind.METADATA if _content(self.old) == _content(self.new) else ChangeKind.CONTENT


def _content(entry: Entry) -> tuple[int, int, bytes, int]:
    """What an entry holds; for a device that is its number."""
    return entry.size, entry.level, entry.content, entry.rare.rdev


def same_entry(a: Entry, b: Entry) -> bool:
    """Whether nothing but the access time differs."""
    return a == b or (a.atime_ns != b.atime_ns and msgspec.structs.replace(a, atime_ns=b.atime_ns) == b)


def looks_same(a: Entry, b: Entry) -> bool:
    """Whether nobody could tell two entries of two snapshots apart, but by their access times.

    Unlike `same_entry`, whatever inodes files of several names had at their sources.
    """
    if same_entry(a, b):
        return True
    if a.extra is None or b.extra is None or a.extra.nlink == 1 or a.extra.link == b.extra.link:
        return False
    return same_entry(a, msgspec.structs.replace(b, extra=msgspec.structs.replace(b.extra, link=a.extra.link)))


def diff_trees(old: Tree | None, new: Tree | None) -> Iterator[Change]:
    """The names that differ between two directories, sorted; None is an empty one. O(entries)."""
    old_entries = old.entries if old is not None else ()
    new_entries = new.entries if new is not None else ()
    i = j = 0
    while i < len(old_entries) or j < len(new_entries):
        a = old_entries[i] if i < len(old_entries) else None
        b = new_entries[j] if j < len(new_entries) else None
        if b is None or (a is not None and a.name < b.name):
            assert a is not None
            yield Change(a.name, a, None)
            i += 1
        elif a is None or b.name < a.name:
            yield Change(b.name, None, b)
            j += 1
        else:
            if not looks_same(a, b):
                yield Change(a.name, a, b)
            i += 1
            j += 1

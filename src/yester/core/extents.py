# SPDX-License-Identifier: MIT
"""A file that is being written: ranges of new bytes over an older content that does not change (docs/adr/0007).

Model: the *base* is the file's content in the last version, as much of it as was never cut off. An *extent* says that a range
of the file is in a batch of written bytes, at a position. Where there is an extent the file is what that says, else the base
as far as it goes, else zeros up to the size:

    size       |--------------------------------------|
    extents         [ 7:0 ][ 9:4096 ]        [ 7:5000 ]
    base       |------------------------|
    file        base  new      new   base zeros  new

Rules:
1. Extents are sorted, do not overlap, hold at least one byte, and none reaches beyond the size.
2. The base is never longer than the size. Cutting a file short cuts the base for good: growing it again gives zeros.
3. Extents that follow each other in the file and in one batch are one: a file written from front to back has one for each batch.

Knows offsets only, no bytes. Not thread-safe.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Extent(NamedTuple):
    """`length` bytes of a file from `offset` on are in batch `batch` from `position` on."""

    offset: int
    length: int
    batch: int
    position: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.length

    def part(self, start: int, end: int) -> "Extent":
        """What of it lies from `start` to `end`, both within it."""
        return Extent(start, end - start, self.batch, self.position + start - self.offset)


class Piece(NamedTuple):
    """A run of a file's bytes. `extent` says where they are; without one they are those of the base, or zeros beyond its end."""

    offset: int
    length: int
    extent: Extent | None
    is_base: bool


class Changes(NamedTuple):
    """What changed in a file: by offset, the extent that begins there now, or None if none does.

    `uses` says how many bytes more, or less, of each batch it consists of.
    """

    extents: dict[int, Extent | None]
    uses: dict[int, int]
    added: int
    """How many extents more there are, or less."""


class ExtentMap:
    """The extents of one file, with its size and how much of its base still counts.

    `take_changes` tells what to store so that a new map made of it is like this one.
    """

    __slots__ = ("_added", "_changes", "_extents", "_uses", "base_bytes", "size", "was_shortened", "written_bytes")

    def __init__(self, *, base_bytes: int, size: int, extents: Iterable[Extent] = ()) -> None:
        """`extents` are those of another map, in any order."""
        assert 0 <= base_bytes <= size
        self.size = size
        self.base_bytes = base_bytes
        self.was_shortened = False
        """Whether it was cut short since a version was begun that it is in."""
        self._extents = sorted(extents)
        self.written_bytes = sum(extent.length for extent in self._extents)
        """How many bytes are in extents."""
        self._changes: dict[int, Extent | None] | None = None
        self._added = 0
        self._uses: dict[int, int] | None = None
        """How many bytes more, or less, of each batch are in use. Both are None for nothing, as nearly always: there are many maps."""

    def __bool__(self) -> bool:
        return bool(self._extents)

    def __len__(self) -> int:
        return len(self._extents)

    def extents(self) -> tuple[Extent, ...]:
        """All of them, in order."""
        return tuple(self._extents)

    def write(self, offset: int, length: int, batch: int, position: int) -> None:
        """`length` > 0 bytes from `offset` on are now in this batch. O(log n), and moving what lies behind."""
        assert length > 0
        new = Extent(offset, length, batch, position)
        at = self._clear(offset, new.end)
        before = self._extents[at - 1] if at else None
        if before is not None and (before.end, before.batch, before.position + before.length) == (offset, batch, position):
            at -= 1
            self._note(before.offset, None, batch, -before.length)
            del self._extents[at]
            new = Extent(before.offset, before.length + length, batch, before.position)
        self._extents.insert(at, new)
        self._note(new.offset, new, batch, new.length)
        self.size = max(self.size, offset + length)

    def truncate(self, size: int) -> None:
        """The file has this size now; what is new of it is zeros."""
        if size < self.size:
            self._clear(size, self.size)
            self.was_shortened = True
            self.base_bytes = min(self.base_bytes, size)
        self.size = size

    def restart(self, base_bytes: int) -> None:
        """The file is another base, of so many bytes, and nothing else."""
        self._clear(0, self.size)
        self.was_shortened = True
        self.base_bytes = self.size = base_bytes

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """What the file is from `start` to `end` or its end, in order, without gaps."""
        end = min(end, self.size)
        index = max(0, bisect_right(self._extents, start, key=_offset) - 1)
        while start < end:
            while index < len(self._extents) and self._extents[index].end <= start:
                index += 1
            following = self._extents[index] if index < len(self._extents) else None
            if following is not None and following.offset <= start:
                until = min(following.end, end)
                yield Piece(start, until - start, following.part(start, until), is_base=False)
            else:
                is_base = start < self.base_bytes
                until = min(end, following.offset if following else end, self.base_bytes if is_base else end)
                yield Piece(start, until - start, None, is_base=is_base)
            start = until

    def rebase(self, base_bytes: int, *, last_batch: int) -> None:
        """The file has a new base of so many bytes, which holds all that batches up to `last_batch` said of it.

        Only for a file that was not cut short since then (`was_shortened`).
        """
        for extent in self._extents:
            if extent.batch <= last_batch:
                self._note(extent.offset, None, extent.batch, -extent.length)
        self._extents = [extent for extent in self._extents if extent.batch > last_batch]
        self.base_bytes = base_bytes
        assert base_bytes <= self.size

    def take_changes(self) -> Changes:
        """What changed since this was last asked."""
        changes = Changes(self._changes or {}, self._uses or {}, self._added)
        self._changes = self._uses = None
        self._added = 0
        return changes

    def drop(self) -> Changes:
        """The file is gone, or all of it is in its base: what to store then."""
        self._clear(0, self.size)
        return self.take_changes()

    def _note(self, offset: int, extent: Extent | None, batch: int, length: int) -> None:
        """What begins at an offset now, and how many bytes more of a batch are in use."""
        if self._changes is None or self._uses is None:
            self._changes, self._uses = {}, {}
        self._changes[offset] = extent
        self._added += 1 if extent is not None else -1
        self._uses[batch] = self._uses.get(batch, 0) + length
        self.written_bytes += length

    def _clear(self, start: int, end: int) -> int:
        """Leave no extent between `start` and `end`. Returns the index of the first that lies behind."""
        first = bisect_right(self._extents, start, key=_offset)
        if first and self._extents[first - 1].end > start:
            first -= 1
        last = bisect_left(self._extents, end, key=_offset)
        kept = []
        for extent in self._extents[first:last]:
            self._note(extent.offset, None, extent.batch, -extent.length)
            if extent.offset < start:
                kept.append(extent.part(extent.offset, start))
            if extent.end > end:
                kept.append(extent.part(end, extent.end))
        for extent in kept:
            self._note(extent.offset, extent, extent.batch, extent.length)
        self._extents[first:last] = kept
        return first + (bool(kept) and kept[0].offset < start)


def _offset(extent: Extent) -> int:
    return extent.offset

# SPDX-License-Identifier: MIT
"""Extents, against a file that is just bytes."""

import itertools
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from yester.core.extents import Extent, ExtentMap

BASE = bytes(range(1, 41))
SIZES = st.integers(0, 60)


@dataclass
class Written:
    """Batches of bytes, each byte of its own kind, and where the next goes."""

    batches: dict[int, bytearray] = field(default_factory=dict)
    current: int = 1
    kind: int = 100

    def add(self, length: int) -> tuple[int, int, bytes]:
        """Batch, position and bytes of something new."""
        batch = self.batches.setdefault(self.current, bytearray())
        position = len(batch)
        data = bytes((self.kind + number) % 200 + 50 for number in range(length))
        self.kind += 7
        batch += data
        return self.current, position, data


def content(extents: ExtentMap, base: bytes, written: Written) -> bytes:
    """The whole file."""
    found = b""
    for piece in extents.pieces(0, extents.size):
        assert piece.offset == len(found)
        assert piece.length > 0
        if piece.extent is not None:
            assert (piece.extent.offset, piece.extent.length) == (piece.offset, piece.length)
            found += written.batches[piece.extent.batch][piece.extent.position : piece.extent.position + piece.length]
        else:
            found += base[piece.offset : piece.offset + piece.length] if piece.is_base else bytes(piece.length)
    return found


class Machine(RuleBasedStateMachine):
    """Writes, cuts, versions and restarts."""

    @initialize()
    def start(self) -> None:
        self.base = BASE
        self.file = bytearray(BASE)
        self.written = Written()
        self.extents = ExtentMap(base_bytes=len(BASE), size=len(BASE))
        self.stored: dict[int, Extent] = {}
        self.was_cut = False

    @rule(offset=SIZES, length=st.integers(1, 20))
    def write(self, offset: int, length: int) -> None:
        batch, position, data = self.written.add(length)
        self.extents.write(offset, length, batch, position)
        self.file += bytes(max(0, offset - len(self.file)))
        self.file[offset : offset + length] = data

    @rule(length=st.integers(1, 5))
    def append(self, length: int) -> None:
        self.write(len(self.file), length)

    @rule(size=SIZES)
    def truncate(self, size: int) -> None:
        self.was_cut |= size < len(self.file)
        self.extents.truncate(size)
        self.file = self.file[:size] + bytes(max(0, size - len(self.file)))

    @rule()
    def end_batch(self) -> None:
        self.written.current += 1

    @rule(more=st.integers(0, 3))
    def publish(self, more: int) -> None:
        """What was written so far becomes the base, while writing goes on."""
        base = bytes(self.file)
        last_batch = self.written.current
        self.written.current += 1
        self.was_cut = False
        for number in range(more):
            self.write(number * 13, 5)
        if not self.was_cut:
            self.base = base
            self.extents.rebase(len(base), last_batch=last_batch)

    @rule()
    def restart(self) -> None:
        """A map made of what was stored is like the one that is gone."""
        self.store()
        self.extents = ExtentMap(base_bytes=self.extents.base_bytes, size=self.extents.size, extents=tuple(self.stored.values()))

    @rule()
    def store(self) -> None:
        for offset, extent in self.extents.take_changes().extents.items():
            if extent is None:
                self.stored.pop(offset, None)
            else:
                self.stored[offset] = extent

    @invariant()
    def the_file_is_what_was_written(self) -> None:
        assert content(self.extents, self.base, self.written) == self.file

    @invariant()
    def the_extents_keep_their_rules(self) -> None:
        extents = self.extents.extents()
        assert all(extent.length > 0 for extent in extents)
        assert all(before.end <= after.offset for before, after in itertools.pairwise(extents))
        assert not extents or extents[-1].end <= self.extents.size
        assert self.extents.base_bytes <= self.extents.size


TestExtents = Machine.TestCase


@given(start=SIZES, end=SIZES)
def test_a_part_of_a_file_is_that_part(start: int, end: int) -> None:
    extents = ExtentMap(base_bytes=20, size=50, extents=(Extent(30, 5, 1, 0), Extent(10, 15, 1, 5)))
    pieces = list(extents.pieces(start, end))
    assert sum(piece.length for piece in pieces) == max(0, min(end, 50) - start)
    assert all(before.offset + before.length == after.offset for before, after in itertools.pairwise(pieces))
    assert not pieces or pieces[0].offset == start


def test_a_file_that_is_written_from_front_to_back_is_one_extent_a_batch() -> None:
    extents = ExtentMap(base_bytes=0, size=0)
    for number in range(1000):
        extents.write(number * 10, 10, 1, number * 10)
    assert extents.extents() == (Extent(0, 10_000, 1, 0),)
    extents.write(10_000, 10, 2, 0)
    assert len(extents) == 2
    assert list(extents.take_changes().extents) == [0, 10_000]

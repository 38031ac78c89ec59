# SPDX-License-Identifier: MIT
"""Judge `fsx`: random reads, writes, truncations and mappings of one file through several descriptors, against bytes in memory."""

import mmap
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from judging import Bench, Finding, Verdict

_Operation = Callable[[], None]
_KEPT_OPERATIONS = 40


class _DifferenceError(Exception):
    """The file is not what the model says."""


@dataclass(slots=True)
class _Exerciser:
    """A file and the bytes that it should have."""

    path: Path
    numbers: random.Random
    size_max: int
    model: bytearray = field(default_factory=bytearray)
    done: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def start(self) -> None:
        self.path.write_bytes(b"")
        self.descriptors = [os.open(self.path, os.O_RDWR) for _ in range(2)]

    def stop(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def step(self) -> None:
        """Do something at random.

        Raises:
            _DifferenceError: the file has other bytes or another size than the model.
        """
        operations: list[tuple[_Operation, int]] = [
            (self._read, 25),
            (self._write, 25),
            (self._append, 5),
            (self._truncate, 8),
            (self._read_mapped, 12),
            (self._write_mapped, 12),
            (self._sync, 3),
            (self._reopen, 3),
            (self._replace, 1),
            (self._check_all, 2),
        ]
        [operation] = self.numbers.choices([one for one, _ in operations], [weight for _, weight in operations])
        operation()
        size = os.fstat(self._descriptor()).st_size
        if size != len(self.model):
            self._differ(f"size is {size}, should be {len(self.model)}")

    @staticmethod
    def _differ(message: str) -> NoReturn:
        raise _DifferenceError(message)

    def _note(self, text: str) -> None:
        self.done.append(text)

    def _descriptor(self) -> int:
        return self.numbers.choice(self.descriptors)

    def _offset(self, limit: int) -> int:
        """Anywhere, often at or beside the edge of a page or of 128 KiB."""
        edge = self.numbers.choice([1, 1, 512, 4096, 131_072])
        place = self.numbers.randrange(limit + 1) // edge * edge + (self.numbers.choice([-1, 0, 1]) if edge > 1 else 0)
        return min(max(place, 0), limit)

    def _count(self, limit: int) -> int:
        return min(limit, int(2 ** self.numbers.uniform(0, 17.5)))

    def _data(self, count: int) -> bytes:
        return self.numbers.randbytes(count) if self.numbers.random() < 0.9 else bytes(count)

    def _same(self, found: bytes, offset: int) -> None:
        expected = self.model[offset : offset + len(found)]
        if found != expected:
            at = next((place for place, (one, two) in enumerate(zip(found, expected, strict=False)) if one != two), len(expected))
            wrong = sum(one != two for one, two in zip(found, expected, strict=False))
            message = f"byte {offset + at} is {found[at : at + 8].hex()}…, should be {bytes(expected[at : at + 8]).hex()}…; {wrong} wrong"
            raise _DifferenceError(message)

    def _read(self) -> None:
        offset = self._offset(len(self.model))
        count = self._count(self.size_max)
        self._note(f"pread({count}, {offset})")
        found = os.pread(self._descriptor(), count, offset)
        if len(found) != min(count, len(self.model) - offset):
            self._differ(f"read {len(found)} bytes, should be {min(count, len(self.model) - offset)}")
        self._same(found, offset)

    def _write(self) -> None:
        offset = self._offset(self.size_max - 1)
        data = self._data(self._count(self.size_max - offset))
        self._note(f"pwrite({len(data)}, {offset})")
        self._put(data, offset, os.pwrite(self._descriptor(), data, offset))

    def _append(self) -> None:
        data = self._data(self._count(max(self.size_max - len(self.model), 0)))
        if data:
            self._note(f"append({len(data)})")
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            written = os.write(descriptor, data)
            os.close(descriptor)
            self._put(data, len(self.model), written)

    def _put(self, data: bytes, offset: int, written: int) -> None:
        if written != len(data):
            self._differ(f"wrote {written} bytes of {len(data)}")
        self.model.extend(bytes(max(offset - len(self.model), 0)))
        self.model[offset : offset + len(data)] = data

    def _truncate(self) -> None:
        size = self._offset(self.size_max)
        self._note(f"ftruncate({size})")
        if self.numbers.random() < 0.5:
            os.ftruncate(self._descriptor(), size)
        else:
            os.truncate(self.path, size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def _read_mapped(self) -> None:
        if not self.model:
            return
        offset = self._offset(len(self.model) - 1)
        count = self._count(len(self.model) - offset)
        self._note(f"mapped read({count}, {offset})")
        # Mapped with MAP_SHARED, of whole pages: behind the end of the file the rest of the last page reads as zeros.
        with mmap.mmap(self._descriptor(), len(self.model)) as mapped:
            self._same(mapped[offset : offset + count], offset)

    def _write_mapped(self) -> None:
        if not self.model:
            return
        offset = self._offset(len(self.model) - 1)
        data = self._data(self._count(len(self.model) - offset))
        is_flushed = self.numbers.random() < 0.5
        self._note(f"mapped write({len(data)}, {offset}){', msync' if is_flushed else ''}")
        with mmap.mmap(self._descriptor(), len(self.model)) as mapped:
            mapped[offset : offset + len(data)] = data
            if is_flushed:
                mapped.flush()
        self._put(data, offset, len(data))

    def _sync(self) -> None:
        self._note("fsync")
        os.fsync(self._descriptor())

    def _reopen(self) -> None:
        self._note("reopen")
        place = self.numbers.randrange(len(self.descriptors))
        os.close(self.descriptors[place])
        self.descriptors[place] = os.open(self.path, os.O_RDWR)

    def _replace(self) -> None:
        """Write a new file and rename it over this one, as editors save."""
        self._note("replace by a copy")
        beside = self.path.with_name(".beside")
        beside.write_bytes(self.model)
        beside.replace(self.path)
        self.stop()
        self.descriptors = [os.open(self.path, os.O_RDWR) for _ in range(2)]

    def _check_all(self) -> None:
        self._note("read all")
        self._same(self.path.read_bytes(), 0)


class Fsx:
    """Random work on a file."""

    name = "fsx"
    title = "random reads, writes, truncations and mappings of a file, against a model"
    packages: dict[str, str] = {}  # noqa: RUF012 # as in the Protocol
    limit_s = 900.0

    def judge(self, bench: Bench) -> Verdict:
        """Work on one file after another, small ones and large ones; stop a file at its first difference."""
        findings = []
        count = bench.pick(quick=1500, full=12_000)
        sizes = (5_000, 300_000, 3_000_000)
        runs = bench.pick(quick=1, full=3)
        for number in range(runs):
            for size in sizes:
                finding = _exercise(bench, f"{number} {size}", size, count // len(sizes))
                findings += [] if finding is None else [finding]
        ran = f"{count * runs:,} operations on {runs * len(sizes)} files of up to {sizes[-1] / 1e6:.0f} MB, seed {bench.seed}"
        return Verdict(ran, count * runs, findings)


def _exercise(bench: Bench, name: str, size: int, count: int) -> Finding | None:
    exerciser = _Exerciser(bench.judged / f"file {name}", bench.random(f"fsx {name}"), size)
    exerciser.start()
    try:
        for _ in range(count):
            exerciser.step()
    except (_DifferenceError, OSError) as error:
        last = "\n".join(exerciser.done[-_KEPT_OPERATIONS:])
        return Finding(
            f"file {name}, operation {len(exerciser.done)}",
            f"seed {bench.seed}, random numbers `fsx {name}`: {error}\nlast operations:\n{last}",
        )
    finally:
        exerciser.stop()
    return None

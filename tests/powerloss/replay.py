# SPDX-License-Identifier: MIT
"""Rebuilds a disk as power loss could have left it, at many moments of a recording, and asks a verifier about each.

usage: python -m tests.powerloss.replay FOLDER STATE     to make one state again by hand: writes FOLDER/state.img

Model. dm-log-writes logs a write once a flush made it durable, and logs flushes and marks where they happened. A disk
keeps what came before a flush; of what came after, it may have done any part in any order, and of each write any
sectors. So a state is a *durable* prefix of the log plus some of the writes up to the next flush:

- prefix states hold the log up to some entry and nothing after it: one at each mark, and one at every n-th entry;
- partial states hold the log up to a flush, and of the writes after it a random choice, some of them torn.

Every state must mount (ext4 recovers its journal), and then satisfy the verifier given the marks before it.
"""

import itertools
import json
import os
import random
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO, NamedTuple, Self

SECTOR_BYTES = 512
TEAR_SECTORS = 8
"""Writes tear between physical sectors of 4 KiB. ext4's superblock is one write of 1 KiB with a checksum: a disk that tears it
makes the file system unmountable, which says nothing of a store on it."""
PARTIAL_WRITES_MAX = 24
"""Writes after a flush that a partial state chooses from: a disk's queue is of that order."""

_HEADER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_MAGIC = 0x6A736677736872
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8
_START = "MOUNTED"
_END = "dm-log-writes-end"


class Write(NamedTuple):
    """An entry of the log: `length` bytes at `offset` of the disk, which stand at `data_at` in the log. Lengths may be 0."""

    offset: int
    length: int
    flags: int
    mark: str
    data_at: int

    @property
    def is_barrier(self) -> bool:
        """Whether all before it is durable; with data of its own only if that is, too."""
        return bool(self.flags & _FUA or (self.flags & _FLUSH and not self.length))


@dataclass(frozen=True, slots=True)
class State:
    """A disk to make. `kept` are, beyond the first `prefix` entries, writes of which some sectors arrived: entry and sectors."""

    name: str
    prefix: int
    acked: tuple[str, ...]
    kept: tuple[tuple[int, tuple[range, ...]], ...] = ()


@dataclass(slots=True)
class Report:
    """What the verifier said. `wrong` maps names of states to what is wrong with them."""

    seen: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)


class Recording:
    """What record.sh left in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk_bytes = (folder / "data.img").stat().st_size
        self._log = (folder / "log.img").open("rb")
        self.entries = list(_read_entries(self._log))
        self.start = next(index for index, entry in enumerate(self.entries) if entry.mark == _START)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def marks_before(self, prefix: int) -> tuple[str, ...]:
        """Acknowledgements within the first `prefix` entries, oldest first."""
        return tuple(entry.mark for entry in self.entries[self.start + 1 : prefix] if entry.mark)

    def prefix_states(self, every: int) -> list[State]:
        """One after each mark, and one after every `every`-th entry."""
        return [
            State(f"after {index}", index + 1, self.marks_before(index + 1))
            for index, entry in enumerate(self.entries)
            if index > self.start and (entry.mark or index % every == 0)
        ]

    def partial_states(self, count: int, seed: int) -> list[State]:
        """States with random parts of the writes between two flushes, in order of the log."""
        rng = random.Random(seed)
        barriers = [index for index, entry in enumerate(self.entries) if index >= self.start and entry.is_barrier]
        runs = [(a + 1, b) for a, b in zip(barriers, [*barriers[1:], len(self.entries)], strict=True)]
        runs = [(start, end) for start, end in runs if any(entry.length for entry in self.entries[start : end + 1])]
        states = []
        for number, (start, end) in enumerate(sorted(rng.choices(runs, k=count))):
            # A write that asks for a flush first, as a journal's commit block, only arrives after all before it.
            unordered = itertools.takewhile(
                lambda index: not self.entries[index].flags & _FLUSH, range(start, min(end + 1, len(self.entries)))
            )
            writes = [index for index in unordered if self.entries[index].length][:PARTIAL_WRITES_MAX]
            chosen = [index for index in writes if rng.random() < 0.6] or writes[-1:]
            kept = tuple((index, _surviving(rng, self.entries[index].length)) for index in chosen)
            # The power may have gone just before the next flush: what was acknowledged by then counts.
            states.append(State(f"partial {number}", start, self.marks_before(end), kept))
        return states

    def apply(self, image: int, entry: Write, sectors: tuple[range, ...] | None = None) -> None:
        """Do a write, or only some sectors of it."""
        if not entry.length:
            return
        if entry.flags & _DISCARD:
            os.pwrite(image, bytes(entry.length), entry.offset)
            return
        self._log.seek(entry.data_at)
        data = self._log.read(entry.length)
        for run in [range(entry.length // SECTOR_BYTES)] if sectors is None else sectors:
            start, end = run.start * SECTOR_BYTES, run.stop * SECTOR_BYTES
            os.pwrite(image, data[start:end], entry.offset + start)


def _read_entries(log: IO[bytes]) -> Iterator[Write]:
    magic, _version, count, sector_bytes = _HEADER.unpack(log.read(_HEADER.size))
    assert magic == _MAGIC, "not a log of dm-log-writes"
    position = sector_bytes
    for _ in range(count):
        log.seek(position)
        sector, sectors, flags, text_bytes = _ENTRY.unpack(log.read(_ENTRY.size))
        mark = log.read(text_bytes).rstrip(b"\0").decode() if flags & _MARK else ""
        if mark != _END:
            yield Write(sector * sector_bytes, sectors * sector_bytes, flags, mark, position + sector_bytes)
        position += sector_bytes + (0 if flags & _DISCARD else sectors * sector_bytes)


def _surviving(rng: random.Random, length: int) -> tuple[range, ...]:
    """Which sectors of a write arrived: all, all but the end, all but the beginning, or the two ends."""
    sectors = length // SECTOR_BYTES
    a, b = sorted(rng.randrange(sectors // TEAR_SECTORS + 1) * TEAR_SECTORS for _ in range(2))
    return rng.choice([(range(sectors),), (range(sectors),), (range(a),), (range(a, sectors),), (range(a), range(b, sectors))])


class DiskBuilder:
    """Makes the images of states. Asked in the order of the log it does each write once."""

    def __init__(self, recording: Recording, base: Path) -> None:
        self._recording = recording
        self._base = base
        base.unlink(missing_ok=True)
        with base.open("xb") as image:
            image.truncate(recording.disk_bytes)
        self._done = 0

    def build(self, state: State, image: Path) -> None:
        """Write the disk of a state to the file `image`."""
        assert state.prefix >= self._done, "states must be built in order"
        with self._base.open("r+b") as base:
            while self._done < state.prefix:
                self._recording.apply(base.fileno(), self._recording.entries[self._done])
                self._done += 1
        subprocess.run(["cp", "--sparse=always", self._base, image], check=True)
        with image.open("r+b") as file:
            for index, sectors in state.kept:
                self._recording.apply(file.fileno(), self._recording.entries[index], sectors)


class VerifierProcess:
    """A running verifier with a disk image and a mount point of its own. Started anew if it dies."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.image = folder / "state.img"
        self._mount = folder / "disk"
        self._mount.mkdir(parents=True)
        self._command = [*command, str(folder)]
        self._log = (folder / "verifier.log").open("wb")
        self._process: subprocess.Popen[str] | None = None

    def ask(self, state: State) -> tuple[str, str]:
        """Mount the image and have it judged: what is wrong, empty if nothing is; and what was found."""
        mounted = subprocess.run(["mount", "-o", "loop", self.image, self._mount], check=False, capture_output=True, text=True)
        if mounted.returncode:
            return f"cannot be mounted: {mounted.stderr.strip()}", "unmountable"
        try:
            return self._answer(state)
        finally:
            subprocess.run(["umount", self._mount], check=True)

    def _answer(self, state: State) -> tuple[str, str]:
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"disk": str(self._mount), "acked": state.acked}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            self._process = None
            return f"the verifier died with status {status}: {Path(self._log.name).read_text()[-1000:]}", "dead"
        answer = json.loads(line)
        return answer["problem"], answer["state"]

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.communicate()
        self._log.close()


def replay(recording: Recording, states: list[State], verifier: list[str], folder: Path) -> Report:
    """Build each state and ask about it, two at a time. `folder` is for images and mount points."""
    report = Report()
    free: SimpleQueue[VerifierProcess] = SimpleQueue()

    def ask(process: VerifierProcess, state: State) -> tuple[str, str]:
        try:
            return process.ask(state)
        finally:
            free.put(process)

    with ExitStack() as cleanup:
        for number in range(2):
            process = VerifierProcess(verifier, folder / str(number))
            cleanup.callback(process.close)
            free.put(process)
        pool = cleanup.enter_context(ThreadPoolExecutor(2))
        builder = DiskBuilder(recording, folder / "base.img")
        answers: dict[str, Future[tuple[str, str]]] = {}
        for state in sorted(states, key=lambda state: state.prefix):
            process = free.get()
            builder.build(state, process.image)
            answers[state.name] = pool.submit(ask, process, state)
        for name, answer in answers.items():
            problem, found = answer.result()
            report.seen[found] += 1
            if problem:
                report.wrong[name] = problem
    return report


def main() -> None:
    """Make one state's image."""
    from tests.powerloss.test_powerloss import backup_states, live_states  # noqa: PLC0415 (it imports this module)

    with Recording(Path(sys.argv[1])) as recording:
        all_states = backup_states(recording) + live_states(recording)
        state = next(state for state in all_states if state.name == sys.argv[2])
        DiskBuilder(recording, recording.folder / "base.img").build(state, recording.folder / "state.img")
    print(f"{recording.folder / 'state.img'} is the disk of {state}")  # noqa: T201 (it is a command)


if __name__ == "__main__":
    main()

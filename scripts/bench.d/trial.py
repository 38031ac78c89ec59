# SPDX-License-Identifier: MIT
"""One round: each step of the comparison, done with one tool after the other, then the next step."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from datasets import DataSets, contents_of
from measure import TIMEOUT_S, Ran, StepError, check_equal, disk_bytes, read_output, run, status_bytes
from mounting import Mount, mounted
from rows import MEMORY_MOUNT_ROWS, MOUNT_ROWS, PLAIN, SECOND_ROWS, Results
from tools import Command, Snapshot, Tool, make_tool

_COUNT_REQUESTS = Path(__file__).with_name("count_requests.py")
_MB = 1e6


class Record:
    """What one column of the table has in one round."""

    def __init__(self, name: str, wanted: frozenset[str], results: Results) -> None:
        self.name = name
        self._wanted = wanted
        self._results = results
        self._tried: set[str] = set()

    def wants(self, rows: Iterable[str]) -> bool:
        """Whether any of these rows is to be measured."""
        return not self._wanted.isdisjoint(rows)

    def add(self, row: str, value: float) -> None:
        """Record a value."""
        self._tried.add(row)
        if row in self._wanted:
            print(f"  {self.name:14}{row:20}{value:14,.3f}", file=sys.stderr, flush=True)
            self._results.add(row, self.name, value)

    def fail(self, rows: Iterable[str], reason: str) -> None:
        """Record why rows have no value; those that were tried before keep what they have."""
        for row in sorted(self._wanted.intersection(rows) - self._tried):
            self._tried.add(row)
            print(f"  {self.name:14}{row:20}        failed: {reason}", file=sys.stderr, flush=True)
            self._results.fail(row, self.name, reason)

    def attempt(self, rows: Iterable[str], step: Callable[[], None]) -> None:
        """Do a step that measures these rows. If it fails, those that it did not get to have failed; the next step is tried."""
        try:
            step()
        except StepError as error:
            self.fail(rows, str(error))
        except (OSError, LookupError, ValueError) as error:  # a tool said or showed something unexpected
            self.fail(rows, repr(error))

    def measure(self, row: str, step: Callable[[], float]) -> None:
        """Do a step that measures one row."""
        self.attempt([row], lambda: self.add(row, step()))


class Trial:
    """A tool with a new store. The steps are to be called in the order in which they stand here."""

    def __init__(self, record: Record, folder: Path, data: DataSets) -> None:
        self._record = record
        self._folder = folder
        self._data = data
        self._tool: Tool | None = None
        self._taken = {"linux": 0, "big": 0}
        self._has_second = False

    def _get_tool(self) -> Tool:
        if self._tool is None:
            message = "the first backup failed"
            raise StepError(message)
        return self._tool

    def _run(self, command: Command) -> Ran:
        return run(command.words, self._get_tool().environment, folder=command.folder)

    def _back_up(self, source: Path) -> Ran:
        read_into_cache(source)
        snapshot = Snapshot(source.name, self._taken[source.name])
        ran = self._run(self._get_tool().backup(source, snapshot))
        self._taken[source.name] += 1
        return ran

    def _latest(self, source: str) -> Snapshot:
        if not self._taken[source]:
            message = f"there is no snapshot of {source}"
            raise StepError(message)
        return Snapshot(source, self._taken[source] - 1)

    def back_up_first(self) -> None:
        """The backup into an empty store. If it fails there is nothing to do for the other steps."""
        self._tool = make_tool(self._record.name, self._folder)
        try:
            ran = self._back_up(self._data.tree)
        except Exception:
            self._tool = None
            raise
        self._record.add("backup", ran.seconds)
        self._record.add("memory-backup", ran.peak_bytes / _MB)
        self._record.add("memory-backup-anon", ran.peak_anonymous_bytes / _MB)

    def back_up_unchanged(self) -> None:
        """Backup again, and what the store takes on the disk then."""
        self._record.measure("unchanged", lambda: self._back_up(self._data.tree).seconds)
        self._record.add("size", disk_bytes(self._get_tool().store) / _MB)

    def restore(self) -> None:
        """Restore the latest snapshot."""
        tool, snapshot, target = self._get_tool(), self._latest("linux"), self._folder / "restored"
        read_into_cache(tool.store)
        target.mkdir()
        # It stays until the round is over: ext4 looks for inodes that were not freed just now, and would take five times as long.
        ran = self._run(tool.restore(snapshot, target))
        check_equal("entries restored", contents_of(tool.restored(snapshot, target)).entries, self._data.contents.entries)
        self._record.add("restore", ran.seconds)

    def back_up_changed(self) -> None:
        """Backup again; the caller has changed some files."""
        self._record.add("changed", self._back_up(self._data.tree).seconds)
        self._has_second = True

    def back_up_big(self) -> None:
        """Backup of the large file, to read it through the mount."""
        self._back_up(self._data.big.parent)

    def mount_and_read(self) -> None:
        """Everything that is done with one mount."""
        tool = self._get_tool()
        read_into_cache(tool.store)
        with mounted(tool, self._folder / "mnt") as mount:
            self._record.add("mount", mount.seconds)
            first = tool.find_snapshot(mount.path, Snapshot("linux", 0))
            read_tree(self._record, first, self._data, tool.environment)
            if self._has_second and self._record.wants(SECOND_ROWS):
                self._record.attempt(SECOND_ROWS, lambda: self._read_second(mount))
            if self._taken["big"] and self._record.wants(MEMORY_MOUNT_ROWS):
                self._read_big(mount)
                self._record.add("memory-mount", status_bytes(mount.pid, "VmHWM") / _MB)
                self._record.add("memory-mount-anon", status_bytes(mount.pid, "RssAnon") / _MB)

    def _read_second(self, mount: Mount) -> None:
        """Read the second snapshot after the first was read. What is the same in both need not be asked for again."""
        requests, seconds = self._count_requests(mount, self._data.unchanged_names)
        self._record.add("second", requests)
        self._record.add("second-read", seconds)
        # These do differ: were there no requests for them, the count would be wrong.
        self._record.add("second-control", self._count_requests(mount, self._data.changed_names)[0])

    def _count_requests(self, mount: Mount, names: tuple[str, ...]) -> tuple[int, float]:
        """How many requests reading these files takes in the latest snapshot, and how many seconds."""
        tool = self._get_tool()
        listed = self._folder / "names"
        listed.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
        snapshots = [tool.find_snapshot(mount.path, snapshot) for snapshot in (Snapshot("linux", 0), self._latest("linux"))]
        words: list[str | Path] = [sys.executable, _COUNT_REQUESTS, str(mount.pid), *snapshots, listed]
        requests, seconds = read_output(words, tool.environment, timeout_s=2 * TIMEOUT_S).split()  # it reads everything twice
        return int(requests), float(seconds)

    def read_big(self) -> None:
        """Read the large file through a mount that has not read it."""
        read_into_cache(self._get_tool().store)
        with mounted(self._get_tool(), self._folder / "mnt") as mount:
            ran = self._read_big(mount)
        self._record.add("big", self._data.big.stat().st_size / _MB / ran.seconds)

    def _read_big(self, mount: Mount) -> Ran:
        tool = self._get_tool()
        path = tool.find_snapshot(mount.path, self._latest("big")) / self._data.big.name
        return run(["dd", f"if={path}", "of=/dev/null", "bs=1M"], tool.environment)


def read_tree(record: Record, folder: Path, data: DataSets, environment: dict[str, str]) -> None:
    """Find, list and read a tree that has not been looked at since it was mounted."""

    def find() -> float:
        ran = run(["find", folder], environment, count_lines=True)
        check_equal("names found", ran.stdout_lines, data.contents.entries)
        return ran.seconds

    def list_all() -> float:
        return run(["ls", "-lR", folder], environment).seconds

    def read_all() -> float:
        ran = run(["tar", "-C", folder, "-cf", "-", "."], environment)
        if ran.stdout_bytes < data.contents.size_bytes:
            check_equal("bytes read", ran.stdout_bytes, data.contents.size_bytes)
        return ran.seconds

    if record.wants(MOUNT_ROWS - {"mount"}):
        record.measure("find", find)
    if record.wants(MOUNT_ROWS - {"mount", "find"}):
        record.measure("ls", list_all)
    if record.wants(MOUNT_ROWS - {"mount", "find", "ls"}):
        record.measure("tar", read_all)
    if record.wants({"tar-again"}):
        record.measure("tar-again", read_all)


def read_into_cache(folder: Path) -> None:
    """Make the page cache warm; not measured. Some systems drop what was not read for some seconds, though memory is free."""
    buffer = bytearray(1 << 20)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _copy_tree(record: Record, folder: Path, data: DataSets, environment: dict[str, str]) -> None:
    """What restoring is for a tool that has nothing to look up and nothing to unpack."""
    folder.mkdir(parents=True)
    read_into_cache(data.tree)
    try:
        record.measure("restore", lambda: run(["cp", "-a", data.tree, folder], environment).seconds)
    finally:
        shutil.rmtree(folder)


def run_round(records: list[Record], folder: Path, data: DataSets, environment: dict[str, str]) -> None:
    """Do all steps that somebody wants, in a folder for the stores, which is empty again in the end."""
    wants = records[0].wants
    plain = next((record for record in records if record.name == PLAIN), None)
    trials = [(record, Trial(record, folder / record.name, data)) for record in records if record is not plain]

    def each(rows: Iterable[str], step: Callable[[Trial], None]) -> None:
        for record, trial in trials:
            record.attempt(rows, partial(step, trial))

    try:
        each({"backup", "memory-backup", "memory-backup-anon"}, Trial.back_up_first)
        if wants({"unchanged", "size"}):
            each({"unchanged", "size"}, Trial.back_up_unchanged)
        if wants({"restore"}):
            each({"restore"}, Trial.restore)
            if plain is not None:
                _copy_tree(plain, folder / PLAIN, data, environment)
        if wants({"changed"} | SECOND_ROWS):
            with data.changed():
                each({"changed"} | SECOND_ROWS, Trial.back_up_changed)
        if wants({"big"} | MEMORY_MOUNT_ROWS):
            each({"big"} | MEMORY_MOUNT_ROWS, Trial.back_up_big)
        if wants(MOUNT_ROWS):
            each(MOUNT_ROWS, Trial.mount_and_read)
            if plain is not None:
                read_into_cache(data.tree)
                read_tree(plain, data.tree, data, environment)
        if wants({"big"}):
            each({"big"}, Trial.read_big)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

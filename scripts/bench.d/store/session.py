# SPDX-License-Identifier: MIT
"""What is done with the stores: the rounds, and what is measured when they are over, each with one store after the other."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from datasets import DataSets, contents_of
from measure import Ran, StepError, check_equal, disk_bytes, read_output, run
from rows import RESTIC, YESTER
from tools import Command, Snapshot
from trial import Record, read_into_cache

from store.history import History
from store.rows import FRESH, KEPT, RESTIC_FRESH, SIZE_ROWS
from store.systems import Aging, AgingRestic, AgingYester, EncryptedYester, copy_of, make_aging

_MB = 1e6


class Life:
    """The stores and the source that they have in common, in a folder that is empty again in the end.

    *Old* ones are pruned each round, *grown* ones never, *fresh* ones have the last snapshots only.
    """

    def __init__(self, records: dict[str, Record], data: DataSets, folder: Path, *, rounds: int, repeats: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._records = records
        self._folder = folder
        self._rounds = rounds
        self._repeats = repeats
        self._data = data
        self._history = History(data, folder / "source" / "linux")
        self._old: dict[str, Aging] = {YESTER: make_aging(AgingYester, folder / "old-y"), RESTIC: make_aging(AgingRestic, folder / "old-r")}
        self._grown = {YESTER: make_aging(AgingYester, folder / "grown-y"), RESTIC: make_aging(AgingRestic, folder / "grown-r")}
        self._fresh: dict[str, Aging] = {
            FRESH: make_aging(AgingYester, folder / "fresh-y"),
            RESTIC_FRESH: make_aging(AgingRestic, folder / "fresh-r"),
        }
        self._snapshot = Snapshot("linux", 0)  # the latest one is meant, wherever it is used

    def live_through(self) -> None:
        """The rounds: a tenth of the files changes, a backup, only the last snapshots are kept, and the store is pruned."""
        sizes = {max(1, self._rounds * part // 3): row for part, row in enumerate(SIZE_ROWS, start=1)}
        for number in range(1, self._rounds + 1):
            self._history.go_on()
            read_into_cache(self._history.tree)
            for name in self._alternating(self._old, number):
                self._records[name].measure("round-backup", lambda name=name: self._back_up(self._old[name]).seconds)
            for name in self._alternating(self._old, number):
                self._records[name].measure("round-prune", lambda name=name: self._forget_and_prune(self._old[name]))
            for tool in [*self._grown.values(), *(self._fresh.values() if number > self._rounds - KEPT else ())]:
                with suppress(StepError):  # What it is needed for fails later, and says why.
                    self._back_up(tool)
            if number in sizes:
                self._measure_size(sizes[number], self._old)
        self._measure_size("size", self._fresh)

    def look_at_them(self) -> None:
        """What is read from old stores, and from fresh ones that hold the same."""
        all_stores = self._old | self._fresh
        for tool in all_stores.values():
            with suppress(StepError):
                tool.settle()
            read_into_cache(tool.store)
        largest = self._history.largest
        for number in range(self._repeats):
            for name in self._alternating(all_stores, number):
                tool, record = all_stores[name], self._records[name]
                target = self._folder / "restored" / f"{name}-{number}"
                record.measure("restore", lambda tool=tool, target=target: self._restore(tool, target))
                record.measure("cat", lambda tool=tool: self._run(tool, tool.print_file(self._snapshot, largest)).seconds)
                record.measure("ls", lambda tool=tool: self._list_names(tool))
        shutil.rmtree(self._folder / "restored", ignore_errors=True)
        for number in range(self._repeats):
            for name in self._alternating(self._old, number):
                self._records[name].attempt(["check", "check-rate"], lambda name=name: self._check(self._records[name], self._old[name]))

    def go_on_with_them(self) -> None:
        """More backups into old stores, and into fresh ones."""
        all_stores = self._old | self._fresh
        for number in range(self._repeats):
            self._history.go_on()
            read_into_cache(self._history.tree)
            for name in self._alternating(all_stores, number):
                self._records[name].measure("backup", lambda name=name: self._back_up(all_stores[name]).seconds)

    def compact(self) -> None:
        """Make the old store's file small."""
        old, record = self._old[YESTER], self._records[YESTER]
        assert isinstance(old, AgingYester)

        def compact() -> None:
            record.add("compact", self._run(old, old.compact()).seconds)
            record.add("size-compact", disk_bytes(old.store) / _MB)

        record.attempt(["compact", "size-compact"], compact)
        self._measure_size("size-compact", self._fresh)

    def prune_all_at_once(self) -> None:
        """Forget and prune all rounds, in copies of the stores that were never pruned."""
        for number in range(self._repeats):
            for name in self._alternating(self._grown, number):

                def prune(name: str = name) -> None:
                    copy = copy_of(self._grown[name], self._folder / "copy")
                    read_into_cache(copy.store)
                    self._records[name].add("prune", self._forget_and_prune(copy))
                    self._records[name].add("prune-size", disk_bytes(copy.store) / _MB)

                self._records[name].attempt(["prune", "prune-size"], prune)
        shutil.rmtree(self._folder / "copy", ignore_errors=True)

    def back_up_encrypted(self) -> None:
        """First backups into an encrypted store of yester's, into one that is not, and into restic's, which always is."""
        kinds: dict[str, Callable[[], Aging]] = {
            YESTER: lambda: make_aging(EncryptedYester, self._folder / "first"),
            FRESH: lambda: make_aging(AgingYester, self._folder / "first"),
            RESTIC: lambda: make_aging(AgingRestic, self._folder / "first"),
        }
        read_into_cache(self._history.tree)
        for number in range(self._repeats):
            for name in self._alternating(kinds, number):
                self._records[name].measure("encrypted", lambda name=name: self._back_up(kinds[name]()).seconds)
        shutil.rmtree(self._folder / "first", ignore_errors=True)

    def take_away(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _alternating(self, of: dict[str, Aging] | dict[str, Callable[[], Aging]], number: int) -> list[str]:
        """The names that somebody wants to know of, by turns in this order and in the other: the second may find what the first left."""
        names = [name for name in of if name in self._records]
        return names[::-1] if number % 2 else names

    def _run(self, tool: Aging, command: Command) -> Ran:
        return run(command.words, tool.environment, folder=command.folder)

    def _back_up(self, tool: Aging) -> Ran:
        return self._run(tool, tool.backup(self._history.tree, self._snapshot))

    def _forget_and_prune(self, tool: Aging) -> float:
        return sum(self._run(tool, command).seconds for command in tool.forget_and_prune("linux", KEPT))

    def _measure_size(self, row: str, tools: dict[str, Aging]) -> None:
        for name in self._alternating(tools, 0):
            self._records[name].measure(row, lambda name=name: disk_bytes(tools[name].store) / _MB)

    def _restore(self, tool: Aging, target: Path) -> float:
        # It stays until all are done: ext4 looks for inodes that were not freed just now, and would take five times as long.
        target.mkdir(parents=True)
        latest = self._latest(tool)
        ran = self._run(tool, tool.restore(latest, target))
        check_equal("entries restored", contents_of(tool.restored(latest, target)).entries, self._history.entries)
        return ran.seconds

    def _latest(self, tool: Aging) -> Snapshot:
        """The number of the latest snapshot, which restic's restore wants."""
        listed = read_output(["restic", "snapshots", "--json"], tool.environment).count('"short_id"') if tool.name == RESTIC else 1
        return Snapshot("linux", listed - 1)

    def _list_names(self, tool: Aging) -> float:
        command = tool.list_names(self._snapshot)
        ran = run(command.words, tool.environment, folder=command.folder, count_lines=True)
        if ran.stdout_lines < self._history.entries - 1:
            check_equal("names listed", ran.stdout_lines, self._history.entries - 1)
        return ran.seconds

    def _check(self, record: Record, tool: Aging) -> None:
        ran = self._run(tool, tool.check())
        record.add("check", ran.seconds)
        if megabytes := tool.checked_mb():
            record.add("check-rate", megabytes / ran.cpu_seconds)

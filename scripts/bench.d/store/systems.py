# SPDX-License-Identifier: MIT
# ruff: noqa: D102 # methods are described once, in Aging
"""yester and restic with the commands of a store that is kept for long."""

import json
import shutil
from pathlib import Path
from typing import Protocol, TypeVar

from measure import read_output
from tools import Command, Restic, Snapshot, Tool, Yester

_MB = 1e6
_PASSPHRASE = "benchmark"  # noqa: S105 # of a store that is gone in a minute


class Aging(Tool, Protocol):
    """A tool whose store grows old. Nothing here measures. Of several commands all belong to what is asked for."""

    folder: Path

    def forget_and_prune(self, source: str, keep: int) -> list[Command]:
        """Keep only the last snapshots of a source, and free what only the others need, with no time of grace."""

    def check(self) -> Command:
        """Read and check every byte."""

    def print_file(self, snapshot: Snapshot, path: str) -> Command:
        """Print a file of the latest snapshot."""

    def list_names(self, snapshot: Snapshot) -> Command:
        """List everything in the latest snapshot."""

    def checked_mb(self) -> float:
        """How much `check` decodes and hashes, before compression; 0 if the tool does not say."""

    def settle(self) -> None:
        """Do what the tool does once with a store that it finds elsewhere, or for the first time."""


class AgingYester(Yester):
    """Its own last state is what is said of the latest snapshot; `snapshot` only names the source."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def forget_and_prune(self, source: str, keep: int) -> list[Command]:
        return [self._command("forget", source, "--keep-last", str(keep)), self._command("prune", "--grace", "0")]

    def compact(self) -> Command:
        """Make the store's file as small as what is in it."""
        return self._command("compact")

    def check(self) -> Command:
        return self._command("check", "--read-data")

    def print_file(self, snapshot: Snapshot, path: str) -> Command:
        return self._command("cat", f"{snapshot.source}:{path}")

    def list_names(self, snapshot: Snapshot) -> Command:
        return self._command("ls", "-R", snapshot.source)

    def checked_mb(self) -> float:
        stats = json.loads(read_output(self._command("stats", "--json").words, self.environment))
        return float(stats["data"]["raw_bytes"] + stats["trees"]["raw_bytes"]) / _MB

    def settle(self) -> None:
        read_output(self._command("snapshots").words, self.environment)


class EncryptedYester(AgingYester):
    """The same with an encrypted store."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environment["YESTER_PASSPHRASE"] = _PASSPHRASE

    def create_store(self) -> None:
        super().create_store()
        read_output(self._command("init", "--encrypt").words, self.environment)


class AgingRestic(Restic):
    """Its defaults."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def forget_and_prune(self, source: str, keep: int) -> list[Command]:
        return [Command(("restic", "forget", "--keep-last", str(keep), "--prune"), self.folder)]

    def check(self) -> Command:
        return Command(("restic", "check", "--read-data"), self.folder)

    def print_file(self, snapshot: Snapshot, path: str) -> Command:
        return Command(("restic", "dump", "latest", f"/{snapshot.source}/{path}"), self.folder)

    def list_names(self, snapshot: Snapshot) -> Command:
        return Command(("restic", "ls", "latest"), self.folder)

    def checked_mb(self) -> float:
        return 0.0

    def settle(self) -> None:
        read_output(["restic", "snapshots"], self.environment)


Kind = TypeVar("Kind", AgingYester, EncryptedYester, AgingRestic)


def make_aging(kind: type[Kind], folder: Path) -> Kind:
    """A tool with an empty folder and a new, empty store.

    Raises:
        StepError: it cannot make one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    tool = kind(folder)
    tool.create_store()
    return tool


def copy_of(tool: Kind, folder: Path) -> Kind:
    """The same tool in another folder, with a copy of its store and its caches."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tool.folder, folder, symlinks=True)
    copy = type(tool)(folder)
    copy.settle()
    return copy

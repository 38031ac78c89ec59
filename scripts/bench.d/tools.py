# SPDX-License-Identifier: MIT
# ruff: noqa: D102 # methods are described once, in Tool
"""The tools that are compared, each with the commands that do the same work.

Each has a folder to itself, with its store, its caches and its home, so that it finds nothing of an earlier round.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from debian import has_package, install
from measure import read_output
from rows import BORG, RESTIC, YESTER

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and the folder to run it in."""

    words: tuple[str | Path, ...]
    folder: Path


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was backed up (the last part of its path), and the how-manieth snapshot of it that is, from 0."""

    source: str
    number: int


class Tool(Protocol):
    """A backup tool with a store of its own. Nothing here measures; paths of sources are absolute."""

    name: str
    store: Path
    environment: dict[str, str]

    def create_store(self) -> None:
        """Make the store, if the tool wants that before the first backup."""

    def backup(self, source: Path, snapshot: Snapshot) -> Command:
        """Back `source` up; it becomes `snapshot`."""

    def restore(self, snapshot: Snapshot, target: Path) -> Command:
        """Write a snapshot to `target`, an empty folder."""

    def restored(self, snapshot: Snapshot, target: Path) -> Path:
        """Where `restore` puts the contents of the source."""

    def mount(self, mount_point: Path) -> Command:
        """Mount all snapshots."""

    def unmount(self, mount_point: Path) -> Command:
        """The opposite of `mount`."""

    def find_snapshot(self, mount_point: Path, snapshot: Snapshot) -> Path:
        """Where the mount shows the contents of the source."""


class Yester:
    """The checkout that this script is part of."""

    name = YESTER

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.environment = environment_in(folder)
        self._folder = folder

    def _command(self, *words: str | Path) -> Command:
        return Command((sys.executable, "-m", "yester", *words, "--store", self.store), self._folder)

    def create_store(self) -> None:
        """The first backup makes it. Compiles the checkout, as installing it in the usual way would have done."""
        read_output([sys.executable, "-m", "compileall", "-q", ROOT / "src" / "yester"], self.environment)

    def backup(self, source: Path, snapshot: Snapshot) -> Command:
        return self._command("backup", source, "--name", snapshot.source)

    def restore(self, snapshot: Snapshot, target: Path) -> Command:
        return self._command("restore", snapshot.source, "--to", target)

    def restored(self, snapshot: Snapshot, target: Path) -> Path:
        return target

    def mount(self, mount_point: Path) -> Command:
        return self._command("mount", mount_point)

    def unmount(self, mount_point: Path) -> Command:
        return Command((sys.executable, "-m", "yester", "umount", mount_point), self._folder)

    def find_snapshot(self, mount_point: Path, snapshot: Snapshot) -> Path:
        source = mount_point / "snapshots" / snapshot.source
        names = [name for name in read_output(["ls", source], self.environment).split() if name != "latest"]
        # Of two in one second the later is called like the first, with -2 at its end.
        names.sort(key=lambda name: (name[:19], int(name[20:] or 1)))
        return source / names[snapshot.number]


class Restic:
    """restic with its defaults."""

    name = RESTIC

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.environment = environment_in(folder) | {
            "RESTIC_REPOSITORY": str(self.store),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(folder / "cache"),
        }
        self._folder = folder

    def create_store(self) -> None:
        read_output(["restic", "init"], self.environment)

    def backup(self, source: Path, snapshot: Snapshot) -> Command:
        return Command(("restic", "backup", source.name), source.parent)

    def _ids(self, snapshot: Snapshot) -> list[str]:
        listed = json.loads(read_output(["restic", "snapshots", "--json"], self.environment))
        listed.sort(key=lambda entry: entry["time"])
        return [entry["short_id"] for entry in listed if Path(entry["paths"][0]).name == snapshot.source]

    def restore(self, snapshot: Snapshot, target: Path) -> Command:
        return Command(("restic", "restore", self._ids(snapshot)[snapshot.number], "--target", target), self._folder)

    def restored(self, snapshot: Snapshot, target: Path) -> Path:
        return target / snapshot.source

    def mount(self, mount_point: Path) -> Command:
        return Command(("restic", "mount", mount_point), self._folder)

    def unmount(self, mount_point: Path) -> Command:
        return Command(("fusermount3", "-u", mount_point), self._folder)

    def find_snapshot(self, mount_point: Path, snapshot: Snapshot) -> Path:
        return mount_point / "ids" / self._ids(snapshot)[snapshot.number] / snapshot.source


class Borg:
    """borg, not encrypted, with zstd at yester's level; otherwise its defaults."""

    name = BORG

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.environment = environment_in(folder) | {
            "BORG_BASE_DIR": str(folder / "base"),
            "BORG_REPO": str(self.store),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }
        self._folder = folder

    def create_store(self) -> None:
        (self._folder / "base").mkdir()
        read_output(["borg", "init", "--encryption", "none"], self.environment)

    def backup(self, source: Path, snapshot: Snapshot) -> Command:
        return Command(("borg", "create", "--compression", "zstd,3", f"::{_archive(snapshot)}", source.name), source.parent)

    def restore(self, snapshot: Snapshot, target: Path) -> Command:
        return Command(("borg", "extract", f"::{_archive(snapshot)}"), target)

    def restored(self, snapshot: Snapshot, target: Path) -> Path:
        return target / snapshot.source

    def mount(self, mount_point: Path) -> Command:
        return Command(("borg", "mount", self.store, mount_point), self._folder)

    def unmount(self, mount_point: Path) -> Command:
        return Command(("borg", "umount", mount_point), self._folder)

    def find_snapshot(self, mount_point: Path, snapshot: Snapshot) -> Path:
        return mount_point / _archive(snapshot) / snapshot.source


def _archive(snapshot: Snapshot) -> str:
    return f"{snapshot.source}-{snapshot.number}"


def environment_in(folder: Path) -> dict[str, str]:
    """The caller's, with everything that a tool might keep in the home folder kept in this one."""
    home = folder / "home"
    dropped = ("YESTER_", "RESTIC_", "BORG_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "LC_ALL": "C.UTF-8"}


def make_tool(name: str, folder: Path) -> Tool:
    """A tool with an empty folder and a new, empty store.

    Raises:
        StepError: it cannot make one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    tools: dict[str, type[Yester | Restic | Borg]] = {YESTER: Yester, RESTIC: Restic, BORG: Borg}
    tool = tools[name](folder)
    tool.create_store()
    return tool


def install_tools(names: list[str]) -> None:
    """Install what is missing of restic and borg."""
    missing = []
    if RESTIC in names and shutil.which("restic") is None:
        missing.append("restic")
    if BORG in names and shutil.which("borg") is None:
        missing.append("borgbackup")
    if BORG in names and not has_package("python3-llfuse") and not has_package("python3-pyfuse3"):
        missing.append("python3-llfuse")
    if missing:
        install(missing)


def version(name: str) -> str:
    """A tool with its version, for the document."""
    if name == YESTER:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "describe", "--always", "--dirty"]
        described = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() if shutil.which("git") else ""
        return f"yester {project['version']}" + (f" ({described})" if described else "")
    words = {RESTIC: ["restic", "version"], BORG: ["borg", "--version"]}[name]
    return " ".join(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[:2])

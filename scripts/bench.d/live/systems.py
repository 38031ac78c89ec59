# SPDX-License-Identifier: MIT
# ruff: noqa: D102 # methods are described once, in System
"""The systems that are compared, each a writable folder over a store of its own.

Each has a folder to itself, with its store, its caches and its home, so that it finds nothing of an earlier round. Nothing here measures.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Protocol

from measure import TIMEOUT_S, StepError, describe_failure, disk_bytes, kill, read_output, start
from mounting import find_servers, is_mounted, wait_end
from rows import PLAIN, YESTER
from tools import ROOT, environment_in

from live.installing import Installed
from live.rows import BINDFS, JUICEFS, S3QL

_POLL_S = 0.005
_FREE_PAGES_SCRIPT = Path(__file__).with_name("free_pages.py")


class System(Protocol):
    """A writable folder. The processes that serve it are those that `find_servers` finds, all that it says is done when it returns."""

    name: str
    environment: dict[str, str]

    def create(self) -> None:
        """Make its store, in an empty folder."""

    def mount(self, mount_point: Path) -> None:
        """Have it at the mount point, an empty folder the first time."""

    def unmount(self, mount_point: Path) -> None:
        """The opposite of `mount`. All is in the store, and no process of it runs."""

    def publish(self) -> list[str | Path]:
        """The command that makes a version of what is there now; empty where there are no versions."""

    def stored_bytes(self) -> int:
        """What its store takes on the disk, without caches."""


class Yester:
    """The live folder of the checkout that this script is part of."""

    name = YESTER

    def __init__(self, folder: Path, _installed: Installed) -> None:
        self.environment = environment_in(folder)
        self._store = folder / "store"

    def _command(self, *words: str | Path) -> list[str | Path]:
        return [sys.executable, "-m", "yester", *words]

    def create(self) -> None:
        read_output([sys.executable, "-m", "compileall", "-q", ROOT / "src" / "yester"], self.environment)
        read_output(self._command("init", "--store", self._store), self.environment)

    def mount(self, mount_point: Path) -> None:
        _mount(self._command("live", mount_point, "--name", "bench", "--store", self._store), self.environment, mount_point)

    def unmount(self, mount_point: Path) -> None:
        _unmount(self._command("umount", mount_point), self.environment, mount_point)

    def publish(self) -> list[str | Path]:
        return self._command("snapshot", "bench", "--store", self._store)

    def stored_bytes(self) -> int:
        """Without the pages of its file that nothing uses: they are written before the file grows."""
        return disk_bytes(self._store) - int(read_output([sys.executable, _FREE_PAGES_SCRIPT, self._store], self.environment))


class S3ql:
    """S3QL with a folder as its backend: not encrypted, compressing with the fastest that it has; all else is its default."""

    name = S3QL

    def __init__(self, folder: Path, installed: Installed) -> None:
        self.environment = environment_in(folder)
        self._store, self._cache = folder / "store", folder / "cache"
        self._url = f"local://{self._store}"
        self._options = ("--cachedir", self._cache, "--authfile", folder / "none")
        self._log = folder / "log"
        self._commands = installed.commands
        self._server: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        self._store.mkdir()
        read_output([self._commands / "mkfs.s3ql", "--plain", *self._options, self._url], self.environment)

    def mount(self, mount_point: Path) -> None:
        # In the foreground: to go into the background, mount.s3ql 6.3 forks inside trio. Twice in eight runs its first upload then waited
        # for good for a lock of trio that no thread had, as one had it, it seems, that the fork left behind (py-spy, 2026-11-25).
        options = ("--fg", "--compress", "zlib-1", "--log", self._log)
        words: list[str | Path] = [self._commands / "mount.s3ql", *self._options, *options, self._url, mount_point]
        self._server = _mount_in_foreground(words, self.environment, mount_point)

    def unmount(self, mount_point: Path) -> None:
        _unmount([self._commands / "umount.s3ql", mount_point], self.environment, mount_point)
        if self._server is not None:
            kill(self._server)

    def publish(self) -> list[str | Path]:
        return []

    def stored_bytes(self) -> int:
        """The backend, and the database, which is beside the cache. Blocks that were not uploaded yet do not count."""
        return disk_bytes(self._store) + sum(path.stat().st_blocks * 512 for path in self._cache.glob("*.db*"))


class JuiceFs:
    """JuiceFS with SQLite for metadata and files for data, and its defaults, but that it tells nobody of its use."""

    name = JUICEFS

    def __init__(self, folder: Path, installed: Installed) -> None:
        self.environment = environment_in(folder)
        self._store, self._cache, self._log = folder / "store", folder / "cache", folder / "log"
        self._metadata = f"sqlite3://{self._store}/metadata.db"
        self._juicefs = installed.commands / "juicefs"

    def create(self) -> None:
        self._store.mkdir()
        storage = ("--storage", "file", "--bucket", f"{self._store}/data/")
        read_output([self._juicefs, "format", *storage, self._metadata, "bench"], self.environment)

    def mount(self, mount_point: Path) -> None:
        options = ("--background", "--no-usage-report", "--no-syslog", "--log", self._log, "--cache-dir", self._cache)
        # In this order, since what JuiceFS shows as its command line may lack the end, and its server is known by the mount point.
        _mount([self._juicefs, "mount", self._metadata, mount_point, *options], self.environment, mount_point)

    def unmount(self, mount_point: Path) -> None:
        _unmount([self._juicefs, "umount", mount_point], self.environment, mount_point)

    def publish(self) -> list[str | Path]:
        return []

    def stored_bytes(self) -> int:
        return disk_bytes(self._store)


class Bindfs:
    """bindfs, which passes everything on: what FUSE costs in C."""

    name = BINDFS

    def __init__(self, folder: Path, installed: Installed) -> None:
        self.environment = environment_in(folder)
        self._store = folder / "store"
        self._commands = installed.commands

    def create(self) -> None:
        self._store.mkdir()

    def mount(self, mount_point: Path) -> None:
        _mount([self._commands / BINDFS, self._store, mount_point], self.environment, mount_point)

    def unmount(self, mount_point: Path) -> None:
        _unmount(["fusermount3", "-u", mount_point], self.environment, mount_point)

    def publish(self) -> list[str | Path]:
        return []

    def stored_bytes(self) -> int:
        return disk_bytes(self._store)


class Plain:
    """A folder. It is its own store."""

    name = PLAIN

    def __init__(self, folder: Path, _installed: Installed) -> None:
        self.environment = environment_in(folder)
        self._mount_point = folder

    def create(self) -> None:
        """There is nothing to make."""

    def mount(self, mount_point: Path) -> None:
        self._mount_point = mount_point

    def unmount(self, mount_point: Path) -> None:
        """It stays."""

    def publish(self) -> list[str | Path]:
        return []

    def stored_bytes(self) -> int:
        return disk_bytes(self._mount_point)


def make_system(name: str, folder: Path, installed: Installed) -> System:
    """A system with an empty folder and a new, empty store.

    Raises:
        StepError: it cannot make one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    systems: dict[str, type[Yester | S3ql | JuiceFs | Bindfs | Plain]] = {
        YESTER: Yester,
        S3QL: S3ql,
        JUICEFS: JuiceFs,
        BINDFS: Bindfs,
        PLAIN: Plain,
    }
    system = systems[name](folder, installed)
    system.create()
    return system


def _mount(words: list[str | Path], environment: dict[str, str], mount_point: Path) -> None:
    """Run a command that goes into the background when its mount serves.

    Its output goes nowhere: a server that keeps a pipe open would keep us waiting.
    """
    with tempfile.TemporaryFile() as errors:
        process = start(words, environment, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            status = process.wait(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            message = f"not mounted after {TIMEOUT_S:.0f} s"
            raise StepError(message) from error
        finally:
            kill(process)  # does nothing if it has ended: then its children are to go on
        if status != 0 or not is_mounted(mount_point):
            raise StepError(describe_failure(words, status, errors))


def _mount_in_foreground(words: list[str | Path], environment: dict[str, str], mount_point: Path) -> subprocess.Popen[bytes]:
    """Start a command that serves its mount until that is unmounted, and wait until it does."""
    deadline = time.monotonic() + TIMEOUT_S
    with tempfile.TemporaryFile() as errors:
        process = start(words, environment, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while not is_mounted(mount_point):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StepError(describe_failure(words, -1 if process.returncode is None else process.returncode, errors))
                time.sleep(_POLL_S)
        except BaseException:
            kill(process)
            raise
    return process


def _unmount(words: list[str | Path], environment: dict[str, str], mount_point: Path) -> None:
    servers = find_servers(mount_point)
    read_output(words, environment)
    for pid in servers:
        wait_end(pid, TIMEOUT_S)
    if is_mounted(mount_point):
        message = "still mounted after it was unmounted"
        raise StepError(message)

# SPDX-License-Identifier: MIT
"""Real mounts, each with a folder to back up and a store of its own; always unmounted, and nothing stays behind.

After a test, the log of its mounts must be empty and its store whole, unless the test says that it is not (`is_damaged`).
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

import yester
from tests.encrypted import PASSPHRASE, create_encrypted, unlock
from tests.mount.richness import Described, access_times, describe, make_rich_folder
from yester.engine.backup import BackupOptions, back_up
from yester.engine.check import check
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

DEADLINE_S = 20.0
"""Nothing that is waited for here takes a second; a loaded machine may be slow."""

COMMAND = [sys.executable, "-m", "yester"]
COUNTING = Path(__file__).parent / "counting.py"


def wait_until(condition: Callable[[], bool], what: str, *, within_s: float = DEADLINE_S) -> None:
    """Poll until a condition holds. It is asked once more at the end, so a machine that stands still meanwhile does not matter."""
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            if condition():
                return
            pytest.fail(f"after {within_s} s still not: {what}")
        time.sleep(0.01)


def errno_of(call: Callable[..., object], *arguments: object, **options: object) -> int:
    """The errno that a call fails with; 0 if it does not."""
    try:
        call(*arguments, **options)
    except OSError as error:
        return error.errno or -1
    return 0


@dataclass
class Server:
    """The process that serves a mount."""

    pid: int

    def __post_init__(self) -> None:
        self._handle = os.pidfd_open(self.pid)

    def wait_ended(self, *, within_s: float = DEADLINE_S) -> None:
        """Wait until the process is gone."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        if not poll.poll(within_s * 1000):
            pytest.fail(f"the process {self.pid} that served a mount still runs {within_s} s later")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return not poll.poll(0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nobody else can have its number by then."""
        signal.pidfd_send_signal(self._handle, number)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)


@dataclass
class Place:
    """A folder to back up, a store and a mount point, side by side in `path`."""

    path: Path
    is_damaged: bool = False
    """Set by tests that damage the store: what the mount logs is theirs to look at."""
    servers: list[Server] = field(default_factory=list)
    is_encrypted: bool = False
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Children of this process: somebody must wait for them."""

    def __post_init__(self) -> None:
        self.folder = self.path / "folder"
        self.store = self.path / "store"
        self.point = self.path / "mnt"
        self.log = self.path / "mount.log"
        for folder in (self.folder, self.point):
            folder.mkdir(parents=True, exist_ok=True)

    # --- the folder and its backups

    def write(self, name: str, data: bytes = b"") -> Path:
        """Write a file below the folder, and the folders that lead to it."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def back_up(self, source: str = "docs", folder: Path | None = None) -> StoredSnapshot:
        """Back the folder up; nothing may be skipped. Makes the store if there is none."""
        with self.open_store() as store:
            result = back_up(store, [folder or self.folder], BackupOptions(source))
        assert result.stored is not None
        assert not result.problems
        return result.stored

    def add_at(self, time_ns: int, source: str = "docs") -> StoredSnapshot:
        """Add a snapshot of the same content as the source's newest one that says it is of another time."""
        with self.open_store() as store:
            latest = store.latest_snapshot(source)
            assert latest is not None
            return store.add_snapshot(msgspec.structs.replace(latest.snapshot, time_ns=time_ns, finished_ns=time_ns))

    def open_store(self) -> Store:
        """The store, made if there is none."""
        if self.store.exists():
            return Store.open(self.store, unlock=unlock)
        return create_encrypted(self.store) if self.is_encrypted else Store.create(self.store)

    # --- mounts

    def mount(self, *options: str | Path, point: Path | None = None) -> Server:
        """Mount the store with `yester mount`, which must succeed; the process that serves it."""
        point = point or self.point
        done = self.run("mount", "--store", self.store, "--log", self.log, *options, point)
        assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)
        return self.watch(find_server(point))

    def mount_live(self, *options: str | Path) -> Server:
        """Mount the live folder `work`, made if there is none; it makes a version when told to, not when the machine is slow."""
        pace = ["--quiet", "3600", "--every", "3600"]
        done = self.run("live", "--name", "work", *pace, "--store", self.store, "--log", self.log, *options, self.point)
        assert (done.stdout, done.returncode) == ("", 0), done.stderr
        return self.watch(find_server(self.point))

    def make_version(self) -> None:
        """Have a version made of the live folder."""
        done = self.run("snapshot", "--store", self.store, "work")
        assert (done.stderr, done.returncode) == ("", 0)

    def mount_counting(self, counts: Path) -> Server:
        """Mount the store in a process that writes the name of each request it gets into a file."""
        command: list[str | Path] = [
            sys.executable,
            COUNTING,
            counts,
            "mount",
            "--foreground",
            "--store",
            self.store,
            "--log",
            self.log,
            self.point,
        ]
        process = subprocess.Popen(command, env=environment(self.path), stdin=subprocess.DEVNULL)
        self.processes.append(process)
        server = self.watch(process.pid)
        wait_until(lambda: os.path.ismount(self.point) or not server.is_running, f"{self.point} is mounted")
        assert server.is_running
        return server

    def watch(self, pid: int) -> Server:
        """Wait for this process when the test is over."""
        server = Server(pid)
        self.servers.append(server)
        return server

    def unmount(self) -> None:
        """End all mounts here; the processes that serve them end. `yester umount` is for tests that are about it: it takes longer."""
        for point in mounted_below(self.path):
            subprocess.run(["fusermount3", "-u", "--", point], check=True, timeout=DEADLINE_S)
        for server in self.servers:
            server.wait_ended()

    def run(self, *arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `yester ARGUMENTS…`, which is told the passphrase if there is one, and wait for its end."""
        if self.is_encrypted:
            variables = {"YESTER_PASSPHRASE": PASSPHRASE} | variables
        return run([*COMMAND, *arguments], self.path, cwd=cwd, **variables)

    def shown(self, stored: StoredSnapshot) -> Path:
        """Where the mount shows a snapshot."""
        return self.point / "snapshots" / stored.snapshot.source / stored.snapshot.name

    def close(self) -> None:
        """End what the test left, and look whether all is well."""
        for point in mounted_below(self.path):
            subprocess.run(["fusermount3", "-u", "-z", "--", point], check=False, timeout=DEADLINE_S)
        for server in self.servers:
            server.wait_ended()
            server.close()
        for process in self.processes:
            process.wait()
        if self.is_damaged:
            return
        if self.log.exists():
            logged = self.log.read_text()
            assert not logged, f"the mount logged something:\n{logged}"
        if (self.store / "data.mdb").exists():
            with Store.open(self.store, unlock=unlock) as store:
                assert check(store, read_data=True).findings == ()


@dataclass(frozen=True)
class Rich:
    """A place whose folder holds one of everything, as it was when it was backed up."""

    place: Place
    described: Described
    accessed: dict[bytes, int]
    stored: StoredSnapshot


def environment(home: Path, **variables: str) -> dict[str, str]:
    """For processes of a test: `home` is theirs, and the yester that is tested is the one they run."""
    source = str(Path(yester.__file__).parent.parent)
    own = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "PYTHONPATH": source, "LC_ALL": "C.UTF-8"}
    return {name: value for name, value in os.environ.items() if not name.startswith(("YESTER_", "XDG_"))} | own | variables


def run(command: Sequence[str | Path], home: Path, *, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a test's own and wait for its end."""
    own = environment(home, **variables)
    return subprocess.run(command, cwd=cwd, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


def find_server(point: Path) -> int:
    """The process that serves a mount, which has its point on the command line as `yester mount` had; 0 if there is none."""
    wanted = os.fsencode(point)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (process / "cmdline").read_bytes().split(b"\0"):
                return int(process.name)
    return 0


def mounted_below(folder: Path) -> list[Path]:
    """Mount points of yester at or below a folder, without touching them."""
    points = []
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
        before, _, after = line.partition(b" - ")
        if after.startswith(b"fuse.yester "):
            escaped = before.split(b" ")[4]
            point = Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), escaped)))
            if point.is_relative_to(folder):
                points.append(point)
    return points[::-1]


@contextmanager
def new_place(path: Path) -> Iterator[Place]:
    """A place in an existing folder."""
    place = Place(path)
    try:
        yield place
    finally:
        place.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place of this test's own."""
    with new_place(tmp_path) as place:
        yield place


@pytest.fixture(scope="module")
def module_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place that the tests of a module share."""
    with new_place(tmp_path_factory.mktemp("module")) as place:
        yield place


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rich]:
    """A folder with one of everything, backed up; not mounted."""
    with new_place(tmp_path_factory.mktemp("rich")) as place:
        make_rich_folder(place.folder)
        before = describe(place.folder)
        accessed = access_times(place.folder)
        yield Rich(place, before, accessed, place.back_up())


@pytest.fixture(scope="module")
def rich_mount(rich: Rich) -> Iterator[Path]:
    """The snapshot of the rich folder in a mount."""
    rich.place.mount()
    yield rich.place.shown(rich.stored)
    rich.place.unmount()

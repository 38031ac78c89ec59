# SPDX-License-Identifier: MIT
"""What holds for every test: Hypothesis profiles, no unexpected log records, no mount left behind, no hang.

Marks come from folders: all of `tests/mount` is marked `mount`, and so on (`MARKED_FOLDERS`). Tests marked `mount` are
skipped where there is no FUSE, and only here, so that `--require-mounts` can tell whether they ran.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
MARKED_FOLDERS = ("mount", "faults", "powerloss")
UNHANG_S = 100.0
"""Before the time-outs of pyproject.toml: a process that waits for a dead mount cannot even be interrupted by them."""

# A loaded machine is slow: neither that nor luck may decide whether the gate passes. `deep` looks for new cases.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", settings.get_profile("ci"), derandomize=False, max_examples=5000, stateful_step_count=200)
settings.load_profile(os.environ.get("YESTER_TEST_PROFILE", "ci"))


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo, as far as it matters here."""

    point: Path
    kind: str
    device_minor: int
    """Also the number of its FUSE connection."""


class MountWatch:
    """With `--require-mounts`: fails the run unless tests in tests/mount passed, where this machine has FUSE."""

    def __init__(self) -> None:
        self.problem = fuse_problem()
        self.passed = 0
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what happened to the tests in tests/mount."""
        if not report.nodeid.startswith("tests/mount/"):
            return
        if report.when == "call" and report.passed:
            self.passed += 1
        if report.skipped and "FUSE" in str(report.longrepr):
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge, before the summary is printed."""
        if not self.problem and (self.skipped or not self.passed) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say it."""
        if self.problem:
            terminalreporter.write_line(f"tests/mount did not run: no FUSE here: {self.problem}", yellow=True)
        elif self.skipped or not self.passed:
            counts = f"{self.passed} passed, {len(self.skipped)} skipped for lack of FUSE"
            terminalreporter.write_line(f"FAILED: FUSE is here, but of tests/mount {counts}", red=True)
        else:
            terminalreporter.write_line(f"tests/mount ran as uid {os.getuid()}: {self.passed} passed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    parser.addoption("--require-mounts", action="store_true", help="fail unless tests/mount ran, where this machine has FUSE")


def pytest_configure(config: pytest.Config) -> None:
    """Let tests be interrupted, and watch the mount tests if asked to."""
    # Whoever starts the tests in the background of a script has them ignore SIGINT, and so all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--require-mounts"):
        config.pluginmanager.register(MountWatch())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder they are in, before `-m` selects."""
    for item in items:
        for folder in MARKED_FOLDERS:
            if item.path.is_relative_to(ROOT / "tests" / folder):
                item.add_marker(folder)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs FUSE where there is none."""
    if item.get_closest_marker("mount") and (problem := fuse_problem()):
        pytest.skip(f"no FUSE: {problem}")


@pytest.fixture(autouse=True)
def no_unexpected_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that makes yester log a warning or worse, unless it is marked `expect_log`."""
    handler = BufferingHandler(capacity=10_000)
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("yester")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    marker = request.node.get_closest_marker("expect_log")
    if marker and not marker.args:
        return
    unexpected = [text for text in map(_log_text, handler.buffer) if not (marker and re.search(marker.args[0], text))]
    if unexpected:
        pytest.fail("unexpected log records (see the marker expect_log):\n" + "\n".join(unexpected))


@pytest.fixture(scope="session", autouse=True)
def no_mount_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """End mounts that dead test runs left; fail if this run leaves one.

    Only below pytest's own folder, and there not in folders of runs that are still alive.
    """
    own = tmp_path_factory.getbasetemp()
    for mount in yester_mounts(own.parent):
        run = own.parent / mount.point.relative_to(own.parent).parts[0]
        if run == own or not _is_alive(run):
            end_mount(mount)
    yield
    if left := end_mounts(own):
        pytest.fail(f"tests left mounts behind: {', '.join(str(mount.point) for mount in left)}")


@pytest.fixture(autouse=True)
def no_hang(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """End this run's mounts when a test that uses one is about to time out: whoever waits for them gets an error."""
    if not request.node.get_closest_marker("mount"):
        yield
        return
    own = tmp_path_factory.getbasetemp()
    marker = request.node.get_closest_marker("timeout")
    after_s = max(marker.args[0] - 20.0, 1.0) if marker and marker.args else UNHANG_S
    timer = threading.Timer(after_s, end_mounts, [own])
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


def fuse_problem() -> str:
    """Why nothing can be mounted with FUSE here; empty if it can be tried."""
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed"
    try:
        # libfuse opens it as whoever we are, and calls fusermount3 only to mount: udev gives it mode 0666.
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    return ""


def yester_mounts(folder: Path) -> list[Mount]:
    """Mounts of yester at or below a folder, innermost first. Touches none of them: a dead one would hang."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        _, _, device, _, escaped, *_ = before.split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        if after.startswith("fuse.yester ") and point.is_relative_to(folder):
            mounts.append(Mount(point, after.split(" ")[0], int(device.partition(":")[2])))
    return mounts[::-1]


def end_mounts(folder: Path) -> list[Mount]:
    """End all mounts of yester at or below a folder; returns which there were."""
    mounts = yester_mounts(folder)
    for mount in mounts:
        end_mount(mount)
    return mounts


def end_mount(mount: Mount) -> None:
    """Take a mount away whatever state it is in, and end who serves it. All who wait for it get an error."""
    with suppress(OSError):
        Path(f"/sys/fs/fuse/connections/{mount.device_minor}/abort").write_text("1")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_server = process.stat().st_uid == os.getuid() and os.fsencode(mount.point) in (process / "cmdline").read_bytes().split(b"\0")
            if is_server and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
    command = ["umount", "--force", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*command, mount.point], check=False, timeout=30, stderr=subprocess.DEVNULL)  # may be gone by itself by now


def _is_alive(run: Path) -> bool:
    """Whether the pytest that made this folder still runs: it keeps a file with its process id there."""
    try:
        os.kill(int((run / ".lock").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _log_text(record: logging.LogRecord) -> str:
    return f"{record.levelname} {record.name}: {record.getMessage()}"

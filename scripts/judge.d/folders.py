# SPDX-License-Identifier: MIT
"""The two folders that are compared: one judged, by default of a live folder that is mounted for this, and one of the host."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from commands import JudgeError, Outcome, run
from judging import Finding
from steps import Actor

_MOUNT_LIMIT_S = 60
_UNMOUNT_LIMIT_S = 300
"""Unmounting waits until all that was written is in the store."""
_PACE = ("--quiet", "1", "--every", "10")
"""Seconds after which a version is made: more often than people have it, so that versions are made while judges work."""
_COMPLAINT = re.compile(r"WARNING|ERROR|CRITICAL|Traceback|Error\b|warning:|error:")
"""What a daemon that is well does not log."""


@contextmanager
def judged_folder(work: Path, against: Path | None, findings: list[Finding]) -> Iterator[Path]:
    """The folder to judge: `against`, or a new live folder, which is unmounted in the end, and may then have `findings` of its own."""
    if against is None:
        with mounted_live(work, findings) as folder:
            yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="judged-", dir=against))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        remove(folder)


@contextmanager
def mounted_live(work: Path, findings: list[Finding]) -> Iterator[Path]:
    """A new live folder in a new store. Whatever happens, neither the mount nor the process that serves it stays behind.

    Afterwards the store is checked, and what judges left in the folder is compared with what a second mount of it and a restored version
    have: `findings` gets what is wrong.

    Raises:
        JudgeError: it does not mount.
    """
    store, mount_point, home, restored = (work / name for name in ("store", "live", "home", "restored"))
    unmount_below(work)  # of a run that was killed
    for folder in (store, mount_point, home, restored):
        remove(folder)
    for folder in (mount_point, home):
        folder.mkdir(mode=0o755)
    yester = _Yester(work, {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)})
    outcome = yester.run("init", "--store", store)
    if outcome.status != 0:
        raise JudgeError(outcome.tail())
    with _served(yester, mount_point, store, findings):
        yield mount_point
        left = _describe(mount_point)
    with _served(yester, mount_point, store, findings):
        findings += _differences("mounted again", _describe(mount_point), left)
    findings += yester.complaints("check", "--store", store)
    findings += yester.complaints("restore", "live/judged", "--to", restored, "--numeric-ids", "--store", store)
    findings += _differences("restored", _describe(restored), left)
    remove(restored)


@contextmanager
def _served(yester: "_Yester", mount_point: Path, store: Path, findings: list[Finding]) -> Iterator[None]:
    """Mount, and unmount; what the process logged, and how it ended, may be findings."""
    log = mount_point.with_name("live.log")
    options = ["--allow-other"] if os.geteuid() == 0 else []
    with log.open("wb") as output:
        process = yester.start(output, "live", mount_point, "--name", "judged", "--store", store, "-f", *_PACE, *options)
        try:
            _wait_mounted(mount_point, process, log)
            yield
            findings += yester.complaints("umount", mount_point)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_UNMOUNT_LIMIT_S)
        finally:
            unmount_below(mount_point)
            _end(process)
    logged = [line for line in log.read_text(errors="backslashreplace").splitlines() if _COMPLAINT.search(line)]
    if process.returncode != 0 or logged:
        findings.append(Finding("the process of the live folder", "\n".join([*logged[:30], f"exit status {process.returncode}"])))


def _describe(folder: Path) -> list[str]:
    """Everything about all that is in a folder, with the times of modification."""
    try:
        times = Actor(folder).times().values()
        return [*Actor(folder).describe(), *sorted(f"{os.fsencode(path)!r} {mtime_ns}" for path, mtime_ns, _ in times if path != Path())]
    except OSError as error:
        return [str(error)]


def _differences(what: str, found: list[str], expected: list[str]) -> list[Finding]:
    here, there = set(found), set(expected)
    lost = [line for line in expected if line not in here][:10]
    new = [line for line in found if line not in there][:10]
    if not lost and not new:
        return []
    return [Finding(what, "\n".join([*(f"before: {line}" for line in lost), *(f"now:    {line}" for line in new)]))]


class _Yester:
    """The checkout that this script is part of, with its own idea of home."""

    def __init__(self, work: Path, environment: dict[str, str]) -> None:
        self._work = work
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("YESTER_", "XDG_"))}
        self._environment = kept | environment

    def run(self, *words: str | Path) -> Outcome:
        return run([sys.executable, "-m", "yester", *words], folder=self._work, environment=self._environment, limit_s=_UNMOUNT_LIMIT_S)

    def start(self, output: IO[bytes], *words: str | Path) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [sys.executable, "-m", "yester", *words]
        return subprocess.Popen(
            command, cwd=self._work, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    def complaints(self, *words: str | Path) -> list[Finding]:
        outcome = self.run(*words)
        return [] if outcome.status == 0 else [Finding(f"yester {words[0]}", outcome.tail(20))]


def _wait_mounted(mount_point: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _MOUNT_LIMIT_S
    while mount_point not in _mount_points():
        if process.poll() is not None or time.monotonic() > deadline:
            message = f"the live folder did not mount: {log.read_text(errors='backslashreplace')}"
            raise JudgeError(message)
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that should have ended when its mount went."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def unmount_below(folder: Path) -> None:
    """Take away every mount at or below a folder."""
    for path in reversed(_mount_points()):
        if path == folder or folder in path.parents:
            subprocess.run(["fusermount3", "-u", "-z", path], capture_output=True, timeout=30, check=False)


def _mount_points() -> list[Path]:
    """All there are, from the mount table; no mount is asked."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), line.split()[4])) for line in lines]


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, whatever the permissions; it need not be there."""
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def file_system(path: Path) -> str:
    """The type of the file system that a folder is on, as the mount table has it."""
    return run(["findmnt", "--noheadings", "--output", "FSTYPE", "--target", path], folder=path).output.strip() or "unknown"

# SPDX-License-Identifier: MIT
"""The two folders that are compared: one judged, by default of a live folder that is mounted for this, and one of the host."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import JudgeError, Outcome, run

_MOUNT_LIMIT_S = 60
_UNMOUNT_LIMIT_S = 300
"""Unmounting waits until all that was written is in the store."""


@contextmanager
def judged_folder(work: Path, against: Path | None) -> Iterator[Path]:
    """The folder to judge: `against`, or a new live folder, which is unmounted in the end."""
    if against is None:
        with mounted_live(work) as folder:
            yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="judged-", dir=against))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        remove(folder)


@contextmanager
def mounted_live(work: Path) -> Iterator[Path]:
    """A new live folder in a new store.

    Raises:
        JudgeError: it does not mount, or does not unmount.
    """
    store, mount_point, home = (work / name for name in ("store", "live", "home"))
    unmount_below(work)  # of a run that was killed
    for folder in (store, mount_point, home):
        remove(folder)
    for folder in (mount_point, home):
        folder.mkdir(mode=0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("YESTER_", "XDG_"))}
    environment = kept | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    command: list[str | Path] = [sys.executable, "-m", "yester"]
    _must(run([*command, "init", "--store", store], folder=work, environment=environment, limit_s=_MOUNT_LIMIT_S))
    options = ["--allow-other"] if os.geteuid() == 0 else []
    # Its output is a file: the daemon may keep it open, and a pipe would be waited for until it ends.
    log = work / "live.log"
    with log.open("wb") as output:
        words: list[str | Path] = [*command, "live", mount_point, "--name", "judged", "--store", store, *options]
        done = subprocess.run(
            words, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=_MOUNT_LIMIT_S, check=False
        )
    try:
        if done.returncode != 0 or mount_point not in _mount_points():
            message = f"the live folder did not mount: {log.read_text()}"
            raise JudgeError(message)
        yield mount_point
        # Not after a failure: what failed first is what to tell.
        _must(run([*command, "umount", mount_point], folder=work, environment=environment, limit_s=_UNMOUNT_LIMIT_S))
    finally:
        unmount_below(work)


def _must(outcome: Outcome) -> None:
    if outcome.status != 0:
        raise JudgeError(outcome.tail())


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

# SPDX-License-Identifier: MIT
"""Running the commands of others with a time limit, and installing them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class JudgeError(Exception):
    """A judge cannot do its work for a reason that says nothing about the judged folder."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. `status` is None if it took too long and was killed. `output` has both streams."""

    status: int | None
    output: str

    def tail(self, lines: int = 6) -> str:
        """The last lines of the output, with how it ended."""
        ending = "took too long" if self.status is None else f"exit status {self.status}"
        return "\n".join([*self.output.strip().splitlines()[-lines:], ending])


def run(
    words: Sequence[str | Path], *, folder: Path, limit_s: float = 120, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> Outcome:
    """Run a command in a folder, in a process group that is killed when time is up."""
    process = subprocess.Popen(
        list(words),
        cwd=folder,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        process_group=0,
    )
    try:
        output, _ = process.communicate(stdin, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen = error.stdout or b""
        return Outcome(None, seen.decode(errors="backslashreplace") if isinstance(seen, bytes) else seen)
    return Outcome(process.returncode, output)


def must_run(words: Sequence[str | Path], *, folder: Path, limit_s: float = 600) -> str:
    """Run a command on which a judge rests, and return its output.

    Raises:
        JudgeError: it failed.
    """
    outcome = run(words, folder=folder, limit_s=limit_s)
    if outcome.status != 0:
        message = f"{' '.join(map(str, words))}: {outcome.tail(20)}"
        raise JudgeError(message)
    return outcome.output


def install(packages: Mapping[str, str]) -> None:
    """Install the Debian packages of the commands that are missing.

    Raises:
        JudgeError: they cannot be installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = sorted({package for command, package in packages.items() if shutil.which(command, path=path) is None})
    if missing:
        apt_get("update", "-q", check=False)
        apt_get("install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *missing)


def apt_get(*words: str | Path, folder: Path | None = None, check: bool = True) -> None:
    """Run apt-get as root, with what it prints on stderr.

    Raises:
        JudgeError: it failed, or there is none.
    """
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    command = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *words]
    if shutil.which("apt-get") is None or (sudo and shutil.which("sudo") is None):
        message = f"as root run: apt-get {' '.join(map(str, words))}"
        raise JudgeError(message)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=folder, check=False)
    if check and done.returncode != 0:
        message = f"apt-get {' '.join(map(str, words))} failed"
        raise JudgeError(message)


def first_line(words: Sequence[str], folder: Path) -> str:
    """The first line that a command prints: mostly its version."""
    return (run(words, folder=folder).output.strip().splitlines() or [""])[0]

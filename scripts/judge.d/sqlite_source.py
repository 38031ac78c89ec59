# SPDX-License-Identifier: MIT
"""SQLite's own tests: the source package of this Debian release, and the program built from it that runs them.

Nothing of the system is changed but installed packages: the lists of source packages are kept in the folder of the build.
"""

import re
import shutil
from pathlib import Path

from commands import JudgeError, apt_get, must_run

_NEEDED = {"make": "make", "gcc": "gcc", "tclsh": "tcl", "dpkg-source": "dpkg-dev"}
_HEADERS = {"tcl.h": "tcl-dev", "zlib.h": "zlib1g-dev"}


def build_tests(scratch: Path) -> tuple[Path, Path]:
    """The program that runs tests, and the folder with the tests; built when it is not there.

    Raises:
        JudgeError: the source cannot be had, or does not build.
    """
    home = scratch / "sqlite"
    program = home / "build" / "testfixture"
    if not program.exists():
        shutil.rmtree(home, ignore_errors=True)
        (home / "build").mkdir(parents=True)
        _install_needed()
        _download(home)
        [configure] = home.glob("sqlite3-*/configure")
        must_run([configure, "--disable-readline"], folder=home / "build")
        must_run(["make", "-j2", "testfixture"], folder=home / "build", limit_s=1200)
    [tests] = home.glob("sqlite3-*/test")
    return program, tests


def _install_needed() -> None:
    missing = [package for command, package in _NEEDED.items() if shutil.which(command) is None]
    missing += [package for header, package in _HEADERS.items() if not list(Path("/usr/include").glob(f"**/{header}"))]
    if missing:
        apt_get("install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *missing)


def _download(home: Path) -> None:
    """Fetch the source package with the system's own sources, asked for source packages too."""
    parts = home / "apt" / "parts"
    for folder in (parts, home / "apt" / "lists" / "partial", home / "apt" / "archives" / "partial"):
        folder.mkdir(parents=True)
    system = Path("/etc/apt")
    for path in (system / "sources.list", *sorted((system / "sources.list.d").glob("*"))):
        if path.suffix == ".sources":
            text = re.sub(r"(?m)^Types:.*", "Types: deb-src", path.read_text())
        elif path.suffix == ".list" and path.exists():
            text = re.sub(r"(?m)^deb\s", "deb-src ", path.read_text())
        else:
            continue
        (parts / path.name).write_text(text)
    directories = {"Etc::SourceList": "/dev/null", "Etc::SourceParts": parts, "State::Lists": home / "apt" / "lists", "Cache": home / "apt"}
    options = [word for name, value in directories.items() for word in ("-o", f"Dir::{name}={value}")]
    apt_get(*options, "update", "-q", check=False)
    apt_get(*options, "source", "-q", "sqlite3", folder=home)
    if not list(home.glob("sqlite3-*/configure")):
        message = "the source package of sqlite3 has no configure"
        raise JudgeError(message)

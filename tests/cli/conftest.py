# SPDX-License-Identifier: MIT
"""Running commands in this process, with a store and a home of their own."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from yester.cli.main import main


@dataclass(frozen=True)
class Finished:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 (tests look into it freely)
        return json.loads(self.out)


Run = Callable[..., Finished]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `yester ARGUMENTS…`; the store is `tmp_path/store` unless the arguments say otherwise."""
    monkeypatch.setenv("YESTER_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("XDG_CONFIG_HOME", "YESTER_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def run_command(*arguments: str | Path) -> Finished:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["yester", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Finished(code, out, err)

    return run_command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder to back up."""
    folder = tmp_path / "letters"
    (folder / "old").mkdir(parents=True)
    (folder / "ann.txt").write_text("dear Ann\n")
    (folder / "old" / "bob.txt").write_text("dear Bob\n")
    (folder / "link").symlink_to("ann.txt")
    return folder


@pytest.fixture
def cron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A crontab program that keeps its text in a file, which this is; there is none yet, and no systemd.

    A file `broken` beside it makes that unreadable. Nothing else of the system is on the PATH.
    """
    table, programs = tmp_path / "crontab.txt", tmp_path / "programs"
    programs.mkdir()
    make_program(
        programs / "crontab",
        f"""
case "$1" in
    -l) [ -e {tmp_path}/broken ] && {{ echo 'cannot open the spool' >&2; exit 1; }}
        [ -e {table} ] || {{ echo 'no crontab for ann' >&2; exit 1; }}
        exec /bin/cat {table};;
    -) exec /bin/cat > {table};;
esac
""",
    )
    (programs / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(programs))
    for name in ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return table


def make_program(path: Path, script: str) -> None:
    """A program that is a shell script."""
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)

# SPDX-License-Identifier: MIT
"""`yester backup --watch` as a process of its own: told by its lines what it did, and by signals to end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@contextmanager
def watching(folder: Path, tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command: list[str | Path] = [sys.executable, "-m", "yester", "backup", folder, "--watch", "--store", tmp_path / "store", *options]
    environment = dict(os.environ, XDG_STATE_HOME=str(tmp_path / "state"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def lines_until(process: subprocess.Popen[str], start: str) -> list[str]:
    """What it prints, up to a line that begins so; pytest's time-out ends a wait in vain."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(start):
            return lines
    pytest.fail(f"it ended without {start!r}: {lines}")


def test_each_settled_change_is_in_a_snapshot_and_sigterm_ends_it(run: Run, folder: Path, tmp_path: Path) -> None:
    with watching(folder, tmp_path, "--quiet", "0.1") as process:
        assert lines_until(process, "note: watching 2 folders; a snapshot follows 0.1 s after")[1].startswith("snapshot ")
        (folder / "old" / "carl.txt").write_text("dear Carl\n")
        assert ": 1 new, 0 changed, " in lines_until(process, "snapshot ")[-1]
        assert run("cat", "letters:old/carl.txt").out == "dear Carl\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_what_changed_just_before_the_end_is_backed_up(run: Run, folder: Path, tmp_path: Path) -> None:
    with watching(folder, tmp_path, "--quiet", "1000") as process:
        lines_until(process, "note: watching")
        (folder / "last.txt").write_text("last")
        process.send_signal(signal.SIGINT)
        lines_until(process, "note: ending: what changed last is backed up first")
        assert process.wait(60) == 0
    assert run("cat", "letters:last.txt").out == "last"


def test_a_second_signal_ends_it_at_once(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    with watching(folder, tmp_path, "--quiet", "1000", "--after", f"echo > {tmp_path}/begun; sleep 1000") as process:
        (tmp_path / "begun").read_text()
        process.send_signal(signal.SIGTERM)
        lines_until(process, "note: it ends when this backup is done; a second signal ends it at once")
        process.send_signal(signal.SIGTERM)
        lines_until(process, "yester: interrupted")
        assert process.wait(60) == 130


def test_each_snapshot_can_be_a_line_of_json(folder: Path, tmp_path: Path) -> None:
    with watching(folder, tmp_path, "--quiet", "0.1", "--json", "--after", "echo done") as process:
        first = json.loads(lines_until(process, "{")[-1])
        (folder / "more.txt").write_text("more")
        second = json.loads(lines_until(process, "{")[-1])
    assert (first["new_files"], second["new_files"]) == (2, 1)
    assert [hook["output"] for hook in second["hooks"]] == ["done\n"], "those of this backup"


def test_a_watched_backup_into_a_store_that_is_gone_makes_no_new_one(folder: Path, tmp_path: Path) -> None:
    with watching(folder, tmp_path, "--quiet", "0.1") as process:
        lines_until(process, "note: watching")
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        (folder / "more.txt").write_text("more")
        assert "note: it is tried again in 60 s, and later" in lines_until(process, "note: it is tried again")
        assert not (tmp_path / "store").exists()


def test_watching_a_dry_run_is_wrong_usage(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("backup", folder, "--watch", "--dry-run")
    assert done.code == 2
    assert "--watch and --dry-run exclude each other; nothing was backed up" in done.err
    assert not (tmp_path / "store").exists()


def test_a_first_backup_that_fails_is_an_error_like_any(run: Run, tmp_path: Path) -> None:
    done = run("backup", tmp_path / "nowhere", "--watch")
    assert done.code == 1
    assert "does not exist; nothing was backed up" in done.err

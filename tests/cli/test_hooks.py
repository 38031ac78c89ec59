# SPDX-License-Identifier: MIT
"""`yester backup --before … --after …`: what is printed, kept and returned."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Run


def test_a_failing_hook_after_the_backup_is_exit_code_3_and_its_last_lines_are_shown(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("backup", folder, "--after", "echo cannot start; exit 9", "--after", "true", "--json")
    assert done.code == 3
    assert "hook: 'echo cannot start; exit 9' (after) ended with exit status 9\n  cannot start\n" in done.err
    assert done.json["snapshot"]["source"] == "letters"
    assert [(hook["when"], hook["problem"]) for hook in done.json["hooks"]] == [("after", "ended with exit status 9"), ("after", None)]
    log = tmp_path / "state" / "yester" / "hooks.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "letters after 'echo cannot start; exit 9' ended with exit status 9, after" in log.read_text()
    assert "\n  | cannot start\n" in log.read_text()


def test_a_failing_hook_before_the_backup_is_exit_code_1_unless_it_is_to_be_ignored(run: Run, folder: Path) -> None:
    refused = run("backup", folder, "--before", "echo no disk; false")
    assert refused.code == 1
    assert (
        "yester: the hook 'echo no disk; false' before the backup of 'letters' ended with exit status 1; nothing was backed up"
        in refused.err
    )
    assert "It said:\n  no disk\nhint: " in refused.err
    assert run("snapshots").code == 1, "not even a store was made"
    assert run("backup", folder, "--before", "false", "--ignore-hook-failure").code == 3
    assert len(run("snapshots", "--json").json) == 1


def test_no_line_of_a_hook_can_pass_for_an_entry_of_the_log(run: Run, folder: Path, tmp_path: Path) -> None:
    run("backup", folder, "--before", r"printf '2026-01-01 00:00:00 letters\r\nx\033[2J\n'")
    lines = (tmp_path / "state" / "yester" / "hooks.log").read_text().splitlines()
    assert lines[1:] == ["  | 2026-01-01 00:00:00 letters", r"  | x\x1b[2J"]


def test_a_dry_run_runs_no_hooks(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("backup", folder, "--dry-run", "--before", f"touch {tmp_path}/ran").code == 0
    assert not (tmp_path / "ran").exists()


def test_a_backup_that_is_terminated_still_runs_what_comes_after_it(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    hooks = ["--before", f"echo > {tmp_path}/begun; sleep 1000", "--after", f"echo $YESTER_STATUS > {tmp_path}/said"]
    command: list[str | Path] = [sys.executable, "-m", "yester", "backup", folder, "--store", tmp_path / "store", *hooks]
    environment = dict(os.environ, XDG_STATE_HOME=str(tmp_path / "state"))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        (tmp_path / "begun").read_text()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing was published" in err
    assert (tmp_path / "said").read_text() == "interrupted\n"

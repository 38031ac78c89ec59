# SPDX-License-Identifier: MIT
"""Commands before and after a backup: what they are told, what stops what, and that none outlives its time."""

import errno
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.sandbox import Sandbox
from yester.engine import hooks as hooks_module
from yester.engine.backup import BackupResult
from yester.engine.hooks import OUTPUT_BYTES_MAX, Backup, HookRun, Hooks, Occasion, back_up_with_hooks, run_hook
from yester.errors import HookError, StoreFullError


@pytest.fixture
def about(tmp_path: Path) -> Backup:
    return Backup(tmp_path / "store", "docs", (tmp_path / "source",))


def run(command: str, timeout_s: float = 20.0) -> HookRun:
    return run_hook(Occasion.BEFORE, command, dict(os.environ), timeout_s)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_of(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 20)[0], "it is still there"
    finally:
        os.close(handle)


def test_a_shell_runs_a_hook_and_both_streams_are_kept_in_order() -> None:
    ran = run("echo one; echo two >&2; echo $((1 + 2))")
    assert (ran.problem, ran.output) == ("", b"one\ntwo\n3\n")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("exit 3", "ended with exit status 3"),
        ("kill -KILL $$", "was ended by SIGKILL"),
        ("true\0", "could not be started: embedded null byte"),
    ],
)
def test_how_a_hook_failed_is_told(command: str, problem: str) -> None:
    assert run(command).problem == problem


def test_only_the_end_of_much_output_is_kept() -> None:
    ran = run("yes abcdefg | head -c 1000000; echo; echo end")
    assert len(ran.output) == OUTPUT_BYTES_MAX
    assert ran.dropped_bytes + len(ran.output) == 1_000_005
    assert ran.last_lines(2) == ["abcdefg", "end"]


def test_no_output_can_move_a_cursor_or_fill_a_screen() -> None:
    ran = run(r"printf 'a\033[2Jb\377\n\n\rc\n'; head -c 5000 /dev/zero | tr '\0' x; yes | head -n 100")
    assert ran.last_lines(1000)[:2] == [r"a\x1b[2Jb\xff", "c"]
    assert all(line.isprintable() and len(line) <= 201 for line in ran.last_lines())
    assert len(ran.last_lines()) == 10


def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    ran = run(f"sleep 1000 & echo $! > {tmp_path}/pid; echo begun; wait", timeout_s=0.3)
    assert ran.problem == "took longer than 0.3 s and was stopped"
    assert ran.output == b"begun\n"
    end_of(int((tmp_path / "pid").read_text()))


def test_a_hook_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "_GRACE_S", 0.1)
    ran = run("trap '' TERM; echo $$; while :; do sleep 0.05; done", timeout_s=0.3)
    assert "was stopped" in ran.problem
    assert not is_alive(int(ran.output))


def test_what_a_hook_leaves_in_the_background_is_neither_waited_for_nor_ended() -> None:
    ran = run("(while :; do echo x; sleep 0.01; done) & echo $!")
    pid = int(next(word for word in ran.output.split() if word != b"x"))
    try:
        assert ran.problem == ""
        assert ran.seconds < 10
    finally:
        os.killpg(os.getpgid(pid), signal.SIGKILL)
        end_of(pid)


def test_a_hook_that_closes_its_output_is_waited_for() -> None:
    assert run("exec >&- 2>&-; sleep 0.05; exit 4").problem == "ended with exit status 4"


def test_a_hook_has_no_terminal_and_no_input() -> None:
    assert run("cat; test -t 0 || (exec 3</dev/tty) 2>/dev/null || echo none").output == b"none\n"


def test_hooks_are_told_of_the_backup_and_of_no_passphrase(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("YESTER_PASSPHRASE", "YESTER_PASSPHRASE_COMMAND", "YESTER_SNAPSHOT", "YESTER_KEY_FILE"):
        monkeypatch.setenv(name, "secret or stale")
    runs: list[HookRun] = []
    about = Backup(sandbox.store.path, "docs", (sandbox.folder, tmp_path / "other"))
    hooks = Hooks(before=("env",), after=("env",), on_failure=("env",))
    result = back_up_with_hooks(hooks, about, sandbox.back_up, runs.append)
    before, after = (dict(line.split("=", 1) for line in run.output.decode().splitlines() if "=" in line) for run in runs)
    assert result.stored is not None
    assert {name: value for name, value in before.items() if name.startswith("YESTER")}.keys() == {
        "YESTER_HOOK", "YESTER_SOURCE", "YESTER_STORE", "YESTER_PATHS",
    }  # fmt: skip
    assert (before["YESTER_HOOK"], before["YESTER_SOURCE"], before["YESTER_STORE"]) == ("before", "docs", str(sandbox.store.path))
    assert runs[0].output.decode().count(f"YESTER_PATHS={sandbox.folder}\n{tmp_path / 'other'}\n") == 1
    assert (after["YESTER_HOOK"], after["YESTER_STATUS"], after["YESTER_SKIPPED"]) == ("after", "done", "0")
    assert after["YESTER_SNAPSHOT"] == result.stored.id.hex()
    assert not any("secret" in run.output.decode() for run in runs)


def test_what_a_hook_before_the_backup_makes_is_in_the_snapshot(sandbox: Sandbox, about: Backup) -> None:
    hooks = Hooks(before=(f"echo dump > {sandbox.folder}/dump.sql",), after=(f"rm {sandbox.folder}/dump.sql",))
    back_up_with_hooks(hooks, about, sandbox.back_up, lambda _run: None)
    assert sandbox.read("dump.sql") == b"dump\n"
    assert not (sandbox.folder / "dump.sql").exists()


def test_a_failing_hook_stops_the_backup_and_hooks_after_it_run(sandbox: Sandbox, about: Backup) -> None:
    runs: list[HookRun] = []
    hooks = Hooks(
        before=("true", "echo no database >&2; exit 7", "echo never"),
        after=("false", "echo after $YESTER_STATUS"),
        on_failure=("echo $YESTER_ERROR",),
    )
    with pytest.raises(HookError) as caught:
        back_up_with_hooks(hooks, about, sandbox.back_up, runs.append)
    assert "'echo no database >&2; exit 7' before the backup of 'docs' ended with exit status 7" in caught.value.message
    assert caught.value.message.endswith("nothing was backed up. It said:\n  no database")
    assert sandbox.store.snapshots() == []
    assert [(run.occasion.value, run.output.split()[:2]) for run in runs] == [
        ("before", []), ("before", [b"no", b"database"]), ("failure", [b"the", b"hook"]), ("after", []), ("after", [b"after", b"failed"]),
    ]  # fmt: skip


def test_a_failing_hook_stops_nothing_where_that_is_wanted(sandbox: Sandbox, about: Backup) -> None:
    runs: list[HookRun] = []
    hooks = Hooks(before=("false", "echo next"), goes_on_after_failure=True)
    assert back_up_with_hooks(hooks, about, sandbox.back_up, runs.append).stored is not None
    assert [run.problem for run in runs] == ["ended with exit status 1", ""]


def test_a_backup_that_fails_is_told_to_hooks_and_raised_again(about: Backup) -> None:
    runs: list[HookRun] = []

    def fail() -> BackupResult:
        message = "the disk is full"
        raise StoreFullError(message)

    with pytest.raises(StoreFullError):
        back_up_with_hooks(Hooks(after=("echo $YESTER_STATUS",), on_failure=("echo $YESTER_ERROR",)), about, fail, runs.append)
    assert [run.output for run in runs] == [b"the disk is full\n", b"failed\n"]


def interrupting(process_named_in: Path) -> Callable[[], None]:
    """Interrupts the main thread once a file holds something; it is a FIFO, so whoever writes waits for this."""

    def interrupt() -> None:
        process_named_in.read_text()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    return interrupt


def test_an_interrupted_hook_is_ended_and_hooks_after_the_backup_run(sandbox: Sandbox, about: Backup, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    thread = threading.Thread(target=interrupting(tmp_path / "begun"))
    thread.start()
    runs: list[HookRun] = []
    hooks = Hooks((f"sleep 1000 & echo $! > {tmp_path}/pid; echo > {tmp_path}/begun; wait",), ("echo $YESTER_STATUS",), ("echo failed",))
    with pytest.raises(KeyboardInterrupt):
        back_up_with_hooks(hooks, about, sandbox.back_up, runs.append)
    thread.join()
    end_of(int((tmp_path / "pid").read_text()))
    assert [run.output for run in runs] == [b"interrupted\n"]
    assert sandbox.store.snapshots() == []


def test_a_hook_that_is_just_being_started_is_ended_by_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here before its starter has so much as its number."""
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 (those of its parent)
            super().__init__(*arguments, **named)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("yester.engine.hooks.subprocess.Popen", Popen)
    with pytest.raises(KeyboardInterrupt):
        run("sleep 1000")
    assert [process.returncode for process in started] == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_hook_that_cannot_be_watched_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("yester.engine.hooks.os.pidfd_open", fail)
    ran = run(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    assert ran.problem == "could not be started: Too many open files"
    assert not (tmp_path / "pid").exists() or not is_alive(int((tmp_path / "pid").read_text() or "0") or 1 << 30)


def test_an_interruption_while_a_hook_cannot_be_started_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise OSError(errno.EAGAIN, "")

    monkeypatch.setattr("yester.engine.hooks.subprocess.Popen", fail)
    with pytest.raises(KeyboardInterrupt):
        run("true")


def test_an_interruption_after_the_backup_ends_one_hook_and_the_others_run(sandbox: Sandbox, about: Backup, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    thread = threading.Thread(target=interrupting(tmp_path / "begun"))
    thread.start()
    hooks = Hooks(after=(f"echo > {tmp_path}/begun; sleep 1000", f"echo $YESTER_STATUS > {tmp_path}/said"))
    with pytest.raises(KeyboardInterrupt):
        back_up_with_hooks(hooks, about, sandbox.back_up, lambda _run: None)
    thread.join()
    assert (tmp_path / "said").read_text() == "done\n"

# SPDX-License-Identifier: MIT
"""`yester schedule` and what `yester status` says of it: what a timer starts is right without anybody who watches."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Run, make_program
from yester.cli import command_schedule
from yester.cli.config import read_config
from yester.cli.config_edit import set_in_source
from yester.cli.crontab import CronTimers
from yester.cli.mains_power import is_on_battery
from yester.cli.schedule_timers import apply_timers
from yester.core.retention import Policy
from yester.engine import scheduled_run
from yester.engine.runs import Outcome, RunBook
from yester.store.store import Store

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".config" / "yester" / "config.toml"


@pytest.fixture
def book(tmp_path: Path) -> RunBook:
    return RunBook(tmp_path / "state" / "yester" / "runs")


@pytest.fixture
def letters(run: Run, cron: Path, folder: Path) -> Path:
    """The folder of the source `letters`, which is backed up every day."""
    assert run("schedule", "add", "letters", folder, "--every", "daily 03:00").code == 0
    return folder


@pytest.fixture
def notified(tmp_path: Path, cron: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was shown on the desktop since the last time: the last two arguments of notify-send, in lines."""
    make_program(cron.parent / "programs" / "notify-send", f'shift 3\nprintf "%s\\n" "$@" >> {tmp_path}/shown\n')
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")

    def lines() -> list[str]:
        shown = tmp_path / "shown"
        text = shown.read_text() if shown.exists() else ""
        shown.unlink(missing_ok=True)
        return text.splitlines()

    return lines


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def move_back(book: RunBook, source: str, by_ns: int) -> None:
    """Let the last run have begun, and the last good one, so much earlier."""
    record = book.read(source)
    assert record is not None
    good_ns = record.good_ns - by_ns if record.good_ns else 0
    book.write(msgspec.structs.replace(record, started_ns=record.started_ns - by_ns, ended_ns=record.ended_ns - by_ns, good_ns=good_ns))


def names(run: Run, source: str = "letters") -> list[str]:
    return [snapshot["name"] for snapshot in run("snapshots", source, "--json").json]


# --- adding, listing, removing


def test_what_is_added_is_in_the_configuration_and_in_the_crontab(run: Run, cron: Path, folder: Path, config: Path, tmp_path: Path) -> None:
    options = ["--exclude", "*.tmp", "--tag", "t", "--on-battery", "no", "--max-age", "2d", "-x", "--exclude-caches"]
    done = run("schedule", "add", "letters", folder, "--every", "15m", *options)
    assert (done.code, done.err) == (0, f"made a new store in {tmp_path}/store\n")
    assert done.out == "letters: 15m, started by cron\nthe first backup comes within the hour; now: yester schedule run letters\n"
    source = read_config(config).source("letters")
    assert (source.every, source.paths, source.on_battery, source.max_age_ns) == ("15m", (folder,), False, 2 * DAY_NS)
    assert (source.options.exclude, source.options.tags, source.options.one_file_system) == (("*.tmp",), ("t",), True)
    assert source.store == tmp_path / "store", "whoever starts it has another environment"
    assert f"--config {config} schedule run --due" in cron.read_text()


def test_relative_paths_and_stores_are_written_as_absolute_ones(
    run: Run, cron: Path, folder: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("schedule", "add", "letters", "letters", "--every", "daily", "--store", "own").code == 0
    source = read_config(config).source("letters")
    assert (source.paths, source.store) == ((folder,), tmp_path / "own")
    assert (tmp_path / "own" / "data.mdb").exists()
    assert run("schedule", "run", "letters").code == 0
    assert len(run("snapshots", "--store", tmp_path / "own", "--json").json) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["other", "--every", "daily"], 2, "no folder to back up was named"),
        (["other", "/nowhere", "--every", "daily"], 1, "/nowhere does not exist"),
        (["other", "{folder}", "--every", "often"], 2, "does not say how often"),
        (["live/other", "{folder}", "--every", "daily"], 2, "makes its versions itself"),
        (["a/b", "{folder}", "--every", "daily"], 2, "cannot name a source"),
        (["letters", "{folder}", "--every", "daily"], 1, "already (daily 03:00); nothing was changed"),
        (["other", "{folder}", "--every", "daily", "--exclude", "[x"], 2, "is not a rule"),
    ],
)
def test_what_cannot_be_added_changes_nothing(
    run: Run, cron: Path, letters: Path, config: Path, arguments: list[str], code: int, part: str
) -> None:
    before = config.read_text(), cron.read_text()
    done = run("schedule", "add", *(argument.format(folder=letters) for argument in arguments))
    assert done.code == code
    assert part in done.err
    assert (config.read_text(), cron.read_text()) == before


def test_a_source_of_the_configuration_is_added_by_its_name(run: Run, cron: Path, folder: Path, config: Path) -> None:
    write(config, f"# mine\n[sources.letters]\npaths = ['{folder}']\nkeep.last = 3\n")
    assert run("schedule", "add", "letters", "--every", "daily").code == 0
    expected = f'# mine\n[sources.letters]\npaths = [\'{folder}\']\nkeep.last = 3\nstore = "{folder.parent}/store"\nevery = "daily"\n'
    assert config.read_text() == expected


def test_a_mistake_makes_no_store(run: Run, cron: Path, folder: Path, tmp_path: Path) -> None:
    assert run("schedule", "add", "letters", folder, "--every", "daily", "--max-age", "long").code == 2
    assert not (tmp_path / "store").exists()


def test_a_name_that_another_computer_uses_is_noted(run: Run, cron: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "other")
        run("backup", folder)
    done = run("schedule", "add", "letters", folder, "--every", "daily")
    assert done.code == 0
    assert f"note: the store has snapshots of letters already, the last of {folder} on other;" in done.err


def test_timers_are_right_when_several_add_sources_at_once(cron: Path, folder: Path, config: Path) -> None:
    def add(minute: int) -> None:
        set_in_source(config, f"s{minute}", {"paths": [str(folder)], "every": f"daily 03:{minute:02}"})
        apply_timers(config, CronTimers(), [CronTimers()])

    threads = [threading.Thread(target=add, args=(minute,)) for minute in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "\n0,1,2,3,4,5,6,7,8,15,30,45 * * * * " in cron.read_text()


def test_a_policy_can_be_given_at_once(run: Run, cron: Path, folder: Path, config: Path) -> None:
    assert run("schedule", "add", "letters", folder, "--every", "daily", "--keep-daily", "7", "--keep-tag", "x").code == 0
    assert read_config(config).source("letters").policy == Policy(daily=7, tags=frozenset({"x"}))


def test_the_store_of_the_whole_configuration_is_not_repeated(
    run: Run, cron: Path, folder: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YESTER_STORE")
    write(config, f"store = '{tmp_path}/mine'\n")
    assert run("schedule", "add", "letters", folder, "--every", "daily").code == 0
    assert read_config(config).source("letters").store is None
    assert (tmp_path / "mine" / "data.mdb").exists()


def test_where_nothing_can_start_backups_nothing_is_changed(run: Run, cron: Path, folder: Path, config: Path) -> None:
    (cron.parent / "programs" / "crontab").unlink()
    done = run("schedule", "add", "letters", folder, "--every", "daily")
    assert done.code == 1
    assert "neither systemd nor cron" in done.err
    assert not config.exists()
    done = run("schedule", "add", "letters", folder, "--every", "daily", "--timer", "none")
    assert done.code == 0
    assert "started by nothing yet: have `yester schedule run --due` started regularly" in done.out


def test_removing_leaves_the_source_and_its_snapshots(run: Run, cron: Path, letters: Path, config: Path, book: RunBook) -> None:
    run("schedule", "run", "letters")
    assert run("schedule", "remove", "letters").code == 0
    assert cron.read_text() == ""
    source = read_config(config).source("letters")
    assert (source.paths, source.recurrence) == ((letters,), None)
    assert book.read("letters") is None
    assert len(names(run)) == 1
    done = run("schedule", "remove", "letters")
    assert done.code == 1
    assert "is not backed up by itself" in done.err


def test_timers_follow_a_configuration_that_was_changed_by_hand(run: Run, cron: Path, letters: Path, config: Path) -> None:
    write(config, config.read_text().replace("daily 03:00", "daily 03:07"))
    done = run("schedule", "list")
    assert "not as the configuration says" in done.out
    assert "yester schedule apply" in done.err
    assert run("schedule", "apply").out == "1 source, started by cron\n"
    assert "\n0,7,15,30,45 * * * * " in cron.read_text()
    assert run("schedule", "apply").out == "1 source, started by cron; nothing had to be changed\n"
    assert "yester schedule apply" not in run("schedule", "list").err
    assert run("schedule", "apply", "--timer", "none").code == 0
    assert cron.read_text() == ""


def test_editing_the_configuration_changes_timers(
    run: Run, cron: Path, letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(tmp_path / "editor", """/bin/sed -i 's/daily 03:00/daily 03:07/' "$1"\n""")
    monkeypatch.setenv("VISUAL", str(tmp_path / "editor"))
    done = run("config", "edit")
    assert (done.code, done.err) == (0, "")
    assert "\n0,7,15,30,45 * * * * " in cron.read_text()


def test_the_list_shows_next_and_last_run(run: Run, letters: Path) -> None:
    shown = run("schedule", "list").out.splitlines()
    assert shown[0].split("  ")[0] == "SOURCE"
    assert shown[1].split(maxsplit=3)[:3] == ["letters", "daily", "03:00"]
    assert "due now" in shown[1]
    assert "never" in shown[1]
    assert "cron: on" in shown[1]
    run("schedule", "run", "letters")
    [source] = run("schedule", "list", "--json").json
    assert (source["last_outcome"], source["problem"], source["timer"], source["timer_state"]) == ("done", None, "cron", "on")
    assert source["next"] > source["last_start"]
    assert " 03:00  " in run("schedule", "list").out.splitlines()[1].partition("daily 03:00")[2]


def test_an_empty_list_says_how_to_begin(run: Run, cron: Path) -> None:
    done = run("schedule", "list")
    assert (done.code, done.out) == (0, "")
    assert "yester schedule add" in done.err
    assert run("schedule", "list", "--json").json == []


# --- running


def test_what_is_due_runs_once(run: Run, letters: Path, book: RunBook) -> None:
    assert run("schedule", "run", "--due").code == 0
    assert run("schedule", "run", "--due").out == ""
    assert len(names(run)) == 1
    move_back(book, "letters", DAY_NS)
    assert run("schedule", "run", "--due", "letters").code == 0
    assert len(names(run)) == 2
    assert run("schedule", "run").code == 0
    assert len(names(run)) == 3, "without --due it runs whenever it is told to"


def test_a_run_thins_by_the_policy_and_logs_what_it_did(run: Run, letters: Path, book: RunBook) -> None:
    run("policy", "set", "letters", "--keep-last", "2")
    for number in range(3):
        (letters / "ann.txt").write_text(f"dear Ann {number}\n")
        done = run("schedule", "run", "letters")
    assert len(names(run)) == 2
    assert "letters: forgot 1 by its policy\n" in done.out
    log = book.log_path("letters").read_text()
    assert log.count("snapshot 20") == 3
    assert log.count("forgot 1 by its policy") == 1


def test_a_source_that_fails_stops_no_other(run: Run, letters: Path, tmp_path: Path, book: RunBook) -> None:
    (tmp_path / "gone").mkdir()
    run("schedule", "add", "another", tmp_path / "gone", "--every", "daily")
    (tmp_path / "gone").rmdir()
    done = run("schedule", "run", "another", "letters")
    assert done.code == 1
    assert f"yester: another: {tmp_path}/gone does not exist; nothing was backed up\n" in done.err
    assert len(names(run)) == 1
    record = book.read("another")
    assert record is not None
    assert (record.outcome, record.failures, record.good_ns) == (Outcome.FAILED, 1, 0)
    assert "does not exist" in book.log_path("another").read_text()
    assert "another: " in run("schedule", "list").out
    assert run("schedule", "run", "--due").out == "", "it is tried again later"
    move_back(book, "another", HOUR_NS)
    assert run("schedule", "run", "--due").code == 1


def test_what_is_known_of_runs_cannot_be_written_is_told_for_each(run: Run, letters: Path, book: RunBook) -> None:
    book.folder.parent.mkdir(parents=True, exist_ok=True)
    book.folder.write_text("no folder")
    done = run("schedule", "run", "letters")
    assert done.code == 1
    assert "where yester keeps what is known of runs" in done.err


def test_a_store_that_is_missing_is_not_made_in_the_place_of_its_disk(run: Run, letters: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    done = run("schedule", "run", "letters")
    assert done.code == 1
    assert not (tmp_path / "store").exists()


def test_hooks_run_and_a_failing_one_after_the_backup_is_trouble(
    run: Run, letters: Path, config: Path, tmp_path: Path, book: RunBook
) -> None:
    write(config, config.read_text() + f"before = ['echo $YESTER_SOURCE > {tmp_path}/before']\nafter = ['exit 3']\n")
    done = run("schedule", "run", "letters")
    assert done.code == 1
    assert (tmp_path / "before").read_text() == "letters\n"
    assert len(names(run)) == 1
    record = book.read("letters")
    assert record is not None
    assert (record.outcome, record.message) == (Outcome.TROUBLED, "the hook 'exit 3' (after) ended with exit status 3")
    assert record.good_ns == record.started_ns, "the snapshot is there"


def test_a_store_on_a_disk_that_a_hook_plugs_in_is_found(run: Run, letters: Path, config: Path, tmp_path: Path) -> None:
    (tmp_path / "store").rename(tmp_path / "unplugged")
    write(config, config.read_text() + f"before = ['/bin/mv {tmp_path}/unplugged {tmp_path}/store']\n")
    assert run("schedule", "run", "letters").code == 0


def test_files_that_are_skipped_are_in_the_log_and_the_code_is_3(run: Run, letters: Path, book: RunBook) -> None:
    (letters / ".yesterignore").write_text("[x\n")
    done = run("schedule", "run", "letters")
    assert done.code == 3
    assert "letters: 1 files were skipped" in done.err
    assert "problem: " in book.log_path("letters").read_text()
    record = book.read("letters")
    assert record is not None
    assert (record.outcome, record.failures) == (Outcome.SKIPPED, 0)


def test_a_second_run_of_a_source_does_nothing_and_says_so(run: Run, letters: Path, book: RunBook) -> None:
    with book.holding("letters"):
        done = run("schedule", "run", "letters")
        assert done.code == 1
        assert f"a run of 'letters' is under way already, in process {os.getpid()}; this one did nothing" in done.err
        done = run("schedule", "run", "--due")
        assert (done.code, done.err) == (0, "")
        assert "under way" in done.out
    assert run("snapshots", "--json").json == []


def test_an_interrupted_run_is_known_as_one(run: Run, letters: Path, config: Path, book: RunBook) -> None:
    write(config, config.read_text() + "before = ['/bin/sleep 0.3; kill -TERM $PPID; exec /bin/sleep 60']\n")
    assert run("schedule", "run", "letters").code == 130
    record = book.read("letters")
    assert record is not None
    assert record.outcome is Outcome.UNFINISHED
    assert "interrupted" in run("schedule", "list").out
    assert "it was interrupted; the next one goes on where it was" in book.log_path("letters").read_text()


def test_a_run_that_is_killed_is_known_as_interrupted_and_keeps_nobody_from_the_next(
    run: Run, letters: Path, config: Path, book: RunBook
) -> None:
    write(config, config.read_text() + "before = ['kill -KILL $PPID']\n")
    killed = subprocess.run([sys.executable, "-m", "yester", "schedule", "run", "letters"], check=False)
    assert killed.returncode == -9
    assert "interrupted" in run("schedule", "list").out
    assert state(run)["warnings"] == ["letters was never backed up", "the last run of letters did not end: it was interrupted"]
    write(config, config.read_text().partition("before")[0])
    assert run("schedule", "run", "--due").out == "", "after an hour"
    move_back(book, "letters", HOUR_NS)
    assert run("schedule", "run", "--due").code == 0
    assert len(names(run)) == 1
    assert state(run)["warnings"] == []


def test_an_error_that_nobody_expected_is_kept_with_where_it_happened(
    run: Run, letters: Path, book: RunBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        message = "a bug"
        raise RuntimeError(message)

    monkeypatch.setattr(scheduled_run, "_thin", broken)
    monkeypatch.setattr("sys.argv", ["yester", "schedule", "run", "letters"])
    with pytest.raises(RuntimeError, match="a bug"):
        command_schedule.command.main(["run", "letters"], standalone_mode=False)
    record = book.read("letters")
    assert record is not None
    assert record.outcome is Outcome.FAILED
    assert "Traceback" in book.log_path("letters").read_text()


def test_on_battery_a_source_that_must_not_waits(run: Run, letters: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, config.read_text() + "on_battery = false\n")
    monkeypatch.setattr(command_schedule, "is_on_battery", lambda: True)
    done = run("schedule", "run", "--due")
    assert (done.code, done.out) == (0, "letters: waits until the computer has mains power\n")
    monkeypatch.setattr(command_schedule, "is_on_battery", lambda: False)
    run("schedule", "run", "--due")
    assert len(names(run)) == 1


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ([], False),
        ([("Battery", None)], False),
        ([("Mains", "1"), ("Battery", None)], False),
        ([("Mains", "0"), ("Battery", None)], True),
        ([("Mains", "0"), ("Mains", "1")], False),
        ([("USB", "0")], False),
    ],
)
def test_a_computer_is_on_battery_when_no_adapter_has_power(tmp_path: Path, supplies: list[tuple[str, str | None]], expected: bool) -> None:
    for number, (kind, online) in enumerate(supplies):
        write(tmp_path / str(number) / "type", f"{kind}\n")
        if online is not None:
            write(tmp_path / str(number) / "online", f"{online}\n")
    assert is_on_battery(tmp_path) is expected
    assert not is_on_battery(tmp_path / "none")


def test_nothing_to_run_is_told_to_a_person_and_not_to_a_timer(run: Run, cron: Path, config: Path, folder: Path) -> None:
    assert run("schedule", "run").code == 1
    assert run("schedule", "run", "--due").code == 0
    write(config, "[sources.mail]\nkeep.last = 1\n")
    assert "does not say what to back up" in run("schedule", "run", "mail").err
    assert "is it 'mail'?" in run("schedule", "run", "mial").err


# --- telling


def test_failures_are_notified_less_and_less_often_and_success_once(
    run: Run, letters: Path, notified: Callable[[], list[str]], book: RunBook
) -> None:
    run("schedule", "run", "letters")
    assert notified() == []
    letters.rename(letters.with_name("away"))
    told = []
    for _ in range(9):
        run("schedule", "run", "letters")
        told.append(notified()[:1])
    title = "The backup of letters failed"
    assert told == [[title], [f"{title} (2 times now)"], [], [f"{title} (4 times now)"], [], [], [], [f"{title} (8 times now)"], []]
    letters.with_name("away").rename(letters)
    done = run("schedule", "run", "letters")
    assert "letters: works again, after 9 failures\n" in done.out
    assert notified() == ["The backup of letters works again", "works again, after 9 failures"]
    assert "works again" not in run("schedule", "run", "letters").out
    assert notified() == []
    assert "works again" in book.log_path("letters").read_text()


def test_a_mistake_in_the_configuration_is_notified_once(run: Run, letters: Path, config: Path, notified: Callable[[], list[str]]) -> None:
    right = config.read_text()
    write(config, right + "evry = 1\n")
    done = run("schedule", "run", "--due")
    assert done.code == 2
    assert "no such key" in done.err
    assert notified()[0] == "No backups: the configuration of yester has a mistake"
    done = run("schedule", "run", "--due")
    assert (done.code, done.out, done.err) == (2, "", ""), "cron would mail it each time"
    assert notified() == []
    write(config, right)
    assert run("schedule", "run", "--due").code == 0
    write(config, right + "evry = 1\n")
    run("schedule", "run", "--due")
    assert notified() != []


# --- status


def state(run: Run, source: str = "letters") -> Any:  # noqa: ANN401 (tests look into it freely)
    [found] = [one for one in run("status", "--json").json["sources"] if one["source"] == source]
    return found


def test_status_shows_each_source_with_its_last_good_backup(run: Run, letters: Path, folder: Path) -> None:
    run("backup", folder / "old", "--name", "by hand")
    run("schedule", "run", "letters")
    done = run("status")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split("  ")[0] == "SOURCE"
    assert [line.split("  ")[0] for line in lines[1:]] == ["by hand", "letters"]
    assert " good " in lines[2]
    assert state(run)["last_good"] is not None
    assert (state(run, "by hand")["next"], state(run, "by hand")["warnings"]) == (None, [])


def test_a_backup_by_hand_counts_as_a_good_one(run: Run, letters: Path) -> None:
    assert state(run)["warnings"] == ["letters was never backed up"]
    run("backup", "--name", "letters")
    assert (state(run)["warnings"], state(run)["is_too_old"]) == ([], False)


def test_status_warns_of_a_source_that_is_older_than_it_may_be(run: Run, letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("backup", "--name", "letters")
    later = time.time_ns() + 3 * DAY_NS
    monkeypatch.setattr("time.time_ns", lambda: later)
    done = run("status")
    assert done.code == 0
    assert done.err == "warning: the last good backup of letters is 3 days old; it should not be older than 2 days\n"
    assert "too old" in done.out
    assert state(run)["is_too_old"]


def test_a_snapshot_of_the_future_is_no_good_backup(run: Run, letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: now + 365 * DAY_NS)
    run("backup", "--name", "letters")
    monkeypatch.setattr("time.time_ns", lambda: now)
    assert state(run)["is_too_old"]


def test_a_backup_of_another_computer_is_not_one_of_this(run: Run, letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "other")
        run("backup", "--name", "letters")
    found = state(run)
    assert found["last_from_other_host"] == "other"
    assert found["warnings"] == ["letters was never backed up on this computer, only on other"]


def test_status_tells_what_went_wrong_last(run: Run, letters: Path) -> None:
    run("schedule", "run", "letters")
    letters.rename(letters.with_name("away"))
    run("schedule", "run", "letters")
    run("schedule", "run", "letters")
    done = run("status")
    assert done.err == f"warning: the last run of letters failed, like 1 before: {letters} does not exist; nothing was backed up\n"
    assert state(run)["failures"] == 2


def test_a_backup_by_hand_after_a_failure_makes_that_good(run: Run, letters: Path) -> None:
    letters.rename(letters.with_name("away"))
    run("schedule", "run", "letters")
    letters.with_name("away").rename(letters)
    assert state(run)["problem"] is not None
    run("backup", "--name", "letters")
    assert (state(run)["problem"], state(run)["warnings"]) == (None, [])


def test_status_says_how_old_backups_are_although_the_disk_with_the_store_is_away(
    run: Run, letters: Path, tmp_path: Path, book: RunBook
) -> None:
    run("schedule", "run", "letters")
    move_back(book, "letters", 5 * DAY_NS)
    (tmp_path / "store").rename(tmp_path / "away")
    done = run("status")
    assert done.code == 1
    assert "the last good backup of letters is 5 days old" in done.err
    assert "error" in run("status", "--json").json


def test_a_path_that_is_not_there_is_not_scheduled(run: Run, cron: Path, tmp_path: Path) -> None:
    done = run("schedule", "add", "letters", tmp_path / "typo", "--every", "daily")
    assert (done.code, "typo does not exist; nothing was changed" in done.err) == (1, True)


def test_status_needs_no_usual_store_where_each_source_has_its_own(
    run: Run, cron: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YESTER_STORE")
    assert run("status").code == 1, "here nothing says where backups are"
    assert run("schedule", "add", "letters", folder, "--every", "1h", "--store", tmp_path / "other").code == 0
    assert run("schedule", "run", "letters").code == 0
    done = run("status")
    assert (done.code, done.err) == (0, "")
    assert "letters" in done.out
    assert run("status", "--json").json["live_folders"] == []
    assert run("status", "--store", tmp_path / "nowhere").code == 1


def test_status_looks_into_stores_of_sources_that_have_their_own(run: Run, cron: Path, folder: Path, tmp_path: Path) -> None:
    run("init")
    run("schedule", "add", "letters", folder, "--every", "daily", "--store", tmp_path / "own")
    run("backup", "--name", "letters")
    assert state(run)["last_good"] is not None
    shutil.rmtree(tmp_path / "own")
    done = run("status")
    assert done.code == 0
    assert "only runs on this computer are known" in done.err


def test_the_crontab_line_starts_what_is_due(run: Run, letters: Path, cron: Path, tmp_path: Path) -> None:
    """As cron does it: in an empty environment."""
    command = cron.read_text().splitlines()[-2].partition(" * * * * ")[2].replace("\\%", "%")
    environment = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    status = os.spawnve(os.P_WAIT, "/bin/sh", ["sh", "-c", command], environment)
    assert status == 0
    with Store.open(tmp_path / "store") as store:
        assert len(store.snapshots("letters")) == 1

# SPDX-License-Identifier: MIT
"""Wiring: every command parses, calls its engine function and renders; what they mean is tested there."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Run
from yester.store.chunks import segment_key
from yester.store.lmdb import Table
from yester.store.store import Store

COMMANDS = [
    "init",
    "key",
    "backup",
    "snapshots",
    "ls",
    "cat",
    "log",
    "find",
    "diff",
    "restore",
    "mount",
    "umount",
    "schedule",
    "policy",
    "config",
    "desktop",
    "stats",
    "check",
    "repair",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_ends_with_examples_and_exit_codes(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    assert "Example" in done.out
    assert "Exit status: 0" in done.out
    assert done.out.index("Example") < done.out.index("Exit status") < done.out.index("Options:")
    assert re.search(r"\n  Examples?:\n    .*yester " + command, done.out), "each example on a line of its own"
    assert "\\b" not in done.out


def test_the_overview_lists_every_command(run: Run) -> None:
    done = run("--help")
    assert all(f"\n  {command} " in done.out for command in COMMANDS)


def test_the_overview_imports_neither_trio_nor_lmdb() -> None:
    code = """
import sys
sys.argv = ["yester", "--help"]
from yester.cli.main import main
try:
    main()
except SystemExit:
    print(sorted({"trio", "lmdb", "rich", "pyfuse3"} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    assert run("bakcup").code == 2


def test_init_makes_a_store_once(run: Run, tmp_path: Path) -> None:
    assert run("init").code == 0
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    again = run("init")
    assert again.code == 1
    assert "is a store already; nothing was changed" in again.err


def test_backup_makes_the_store_and_says_what_it_did(run: Run, folder: Path) -> None:
    done = run("backup", folder, "--tag", "first", "--message", "a remark")
    assert done.code == 0
    assert "made a new store" in done.err
    assert "snapshot " in done.out
    [snapshot] = run("snapshots", "--json").json
    assert (snapshot["source"], snapshot["tags"], snapshot["message"]) == ("letters", ["first"], "a remark")
    assert (snapshot["files"], snapshot["directories"], snapshot["others"], snapshot["size_bytes"]) == (2, 2, 1, 18)
    assert snapshot["paths"] == [str(folder)]


def test_a_backup_with_skipped_files_exits_with_3_and_names_them(run: Run, folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (folder / "ann.txt").chmod(0)
    done = run("backup", folder, "--json")
    assert done.code == 3
    assert done.json["skipped"] == [{"path": str(folder / "ann.txt"), "reason": "cannot be read: Permission denied"}]


def test_a_dry_run_stores_nothing_and_makes_no_store(run: Run, folder: Path, tmp_path: Path) -> None:
    done = run("backup", folder, "--dry-run")
    assert done.code == 0
    assert "nothing was stored" in done.out
    assert not (tmp_path / "store").exists()
    run("backup", folder)
    (folder / "new.txt").write_text("new")
    assert run("backup", folder, "--dry-run", "--json").json["new_files"] == 1
    assert len(run("snapshots", "--json").json) == 1


def test_backing_up_what_is_not_there_says_so(run: Run, tmp_path: Path) -> None:
    done = run("backup", tmp_path / "nowhere")
    assert done.code == 1
    assert "does not exist; nothing was backed up" in done.err


def test_ls_lists_one_folder_or_all_below(run: Run, folder: Path) -> None:
    run("backup", folder)
    assert run("ls", "letters").out.splitlines() == ["ann.txt", "link", "old/"]
    assert run("ls", "-R", "letters").out.splitlines() == ["ann.txt", "link", "old/", "old/bob.txt"]
    assert run("ls", "-R", "letters:old").out.splitlines() == ["old/bob.txt"]
    assert "link -> ann.txt" in run("ls", "-l", "letters").out
    assert [entry["path"] for entry in run("ls", "letters", "--json").json] == ["ann.txt", "link", "old"]


def test_a_folder_named_by_a_symlink_is_not_quietly_left_out(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    done = run("backup", tmp_path / "link")
    assert done.code == 0
    assert f"is a symlink, and only that is backed up; for the folder name {folder}" in done.err


def test_a_slash_at_the_end_of_a_symlink_means_what_it_leads_to(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for number, text in enumerate((f"{tmp_path}/link/", f"{tmp_path}/link/.")):
        assert run("backup", text, "--name", str(number), "--json").code == 0
        assert run("ls", str(number)).out.splitlines() == ["ann.txt", "link", "old/"]


def test_an_empty_path_is_wrong_usage(run: Run, folder: Path) -> None:
    for arguments in (["backup", ""], ["backup", folder, "--store", ""], ["restore", "x", "--to", ""], ["mount", ""], ["umount", ""]):
        done = run(*arguments)
        assert done.code == 2
        assert "the path is empty" in done.err


def test_a_tag_that_cannot_be_printed_is_refused(run: Run, folder: Path) -> None:
    for text in ("a\nb", "\x1b[31m", os.fsdecode(b"\xff")):
        for option in ("--tag", "--message"):
            done = run("backup", folder, option, text)
            assert done.code == 2
            assert "nothing was stored" in done.err


def test_a_backup_after_one_of_the_future_says_so(run: Run, folder: Path, tmp_path: Path) -> None:
    run("backup", folder)
    with Store.open(tmp_path / "store") as store:
        [stored] = store.snapshots()
        store.add_snapshot(msgspec.structs.replace(stored.snapshot, time_ns=stored.snapshot.time_ns + 10**18))
    assert "a snapshot from the future" in run("backup", folder).err


def run_outside(arguments: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 (as `subprocess.run`)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **options.pop("env", {})}
    return subprocess.run([sys.executable, "-m", "yester", *arguments], check=False, text=True, env=environment, **options)


@pytest.mark.parametrize("arguments", [["--help"], ["snapshots"], ["ls", "letters"], ["cat", "letters:ann.txt"], ["stats"], ["find", "*"]])
def test_output_that_cannot_be_written_is_an_error(run: Run, folder: Path, arguments: list[str]) -> None:
    run("backup", folder)
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run_outside(list(arguments), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_output_takes_everything(run: Run, folder: Path, tmp_path: Path) -> None:
    command: list[str | Path] = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "yester", "backup", folder]
    done = subprocess.run(
        command, check=False, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert (done.returncode, done.stderr) == (0, f"made a new store in {tmp_path / 'store'}\n")


def test_what_a_terminal_cannot_show_is_escaped(run: Run, folder: Path) -> None:
    (folder / "é").touch()
    run("backup", folder)
    (folder / "é").unlink()
    run("backup", folder)
    for arguments in (["ls", "letters@2026"], ["find", "*"], ["stats"], ["log", "letters:é"]):
        done = run_outside(list(arguments), capture_output=True, env={"PYTHONIOENCODING": "ascii"})
        assert "Traceback" not in done.stderr


def test_a_current_folder_that_is_gone_is_said_to_be(run: Run, folder: Path, tmp_path: Path) -> None:
    run("backup", folder)
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'cd "{gone}" && rmdir "{gone}" && exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-P", "-m", "yester", "backup", "x"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 1
    assert "the folder this command was started in is not there any more" in done.stderr


def test_sources_are_completed(run: Run, folder: Path) -> None:
    run("backup", folder)
    [snapshot] = run("snapshots", "--json").json
    for word, completed in (("let", "letters"), ("letters@", f"letters@{snapshot['name']}"), ("x", "")):
        settings = {"_YESTER_COMPLETE": "bash_complete", "COMP_WORDS": f"yester ls {word}", "COMP_CWORD": "2"}
        done = run_outside([], capture_output=True, env=settings)
        assert [line.removeprefix("plain,") for line in done.stdout.splitlines() if line] == ([completed] if completed else [])


def test_find_since_a_day_finds_what_was_backed_up_on_it(run: Run, folder: Path) -> None:
    run("backup", folder)
    [snapshot] = run("snapshots", "--json").json
    day = snapshot["name"][:10]
    assert "ann.txt" in run("find", "ann.txt", "--since", day).out
    assert "ann.txt" in run("find", "ann.txt", "--since", day, "--until", day).out
    assert run("find", "ann.txt", "--until", "2000").code == 1
    empty = run("find", "ann.txt", "--until", "2000", "--json")
    assert (empty.code, empty.json) == (1, [])


def test_a_name_cannot_write_to_the_terminal(run: Run, folder: Path) -> None:
    (folder / "\x1b[31mred\nline").write_text("")
    run("backup", folder)
    out = run("ls", "letters").out
    assert "\x1b" not in out
    assert r"\x1b[31mred\nline" in out


def test_cat_gives_the_bytes(run: Run, folder: Path) -> None:
    run("backup", folder)
    assert run("cat", "letters:old/bob.txt").out == "dear Bob\n"
    assert run("cat", f"letters:{folder}/ann.txt").out == "dear Ann\n"
    assert run("cat", "letters:old").code == 2
    assert run("cat", "letters:nobody").code == 1


def test_log_find_and_diff_show_a_change(run: Run, folder: Path) -> None:
    run("backup", folder)
    (folder / "ann.txt").write_text("dear Anna\n")
    (folder / "old" / "bob.txt").unlink()
    run("backup", folder)
    names = [snapshot["name"] for snapshot in run("snapshots", "--json").json]
    [history] = run("log", folder / "ann.txt", "--json").json
    assert [version["entry"]["size"] for version in history["versions"]] == [9, 10]
    assert "gone" in run("log", folder / "old" / "bob.txt").out
    assert run("find", "bob.*").out.startswith(f"letters:old/bob.txt  9 B  in {names[0]}")
    assert run("find", "nobody").code == 1
    lines = run("diff", f"letters@{names[0]}", "letters").out.splitlines()
    assert lines == ["M ann.txt  9 B → 10 B", "- old/bob.txt"]
    assert [found["change"] for found in run("diff", f"letters@{names[0]}", "letters", "--json").json] == ["content", "removed"]


def test_stats_and_check_speak_of_the_whole_store(run: Run, folder: Path) -> None:
    run("backup", folder)
    assert run("stats", "--json").json["snapshots"] == 1
    assert "1 snapshots hold 18 B" in run("stats").out
    assert run("check", "--read-data").code == 0
    assert run("check", "--json").json["findings"] == []


def test_a_sample_is_a_share_of_the_data(run: Run, folder: Path) -> None:
    run("backup", folder)
    assert "--seed 3" in run("check", "--sample", "5%", "--seed", "3").out
    assert run("check", "--sample", "100", "--json").json["read_segments"] == 2
    for wrong in (["--sample", "0%"], ["--sample", "101"], ["--sample", "nan"], ["--seed", "3"], ["--sample", "5%", "--read-data"]):
        assert run("check", *wrong).code == 2


def test_repair_puts_back_what_it_finds_and_names_what_it_does_not(run: Run, folder: Path, tmp_path: Path) -> None:
    run("backup", folder)
    assert run("repair").code == 2
    assert run("repair", "--no-copy", "--copy-to", tmp_path / "copy").code == 2
    assert run("repair", "--dry-run").code == 0
    store = Path(os.environ["YESTER_STORE"])
    with Store.open(store) as opened:
        opened.environment.write(lambda transaction: transaction.delete(Table.SEGMENTS, segment_key(1)))
    (folder / "old" / "bob.txt").write_text("changed")
    dry = run("repair", "--dry-run")
    assert dry.code == 3
    assert "letters:old/bob.txt" in dry.out
    done = run("repair", "--copy-to", tmp_path / "copy")
    assert done.code == 3
    assert "1 from files of this computer" in done.out
    assert "letters:old/bob.txt" in done.out
    assert run("check").code == 1
    assert "no damage but what" in run("check").out
    again = run("repair", "--no-copy", "--json")
    assert (again.code, again.json["whole"], again.json["newly_lost"]) == (3, False, 0)


def test_restore_copies_out(run: Run, folder: Path, tmp_path: Path) -> None:
    run("backup", folder)
    assert run("restore", "letters:old", "--to", tmp_path / "back").code == 0
    assert (tmp_path / "back" / "bob.txt").read_text() == "dear Bob\n"
    (tmp_path / "back" / "bob.txt").write_text("mine")
    kept = run("restore", "letters:old", "--to", tmp_path / "back")
    assert kept.code == 3
    assert (tmp_path / "back" / "bob.txt").read_text() == "mine"
    assert run("restore", "letters:old", "--to", tmp_path / "back", "--overwrite").code == 0
    assert (tmp_path / "back" / "bob.txt").read_text() == "dear Bob\n"
    dry = run("restore", "letters", "--to", tmp_path / "dry", "--dry-run")
    assert dry.code == 0
    assert "ann.txt" in dry.out
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize("command", [["snapshots"], ["ls", "letters"], ["stats"], ["check"], ["find", "x"]])
def test_without_a_store_reading_says_how_to_make_one(run: Run, command: list[str]) -> None:
    done = run(*command)
    assert done.code == 1
    assert "there is no store in" in done.err
    assert "hint:" in done.err


def test_a_store_path_that_is_a_file_or_another_folder_is_refused(run: Run, folder: Path) -> None:
    assert "is a file" in run("snapshots", "--store", folder / "ann.txt").err
    assert "not a store" in run("snapshots", "--store", folder).err
    assert "not a store" in run("backup", folder, "--store", folder).err


def test_errors_are_json_where_data_would_be(run: Run) -> None:
    done = run("snapshots", "--json")
    assert done.code == 1
    assert done.json["error"]["kind"] == "NotFoundError"
    assert run("snapshots", "--json", "--nonsense").json["error"]["exit_code"] == 2


def test_a_reader_that_goes_away_is_no_traceback(run: Run, folder: Path, tmp_path: Path) -> None:
    for number in range(2000):
        (folder / f"file-with-quite-a-long-name-to-fill-the-pipe-{number}").touch()
    run("backup", folder)
    environment = {**os.environ, "YESTER_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        f"{sys.executable} -m yester ls letters | head -1", shell=True, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""

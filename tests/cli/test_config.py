# SPDX-License-Identifier: MIT
"""`config.toml`: what it means, that each mistake is told with its place, and that changing it leaves the rest as it was."""

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Run
from yester.cli.config import config_path, parse_config, read_config, read_store
from yester.cli.config_edit import replace_text, set_in_source
from yester.cli.toml_lines import find_line
from yester.core.recurrence import parse_recurrence
from yester.core.retention import Policy
from yester.engine.hooks import Hooks
from yester.errors import ConflictError, NotFoundError, StoreAccessError, UsageError

HOUR_NS = 3600 * 10**9
FULL = """\
# my backups
store = "/srv/backup"

[sources.Documents]   # the important one
paths = ["/home/ann/Documents", "~/Mail/"]
exclude = ["*.tmp"]
exclude_from = ["/etc/rules"]
exclude_caches = true
one_file_system = true
tags = ["home"]
every = "daily 03:00"
on_battery = false
max_age = "3d"
keep = { daily = 7, within = "30d", tags = ["x"] }
before = ["mount /mnt"]
after = ["umount /mnt"]
on_failure = ["mail root"]
hook_timeout = "5m"
ignore_hook_failure = true

[sources."live/Work"]
keep.last = 10

# the end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "config.toml"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_everything_that_is_written_is_meant(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/bob")
    config = read_config(write(path, FULL))
    assert config.store == Path("/srv/backup")
    source = config.source("Documents")
    assert source.paths == (Path("/home/ann/Documents"), Path("/home/bob/Mail"))
    options = source.options
    assert (options.source, options.exclude, options.exclude_from, options.tags) == (
        "Documents",
        ("*.tmp",),
        (Path("/etc/rules"),),
        ("home",),
    )
    assert options.exclude_caches
    assert options.one_file_system
    assert (source.every, source.recurrence, source.on_battery) == ("daily 03:00", parse_recurrence("daily 03:00"), False)
    assert source.max_age_ns == 72 * HOUR_NS
    assert source.policy == Policy(daily=7, within_ns=30 * 24 * HOUR_NS, tags=frozenset({"x"}))
    assert source.hooks == Hooks(("mount /mnt",), ("umount /mnt",), ("mail root",), 300.0, goes_on_after_failure=True)
    live = config.source("live/Work")
    assert (live.paths, live.recurrence, live.policy) == ((), None, Policy(last=10))


@pytest.mark.parametrize(
    ("every", "hours"), [("15m", 24), ("hourly", 24), ("daily", 48), ("weekly", 14 * 24), ("Mon..Fri 18:00", 144), (None, None)]
)
def test_without_max_age_two_runs_may_fail(path: Path, every: str | None, hours: int | None) -> None:
    text = "[sources.D]\npaths = ['/a']\n" + (f"every = '{every}'\n" if every else "")
    assert parse_config(path, text).source("D").max_age_ns == (hours and hours * HOUR_NS)


def test_a_file_that_is_not_there_says_nothing(path: Path) -> None:
    config = read_config(path)
    assert (config.store, dict(config.sources), read_store(path)) == (None, {}, None)
    with pytest.raises(NotFoundError, match="has no source 'Documents'"):
        config.source("Documents")


@pytest.mark.parametrize(
    ("text", "place", "problem", "hint"),
    [
        ("x =", "config.toml is not TOML", "Invalid value", "in quotes"),
        ("x = " + "[" * 5000 + "]" * 5000, "config.toml is not TOML", "too many brackets", ""),
        ("passphrase_command = ' '", ", line 1: passphrase_command:", "it is empty", "leave it out"),
        ("[sources.D]\ntags = ['']", ", line 2: sources.D.tags:", "a tag is empty", "leave it out"),
        ("[sources.D]\nkeep = { tags = [''] }", ", line 2: sources.D.keep:", "tags of a policy have an empty one", ""),
        ("stor = '/x'", ", line 1: stor:", "no such key", "is it store?"),
        ("\nstore = 1", ", line 2: store:", "expected a text in quotes, got a number", "/srv/backup"),
        ("store = 'x'", ", line 1: store:", "'x' is no absolute path", "~/"),
        ("sources = 3", ", line 1: sources:", "expected a table", ""),
        ("[sources.D]\npaths = ['/a']\nevry = '1h'", ", line 3: sources.D.evry:", "no such key", "is it every?"),
        ("[sources.D]\nzzz = 1", ", line 2: sources.D.zzz:", "no such key", "there can be paths, store"),
        ("[sources.D]\n\npaths = '/a'", ", line 3: sources.D.paths:", "expected a list", '["/home'),
        ("[sources.'D x']\npaths = [1]", ', line 2: sources."D x".paths:', "a text in quotes, got a number", '["/home'),
        ("[sources.D]\npaths = ['/a', 'b']", ", line 2: sources.D.paths:", "'b' is no absolute path", "~/"),
        ("[sources.D]\npaths = ['']", ", line 2: sources.D.paths:", "'' is no absolute path", "~/"),
        ("[sources.D]\npaths = ['/a']\nevery = '7h'", ", line 3: sources.D.every:", "minutes must divide an hour", "daily 03:00"),
        ("[sources.D]\nevery = '1h'", ", line 2: sources.D.every:", "nothing to back up", "paths = "),
        ("[sources.D]\nkeep = { lst = 3 }", ", line 2: sources.D.keep:", "no 'lst'", "is it last?"),
        ("[sources.D]\nkeep = { last = [1] }", ", line 2: sources.D.keep:", "no number of snapshots", ""),
        ("[sources.D]\nkeep.lst = 3", ", line 2: sources.D.keep:", "no 'lst'", "is it last?"),
        ("[sources.D]\nkeep = {}", ", line 2: sources.D.keep:", "must say what to keep", "all"),
        ("[sources.D]\non_battery = 'no'", ", line 2: sources.D.on_battery:", "expected true or false", "on_battery = false"),
        ("[sources.D]\nexclude = ['[z']", ", line 2: sources.D.exclude:", "'[z' is not a rule", "gitignore"),
        ("[sources.D]\nmax_age = 'x'", ", line 2: sources.D.max_age:", "'x' is not a duration", ""),
        ("[sources.D]\nhook_timeout = 'x'", ", line 2: sources.D.hook_timeout:", "'x' is not a duration", ""),
        ("[sources.D]\nhook_timeout = '0s'", ", line 2: sources.D.hook_timeout:", "cannot run", "10m"),
        ("[sources.D]\npaths = ['/a/x', '/b/x']", ", line 2: sources.D.paths:", "the same last name", "two sources"),
        ("[upkeep]\nsample = '0%'", ", line 2: upkeep.sample:", "no share of the data", "2%"),
        ("[upkeep]\nsample = 2", ", line 2: upkeep.sample:", "a text in quotes", "2%"),
        ("[upkeep]\nevery = 'often'", ", line 2: upkeep.every:", "not a duration", "never"),
        ("[upkeep]\nevry = '1d'", ", line 2: upkeep.evry:", "no such key", "every"),
        ("upkeep = 3", ", line 1: upkeep:", "expected a table", ""),
        ("[sources.'a/b']\nkeep.last = 1", ', line 1: sources."a/b":', "cannot name a source", "UTF-8"),
        ("[sources.live]\nkeep.last = 1", ", line 1: sources.live:", "cannot name a source", "reserved"),
        ("[sources.'live/W']\npaths = ['/a']", ', line 1: sources."live/W":', "makes its versions itself", "keep"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_would_be_right(path: Path, text: str, place: str, problem: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_config(write(path, text))
    assert caught.value.message.startswith(f"{path}{place}") or f"{path.name} is not TOML" in caught.value.message
    assert problem in caught.value.message
    assert caught.value.message.count(str(path)) == 1
    assert caught.value.message.endswith("; nothing was done")
    assert hint in caught.value.hint


def test_what_is_no_text_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"store = '\xff'")
    with pytest.raises(UsageError, match="is not UTF-8, from byte 9 on"):
        read_config(path)
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_config(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreAccessError, match="Is a directory"):
        read_config(path)


def test_the_store_is_found_in_spite_of_mistakes_elsewhere(path: Path) -> None:
    write(path, "store = '/srv/backup'\n[sources.D]\nevry = 'day'\n")
    assert read_store(path) == Path("/srv/backup")
    with pytest.raises(UsageError):
        read_config(path)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("store",), 2),
        (("sources", "Documents"), 4),
        (("sources", "Documents", "every"), 11),
        (("sources", "Documents", "keep", "within"), 14),
        (("sources", "live/Work", "keep", "last"), 22),
        (("nothing",), None),
    ],
)
def test_the_line_of_a_key_is_found(keys: tuple[str, ...], line: int | None) -> None:
    assert find_line(FULL, keys) == line


def test_the_configuration_is_where_option_variable_or_xdg_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("YESTER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.chdir(tmp_path)
    assert config_path(None) == Path("/home/ann/.config/yester/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert config_path(None) == Path("/x/yester/config.toml")
    monkeypatch.setenv("YESTER_CONFIG", "mine.toml")
    assert config_path(None) == tmp_path / "mine.toml"
    assert config_path("../other.toml") == tmp_path.parent / "other.toml"
    with pytest.raises(UsageError):
        config_path("")


# --- changing it


def test_what_is_set_in_a_source_leaves_all_else_as_it_was(path: Path) -> None:
    write(path, FULL)
    set_in_source(path, "Documents", {"every": "15m", "max_age": None})
    assert path.read_text() == FULL.replace('"daily 03:00"', '"15m"').replace('max_age = "3d"\n', "")


def test_a_new_source_gets_a_table_of_its_own(path: Path) -> None:
    config = set_in_source(path, "D x", {"paths": ["/a"], "keep": {"daily": 7, "tags": ["x"]}})
    assert path.read_text() == '[sources."D x"]\npaths = ["/a"]\nkeep = {daily = 7, tags = ["x"]}\n'
    assert read_config(path) == config
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_source_goes_with_its_last_key(path: Path) -> None:
    write(path, "# mine\n[sources.D]\npaths = ['/a']\n[sources.E]\npaths = ['/b']\n")
    set_in_source(path, "D", {"paths": None})
    assert path.read_text() == "# mine\n[sources.E]\npaths = ['/b']\n"


@pytest.mark.parametrize("before", ["", "[sources.D]\nevry = 1\n", "x ="])
def test_a_mistake_does_not_get_into_the_file(path: Path, before: str) -> None:
    write(path, before)
    with pytest.raises(UsageError):
        set_in_source(path, "D", {"paths": ["relative"]})
    assert path.read_text() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_symlink_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "dotfiles" / "yester.toml", "# mine\n")
    path.parent.mkdir()
    path.symlink_to(real)
    set_in_source(path, "D", {"paths": ["/a"]})
    assert path.is_symlink()
    assert real.read_text() == '# mine\n\n[sources.D]\npaths = ["/a"]\n'


def test_two_who_change_it_at_once_both_succeed(path: Path) -> None:
    names = [f"s{number}" for number in range(16)]
    threads = [threading.Thread(target=set_in_source, args=(path, name, {"paths": [f"/{name}"]})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_config(path).sources) == sorted(names)


def test_what_somebody_else_changed_meanwhile_is_not_written_over(path: Path) -> None:
    write(path, "# theirs\n")
    with pytest.raises(ConflictError, match="changed by somebody else"):
        replace_text(path, "# ours\n", instead_of="# old\n")
    assert path.read_text() == "# theirs\n"


words = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(
    name=words.filter(lambda text: not set(text) & set("/@:") and text not in (".", "..", "live")),
    path=words.map(lambda text: "/" + text.strip("/")),
    tag=words,
    daily=st.integers(1, 99),
)
def test_whatever_is_set_is_read_again(tmp_path_factory: pytest.TempPathFactory, name: str, path: str, tag: str, daily: int) -> None:
    file = write(tmp_path_factory.getbasetemp() / "property" / "config.toml", FULL)
    set_in_source(file, name, {"paths": [path], "tags": [tag], "keep": {"daily": daily}})
    source = read_config(file).source(name)
    assert source.paths == (Path(os.path.normpath(path)),)
    assert source.options.tags == (tag,)
    assert source.policy == Policy(daily=daily)
    assert FULL in file.read_text()


# --- commands


def test_check_counts_sources_and_notes_what_is_not_there(run: Run, tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "home" / ".config" / "yester" / "config.toml"
    assert "need not be" in run("config", "check").out
    write(file, f"[sources.letters]\npaths = ['{folder}', '/nowhere']\nevery = 'daily'\n")
    done = run("config", "check")
    assert (done.code, done.out) == (0, f"{file}: no mistakes; sources: 1, backed up by themselves: 1\n")
    assert done.err == "note: letters: /nowhere is not there now\n"
    assert run("config", "check", "--json").json["missing_paths"] == {"letters": ["/nowhere"]}
    write(file, "[sources.letters]\nevry = 'daily'\n")
    done = run("config", "check")
    assert done.code == 2
    assert done.err == f"yester: {file}, line 2: sources.letters.evry: there is no such key; nothing was done\nhint: is it every?\n"
    assert run("config", "check", "--json").json["error"]["hint"] == "is it every?"


def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "my editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("VISUAL", f"'{program}' -x")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir(exist_ok=True)


def test_edit_puts_what_was_written_into_place(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "home" / ".config" / "yester" / "config.toml"
    editor(tmp_path, monkeypatch, """[ "$1" = -x ] && grep -q '^# \\[sources' "$2" && echo "store = '/srv/b'" >> "$2" """)
    done = run("config", "edit")
    assert (done.code, done.out) == (0, f"{file} changed\n")
    assert read_store(file) == Path("/srv/b")
    assert not os.listdir(tmp_path / "tmp")


def test_edit_that_changes_nothing_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(tmp_path, monkeypatch, "exit 0")
    assert run("config", "edit").out == "nothing was changed\n"
    assert not (tmp_path / "home" / ".config").exists()


def test_edit_with_a_mistake_leaves_the_file_and_keeps_what_was_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "home" / ".config" / "yester" / "config.toml", "# before\n")
    editor(tmp_path, monkeypatch, """echo "stor = '/x'" > "$2" """)
    with open(os.devnull, encoding="ascii") as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        done = run("config", "edit")
    assert done.code == 2
    assert f"{file}, line 1: stor: there is no such key" in done.err
    assert file.read_text() == "# before\n"
    [draft] = (tmp_path / "tmp").rglob("config.toml")
    assert str(draft) in done.err
    assert draft.read_text() == "stor = '/x'\n"


def test_edit_with_an_editor_that_fails_changes_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(tmp_path, monkeypatch, "exit 7")
    done = run("config", "edit")
    assert done.code == 1
    assert "ended with exit status 7; nothing was changed" in done.err
    monkeypatch.setenv("VISUAL", "/nowhere/editor")
    assert "cannot be started: No such file" in run("config", "edit").err


def test_an_editor_that_cannot_be_started_leaves_nothing_behind_and_one_that_failed_what_was_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, "")
    monkeypatch.setenv("VISUAL", "/nowhere/editor")
    assert run("config", "edit").code == 1
    assert list((tmp_path / "tmp").iterdir()) == []
    editor(tmp_path, monkeypatch, 'echo "# mine" > "$2"; exit 7')
    done = run("config", "edit")
    [draft] = (tmp_path / "tmp").rglob("config.toml")
    assert (done.code, f"what you wrote is in {draft}" in done.err) == (1, True)
    assert draft.read_text() == "# mine\n"


def test_a_configuration_that_is_named_and_not_there_is_told(
    run: Run, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("YESTER_STORE")
    missing = tmp_path / "typo.toml"
    for arguments in (
        ["config", "check"],
        ["backup", folder],
        ["ls", "letters", "--store", tmp_path / "store"],
        ["status"],
        ["schedule", "run"],
        ["schedule", "run", "--due"],
    ):
        done = run("--config", missing, *arguments)
        assert (done.code, f"there is no configuration {missing}, which --config names" in done.err) == (1, True), arguments
    monkeypatch.setenv("YESTER_CONFIG", str(missing))
    assert "$YESTER_CONFIG names" in run("snapshots").err
    assert not (tmp_path / "home").exists(), "no store was made"
    assert run("schedule", "add", "letters", folder, "--every", "daily", "--timer", "none").code == 0
    assert run("schedule", "list").code == 0


def test_a_configuration_that_is_no_file_is_refused_at_once(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(UsageError, match="is no ordinary file"):
        read_config(path)
    assert dict(read_config(Path(os.devnull)).sources) == {}


def test_the_store_of_the_configuration_is_used(run: Run, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YESTER_STORE")
    file = write(tmp_path / "mine.toml", f"store = '{tmp_path / 'other'}'\n")
    assert run("--config", file, "backup", folder).code == 0
    assert (tmp_path / "other" / "data.mdb").exists()
    monkeypatch.setenv("YESTER_CONFIG", str(file))
    assert len(run("snapshots", "--json").json) == 1


def test_backup_of_a_name_alone_does_what_the_configuration_says(
    run: Run, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"[sources.mail]\npaths = ['{folder}']\nstore = '{tmp_path}/own'\nexclude = ['old']\ntags = ['home']\n"
    text += f"before = ['echo hi > {tmp_path}/hook']\n"
    write(tmp_path / "home" / ".config" / "yester" / "config.toml", text)
    assert run("backup", "--name", "mail", "--exclude", "link", "--tag", "now").code == 0
    [snapshot] = run("snapshots", "--store", tmp_path / "own", "--json").json
    assert (snapshot["source"], snapshot["files"], snapshot["others"], snapshot["tags"]) == ("mail", 1, 0, ["home", "now"])
    assert (tmp_path / "hook").exists()
    assert run("backup", "--name", "mail", "--store", tmp_path / "given").code == 0
    assert (tmp_path / "given").exists()


def test_backup_of_nothing_says_what_could_be_named(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "home" / ".config" / "yester" / "config.toml", "[sources.mail]\nkeep.last = 1\n")
    for arguments, code, part in [
        ((), 2, "no folder"),
        (("--name", "mial"), 1, "is it 'mail'?"),
        (("--name", "mail"), 2, "does not say what"),
    ]:
        done = run("backup", *arguments)
        assert done.code == code
        assert part in done.err

# SPDX-License-Identifier: MIT
"""Encrypted stores by command: where the passphrase comes from, and what manages keys."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.conftest import Run
from tests.encrypted import PASSPHRASE, create_encrypted, open_encrypted
from yester.cli import passphrases
from yester.errors import StoreFullError
from yester.store.lmdb import Environment, Table
from yester.store.parameters import SLOT_PREFIX
from yester.store.recovery import read_recovery_key
from yester.store.slots import KeySlots

NEW = "another passphrase"


@pytest.fixture
def locked(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encrypted store with a snapshot of `folder`, and no passphrase in the environment."""
    create_encrypted(tmp_path / "store").close()
    monkeypatch.setenv("YESTER_PASSPHRASE", PASSPHRASE)
    assert run("backup", folder).code == 0
    monkeypatch.delenv("YESTER_PASSPHRASE")
    monkeypatch.setitem(sys.modules, "keyring", None)  # as if it were not installed
    return tmp_path / "store"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(f"{PASSPHRASE}\nnot this\n")
    return path


def type_in(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have these typed, one after another; returns what is left of them."""
    left = list(answers)
    monkeypatch.setattr(passphrases, "_is_terminal", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _question: left.pop(0))
    return left


def test_a_plain_store_needs_no_ciphers(run: Run, folder: Path, tmp_path: Path) -> None:
    """They take 20 ms to import."""
    assert run("backup", folder).code == 0
    code = """
import sys
sys.argv = ["yester", "ls", "letters"]
from yester.cli.main import main
try:
    main()
except SystemExit:
    print(sorted(name for name in sys.modules if name in {"cryptography", "keyring"}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.split()[0], done.stderr.strip()) == ("ann.txt", "[]")


def test_init_asks_for_the_passphrase_twice(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = type_in(monkeypatch, NEW, NEW)
    done = run("init", "--encrypt")
    assert (done.code, left) == (0, [])
    assert "if the passphrase is lost, so is all that is stored" in done.err
    type_in(monkeypatch, NEW)
    assert run("backup", folder).code == 0
    assert b"dear Ann" not in (tmp_path / "store" / "data.mdb").read_bytes()


def test_init_makes_nothing_if_the_two_differ(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, NEW, NEW + "x")
    done = run("init", "--encrypt")
    assert done.code == 2
    assert "the two passphrases differ; nothing was changed" in done.err
    assert not (tmp_path / "store").exists()


def test_every_way_to_tell_the_passphrase_works(run: Run, locked: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("snapshots", "--passphrase-file", file).code == 0
    assert run("snapshots", "--passphrase-command", f"cat {file}").code == 0
    for variable, value in (
        ("YESTER_PASSPHRASE", PASSPHRASE), ("YESTER_PASSPHRASE_FILE", str(file)), ("YESTER_PASSPHRASE_COMMAND", f"cat '{file}'")
    ):  # fmt: skip
        with monkeypatch.context() as context:
            context.setenv(variable, value)
            assert "letters" in run("snapshots").out
    type_in(monkeypatch, "wrong", PASSPHRASE)
    done = run("snapshots")
    assert (done.code, "wrong passphrase" in done.err) == (0, True)


def test_a_wrong_or_missing_passphrase_is_told(run: Run, locked: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("snapshots", "--json")
    assert (done.code, done.json["error"]["kind"]) == (1, "LockedError")
    assert "nothing here tells its passphrase" in done.json["error"]["message"]
    file.write_text("wrong\n")
    done = run("restore", "letters", "--to", locked.parent / "out", "--passphrase-file", file)
    assert done.code == 1
    assert "wrong passphrase for the store" in done.err
    type_in(monkeypatch, "a", "b", "c", PASSPHRASE)
    assert run("snapshots").code == 1, "three tries"
    for options, said in (
        (("--passphrase-file", file.with_name("none")), "cannot read the passphrase from"),
        (("--passphrase-file", os.devnull), "gives no passphrase"),
        (("--passphrase-command", "false"), "ended with status 1"),
        (("--passphrase-command", "no-such-program"), "cannot run the passphrase command"),
    ):
        done = run("snapshots", *options)
        assert done.code == 2
        assert said in done.err


def test_all_commands_work_on_an_encrypted_store(run: Run, locked: Path, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YESTER_PASSPHRASE_FILE", str(file))
    assert run("ls", "letters").out.split() == ["ann.txt", "link", "old/"]
    assert run("cat", "letters:ann.txt").out == "dear Ann\n"
    assert "bob.txt" in run("find", "bob*").out
    assert run("log", folder / "ann.txt").code == 0
    assert run("diff", "letters", folder).code in (0, 1, 2)
    assert run("check", "--read-data").code == 0
    assert run("stats").code == 0
    assert run("status").code == 0
    assert run("restore", "letters", "--to", locked.parent / "out").code == 0
    assert (locked.parent / "out" / "old" / "bob.txt").read_text() == "dear Bob\n"
    assert run("prune", "--grace", "0").code == 0
    assert run("compact").code == 0
    assert run("check", "--read-data").code == 0
    assert "0 B new data" in run("backup", folder, "--dry-run").out


def test_keys_are_listed_without_one(run: Run, locked: Path, file: Path) -> None:
    assert run("key", "export", "--label", "in the safe", "--passphrase-file", file).code == 0
    done = run("key", "list")
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [["1", "passphrase"], ["2", "recovery"]]
    assert run("key", "list", "--json").json[1]["label"] == "in the safe"


def test_a_passphrase_is_changed(run: Run, locked: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = type_in(monkeypatch, PASSPHRASE, NEW, NEW)
    done = run("key", "change")
    assert (done.code, left) == (0, [])
    assert "older copies of the store still open with the old one" in done.out
    assert run("snapshots", "--passphrase-file", file).code == 1
    file.write_text(NEW)
    assert run("snapshots", "--passphrase-file", file).code == 0


def test_a_key_is_added_and_removed(run: Run, locked: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_text(NEW)
    assert run("key", "remove", "1", "--passphrase-file", file).code == 1, "the last one"
    assert run("key", "add", "--new-passphrase-file", tmp_path / "new", "--passphrase-file", file).code == 0
    assert "dry run" in run("key", "remove", "1", "--dry-run", "--passphrase-file", file).out
    assert run("key", "remove", "1", "--passphrase-file", file).code == 0
    assert run("snapshots", "--passphrase-file", file).code == 1
    assert run("snapshots", "--passphrase-file", tmp_path / "new").code == 0


def test_a_recovery_key_opens_the_store_and_gives_it_a_new_passphrase(
    run: Run, locked: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("key", "export", "--passphrase-file", file)
    assert len(read_recovery_key(done.out)) == 32
    paper = tmp_path / "paper"
    paper.write_text(done.out.lower().replace("-", " "))
    assert run("snapshots", "--passphrase-file", paper).code == 0, "it is taken wherever a passphrase is"
    type_in(monkeypatch, NEW, NEW)
    assert run("key", "import", "--recovery-key-file", paper).code == 0
    file.write_text(NEW)
    assert run("snapshots", "--passphrase-file", file).code == 0
    paper.write_text(done.out.replace(done.out[5], "A" if done.out[5] != "A" else "B", 1))
    done = run("key", "import", "--recovery-key-file", paper)
    assert (done.code, "typing error" in done.err) == (2, True)


def test_a_recovery_key_is_written_for_its_owner_and_never_over_a_file(run: Run, locked: Path, file: Path, tmp_path: Path) -> None:
    paper = tmp_path / "paper"
    assert run("key", "export", "--to", paper, "--passphrase-file", file).code == 0
    assert stat.S_IMODE(paper.stat().st_mode) == 0o600
    before = paper.read_bytes()
    done = run("key", "export", "--to", paper, "--passphrase-file", file)
    assert (done.code, paper.read_bytes()) == (1, before)
    assert len(run("key", "list", "--json").json) == 2, "no key that nobody has"


def test_a_recovery_key_with_a_label_that_will_not_do_is_written_nowhere(run: Run, locked: Path, file: Path, tmp_path: Path) -> None:
    done = run("key", "export", "--label", "two\nlines", "--to", tmp_path / "paper", "--passphrase-file", file)
    assert (done.code, "nothing was changed" in done.err) == (2, True)
    assert not (tmp_path / "paper").exists()


@pytest.mark.parametrize("name", ["fsync", "open"])
def test_a_recovery_key_that_cannot_be_written_leaves_nothing(
    run: Run, locked: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A full disk: the file can be made, and has no room for what is to be in it; or the folder cannot be synced."""
    real = getattr(os, name)

    def full(path: int | Path, *arguments: int, **options: int) -> int | None:
        if name == "fsync" or path == tmp_path / "out":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        found: int | None = real(path, *arguments, **options)
        return found

    (tmp_path / "out").mkdir()
    with monkeypatch.context() as disk:
        disk.setattr(os, name, full)
        done = run("key", "export", "--to", tmp_path / "out" / "paper", "--passphrase-file", file)
    assert (done.code, "No space left on device; no recovery key was made" in done.err) == (1, True)
    assert len(run("key", "list", "--json").json) == 1
    assert run("key", "export", "--to", tmp_path / "out" / "paper", "--passphrase-file", file).code == 0, "nothing is in the way"


def test_a_recovery_key_that_the_store_does_not_take_is_taken_back(
    run: Run, locked: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        message = "the disk is full; nothing was changed"
        raise StoreFullError(message)

    monkeypatch.setattr(KeySlots, "add", refuse)
    assert run("key", "export", "--to", tmp_path / "paper", "--passphrase-file", file).code == 1
    assert not (tmp_path / "paper").exists()
    done = run("key", "export", "--passphrase-file", file)
    assert (done.code, "the recovery key that was printed opens nothing" in done.err) == (1, True)
    assert len(read_recovery_key(done.out)) == 32, "somebody had it before the store would have"


def test_a_plain_store_has_no_keys(run: Run, folder: Path) -> None:
    assert run("init").code == 0
    for arguments in (("list",), ("add",), ("change",), ("remove", "1"), ("export",), ("accept",), ("remember",)):
        done = run("key", *arguments)
        assert (done.code, "is not encrypted" in done.err) == (1, True)


def test_a_store_that_was_put_back_is_noticed_and_can_be_accepted(
    run: Run, locked: Path, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YESTER_PASSPHRASE_FILE", str(file))
    shutil.copytree(locked, locked.with_name("older"))
    assert run("backup", folder).code == 0
    shutil.rmtree(locked)
    locked.with_name("older").rename(locked)
    done = run("ls", "letters")
    assert done.code == 0, "what is there can be read"
    assert "is older than it was when last seen here: 1 changes of its snapshots and keys are gone" in done.err
    done = run("backup", folder)
    assert (done.code, "nothing was changed" in done.err) == (1, True)
    assert run("key", "accept").code == 0
    done = run("backup", folder)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    "last_commands",
    [
        [["schedule", "run", "letters"]],
        [["forget", "letters@{name}", "--yes"]],
        [["forget", "letters@{name}", "--yes"], ["undelete", "letters@{name}"]],
        [["forget", "letters@{name}", "--yes"], ["prune", "--grace", "0"]],
        [["pin", "letters"]],
        [["pin", "letters"], ["unpin", "letters"]],
    ],
    ids=lambda commands: commands[-1][0],
)
def test_a_store_that_was_put_back_as_before_the_last_command_is_noticed(
    run: Run, locked: Path, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch, last_commands: list[list[str]]
) -> None:
    monkeypatch.setenv("YESTER_PASSPHRASE_FILE", str(file))
    assert run("schedule", "add", "letters", folder, "--every", "daily", "--timer", "none").code == 0
    name = run("snapshots", "--json").json[0]["name"]
    *earlier, last = [[word.format(name=name) for word in command] for command in last_commands]
    for command in earlier:
        assert run(*command).code == 0
    shutil.copytree(locked, locked.with_name("older"))
    assert run(*last).code == 0
    shutil.rmtree(locked)
    locked.with_name("older").rename(locked)
    assert "is older than it was when last seen here" in run("snapshots").err


def test_a_recovery_key_does_not_become_a_passphrase_unsaid(run: Run, locked: Path, file: Path, tmp_path: Path) -> None:
    assert run("key", "export", "--to", tmp_path / "paper", "--passphrase-file", file).code == 0
    (tmp_path / "new").write_text(NEW)
    for arguments in (["2", "--passphrase-file", file], ["--passphrase-file", tmp_path / "paper"]):
        done = run("key", "change", *arguments, "--new-passphrase-file", tmp_path / "new")
        assert (done.code, "key 2 is a recovery key" in done.err, "nothing was changed" in done.err) == (2, True, True)
    assert [key["kind"] for key in run("key", "list", "--json").json] == ["passphrase", "recovery key"]


def test_adding_a_schedule_warns_where_runs_will_not_know_the_passphrase(
    run: Run, locked: Path, folder: Path, file: Path, tmp_path: Path
) -> None:
    options = ["--every", "daily", "--timer", "none", "--passphrase-file", file]
    done = run("schedule", "add", "letters", folder, *options)
    assert (done.code, "they will fail" in done.err, "passphrase_file = " in done.err) == (0, True, True)
    config = tmp_path / "home" / ".config" / "yester" / "config.toml"
    config.write_text(f'passphrase_file = "{file}"\n')
    done = run("schedule", "add", "letters", folder, *options)
    assert (done.code, "they will fail" in done.err) == (0, False)


def put_back(store: Path) -> None:
    """Have the copy beside it take the store's place."""
    shutil.rmtree(store)
    shutil.copytree(store.with_name("older"), store)


WRITING = [
    ["backup", "{folder}"],
    ["pin", "letters"],
    ["unpin", "letters"],
    ["forget", "letters", "--keep-last", "1"],
    ["undelete", "letters"],
    ["prune"],
    ["compact"],
    ["key", "add", "--new-passphrase-file", "{file}"],
    ["key", "export"],
    ["key", "remove", "1"],
    ["schedule", "add", "letters", "{folder}", "--every", "daily", "--timer", "none"],
]


def test_nothing_changes_a_store_that_was_put_back_until_it_is_accepted(
    run: Run, locked: Path, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YESTER_PASSPHRASE_FILE", str(file))
    shutil.copytree(locked, locked.with_name("older"))
    for _ in range(2):
        assert run("backup", folder).code == 0
    put_back(locked)
    for command in WRITING:
        done = run(*(word.format(folder=folder, file=file) for word in command))
        assert (done.code, "is older than it was when last seen here" in done.err) == (1, True), command
        assert "nothing was changed" in done.err, command
    for command in (["prune", "--dry-run"], ["forget", "letters", "--keep-last", "1", "--dry-run"], ["snapshots"]):
        assert run(*command).code == 0, "what only looks is warned"
    done = run("check")
    assert (done.code, "history: the store" in done.out, "yester key accept" in done.err) == (1, True, True)
    assert run("key", "accept").code == 0
    assert run("check").code == 0
    for command in WRITING[:2]:
        done = run(*(word.format(folder=folder, file=file) for word in command))
        assert (done.code, done.err) == (0, ""), command


def test_a_store_that_was_put_back_and_has_as_many_changes_again_is_not_taken_for_the_old_one(
    run: Run, locked: Path, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others, or another computer, may have gone on with it."""
    monkeypatch.setenv("YESTER_PASSPHRASE_FILE", str(file))
    shutil.copytree(locked, locked.with_name("older"))
    assert run("backup", folder).code == 0
    put_back(locked)
    with open_encrypted(locked) as store:
        [only] = store.snapshots()
        store.pin(only.id, now_ns=1)
    done = run("backup", folder)
    assert (done.code, "has as many changes as when last seen here, but others" in done.err) == (1, True)
    with open_encrypted(locked) as store:
        store.unpin(only.id)
    done = run("backup", folder)
    assert (done.code, "was put back as it was earlier, and has been changed since" in done.err) == (1, True)
    assert run("key", "accept").code == 0
    assert run("backup", folder).code == 0


@pytest.mark.expect_log("the keys of .* are not those that were recorded")
def test_a_key_slot_that_was_put_back_is_told(run: Run, locked: Path, file: Path, tmp_path: Path) -> None:
    def slots() -> dict[bytes, bytes]:
        with Environment(locked) as environment, environment.read() as view:
            return {key: bytes(value) for key, value in view.iterate(Table.META, SLOT_PREFIX)}

    (tmp_path / "new").write_text(NEW)
    before = slots()
    assert run("key", "change", "--passphrase-file", file, "--new-passphrase-file", tmp_path / "new").code == 0
    assert run("check", "--passphrase-file", tmp_path / "new").code == 0
    with Environment(locked) as environment:  # as somebody can who only has the file
        [(key, value)] = before.items()
        environment.write(lambda transaction: transaction.put(Table.META, key, value))
    assert run("snapshots", "--passphrase-file", file).code == 0
    done = run("check", "--passphrase-file", file)
    assert (done.code, "key: the keys are not those that were recorded" in done.out) == (1, True)
    assert run("key", "change", "--passphrase-file", file, "--new-passphrase-file", tmp_path / "new").code == 0
    assert run("key", "accept", "--passphrase-file", tmp_path / "new").code == 0
    assert run("check", "--passphrase-file", tmp_path / "new").code == 0


@pytest.mark.expect_log("not those that were recorded")
def test_a_snapshot_that_somebody_took_away_is_told(run: Run, locked: Path, file: Path) -> None:
    with open_encrypted(locked) as store:
        store.environment.row_forms, forms = {}, store.environment.row_forms
        with store.environment.read() as view:
            [(key, _)] = view.iterate_stored(Table.SNAPSHOTS)
        store.environment.write(lambda transaction: transaction.delete(Table.SNAPSHOTS, key))
        store.environment.row_forms = forms
    assert run("snapshots", "--passphrase-file", file).code == 0
    done = run("check", "--passphrase-file", file)
    assert (done.code, "the snapshots are not those that were recorded" in done.out) == (1, True)
    done = run("prune", "--passphrase-file", file)
    assert (done.code, "nothing was freed" in done.err) == (1, True)
    assert run("key", "accept", "--passphrase-file", file).code == 0
    assert run("prune", "--passphrase-file", file).code == 0
    assert "not those that were recorded" not in run("check", "--passphrase-file", file).out


def test_a_passphrase_that_is_given_for_a_plain_store_is_told(run: Run, folder: Path, file: Path) -> None:
    """Who gives one believes that what he stores is encrypted."""
    done = run("backup", folder, "--passphrase-file", file)
    assert (done.code, "yester init --encrypt" in done.err) == (1, True)
    assert run("init").code == 0
    done = run("backup", folder, "--passphrase-file", file)
    assert (done.code, "is not encrypted, but a passphrase was given" in done.err) == (1, True)
    assert run("snapshots", "--passphrase-file", file).code == 0


def test_a_keyring_is_asked_before_a_person(run: Run, locked: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[tuple[str, str], str] = {}
    fake, errors = ModuleType("keyring"), ModuleType("keyring.errors")
    errors.PasswordDeleteError = KeyError  # type: ignore[attr-defined]  # a module of ours
    fake.errors = errors  # type: ignore[attr-defined]  # as above
    fake.get_password = lambda service, name: kept.get((service, name))  # type: ignore[attr-defined]  # as above
    fake.set_password = lambda service, name, password: kept.update({(service, name): password})  # type: ignore[attr-defined]  # as above
    fake.delete_password = lambda service, name: kept.pop((service, name))  # type: ignore[attr-defined]  # as above
    monkeypatch.setitem(sys.modules, "keyring", fake)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    assert run("snapshots").code == 1
    assert run("key", "remember", "--passphrase-file", file).code == 0
    assert list(kept.values()) == [PASSPHRASE]
    assert run("snapshots").code == 0
    assert run("key", "remember", "--forget").code == 0
    assert kept == {}

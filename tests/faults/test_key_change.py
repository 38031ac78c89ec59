# SPDX-License-Identifier: MIT
"""Changing what opens a store, killed or failing at any moment: the old keys open it or the new ones do, and never none."""

import errno
import shutil
import signal
from itertools import count
from pathlib import Path

import pytest

from tests.encrypted import CHEAP, PASSPHRASE, create_encrypted
from tests.faults.sabotage import Call, Fault, Saboteur
from tests.store.test_store import add
from yester.engine.check import check
from yester.errors import LockedError
from yester.store.slots import KeySlots, passphrase_secret
from yester.store.store import Store

NEW, SECOND = "another passphrase", "a second one"
COMMANDS = {
    "change": ["key", "change", "--new-passphrase-file", "NEW"],
    "add": ["key", "add", "--new-passphrase-file", "NEW"],
    "remove": ["key", "remove", "1"],
}
STEPS_MIN = 4
"""System calls of one commit: some pages, a sync, the page that says that they count."""


class Keys:
    """A store with a snapshot and two passphrases, and files that tell them and a third."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.files: dict[str, Path] = {}
        for passphrase in (PASSPHRASE, SECOND, NEW):
            self.files[passphrase] = folder / f"passphrase {len(self.files)}"
            self.files[passphrase].write_text(passphrase)
        with create_encrypted(self.store) as store:
            add(store)
            KeySlots(store.environment).add(passphrase_secret(SECOND, CHEAP))

    def arguments(self, command: str, store: Path) -> list[str]:
        words = [str(self.files[NEW]) if word == "NEW" else word for word in COMMANDS[command]]
        return [*words, "--store", str(store), "--passphrase-file", str(self.files[PASSPHRASE])]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


def opening(path: Path) -> set[str]:
    """Which passphrases open a store; with each all of it is whole."""
    found = set()
    for passphrase in (PASSPHRASE, SECOND, NEW):
        try:
            store = Store.open(path, unlock=lambda locked, passphrase=passphrase: locked.open(passphrase_secret(passphrase, CHEAP)))  # type: ignore[misc]  # a default keeps the loop's value
        except LockedError:
            continue
        with store:
            assert len(store.snapshots()) == 1
            assert check(store, read_data=True).is_whole
        found.add(passphrase)
    return found


AFTER = {"change": {SECOND, NEW}, "add": {PASSPHRASE, SECOND, NEW}, "remove": {SECOND}}


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("action", [Call.KILL_BEFORE, Call.KILL_HALF, Call.KILL_AFTER, Call.FAIL], ids=lambda action: action.name.lower())
def test_keys_are_those_of_before_or_those_of_after(keys: Keys, saboteur: Saboteur, tmp_path: Path, command: str, action: Call) -> None:
    before, after = {PASSPHRASE, SECOND}, AFTER[command]
    seen = []
    for number in count(1):
        path = tmp_path / str(number)
        shutil.copytree(keys.store, path)
        ending = saboteur.run(*keys.arguments(command, path), fault=Fault(call=number, action=action, error=errno.ENOSPC))
        found = opening(path)
        if ending.status == 0:
            assert found == after
            break  # it has fewer system calls than that
        assert ending.status == (1 if action is Call.FAIL else -signal.SIGKILL), ending
        assert found in (before, after)
        seen.append(found)
        assert saboteur.run("snapshots", "--store", path, "--passphrase-file", keys.files[SECOND]).status == 0
        shutil.rmtree(path)
    assert len(seen) >= STEPS_MIN
    assert seen[0] == before
    assert seen == sorted(seen, key=lambda found: found == after), "it never goes back"

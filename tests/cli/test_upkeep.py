# SPDX-License-Identifier: MIT
"""Runs by schedule look after their store: damage is found by themselves, told, and warned of until it is gone."""

import random
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from yester.cli.config import read_config
from yester.cli.scheduled_run import exit_code, run_source
from yester.core.records import decode_forgotten, encode_forgotten
from yester.engine.runs import Outcome, RunBook
from yester.engine.upkeep import store_key
from yester.store.lmdb import Table, WriteTransaction
from yester.store.store import Store

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def book(tmp_path: Path) -> RunBook:
    return RunBook(tmp_path / "state" / "yester" / "runs")


@pytest.fixture
def config(run: Run, cron: Path, folder: Path, tmp_path: Path) -> Path:
    """A configuration by which the whole store is read at each run, and `letters` is backed up."""
    (folder / "noise").write_bytes(random.Random(1).randbytes(200_000))
    path = tmp_path / "home" / ".config" / "yester" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[upkeep]\nevery = '0s'\nsample = '100 %'\n")
    run("schedule", "add", "letters", folder, "--every", "daily")
    return path


def test_a_run_checks_the_store_and_says_so(run: Run, config: Path, book: RunBook) -> None:
    done = run("schedule", "run", "letters")
    assert done.code == 0
    assert "letters: checked the store: 1 snapshots, " in done.out
    assert "nothing new is wrong" in book.log_path("letters").read_text()


def test_a_store_is_not_checked_when_it_was_lately(run: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("0s", "7d"))
    assert "checked the store" in run("schedule", "run", "letters").out
    assert "checked the store" not in run("schedule", "run", "letters").out
    config.write_text(config.read_text().replace("7d", "never"))
    assert "checked the store" not in run("schedule", "run", "letters").out


def test_damage_is_told_though_the_backup_is_good_and_status_warns_until_it_is_gone(
    run: Run, config: Path, book: RunBook, tmp_path: Path
) -> None:
    run("schedule", "run", "letters")
    whole = (tmp_path / "store" / "data.mdb").read_bytes()
    damage_segments(tmp_path / "store")
    done = run("schedule", "run", "letters")
    assert done.code == 1
    assert f"yester: letters: damage in the store {tmp_path}/store: " in done.err
    assert "`yester check` names" in done.err
    assert "segment: " in book.log_path("letters").read_text()
    record = book.read("letters")
    assert record is not None
    assert record.outcome is Outcome.DONE, "the snapshot was made"
    status = run("status")
    assert status.code == 0
    assert f"warning: damage in the store {tmp_path}/store: " in status.err
    assert len(run("status", "--json").json["damage"]) == 1
    (tmp_path / "store" / "data.mdb").write_bytes(whole)
    done = run("schedule", "run", "letters")
    assert done.code == 0
    assert "is well again, after 1 failure" in done.out
    assert "damage" not in run("status").err


def test_a_run_is_kept_as_what_it_is_told_as(run: Run, config: Path, book: RunBook, tmp_path: Path) -> None:
    run("schedule", "run", "letters")
    damage_segments(tmp_path / "store")
    read = read_config(config)
    ending = run_source(read.source("letters"), tmp_path / "store", read.upkeep, book, is_wanted=lambda _: True)
    record, of_store = book.read("letters"), book.read(store_key(tmp_path / "store"))
    assert ending is not None
    assert record is not None
    assert of_store is not None
    assert (ending.outcome, record.failures, of_store.outcome) == (record.outcome, 0, Outcome.FAILED)
    assert (ending.is_store_well, exit_code(ending)) == (False, 1)


def test_while_another_run_looks_after_the_store_this_one_does_not(run: Run, config: Path, book: RunBook, tmp_path: Path) -> None:
    with book.holding(store_key(tmp_path / "store")):
        done = run("schedule", "run", "letters")
    assert done.code == 0
    assert "checked the store" not in done.out


def damage_segments(path: Path) -> None:
    """Change the last byte of every segment, which belongs to its data."""
    data = bytearray((path / "data.mdb").read_bytes())
    with Store.open(path) as store, store.environment.read() as view:
        segments = [bytes(value) for _, value in view.iterate(Table.SEGMENTS) if len(value) > 100_000]
    assert segments
    for segment in segments:
        data[data.find(segment) + len(segment) - 1] ^= 1
    (path / "data.mdb").write_bytes(data)


def test_a_run_gives_the_space_of_what_was_forgotten_long_ago_back(run: Run, config: Path, tmp_path: Path) -> None:
    run("schedule", "run", "letters")
    with Store.open(tmp_path / "store") as store:
        store.forget([store.snapshots()[0].id], now_ns=1)  # keeps it until a week after it was made
        forgotten = store.forgotten_snapshots()[0]
    assert "pruned the store: 0 forgotten snapshots are gone" in run("schedule", "run", "letters").out

    def age(transaction: WriteTransaction) -> None:
        [(key, value)] = transaction.iterate(Table.FORGOTTEN)
        aged = msgspec.structs.replace(decode_forgotten(value), forgotten_ns=forgotten.forgotten_ns - 8 * DAY_NS)
        transaction.put(Table.FORGOTTEN, key, encode_forgotten(aged))

    with Store.open(tmp_path / "store") as store:
        store.environment.write(age)
    assert "pruned the store: 1 forgotten snapshots are gone" in run("schedule", "run", "letters").out

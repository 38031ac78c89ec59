# SPDX-License-Identifier: MIT
"""Judge `sqlite`: databases whose writer is killed, and SQLite's own tests of locks, journals, WAL and mapping.

Killing the writer says nothing of the daemon being killed, which is for the tests of crashes.
"""

import contextlib
import os
import random
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commands import run
from folders import remove
from judging import Bench, Finding, Verdict
from sqlite_source import build_tests

_PATTERNS = (
    *("lock*", "wal*", "mmap*", "pager1", "pager2", "shmlock", "superlock", "exclusive*", "io", "journal*", "sync*", "savepoint*"),
    *(
        "tempdb*",
        "crash*",
        "backup",
        "backup2",
        "symlink*",
        "oserror",
        "multiplex*",
        "bigfile*",
        "filectrl",
        "atomic*",
        "delete_db",
        "fallocate",
    ),
)
_QUICK = ("lock5", "walmode", "mmap1", "symlink")
_LEFT_OUT = frozenset(
    (
        # They count system calls or memory, or time the processor, and take minutes without asking anything new of a file system.
        *(
            "walfault",
            "walfault2",
            "walrofault",
            "mmapfault",
            "savepointfault",
            "walslow",
            "walthread",
            "savepoint4",
            "savepoint6",
            "walcrash3",
        ),
        "oserror",  # opens files until there are no more descriptors: of the daemon, too
    )
)
_TEST_LIMIT_S = 600
_ACCOUNTS = 50
_TOTAL = 5000


@dataclass(frozen=True, slots=True)
class _Mode:
    """How a database keeps its promises."""

    journal: str
    mapped_bytes: int

    def connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        for setting in (f"journal_mode={self.journal}", f"mmap_size={self.mapped_bytes}", "synchronous=FULL", "wal_autocheckpoint=20"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        return connection

    def __str__(self) -> str:
        return f"{self.journal}{', mapped' if self.mapped_bytes else ''}"


class Sqlite:
    """Databases."""

    name = "sqlite"
    title = "integrity after kill -9 of the writer; SQLite's own tests of locks, WAL, mmap"
    packages: dict[str, str] = {}  # noqa: RUF012 # what it builds with is installed when it builds
    limit_s = 5400.0

    def judge(self, bench: Bench) -> Verdict:
        """Kill writers first, then run SQLite's tests; those that fail on the host as well are no findings."""
        rounds = bench.pick(quick=3, full=25)
        modes = [_Mode(journal, size) for journal in ("DELETE", "TRUNCATE", "PERSIST", "WAL") for size in (0, 1 << 26)]
        findings = [finding for mode in modes for finding in _kill_writers(bench, mode, rounds)]
        program, folder = build_tests(bench.scratch)
        names = sorted({path.stem for pattern in _PATTERNS for path in folder.glob(f"{pattern}.test")} - _LEFT_OUT)
        names = list(_QUICK) if bench.is_quick else names
        tests = 0
        for name in names:
            count, finding = _compare_test(bench, program, folder / f"{name}.test")
            tests += count
            findings += [] if finding is None else [finding]
        version = folder.parent.name.replace("-", " ")
        ran = f"{len(modes) * rounds} killed writers; {len(names)} of its own test files of {version}"
        return Verdict(ran, len(modes) * rounds + tests, findings)


def _kill_writers(bench: Bench, mode: _Mode, rounds: int) -> Iterator[Finding]:
    """Kill a writer at a random moment, again and again, on one database, while another process reads."""
    numbers = bench.random(f"sqlite {mode}")
    path = bench.judged / f"database-{mode.journal}-{mode.mapped_bytes}"
    with contextlib.closing(mode.connect(path)) as connection:
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, note TEXT)")
        connection.execute("CREATE TABLE done (number INTEGER)")
        connection.execute("INSERT INTO done VALUES (0)")
        for number in range(_ACCOUNTS):
            connection.execute("INSERT INTO account VALUES (?, ?, '')", (number, _TOTAL // _ACCOUNTS))
    for number in range(rounds):
        try:
            reported = _one_killing(path, mode, numbers)
            problem = _examine(path, mode, reported)
        except sqlite3.Error as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            yield Finding(f"writer killed, {mode}", f"seed {bench.seed}, round {number}: {problem}")
            return


def _one_killing(path: Path, mode: _Mode, numbers: random.Random) -> int:
    """Let a writer commit some transactions and kill it in the middle of one; the last that it said was committed."""
    reader, writer = os.pipe()
    seed, commits, delay_s = numbers.randrange(1 << 30), numbers.randrange(1, 30), numbers.random() * 0.01
    pid = os.fork()
    if pid == 0:
        try:
            _write_for_ever(path, mode, random.Random(seed), writer)  # noqa: S311 # nothing secret
        finally:
            os._exit(1)
    os.close(writer)
    try:
        said = b""
        while said.count(b"\n") < commits and (more := os.read(reader, 4096)):
            said += more
        time.sleep(delay_s)  # to be somewhere within a transaction
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    while more := os.read(reader, 4096):
        said += more
    os.close(reader)
    return int(said.rpartition(b"\n")[0].rpartition(b"\n")[2] or 0)


def _write_for_ever(path: Path, mode: _Mode, numbers: random.Random, report: int) -> None:
    """Move amounts between accounts; the sum of all never changes, and each transaction has a number."""
    connection = mode.connect(path)
    while True:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(numbers.randrange(1, 20)):
            amount = numbers.randrange(50)
            for sign in (-1, 1):
                change = (sign * amount, "n" * numbers.randrange(2000), numbers.randrange(_ACCOUNTS))
                connection.execute("UPDATE account SET amount = amount + ?, note = ? WHERE id = ?", change)
        connection.execute("UPDATE done SET number = number + 1")
        [(number,)] = connection.execute("SELECT number FROM done")
        connection.execute("COMMIT")
        os.write(report, b"%d\n" % number)


def _examine(path: Path, mode: _Mode, reported: int) -> str | None:
    """What is wrong with a database, None if nothing is."""
    with contextlib.closing(mode.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        [(total,)] = connection.execute("SELECT sum(amount) FROM account")
        [(number,)] = connection.execute("SELECT number FROM done")
    if found != [("ok",)]:
        return f"integrity_check: {found[:5]}"
    if total != _TOTAL:
        return f"half a transaction: the sum is {total}, should be {_TOTAL}"
    if number < reported:
        return f"transaction {reported} was committed, the database has {number}"
    return None


def _compare_test(bench: Bench, program: Path, test: Path) -> tuple[int, Finding | None]:
    """Run one of SQLite's test files; the host is asked only where it fails."""
    judged, count = _run_test(bench.judged, program, test)
    if not judged:
        return count, None
    host, _ = _run_test(bench.host, program, test)
    if set(judged) <= set(host):
        return count, None
    lines = [*(f"judged: {line}" for line in judged if line not in host), *(f"host:   {line}" for line in host if line not in judged)]
    return count, Finding(f"{test.stem}.test", "\n".join(["testfixture test/" + test.name, *lines[:25]]))


def _run_test(parent: Path, program: Path, test: Path) -> tuple[list[str], int]:
    """The complaints of a test file, and how many tests it has."""
    folder = parent / "tests"
    folder.mkdir()
    outcome = run([program, test], folder=folder, limit_s=_TEST_LIMIT_S)
    remove(folder)
    summary = re.search(r"(\d+) errors out of (\d+) tests", outcome.output)
    if outcome.status == 0 and summary and summary[1] == "0":
        return [], int(summary[2])
    complaints = [line.strip() for line in outcome.output.splitlines() if line.startswith("!")]
    if outcome.status is None or not complaints:
        complaints += [outcome.tail()]
    return complaints, int(summary[2]) if summary else 1

# SPDX-License-Identifier: MIT
"""Committing a live folder: what was synced is there, in order, and a full disk is told and outlived."""

import errno
import stat
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.fs.live_folder import NAME, LiveSandbox, new_file
from yester.errors import StoreAccessError, StoreFullError, YesterError
from yester.fs import journal as journal_module
from yester.fs.journal import Journal
from yester.fs.live_nodes import ROOT, NewNode
from yester.store.live import LiveChange
from yester.store.snapshots import StoredSnapshot

FOR_EVER_S = 1000.0
WAIT_S = 60


class Applier:
    """Applies changes to the store; fails, or waits, on demand."""

    def __init__(self, folder: LiveSandbox) -> None:
        self._folder = folder
        self.changes: list[LiveChange] = []
        self.failure: YesterError | None = None
        self.began = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, change: LiveChange) -> StoredSnapshot | None:
        self.began.set()
        assert self.may_go_on.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure
        self.changes.append(change)
        return self._folder.folders.apply(NAME, change)


def run(
    mine: LiveSandbox, work: Callable[[Journal, Applier], Awaitable[None]], *, interval_s: float = FOR_EVER_S, free_bytes: int = 1 << 40
) -> Applier:
    """Let a journal run while `work` is done."""
    applier = Applier(mine)

    async def main() -> None:
        journal = Journal(mine.tree, applier, lambda: free_bytes, interval_s=interval_s)
        with trio.fail_after(WAIT_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)
                await work(journal, applier)
                nursery.cancel_scope.cancel()

    trio.run(main)
    return applier


def stored_names(mine: LiveSandbox) -> set[bytes]:
    """What is in the store now."""
    return {name for _, name in mine.folders.load(NAME).names}


async def error_of(waiting: Awaitable[None]) -> int:
    try:
        await waiting
    except OSError as error:
        return error.errno or -1
    return 0


def test_what_was_synced_is_in_the_store(mine: LiveSandbox) -> None:
    async def work(journal: Journal, applier: Applier) -> None:
        for number in range(5):
            new_file(mine, b"%d" % number)
            await journal.sync()
            assert stored_names(mine) == {b"%d" % done for done in range(number + 1)}
        await journal.sync()
        assert len(applier.changes) == 5

    run(mine, work)


def test_what_nobody_syncs_is_committed_soon(mine: LiveSandbox) -> None:
    async def work(_journal: Journal, applier: Applier) -> None:
        new_file(mine, b"a")
        await trio.to_thread.run_sync(applier.began.wait, WAIT_S)

    run(mine, work, interval_s=0.01)
    assert stored_names(mine) == {b"a"}


def test_one_commit_serves_all_that_wait(mine: LiveSandbox) -> None:
    async def work(journal: Journal, applier: Applier) -> None:
        applier.may_go_on.clear()
        async with trio.open_nursery() as nursery:
            new_file(mine, b"first")
            nursery.start_soon(journal.sync)
            await trio.to_thread.run_sync(applier.began.wait, WAIT_S)
            for number in range(20):
                new_file(mine, b"%d" % number)
                nursery.start_soon(journal.sync)
            await trio.testing.wait_all_tasks_blocked()
            applier.may_go_on.set()

    applier = run(mine, work)
    assert len(applier.changes) == 2
    assert len(stored_names(mine)) == 21


def test_work_goes_on_while_a_commit_is_made_and_is_not_in_it(mine: LiveSandbox) -> None:
    async def work(journal: Journal, applier: Applier) -> None:
        applier.may_go_on.clear()
        file = new_file(mine, b"a", b"old")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.sync)
            await trio.to_thread.run_sync(applier.began.wait, WAIT_S)
            mine.tree.write(file.number, 0, b"new")
            mine.tree.unlink(ROOT, b"a")
            mine.tree.create(ROOT, b"d", NewNode(stat.S_IFDIR | 0o755, 0, 0))
            applier.may_go_on.set()
        assert stored_names(mine) == {b"a"}
        await journal.sync()
        assert stored_names(mine) == {b"d"}

    run(mine, work)


@pytest.mark.expect_log("live folder")
@pytest.mark.parametrize(("failure", "number"), [(StoreFullError("full"), errno.ENOSPC), (StoreAccessError("broken"), errno.EIO)])
def test_a_commit_that_fails_is_told_and_made_up_for_in_order(mine: LiveSandbox, failure: YesterError, number: int) -> None:
    async def work(journal: Journal, applier: Applier) -> None:
        applier.failure = failure
        file = new_file(mine, b"a", b"1")
        assert await error_of(journal.sync()) == number
        new_file(mine, b"b", b"2")
        assert await error_of(journal.sync()) == number
        assert mine.tree.read(file.number, 0, 9) == b"1"
        assert stored_names(mine) == set()
        applier.failure = None
        await journal.sync()
        assert stored_names(mine) == {b"a", b"b"}
        assert [sorted(name for _, name in change.names) for change in applier.changes] == [[b"a"], [b"b"]]

    run(mine, work)
    before = mine.describe()
    mine.load()
    assert mine.describe() == before


def test_whoever_writes_faster_than_the_disk_waits(mine: LiveSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "PENDING_BYTES_MAX", 1000)

    async def work(journal: Journal, _applier: Applier) -> None:
        file = new_file(mine, b"a")
        for number in range(50):
            await journal.make_room(300)
            assert mine.tree.pending_bytes + 300 <= 1000
            mine.tree.write(file.number, number * 300, bytes(300))
        await journal.make_room(5000)  # more than the limit, when there is nothing else
        assert mine.tree.pending_bytes == 0

    applier = run(mine, work)
    assert 10 <= len(applier.changes) <= 30


def test_what_the_disk_has_no_room_for_is_refused_before_it_is_accepted(mine: LiveSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RESERVED_BYTES", 1000)

    async def work(journal: Journal, _applier: Applier) -> None:
        await journal.make_room(500)
        new_file(mine, b"a", bytes(400))
        assert await error_of(journal.make_room(200)) == errno.ENOSPC
        await journal.make_room(100)
        await journal.sync()
        await journal.make_room(500)

    run(mine, work, free_bytes=1500)

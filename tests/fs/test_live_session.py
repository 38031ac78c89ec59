# SPDX-License-Identifier: MIT
"""A live folder in use: when versions are made, and what happens to one that cannot be."""

import stat
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import trio

from tests.fs.live_folder import SMALL_CHUNKS
from yester.core.records import check_text
from yester.core.retention import LIVE_POLICY, Policy
from yester.engine.check import check
from yester.errors import BusyError, ConflictError, NotFoundError, StoreFullError, UsageError
from yester.fs import live_session, mounting
from yester.fs.live_control import carry_out, find_live_folders
from yester.fs.live_nodes import ROOT, NewNode
from yester.fs.live_orders import Order
from yester.fs.live_session import LiveSession, Pace, open_folder
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

NAME = "mine"
FOR_EVER = Pace(1000, 1000)
WAIT_S = 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store", chunking=SMALL_CHUNKS) as store:
        yield store


def use(store: Store, work: Callable[[LiveSession], Awaitable[None]], pace: Pace = FOR_EVER, policy: Policy = LIVE_POLICY) -> None:
    """Let `work` use the folder while it runs."""

    async def main() -> None:
        with open_folder(store, NAME, make=True) as rows:
            session = LiveSession(store, NAME, rows, pace, policy)
            with trio.fail_after(WAIT_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(session.run)
                    await work(session)
                    nursery.cancel_scope.cancel()

    trio.run(main)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells."""
    with trio.fail_after(WAIT_S):
        while True:
            if condition():
                return
            await trio.sleep(0.01)


def make(session: LiveSession, name: bytes) -> None:
    session.tree.create(ROOT, name, NewNode(stat.S_IFREG | 0o600, 0, 0))


def test_versions_have_seconds_of_their_own(store: Store) -> None:
    async def work(session: LiveSession) -> None:
        for name in (b"a", b"b"):
            make(session, name)
            assert await session.publish() is not None

    use(store, work)
    first, second = store.snapshots()
    assert first.snapshot.time_ns // 10**9 < second.snapshot.time_ns // 10**9
    assert "-2" not in second.snapshot.name[19:]


def test_a_remark_makes_a_version_also_where_nothing_has_changed(store: Store) -> None:
    async def work(session: LiveSession) -> None:
        make(session, b"a")
        assert await session.publish() is not None
        assert (await session.carry_out(Order())).published == ""
        first = (await session.carry_out(Order("before the move", even_if_same=True))).published
        assert first
        assert (await session.carry_out(Order("again", even_if_same=True))).published > first
        make(session, b"c")
        assert await session.publish() is not None

    use(store, work)
    versions = [stored.snapshot for stored in store.snapshots()]
    assert [version.message for version in versions] == ["", "before the move", "again", ""]
    assert versions[0].root == versions[1].root == versions[2].root != versions[3].root
    assert len({version.time_ns // 10**9 for version in versions}) == 4
    assert check(store, read_data=True).is_whole
    use(store, work_nothing)  # the folder goes on from the last


async def work_nothing(session: LiveSession) -> None:
    assert await session.publish() is None


def test_a_version_is_made_when_it_is_quiet_and_not_again(store: Store) -> None:
    async def work(session: LiveSession) -> None:
        make(session, b"a")
        await until(lambda: bool(store.snapshots()))
        make(session, b"b")
        session.tree.unlink(ROOT, b"b")
        await until(lambda: len(store.snapshots()) == 2)
        assert session.tree.waiting() == (0, 0)

    use(store, work, Pace(0.05, 1000, is_a_second_apart=False))
    assert len(store.snapshots()) == 2, "the second since the folder's own times moved"


QUICK = Pace(0.05, 1000, is_a_second_apart=False)
SOURCE = f"live/{NAME}"


async def make_versions(session: LiveSession, *names: bytes) -> list[StoredSnapshot]:
    """Have a version made after each of these files, by itself; returns them."""
    made: list[StoredSnapshot] = []
    for name in names:
        before = session.store.latest_snapshot(SOURCE)
        make(session, name)
        await until(partial(_is_another, session.store, before))
        latest = session.store.latest_snapshot(SOURCE)
        assert latest is not None
        made.append(latest)
    return made


def _is_another(store: Store, before: StoredSnapshot | None) -> bool:
    return store.latest_snapshot(SOURCE) != before


def test_versions_are_thinned_after_one_was_made_and_the_newest_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_session, "_THIN_EVERY_S", 0)

    async def work(session: LiveSession) -> None:
        made = await make_versions(session, b"a", b"b", b"c", b"d")
        await until(lambda: store.snapshots() == made[2:])
        assert [found.stored for found in store.forgotten_snapshots()] == made[:2]
        made += await make_versions(session, b"e")
        await until(lambda: store.snapshots() == made[3:])

    use(store, work, QUICK, Policy(last=2))
    with open_folder(store, NAME) as rows:
        session = LiveSession(store, NAME, rows, FOR_EVER)
        assert [name for name, _ in session.tree.list(ROOT)] == [b"a", b"b", b"c", b"d", b"e"]
        assert session.tree.waiting() == (0, 0)


def test_versions_are_not_looked_at_each_time_one_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    thinned: list[int] = []
    monkeypatch.setattr(live_session, "thin", lambda *_, **__: thinned.append(len(store.snapshots())))

    async def work(session: LiveSession) -> None:
        await make_versions(session, b"a", b"b", b"c")
        await until(lambda: len(store.snapshots()) == 3)

    use(store, work, QUICK)
    assert thinned == [1]


def test_of_the_last_hour_every_version_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_session, "_THIN_EVERY_S", 0)

    async def work(session: LiveSession) -> None:
        assert len(set(await make_versions(session, b"a", b"b", b"c", b"d"))) == 4

    use(store, work, QUICK)
    assert len(store.snapshots()) == 4
    assert store.forgotten_snapshots() == []


@pytest.mark.expect_log("could not be thinned out")
@pytest.mark.parametrize("error", [StoreFullError("no room"), RuntimeError("x")])
def test_a_folder_goes_on_where_its_versions_cannot_be_thinned(store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tried: list[bool] = []

    def fail(*_: object, **__: object) -> None:
        tried.append(True)
        raise error

    monkeypatch.setattr(live_session, "_THIN_EVERY_S", 0)
    monkeypatch.setattr(live_session, "thin", fail)

    async def work(session: LiveSession) -> None:
        await make_versions(session, b"a", b"b")
        await until(lambda: len(tried) == 2)
        assert session.status().problem == ""

    use(store, work, QUICK)
    assert len(store.snapshots()) == 2


@pytest.mark.expect_log("could be made")
def test_a_version_that_cannot_be_made_is_told_and_made_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        message = "no room"
        raise StoreFullError(message)

    async def work(session: LiveSession) -> None:
        make(session, b"a")
        with monkeypatch.context() as patched:
            patched.setattr(live_session, "store_version", fail)
            await until(lambda: bool(session.status().problem))
        assert session.status().problem == "no room"
        assert session.status().changed_nodes > 0
        assert await session.publish() is not None
        assert session.status().problem == ""
        assert session.status().changed_nodes == 0

    use(store, work, Pace(0.05, 1000))


@pytest.mark.parametrize("error", [OSError(5, "x"), RuntimeError("x")])
def test_after_any_error_all_is_still_to_be_published(store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    async def work(session: LiveSession) -> None:
        make(session, b"a")
        with monkeypatch.context() as patched:
            patched.setattr(live_session, "snapshot_of", fail)
            with pytest.raises(type(error)):
                await session.publish()
        published = await session.publish()
        assert published is not None
        assert published.snapshot.totals.files == 1

    use(store, work)


@pytest.mark.expect_log("failed unexpectedly")
def test_an_order_that_fails_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError

    async def work(session: LiveSession) -> None:
        make(session, b"a")
        assert (await session.carry_out(Order(snapshot="abcd"))).error.startswith("the live folder 'mine' has no version abcd")
        make(session, b"b")
        monkeypatch.setattr(live_session, "store_version", fail)
        assert "could not do it" in (await session.carry_out(Order())).error

    use(store, work)


def test_an_error_at_the_end_is_ours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Operations:
        is_reading = False

        def call_when_idle(self, call: Callable[[], None]) -> None:
            pass

    class Session:
        async def run(self) -> None:
            await trio.sleep_forever()

        async def finish(self) -> None:
            message = "full"
            raise StoreFullError(message)

    async def main() -> None:
        pass

    monkeypatch.setattr("pyfuse3.main", main)
    with pytest.raises(StoreFullError):
        trio.run(mounting._serve, lambda: None, store, Operations(), cast("LiveSession", Session()))  # all that it needs


def test_a_folder_is_opened_once_and_made_when_asked(store: Store) -> None:
    with pytest.raises(NotFoundError), open_folder(store, NAME):
        pass
    for name in ("", "x" * 600):
        with pytest.raises(NotFoundError), open_folder(store, name):
            pass
    with open_folder(store, NAME, make=True), pytest.raises(BusyError), open_folder(store, NAME):
        pass
    published = carry_out(store, NAME, Order(message="a remark"), mount_point=None).published
    latest = store.latest_snapshot(f"live/{NAME}")
    assert latest is not None
    assert (latest.snapshot.name, latest.snapshot.message) == (published, "a remark")
    with pytest.raises(ConflictError), open_folder(store, NAME, start=latest.snapshot.root, make=True):
        pass
    [folder] = find_live_folders(store)
    assert (folder.name, folder.mounted_at, folder.last, folder.status.changed_nodes) == (NAME, None, latest, 0)


def test_a_remark_has_a_length() -> None:

    check_text("x" * 4000)
    with pytest.raises(UsageError):
        check_text("x" * 4001)

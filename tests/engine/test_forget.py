# SPDX-License-Identifier: MIT
"""Forgetting by policy, by name and by source: what is refused, and what holds when others change the store meanwhile."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from tests.engine.planting import DAY_NS, SECOND_NS, T0_NS, publish
from yester.core.retention import KEEP_ALL, LIVE_POLICY, Policy, Reason, Rule
from yester.engine.forget import ForgottenSource, default_policies, forget_named, forget_source, judge, thin, undelete
from yester.engine.select import resolve
from yester.errors import BusyError, ConflictError, NotFoundError, UsageError
from yester.fs.live_start import empty_start
from yester.store.live import LiveFolders
from yester.store.lmdb import Environment
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

NOW_NS = T0_NS + 100 * DAY_NS


@pytest.fixture
def five(store: Store) -> list[StoredSnapshot]:
    """Snapshots of `docs` on five days."""
    return [publish(store, {"a": b"%d" % number}) for number in range(5)]


def names(snapshots: list[StoredSnapshot] | tuple[StoredSnapshot, ...]) -> list[str]:
    return [f"{stored.snapshot.source}@{stored.snapshot.name}" for stored in snapshots]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Have something done just before the next write transaction begins, as another process may."""
    waiting: list[Callable[[], object]] = []
    write = Environment.write

    def write_after(self: Environment, apply: Callable[..., object]) -> object:
        if waiting:
            waiting.pop()()
        return write(self, apply)

    monkeypatch.setattr(Environment, "write", write_after)
    yield waiting.append
    assert not waiting


# --- by a policy ------------------------------------------------------------------------------------------------------


def test_a_policy_forgets_what_it_does_not_keep_and_says_why_it_keeps_the_rest(store: Store, five: list[StoredSnapshot]) -> None:
    store.pin(five[0].id, now_ns=1)
    policy = Policy(last=1, within_ns=DAY_NS)
    judged = judge(store, "docs", policy, now_ns=NOW_NS)
    assert store.snapshots() == five, "judging changes nothing"
    assert thin(store, "docs", policy, now_ns=NOW_NS) == judged
    assert [[reason.rule for reason in verdict.reasons] for verdict in judged] == [
        [Rule.PINNED], [], [], [Rule.WITHIN], [Rule.NEWEST, Rule.LAST, Rule.WITHIN],
    ]  # fmt: skip
    assert store.snapshots() == [five[0], *five[3:]]
    assert [(found.stored, found.forgotten_ns) for found in store.forgotten_snapshots()] == [(five[1], NOW_NS), (five[2], NOW_NS)]


def test_other_sources_are_left_alone(store: Store, five: list[StoredSnapshot]) -> None:
    others = [publish(store, {}, source=source) for source in ("doc", "docs2", "docs2")]
    thin(store, "docs", Policy(last=1), now_ns=NOW_NS)
    assert store.snapshots() == [others[0], five[4], *others[1:]]


def test_tags_and_remarks_come_from_the_snapshots(store: Store) -> None:
    snapshots = [publish(store, {}), publish(store, {}, tags=("x",)), publish(store, {}, message="before the move"), publish(store, {})]
    verdicts = thin(store, "docs", Policy(tags=frozenset({"x"}), remarked=True), now_ns=NOW_NS)
    assert [verdict.reasons for verdict in verdicts] == [(), (Reason(Rule.TAG, "x"),), (Reason(Rule.REMARKED),), (Reason(Rule.NEWEST),)]
    assert store.snapshots() == snapshots[1:]


def test_nothing_to_forget_is_no_transaction(store: Store, five: list[StoredSnapshot]) -> None:
    before = store.last_transaction()
    assert all(verdict.is_kept for verdict in thin(store, "docs", KEEP_ALL, now_ns=NOW_NS))
    assert thin(store, "nothing", KEEP_ALL, now_ns=NOW_NS) == ()
    assert store.last_transaction() == before


def test_what_others_forget_meanwhile_does_not_cost_the_last_one(
    store: Store, five: list[StoredSnapshot], meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    meanwhile(lambda: store.forget([stored.id for stored in five[2:]], now_ns=NOW_NS))
    verdicts = thin(store, "docs", Policy(last=1), now_ns=NOW_NS)
    assert store.snapshots() == [five[1]]
    assert [(verdict.stored, verdict.is_kept) for verdict in verdicts] == [(five[0], False), (five[1], True)]


def test_what_is_pinned_meanwhile_is_kept(
    store: Store, five: list[StoredSnapshot], meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    meanwhile(lambda: store.pin(five[1].id, now_ns=1))
    thin(store, "docs", Policy(last=1), now_ns=NOW_NS)
    assert store.snapshots() == [five[1], five[4]]


def test_what_is_published_meanwhile_counts(
    store: Store, five: list[StoredSnapshot], meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    published: list[StoredSnapshot] = []
    meanwhile(lambda: published.append(publish(store, {"a": b"new"})))
    thin(store, "docs", Policy(last=2), now_ns=NOW_NS)
    assert store.snapshots() == [five[4], *published]


def test_only_live_folders_have_a_policy_without_being_given_one() -> None:
    assert default_policies(["docs", "live/Work"]) == {"live/Work": LIVE_POLICY}


# --- by name ----------------------------------------------------------------------------------------------------------


def test_single_snapshots_are_forgotten_by_id_or_name(store: Store, five: list[StoredSnapshot]) -> None:
    wanted = [five[3].id.hex()[:12], f"docs@{five[1].snapshot.name}", five[3].id.hex().upper()]
    assert forget_named(store, wanted, is_last_meant=False, now_ns=NOW_NS, dry_run=True) == (five[3], five[1])
    assert store.snapshots() == five
    assert forget_named(store, wanted, is_last_meant=False, now_ns=NOW_NS) == (five[3], five[1])
    assert store.snapshots() == [five[0], five[2], five[4]]


def test_a_source_is_no_snapshot(store: Store, five: list[StoredSnapshot]) -> None:
    with pytest.raises(UsageError, match="nothing says which snapshots of 'docs' to keep"):
        forget_named(store, [five[0].id.hex(), "docs"], is_last_meant=True, now_ns=NOW_NS)
    with pytest.raises(NotFoundError, match="no source 'dcos'") as raised:
        forget_named(store, [five[0].id.hex(), "dcos"], is_last_meant=True, now_ns=NOW_NS)
    assert "is it docs?" in raised.value.hint
    assert store.snapshots() == five


@pytest.mark.parametrize("name", ["docs@yesterday", "docs@latest", "other@2026-11-22_10-00-00", "deadbeef", "docs@"])
def test_only_what_names_one_snapshot_for_ever_is_taken(store: Store, five: list[StoredSnapshot], name: str) -> None:
    """A time would name the next older one when the command is run again."""
    with pytest.raises(NotFoundError, match="nothing was changed"):
        forget_named(store, [five[0].id.hex(), name], is_last_meant=True, now_ns=NOW_NS)
    assert store.snapshots() == five


def test_the_last_snapshot_of_a_source_goes_only_if_it_is_meant(store: Store, five: list[StoredSnapshot]) -> None:
    other = publish(store, {}, source="other")
    wanted = [stored.id.hex() for stored in (*five, other)]
    for some in (wanted, wanted[-1:]):
        with pytest.raises(ConflictError, match=r"last snapshot of .*'other'; nothing was changed") as raised:
            forget_named(store, some, is_last_meant=False, now_ns=NOW_NS)
        assert "--yes" in raised.value.hint
    assert len(store.snapshots()) == 6
    assert len(forget_named(store, wanted, is_last_meant=True, now_ns=NOW_NS)) == 6
    assert store.snapshots() == []


def test_the_last_snapshot_is_looked_for_when_it_counts(
    store: Store, five: list[StoredSnapshot], meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    meanwhile(lambda: store.forget([stored.id for stored in five[1:]], now_ns=NOW_NS))
    with pytest.raises(ConflictError, match="last snapshot"):
        forget_named(store, [five[0].id.hex()], is_last_meant=False, now_ns=NOW_NS)
    assert store.snapshots() == [five[0]]


def test_a_pinned_snapshot_is_refused_by_name(store: Store, five: list[StoredSnapshot]) -> None:
    store.pin(five[1].id, now_ns=1)
    with pytest.raises(ConflictError, match=f"docs@{five[1].snapshot.name}; nothing was changed") as raised:
        forget_named(store, [stored.id.hex() for stored in five[:2]], is_last_meant=True, now_ns=NOW_NS)
    assert "yester unpin" in raised.value.hint
    assert store.snapshots() == five


def test_what_was_forgotten_already_is_said(store: Store, five: list[StoredSnapshot]) -> None:
    forget_named(store, [five[0].id.hex()], is_last_meant=False, now_ns=NOW_NS)
    with pytest.raises(NotFoundError, match="forgotten already"):
        forget_named(store, [five[0].id.hex()], is_last_meant=False, now_ns=NOW_NS)
    with pytest.raises(NotFoundError, match=f"docs@{five[0].snapshot.name} was forgotten") as raised:
        resolve(store, five[0].id.hex()[:12], now_ns=NOW_NS)
    assert "yester undelete" in raised.value.hint


# --- live folders, and whole sources ------------------------------------------------------------------------------------


def make_folder(store: Store, name: str) -> None:
    """An empty live folder of which there is no version yet."""
    next_node, nodes = empty_start(T0_NS)
    LiveFolders(store.environment).create(name, next_node=next_node, nodes=nodes)


@pytest.fixture
def versions(store: Store) -> list[StoredSnapshot]:
    """Versions of the live folder `Work`, which is there."""
    make_folder(store, "Work")
    return [publish(store, {"a": b"%d" % number}, source="live/Work") for number in range(3)]


def test_the_version_that_a_live_folder_is_based_on_stays(store: Store, versions: list[StoredSnapshot]) -> None:
    with pytest.raises(ConflictError, match="based on it; nothing was changed") as raised:
        forget_named(store, [versions[2].id.hex()], is_last_meant=True, now_ns=NOW_NS)
    assert "yester snapshot Work" in raised.value.hint
    assert forget_named(store, [versions[1].id.hex()], is_last_meant=False, now_ns=NOW_NS) == (versions[1],)
    with pytest.raises(ConflictError, match="based on its last version; nothing was changed"):
        forget_source(store, "live/Work", remove_folder=False, is_meant=True, now_ns=NOW_NS)
    assert store.snapshots() == [versions[0], versions[2]]


def test_a_live_folder_goes_with_its_versions_in_one_transaction(store: Store, versions: list[StoredSnapshot]) -> None:
    folders = LiveFolders(store.environment)
    with pytest.raises(ConflictError, match="all 3 versions of the live folder 'Work'"):
        forget_source(store, "live/Work", remove_folder=True, is_meant=False, now_ns=NOW_NS)
    planned = forget_source(store, "live/Work", remove_folder=True, is_meant=False, now_ns=NOW_NS, dry_run=True)
    assert folders.names() == ["Work"]
    before = store.last_transaction()
    assert forget_source(store, "live/Work", remove_folder=True, is_meant=True, now_ns=NOW_NS) == planned
    assert store.last_transaction() == before + 1
    assert planned == ForgottenSource(tuple(versions), "Work", lost_nodes=1)
    assert (folders.names(), store.snapshots()) == ([], [])
    assert list(undelete(store, ["live/Work"], pin=False, now_ns=NOW_NS)) == versions


def test_a_live_folder_without_versions_can_be_removed(store: Store) -> None:
    make_folder(store, "New")
    with pytest.raises(ConflictError, match=r"lose for good .* \(changed files and folders: 1\); nothing was changed"):
        forget_source(store, "live/New", remove_folder=True, is_meant=False, now_ns=NOW_NS)
    assert forget_source(store, "live/New", remove_folder=True, is_meant=True, now_ns=NOW_NS) == ForgottenSource((), "New", lost_nodes=1)
    with pytest.raises(NotFoundError, match="live/New"):
        forget_source(store, "live/New", remove_folder=True, is_meant=True, now_ns=NOW_NS)


def test_a_live_folder_that_is_in_use_is_not_removed(store: Store, versions: list[StoredSnapshot]) -> None:
    folders = LiveFolders(store.environment)
    with folders.lock(folders.load_head("Work"), pytest.fail), pytest.raises(BusyError, match="in use"):
        forget_source(store, "live/Work", remove_folder=True, is_meant=True, now_ns=NOW_NS)
    assert (folders.names(), store.snapshots()) == (["Work"], versions)


def test_a_live_folder_with_a_pinned_version_is_not_removed(store: Store, versions: list[StoredSnapshot]) -> None:
    store.pin(versions[0].id, now_ns=1)
    with pytest.raises(ConflictError, match="pinned"):
        forget_source(store, "live/Work", remove_folder=True, is_meant=True, now_ns=NOW_NS)
    assert (LiveFolders(store.environment).names(), store.snapshots()) == (["Work"], versions)


def test_a_whole_source_is_forgotten_if_it_is_meant(store: Store, five: list[StoredSnapshot]) -> None:
    other = publish(store, {}, source="other")
    with pytest.raises(ConflictError, match="all 5 snapshots of 'docs'"):
        forget_source(store, "docs", remove_folder=False, is_meant=False, now_ns=NOW_NS)
    with pytest.raises(NotFoundError, match="no live folder"):
        forget_source(store, "docs", remove_folder=True, is_meant=True, now_ns=NOW_NS)
    with pytest.raises(NotFoundError):
        forget_source(store, "nothing", remove_folder=False, is_meant=True, now_ns=NOW_NS)
    assert forget_source(store, "docs", remove_folder=False, is_meant=True, now_ns=NOW_NS).snapshots == tuple(five)
    assert store.snapshots() == [other]


# --- having them back -------------------------------------------------------------------------------------------------


def test_forgotten_snapshots_come_back_and_are_pinned(store: Store, five: list[StoredSnapshot]) -> None:
    thin(store, "docs", Policy(last=1), now_ns=NOW_NS)
    back = undelete(store, [five[2].id.hex()[:12], f"docs@{five[0].snapshot.name}"], pin=True, now_ns=NOW_NS)
    assert names(back) == names([five[0], five[2]])
    thin(store, "docs", Policy(last=1), now_ns=NOW_NS)
    assert store.snapshots() == [five[0], five[2], five[4]], "the policy that forgot them would again"
    assert store.pins()[five[0].id].pinned_ns == NOW_NS
    undelete(store, ["docs"], pin=False, now_ns=NOW_NS)
    assert store.snapshots() == five
    assert set(store.pins()) == {five[0].id, five[2].id}


def test_what_is_not_forgotten_cannot_be_had_back_and_nor_can_others_with_it(store: Store, five: list[StoredSnapshot]) -> None:
    forget_named(store, [five[0].id.hex()], is_last_meant=False, now_ns=NOW_NS)
    for name, said in ((five[1].id.hex(), "is not forgotten"), ("other", "no forgotten snapshot"), ("beef", "no forgotten snapshot")):
        with pytest.raises(NotFoundError, match=said):
            undelete(store, [five[0].id.hex(), name], pin=True, now_ns=NOW_NS)
    assert store.snapshots() == five[1:]
    assert store.pins() == {}


def test_an_id_that_fits_several_is_refused(store: Store) -> None:
    root = publish(store, {}).snapshot
    found: dict[str, StoredSnapshot] = {}
    while True:
        added = store.add_snapshot(msgspec.structs.replace(root, time_ns=T0_NS + len(found) * SECOND_NS))
        if found.setdefault(prefix := added.id.hex()[:4], added) is not added:
            break
    with pytest.raises(UsageError, match="2 snapshot ids"):
        forget_named(store, [prefix], is_last_meant=False, now_ns=NOW_NS)


def test_the_grace_of_a_snapshot_does_not_begin_before_it_was_made(store: Store, five: list[StoredSnapshot]) -> None:
    """A clock that is behind, as of a small computer without a battery, must not cost the grace."""
    forget_named(store, [five[0].id.hex()], is_last_meant=False, now_ns=5)
    assert store.forgotten_snapshots()[0].forgotten_ns == five[0].snapshot.time_ns

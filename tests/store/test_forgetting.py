# SPDX-License-Identifier: MIT
"""Publishing, forgetting, having back and pinning in any order: a store beside a model of it."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.encrypted import create_encrypted, unlock
from yester.core.ids import SnapshotId
from yester.core.records import RECORD_VERSION, Entry, Pin, Snapshot, Tree, encode_tree
from yester.errors import ConflictError, NotFoundError
from yester.store.segments import Kind
from yester.store.snapshots import Listing, StoredSnapshot
from yester.store.store import Store

SECOND_NS = 10**9


def key(stored: StoredSnapshot) -> tuple[str, int]:
    return stored.snapshot.source, stored.snapshot.time_ns


class SnapshotsMachine(RuleBasedStateMachine):
    """The model: which snapshots are listed, which are forgotten since when, and which are pinned."""

    folders: Iterator[Path]
    is_encrypted: bool

    @initialize()
    def begin(self) -> None:
        self.path = next(self.folders)
        self.store = create_encrypted(self.path) if self.is_encrypted else Store.create(self.path)
        with self.store.writer() as writer:
            tree = writer.add(Kind.TREE, encode_tree(Tree(RECORD_VERSION, {}, {}, ())))
        self.root = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0, tree)
        self.listed: dict[SnapshotId, StoredSnapshot] = {}
        self.forgotten: dict[SnapshotId, tuple[StoredSnapshot, int]] = {}
        self.pinned: set[SnapshotId] = set()
        self.generation = self.store.snapshots_generation()

    @rule(source=st.sampled_from(["a", "live/a"]), second=st.integers(0, 1), ns=st.integers(0, 1), message=st.sampled_from(["", "x"]))
    def publish(self, source: str, second: int, ns: int, message: str) -> None:
        """Few times, so that they clash with listed and with forgotten ones."""
        time_ns = second * SECOND_NS + ns
        stored = self.store.add_snapshot(Snapshot(RECORD_VERSION, source, "", time_ns, time_ns, self.root, message=message))
        assert stored.id not in self.listed
        assert stored.id not in self.forgotten
        self.listed[stored.id] = stored
        self.expect_new_generation()

    @rule(data=st.data(), now_ns=st.integers(0, 5 * SECOND_NS))
    def forget(self, data: st.DataObject, now_ns: int) -> None:
        ids = data.draw(st.lists(st.sampled_from([*self.listed, *self.forgotten, SnapshotId(bytes(32))]), max_size=3, unique=True))
        if self.pinned.intersection(ids):
            with pytest.raises(ConflictError):
                self.store.forget(ids, now_ns=now_ns)
            return
        wanted = [self.listed[id_] for id_ in ids if id_ in self.listed]
        assert self.store.forget(ids, now_ns=now_ns) == wanted
        for stored in wanted:
            del self.listed[stored.id]
            self.forgotten[stored.id] = stored, max(now_ns, stored.snapshot.time_ns)
        if wanted:
            self.expect_new_generation()

    @rule(source=st.sampled_from(["a", "live/a"]), index=st.integers(0, 3))
    def forget_chosen(self, source: str, index: int) -> None:
        of_source = sorted((stored for stored in self.listed.values() if stored.snapshot.source == source), key=key)

        def choose(listing: Listing) -> list[SnapshotId]:
            assert listing.snapshots == of_source
            assert set(listing.pins) == self.pinned
            return [stored.id for stored in listing.snapshots[:index] if stored.id not in listing.pins]

        done = self.store.forget_chosen(choose, source=source, now_ns=9 * SECOND_NS)
        assert done == [stored for stored in of_source[:index] if stored.id not in self.pinned]
        for stored in done:
            self.forgotten[stored.id] = self.listed.pop(stored.id), 9 * SECOND_NS
        if done:
            self.expect_new_generation()

    @rule(data=st.data(), pin=st.booleans())
    def undelete(self, data: st.DataObject, pin: bool) -> None:
        ids = data.draw(st.lists(st.sampled_from([*self.forgotten, *self.listed, SnapshotId(bytes(32))]), min_size=1, max_size=3))
        record = Pin(RECORD_VERSION, 5) if pin else None
        if not self.forgotten.keys() >= set(ids):
            with pytest.raises(NotFoundError):
                self.store.undelete(ids, pin=record)
            return
        back = {id_: self.forgotten.pop(id_)[0] for id_ in dict.fromkeys(ids)}
        assert self.store.undelete(ids, pin=record) == sorted(back.values(), key=key)
        self.listed |= back
        self.pinned |= back.keys() if pin else set()
        self.expect_new_generation()

    @rule(data=st.data(), is_pin=st.booleans())
    def pin_or_unpin(self, data: st.DataObject, is_pin: bool) -> None:
        id_ = data.draw(st.sampled_from([*self.listed, *self.forgotten, SnapshotId(bytes(32))]))
        if not is_pin:
            assert self.store.unpin(id_) == (id_ in self.pinned)
            self.pinned.discard(id_)
        elif id_ in self.listed:
            self.store.pin(id_, now_ns=1)
            self.pinned.add(id_)
        else:
            with pytest.raises(NotFoundError):
                self.store.pin(id_, now_ns=1)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(self.path, unlock=unlock)

    def expect_new_generation(self) -> None:
        before, self.generation = self.generation, self.store.snapshots_generation()
        assert self.generation != before

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        listed = sorted(self.listed.values(), key=key)
        assert self.store.snapshots() == self.store.listing().snapshots == listed
        assert self.store.sources() == sorted({stored.snapshot.source for stored in listed})
        forgotten = sorted(self.forgotten.values(), key=lambda item: key(item[0]))
        assert [(found.stored, found.forgotten_ns) for found in self.store.forgotten_snapshots()] == forgotten
        assert set(self.store.pins()) == self.pinned
        assert self.store.snapshots_generation() == self.generation
        everything = [*listed, *(stored for stored, _ in forgotten)]
        assert len({(stored.snapshot.source, stored.snapshot.name) for stored in everything}) == len(everything)
        assert len({key(stored) for stored in everything}) == len(everything)
        for stored in everything:
            assert self.store.find_snapshots_by_id(stored.id.hex()) == ([stored] if stored.id in self.listed else [])
        for source in ("a", "live/a"):
            of_source = [stored for stored in listed if stored.snapshot.source == source]
            assert self.store.latest_snapshot(source) == (of_source[-1] if of_source else None)

    def teardown(self) -> None:
        self.store.close()


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "encrypted"])
def test_snapshots_are_where_the_model_has_them(tmp_path_factory: pytest.TempPathFactory, is_encrypted: bool) -> None:
    folder = tmp_path_factory.mktemp("stores")
    SnapshotsMachine.folders = (folder / str(number) for number in range(10**9))
    SnapshotsMachine.is_encrypted = is_encrypted
    run_state_machine_as_test(SnapshotsMachine, settings=settings(max_examples=50, stateful_step_count=30))

# SPDX-License-Identifier: MIT
"""Rows of live folders: whatever was changed is there after opening again, of this folder and no other."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yester.core.extents import Extent
from yester.errors import ConflictError, CorruptionError, FormatError, NotFoundError
from yester.store.live import LIVE_VERSION, REMOVED, LiveChange, LiveFolders, LiveHead, removal
from yester.store.lmdb import Environment, Table

Key = TypeVar("Key")
Row = TypeVar("Row")
NODES = st.integers(1, 2**64 - 1)
NAMES = st.binary(min_size=1, max_size=255)


def update(rows: dict[Key, Row], changed: Mapping[Key, Row | None]) -> None:
    for key, row in changed.items():
        rows.pop(key, None)
        if row is not None:
            rows[key] = row


def rows_of(environment: Environment, name: str) -> tuple[object, ...]:
    rows = LiveFolders(environment).load(name)
    return rows.head, rows.nodes, rows.names, rows.extents, rows.batch_bytes


@st.composite
def changes(draw: st.DrawFn) -> list[LiveChange]:
    """Changes of folder 1, each of some rows of a few, which it sets or takes away."""
    nodes = draw(st.lists(NODES, min_size=1, max_size=3, unique=True))
    names = [(draw(st.sampled_from(nodes)), draw(NAMES)) for _ in range(3)]
    found = []
    for batch in range(1, draw(st.integers(1, 5)) + 1):
        data = draw(st.binary(min_size=20, max_size=40))
        found.append(
            LiveChange(
                LiveHead(LIVE_VERSION, 1, draw(NODES), batch + 1),
                nodes={node: draw(st.none() | st.binary(max_size=50)) for node in draw(st.sets(st.sampled_from(nodes)))},
                names={name: draw(st.none() | st.just(REMOVED) | NODES) for name in draw(st.sets(st.sampled_from(names)))},
                extents={
                    (node, offset): draw(st.none() | st.just(Extent(offset, 10, batch, 10)))
                    for node in draw(st.sets(st.sampled_from(nodes)))
                    for offset in draw(st.sets(st.sampled_from([0, 10, 2**63])))
                },
                batches={batch: (data,)},
            )
        )
    return found


@given(made=changes())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_what_was_changed_is_there_and_nothing_else(tmp_path: Path, made: list[LiveChange]) -> None:
    path = tmp_path / str(len(list(tmp_path.iterdir())))
    path.mkdir()
    nodes: dict[int, bytes] = {}
    names: dict[tuple[int, bytes], int] = {}
    extents: dict[tuple[int, int], Extent] = {}
    with Environment(path, create=True) as environment:
        folders = LiveFolders(environment)
        assert folders.create("mine", next_node=2, nodes={}) == LiveHead(LIVE_VERSION, 1, 2, 1)
        folders.create("other", next_node=7, nodes={})
        other = rows_of(environment, "other")
        for change in made:
            folders.apply("mine", change)
            update(nodes, change.nodes)
            update(names, change.names)
            update(extents, change.extents)
    with Environment(path) as environment:
        rows = LiveFolders(environment).load("mine")
        assert (rows.head, rows.nodes, rows.names) == (made[-1].head, nodes, names)
        assert {(node, extent.offset): extent for node, found in rows.extents.items() for extent in found} == extents
        for found in rows.extents.values():
            assert found == sorted(found)
            for extent in found:
                data = next(b"".join(change.batches[extent.batch]) for change in made if extent.batch in change.batches)
                assert LiveFolders(environment).read(rows.head, extent) == data[10:20]
        assert rows_of(environment, "other") == other
        environment.write(removal("mine"))
        assert LiveFolders(environment).names() == ["other"]
        with environment.read() as view:
            assert [view.count(table) for table in Table if table.name.startswith("LIVE_")] == [1, 0, 0, 0, 0]


def test_a_change_is_made_whole_or_not_at_all(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = LiveFolders(environment)
    head = folders.create("mine", next_node=2, nodes={})
    before = rows_of(environment, "mine")
    bad = LiveChange(head, nodes={2: b"row"}, names={(2, b"x" * 600): 3}, batches={1: (b"1",)})  # a key too long for LMDB
    with pytest.raises(Exception, match="MDB_BAD_VALSIZE"):
        folders.apply("mine", bad)
    assert rows_of(environment, "mine") == before


def test_a_folder_has_one_name_and_a_number_for_itself(environment: Environment) -> None:
    folders = LiveFolders(environment)
    numbers = [folders.create(name, next_node=2, nodes={}).number for name in ("a", "b", "c")]
    assert numbers == [1, 2, 3]
    with pytest.raises(ConflictError):
        folders.create("b", next_node=2, nodes={})
    head = folders.load("b").head
    environment.write(removal("b"))
    assert folders.names() == ["a", "c"]
    for call in (lambda: folders.load("b"), lambda: environment.write(removal("b")), lambda: folders.apply("b", LiveChange(head))):
        with pytest.raises(NotFoundError):
            call()
    assert folders.create("b", next_node=2, nodes={}).number == 4
    with pytest.raises(NotFoundError, match="removed meanwhile"):
        folders.apply("b", LiveChange(head))


def test_batches_that_nothing_names_are_dropped_with_what_did(environment: Environment) -> None:
    folders = LiveFolders(environment)
    head = folders.create("mine", next_node=2, nodes={})
    folders.apply("mine", LiveChange(head, extents={(2, 0): Extent(0, 5, 1, 0)}, batches={1: (b"first",)}))
    assert folders.load("mine").batch_bytes == {1: 5}
    folders.apply("mine", LiveChange(head, extents={(2, 0): Extent(0, 6, 2, 0)}, batches={2: (b"second",)}, dropped_batches=(1,)))
    rows = folders.load("mine")
    assert rows.batch_bytes == {2: 6}
    assert folders.read(head, rows.extents[2][0]) == b"second"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ((2, 0), (0, 1, 0)),  # no bytes
        ((2, 0), (6, 1, 0)),  # more than the batch has
        ((2, 0), (1, 2, 0)),  # of a batch that is not there
        ((2, 3), (2, 1, 2**63)),
    ],
)
def test_an_extent_that_cannot_be_is_damage(environment: Environment, key: tuple[int, int], value: tuple[int, int, int]) -> None:
    folders = LiveFolders(environment)
    head = folders.create("mine", next_node=2, nodes={})
    folders.apply("mine", LiveChange(head, extents={key: Extent(key[1], *value)}, batches={1: (b"first",)}))
    with pytest.raises(CorruptionError, match="cannot be"):
        folders.load("mine")


def test_extents_that_overlap_are_damage(environment: Environment) -> None:
    folders = LiveFolders(environment)
    head = folders.create("mine", next_node=2, nodes={})
    extents = {(2, 0): Extent(0, 3, 1, 0), (2, 2): Extent(2, 3, 1, 0)}
    folders.apply("mine", LiveChange(head, extents=extents, batches={1: (b"first",)}))
    with pytest.raises(CorruptionError, match="at offset 2 cannot be"):
        folders.load("mine")


def test_rows_and_heads_that_are_none_are_damage(environment: Environment) -> None:
    folders = LiveFolders(environment)
    head = folders.create("mine", next_node=2, nodes={})
    prefix = b"\0\0\0\1"
    for table, key, value in (
        (Table.LIVE_NODES, prefix + b"short", b""),
        (Table.LIVE_NAMES, prefix + bytes(8) + b"name", b"short"),
        (Table.LIVE_EXTENTS, prefix + bytes(16), b"short"),
        (Table.LIVE_FOLDERS, b"mine", b"\xc1"),
    ):
        environment.write(lambda transaction, row=(table, key, value): transaction.put(*row))  # type: ignore[misc]  # a row each
        with pytest.raises(CorruptionError):
            folders.load("mine")
        environment.write(lambda transaction, row=(table, key): transaction.delete(*row))  # type: ignore[misc]  # as above
        environment.write(lambda transaction: transaction.put(Table.LIVE_FOLDERS, b"mine", msgspec.msgpack.encode(head)))
    newer = msgspec.structs.replace(head, version=LIVE_VERSION + 1)
    environment.write(lambda transaction: transaction.put(Table.LIVE_FOLDERS, b"mine", msgspec.msgpack.encode(newer)))
    with pytest.raises(FormatError):
        folders.load("mine")


def test_a_store_from_before_live_folders_gets_their_tables(tmp_path: Path) -> None:
    with Environment(tmp_path, create=True) as environment:
        for table in Table:
            if table.name.startswith("LIVE_"):
                with environment._env.begin(write=True) as transaction:
                    transaction.drop(environment.handles[table], delete=True)
    with Environment(tmp_path, readonly=True) as environment:
        assert environment.get(Table.META, b"format") is None
    with Environment(tmp_path) as environment:
        assert LiveFolders(environment).names() == []
        LiveFolders(environment).create("mine", next_node=2, nodes={})

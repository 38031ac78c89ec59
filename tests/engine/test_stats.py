# SPDX-License-Identifier: MIT
"""What a store holds and costs."""

import os

import pytest

from tests.engine.planting import publish
from tests.engine.sandbox import MakeStore, Sandbox
from yester.engine.stats import SegmentStats, stats
from yester.store.chunks import segment_key
from yester.store.lmdb import Table
from yester.store.store import Store


def test_an_empty_store_has_no_ratios(store: Store) -> None:
    found = stats(store)
    assert (found.sources, found.snapshots, found.size_bytes, found.chunks) == ((), 0, 0, 0)
    assert (found.sharing_ratio, found.compression_ratio, found.total_ratio) == (0, 0, 0)
    assert found.file_bytes == (store.path / "data.mdb").stat().st_size
    assert 0 < found.disk_bytes <= found.file_bytes


def test_bytes_before_and_after_sharing_and_compression_are_told(sandbox: Sandbox) -> None:
    noise, text = os.urandom(500_000), b"text" * 100_000
    for name in ("a", "b", "c"):
        sandbox.write(f"noise-{name}", noise)
    sandbox.write("text", text)
    for _ in range(2):
        sandbox.back_up()
    sandbox.back_up(source="again")
    found = stats(sandbox.store)
    assert found.size_bytes == 3 * (3 * 500_000 + 400_000)
    assert found.data.raw_bytes == sandbox.results[0].snapshot.added.chunk_bytes - _tree_bytes(sandbox)
    assert found.data.raw_bytes <= 900_000
    assert 500_000 < found.data.stored_bytes < 520_000
    assert found.sharing_ratio == pytest.approx(5_700_000 / found.data.raw_bytes)
    assert found.compression_ratio == pytest.approx((found.data.raw_bytes + found.trees.raw_bytes) / found.stored_bytes)
    assert found.total_ratio == pytest.approx(found.size_bytes / found.stored_bytes)
    assert found.chunks == found.data.chunks + found.trees.chunks
    assert found.file_bytes > found.stored_bytes


def _tree_bytes(sandbox: Sandbox) -> int:
    return len(sandbox.store.reader().read(sandbox.results[0].snapshot.root.tree))


def test_sources_are_told_one_by_one(store: Store) -> None:
    first, second, other = publish(store, {"a": b"1"}), publish(store, {"a": b"2"}), publish(store, {}, "other")
    found = stats(store)
    assert [(source.name, source.snapshots, source.first, source.last, source.size_bytes) for source in found.sources] == [
        ("docs", 2, first, second, 2000),
        ("other", 1, other, other, 1000),
    ]
    assert (found.snapshots, found.forgotten) == (3, 0)
    store.forget([first.id, other.id], now_ns=0)
    again = stats(store)
    assert [(source.name, source.snapshots) for source in again.sources] == [("docs", 1)]
    assert (again.forgotten, again.chunks) == (2, found.chunks)


def test_damaged_segments_are_counted_apart(make_store: MakeStore) -> None:
    store = make_store(may_be_damaged=True)
    publish(store, {"a": b"1"})
    store.environment.write(lambda transaction: transaction.put(Table.SEGMENTS, segment_key(1), b"damaged"))
    found = stats(store)
    assert (found.unreadable_segments, found.data) == (1, SegmentStats())
    assert found.trees.segments == 1

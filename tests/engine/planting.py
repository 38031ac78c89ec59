# SPDX-License-Identifier: MIT
"""Snapshots made from nothing: trees and records put straight into a store, for tests of what reads them."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from yester.core.chunking import ChunkParams
from yester.core.content import Content, ContentBuilder
from yester.core.records import RECORD_VERSION, Entry, Extra, Snapshot, Totals, Tree
from yester.engine.trees import store_tree
from yester.store.chunks import ChunkWriter
from yester.store.segments import Kind
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
T0_NS = 1_795_341_600 * SECOND_NS
"""2026-11-22 10:00:00 UTC: the first snapshot of every source."""

ATIME_NS = T0_NS - 3600 * SECOND_NS

SMALL_CHUNKS = ChunkParams(min_bytes=64, avg_bytes=256, max_bytes=1024)
"""Makes files of some kB large ones, with span lists, and stores folders of ten entries in parts."""


@dataclass(frozen=True, slots=True)
class File:
    """A file, where more than its bytes matters."""

    data: bytes = b""
    mode: int = 0o644
    mtime_ns: int = T0_NS
    extra: Extra | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, where more than what it holds matters."""

    items: "Items"
    mode: int = 0o755
    mtime_ns: int = T0_NS


Items = Mapping[str, Any] | Mapping[bytes, Any]
Plan = bytes | str | File | Folder | Items
"""A file's bytes, a symlink's target, or a folder's items, which are plans."""


def plant(store: Store, plan: Plan) -> Entry:
    """Store what a plan says and return its entry; its name is empty."""
    with store.writer() as writer:
        return _plant(writer, store.parameters.chunking, b"", plan)


def publish(
    store: Store,
    plan: Plan,
    source: str = "docs",
    *,
    time_ns: int | None = None,
    paths: Sequence[bytes] = (b"/home/ann/docs",),
    **fields: object,
) -> StoredSnapshot:
    """Publish a snapshot; `T0_NS` and a day later with each one of the source, unless `time_ns` says when. `fields` are of its record."""
    root = plant(store, plan)
    when_ns = T0_NS + len(store.snapshots(source)) * DAY_NS if time_ns is None else time_ns
    snapshot = Snapshot(RECORD_VERSION, source, "", when_ns, when_ns, root, tuple(paths), is_root_made_up=len(paths) > 1)
    return store.add_snapshot(msgspec.structs.replace(snapshot, totals=Totals(size_bytes=1000), **fields))


def _plant(writer: ChunkWriter, params: ChunkParams, name: bytes, plan: Plan) -> Entry:
    if isinstance(plan, str):
        target = os.fsencode(plan)
        return Entry(name, stat.S_IFLNK | 0o777, 1000, 1000, T0_NS, ATIME_NS, len(target), 0, target)
    if isinstance(plan, bytes):
        plan = File(plan)
    if isinstance(plan, File):
        content = plant_data(writer, params, plan.data)
        mode = stat.S_IFREG | plan.mode
        return Entry(name, mode, 1000, 1000, plan.mtime_ns, ATIME_NS, len(plan.data), content.level, content.spans, plan.extra)
    folder = plan if isinstance(plan, Folder) else Folder(plan)
    items = sorted((os.fsencode(item), below) for item, below in folder.items.items())
    entries = tuple(_plant(writer, params, item, below) for item, below in items)
    tree = store_tree(Tree(RECORD_VERSION, {1000: "ann"}, {1000: "ann"}, entries), params, lambda record: writer.add(Kind.TREE, record))
    return Entry(name, stat.S_IFDIR | folder.mode, 1000, 1000, folder.mtime_ns, ATIME_NS, 0, 0, tree)


def plant_deep(store: Store, depth: int) -> Entry:
    """A folder with an empty file below `depth` folders, more than recursion could make."""
    entry = Entry(b"f", stat.S_IFREG | 0o644, 1000, 1000, T0_NS, ATIME_NS, 0, 0, b"")
    with store.writer() as writer:
        for _ in range(depth + 1):
            tree = Tree(RECORD_VERSION, {}, {}, (entry,))
            stored = store_tree(tree, store.parameters.chunking, lambda record: writer.add(Kind.TREE, record))
            entry = Entry(b"d", stat.S_IFDIR | 0o755, 1000, 1000, T0_NS, ATIME_NS, 0, 0, stored)
    return entry


def plant_data(writer: ChunkWriter, params: ChunkParams, data: bytes) -> Content:
    """Store a file's bytes, cut every `max_bytes`."""
    builder = ContentBuilder(lambda record: writer.add(Kind.TREE, record))
    for at in range(0, len(data), params.max_bytes):
        piece = data[at : at + params.max_bytes]
        builder.add(writer.add(Kind.DATA, piece), len(piece))
    return builder.finish()

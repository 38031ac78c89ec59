# SPDX-License-Identifier: MIT
"""Stores and sandboxes. Every store is checked when its test is over."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.encrypted import create_encrypted, unlock
from tests.engine.planting import SECOND_NS, SMALL_CHUNKS
from tests.engine.sandbox import MakeStore, Sandbox
from yester.core.chunking import ChunkParams
from yester.engine.check import check_path
from yester.store.store import Store


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    made: list[tuple[Store, bool]] = []

    def make(
        name: str = "store", *, chunking: ChunkParams | None = None, may_be_damaged: bool = False, is_encrypted: bool = False
    ) -> Store:
        store = (create_encrypted if is_encrypted else Store.create)(tmp_path / name, chunking=chunking)
        made.append((store, may_be_damaged))
        return store

    yield make
    for store, may_be_damaged in made:
        store.close()
        if not may_be_damaged:
            assert check_path(store.path, read_data=True, unlock=unlock).findings == ()


@pytest.fixture
def store(make_store: MakeStore, request: pytest.FixtureRequest) -> Store:
    """Plain, unless a test is marked `both_kinds`."""
    return make_store(is_encrypted=getattr(request, "param", False))


@pytest.fixture
def sandbox(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    yield from _sandbox(store, tmp_path / "source", monkeypatch)


@pytest.fixture
def small_sandbox(make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """One whose store has small chunks."""
    yield from _sandbox(make_store(chunking=SMALL_CHUNKS), tmp_path / "source", monkeypatch)


@pytest.fixture
def damaged_sandbox(make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """One whose store is not checked when the test is over."""
    yield from _sandbox(make_store(may_be_damaged=True), tmp_path / "source", monkeypatch)


def _sandbox(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    folder.mkdir()
    sandbox = Sandbox(store, folder, time.time_ns() + 3600 * SECOND_NS)
    monkeypatch.setattr("yester.engine.backup.time", SimpleNamespace(time_ns=lambda: time.time_ns() if sandbox.is_now else sandbox.now_ns))
    yield sandbox
    shutil.rmtree(folder, ignore_errors=True)

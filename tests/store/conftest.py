# SPDX-License-Identifier: MIT
"""Environments and stores to work on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from yester.store.lmdb import Environment
from yester.store.store import Store


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    path = tmp_path / "environment"
    path.mkdir()
    with Environment(path, create=True) as environment:
        yield environment


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as store:
        yield store

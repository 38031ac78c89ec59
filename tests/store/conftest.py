# SPDX-License-Identifier: MIT
"""Environments and stores to work on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.encrypted import KEY, create_encrypted
from yester.store.lmdb import Environment
from yester.store.store import Store, use_key


@pytest.fixture(params=["plain", "encrypted"])
def environment(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Environment]:
    path = tmp_path / "environment"
    path.mkdir()
    with Environment(path, create=True) as environment:
        if request.param == "encrypted":
            use_key(environment, KEY)
        yield environment


@pytest.fixture
def plain_environment(tmp_path: Path) -> Iterator[Environment]:
    path = tmp_path / "environment"
    path.mkdir()
    with Environment(path, create=True) as environment:
        yield environment


@pytest.fixture(params=["plain", "encrypted"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    create = create_encrypted if request.param == "encrypted" else Store.create
    with create(tmp_path / "store") as store:
        yield store

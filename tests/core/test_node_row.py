# SPDX-License-Identifier: MIT
"""Rows of live folders from a store that is damaged, or was made to do harm."""

import stat

import msgspec
import pytest

from yester.core.node_row import ROOT_NUMBER, ROW_VERSION, NodeRow, decode_row
from yester.errors import CorruptionError

FILE = NodeRow(ROW_VERSION, bytes(16), stat.S_IFREG | 0o644, 0, 0, 0, 0, 1, 1, 1, ((ROOT_NUMBER, b"a"),))


def test_a_row_comes_back() -> None:
    assert decode_row(2, msgspec.msgpack.encode(FILE)) == FILE


@pytest.mark.parametrize(
    "wrong",
    [
        {"node_id": bytes(15)},
        {"mode": 0o644},
        {"mode": -1},
        {"uid": 2**32},
        {"size": -1},
        {"rdev": 2**32},
        {"links": ((ROOT_NUMBER, b"a/b"),)},
        {"links": ((ROOT_NUMBER, b"a"), (ROOT_NUMBER, b"a"))},
        {"xattrs": ((b"", b""),)},
        {"base": bytes(39)},
        {"base_level": 300},
        {"base_level": -1},
        {"mode": stat.S_IFLNK | 0o777},
        {"mode": stat.S_IFDIR | 0o755, "base": bytes(32)},
    ],
)
def test_a_row_that_no_version_could_hold_is_damage(wrong: dict[str, object]) -> None:
    with pytest.raises(CorruptionError):
        decode_row(2, msgspec.msgpack.encode(msgspec.structs.replace(FILE, **wrong)))


def test_the_root_has_no_name() -> None:
    with pytest.raises(CorruptionError):
        decode_row(ROOT_NUMBER, msgspec.msgpack.encode(msgspec.structs.replace(FILE, mode=stat.S_IFDIR | 0o755)))

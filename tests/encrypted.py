# SPDX-License-Identifier: MIT
"""Encrypted stores to test on, whose passphrase is cheap to check."""

from pathlib import Path

from yester.core.chunking import ChunkParams
from yester.store.keys import StoreKey
from yester.store.parameters import Encryption
from yester.store.slots import LockedStore, passphrase_secret
from yester.store.store import Store

PASSPHRASE = "correct horse battery staple"
CHEAP = Encryption(b"0123456789abcdef", memory_kib=32, iterations=1, lanes=1)
"""What a guess costs in tests: nothing."""

KEY = StoreKey(bytes(range(32)))
OTHER_KEY = StoreKey(bytes(range(1, 33)))


def create_encrypted(path: Path, chunking: ChunkParams | None = None) -> Store:
    return Store.create(path, chunking=chunking, passphrase=PASSPHRASE, encryption=CHEAP)


def unlock(locked: LockedStore) -> StoreKey:
    """Opens a store of `create_encrypted`; see `Store.open`."""
    return locked.open(passphrase_secret(PASSPHRASE, locked.encryption))


def open_encrypted(path: Path, *, readonly: bool = False) -> Store:
    return Store.open(path, readonly=readonly, unlock=unlock)

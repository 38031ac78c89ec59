# SPDX-License-Identifier: MIT
"""The keys of an encrypted store, all made from one: the store key, 32 random bytes (docs/format.md §11).

The only module that knows the ciphers, which are those of the package cryptography: AES-256-GCM and AES-SIV. (Argon2, which stretches
passphrases, is known to `store.slots`.) That takes 20 ms to import, so only what has an encrypted store before it does.

A key of AES-256-GCM must not seal two things with one nonce. Each box here has a key of its own, derived from a random salt and from
what it is for, and so needs no nonce but a number for each of its parts. Whatever was put elsewhere than it was sealed for has
another key there.

Keys appear in no `repr`, and so in no log and no traceback.
"""

import os
from functools import cached_property
from typing import Self

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from yester.core.chunking import CUTTING_SECRET_BYTES
from yester.core.ids import NameChunk, keyed_chunk_id

KEY_BYTES = 32
SALT_BYTES = 16
TAG_BYTES = 16
_CONTEXT = "yester 2026-11-26 "


class Box:
    """What one key of its own seals, in one or more parts."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, data: bytes | memoryview, *, part: int = 0, beside: bytes | memoryview | None = None) -> bytes:
        """The sealed bytes, `TAG_BYTES` longer. `beside` is what must be the same when they are opened, and is not in them."""
        return self._cipher.encrypt(part.to_bytes(12, "big"), data, beside)

    def open(self, sealed: bytes | memoryview, *, part: int = 0, beside: bytes | memoryview | None = None) -> bytes | None:
        """What was sealed; None if a bit of it, or of what was beside it, is not as it was."""
        try:
            return self._cipher.decrypt(part.to_bytes(12, "big"), sealed, beside)
        except (InvalidTag, ValueError):
            return None


class NameCipher:
    """Seals short names so that equal names stay equal, and can be looked for: AES-SIV, which needs no nonce."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def seal(self, name: bytes, beside: bytes) -> bytes:
        """The sealed name, 16 bytes longer."""
        return self._cipher.encrypt(name, [beside])

    def open(self, sealed: bytes, beside: bytes) -> bytes | None:
        """The name; None if it is none that was sealed."""
        try:
            return self._cipher.decrypt(sealed, [beside])
        except (InvalidTag, ValueError):
            return None


class StoreKey:
    """The key of which all others of a store are made. Whoever has it can read and write the store."""

    def __init__(self, raw: bytes) -> None:
        assert len(raw) == KEY_BYTES
        self.raw = raw

    @classmethod
    def random(cls) -> Self:
        """A new one."""
        return cls(os.urandom(KEY_BYTES))

    def derive(self, use: str, length: int = KEY_BYTES) -> bytes:
        """The key for a use; nothing is known of one from the others."""
        return blake3(self.raw, derive_key_context=_CONTEXT + use).digest(length=length)

    @cached_property
    def segment_root(self) -> bytes:
        """What keys of segments are derived from."""
        return self.derive("segments")

    @cached_property
    def row_root(self) -> bytes:
        """What keys of rows are derived from."""
        return self.derive("rows")

    def segment_box(self, salt: bytes | memoryview) -> Box:
        """The box of the segment with this salt."""
        return Box(blake3(salt, key=self.segment_root).digest())

    def row_box(self, salt: bytes | memoryview, place: bytes) -> Box:
        """The box of a row with this salt; `place` is its table and key."""
        return Box(blake3(bytes(salt) + place, key=self.row_root).digest())

    def names(self) -> NameCipher:
        """The cipher of names that stand in keys."""
        return NameCipher(self.derive("names in keys", 64))

    def name_chunk(self) -> NameChunk:
        """What gives bytes their chunk id."""
        return keyed_chunk_id(self.derive("chunk ids"))

    def cutting_secret(self) -> bytes:
        """What the cuts between chunks depend on."""
        return self.derive("cutting", CUTTING_SECRET_BYTES)

    def slot_proof_key(self) -> bytes:
        """What key slots are hashed with, so that an open store can tell whether they are as they were made."""
        return self.derive("key slots")

    def summary_key(self) -> bytes:
        """What rows are hashed with for the summary of snapshots."""
        return self.derive("summary of snapshots")

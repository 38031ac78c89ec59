# SPDX-License-Identifier: MIT
"""What is fixed when a store is made: sizes of chunks, an id, and whether it is encrypted (docs/format.md §7)."""

from pathlib import Path

import msgspec

from yester.core.chunking import ChunkParams
from yester.errors import CorruptionError, FormatError, LimitError

PLAIN_VERSION = 1
ENCRYPTED_VERSION = 2
"""A release that knows only plain stores must not take sealed rows for damaged ones."""
FORMAT_VERSION = ENCRYPTED_VERSION
"""The highest that this release reads."""

SALT_BYTES = 16
FORMAT_KEY = b"format"
"""The key of the parameters, in META."""
SLOT_PREFIX = b"key_slot\0"
"""What keys of key slots begin with, in META."""
_MEMORY_KIB_MAX = 1 << 20
_ITERATIONS_MAX = 64
_LANES_MAX = 16


class Encryption(msgspec.Struct, frozen=True, array_like=True):
    """How passphrases become keys: Argon2id with this salt and these costs, once an attempt, whatever slot it is for.

    The default costs are the second choice of RFC 9106, §4: 64 MiB, which a guess costs an attacker, too, and graphics cards lack; 0.1 s on
    two cores of 2026, in each command that opens the store.
    """

    salt: bytes
    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        """What comes from a hostile store must take neither all memory nor all day."""
        is_sane = 8 * self.lanes <= self.memory_kib <= _MEMORY_KIB_MAX and 1 <= self.iterations <= _ITERATIONS_MAX
        if len(self.salt) != SALT_BYTES or not 1 <= self.lanes <= _LANES_MAX or not is_sane:
            message = f"Argon2id with {self.memory_kib} KiB, {self.iterations} iterations and {self.lanes} lanes is not what yester uses"
            raise LimitError(message)


class Parameters(msgspec.Struct, frozen=True, array_like=True):
    """Fixed when a store is made. `store_id` is random and tells stores apart, wherever they are mounted."""

    version: int
    store_id: bytes
    created_ns: int
    chunking: ChunkParams = ChunkParams()
    encryption: Encryption | None = None
    """None: the store is plain."""


def encode_parameters(parameters: Parameters) -> bytes:
    """The bytes that are stored."""
    return msgspec.msgpack.encode(parameters)


def decode_parameters(record: bytes | memoryview, path: Path) -> Parameters:
    """The parameters of the store in `path`.

    Raises:
        FormatError: made by a newer release. CorruptionError: not parameters.
    """
    try:
        version = msgspec.msgpack.decode(record)[0]
        if version > FORMAT_VERSION:
            message = f"the store {path} has format {version}; this release reads up to {FORMAT_VERSION}; nothing was changed"
            raise FormatError(message, hint="use a newer yester with this store")
        parameters = msgspec.msgpack.decode(record, type=Parameters)
    except (msgspec.DecodeError, ValueError, TypeError, IndexError, KeyError, RecursionError, LimitError) as error:
        raise _damaged_parameters(path, str(error)) from error
    if version != (PLAIN_VERSION if parameters.encryption is None else ENCRYPTED_VERSION):
        raise _damaged_parameters(path, f"format {version} does not go with what follows")
    return parameters


def _damaged_parameters(path: Path, problem: str) -> CorruptionError:
    message = f"the parameters of the store {path} are damaged: {problem}"
    return CorruptionError(message, hint="run `yester repair`, or restore the store from a copy; keep the damaged file until then")

# SPDX-License-Identifier: MIT
"""Cutting file bytes into chunks by content (docs/format.md §3).

The same bytes and parameters give the same chunks on every machine and release; a changed byte changes the chunk that
holds it and rarely more than one neighbour. The cutting itself is pyfastcdc.

In an encrypted store where files are cut depends on a secret: with a known table the sizes of a file's chunks would tell which file it is.
pyfastcdc takes a seed, which it adds (xor) to each number of its table; FastCDC looks at 48 bits of its hash, so no more of it counts. That
is enough as long as nobody sees where a file was cut: whoever did could solve for the seed. So the sizes of chunks are sealed as well.

References: Xia et al., "The Design of Fast Content Defined Chunking", IEEE TPDS 2020; Truong et al., "Breaking and Fixing
Content-Defined Chunking", 2025, on solving for such secrets.
"""

from collections.abc import Callable, Iterator

import msgspec
from pyfastcdc import FastCDC

from yester.errors import LimitError

KIB = 1024
CUTTING_SECRET_BYTES = 8


class ChunkParams(msgspec.Struct, frozen=True, array_like=True):
    """Sizes in bytes. Stored with each store, and never changed in it: other values would find no duplicates.

    `avg_bytes` is FastCDC's target *beyond* `min_bytes`, so random data comes out at about their sum.
    """

    min_bytes: int = 64 * KIB
    avg_bytes: int = 256 * KIB
    max_bytes: int = 1024 * KIB

    def __post_init__(self) -> None:
        is_ordered = 64 <= self.min_bytes <= self.avg_bytes <= self.max_bytes <= 1024 * KIB
        # pyfastcdc cuts no smaller than these.
        is_known = self.avg_bytes >= 256 and self.max_bytes >= KIB
        if not is_ordered or not is_known or self.avg_bytes & (self.avg_bytes - 1):
            sizes = f"{self.min_bytes}/{self.avg_bytes}/{self.max_bytes}"
            message = f"chunk sizes {sizes} break 64 ≤ min ≤ avg ≤ max ≤ 1 MiB, 256 ≤ avg, 1 KiB ≤ max, avg a power of 2"
            raise LimitError(message)


class SecretChunkParams(ChunkParams, frozen=True, array_like=True):
    """Parameters with what makes the cuts of an encrypted store its own. Never stored: made from the key each time."""

    seed: int = 0

    def __repr__(self) -> str:
        return f"SecretChunkParams({self.min_bytes}, {self.avg_bytes}, {self.max_bytes}, …)"


def secret_params(params: ChunkParams, secret: bytes) -> SecretChunkParams:
    """The parameters with a secret of `CUTTING_SECRET_BYTES` random bytes in them (docs/format.md §3)."""
    assert len(secret) == CUTTING_SECRET_BYTES
    # pyfastcdc takes 63 bits, and 0 for no seed.
    return SecretChunkParams(params.min_bytes, params.avg_bytes, params.max_bytes, int.from_bytes(secret, "little") >> 2 | 1)


class Chunker:
    """Cuts one file after another. Not thread-safe: one a thread."""

    def __init__(self, params: ChunkParams) -> None:
        self.params = params
        self._window_bytes = 4 * params.max_bytes
        self._cdc = FastCDC(
            params.avg_bytes,
            min_size=params.min_bytes,
            max_size=params.max_bytes,
            normalized_chunking=2,
            seed=params.seed if isinstance(params, SecretChunkParams) else 0,
        )

    def cut(self, read: Callable[[int], bytes], *, is_short: bool = False) -> Iterator[memoryview]:
        """Cut a stream into chunks, in order, covering it exactly; an empty stream gives none.

        `read(n)` returns 1..n bytes, or none at the end. Each chunk has at most `max_bytes`, and at least `min_bytes`
        unless it is the last. A chunk is a view of memory that stays valid as long as somebody holds the view.
        O(window) memory: the cuts do not depend on how the stream was read in pieces. With `is_short`, for those who expect to
        need few chunks, no more is read ahead than the largest chunk.
        """
        window_bytes = self.params.max_bytes if is_short else self._window_bytes
        buffer = b""
        at_end = False
        while not at_end or buffer:
            while not at_end and len(buffer) < window_bytes:
                piece = read(window_bytes - len(buffer))
                at_end = not piece
                buffer = buffer + piece if buffer else piece
            view = memoryview(buffer)
            used = 0
            for chunk in self._cdc.cut_buf(buffer):
                # A cut this near to the end of the window might fall elsewhere once more bytes are seen.
                if not at_end and len(buffer) - chunk.offset < self.params.max_bytes:
                    break
                used = chunk.offset + chunk.length
                yield view[chunk.offset : used]
            buffer = buffer[used:]

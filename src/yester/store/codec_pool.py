# SPDX-License-Identifier: MIT
"""Threads that encode and decode segments: neither zstd nor AES nor BLAKE3 needs the interpreter, so they use all cores."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from yester.store.segments import COMPRESSION_LEVEL, Codec

if TYPE_CHECKING:
    from yester.store.keys import StoreKey

_THREADS_MAX = 4
Item = TypeVar("Item")
Result = TypeVar("Result")


class CodecPool:
    """A few threads, each with a codec of its own, since these are not thread-safe. A context manager; any thread may use it."""

    def __init__(self, key: "StoreKey | None", name: str, *, level: int = COMPRESSION_LEVEL) -> None:
        """`key` and `level` as for `Codec`; `name` is that of the threads."""
        self._key = key
        self._level = level
        self._codecs = threading.local()
        self._threads = ThreadPoolExecutor(max_workers=max(1, min(_THREADS_MAX, os.cpu_count() or 1)), thread_name_prefix=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """What waits is done first; see `cancel`."""
        self._threads.shutdown()

    def submit(self, work: Callable[[Codec], Result]) -> "Future[Result]":
        """Have `work` done with a codec on one of the threads."""
        return self._threads.submit(lambda: work(self._codec()))

    def map(self, work: Callable[[Codec, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results of `work` for each item, in order."""
        return self._threads.map(lambda item: work(self._codec(), item), items)

    def cancel(self) -> None:
        """End it; what waits is not done."""
        self._threads.shutdown(cancel_futures=True)

    def _codec(self) -> Codec:
        codec: Codec | None = getattr(self._codecs, "codec", None)
        if codec is None:
            codec = self._codecs.codec = Codec(self._key, level=self._level)
        return codec

# SPDX-License-Identifier: MIT
"""Committing a live folder: in order, in groups, on another thread, while work in the folder goes on (docs/adr/0007).

One task, `run`, takes what was changed, has it committed on a worker thread, and takes the next: so commits follow each other as
what they hold did, and one commit serves all that wait for one. Between two there is at most `interval_s`.

A commit that fails is tried again, before anything later: at the next call of `sync` and every `interval_s`. Whoever waits
meanwhile gets the error and the folder stays readable; when there is room again, work goes on. Nothing that was changed is lost
by it while this process lives.

Threads: everything here belongs to the trio loop, but `apply`, which runs on a worker thread, one at a time.
"""

import errno
import logging
import os
from collections.abc import Callable

import trio

from yester.errors import LimitError, YesterError
from yester.fs.live import LiveTree
from yester.store.live import LiveChange
from yester.store.snapshots import StoredSnapshot

INTERVAL_S = 1.0
"""What may be lost of what nobody asked to have synced."""

PENDING_BYTES_MAX = 32 * 1024 * 1024
"""Written bytes in memory, those being committed included. Whoever writes more waits: memory must not grow with what is written."""

COMMIT_BYTES = 8 * 1024 * 1024
"""Written bytes that are worth a commit: the disk is at work while more are written."""

RESERVED_BYTES = 16 * 1024 * 1024
"""Of the disk, so that what was accepted can be committed: the pages of the tables besides the bytes themselves."""

_log = logging.getLogger(__name__)


class Journal:
    """Commits what a `LiveTree` takes note of.

    `apply` makes a change durable or raises one of our errors; `free_bytes` is what the disk of the store has left.
    """

    def __init__(
        self,
        tree: LiveTree,
        apply: Callable[[LiveChange], StoredSnapshot | None],
        free_bytes: Callable[[], int],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._tree = tree
        self._apply = apply
        self._free_bytes = free_bytes
        self._interval_s = interval_s
        self._taken = 0
        """How many changes were taken from the tree."""
        self._committed = 0
        """How many of them are in the store."""
        self._waiting: LiveChange | None = None
        """The one that was taken and is not committed yet."""
        self.failure: int | None = None
        """Why the last attempt to commit failed, as an error number; None if it did not."""
        self.last_published: StoredSnapshot | None = None
        """The last snapshot that was committed with a change."""
        self.waiting = 0
        """How many tasks wait for a commit."""
        self._wanted = trio.Event()
        self._attempted = trio.Event()
        """Each is replaced once it was set."""

    async def run(self) -> None:
        """Commit, again and again, until cancelled. What is being committed then is still committed."""
        while True:
            with trio.move_on_after(self._interval_s):
                await self._wanted.wait()
            self._wanted = trio.Event()
            await self._commit()
            self._attempted.set()
            self._attempted = trio.Event()

    async def sync(self) -> None:
        """Wait until all that was changed so far is in the store.

        Raises:
            OSError: ENOSPC or EIO, it could not be committed. It still will be if that passes, but nothing is promised.
        """
        target = self._taken + self._tree.has_changes
        while self._committed < target:
            await self._wait_for_attempt()

    async def make_room(self, count: int) -> None:
        """Wait until `count` bytes may be written.

        Raises:
            OSError: ENOSPC, the disk has no room for them; EIO, what was written before cannot be committed.
        """
        if self.writable_bytes() < count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._tree.untaken_bytes >= COMMIT_BYTES:
            self._wanted.set()
        while self._tree.pending_bytes and self._tree.pending_bytes + count > PENDING_BYTES_MAX:
            await self._wait_for_attempt()

    @property
    def is_awaited(self) -> bool:
        """Whether it has something to do that should not be kept waiting."""
        return self.waiting > 0 or self._wanted.is_set()

    def writable_bytes(self) -> int:
        """How many bytes may still be written before the disk is full."""
        return max(0, self._free_bytes() - self._tree.pending_bytes - RESERVED_BYTES)

    async def _wait_for_attempt(self) -> None:
        self._wanted.set()
        self.waiting += 1
        try:
            await self._attempted.wait()
        finally:
            self.waiting -= 1
        if self.failure is not None:
            raise OSError(self.failure, os.strerror(self.failure))

    async def _commit(self) -> None:
        if self._waiting is None:
            self._waiting = self._tree.take_change()
            if self._waiting is None:
                return
            self._taken += 1
        change = self._waiting
        try:
            published = await trio.to_thread.run_sync(self._apply, change)
        except YesterError as error:
            if self.failure is None:
                _log.error("the live folder cannot be committed, and is tried again: %s", error.message)
            self.failure = errno.ENOSPC if isinstance(error, LimitError) else errno.EIO
            return
        except Exception:  # noqa: BLE001 (the folder stays readable, and whoever syncs is told)
            _log.exception("the live folder cannot be committed, and is tried again")
            self.failure = errno.EIO
            return
        if self.failure is not None:
            _log.warning("the live folder is committed again")
        self.failure = None
        self._waiting = None
        self._committed += 1
        self.last_published = published or self.last_published
        self._tree.committed(change)

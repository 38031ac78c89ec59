# SPDX-License-Identifier: MIT
"""A live folder in use: its tree, its journal, and the task that makes versions of it, without FUSE (docs/adr/0007).

A version is made when the folder was quiet for `quiet_s`, at the latest `interval_s` after the first change, at once where very much
changed, and on request. Its storing runs on a worker thread; work in the folder goes on. Now and then, after one was made, old versions are
thinned out by a policy, which never takes the newest: the folder is based on it.

Threads: everything here belongs to the trio loop, but what is handed to worker threads.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import msgspec
import trio

from yester.core.records import Added, Entry, Snapshot
from yester.core.retention import KEEP_ALL, LIVE_POLICY, Policy
from yester.engine.forget import thin
from yester.engine.history import file_history
from yester.engine.live_base import BaseReader
from yester.engine.live_version import Cut, StoredVersion, is_same_version, snapshot_of, store_version
from yester.engine.trees import TreeReader
from yester.errors import BusyError, ConflictError, NotFoundError, StoreAccessError, StoreFullError, YesterError
from yester.fs.journal import Journal
from yester.fs.live import LiveTree
from yester.fs.live_nodes import fail, random_node_id
from yester.fs.live_orders import LiveStatus, Order, Report
from yester.fs.live_start import empty_start, start_from
from yester.fs.rewind import Rewind, Touched
from yester.store.live import LiveFolders, LiveHead, LiveRows, naming, source_of
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

_LOOK_EVERY_S = 0.5
_TURN_S = 0.02
"""So long a rewinding may keep everybody else waiting at a time."""
_SECOND_NS = 10**9
_RETRY_S = 30.0
"""After a version could not be made."""
_THIN_EVERY_S = 600.0
"""Looking at 10,000 versions takes a third of a second, and what is thinned is at least an hour old."""
_NODES_MAX = 20_000
"""Changed nodes: each takes about a kilobyte of memory until it is in a version."""
_EXTENTS_MAX = 250_000
"""Each takes 200 bytes of memory, and moves others when it comes between them."""
_DIRTY_BYTES_MAX = 8 * 1024 * 1024 * 1024
"""Written bytes that are in no version take their full size in the store."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """When versions are made by themselves."""

    quiet_s: float = 10.0
    interval_s: float = 300.0
    is_a_second_apart: bool = True
    """So that each version has a second, and so a name, of its own."""


@contextmanager
def open_folder(store: Store, name: str, *, start: Entry | None = None, make: bool = False) -> Iterator[LiveRows]:
    """Hold a live folder, which one process at a time may. With `make` it is made if it is not there, from `start` if that is given.

    Raises:
        NotFoundError: there is none. ConflictError: there is one, and `start` is given. BusyError: another process holds it.
        StoreAccessError: the store may not be written.
    """
    folders = LiveFolders(store.environment)
    if store.environment.readonly:
        message = f"the store {store.path} may not be written; the live folder {name!r} was not opened"
        raise StoreAccessError(message, hint="see whose it is, and whether its disk is mounted read-only")
    if name in folders.names():
        if start is not None:
            message = f"there is a live folder {name!r} already; nothing was changed"
            raise ConflictError(message, hint="choose another name with --name, or leave --from out to go on with this one")
    elif make:
        with store.adding():
            next_node, nodes = empty_start(time.time_ns()) if start is None else start_from(store, start, time.time_ns())
            folders.create(name, next_node=next_node, nodes=nodes)

    def refuse(holder: str) -> None:
        message = f"the live folder {name!r} is in use by {holder}; nothing was changed"
        raise BusyError(message, hint="`yester status` says where it is mounted")

    head = folders.load_head(name)
    with folders.lock(head, refuse):
        yield folders.load(name)


class LiveSession:
    """One live folder in use; whoever makes it holds the folder (`open_folder`)."""

    def __init__(self, store: Store, name: str, rows: LiveRows, pace: Pace, policy: Policy = LIVE_POLICY) -> None:
        """Raises CorruptionError if the rows are those of no folder."""
        self.store = store
        self.name = name
        self._pace = pace
        self._policy = policy
        self._folders = LiveFolders(store.environment)
        self._head: LiveHead = rows.head
        with naming(name):
            self.tree = LiveTree(
                rows,
                BaseReader(store.reader()),
                read_committed=lambda extent: self._folders.read(self._head, extent),
                now_ns=time.time_ns,
                new_id=random_node_id,
            )
        self.journal = Journal(self.tree, lambda change: self._folders.apply(name, change), store.free_bytes)
        self._publishing = trio.Lock()
        self._uncommitted = ExitStack()
        """The lease for a version that is stored and could not be committed yet."""
        self._problem = ""
        self.report = Report(is_running=False)
        """How far the last order is."""
        self.forget_cached: Callable[[list[Touched]], None] = lambda _touched: None
        """Is told, on a worker thread, what was changed by others than the kernel."""
        self._orders, self._waiting_orders = trio.open_memory_channel[Order](1)

    async def run(self) -> None:
        """Commit, make versions, and carry out orders, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.journal.run)
            nursery.start_soon(self._carry_out_orders)
            await self._publish_now_and_then()

    def take_order(self, order: Order) -> None:
        """Have an order carried out; `report` tells how far it is. Raises EBUSY while another is."""
        if self.report.is_running:
            fail(errno.EBUSY)
        self.report = Report(is_running=True)
        self._orders.send_nowait(order)

    async def carry_out(self, order: Order) -> Report:
        """Carry an order out, and report. What went wrong is in the report."""
        try:
            first = await self.publish("" if order.snapshot else order.message, even_if_same=order.even_if_same)
            changes = 0
            if order.snapshot:
                changes = await self._rewind(order)
                first = await self.publish(order.message)
            self.report = Report(is_running=False, changes=changes, published=first.snapshot.name if first is not None else "")
        except YesterError as error:
            self.report = Report(is_running=False, error=error.message, hint=error.hint)
        except OSError as error:
            message = f"the live folder {self.name!r} could not be rewound: {error.strerror}; some of it may be"
            self.report = Report(is_running=False, error=message, hint="do it again, or rewind to the version before it")
        except Exception as error:  # noqa: BLE001 (the folder must go on)
            _log.exception("an order for the live folder %s failed unexpectedly", self.name)
            message = f"the live folder {self.name!r} could not do it: {error!r}"
            self.report = Report(is_running=False, error=message, hint="its log says more; some of it may be done")
        return self.report

    async def publish(self, message: str = "", *, even_if_same: bool = False) -> StoredSnapshot | None:
        """Make a version of what changed; None if nothing did. With `even_if_same` the last one is made again then, with this remark.

        Raises:
            YesterError: it could not be stored; all of it stays to be published.
        """
        async with self._publishing:
            published = await self._publish_changes(message)
            if published is None and even_if_same:
                await self._wait_for_next_second()
                published = await trio.to_thread.run_sync(self._publish_again, message)
            return published

    async def _publish_changes(self, message: str) -> StoredSnapshot | None:
        """As `publish`, of a folder that nobody else makes a version of meanwhile."""
        self._check_room()
        await self._wait_for_next_second()
        with ExitStack() as adding:
            adding.enter_context(self.store.adding())
            cut = self.tree.begin_version()
            if cut is None:
                self._problem = ""
                return None
            cut_ns = time.time_ns()
            try:
                await self._sync()  # also the version before this one
                self._uncommitted.close()
                version, snapshot = await trio.to_thread.run_sync(self._store, cut, message, cut_ns)
            except BaseException:
                self.tree.abandon_version()
                raise
            self.tree.finish_version(cut, version, snapshot)
            try:
                await self._sync()
            except YesterError:
                # The journal tries again, for as long as it takes, and what it commits names what was added.
                self._uncommitted = adding.pop_all()
                raise
        self._problem = ""
        return self.journal.last_published if snapshot is not None else None

    async def finish(self) -> None:
        """Make the last version before the process ends.

        Raises:
            YesterError: it could not be made; what was changed is committed as far as it could be.
        """
        try:
            await self.publish()
        finally:
            await self._sync()

    def status(self) -> LiveStatus:
        """How the folder is now."""
        changed_nodes, dirty_bytes = self.tree.waiting()
        return LiveStatus(
            dirty_bytes,
            changed_nodes,
            self.tree.pending_bytes,
            self._problem or (os.strerror(self.journal.failure) if self.journal.failure is not None else ""),
            self._head.number,
        )

    def count_versions(self, path: bytes) -> int:
        """In how many versions a path differs. Takes as long as looking into each; runs on any thread."""
        trees = TreeReader(self.store.reader())
        return sum(version.entry is not None for version in file_history(self.store, trees, source_of(self.name), path))

    def _check_room(self) -> None:
        """Leave what is reserved for commits to them: what was accepted must find room, versions can wait.

        Raises:
            StoreFullError: the disk may have too little room for a version.
        """
        if self.tree.dirty_bytes > self.journal.writable_bytes():
            message = f"the disk of the store {self.store.path} may have no room for a version of the live folder {self.name!r}"
            raise StoreFullError(message, hint="free space there; what was changed is in the store all the same")

    async def _carry_out_orders(self) -> None:
        async for order in self._waiting_orders:
            await self.carry_out(order)

    async def _rewind(self, order: Order) -> int:
        """Rewind, with a turn for others now and then; how many operations it took."""
        found = self.store.find_snapshots_by_id(order.snapshot)
        if not found or found[0].snapshot.source != source_of(self.name):
            message = f"the live folder {self.name!r} has no version {order.snapshot}; nothing was changed"
            raise NotFoundError(message)
        steps = Rewind(self.tree, TreeReader(self.store.reader())).run(found[0].snapshot.root, order.path)
        changes, is_done = 0, False
        while not is_done:
            touched: list[Touched] = []
            turn_s = trio.current_time() + _TURN_S
            while trio.current_time() < turn_s:
                try:
                    step = next(steps)
                except StopIteration:
                    is_done = True
                    break
                touched += [step] if step is not None else []
            changes += len(touched)
            self.report = Report(is_running=True, changes=changes)
            await trio.to_thread.run_sync(self.forget_cached, touched)
        return changes

    async def _wait_for_next_second(self) -> None:
        """Each version has a second of its own: a second one in a second takes the next, and a third waits for that."""
        latest = self.store.latest_snapshot(source_of(self.name))
        if latest is not None and self._pace.is_a_second_apart:
            next_ns = latest.snapshot.time_ns // _SECOND_NS * _SECOND_NS
            await trio.sleep(min(1.0, max(0, next_ns - time.time_ns()) / _SECOND_NS))

    def _store(self, cut: Cut, message: str, cut_ns: int) -> tuple[StoredVersion, Snapshot | None]:
        """Store a version, and make the snapshot to be published; none if it is as the last one. Runs on a worker thread."""
        version = store_version(self.store, cut, lambda extent: self._folders.read(self._head, extent))
        latest = self.store.latest_snapshot(source_of(self.name))
        if latest is not None:
            if is_same_version(version, latest.snapshot):
                return version, None
            cut_ns = self._after(latest.snapshot, cut_ns)
        return version, snapshot_of(version, source=source_of(self.name), message=message, cut_ns=cut_ns)

    def _publish_again(self, message: str) -> StoredSnapshot | None:
        """Publish the last version once more, with a remark; None if there is none. Runs on a worker thread."""
        latest = self.store.latest_snapshot(source_of(self.name))
        if latest is None:
            return None
        now_ns = self._after(latest.snapshot, time.time_ns())
        again = {"name": "", "time_ns": now_ns, "finished_ns": now_ns, "message": message, "added": Added()}
        return self.store.add_snapshot(msgspec.structs.replace(latest.snapshot, **again))

    def _after(self, latest: Snapshot, now_ns: int) -> int:
        """The time of the next version: it is newer than the one before, whatever the clock says."""
        apart_ns = _SECOND_NS if self._pace.is_a_second_apart else 1
        return max(now_ns, latest.time_ns // apart_ns * apart_ns + apart_ns)

    async def _sync(self) -> None:
        """As the journal's, with our errors."""
        try:
            await self.journal.sync()
        except OSError as error:
            message = f"the live folder {self.name!r} cannot be committed: {error.strerror}; what was changed is kept in memory"
            if error.errno == errno.ENOSPC:
                raise StoreFullError(message, hint="free space on the disk of the store") from error
            raise StoreAccessError(message, hint="see the log for why, and whether the disk of the store is sound") from error

    async def _try_to_publish(self) -> bool:
        """Whether a version could be made; if not, why is logged, and shown as the problem of the folder."""
        try:
            await self.publish()
        except YesterError as error:
            _log.error("no version of the live folder %s could be made: %s", self.name, error.message)
            self._problem = error.message
        except Exception as error:  # noqa: BLE001 (as above)
            _log.exception("no version of the live folder %s could be made", self.name)
            self._problem = repr(error)
        else:
            return True
        return False

    async def _thin(self) -> None:
        """Forget versions that the policy does not keep. What goes wrong is logged, and tried again another time."""
        source = source_of(self.name)
        try:
            await trio.to_thread.run_sync(lambda: thin(self.store, source, self._policy, now_ns=time.time_ns()))
        except YesterError as error:
            _log.error("the versions of the live folder %s could not be thinned out: %s", self.name, error.message)
        except Exception:  # noqa: BLE001 (the folder must go on)
            _log.exception("the versions of the live folder %s could not be thinned out", self.name)

    async def _publish_now_and_then(self) -> None:
        seen = first_s = last_s = 0.0
        retry_s = thin_s = 0.0
        kept_nodes = kept_bytes = kept_extents = 0
        done = self.tree.change_count if not self.tree.unpublished_nodes else -1
        while True:
            await trio.sleep(min(_LOOK_EVERY_S, self._pace.quiet_s / 2))
            now_s, count = trio.current_time(), self.tree.change_count
            if count == done or now_s < retry_s:
                continue
            if seen != count:
                first_s = first_s or now_s
                seen, last_s = count, now_s
            is_much = (
                self.tree.unpublished_nodes - kept_nodes > _NODES_MAX
                or self.tree.dirty_bytes - kept_bytes > _DIRTY_BYTES_MAX
                or self.tree.extent_count - kept_extents > _EXTENTS_MAX
            )
            if not (is_much or now_s - last_s >= self._pace.quiet_s or now_s - first_s >= self._pace.interval_s):
                continue
            if not await self._try_to_publish():
                retry_s = trio.current_time() + _RETRY_S
                continue
            done, first_s, seen = count, 0.0, 0.0
            # In the trash, or come meanwhile.
            kept_nodes, kept_bytes, kept_extents = self.tree.unpublished_nodes, self.tree.dirty_bytes, self.tree.extent_count
            if trio.current_time() >= thin_s:
                await self._thin()
                thin_s = trio.current_time() + _THIN_EVERY_S


def carry_out_alone(store: Store, name: str, order: Order) -> Report:
    """Carry an order out for a folder that is not mounted.

    Raises:
        YesterError: as `open_folder`. What goes wrong later is in the report.
    """
    return trio.run(_carry_out_alone, store, name, order)


async def _carry_out_alone(store: Store, name: str, order: Order) -> Report:
    with open_folder(store, name) as rows:
        # Here nobody knows its policy; versions thin out when it is mounted, or by `yester forget`.
        session = LiveSession(store, name, rows, Pace(), KEEP_ALL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            report = await session.carry_out(order)
            nursery.cancel_scope.cancel()
    return report

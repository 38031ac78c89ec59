# SPDX-License-Identifier: MIT
"""The pyfuse3 driver of a live folder: translates numbers, records and errors, and decides nothing (docs/adr/0007).

The kernel is the only one who changes a live folder, so it may keep what it is told for ever; what else changes (`rewind`) is
taken out of its cache. Handles of open files are inode numbers. Requests about `.snapshots`, whose numbers are above all others,
go to a driver of the snapshot mount.

Handlers await the journal where a person asked for it (`fsync`) or where memory must not grow (`write`, and what sets sizes and
attributes), before they change anything, and threads where old versions are looked for. Every other request is answered before the
next is looked at.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import pyfuse3
import trio

from yester.core.acl import ACCESS, DEFAULT
from yester.core.records import NAME_BYTES_MAX, check_text
from yester.errors import UsageError
from yester.fs.driver import DOTS, REQUEST_BYTES, SnapshotOperations, guarded
from yester.fs.live_nodes import ROOT, LiveNode, NewNode, Replacing
from yester.fs.live_orders import ORDER_XATTR, REPORT_XATTR, STATUS_XATTR, Order
from yester.fs.live_session import LiveSession
from yester.fs.old_versions import ROOT_INODE, SNAPSHOTS_NAME, open_versions, versions_of
from yester.fs.rewind import Touched
from yester.fs.view import BLOCK_BYTES, FOREVER_S
from yester.store.live import source_of

_XATTR_VALUE_BYTES_MAX = 65536
_ROW_BYTES = 4096
"""What a new node takes of the disk at most, a page: so that a full one is told to whoever makes something."""
_REPLACING = {
    0: Replacing.ALLOWED,
    pyfuse3.RENAME_NOREPLACE: Replacing.FORBIDDEN,
    pyfuse3.RENAME_EXCHANGE: Replacing.EXCHANGE,
}
_STATE, _VERSIONS = b"user.yester.state", b"user.yester.versions"
_ORDER, _REPORT, _STATUS = (name.encode() for name in (ORDER_XATTR, REPORT_XATTR, STATUS_XATTR))
"""Attributes that the mount answers and does not list: the first two of everything, the others of the root (`fs.live_control`)."""
_OUR_PREFIX = b"user.yester."

_log = logging.getLogger(__name__)


class LiveOperations(pyfuse3.Operations):
    """Answers the kernel out of a `LiveSession`."""

    is_os_error_an_answer = True
    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True
    """The kernel goes by access lists; keeping mode and lists together, and inheriting them, is left to the tree."""

    def __init__(self, session: LiveSession) -> None:
        super().__init__()
        self._session = session
        self._tree = session.tree
        self._journal = session.journal
        self._view = open_versions(session.store, source_of(session.name), self._tree.path)
        self._old = SnapshotOperations(self._view)
        session.forget_cached = _forget_cached
        self._listings: dict[int, tuple[int, list[bytes]]] = {}
        self._next_listing = 1

    def describe(self, arguments: Sequence[object]) -> str:
        """The path a request was about, for the log."""
        number = arguments[0] if arguments and isinstance(arguments[0], int) else ROOT
        try:
            path = self._tree.path(number)
        except OSError:
            path = b"?"
        if len(arguments) > 1 and isinstance(arguments[1], bytes):
            path += b"/" + arguments[1]
        return repr(path)[1:]

    # --- names ---

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Find a name. That there is none may be kept as well: it is the kernel that makes names."""
        if parent_inode >= ROOT_INODE:
            return await self._old.lookup(parent_inode, name, ctx)
        node = self._tree.find(parent_inode, name)
        if node is not None:
            return self._told(node)
        if name == SNAPSHOTS_NAME:
            found = versions_of(self._view, parent_inode)
            self._view.remember(found)
            return self._old.reply(found, FOREVER_S)
        absent = pyfuse3.EntryAttributes()
        absent.st_ino = pyfuse3.InodeT(0)
        absent.entry_timeout = FOREVER_S
        return absent

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel forgets nodes. Never raises."""
        for number, count in inode_list:
            if number >= ROOT_INODE:
                self._view.forget(number, count)
                continue
            try:
                self._tree.let_go(number, count)
            except OSError:
                _log.debug("node %d was forgotten that nobody knew", number)

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Make a file or special file."""
        return await self._make(parent_inode, name, NewNode(mode, ctx.uid, ctx.gid, rdev, umask=ctx.umask))

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Make a folder."""
        return await self._make(parent_inode, name, NewNode(stat.S_IFDIR | mode & 0o7777, ctx.uid, ctx.gid, umask=ctx.umask))

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Make a symlink."""
        return await self._make(parent_inode, name, NewNode(stat.S_IFLNK | 0o777, ctx.uid, ctx.gid, target=target))

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a file and open it."""
        reply = await self._make(parent_inode, name, NewNode(stat.S_IFREG | mode & 0o7777, ctx.uid, ctx.gid, umask=ctx.umask))
        self._tree.keep(reply.st_ino)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(reply.st_ino), keep_cache=True), reply

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Give a file one more name."""
        self._refuse_old(inode, new_parent_inode)
        await self._journal.make_room(_ROW_BYTES)
        self._refuse_reserved(new_parent_inode, new_name)
        return self._told(self._tree.link(inode, new_parent_inode, new_name))

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Take a name away."""
        self._refuse_old(parent_inode)
        self._tree.unlink(parent_inode, name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty folder."""
        self._refuse_old(parent_inode)
        self._refuse_reserved(parent_inode, name)
        self._tree.rmdir(parent_inode, name)

    @guarded
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: pyfuse3.RequestContext
    ) -> None:
        """Move a name."""
        self._refuse_old(parent_inode_old, parent_inode_new)
        self._refuse_reserved(parent_inode_old, name_old)
        self._refuse_reserved(parent_inode_new, name_new)
        if flags not in _REPLACING:
            raise pyfuse3.FUSEError(errno.EINVAL)
        self._tree.rename(parent_inode_old, name_old, parent_inode_new, name_new, _REPLACING[flags])

    @guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """A symlink's target."""
        if inode >= ROOT_INODE:
            return await self._old.readlink(inode, ctx)
        return self._tree.node(inode).target

    @property
    def is_reading(self) -> bool:
        """Whether an old version is being read, or gone back to: it must stay, whatever is forgotten."""
        return self._old.is_reading or self._session.report.is_running

    def call_when_idle(self, call: Callable[[], None]) -> None:
        """See `SnapshotOperations`."""
        self._old.call_when_idle(call)

    # --- attributes ---

    @guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """The attributes of a node."""
        if inode >= ROOT_INODE:
            return await self._old.getattr(inode, ctx)
        return _reply(self._tree.node(inode))

    @guarded
    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Change attributes. The kernel has judged who may."""
        self._refuse_old(inode)
        tree = self._tree
        before = tree.change_count
        if fields.update_size:
            await self._journal.make_room(0)
            tree.truncate(inode, attr.st_size, keeps_set_id=ctx.uid == 0)
        if fields.update_uid or fields.update_gid:
            tree.set_owner(inode, uid=attr.st_uid if fields.update_uid else None, gid=attr.st_gid if fields.update_gid else None)
        if fields.update_mode:
            tree.set_mode(inode, attr.st_mode)
        if fields.update_atime or fields.update_mtime:
            tree.set_times(
                inode,
                atime_ns=attr.st_atime_ns if fields.update_atime else None,
                mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            )
        if before == tree.change_count:
            tree.touch(inode)  # `chown` to what it is, as POSIX has it
        return _reply(tree.node(inode))

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Set an extended attribute."""
        self._refuse_old(inode)
        if inode == ROOT and name == _ORDER:
            if ctx.uid not in (0, os.geteuid()):  # who may write here need not be allowed what an order does
                raise pyfuse3.FUSEError(errno.EPERM)
            self._session.take_order(_decode_order(value))
            return
        if name.startswith(_OUR_PREFIX):
            raise pyfuse3.FUSEError(errno.EPERM)
        if len(value) > _XATTR_VALUE_BYTES_MAX:
            raise pyfuse3.FUSEError(errno.E2BIG)
        await self._journal.make_room(len(value))
        self._tree.set_xattr(inode, name, value)

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """One extended attribute."""
        if inode >= ROOT_INODE:
            if name in (ACCESS, DEFAULT) and name not in dict(self._view.xattrs(self._old.node(inode))):
                raise pyfuse3.FUSEError(pyfuse3.ENOATTR)  # "not supported" would have the kernel refuse everything
            return await self._old.getxattr(inode, name, ctx)
        if name.startswith(_OUR_PREFIX) and (ours := await self._our_xattr(inode, name)) is not None:
            return ours
        return self._tree.get_xattr(inode, name)

    @guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """Names of a node's extended attributes."""
        if inode >= ROOT_INODE:
            return await self._old.listxattr(inode, ctx)
        return sorted(self._tree.node(inode).xattrs)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an extended attribute."""
        self._refuse_old(inode)
        self._tree.remove_xattr(inode, name)

    # --- files ---

    @guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file; the kernel leaves it to us to empty it. Its pages in the kernel's cache stay good."""
        if inode >= ROOT_INODE:
            return await self._old.open(inode, flags, ctx)
        node = self._tree.keep(inode)
        try:
            if flags & os.O_TRUNC and node.size:
                self._tree.truncate(inode, 0, keeps_set_id=ctx.uid == 0)
        except BaseException:
            self._tree.let_go(inode)
            raise
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]  # pyfuse3 takes any buffer
        """Bytes of a file; EIO for a damaged part, never zeros."""
        if fh >= ROOT_INODE:
            return await self._old.read(fh, off, size)
        return self._tree.read(fh, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write into a file: into memory, from where it is committed within a second."""
        await self._journal.make_room(len(buf))
        return self._tree.write(fh, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """There is nothing to flush at a close: the kernel shall not ask again."""
        raise pyfuse3.FUSEError(errno.ENOSYS)

    @guarded
    async def release(self, fh: int) -> None:
        """Close a file."""
        if fh >= ROOT_INODE:
            await self._old.release(fh)
        else:
            self._tree.let_go(fh)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Wait until all that was changed so far is in the store."""
        await self._journal.sync()

    # --- folders ---

    @guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a folder."""
        if inode >= ROOT_INODE:
            return await self._old.opendir(inode, ctx)
        self._tree.keep(inode)
        handle = self._next_listing
        self._next_listing += 1
        self._listings[handle] = inode, []
        return handle

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a folder from cookie `start_id`, with all attributes.

        The names are those of when it was read from its beginning; what was removed since is left out. Cookies count names, `.` and
        `..` included.
        """
        if fh >= ROOT_INODE:
            await self._old.readdir(fh, start_id, token)
            return
        tree = self._tree
        number, names = self._listings[fh]
        folder = tree.node(number)
        if start_id == 0:
            names = tree.names(number)
            self._listings[fh] = number, names
        for cookie, dots in enumerate((b".", b".."), start=1):
            node = folder if cookie == 1 else tree.parent(number)
            if start_id < cookie and not pyfuse3.readdir_reply(token, dots, _reply(node), cookie):
                return
        for index in range(max(0, start_id - DOTS), len(names)):
            child = tree.find(number, names[index])
            if child is None:
                continue
            if not pyfuse3.readdir_reply(token, names[index], _reply(child), index + DOTS + 1):
                return
            tree.keep(child.number)

    @guarded
    async def releasedir(self, fh: int) -> None:
        """Close a folder."""
        if fh >= ROOT_INODE:
            await self._old.releasedir(fh)
            return
        number, _ = self._listings.pop(fh)
        self._tree.let_go(number)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """As `fsync`."""
        await self._journal.sync()

    @guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """The size of the store's disk, and what can still be written here."""
        disk = self._session.store.environment.disk()
        free = self._journal.writable_bytes() // disk.f_frsize
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = disk.f_frsize
        data.f_blocks = disk.f_blocks
        data.f_bfree = data.f_bavail = free
        data.f_files = 2**32 + free
        data.f_ffree = data.f_favail = free
        data.f_namemax = NAME_BYTES_MAX
        return data

    # --- helpers ---

    async def _make(self, parent: int, name: bytes, new: NewNode) -> pyfuse3.EntryAttributes:
        self._refuse_old(parent)
        await self._journal.make_room(_ROW_BYTES)
        self._refuse_reserved(parent, name)
        return self._told(self._tree.create(parent, name, new))

    def _told(self, node: LiveNode) -> pyfuse3.EntryAttributes:
        """The reply by which the kernel is told of a node once more."""
        self._tree.keep(node.number)
        return _reply(node)

    def _refuse_old(self, *numbers: int) -> None:
        """What is in `.snapshots` does not change."""
        if max(numbers) >= ROOT_INODE:
            raise pyfuse3.FUSEError(errno.EROFS)

    def _refuse_reserved(self, parent: int, name: bytes) -> None:
        """Nothing is made or moved over `.snapshots`."""
        if name == SNAPSHOTS_NAME and self._tree.find(parent, name) is None:
            raise pyfuse3.FUSEError(errno.EPERM)

    async def _our_xattr(self, number: int, name: bytes) -> bytes | None:
        node = self._tree.node(number)
        if name == _STATE:
            return b"clean" if node.is_published else b"dirty"
        if name == _VERSIONS:
            return b"%d" % await trio.to_thread.run_sync(self._session.count_versions, self._tree.path(number))
        if number == ROOT and name == _STATUS:
            return msgspec.json.encode(self._session.status())
        if number == ROOT and name == _REPORT:
            return msgspec.json.encode(self._session.report)
        return None


def _decode_order(value: bytes) -> Order:
    try:
        order = msgspec.json.decode(value, type=Order)
        order.path  # noqa: B018 (it raises for what is no hex)
        check_text(order.message)
    except (msgspec.DecodeError, ValueError, UsageError) as error:
        raise pyfuse3.FUSEError(errno.EINVAL) from error
    return order


def _forget_cached(touched: list[Touched]) -> None:
    """Have the kernel forget what it was told of names and nodes that others than itself changed.

    Not on the thread that serves: whoever holds the locks that this takes may be waiting for an answer.
    """
    for folder, name, node in touched:
        with suppress(OSError):  # the kernel does not know it
            if name:
                pyfuse3.invalidate_entry(pyfuse3.InodeT(folder), pyfuse3.FileNameT(name))
        for number in (folder, node):
            with suppress(OSError):
                pyfuse3.invalidate_inode(pyfuse3.InodeT(number))


def _reply(node: LiveNode) -> pyfuse3.EntryAttributes:
    """The reply for a node; the kernel may keep it."""
    reply = pyfuse3.EntryAttributes()
    reply.st_ino = pyfuse3.InodeT(node.number)
    reply.generation = 0
    reply.entry_timeout = FOREVER_S
    reply.attr_timeout = FOREVER_S
    reply.st_mode = pyfuse3.ModeT(node.mode)
    reply.st_nlink = node.nlink
    reply.st_uid = node.uid
    reply.st_gid = node.gid
    reply.st_rdev = node.rdev
    reply.st_size = node.size
    reply.st_blksize = REQUEST_BYTES
    reply.st_blocks = -(-node.stored_bytes // BLOCK_BYTES) if stat.S_ISREG(node.mode) else 0
    reply.st_atime_ns = node.atime_ns
    reply.st_mtime_ns = node.mtime_ns
    reply.st_ctime_ns = node.ctime_ns
    return reply

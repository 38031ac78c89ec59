# SPDX-License-Identifier: MIT
"""The pyfuse3 driver of the snapshot mount: translates numbers, records and errors, and decides nothing.

Every handler is wrapped once (`guarded`): an exception other than `FUSEError` that left one would end the whole mount.

Nothing here awaits but the loading of a versions folder, so each request is answered before the next is looked at.
Reading inline is faster than handing reads to a thread: 0.9 against 0.6 GB/s (docs/adr/0004).
"""

import errno
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

import pyfuse3
import trio

from yester.core.records import NAME_BYTES_MAX, Entry
from yester.errors import (
    BusyError,
    ConflictError,
    CorruptionError,
    FormatError,
    HookError,
    LimitError,
    LockedError,
    MountError,
    NotFoundError,
    StoreAccessError,
    StoreFullError,
    SweptError,
    TimerError,
    UsageError,
    YesterError,
)
from yester.fs.view import ArchivedNode, Folder, Node, View

_log = logging.getLogger(__name__)

ERRNO: dict[type[YesterError], int] = {
    YesterError: errno.EIO,
    UsageError: errno.EINVAL,
    NotFoundError: errno.ENOENT,
    ConflictError: errno.EEXIST,
    BusyError: errno.EAGAIN,
    SweptError: errno.EAGAIN,
    LockedError: errno.EACCES,
    CorruptionError: errno.EIO,
    FormatError: errno.EIO,
    LimitError: errno.EFBIG,
    StoreFullError: errno.ENOSPC,
    StoreAccessError: errno.EIO,
    TimerError: errno.EIO,
    MountError: errno.EIO,
    HookError: errno.EIO,
}
"""What a program sees of each of our errors; a test compares this with the error tree."""

REQUEST_BYTES = 128 * 1024
"""The kernel asks for so many bytes at once."""

DOTS = 2
"""`.` and `..` come first in each listing, at cookies 1 and 2."""

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])


class Describes(Protocol):
    """Can say what a request was about."""

    def describe(self, arguments: Sequence[object]) -> str:
        """The path a request with these arguments was about, for the log."""
        ...

    @property
    def is_os_error_an_answer(self) -> bool:
        """Whether an `OSError` is what the caller shall see, and nothing that went wrong."""
        ...


def guarded(handler: Handler) -> Handler:
    """Translate what a handler raises, so that only `FUSEError` reaches pyfuse3."""

    @functools.wraps(handler)
    async def guard(self: Describes, *arguments: Any) -> Any:  # noqa: ANN401 (any handler)
        try:
            return await handler(self, *arguments)
        except pyfuse3.FUSEError:
            raise
        except YesterError as error:
            _log.error("%s %s: %s", handler.__name__, self.describe(arguments), error.message)
            raise pyfuse3.FUSEError(ERRNO[type(error)]) from error
        except OSError as error:
            if not self.is_os_error_an_answer:
                _log.error("%s %s: %s", handler.__name__, self.describe(arguments), error)
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except Exception as error:
            _log.exception("%s %s failed unexpectedly", handler.__name__, self.describe(arguments))
            raise pyfuse3.FUSEError(errno.EIO) from error

    return cast("Handler", guard)  # the wrapper takes and returns what the handler does


class SnapshotOperations(pyfuse3.Operations):
    """Answers the kernel out of a `View`. File handles are inode numbers, so opening a file costs nothing."""

    is_os_error_an_answer = False
    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view
        self._listings: dict[int, tuple[Folder, list[tuple[bytes, Entry | None]]]] = {}
        self._next_listing: int = view.root.inode
        self._open_files = 0
        self._loads = 0
        """Of folders, on a thread."""
        self._on_idle: Callable[[], None] | None = None

    @property
    def is_reading(self) -> bool:
        """Whether a file or folder is open, or being loaded: what it shows must stay, whatever is forgotten."""
        return bool(self._open_files or self._listings or self._loads)

    def call_when_idle(self, call: Callable[[], None]) -> None:
        """From now on, have this called whenever the last open file or folder was closed: if many read, that lasts only for moments."""
        self._on_idle = call

    def _closed(self) -> None:
        if self._on_idle is not None and not self.is_reading:
            self._on_idle()

    def describe(self, arguments: Sequence[object]) -> str:
        """See `Describes`."""
        node = self._view.node(arguments[0]) if arguments and isinstance(arguments[0], int) else None
        path = node.path if node is not None else b"?"
        if len(arguments) > 1 and isinstance(arguments[1], bytes):
            path += b"/" + arguments[1]
        return repr(path)[1:]

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Find a name; a name that is not there is answered with a reply the kernel may keep."""
        if len(name) > NAME_BYTES_MAX:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        folder = self._folder(parent_inode)
        await self._load(folder)
        node = self._view.find(folder, name)
        valid_s = self._view.entry_valid_s(folder)
        if node is None:
            absent = pyfuse3.EntryAttributes()
            absent.st_ino = pyfuse3.InodeT(0)
            absent.entry_timeout = valid_s
            return absent
        self._view.remember(node)
        return self.reply(node, valid_s)

    @guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """The attributes of a node."""
        return self.reply(self.node(inode))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel forgets nodes. Never raises."""
        for inode, count in inode_list:
            self._view.forget(inode, count)

    @guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """A symlink's target."""
        target = self._view.read_link(self.node(inode))
        if target is None:
            raise pyfuse3.FUSEError(errno.EINVAL)
        return target

    @guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a folder: what it lists stays as it is now until it is closed."""
        folder = self._folder(inode)
        await self._load(folder)
        handle = self._next_listing
        self._next_listing += 1
        self._listings[handle] = folder, self._view.list(folder)
        return handle

    @guarded
    async def readdir(self, handle: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        """List a folder from cookie `start`, with all attributes. Cookies count entries, `.` and `..` included."""
        view = self._view
        folder, listing = self._listings[handle]
        for cookie, dots in enumerate((b".", b".."), start=1):
            node: Node = folder if cookie == 1 or folder.parent is None else folder.parent
            if start < cookie and not pyfuse3.readdir_reply(token, dots, self.reply(node), cookie):
                return
        valid_s = view.entry_valid_s(folder)
        for index in range(max(0, start - DOTS), len(listing)):
            name, entry = listing[index]
            node = view.child(folder, name, entry)
            if not pyfuse3.readdir_reply(token, name, self.reply(node, valid_s), index + DOTS + 1):
                view.drop_unknown(node)
                return
            node.lookups += 1

    @guarded
    async def releasedir(self, handle: int) -> None:
        """Close a folder."""
        del self._listings[handle]
        self._closed()

    @guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file for reading. Its pages in the kernel's cache stay good for ever."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & (os.O_TRUNC | os.O_CREAT):
            raise pyfuse3.FUSEError(errno.EROFS)
        node = self.node(inode)
        if isinstance(node, ArchivedNode) and not node.was_opened:
            node.was_opened = True
            if 0 < node.entry.size <= REQUEST_BYTES:
                self._store_pages(node)
        self._open_files += 1
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    @guarded
    async def read(self, handle: int, offset: int, size: int) -> bytes | memoryview:  # type: ignore[override]  # pyfuse3 takes any buffer
        """Bytes of a file; EIO for a damaged part, never zeros."""
        node = self.node(handle)
        assert isinstance(node, ArchivedNode)
        return self._view.read(node, offset, size)

    async def release(self, handle: int) -> None:
        """Close a file."""
        self._open_files -= 1
        self._closed()

    @guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """Names of a node's extended attributes."""
        return [name for name, _ in self._view.xattrs(self.node(inode))]

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """One extended attribute.

        Where no file of any snapshot has an attribute of this name, "not supported" makes `ls -l` and its like stop asking
        for every single file: 0.09 instead of 0.87 s for 10,000 files.
        """
        for known, value in self._view.xattrs(self.node(inode)):
            if known == name:
                return value
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR if self._view.index.may_have_xattr(name) else errno.EOPNOTSUPP)

    @guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """The size of the store's disk; nothing of it is free to write here."""
        disk = os.statvfs(self._view.store.path)
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = disk.f_frsize
        data.f_blocks = disk.f_blocks
        data.f_bfree = data.f_bavail = 0
        data.f_files = self._view.node_count()
        data.f_ffree = data.f_favail = 0
        data.f_namemax = NAME_BYTES_MAX
        return data

    def _store_pages(self, node: ArchivedNode) -> None:
        """Give the kernel a small file's bytes before it asks for them: a request less for nearly every file (docs/adr/0004).

        Only when it is opened for the first time. The kernel locks the pages of a file that it waits for, and would have this
        process wait for them, and so for itself. Of a file that was never open it cannot have asked for any.
        """
        with suppress(OSError, YesterError):  # then it will ask, and be told what is wrong
            data = self._view.read_small(node)
            pyfuse3.notify_store(node.inode, 0, data)  # type: ignore[arg-type]  # it takes any buffer

    async def _load(self, folder: Folder) -> None:
        pending = self._view.needs_load(folder)
        if pending is not None:
            self._loads += 1
            try:
                await trio.to_thread.run_sync(pending.load, self._view)
            finally:
                self._loads -= 1

    def node(self, inode: int) -> Node:
        """The node of a number. Raises ESTALE if the kernel has forgotten it."""
        node = self._view.node(inode)
        if node is None:
            raise pyfuse3.FUSEError(errno.ESTALE)
        return node

    def _folder(self, inode: int) -> Folder:
        node = self.node(inode)
        if not isinstance(node, Folder):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return node

    def reply(self, node: Node, entry_valid_s: float = 0.0) -> pyfuse3.EntryAttributes:
        """The reply for a node. Made anew each time: kept ones would save nothing that can be measured, and cost 230 bytes a file."""
        attributes = self._view.attributes(node)
        reply = pyfuse3.EntryAttributes()
        reply.st_ino = pyfuse3.InodeT(attributes.inode)
        reply.generation = 0
        reply.entry_timeout = entry_valid_s
        reply.attr_timeout = attributes.valid_s
        reply.st_mode = pyfuse3.ModeT(attributes.mode)
        reply.st_nlink = attributes.nlink
        reply.st_uid = attributes.uid
        reply.st_gid = attributes.gid
        reply.st_rdev = attributes.rdev
        reply.st_size = attributes.size
        reply.st_blksize = REQUEST_BYTES
        reply.st_blocks = attributes.blocks
        reply.st_atime_ns = attributes.atime_ns
        reply.st_mtime_ns = attributes.mtime_ns
        reply.st_ctime_ns = attributes.mtime_ns
        return reply

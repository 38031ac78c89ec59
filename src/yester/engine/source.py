# SPDX-License-Identifier: MIT
"""Reading one file, folder or special file of the host: its bytes and everything about it.

Names are looked up below an open directory, never by whole paths: paths longer than PATH_MAX work, and a folder that is
renamed or replaced by a symlink during a backup cannot lead it astray. Special files are never opened.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from yester.core.chunking import Chunker, ChunkParams
from yester.core.content import EMPTY, HOLE, Content, ContentBuilder, pack_span
from yester.core.ids import ChunkId
from yester.core.records import TIME_NS_MAX, Entry, Extra

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that took a regular file's place between stat and open must not hang the backup.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GROWTH_BYTES_MAX = 16 * 1024 * 1024
"""Of a file that grows while it is read, no more is read: a log that is written as fast as it is read would never end."""
_NO_XATTRS = (errno.EOPNOTSUPP, errno.ENODATA)

StoreChunk = Callable[[bytes | memoryview], ChunkId]
Report = Callable[[str], None]
"""Hears what of a file is not in the snapshot although the file is."""


class FileBytes(NamedTuple):
    """A file's bytes as they were read: `size` counts what was read, holes included."""

    content: Content
    size: int
    hole_bytes: int


class ReadFile(NamedTuple):
    """A regular file that was read. `status` is from after the reading. `is_torn`: it changed meanwhile, twice."""

    data: FileBytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    status: os.stat_result
    is_torn: bool


class SourceReader:
    """Reads files and metadata of one backup run. Not thread-safe.

    `store_data` takes a run of file bytes and `store_list` a span list; both return the id it is stored under.
    """

    def __init__(self, params: ChunkParams, *, store_data: StoreChunk, store_list: StoreChunk) -> None:
        self._chunker = Chunker(params)
        self._small_bytes_max = params.min_bytes
        self._store_data = store_data
        self._store_list = store_list
        self._without_xattrs: set[int] = set()
        self._may_keep_atime = True

    def read_file(self, directory: int, name: bytes, status: os.stat_result, report: Report) -> ReadFile:
        """Read a regular file that had this status a moment ago; once more if it changed since or while being read.

        `report` as in `read_xattrs`.

        Raises:
            OSError: it cannot be opened or read, or is no regular file any more.
        """
        file = self._open(directory, name)
        try:
            before = status
            for is_last_try in (False, True):
                data = self._read_bytes(file, before)
                xattrs = self.read_xattrs(file, before, report)
                after = os.fstat(file)
                is_torn = data.size != after.st_size or not _is_same_file(before, after)
                if not stat.S_ISREG(after.st_mode):
                    break
                if not is_torn or is_last_try:
                    return ReadFile(data, xattrs, after, is_torn)
                os.lseek(file, 0, os.SEEK_SET)
                before = after
            raise OSError(errno.ESTALE, "it was replaced by something else while it was being read")
        finally:
            os.close(file)

    def read_xattrs(self, file: int | bytes, status: os.stat_result, report: Report) -> tuple[tuple[bytes, bytes], ...]:
        """Extended attributes of an open file or of a path whose last component is not followed, sorted by name.

        One that is there but cannot be read is left out, and `report` hears why.
        """
        if status.st_dev in self._without_xattrs:
            return ()
        follow = isinstance(file, int)
        try:
            names = os.listxattr(file, follow_symlinks=follow)
        except OSError as error:
            if error.errno in _NO_XATTRS:
                self._without_xattrs.add(status.st_dev)
            else:
                report(f"its extended attributes cannot be listed, and are left out: {error.strerror}")
            return ()
        found = []
        for name in names:
            try:
                found.append((os.fsencode(name), os.getxattr(file, name, follow_symlinks=follow)))
            except OSError as error:
                if error.errno not in _NO_XATTRS:
                    report(f"its attribute {name} cannot be read, and is left out: {error.strerror}")
        return tuple(sorted(found))

    def _open(self, directory: int, name: bytes) -> int:
        # Reading must not change the access time, where we are allowed to ask for that (owner or root).
        if self._may_keep_atime:
            try:
                return os.open(name, _OPEN_FILE | os.O_NOATIME, dir_fd=directory)
            except PermissionError:
                file = os.open(name, _OPEN_FILE, dir_fd=directory)
                self._may_keep_atime = os.geteuid() == os.fstat(file).st_uid
                return file
        return os.open(name, _OPEN_FILE, dir_fd=directory)

    def _read_bytes(self, file: int, status: os.stat_result) -> FileBytes:
        size = status.st_size
        if size <= self._small_bytes_max:
            data = os.read(file, size + 1)
            if len(data) == size:
                return FileBytes(Content(0, pack_span(self._store_data(data), size)), size, 0) if size else FileBytes(EMPTY, 0, 0)
            os.lseek(file, 0, os.SEEK_SET)
        builder = ContentBuilder(self._store_list)
        if status.st_blocks * 512 < size:
            return self._read_sparse(file, builder)
        read = _bounded_read(file, size + _GROWTH_BYTES_MAX)
        size = 0
        for chunk in self._chunker.cut(read):
            builder.add(self._store_data(chunk), len(chunk))
            size += len(chunk)
        return FileBytes(builder.finish(), size, 0)

    def _read_sparse(self, file: int, builder: ContentBuilder) -> FileBytes:
        """Read the data between the holes. A file system without SEEK_DATA reports one run of data."""
        position = hole_bytes = 0
        size = os.fstat(file).st_size
        while position < size:
            try:
                start = os.lseek(file, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                start = size
            if start > position:
                builder.add(HOLE, start - position)
                hole_bytes += start - position
                position = start
                continue
            end = os.lseek(file, start, os.SEEK_HOLE)
            os.lseek(file, start, os.SEEK_SET)
            for chunk in self._chunker.cut(_bounded_read(file, end - start)):
                builder.add(self._store_data(chunk), len(chunk))
                position += len(chunk)
            if position < end:
                break
        return FileBytes(builder.finish(), position, hole_bytes)


def _is_same_file(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_ino == after.st_ino
        and before.st_dev == after.st_dev
    )


def _bounded_read(file: int, length: int) -> Callable[[int], bytes]:
    """A read function that ends after `length` bytes."""
    left = length

    def read(count: int) -> bytes:
        nonlocal left
        data = os.read(file, min(count, left))
        left -= len(data)
        return data

    return read


def special_content(directory: int, name: bytes, status: os.stat_result) -> bytes:
    """What an entry that is neither file nor folder holds: a symlink's target, else nothing.

    Raises:
        OSError: the link is gone.
    """
    return os.fsencode(os.readlink(name, dir_fd=directory)) if stat.S_ISLNK(status.st_mode) else b""


def make_entry(
    name: bytes, status: os.stat_result, content: Content, *, xattrs: tuple[tuple[bytes, bytes], ...] = (), data: FileBytes | None = None
) -> Entry:
    """The entry of something with this status; `data` where it is a regular file. Its times are the nearest that can be stored."""
    is_directory = stat.S_ISDIR(status.st_mode)
    nlink = 1 if is_directory else max(1, status.st_nlink)
    rdev = status.st_rdev if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode) else 0
    hole_bytes = data.hole_bytes if data else 0
    extra = None
    if nlink > 1 or rdev or xattrs or hole_bytes:
        link = (status.st_dev, status.st_ino) if nlink > 1 else (0, 0)
        extra = Extra(nlink, link, rdev, xattrs, hole_bytes)
    size = data.size if data else len(content.spans) if stat.S_ISLNK(status.st_mode) else 0
    return Entry(
        name,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        _storable_time(status.st_mtime_ns),
        _storable_time(status.st_atime_ns),
        size,
        content.level,
        content.spans,
        extra,
    )


def _storable_time(time_ns: int) -> int:
    return min(max(time_ns, -TIME_NS_MAX), TIME_NS_MAX)

# SPDX-License-Identifier: MIT
"""The kernel's inotify: hearing of changes in folders. Nothing here knows backups.

A folder is *watched*; what changes in it, not below its subfolders, gives events, which the kernel queues until they are read. Why not a
package: docs/adr/0010. For one thread.

Reference: inotify(7).
"""

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import Self

_IN_MODIFY = 0x2
_IN_ATTRIB = 0x4
_IN_CLOSE_WRITE = 0x8
_IN_MOVED = 0xC0
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_DELETE_SELF = 0x400
_IN_MOVE_SELF = 0x800
_IN_UNMOUNT = 0x2000
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x0100_0000
_IN_EXCL_UNLINK = 0x0400_0000
_IN_ISDIR = 0x4000_0000

_WANTED = (
    _IN_MODIFY | _IN_ATTRIB | _IN_CLOSE_WRITE | _IN_MOVED | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
    | _IN_ONLYDIR | _IN_EXCL_UNLINK
)  # fmt: skip
"""Changes, and no reading: a backup opens and reads everything, and must not fill the queue with what it does itself."""

_NEW = 0x80 | _IN_CREATE
_HEAD = struct.Struct("iIII")
_READ_BYTES = 1 << 16
_READS_MAX = 1024
"""So many reads at a time, about a million events, that whoever writes without pause cannot keep the reader."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `watch` is that of the folder in which it was, -1 if all folders may have changed: the queue was full.

    `name` is the entry that changed; empty for the folder itself.
    """

    watch: int
    name: bytes = b""
    is_folder: bool = False
    is_new: bool = False
    """Whether the entry appeared, made there or moved there."""
    has_ended: bool = False
    """Whether this watch is over: the folder is gone, or its file system was unmounted. Its number is not used again."""
    is_elsewhere: bool = False
    """Whether the folder itself was moved, deleted or unmounted."""

    @property
    def is_overflow(self) -> bool:
        """Whether events were lost."""
        return self.watch < 0


class Inotify:
    """One queue of events. A context manager; `fileno` is readable when there are events."""

    def __init__(self) -> None:
        """Raises OSError; with EMFILE this user has too many (fs.inotify.max_user_instances), or this process too many open files."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _last_error()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all watches. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """For `select`."""
        return self._descriptor

    def watch(self, folder: int) -> int:
        """Watch an open folder; the number that its events will have, which for one that is watched already is the same again. 5 µs.

        Raises:
            OSError: it cannot be watched; with ENOSPC it is one too many for this user (fs.inotify.max_user_watches).
        """
        number: int = self._libc.inotify_add_watch(self._descriptor, b"/proc/self/fd/%d" % folder, _WANTED)
        if number < 0:
            raise _last_error()
        return number

    def unwatch(self, number: int) -> None:
        """End a watch; nothing if it is over."""
        self._libc.inotify_rm_watch(self._descriptor, number)

    def read(self) -> list[Event]:
        """The events there are, oldest first; waits for none."""
        events: list[Event] = []
        for _ in range(_READS_MAX):
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                break
            events += _decode(data)
        return events


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _decode(data: bytes) -> list[Event]:
    events = []
    at = 0
    while at < len(data):
        watch, mask, _, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + length].rstrip(b"\0")
        at += length
        events.append(
            Event(
                -1 if mask & _IN_Q_OVERFLOW else watch,
                name,
                is_folder=bool(mask & _IN_ISDIR),
                is_new=bool(mask & _NEW),
                has_ended=bool(mask & _IN_IGNORED),
                is_elsewhere=bool(mask & (_IN_DELETE_SELF | _IN_MOVE_SELF | _IN_UNMOUNT)),
            )
        )
    return events

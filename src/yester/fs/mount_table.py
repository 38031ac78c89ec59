# SPDX-License-Identifier: MIT
"""The mounts of this machine that are ours, and whether those who serve them are alive. Mounts nothing."""

import errno
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from yester.errors import BusyError
from yester.store.live import source_of

FSTYPE = "fuse.yester"
LIVE_MARK = b":live/"
"""Between the store and the name of a live folder in the mount table."""
_ANSWER_WAIT_S = 5.0
"""A mount answers within milliseconds, on a busy machine within a second."""


@dataclass(frozen=True, slots=True)
class MountedAt:
    """One line of the system's mount table."""

    path: Path
    fstype: str
    source: str
    device: int

    @property
    def store(self) -> Path:
        """The store that one of our mounts shows."""
        before, mark, after = self.source.rpartition(os.fsdecode(LIVE_MARK))
        return Path(before if mark else after)

    @property
    def live_name(self) -> str:
        """The live folder that it is; empty for a mount of snapshots."""
        _, mark, after = self.source.rpartition(os.fsdecode(LIVE_MARK))
        return after if mark else ""

    @property
    def is_ours(self) -> bool:
        """Whether yester made it."""
        return self.fstype == FSTYPE

    def shows(self, store: Path) -> bool:
        """Whether it is ours, and of this store."""
        return self.is_ours and os.path.realpath(self.store) == os.path.realpath(store)

    def is_dead(self) -> bool:
        """Whether the process that served it is gone.

        Raises:
            BusyError: it is there, but does not answer.
        """
        answers: Queue[int] = Queue()
        # A thread, since nothing but an answer or the end of this process ends the call.
        threading.Thread(target=_ask_for_answer, args=(self.path, answers), daemon=True).start()
        try:
            return answers.get(timeout=_ANSWER_WAIT_S) in (errno.ENOTCONN, errno.ECONNABORTED)
        except Empty:
            message = f"the process that serves {self.path} is there but does not answer; nothing was changed"
            raise BusyError(message, hint=f"take the mount away with `yester umount --lazy {self.path}`, then end that process") from None


def _ask_for_answer(path: Path, answers: "Queue[int]") -> None:
    """Put the error number of asking for what the kernel never remembers (`stat` may still be answered); 0 if there is none."""
    try:
        os.statvfs(path)
        answers.put(0)
    except OSError as error:
        answers.put(error.errno or errno.EIO)


def mounts() -> list[MountedAt]:
    """The mount table of this process, in the order of mounting."""
    return parse_mount_table(Path("/proc/self/mountinfo").read_bytes())


def parse_mount_table(table: bytes) -> list[MountedAt]:
    """The lines of a `mountinfo` (proc_pid_mountinfo(5)).

    Bytes: a mount point may hold any, and only blanks, tabs, newlines and backslashes are escaped in it. What Python takes for
    white space or a line's end in text is more than that.
    """
    found = []
    for line in filter(None, table.split(b"\n")):
        left, _, right = line.partition(b" - ")
        fields, (fstype, source, *_) = left.split(b" "), right.split(b" ")
        major, minor = fields[2].split(b":")
        path = Path(os.fsdecode(_unescape(fields[4])))
        found.append(MountedAt(path, os.fsdecode(fstype), os.fsdecode(_unescape(source)), os.makedev(int(major), int(minor))))
    return found


def innermost(table: Sequence[MountedAt], path: Path) -> MountedAt | None:
    """The mount that a path is in: of several at one place the last, which hides the others."""
    around = [mount for mount in table if path.is_relative_to(mount.path)]
    return max(reversed(around), key=lambda mount: len(mount.path.parts), default=None)


def find_place(store: Path, path: Path) -> tuple[str, bytes] | None:
    """The source and the path in it of something in a live folder of this store that is mounted; None for all else."""
    absolute = Path(os.path.abspath(path))
    resolved = Path(os.path.realpath(absolute.parent)) / absolute.name  # a symlink is a thing of its own
    mount = innermost(mounts(), resolved)
    if mount is None or not mount.live_name or not mount.shows(store):
        return None
    inner = os.fsencode(resolved.relative_to(mount.path))
    return source_of(mount.live_name), b"" if inner == b"." else inner


def find_mount(path: Path) -> MountedAt | None:
    """The topmost mount at exactly this path; None if nothing is mounted there. Does not touch the mount."""
    table = mounts()
    for wanted in _resolved(path):
        found = next((mount for mount in reversed(table) if mount.path == wanted), None)
        if found is not None:
            return found
    return None


def _resolved(path: Path) -> Iterator[Path]:
    """The path without symlinks: first as if its last component were none, since looking at it may wait for a process that hangs."""
    absolute = Path.cwd() / path
    if absolute.name != "..":
        yield Path(os.path.realpath(absolute.parent)) / absolute.name
    yield Path(os.path.realpath(absolute))


def _unescape(field: bytes) -> bytes:
    """A field of the mount table, where blank, tab, newline and backslash are octal escapes."""
    return re.sub(rb"\\([0-7]{3})", lambda escape: bytes([int(escape[1], 8)]), field)

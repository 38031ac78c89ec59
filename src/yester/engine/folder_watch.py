# SPDX-License-Identifier: MIT
"""Hearing of changes in all folders that a backup reads, and of no others.

The scan itself says which: it calls `enter` for each folder before it lists it. So whatever changes after it was listed gives an event;
folders that rules leave out are never watched, nor symlinks followed; and each backup puts right what is watched, also after a limit
was hit or events were lost. Between backups a new folder is watched at once, so that a tree that is being copied keeps counting as
changing.

Where not everything can be watched `gap` says why: who uses this must look for changes by other means.

For one thread. Which events there are: `engine/inotify`.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from yester.core.ignore import RuleStack
from yester.engine.inotify import Event, Inotify
from yester.engine.source import OPEN_DIRECTORY

_REMOTE_KINDS = frozenset({"9p", "afs", "ceph", "cifs", "coda", "ncpfs", "nfs", "nfs4", "orangefs", "smb3", "smbfs", "virtiofs", "vboxsf"})
"""File systems on which others change files, of which the kernel here does not hear. So are all of FUSE but on a device (`fuseblk`)."""

_YOUNG_FOLDERS_MAX = 1000
"""So many folders below a new one are watched at once. More of them at a time were not made just now, but moved here."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Why not all folders are watched."""

    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the scan of that number found a watched folder. `only` is a single name that counts there; None: all that rules keep."""

    scan: int
    prefix: bytes
    path: bytes
    rules: RuleStack
    only: bytes | None

    def keeps(self, name: bytes, *, is_folder: bool) -> bool:
        """Whether a backup would look at this name."""
        if self.only is not None and name != self.only:
            return False
        return not self.rules or not self.rules.excludes(self.join(name), is_directory=is_folder)

    def replaces(self, other: "_Place") -> bool:
        """Whether the other one is of an earlier scan, or of the same folder before all was known of it."""
        is_same = (other.prefix, other.path) == (self.prefix, self.path) and other.only in (None, self.only)
        return is_same or other.scan != self.scan

    def join(self, name: bytes) -> bytes:
        """The path of an entry, relative to the root of the source."""
        return self.path + b"/" + name if self.path else name


class FolderWatch:
    """What is watched, from scan to scan. A context manager."""

    def __init__(self, open_inotify: Callable[[], Inotify] = Inotify) -> None:
        self._open_inotify = open_inotify
        self.gap: Gap | None = None
        """As the last scan found it."""
        self.changed_during_scan = False
        """Whether something changed while the last scan ran, after its beginning; it may or may not have been seen."""
        self._inotify: Inotify | None = None
        self._places: dict[int, tuple[_Place, ...]] = {}
        """By number of watch. Nearly always one: two where a folder is mounted twice, or has two files named by themselves."""
        self._scan = 0
        self._failed = 0
        self._remote_devices: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify is not None:
            self._inotify.close()

    @property
    def folder_count(self) -> int:
        """How many folders are watched."""
        return len(self._places)

    def descriptor(self) -> int | None:
        """What is readable when `read` may have something to say; None while nothing can be watched."""
        return self._inotify.fileno() if self._inotify is not None else None

    def begin_scan(self) -> None:
        """A scan begins: what changed before it, it will see."""
        self.read()
        self._scan += 1
        self._failed = 0
        self.gap = None
        self._remote_devices = _remote_devices()
        if self._inotify is None:
            try:
                self._inotify = self._open_inotify()
            except OSError as error:
                self.gap = _describe(error, "no folder can be watched")

    def enter(self, folder: int, prefix: bytes, path: bytes, rules: RuleStack, *, only: bytes | None = None) -> None:
        """Watch an open folder that the scan is about to list. Call it again once it is known what there holds for its entries.

        `prefix` before `path` makes it a path of the host. Never raises: what cannot be watched is in `gap`.
        """
        if self._inotify is None:
            return
        try:
            number = self._inotify.watch(folder)
        except OSError as error:
            self._failed += 1
            self.gap = _describe(error, f"{self._failed} folders cannot be watched")
            return
        kind = self._remote_devices.get(os.fstat(folder).st_dev) if self._remote_devices else None
        if kind is not None and self.gap is None:
            text = os.fsdecode(prefix + path)
            self.gap = Gap(f"{text} is on a file system ({kind}) that others may change, of which this computer does not hear")
        place = _Place(self._scan, prefix, path, rules, only)
        self._places[number] = (*(other for other in self._places.get(number, ()) if not place.replaces(other)), place)

    def end_scan(self) -> None:
        """The scan has entered all that it reads: nothing else is watched any more."""
        self.changed_during_scan = self.read()
        if self._inotify is None:
            return
        for number in [number for number, places in self._places.items() if places[-1].scan != self._scan]:
            self._inotify.unwatch(number)
            del self._places[number]

    def read(self) -> bool:
        """Whether something changed, since this was last called, that a backup would look at. Does not wait."""
        if self._inotify is None:
            return False
        has_changed = False
        for event in self._inotify.read():
            has_changed |= event.is_overflow or self._take(event)
        return has_changed

    def _take(self, event: Event) -> bool:
        places = self._places.get(event.watch, ())
        if event.has_ended:
            self._places.pop(event.watch, None)
            return False  # What ended it was an event of its own.
        kept = [place for place in places if not event.name or place.keeps(event.name, is_folder=event.is_folder)]
        if kept and event.is_folder and event.is_new and event.name:
            self._watch_new(kept[-1], event.name)
        return bool(kept)

    def _watch_new(self, parent: _Place, name: bytes) -> None:
        """Watch a folder that has just appeared, and what appeared in it before it was watched. The next scan does it properly."""
        assert self._inotify is not None
        waiting = [parent.join(name)]
        for path in waiting:  # grows as it goes
            place = _Place(self._scan, parent.prefix, path, parent.rules, None)
            try:
                folder = os.open(parent.prefix + path, OPEN_DIRECTORY)
            except OSError:
                continue
            try:
                self._places[self._inotify.watch(folder)] = (place,)
                with os.scandir(folder) as listing:
                    names = [os.fsencode(item.name) for item in listing if item.is_dir(follow_symlinks=False)]
            except OSError:
                continue
            finally:
                os.close(folder)
            if len(waiting) < _YOUNG_FOLDERS_MAX:
                waiting += (place.join(name) for name in names if place.keeps(name, is_folder=True))


def _describe(error: OSError, what: str) -> Gap:
    if error.errno == errno.ENOSPC:
        return _limit("max_user_watches", f"{what}: they are more than the system lets a user watch")
    if error.errno == errno.EMFILE:
        return _limit("max_user_instances", f"{what}: other programs of this user watch as much as the system allows")
    return Gap(f"{what}: {error.strerror}")


def _limit(setting: str, reason: str) -> Gap:
    try:
        value = int(Path("/proc/sys/fs/inotify", setting).read_text())
    except (OSError, ValueError):
        return Gap(reason)
    return Gap(f"{reason} (fs.inotify.{setting} is {value})", f"raise it, as root: sysctl fs.inotify.{setting}={max(8 * value, 1024)}")


def _remote_devices(table_path: str = "/proc/self/mountinfo") -> dict[int, str]:
    """Device numbers of mounted file systems that others may change, with the kind of each."""
    devices = {}
    try:
        with open(table_path, "rb") as table:
            for line in table:
                left, _, right = line.partition(b" - ")
                kind = right.split(b" ")[0].decode("ascii", "replace")
                if kind in _REMOTE_KINDS or kind.startswith("fuse."):
                    major, minor = left.split()[2].split(b":")
                    devices[os.makedev(int(major), int(minor))] = kind
    except OSError:
        pass
    return devices

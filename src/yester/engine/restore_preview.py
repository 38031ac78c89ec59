# SPDX-License-Identifier: MIT
"""What a restore would do, found out without touching anything (`restore` with `dry_run`).

Looks at names, sizes, permissions, owners and times, and with `overwrite` at the bytes of files that are there, as a restore does
to decide; reads no stored file bytes, so it does not know of damage to them, and compares no xattrs and ACLs.
"""

import os
import stat
from collections.abc import Callable
from enum import Enum

from yester.core.records import Entry
from yester.engine.restore_files import Tally, difference, is_restored, join
from yester.engine.restore_walk import StoredWalk, Visit
from yester.engine.target import FolderChain, Owner, is_not_a_folder
from yester.store.chunks import NamingSource


class Change(Enum):
    """What a restore would do to a path. Nothing is said of what stays as it is because it is as stored."""

    CREATE = "create"
    REPLACE = "replace"
    MEND = "mend"
    """Only the metadata."""
    KEEP = "keep"
    """A conflict: something else is there, and stays."""


class Preview:
    """Looks at one path after the other, tallies, and tells `on_change` what would be done."""

    def __init__(self, chunks: NamingSource, root: int | None, on_change: Callable[[Change, bytes], None], *, overwrite: bool) -> None:
        """`root` is the open target, None if there is none."""
        self._chunks = chunks
        self.tally = Tally()
        self._folders = FolderChain(-1 if root is None else root, mends_permissions=False)
        self._on_change = on_change
        self._overwrite = overwrite
        self._links: set[tuple[int, int]] = set()

    def close(self) -> None:
        """Close what was opened."""
        self._folders.close()

    def look_at_all(self, walk: StoredWalk) -> None:
        """Decide about folders and all that is in them."""
        for visit, stored in walk.enter():
            self._look_at_folder(visit)
            if visit.is_pruned:
                continue
            for entry in stored.entries:
                if not stat.S_ISDIR(entry.mode):
                    self.look_at(visit.path, entry, stored.owners.owner_of(entry), is_new=visit.is_new)

    def look_at(self, folder_path: bytes, entry: Entry, owner: Owner, *, is_new: bool) -> None:
        """Decide about anything but a folder; `is_new` says that the folder it is in is not there yet."""
        path = join(folder_path, entry.name)
        change = Change.CREATE
        try:
            if not is_new:
                folder = self._folders.open(folder_path)
                status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
                if is_restored(entry, status, folder, self._chunks, reads=self._overwrite):
                    self.tally.unchanged += 1
                    if _needs_mending(entry, status, owner):
                        self.tally.mended += 1
                        self._on_change(Change.MEND, path)
                    return
                change = Change.REPLACE if self._overwrite and not stat.S_ISDIR(status.st_mode) else Change.KEEP
                if change is Change.KEEP:
                    self.tally.conflicts.add(path, difference(entry, status))
        except FileNotFoundError:
            pass
        except OSError as error:
            self.tally.failed.add(path, error.strerror or str(error))
            return
        self._on_change(change, path)
        if change is not Change.KEEP:
            self._count(entry)

    def _look_at_folder(self, visit: Visit) -> None:
        """Decide about a folder, and whether there is anything in it."""
        try:
            if visit.parent is not None and visit.parent.is_new:
                visit.is_new = True
            elif not visit.is_new:
                status = os.fstat(self._folders.open(visit.path))
                if _needs_mending(visit.entry, status, visit.owner):
                    self._on_change(Change.MEND, visit.path)
        except FileNotFoundError:
            visit.is_new = True
        except OSError as error:
            if is_not_a_folder(error) and self._overwrite:
                self._on_change(Change.REPLACE, visit.path)
                visit.is_new = True
                self.tally.directories += 1
                return
            visit.is_pruned = True
            if is_not_a_folder(error):
                self.tally.conflicts.add(visit.path, "is not a folder, and a folder is stored")
                self._on_change(Change.KEEP, visit.path)
            else:
                self.tally.failed.add(visit.path, error.strerror or str(error))
            return
        if visit.is_new:
            self._on_change(Change.CREATE, visit.path)
        self.tally.directories += 1

    def _count(self, entry: Entry) -> None:
        link = entry.rare.link if entry.rare.nlink > 1 else (0, 0)
        if link in self._links:
            self.tally.links += 1
        elif stat.S_ISREG(entry.mode):
            self.tally.files += 1
            self.tally.written_bytes += entry.stored_bytes
        else:
            self.tally.others += 1
        if any(link):
            self._links.add(link)


def _needs_mending(entry: Entry, status: os.stat_result, owner: Owner) -> bool:
    return (
        status.st_mtime_ns != entry.mtime_ns
        or (status.st_mode != entry.mode and not stat.S_ISLNK(entry.mode))
        or (status.st_uid, status.st_gid) != owner
    )

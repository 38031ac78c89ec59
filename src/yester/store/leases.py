# SPDX-License-Identifier: MIT
"""Leases: who uses a store, so that a prune takes nothing away that somebody may still read or is about to name (docs/concurrency.md).

A lease is an empty file in the store's folder `leases` that its holder has locked with `flock`; the system unlocks it when the holder
dies, whatever way, so no lease outlives its holder and none ends before it. What it says stands in its name, which is there whole
or not at all, also on a full disk: `GENERATION-SEGMENT-PROCESS-RANDOM`.

*Generation* is the number of the store's last change of its list of snapshots when the lease was taken: a snapshot that was forgotten
later is kept as long as the lease. *Segment* is the number of the last segment then, of a lease for adding chunks, else `r`: segments with
higher numbers are kept, and what the trees in them name.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from yester.errors import FormatError
from yester.store.locks import give_to_owner

LEASES_FOLDER = "leases"
_NAME = re.compile(r"([0-9]{1,20})-([0-9]{1,20}|r)-([0-9]{1,10})-[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a lease says. `last_segment` is None of one that is for reading only."""

    generation: int
    last_segment: int | None
    process: int


class HeldLease:
    """A lease of this process. Not thread-safe."""

    def __init__(self, folder: Path, *, generation: int, last_segment: int | None = None) -> None:
        """Take it. Where the store may not be written, or its disk takes not even an empty file, nothing is taken: see `is_held`."""
        self._folder = folder
        self._last_segment = last_segment
        self.generation = generation
        self._held = _take(folder, generation, last_segment)

    @property
    def is_held(self) -> bool:
        """Whether others can see it."""
        return self._held is not None

    def renew(self, generation: int) -> None:
        """Let go of the snapshots that were forgotten up to this generation."""
        if generation != self.generation:
            renewed = _take(self._folder, generation, self._last_segment)
            if renewed is not None:  # else the one that is held is kept, and this is tried again
                self.release()
                self._held, self.generation = renewed, generation

    def release(self) -> None:
        """End it. Safe to call twice."""
        if self._held is not None:
            path, handle = self._held
            self._held = None
            with suppress(OSError):
                path.unlink()  # if it stays, it is nobody's
            os.close(handle)


@contextmanager
def held(lease: HeldLease) -> Iterator[HeldLease]:
    """Release a lease at the end."""
    try:
        yield lease
    finally:
        lease.release()


def list_leases(folder: Path) -> list[Lease]:
    """All leases that are held now; those of dead processes are removed.

    Raises:
        FormatError: one is held of which nobody knows what it says.
        OSError: they cannot be listed.
    """
    found = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        path = folder / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if _is_locked(handle):
                found.append(_parse(name))
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)
    return found


def _is_locked(handle: int) -> bool:
    """Whether another has locked this file. If not, it is locked until the handle is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _parse(name: str) -> Lease:
    found = _NAME.fullmatch(name)
    if found is None:
        message = f"a process holds a lease {name!r}, which this release does not understand; nothing was freed"
        raise FormatError(message, hint="use the newest yester with this store")
    generation, last_segment, process = found.groups()
    return Lease(int(generation), None if last_segment == "r" else int(last_segment), int(process))


def _take(folder: Path, generation: int, last_segment: int | None) -> tuple[Path, int] | None:
    """Make and lock the file. Who lists leases between the two takes it for a dead one's and removes it: then another is made."""
    says = f"{generation}-{'r' if last_segment is None else last_segment}-{os.getpid()}"
    while True:
        path = folder / f"{says}-{os.urandom(8).hex()}"
        try:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                give_to_owner(folder)
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        if not _is_locked(handle) and os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)

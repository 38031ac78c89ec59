# SPDX-License-Identifier: MIT
"""Continuous backup: one whenever changes in a source have settled, until told to stop.

`Settling` decides when, from moments alone. `ContinuousBackup` waits, and calls what backs up; it knows neither stores nor terminals.
What wakes it is a `FolderWatch`; where that has a gap it also backs up every `Pace.interval_s`, which publishes nothing if nothing
differs, and every `Pace.look_s` in any case: of changes through a memory mapping the kernel does not tell.

A folder that is not there, or whose disk is not mounted any more, is waited for: an empty mount point must not become a version of
the disk.

After the first backup no error ends this: it is told, and the backup tried again later. For one thread.
"""

import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from yester.engine.backup import BackupResult
from yester.engine.folder_watch import FolderWatch, Gap
from yester.errors import YesterError

_AWAY_POLL_S = 1.0
"""How often a folder that is not there is looked for: one lstat."""
_HEAR_EVERY_S = 0.2
_REST = 4.0
"""After a backup it rests so many times as long as that took, so that a large source that always changes takes a fifth of a core."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a backup is made. The first two mean what they mean for a live folder."""

    quiet_s: float = 10.0
    interval_s: float = 300.0
    look_s: float = 3600.0
    retry_s: float = 60.0
    """After one that failed."""


class Settling:
    """When changes have settled: nothing changed for `quiet_s`, or the first one is `interval_s` ago. Moments never go back."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._first_s: float | None = None
        self._last_s = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether something changed that is in no snapshot."""
        return self._first_s is not None

    def changed(self, now_s: float) -> None:
        """Something changed."""
        if self._first_s is None:
            self._first_s = now_s
        self._last_s = now_s

    def clear(self) -> None:
        """All of it is in a snapshot."""
        self._first_s = None

    def due_s(self) -> float:
        """When a backup is to be made; never, if nothing changed."""
        if self._first_s is None:
            return float("inf")
        return min(self._last_s + self._pace.quiet_s, self._first_s + self._pace.interval_s)


class Stop(Protocol):
    """Says that it is time to end, from a signal handler or another thread. Its descriptor is readable then."""

    def is_set(self) -> bool:
        """Whether it is."""
        ...

    def fileno(self) -> int:
        """For `select`."""
        ...


class Observer(Protocol):
    """Hears what goes on; never asked anything."""

    def backed_up(self, result: BackupResult) -> None:
        """A backup is done; `result.is_unchanged` if it found nothing to publish."""
        ...

    def failed(self, error: YesterError, retry_s: float) -> None:
        """One was not done, and is tried again after that time. Told once, as long as it fails in the same way."""
        ...

    def noticed(self, message: str, hint: str) -> None:
        """Something else is as it was not before."""
        ...


Wait = Callable[[Sequence[int], float], object]
"""Returns when one of these descriptors is readable, after so many seconds at the latest."""


def wait_readable(descriptors: Sequence[int], timeout_s: float) -> None:
    """Wait, for real."""
    select.select(descriptors, [], [], timeout_s)


class ContinuousBackup:
    """Backs `folders` (absolute) up again and again; `back_up` makes one backup, with `watch` as its observer.

    `is_deaf_after_scan` says that changes which come after the scan, and before `back_up` returns, do not wake this: hooks after the backup
    make them. What they change is in the next one.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        pace: Pace,
        watch: FolderWatch,
        back_up: Callable[[], BackupResult],
        observer: Observer,
        *,
        is_deaf_after_scan: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = wait_readable,
    ) -> None:
        self._folders = folders
        self._pace = pace
        self._watch = watch
        self._back_up = back_up
        self._observer = observer
        self._is_deaf_after_scan = is_deaf_after_scan
        self._clock = clock
        self._wait = wait
        self._settling = Settling(pace)
        self._mount_points: dict[Path, str] = {}
        self._away = ""
        """What is not there, as it was told; empty if all is there."""
        self._told_gap: Gap | None = None
        self._told_error = ""
        self._last_end_s = 0.0
        self._rest_until_s = 0.0

    def run(self, stop: Stop) -> None:
        """Back up now, and whenever changes have settled, until `stop`; then once more, if something is in no snapshot yet.

        Raises:
            YesterError: the first backup failed, or the last one.
        """
        self._run_backup()
        if self._watch.gap is None:
            when = f"{self._pace.quiet_s:g} s after the last change, at the latest {self._pace.interval_s:g} s after the first"
            self._observer.noticed(f"watching {self._watch.folder_count} folders; a snapshot follows {when}", "")
        while not stop.is_set():
            self._wait_for_something(stop)
            if self._watch.read():
                self._settling.changed(self._clock())
                # Who writes all the time would keep this busy with nothing but hearing of it.
                self._wait([stop.fileno()], min(_HEAR_EVERY_S, self._pace.quiet_s / 10))
            if not stop.is_set() and self._clock() >= self._due_s() and self._is_all_there():
                self._try_backup()
        # It may have been told to end while it did something else, and what changed since was not heard of yet.
        if self._watch.read() or self._settling.is_waiting or self._watch.gap is not None:
            self._finish()

    def _wait_for_something(self, stop: Stop) -> None:
        events = self._watch.descriptor()
        descriptors = [stop.fileno()] if events is None else [stop.fileno(), events]
        self._wait(descriptors, _AWAY_POLL_S if self._away else max(0.0, self._due_s() - self._clock()))

    def _due_s(self) -> float:
        if self._away:
            return 0.0  # As soon as it is there.
        look_s = self._pace.look_s if self._watch.gap is None else min(self._pace.interval_s, self._pace.look_s)
        return max(min(self._settling.due_s(), self._last_end_s + look_s), self._rest_until_s)

    def _is_all_there(self) -> bool:
        """Whether all folders are; tells when that changes."""
        away = self._find_away()
        if away and away != self._away:
            self._observer.noticed(f"{away}; nothing is backed up until it is there again", "")
        if self._away and not away:
            self._observer.noticed("everything is there again", "")
        self._away = away
        return not away

    def _find_away(self) -> str:
        for folder in self._folders:
            if not os.path.lexists(folder):
                return f"{folder} is not there"
        for mount_point in self._mount_points.values():
            if not os.path.ismount(mount_point):
                return f"the disk at {mount_point} is not mounted"
        return ""

    def _try_backup(self) -> None:
        try:
            self._run_backup()
        except YesterError as error:
            if error.message != self._told_error:
                self._observer.failed(error, self._pace.retry_s)
                self._told_error = error.message
            self._rest_until_s = self._clock() + self._pace.retry_s

    def _run_backup(self) -> None:
        begin_s = self._clock()
        result = self._back_up()
        changed_later = self._watch.read()
        self._settling.clear()
        if self._watch.changed_during_scan or (changed_later and not self._is_deaf_after_scan):
            self._settling.changed(self._clock())
        self._mount_points = {folder: _mount_point(folder) for folder in self._folders}
        self._told_error = ""
        self._last_end_s = self._clock()
        self._rest_until_s = self._last_end_s + min(_REST * (self._last_end_s - begin_s), self._pace.interval_s)
        self._observer.backed_up(result)
        self._tell_gap()

    def _tell_gap(self) -> None:
        gap = self._watch.gap
        if gap is not None and self._told_gap is None:
            every = f"changes are looked for every {self._pace.interval_s:g} s instead"
            self._observer.noticed(f"{gap.reason}; {every}", gap.hint)
        if gap is None and self._told_gap is not None:
            self._observer.noticed("all folders are watched again", "")
        self._told_gap = gap

    def _finish(self) -> None:
        """What changed last must not be lost by ending."""
        if self._is_all_there():
            self._observer.noticed("ending: what changed last is backed up first", "")
            self._run_backup()
        else:
            self._observer.noticed("ending: what changed since the last snapshot is not backed up", "start it again when it is there")


def _mount_point(folder: Path) -> str:
    """Where the file system is mounted that a folder is on."""
    path = os.path.realpath(folder)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path

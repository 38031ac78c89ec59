# SPDX-License-Identifier: MIT
"""Backups that nobody watches: when the next is due, how the last ended, and that only one of a source runs at a time.

A folder on this computer, not in the store, has for each source

    NAME.json   how its last run ended, and when the last good one began: one record, replaced in one step
    NAME.lock   held while a run of it is under way; the system frees it when the process dies
    NAME.log    what the last runs said, newest at the end; NAME.log.1 is what was there before it grew large

NAME is the source's name as systemd would write it into the name of a unit. A record says nothing that cannot be lost: without one the
source is backed up at the next occasion. A run that began and has no end, while nobody holds the lock, was interrupted.

Nothing here knows the clock: `now_ns` is given. Times may be of a clock that was wrong: one that is later than now counts for nothing.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import tzinfo
from enum import StrEnum
from functools import partial
from pathlib import Path

import msgspec
from blake3 import blake3

from yester.core.recurrence import Recurrence
from yester.engine.log_file import append_log
from yester.engine.replace_file import replace_file
from yester.errors import BusyError, StoreAccessError
from yester.store.locks import file_lock, shared_lock

RETRY_NS = 3600 * 10**9
"""After a failure it is tried again, so much later: a disk may be plugged in by then. Sooner would only repeat the message."""
_CLOCK_SLACK_NS = 60 * 10**9
"""So much a clock may be set back without being taken for wrong."""
_LOG_BYTES_MAX = 128 * 1024
_STEM_MAX = 200
"""With what is put around it, a name stays below the 255 bytes that files and units may have."""
_MESSAGE_MAX = 2000

_log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    SKIPPED = "skipped"
    """A snapshot was made without some files."""
    TROUBLED = "troubled"
    """A snapshot was made, and what should follow it failed: a hook, or thinning."""
    FAILED = "failed"
    UNFINISHED = "unfinished"
    """It is under way, or was interrupted."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a source's runs. Written as JSON: fields may be added, and unknown ones are ignored."""

    source: str
    started_ns: int
    ended_ns: int = 0
    """0: it has not."""
    outcome: Outcome = Outcome.UNFINISHED
    message: str = ""
    """Why it failed, or what was skipped."""
    good_ns: int = 0
    """When the last run began that made a snapshot. 0: none did."""
    failures: int = 0
    """How many failed one after another, or had trouble."""


def next_due_ns(recurrence: Recurrence, record: RunRecord | None, now_ns: int, zone: tzinfo) -> int:
    """When a source should be backed up next, which is now if that is not later than `now_ns`.

    It is the first of its times since the last run began, or sooner if that failed. However many times were missed, it is due once.
    A source that never ran is due, and one that ran in the future, since the clock was wrong then.
    """
    if record is None or record.started_ns > now_ns + _CLOCK_SLACK_NS:
        return now_ns
    next_ns = recurrence.next_after(record.started_ns, zone)
    if record.outcome in (Outcome.FAILED, Outcome.UNFINISHED):
        return min(next_ns, record.started_ns + RETRY_NS)
    return next_ns


def is_due(recurrence: Recurrence, record: RunRecord | None, now_ns: int, zone: tzinfo) -> bool:
    """Whether a source should be backed up now."""
    return next_due_ns(recurrence, record, now_ns, zone) <= now_ns


def newest_of(times_ns: Iterable[int], now_ns: int) -> int | None:
    """The newest of these times that is not in the future; None if there is none."""
    return max((time_ns for time_ns in times_ns if 0 < time_ns <= now_ns + _CLOCK_SLACK_NS), default=None)


def is_too_old(good_ns: int | None, max_age_ns: int | None, now_ns: int) -> bool:
    """Whether somebody should be told that the last good backup, if there is one, is too long ago."""
    return max_age_ns is not None and (good_ns is None or now_ns - good_ns > max_age_ns)


def unit_stem(source: str) -> str:
    r"""A source's name as `systemd-escape` writes it, such as `my\x20mail`; one that is too long ends in a hash instead."""
    raw = source.encode("utf-8", "surrogateescape")
    stem = "".join(
        chr(byte) if re.fullmatch(rb"[A-Za-z0-9:_.]", bytes([byte])) and (at or byte != ord(".")) else f"\\x{byte:02x}"
        for at, byte in enumerate(raw)
    )
    return stem if len(stem) <= _STEM_MAX else f"{stem[: _STEM_MAX - 17]}_{blake3(raw).hexdigest()[:16]}"


class RunBook:
    """The folder with what is known of runs. Several processes may use one at a time. Its folder is made when something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log_path(self, source: str) -> Path:
        """Where the source's log is, or would be."""
        return self.folder / f"{unit_stem(source)}.log"

    def read(self, source: str) -> RunRecord | None:
        """What is known of a source; None if nothing is, or if it cannot be read, which is logged."""
        path = self._record_path(source)
        try:
            return msgspec.json.decode(path.read_bytes(), type=RunRecord)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError, ValueError) as error:
            _log.warning("what is known of runs of %s cannot be read from %s: %s", source, path, error)
            return None

    def write(self, record: RunRecord) -> None:
        """Keep a record in the place of what was there.

        Raises:
            StoreAccessError: it cannot be written.
        """
        with self._translated():
            self._make_folder()
            replace_file(self._record_path(record.source), msgspec.json.encode(record), mode=0o600)

    def begin(self, source: str, now_ns: int) -> RunRecord:
        """Note that a run has begun. For whoever holds the source.

        Raises:
            StoreAccessError: it cannot be written.
        """
        before = self.read(source)
        record = RunRecord(source=source, started_ns=now_ns)
        if before is not None:
            record = msgspec.structs.replace(record, good_ns=before.good_ns, failures=before.failures)
        self.write(record)
        return record

    def end(self, record: RunRecord, outcome: Outcome, now_ns: int, message: str = "") -> RunRecord:
        """Note how the run of this record has ended.

        Raises:
            StoreAccessError: it cannot be written.
        """
        has_snapshot = outcome in (Outcome.DONE, Outcome.SKIPPED, Outcome.TROUBLED)
        ended = msgspec.structs.replace(
            record,
            ended_ns=max(now_ns, record.started_ns),
            outcome=outcome,
            message=message[:_MESSAGE_MAX],
            good_ns=record.started_ns if has_snapshot else record.good_ns,
            failures=0 if outcome in (Outcome.DONE, Outcome.SKIPPED) else record.failures + 1,
        )
        self.write(ended)
        return ended

    @contextmanager
    def holding(self, source: str) -> Iterator[None]:
        """Have the right to run a source.

        Raises:
            BusyError: somebody else has. StoreAccessError: the folder cannot be written.
        """
        with self._translated():
            self._make_folder()
            self._lock_path(source).touch(mode=0o600)  # an error says what it is a lock of
        with file_lock(self._lock_path(source), partial(_refuse, source)):
            yield

    def is_running(self, source: str) -> bool:
        """Whether somebody holds the source."""
        if not os.path.exists(self._lock_path(source)):
            return False  # nothing is made by looking
        try:
            with shared_lock(self._lock_path(source), partial(_refuse, source)):
                return False
        except BusyError:
            return True

    def append_log(self, source: str, text: str) -> None:
        """Add to the source's log; see `engine.log_file`.

        Raises:
            StoreAccessError: it cannot be written.
        """
        with self._translated():
            self._make_folder()
            append_log(self.log_path(source), text, bytes_max=_LOG_BYTES_MAX)

    def forget(self, source: str) -> None:
        """Take away what is known of a source, but for its lock, which somebody may hold."""
        log = self.log_path(source)
        for path in (self._record_path(source), log, log.with_name(f"{log.name}.1")):
            path.unlink(missing_ok=True)

    def _record_path(self, source: str) -> Path:
        return self.folder / f"{unit_stem(source)}.json"

    def _lock_path(self, source: str) -> Path:
        return self.folder / f"{unit_stem(source)}.lock"

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"cannot write into {self.folder}, where yester keeps what is known of runs: {error.strerror or error}"
            raise StoreAccessError(message, hint="see whose it is, and whether the disk is full") from error


def _refuse(source: str, holder: str) -> None:
    message = f"a run of {source!r} is under way already, in {holder}; this one did nothing"
    raise BusyError(message, hint="`yester schedule list` shows when it began")

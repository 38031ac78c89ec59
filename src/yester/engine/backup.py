# SPDX-License-Identifier: MIT
"""Backing up: a folder goes in, a snapshot comes out, unchanged data costs nothing.

`engine.scan` stores what is new; here its result is published: the snapshot last, in a transaction of its own.

Crash at any step: docs/durability.md.
"""

import dataclasses
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

import msgspec

from yester.core.ids import ChunkId
from yester.core.ignore import RuleStack, split_rules
from yester.core.records import RECORD_VERSION, Added, Snapshot, Totals, check_tag, check_text, is_valid_name
from yester.core.treediff import same_entry
from yester.engine.scan import BackupProgress, ChunkSink, FolderObserver, Problem, ScanOptions, SourceScan
from yester.errors import ConflictError, NotFoundError, SweptError, UsageError
from yester.store.chunks import Change, WriteCounts
from yester.store.segments import Kind
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

_TRIES_MAX = 5
"""A prune sweeps a few times, and only what was of use to nobody: a second try is rare, a third is not to be expected."""

_log = logging.getLogger(__name__)

PROGRAM = f"yester {version('yester')}"
"""Who wrote a snapshot: said in its record, and decides nothing."""


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What to leave out, and what to call it."""

    source: str = ""
    """Empty: the last component of the first path."""
    exclude: tuple[str, ...] = ()
    exclude_from: tuple[Path, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    tags: tuple[str, ...] = ()
    message: str = ""
    only_if_changed: bool = False
    """Whether to publish nothing where the source is as its newest snapshot has it."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """`stored` is None after a dry run. `snapshot` is what was, or would have been, published.

    `newer` is the source's newest snapshot, if that is another one: made when the clock was ahead of what it says now.
    `is_unchanged`: nothing was published, as `stored`, the source's newest snapshot, holds all of it.
    """

    stored: StoredSnapshot | None
    snapshot: Snapshot
    problems: tuple[Problem, ...]
    excluded: int
    vanished: int
    newer: Snapshot | None = None
    is_unchanged: bool = False


def back_up(
    store: Store,
    paths: Iterable[Path],
    options: BackupOptions,
    *,
    sink: ChunkSink | None = None,
    progress: BackupProgress | None = None,
    observer: FolderObserver | None = None,
    on_wait: Callable[[str], None] = lambda _holder: None,
) -> BackupResult:
    """Back `paths` up into one snapshot; durable on return.

    With a `sink` nothing is published (a dry run). An `observer` hears which folders are read. `on_wait` hears who holds the store's
    backup lock if it must be waited for.

    Raises:
        UsageError, NotFoundError, ConflictError: before anything was read.
        StoreFullError, StoreAccessError, CorruptionError: the store failed; nothing was published.
        SweptError: prunes removed again and again what was to be used; nothing was published.
    """
    folders = [Path(os.path.abspath(path)) for path in paths]
    source = options.source or default_source_name(folders)
    check_source_name(source)
    check_paths(folders)
    for tag in options.tags:
        check_tag(tag)
    check_text(options.message)
    rules = _command_line_rules(options)
    scan_options = ScanOptions(rules, options.exclude_caches, options.one_file_system, observer)
    if progress is None:
        progress = BackupProgress()
    if sink is not None:
        with sink:
            return _result(None, _scan(store, sink, source, folders, options, scan_options, progress), progress)
    with store.backup_lock(on_wait):
        _check_same_paths(store, source, folders, explicit=bool(options.source))
        stored, is_unchanged = _store_and_publish(store, source, folders, options, scan_options, progress)
        store.keep_reserve()
        newest = store.latest_snapshot(source)
        result = dataclasses.replace(_result(stored, stored.snapshot, progress), is_unchanged=is_unchanged)
        return result if newest in (stored, None) else dataclasses.replace(result, newer=newest.snapshot)


def _store_and_publish(
    store: Store, source: str, folders: list[Path], options: BackupOptions, scan_options: ScanOptions, progress: BackupProgress
) -> tuple[StoredSnapshot, bool]:
    """Scan and publish; begin again where a prune removed what was to be used. What was stored until then is not stored again.

    True says that nothing was published: the snapshot is the source's newest, and nothing differs from it.
    """
    with store.adding():
        for _ in range(_TRIES_MAX - 1):
            try:
                return _store_and_publish_once(store, source, folders, options, scan_options, progress)
            except SweptError as error:
                _log.info("%s; the backup begins again", error.message)
                progress.begin_again()
        return _store_and_publish_once(store, source, folders, options, scan_options, progress)


def _store_and_publish_once(
    store: Store, source: str, folders: list[Path], options: BackupOptions, scan_options: ScanOptions, progress: BackupProgress
) -> tuple[StoredSnapshot, bool]:
    with store.writer() as writer:
        snapshot = _scan(store, writer, source, folders, options, scan_options, progress)
    if options.only_if_changed:
        latest = store.latest_snapshot(source)
        if latest is not None and _holds_same(latest.snapshot, snapshot):
            return latest, True
    return store.add_snapshot(snapshot), False


def default_source_name(folders: list[Path]) -> str:
    """The source name for these absolute paths when none is given."""
    return os.fsencode(folders[0].name).decode("utf-8", "replace") if folders and folders[0].name else "root"


def check_source_name(source: str) -> None:
    """Raises UsageError unless `source` can be a folder name in the mount and a key in the store."""
    raw = source.encode("utf-8", "surrogatepass")
    if not is_valid_name(raw) or any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in source) or source == "live":
        message = f"{source!r} cannot name a source"
        raise UsageError(message, hint="use 1 to 255 bytes of UTF-8 without '/' or control characters; 'live' is reserved")
    if "@" in source or ":" in source:
        message = f"{source!r} cannot name a source: '@' and ':' separate its parts from it in commands"
        raise UsageError(message, hint="choose another with --name")


def check_paths(folders: list[Path], state: str = "nothing was backed up") -> None:
    """Raises UsageError or NotFoundError, which says that `state` holds, unless these absolute paths are there and fit in one snapshot."""
    if not folders:
        message = "no folder to back up was named"
        raise UsageError(message)
    for folder in folders:
        if not os.path.lexists(folder):
            message = f"{folder} does not exist; {state}"
            raise NotFoundError(message)
    check_side_by_side(folders)


def check_side_by_side(folders: list[Path]) -> None:
    """Raises UsageError unless one snapshot can hold all of these absolute paths, whether they are there or not."""
    names = [folder.name for folder in folders]
    if len(folders) > 1 and "" in names:
        message = "/ cannot be backed up together with other folders: it holds them"
        raise UsageError(message, hint="name only /, or only other folders")
    if len(set(names)) < len(names):
        message = "two of the folders have the same last name, which a snapshot cannot hold side by side"
        raise UsageError(message, hint="back them up as two sources, each with its own --name")


def _check_same_paths(store: Store, source: str, folders: list[Path], *, explicit: bool) -> None:
    """Two folders that happen to be called alike must not end up as versions of each other."""
    latest = store.latest_snapshot(source)
    paths = tuple(os.fsencode(folder) for folder in folders)
    if latest is not None and not explicit and latest.snapshot.paths != paths:
        before = ", ".join(os.fsdecode(path) for path in latest.snapshot.paths)
        message = f"the source {source!r} is a backup of {before}; nothing was backed up"
        raise ConflictError(message, hint=f"give this one a name of its own with --name, or go on with that source by --name {source}")


def _command_line_rules(options: BackupOptions) -> RuleStack:
    rules = RuleStack()
    for file in options.exclude_from:
        try:
            lines = split_rules(file.read_bytes())
        except OSError as error:
            message = f"cannot read the rules in {file}: {error.strerror}; nothing was backed up"
            raise UsageError(message) from error
        rules = rules.with_rules(b"", lines, origin=str(file))
    return rules.with_rules(b"", options.exclude, origin="--exclude") if options.exclude else rules


def _scan(
    store: Store,
    sink: ChunkSink,
    source: str,
    folders: list[Path],
    options: BackupOptions,
    scan_options: ScanOptions,
    progress: BackupProgress,
) -> Snapshot:
    """Store what is new, and return the record to publish; its name is not set. All it needs is committed."""
    start_ns = time.time_ns()
    scan = SourceScan(store, sink, source, scan_options, progress, start_ns=start_ns)
    scanned = scan.scan(folders)
    sink.flush()
    return Snapshot(
        version=RECORD_VERSION,
        source=source,
        name="",
        time_ns=start_ns,
        finished_ns=max(time.time_ns(), start_ns),
        root=msgspec.structs.replace(scanned.root, name=b""),
        paths=tuple(os.fsencode(folder) for folder in folders),
        host=socket.gethostname(),
        user=scan.user(os.geteuid()),
        tags=options.tags,
        totals=Totals(progress.files, progress.directories, progress.others, progress.size_bytes),
        added=Added(progress.new_files, progress.changed_files, sink.counts.raw_bytes, sink.counts.stored_bytes),
        skipped=len(progress.problems),
        xattr_names=scanned.xattr_names,
        message=options.message,
        program=PROGRAM,
        is_root_made_up=scanned.is_root_made_up,
    )


def _holds_same(a: Snapshot, b: Snapshot) -> bool:
    """Whether nothing differs between what two snapshots of a source hold. A root that was made up has no attributes of its own."""
    if (a.paths, a.is_root_made_up) != (b.paths, b.is_root_made_up):
        return False
    return a.root.content == b.root.content if a.is_root_made_up else same_entry(a.root, b.root)


def _result(stored: StoredSnapshot | None, snapshot: Snapshot, progress: BackupProgress) -> BackupResult:
    return BackupResult(stored, stored.snapshot if stored else snapshot, tuple(progress.problems), progress.excluded, progress.vanished)


class DryRun:
    """A chunk sink that stores nothing and counts what would be stored."""

    def __init__(self, store: Store) -> None:
        self.counts = WriteCounts()
        self._has = store.has_chunk
        self._chunk_id = store.chunk_id
        self._added: set[ChunkId] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exception_type: type[BaseException] | None, /, *rest: object) -> None:
        pass

    def add(self, kind: Kind, data: bytes | memoryview) -> ChunkId:
        """Count the chunk if the store lacks it."""
        chunk = self._chunk_id(data)
        if chunk not in self._added and not self._has(chunk):
            self._added.add(chunk)
            self.counts.new_chunks += 1
            self.counts.raw_bytes += len(data)
        return chunk

    def rely_on(self, tree: ChunkId) -> None:
        """Nothing is published that could lack it."""

    def doubt(self) -> None:
        """What would be stored again is not counted."""

    def after_trees(self, change: Change) -> None:
        """Nothing is committed, so nothing goes with it."""

    def flush(self) -> None:
        """Nothing to commit."""

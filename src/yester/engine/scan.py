# SPDX-License-Identifier: MIT
"""Scanning a source: walking its folders, and storing what is new in them.

The walk is depth-first. Each directory is listed once, its files are read in name order, then its subfolders are
walked, then its tree is stored: children before parents. What was seen of each directory (`SeenDirectory`) is committed
together with its tree, so an interrupted backup is picked up where it was.

*Unchanged* means same mode, inode, size, mtime and ctime as last time. A time stamp that is not safely older than the
start of the run that recorded it could hide a later change within the same tick of the clock: such an entry gets no mark,
and is read again next time.

Errors of the source (unreadable, vanished, changed while being read) are collected and the scan goes on; errors of the store
leave it. The two never share a handler: ours are no `OSError`.
"""

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Protocol, Self

from yester.core.content import HOLE, Content, iter_spans
from yester.core.ids import ChunkId, TreeId
from yester.core.ignore import RuleStack, split_rules
from yester.core.records import RECORD_VERSION, UNTRUSTED, Entry, SeenDirectory, listed_xattr_names
from yester.core.treediff import same_entry
from yester.engine.owners import OwnerNames
from yester.engine.source import OPEN_DIRECTORY, FileBytes, Report, SourceReader, make_entry, special_content
from yester.engine.trees import TreeReader, store_tree
from yester.errors import CorruptionError, FormatError, NotFoundError
from yester.store.chunks import Change, WriteCounts
from yester.store.damage import count_damaged
from yester.store.segments import Kind
from yester.store.snapshots import forget_seen_change, seen_change
from yester.store.store import Store

IGNORE_FILE = b".yesterignore"
IGNORE_FILE_BYTES_MAX = 1 << 20
_CACHE_TAG = b"CACHEDIR.TAG"
_CACHE_TAG_START = b"Signature: 8a477f597d28d172789f06886806bc55"

# Linux stamps files with a clock that ticks at least every 10 ms; file systems without sub-second times round to 2 s at worst (FAT).
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_000_000_000

_OPEN_DIRECTORIES_MAX = 64
"""Deeper than this, parents are closed and found again through `..`: depth must not run into the limit of open files."""


_log = logging.getLogger(__name__)

Mark = tuple[int, int]


class ChunkSink(Protocol):
    """What a backup needs of a `ChunkWriter`; `DryRun` is the other one."""

    counts: WriteCounts

    def __enter__(self) -> Self: ...
    def __exit__(self, exception_type: type[BaseException] | None, /, *rest: object) -> None: ...

    def add(self, kind: Kind, data: bytes | memoryview) -> ChunkId:
        """As `ChunkWriter.add`."""
        ...

    def rely_on(self, tree: ChunkId) -> None:
        """As `ChunkWriter.rely_on`."""
        ...

    def doubt(self) -> None:
        """As `ChunkWriter.doubt`."""
        ...

    def after_trees(self, change: Change) -> None:
        """As `ChunkWriter.after_trees`."""
        ...

    def flush(self) -> None:
        """As `ChunkWriter.flush`."""
        ...


class FolderObserver(Protocol):
    """Who wants to hear of changes in what is read: a `FolderWatch`."""

    def begin_scan(self) -> None:
        """As `FolderWatch.begin_scan`."""
        ...

    def enter(self, folder: int, prefix: bytes, path: bytes, rules: RuleStack, *, only: bytes | None = None) -> None:
        """As `FolderWatch.enter`."""
        ...

    def end_scan(self) -> None:
        """As `FolderWatch.end_scan`."""
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of the source that is not in the snapshot as it should be."""

    path: bytes
    """Absolute host path."""
    reason: str


@dataclass(slots=True)
class BackupProgress:
    """Counters that the backup keeps up to date; another thread may read them at any time."""

    files: int = 0
    directories: int = 0
    others: int = 0
    size_bytes: int = 0
    new_files: int = 0
    changed_files: int = 0
    excluded: int = 0
    vanished: int = 0
    current: bytes = b""
    problems: list[Problem] = field(default_factory=list)

    def begin_again(self) -> None:
        """Set all to nothing."""
        self.__init__()  # type: ignore[misc]  # whoever reads it has this very object


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What to leave out besides what `rules` and rule files in the source say."""

    rules: RuleStack = field(default_factory=RuleStack)
    exclude_caches: bool = False
    one_file_system: bool = False
    observer: FolderObserver | None = None
    """Hears of each folder before it is listed."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a scan stored; the fields are those of a `Snapshot`."""

    root: Entry
    xattr_names: tuple[bytes, ...]
    is_root_made_up: bool


@dataclass(slots=True)
class _Directory:
    """A directory being walked. `handle` is -1 while it is closed (see `_OPEN_DIRECTORIES_MAX`)."""

    name: bytes
    path: bytes
    handle: int
    status: os.stat_result
    rules: RuleStack
    xattrs: tuple[tuple[bytes, bytes], ...]
    seen: SeenDirectory | None
    old: dict[bytes, tuple[Entry, Mark]]
    """Entries of the tree stored last time, each with its mark."""
    entries: dict[bytes, tuple[Entry, Mark]] = field(default_factory=dict)
    """Entries of the tree to store, each with its mark."""
    has_changed: bool = False
    """Whether `entries` holds anything that is not in `old`."""
    subfolders: list[tuple[bytes, os.stat_result]] = field(default_factory=list)
    xattr_names: set[bytes] = field(default_factory=set)


class SourceScan:
    """One run over the folders of a source. `start_ns` is when the backup began. Not thread-safe."""

    def __init__(
        self, store: Store, sink: ChunkSink, source: str, options: ScanOptions, progress: BackupProgress, *, start_ns: int
    ) -> None:
        self._store = store
        self._sink = sink
        self._source = source
        self._options = options
        self._progress = progress
        self._start_ns = start_ns
        self._reader = SourceReader(
            store.chunking,
            store_data=lambda data: sink.add(Kind.DATA, data),
            store_list=lambda data: sink.add(Kind.TREE, data),
        )
        self._owners = OwnerNames()
        self._old_trees = TreeReader(store.reader())
        self._has_damage = count_damaged(store.environment) > 0
        self._links: dict[tuple[int, int], tuple[os.stat_result, FileBytes]] = {}
        self._counted_links: set[tuple[int, int]] = set()
        self._skipped_devices = _devices_of_our_mounts()
        self._store_identity = _identity(os.stat(store.path))
        self._root_device = 0
        self._host_prefix = b""

    def scan(self, folders: list[Path]) -> Scanned:
        """Store all that is in `folders` (absolute).

        A single folder is the root itself; else the root is made up, and holds each path under its last component.

        Raises:
            NotFoundError: a folder cannot be opened.
            Errors of the store.
        """
        is_folder = len(folders) == 1 and folders[0].is_dir() and not folders[0].is_symlink()
        observer = self._options.observer
        if observer is not None:
            observer.begin_scan()
        root, xattr_names = self._walk_single(folders[0]) if is_folder else self._walk_several(folders)
        if observer is not None:
            observer.end_scan()
        return Scanned(root, listed_xattr_names(xattr_names), is_root_made_up=not is_folder)

    def user(self, uid: int) -> str:
        """A user's name here, or nothing."""
        return self._owners.user(uid)

    def _walk_single(self, folder: Path) -> tuple[Entry, set[bytes]]:
        self._host_prefix = os.fsencode(folder).rstrip(b"/") + b"/"
        return self._walk_folder(folder, b"", b"")

    def _walk_several(self, folders: list[Path]) -> tuple[Entry, set[bytes]]:
        """A root folder of our own that holds each path under its last component."""
        entries: list[Entry] = []
        xattr_names: set[bytes] = set()
        for folder in folders:
            name = os.fsencode(folder.name)
            self._host_prefix = os.fsencode(folder.parent).rstrip(b"/") + b"/"
            if folder.is_dir() and not folder.is_symlink():
                entry, names = self._walk_folder(folder, name, name)
                entries.append(entry)
            else:
                found = self._walk_lone_file(folder, name)
                entries += (entry for entry, _ in found.entries.values())
                names = found.xattr_names
            xattr_names |= names
        now_ns = self._start_ns
        tree = self._add_tree(sorted(entries, key=lambda entry: entry.name))
        return Entry(b"", stat.S_IFDIR | 0o755, os.geteuid(), os.getegid(), now_ns, now_ns, 0, 0, tree), xattr_names

    def _walk_lone_file(self, file: Path, name: bytes) -> _Directory:
        """The folder that holds one file named on the command line, as if it held nothing else."""
        handle = os.open(file.parent, OPEN_DIRECTORY & ~os.O_NOFOLLOW)
        try:
            directory = _Directory(b"", b"", handle, os.fstat(handle), self._options.rules, (), None, {})
            self._tell_observer(directory, only=name)
            self._visit(directory, name, os.lstat(file))
        finally:
            os.close(handle)
        return directory

    def _walk_folder(self, folder: Path, name: bytes, path: bytes) -> tuple[Entry, set[bytes]]:
        """Walk a folder and all below it, and store its tree.

        Raises:
            NotFoundError: it cannot be opened.
        """
        try:
            handle = os.open(folder, OPEN_DIRECTORY)
        except OSError as error:
            message = f"cannot open {folder}: {error.strerror}; nothing was published"
            raise NotFoundError(message, hint="check that it is there and that you may read it") from error
        status = os.fstat(handle)
        self._root_device = status.st_dev
        stack = [self._enter(handle, name, path, status, self._options.rules)]
        try:
            while True:
                directory = stack[-1]
                if directory.subfolders:
                    child_name, child_status = directory.subfolders.pop()
                    child = self._open_subfolder(directory, child_name, child_status)
                    if child is not None:
                        directory.path = b""  # a long path at each level of a deep tree would take memory by the square of the depth
                        stack.append(child)
                        if len(stack) > _OPEN_DIRECTORIES_MAX and (far := stack[-_OPEN_DIRECTORIES_MAX]).handle >= 0:
                            os.close(far.handle)
                            far.handle = -1
                    continue
                entry = self._leave(directory)
                stack.pop()
                if not stack:
                    os.close(directory.handle)
                    self._notice_if_gone(folder, directory)
                    return entry, directory.xattr_names
                stack[-1].path = directory.path.rpartition(b"/")[0]
                self._return_to(stack[-1], directory)
                self._add_subfolder(stack[-1], directory, entry)
        finally:
            for directory in stack:
                if directory.handle >= 0:
                    os.close(directory.handle)

    def _notice_if_gone(self, folder: Path, directory: _Directory) -> None:
        """Half of a folder that was removed meanwhile must not pass for the whole."""
        try:
            is_there = _identity(os.lstat(folder)) == _identity(directory.status)
        except OSError:
            is_there = False
        if not is_there:
            self._problem(directory.path, "was removed or moved while it was backed up: what is in the snapshot may not be all")

    def _open_subfolder(self, parent: _Directory, name: bytes, status: os.stat_result) -> _Directory | None:
        path = _join(parent.path, name)
        try:
            if parent.handle < 0:
                raise FileNotFoundError(parent.path)
            handle = os.open(name, OPEN_DIRECTORY, dir_fd=parent.handle)
        except FileNotFoundError:
            self._progress.vanished += 1
            return None
        except OSError as error:
            self._problem(path, f"cannot be opened: {error.strerror}")
            return None
        return self._enter(handle, name, path, os.fstat(handle), parent.rules)

    def _enter(self, handle: int, name: bytes, path: bytes, status: os.stat_result, rules: RuleStack) -> _Directory:
        """List a directory, and back up everything in it but subfolders."""
        self._progress.directories += 1
        self._progress.current = path
        seen, old = self._recall(path)
        directory = _Directory(name, path, handle, status, rules, (), seen, old)
        try:
            directory.xattrs = self._reader.read_xattrs(handle, status, self._reporter(path))
            if _identity(status) == self._store_identity:
                self._progress.excluded += 1
                return directory
            if status.st_dev != self._root_device and (self._options.one_file_system or status.st_dev in self._skipped_devices):
                return directory
            self._tell_observer(directory)
            with os.scandir(handle) as listing:
                items = sorted(((os.fsencode(item.name), item) for item in listing), key=itemgetter(0))
        except OSError as error:
            self._problem(path, f"cannot be listed: {error.strerror}")
            return directory
        names = {item_name for item_name, _ in items}
        is_cache = self._options.exclude_caches and _CACHE_TAG in names and self._is_cache(handle)
        if is_cache:
            items = [item for item in items if item[0] == _CACHE_TAG]
        if IGNORE_FILE in names:
            directory.rules = self._read_rules(directory)
        if is_cache or IGNORE_FILE in names:
            self._tell_observer(directory, only=_CACHE_TAG if is_cache else None)
        for item_name, item in items:
            try:
                item_status = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                self._progress.vanished += 1
                continue
            except OSError as error:
                self._problem(_join(path, item_name), f"cannot be examined: {error.strerror}")
                continue
            self._visit(directory, item_name, item_status)
        directory.subfolders.reverse()
        return directory

    def _tell_observer(self, directory: _Directory, *, only: bytes | None = None) -> None:
        if (observer := self._options.observer) is not None:
            observer.enter(directory.handle, self._host_prefix, directory.path, directory.rules, only=only)

    def _visit(self, directory: _Directory, name: bytes, status: os.stat_result) -> None:
        """Back up one name of a directory; a subfolder only goes onto its list."""
        mode = status.st_mode
        is_directory = stat.S_ISDIR(mode)
        if directory.rules and directory.rules.excludes(_join(directory.path, name), is_directory=is_directory):
            self._progress.excluded += 1
            return
        if is_directory:
            directory.subfolders.append((name, status))
            return
        progress = self._progress
        old = directory.old.get(name)
        if old is not None and _is_unchanged(old, status, size=status.st_size) and not self._is_lost(old[0]):
            self._count(status)
            directory.entries[name] = old
            return
        problems = len(progress.problems)
        try:
            if stat.S_ISREG(mode):
                entry, status = self._read_regular(directory, name, status)
            else:
                xattrs = self._read_xattrs_of(directory, name, status)
                entry = make_entry(name, status, Content(0, special_content(directory.handle, name, status)), xattrs=xattrs)
        except FileNotFoundError:
            progress.vanished += 1
        except OSError as error:
            self._problem(_join(directory.path, name), f"cannot be read: {error.strerror}")
        else:
            self._count(status)
            if stat.S_ISREG(mode):
                progress.new_files += old is None
                progress.changed_files += old is not None
            # What is not in the snapshot as it should be is read again next time, and reported again.
            self._take(directory, entry, status, is_trusted=len(progress.problems) == problems)

    def _is_lost(self, entry: Entry) -> bool:
        """Whether the store lacks a part of a file, as it may once damage was noted: then it is read and stored again."""
        if not self._has_damage:
            return False
        try:
            spans = iter_spans(entry.file_content, self._old_trees.chunks.read)
            return any(span.chunk != HOLE and not self._store.has_chunk(span.chunk) for span in spans)
        except (CorruptionError, FormatError):
            return True

    def _take(self, directory: _Directory, entry: Entry, status: os.stat_result, *, is_trusted: bool = True) -> None:
        """Put an entry made in this run into its directory; the old one if nothing but the access time differs."""
        if entry.mtime_ns != status.st_mtime_ns:
            self._problem(
                _join(directory.path, entry.name), "its modification time is stored as the nearest between the years 1678 and 2262"
            )
        old = directory.old.get(entry.name)
        if old is not None and same_entry(old[0], entry):
            entry = old[0]
        mark = (status.st_ino, status.st_ctime_ns) if is_trusted and self._is_settled(status) else UNTRUSTED
        directory.entries[entry.name] = entry, mark
        if old is None or old != (entry, mark):
            directory.has_changed = True
        if entry.extra is not None:
            directory.xattr_names.update(name for name, _ in entry.extra.xattrs)

    def _read_regular(self, directory: _Directory, name: bytes, status: os.stat_result) -> tuple[Entry, os.stat_result]:
        """Read a file, or recall what its other hard link held; with its status then."""
        link = (status.st_dev, status.st_ino)
        linked = self._links.get(link) if status.st_nlink > 1 else None
        if linked is not None and linked[0].st_ctime_ns == status.st_ctime_ns:
            xattrs = self._read_xattrs_of(directory, name, status)
            return make_entry(name, status, linked[1].content, xattrs=xattrs, data=linked[1]), status
        read = self._reader.read_file(directory.handle, name, status, self._reporter(_join(directory.path, name)))
        if read.is_torn:
            self._problem(_join(directory.path, name), "changed while it was read: what was read is stored")
        elif read.status.st_nlink > 1:
            self._links[link] = (read.status, read.data)
        return make_entry(name, read.status, read.data.content, xattrs=read.xattrs, data=read.data), read.status

    def _read_xattrs_of(self, directory: _Directory, name: bytes, status: os.stat_result) -> tuple[tuple[bytes, bytes], ...]:
        path = b"/proc/self/fd/%d/%s" % (directory.handle, name)
        return self._reader.read_xattrs(path, status, self._reporter(_join(directory.path, name)))

    def _leave(self, directory: _Directory) -> Entry:
        """Store a directory's tree, or find that it is the one stored last time. Returns the entry for its parent."""
        seen = directory.seen
        names_below = directory.xattr_names
        if seen is not None and not directory.has_changed and len(directory.entries) == len(directory.old):
            tree = seen.tree
            names_below.update(seen.xattr_names)
        else:
            entries = [directory.entries[name] for name in sorted(directory.entries)]
            if seen is not None:
                # Names of unchanged entries are not known one by one; too many only cost a little time when browsing.
                names_below.update(seen.xattr_names)
            tree = self._add_tree([entry for entry, _ in entries])
            for name, (old, _) in directory.old.items():
                if stat.S_ISDIR(old.mode) and name not in directory.entries:
                    self._sink.after_trees(forget_seen_change(self._source, _join(directory.path, name)))
            now_seen = SeenDirectory(RECORD_VERSION, tree, tuple(mark for _, mark in entries), listed_xattr_names(names_below))
            self._sink.after_trees(seen_change(self._source, directory.path, now_seen))
        names_below.update(name for name, _ in directory.xattrs)
        return make_entry(directory.name, directory.status, Content(0, tree), xattrs=directory.xattrs)

    def _recall(self, path: bytes) -> tuple[SeenDirectory | None, dict[bytes, tuple[Entry, Mark]]]:
        """What the last backup saw of a directory, and the entries it stored, by name.

        Nothing at all if any of that is damaged: then all is read again, nothing is taken over, and what the store has of it
        is not believed.
        """
        try:
            seen = self._store.find_seen(self._source, path)
            if seen is not None:
                self._sink.rely_on(seen.tree)
            entries = self._old_trees.read(seen.tree).entries if seen is not None else ()
        except (CorruptionError, FormatError) as error:
            _log.warning("%s; the folder %s is read again", error.message, os.fsdecode(self._host_prefix + path))
            self._sink.doubt()
            return None, {}
        if seen is None or len(entries) != len(seen.marks):
            return None, {}
        return seen, {entry.name: (entry, mark) for entry, mark in zip(entries, seen.marks, strict=True)}

    def _add_subfolder(self, parent: _Directory, child: _Directory, entry: Entry) -> None:
        parent.xattr_names |= child.xattr_names
        old = parent.old.get(child.name)
        if old is not None and old[0].content == entry.content and _is_unchanged(old, child.status, size=0):
            parent.entries[child.name] = old
        else:
            self._take(parent, entry, child.status)

    def _return_to(self, parent: _Directory, child: _Directory) -> None:
        """Close the child; open its parent again if it was closed on the way down. The child may be one that could not be."""
        if parent.handle < 0 <= child.handle:
            try:
                handle = os.open(b"..", OPEN_DIRECTORY, dir_fd=child.handle)
                if _identity(os.fstat(handle)) == _identity(parent.status):
                    parent.handle = handle
                else:
                    os.close(handle)
            except OSError:
                pass
        if parent.handle < 0 and parent.subfolders:
            self._problem(parent.path, "was moved while it was backed up: some of its folders are missing")
        if child.handle >= 0:
            os.close(child.handle)
            child.handle = -1

    def _add_tree(self, entries: list[Entry]) -> TreeId:
        tree = self._owners.tree_of(entries)
        return store_tree(tree, self._store.chunking, lambda record: self._sink.add(Kind.TREE, record))

    def _read_rules(self, directory: _Directory) -> RuleStack:
        path = _join(directory.path, IGNORE_FILE)
        try:
            file = os.open(IGNORE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory.handle)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    return directory.rules
                content = os.read(file, IGNORE_FILE_BYTES_MAX + 1)
            finally:
                os.close(file)
            if len(content) > IGNORE_FILE_BYTES_MAX:
                # Not the part that was read: a rule that is cut leaves out other things than it says.
                self._problem(path, f"its rules are not used: it is larger than {IGNORE_FILE_BYTES_MAX >> 20} MiB")
                return directory.rules
        except OSError as error:
            self._problem(path, f"its rules cannot be read: {error.strerror}")
            return directory.rules
        return directory.rules.with_rules(directory.path, split_rules(content), report=self._reporter(path))

    def _is_cache(self, handle: int) -> bool:
        """Whether the directory is tagged as a cache (bford.info/cachedir)."""
        try:
            file = os.open(_CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
            try:
                is_file = stat.S_ISREG(os.fstat(file).st_mode)
                return is_file and os.read(file, len(_CACHE_TAG_START)) == _CACHE_TAG_START
            finally:
                os.close(file)
        except OSError:
            return False

    def _count(self, status: os.stat_result) -> None:
        progress = self._progress
        if not stat.S_ISREG(status.st_mode):
            progress.others += 1
            return
        progress.files += 1
        if status.st_nlink > 1:
            identity = _identity(status)
            if identity in self._counted_links:
                return
            self._counted_links.add(identity)
        progress.size_bytes += status.st_size

    def _is_settled(self, status: os.stat_result) -> bool:
        """Whether a later change is sure to give other time stamps than these."""
        for time_ns in (status.st_mtime_ns, status.st_ctime_ns):
            if time_ns >= self._start_ns - (_TICK_NS if time_ns % 1_000_000_000 else _COARSE_TICK_NS):
                return False
        return True

    def _reporter(self, path: bytes) -> Report:
        return partial(self._problem, path)

    def _problem(self, path: bytes, reason: str) -> None:
        self._progress.problems.append(Problem(self._host_prefix + path, reason))


def count_source(paths: Iterable[Path], *, one_file_system: bool) -> Iterator[tuple[int, int]]:
    """Count the files below these paths and their bytes, as a scan without rules would. Gives the sums so far, folder by folder.

    Quick and rough: for a guess of the time that is left.
    """
    files = size_bytes = 0
    skipped_devices = _devices_of_our_mounts()
    for path in paths:
        try:
            root_device = os.lstat(path).st_dev
        except OSError:
            continue
        waiting = [os.fsencode(path)]
        while waiting:
            yield files, size_bytes
            try:
                with os.scandir(waiting.pop()) as listing:
                    for item in listing:
                        status = item.stat(follow_symlinks=False)
                        is_elsewhere = status.st_dev != root_device
                        if is_elsewhere and (one_file_system or status.st_dev in skipped_devices):
                            continue
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append(item.path)
                        elif stat.S_ISREG(status.st_mode):
                            files += 1
                            size_bytes += status.st_size
            except OSError:
                continue
    yield files, size_bytes


def _is_unchanged(old: tuple[Entry, Mark], status: os.stat_result, *, size: int) -> bool:
    """Whether what was stored last time is what is there now; `size` is 0 for a directory."""
    entry, (inode, ctime_ns) = old
    return (
        entry.mtime_ns == status.st_mtime_ns
        and ctime_ns == status.st_ctime_ns
        and inode == status.st_ino
        and entry.size == size
        and entry.mode == status.st_mode
    )


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _devices_of_our_mounts() -> set[int]:
    """Device numbers of yester's own mounts: backing up a home folder must not back up its snapshots again and again."""
    devices = set()
    try:
        with open("/proc/self/mountinfo", "rb") as table:
            for line in table:
                left, _, right = line.partition(b" - ")
                if right.startswith(b"fuse.yester "):
                    major, minor = left.split()[2].split(b":")
                    devices.add(os.makedev(int(major), int(minor)))
    except OSError:
        pass
    return devices

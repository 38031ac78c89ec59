# SPDX-License-Identifier: MIT
"""Restoring: a stored folder or file comes back, with everything that is known about it.

Three passes over the stored folders, each in the order in which they were stored, so that a segment is decompressed once:

1. *Files*: folders are made as the walk comes to them, and runs of their regular files are handed out, to worker processes if
   there is much to do. Folders are open to nobody else until pass 3.
2. *Links*: symlinks, further names of files, FIFOs, sockets, device nodes. So while files are written, the target holds no
   symlink of ours; whoever put others there finds that none is followed (`target`).
3. *Folders*: their owners, permissions and times, those of inner folders first.

What exists is kept unless it is the same (then its metadata is mended) or `overwrite` is set; other files in the target are
never touched. Wrong bytes in the store cost the files that need them, and no file appears that is not whole. So running a
restore again, be it after a crash, goes on from what is there.

Errors of single files are collected; a full disk and an unreadable store end a restore at once.

Durability: with `sync`, what the result says is restored survives a power loss right after. Without, or after an error, the
system writes it when it likes; a crash of the system may then leave files with the right names and too few bytes.

Memory: bounded, but for about 300 bytes for each stored file that has several names, since any later name may be one of its.
"""

import ctypes
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec

from yester.core.records import Entry, Tree, entry_problem
from yester.engine.restore_files import FileRestorer, Findings, Tally, Task, join, read_folder
from yester.engine.restore_pool import Setup, WorkerPool
from yester.engine.restore_preview import Change, Preview
from yester.engine.restore_walk import StoredWalk, Visit
from yester.engine.target import FolderChain, Owner, OwnerMap, Owners, Shortfall, inherits_acl, is_not_a_folder, is_same, open_folder
from yester.engine.worker import StoreAccess
from yester.errors import ConflictError, CorruptionError, LimitError, UsageError, YesterError
from yester.store.store import Store

BATCH_FILES = 1000
BATCH_BYTES = 16 * 1024 * 1024
BATCH_PATH_BYTES = 1024 * 1024
"""What a process is given at a time. Smaller: segments at the seams are decompressed twice too often. Larger: processes
idle at the end. A restore that is a single batch needs no other process."""

PROCESSES_MAX = 8
"""Beyond this, folders cannot be made as fast as they are filled."""

_log = logging.getLogger(__name__)

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.EACCES)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to treat what is there, and what to put there."""

    overwrite: bool = False
    """Replace existing files that differ. Never a folder by something else."""
    dry_run: bool = False
    numeric_ids: bool = False
    """Take stored user and group numbers as they are, instead of looking up their names on this machine."""
    sync: bool = True
    """Return only when the target's file system has everything on its disk."""
    processes: int = 0
    """At most so many worker processes; 0: as many as there are processors. 1 does everything in this process."""


@dataclass(slots=True)
class RestoreProgress:
    """Counters that the restore keeps up to date; another thread may read them at any time."""

    files: int = 0
    """In place: regular files and further names of them, and whatever was found there."""
    directories: int = 0
    others: int = 0
    written_bytes: int = 0
    problems: int = 0
    current: bytes = b""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What came of it; after a dry run, what would have. All paths are relative to the destination."""

    files: int
    """Regular files written, not counting further names of the same file."""
    links: int
    directories: int
    """Folders made, or found and given their stored metadata."""
    others: int
    """Symlinks, FIFOs, sockets and device nodes."""
    written_bytes: int
    unchanged: int
    """Files of any type that were there already, and are the same."""
    mended: int
    """How many of those got other metadata."""
    conflicts: Findings
    """What was kept because something else has its name."""
    damaged: Findings
    """What the store cannot give back: nothing was put in its place."""
    failed: Findings
    """What the target's file system refused."""
    shortfalls: dict[Shortfall, Findings] = field(default_factory=dict)
    """What could not be set for lack of rights. Not a failure: an ordinary user cannot give files away."""

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is in place, short of what this user may not set."""
        return not (self.conflicts.count or self.damaged.count or self.failed.count)


def restore(
    store: Store,
    root: Entry,
    destination: Path,
    options: RestoreOptions,
    *,
    parent: Tree | None = None,
    progress: RestoreProgress | None = None,
    on_change: Callable[[Change, bytes], None] = lambda _change, _path: None,
) -> RestoreResult:
    """Restore what `root` names. A folder's content, and its metadata, come to `destination`; anything else comes into it.

    `destination` and folders above it are made if they are missing. `parent` is the tree that `root` was found in: it has the names of
    its owner. `on_change` hears what a dry run would do, path by path. Worker processes are ended whatever happens here.

    Raises:
        UsageError, ConflictError: it cannot be restored there; nothing was changed.
        CorruptionError, FormatError: `root` itself cannot be read; nothing was changed.
        LimitError: no space is left. StoreAccessError: the store cannot be read. What is in place then is whole.
    """
    problem = entry_problem(msgspec.structs.replace(root, name=root.name or b"root") if stat.S_ISDIR(root.mode) else root)
    if problem:
        message = f"{os.fsdecode(root.name)!r} cannot be restored: {problem}; nothing was changed"
        raise CorruptionError(message, hint="run `yester check`")
    _check_destination(store, destination)
    owners = Owners(numeric=options.numeric_ids)
    owner_map = None if parent is None else owners.of_tree(parent)
    is_folder = stat.S_ISDIR(root.mode)
    if is_folder:
        read_folder(store.reader(), root.tree, owners)  # before anything is made for it
    if progress is None:
        progress = RestoreProgress()
    with ExitStack() as stack:
        handle, is_new = _open_destination(destination, options, is_folder=is_folder)
        if handle is not None:
            stack.callback(os.close, handle)
        if handle is None or options.dry_run:
            looker = Preview(store.reader(), handle, on_change, overwrite=options.overwrite)
            stack.callback(looker.close)
            if is_folder:
                looker.look_at_all(StoredWalk(store.reader(), root, owner_map, is_new=is_new, owners=owners, tally=looker.tally))
            else:
                looker.look_at(b"", root, (owner_map or OwnerMap({}, {})).owner_of(root), is_new=is_new)
            return _result(looker.tally)
        show = partial(_show, progress)
        reader = store.reader(read_ahead=True)
        files = stack.enter_context(FileRestorer(reader, handle, owners, overwrite=options.overwrite, on_step=show))
        stack.callback(show, files.tally)
        sources = stack.enter_context(FolderChain(handle))
        job = _Restore(store, handle, files, sources, options)
        with _explaining_full_disk(destination, files.tally):
            if is_folder:
                job.restore_folder(StoredWalk(store.reader(), root, owner_map, is_new=is_new, owners=owners, tally=files.tally))
            else:
                job.restore_file(root, (owner_map or OwnerMap({}, {})).owner_of(root))
        if options.sync:
            _sync(handle, destination)
        return _result(files.tally)


def _check_destination(store: Store, destination: Path) -> None:
    resolved, inside = os.path.realpath(destination), os.path.realpath(store.path)
    if resolved == inside or resolved.startswith(inside + "/"):
        message = f"{destination} is inside the store; nothing was changed"
        raise UsageError(message, hint="restore to another folder")


def _open_destination(destination: Path, options: RestoreOptions, *, is_folder: bool) -> tuple[int | None, bool]:
    """Its handle, and whether it was made just now. No handle if a dry run found nothing there. May be a symlink: the user named it."""
    is_new = False
    try:
        if not options.dry_run:
            os.makedirs(destination.parent, exist_ok=True)
            try:
                os.mkdir(destination, 0o700 if is_folder else 0o777)
                is_new = True
            except FileExistsError:
                pass
        elif not os.path.lexists(destination):
            if not next(folder for folder in Path(os.path.abspath(destination)).parents if os.path.lexists(folder)).is_dir():
                raise NotADirectoryError
            return None, True
        real = os.fsencode(os.path.realpath(destination))
        mends_permissions = is_folder and not options.dry_run and os.geteuid() != 0
        return open_folder(real, parent=None, mends_permissions=mends_permissions), is_new
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        message = f"{destination} is not a folder; nothing was changed"
        raise ConflictError(message, hint="name a folder, or something that does not exist yet") from error
    except OSError as error:
        message = f"cannot restore to {destination}: {error.strerror}; nothing was changed"
        raise ConflictError(message, hint="name a folder that you may write to") from error


_LinkKey = tuple[tuple[int, int], int, int, bytes]


class _Restore:
    """One restore that is not a dry run."""

    def __init__(self, store: Store, root: int, files: FileRestorer, sources: FolderChain, options: RestoreOptions) -> None:
        self._store = store
        self._root = root
        self._files = files
        self._folders = files.folders
        self._sources = sources
        self._options = options
        self._tally = files.tally
        self._store_identity = _identity(os.stat(store.path))
        self._links: dict[_LinkKey, tuple[bytes, bytes]] = {}
        """Folder and name of the first of each stored file that has several."""
        self._has_others = False

    def restore_folder(self, walk: StoredWalk) -> None:
        """Restore all that a walk leads to."""
        self._write_files(self._batches(walk))
        if self._has_others:
            self._restore_others(walk)
        self._finish_folders(walk)

    def restore_file(self, entry: Entry, owner: Owner) -> None:
        """Restore a single entry that is no folder."""
        try:
            self._restore_entry(self._root, b"", entry, owner, drops_acl=inherits_acl(self._root))
        except OSError as error:
            self._files.fail(entry.name, error)

    # --- pass 1 ---

    def _write_files(self, batches: Iterator[list[Task]]) -> None:
        first, second = next(batches, []), next(batches, None)
        pool = None if second is None else self._start_pool()
        if second is None or pool is None:
            for task in chain(first, second or (), chain.from_iterable(batches)):
                self._files.run(task)
            return
        with pool:
            for batch in chain([first, second], batches):
                pool.submit(batch)
            pool.finish()

    def _start_pool(self) -> WorkerPool | None:
        """None if this process shall do everything, or has to: it may run as somebody who cannot start another."""
        count = self._options.processes or min(PROCESSES_MAX, len(os.sched_getaffinity(0)))
        if count == 1:
            return None
        setup = Setup(StoreAccess.to(self._store), self._root, self._options.numeric_ids, self._options.overwrite)
        try:
            return WorkerPool(count, setup, self._take_tally)
        except OSError as error:
            _log.info("no other processes could be started: %s", error)
            return None

    def _batches(self, walk: StoredWalk) -> Iterator[list[Task]]:
        """Make all folders, and give what there is to write into them."""
        batch = _Batch()
        for visit, stored in walk.enter():
            visit.is_pruned = not self._make_folder(visit)
            if visit.is_pruned:
                continue
            start = 0
            for stop, entry in enumerate(stored.entries, start=1):
                if not stat.S_ISREG(entry.mode):
                    self._has_others |= not stat.S_ISDIR(entry.mode)
                    continue
                key = _link_key(entry)
                if key is not None:
                    place = visit.path, entry.name
                    if self._links.setdefault(key, place) != place:
                        self._has_others = True
                        batch.skipped.append(entry.name)
                        continue
                batch.add(entry)
                if batch.is_full:
                    batch.end_task(visit, start, stop, is_judged=not stored.problems)
                    start = stop
                    yield batch.tasks
                    batch = _Batch()
            batch.end_task(visit, start, len(stored.entries), is_judged=not stored.problems)
        if batch.tasks:
            yield batch.tasks

    def _make_folder(self, visit: Visit) -> bool:
        """Make a folder, or find that it is there. False if that cannot be."""
        self._tally.current = visit.path
        try:
            if visit.parent is not None:
                folder = self._folders.open(visit.parent.path)
                try:
                    os.mkdir(visit.entry.name, 0o700, dir_fd=folder)
                    visit.is_new = True
                except FileExistsError:
                    if not self._can_use(visit):
                        return False
        except OSError as error:
            self._files.fail(visit.path, error)
            return False
        self._tally.directories += 1
        self._files.on_step(self._tally)
        return True

    def _can_use(self, visit: Visit) -> bool:
        """Whether what is there is a folder, or was replaced by one."""
        assert visit.parent is not None
        try:
            status = os.fstat(self._folders.open(visit.path))
        except OSError as error:
            if not is_not_a_folder(error):
                raise
            if not self._options.overwrite:
                self._tally.conflicts.add(visit.path, "is not a folder, and a folder is stored")
                return False
            folder = self._folders.open(visit.parent.path)
            os.unlink(visit.entry.name, dir_fd=folder)
            os.mkdir(visit.entry.name, 0o700, dir_fd=folder)
            visit.is_new = True
            return True
        if _identity(status) == self._store_identity:
            self._tally.conflicts.add(visit.path, "is the store that is being restored from")
            return False
        return True

    def _take_tally(self, tally: Tally) -> None:
        self._tally.merge(tally)
        self._files.on_step(self._tally)

    # --- pass 2 ---

    def _restore_others(self, walk: StoredWalk) -> None:
        for visit, stored in walk.enter():
            wanted = [entry for entry in stored.entries if self._is_other(visit.path, entry)]
            if not wanted:
                continue
            try:
                folder = self._folders.open(visit.path)
                drops_acl = inherits_acl(folder)
            except OSError as error:
                self._files.fail(visit.path, error)
                continue
            for entry in wanted:
                path = join(visit.path, entry.name)
                self._tally.current = path
                try:
                    self._restore_entry(folder, visit.path, entry, stored.owners.owner_of(entry), drops_acl=drops_acl)
                except OSError as error:
                    self._files.fail(path, error)
                self._files.on_step(self._tally)

    def _is_other(self, folder_path: bytes, entry: Entry) -> bool:
        """Whether an entry is neither folder nor a file that pass 1 was for."""
        if not stat.S_ISREG(entry.mode):
            return not stat.S_ISDIR(entry.mode)
        key = _link_key(entry)
        return key is not None and self._links[key] != (folder_path, entry.name)

    def _restore_entry(self, folder: int, folder_path: bytes, entry: Entry, owner: Owner, *, drops_acl: bool) -> None:
        path = join(folder_path, entry.name)
        key = _link_key(entry)
        if key is not None:
            place = folder_path, entry.name
            first = self._links.setdefault(key, place)
            if first != place and self._link(first, folder, entry, owner, path):
                return
            self._links[key] = place
        if stat.S_ISREG(entry.mode):
            self._files.restore_file(folder, entry, owner, path, is_new=False, drops_acl=drops_acl)
            return
        replaces = self._files.examine(folder, entry, owner, path)
        if replaces is not None:
            is_made = self._files.target.make_special(folder, entry, owner, path, replaces=replaces, drops_acl=drops_acl)
            self._tally.others += is_made

    def _link(self, first: tuple[bytes, bytes], folder: int, entry: Entry, owner: Owner, path: bytes) -> bool:
        """Make a further name of a file, or find something there. False if the first is not there, or cannot have another name."""
        try:
            source_folder = self._sources.open(first[0])
            status = os.stat(first[1], dir_fd=source_folder, follow_symlinks=False)
        except OSError:
            return False
        if not is_same(entry, status, source_folder, first[1]):
            return False
        replaces = self._files.examine(folder, entry, owner, path)
        if replaces is None:
            return True
        try:
            self._files.target.link(source_folder, first[1], folder, entry.name, replaces=replaces)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._tally.add_shortfall(Shortfall.LINK, path)
            return False
        if stat.S_ISLNK(entry.mode):
            # Looking at where a symlink leads, as above, is an access.
            os.utime(entry.name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)
        self._tally.links += 1
        return True

    # --- pass 3 ---

    def _finish_folders(self, walk: StoredWalk) -> None:
        for visit in walk.leave():
            try:
                folder = self._folders.open(visit.path)
                self._files.target.set_metadata(folder, os.fstat(folder), visit.entry, visit.owner, visit.path, drops_acl=True)
            except OSError as error:
                self._files.fail(visit.path, error)


class _Batch:
    """Tasks for one process, and what the task that is being put together has so far."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.skipped: list[bytes] = []
        self._files = 0
        self._bytes = 0
        self._path_bytes = 0
        self._task_files = 0

    def add(self, entry: Entry) -> None:
        """Add a file to the task that is being put together."""
        self._files += 1
        self._task_files += 1
        self._bytes += entry.stored_bytes

    def end_task(self, visit: Visit, start: int, stop: int, *, is_judged: bool) -> None:
        """The task is what was added since the last one: in a folder, from one entry to before another."""
        if self._task_files:
            self.tasks.append(Task(visit.path, visit.entry.tree, start, stop, visit.is_new, self.skipped, is_judged))
            self._path_bytes += len(visit.path)
        self._task_files = 0
        self.skipped = []

    @property
    def is_full(self) -> bool:
        """Whether it is time to hand it out."""
        return self._files >= BATCH_FILES or self._bytes >= BATCH_BYTES or self._path_bytes >= BATCH_PATH_BYTES


def _link_key(entry: Entry) -> _LinkKey | None:
    """Equal for names of the same file. Its content is part of it: a file may have changed between two of its names."""
    extra = entry.extra
    if extra is None or extra.nlink <= 1 or not any(extra.link):
        return None
    return extra.link, entry.mtime_ns, entry.size, entry.content


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _sync(root: int, destination: Path) -> None:
    """Have the target's file system write all it holds. Python has no syncfs, and sync is for all file systems."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(root) != 0:
        reason = os.strerror(ctypes.get_errno())
        message = f"{destination} was restored, but its disk reported an error while writing: {reason}; some files may not be whole"
        raise YesterError(message, hint="check the disk, or restore to another one")


def _show(progress: RestoreProgress, tally: Tally) -> None:
    progress.files = tally.files + tally.links + tally.unchanged
    progress.directories = tally.directories
    progress.others = tally.others
    progress.written_bytes = tally.written_bytes
    progress.problems = tally.conflicts.count + tally.damaged.count + tally.failed.count
    progress.current = tally.current


@contextmanager
def _explaining_full_disk(destination: Path, tally: Tally) -> Iterator[None]:
    try:
        yield
    except LimitError as error:
        message = (
            f"{error.message}; at least {tally.files} files were restored to {destination} and are whole,"
            " others are missing, and folders do not have their permissions and times yet"
        )
        raise LimitError(message, hint="free space there and run the same command again: it goes on from what is there") from error


def _result(tally: Tally) -> RestoreResult:
    return RestoreResult(
        tally.files,
        tally.links,
        tally.directories,
        tally.others,
        tally.written_bytes,
        tally.unchanged,
        tally.mended,
        tally.conflicts,
        tally.damaged,
        tally.failed,
        {Shortfall(name): findings for name, findings in tally.shortfalls.items()},
    )

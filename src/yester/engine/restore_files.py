# SPDX-License-Identifier: MIT
"""Restoring the regular files of folders, and counting what came of it.

This is the part of a restore that takes the time, so worker processes do it (`restore_pool`), or the one process of a small
restore. A `Task` is a run of one folder's entries; `FileRestorer` works it off and adds to its `Tally`. Folders, links and
special files are made elsewhere (`restore`): while files are written there is no symlink of ours in the target.

Threads: a `FileRestorer` belongs to one thread.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Self

import msgspec

from yester.core.content import iter_spans, sole_span
from yester.core.ids import TreeId
from yester.core.records import Entry, Tree, decode_tree
from yester.engine.files import iter_pieces
from yester.engine.target import FULL, FolderChain, Owner, OwnerMap, Owners, Shortfall, Target, holds_content, inherits_acl, is_same
from yester.engine.trees import judge_entries, read_tree_record
from yester.errors import CorruptionError, FormatError, LimitError
from yester.store.chunks import ChunkSource, NamingSource

FINDINGS_KEPT = 10_000
SHORTFALLS_KEPT = 5

Pieces = Iterable[tuple[int, memoryview | None]]


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """Something to report of one path, which is relative to the target."""

    path: bytes
    reason: str


class Findings(msgspec.Struct, array_like=True):
    """How many there were, and the first of them."""

    count: int = 0
    first: list[Finding] = []

    def add(self, path: bytes, reason: str, *, kept: int = FINDINGS_KEPT) -> None:
        """Count one, and keep it if it is among the first."""
        self.count += 1
        if len(self.first) < kept:
            self.first.append(Finding(path, reason))

    def merge(self, other: "Findings", *, kept: int = FINDINGS_KEPT) -> None:
        """Add all that another process found."""
        self.count += other.count
        self.first += other.first[: max(0, kept - len(self.first))]


class Tally(msgspec.Struct, array_like=True):
    """What came of a restore, or of a part of it."""

    files: int = 0
    """Regular files written."""
    written_bytes: int = 0
    """Of those files, without holes. Counts bytes of files that are not finished, too."""
    links: int = 0
    """Further names given to files that have several."""
    directories: int = 0
    """Folders that are in place, made or found."""
    others: int = 0
    """Symlinks, FIFOs, sockets and device nodes made."""
    unchanged: int = 0
    """Files of any type that were there already."""
    mended: int = 0
    """How many of those got other metadata."""
    conflicts: Findings = msgspec.field(default_factory=Findings)
    damaged: Findings = msgspec.field(default_factory=Findings)
    failed: Findings = msgspec.field(default_factory=Findings)
    shortfalls: dict[str, Findings] = {}
    current: bytes = b""

    def add_shortfall(self, shortfall: Shortfall, path: bytes) -> None:
        """Count something that could not be restored for lack of rights."""
        self.shortfalls.setdefault(shortfall.value, Findings()).add(path, "", kept=SHORTFALLS_KEPT)

    def merge(self, other: "Tally") -> None:
        """Add all that another process counted."""
        self.files += other.files
        self.written_bytes += other.written_bytes
        self.links += other.links
        self.directories += other.directories
        self.others += other.others
        self.unchanged += other.unchanged
        self.mended += other.mended
        self.conflicts.merge(other.conflicts)
        self.damaged.merge(other.damaged)
        self.failed.merge(other.failed)
        for shortfall, findings in other.shortfalls.items():
            self.shortfalls.setdefault(shortfall, Findings()).merge(findings, kept=SHORTFALLS_KEPT)
        self.current = other.current or self.current


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A run of a folder's entries, whose regular files are to be restored."""

    path: bytes
    """Of the folder, relative to the target."""
    tree: TreeId
    start: int
    stop: int
    """From which to before which of the tree's good entries."""
    is_new: bool
    """Whether this restore made the folder: then no names in it need to be looked for."""
    skipped: list[bytes] = []
    """Names that become hard links of other files later."""
    is_judged: bool = False
    """Whether all entries of the tree are known to be good."""


class StoredFolder(msgspec.Struct, frozen=True):
    """A tree as far as it can be restored."""

    entries: tuple[Entry, ...]
    """The good ones, sorted by name."""
    problems: list[tuple[bytes, str]]
    """Names of the others, and what is wrong with them."""
    owners: OwnerMap


def read_folder(chunks: ChunkSource, tree: TreeId, owners: Owners, *, is_judged: bool = False) -> StoredFolder:
    """A stored folder. `is_judged`: its entries were judged before, and all were good; judging is most of the work.

    Raises:
        CorruptionError, FormatError: it cannot be read.
    """
    decoded: Tree = decode_tree(read_tree_record(chunks, tree))
    entries, problems = (decoded.entries, []) if is_judged else judge_entries(decoded)
    return StoredFolder(entries, problems, owners.of_tree(decoded))


def is_restored(entry: Entry, status: os.stat_result, folder: int, chunks: NamingSource, *, reads: bool) -> bool:
    """Whether what an open folder has under the name of `entry` is what is stored: as `is_same`, and with `reads` byte by byte.

    Where the stored list of what a file should hold is damaged, its bytes are not judged.

    Raises:
        OSError: it cannot be read.
    """
    if not is_same(entry, status, folder, entry.name):
        return False
    if not reads or not stat.S_ISREG(entry.mode):
        return True
    try:
        return holds_content(folder, entry.name, iter_spans(entry.file_content, chunks.read), chunks)
    except (CorruptionError, FormatError):
        return True


def join(path: bytes, name: bytes) -> bytes:
    """The path of a name in the folder at `path`."""
    return path + b"/" + name if path else name


class FileRestorer:
    """Restores regular files below an open target folder. A context manager."""

    def __init__(
        self, chunks: NamingSource, root: int, owners: Owners, *, overwrite: bool, on_step: Callable[[Tally], None] = lambda _tally: None
    ) -> None:
        """`on_step` gets the tally after each file and each chunk of larger ones; it may put a new one in its place."""
        self.tally = Tally()
        self.folders = FolderChain(root)
        self.target = Target(self._note)
        self._chunks = chunks
        self._owners = owners
        self._overwrite = overwrite
        self.on_step = on_step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.folders.close()

    def run(self, task: Task) -> None:
        """Restore the files of a task. What is wrong with one of them is tallied, and does not keep the others from being restored.

        Raises:
            LimitError: the target is full. StoreAccessError: the store cannot be read.
        """
        try:
            stored = read_folder(self._chunks, task.tree, self._owners, is_judged=task.is_judged)
            folder = self.folders.open(task.path)
        except (CorruptionError, FormatError) as error:
            self.tally.damaged.add(task.path, error.message)
            return
        except OSError as error:
            self.fail(task.path, error)
            return
        drops_acl = inherits_acl(folder)
        skipped = set(task.skipped)
        for entry in stored.entries[task.start : task.stop]:
            if stat.S_ISREG(entry.mode) and entry.name not in skipped:
                self.restore_file(
                    folder,
                    entry,
                    stored.owners.owner_of(entry),
                    join(task.path, entry.name),
                    is_new=task.is_new,
                    drops_acl=drops_acl,
                )
                self.on_step(self.tally)

    def restore_file(self, folder: int, entry: Entry, owner: Owner, path: bytes, *, is_new: bool, drops_acl: bool) -> None:
        """Restore one regular file into an open folder, unless it is there.

        Raises:
            LimitError: the target is full. StoreAccessError: the store cannot be read.
        """
        self.tally.current = path
        try:
            replaces = False
            if not is_new:
                place = self.examine(folder, entry, owner, path)
                if place is None:
                    return
                replaces = place
            self.target.write_file(folder, entry, owner, self._pieces(entry), path, replaces=replaces, drops_acl=drops_acl)
        except (CorruptionError, FormatError) as error:
            self.tally.damaged.add(path, error.message)
        except OSError as error:
            self.fail(path, error)
        else:
            self.tally.files += 1

    def examine(self, folder: int, entry: Entry, owner: Owner, path: bytes) -> bool | None:
        """Look at what has an entry's name, and mend it if it is the same. None: leave it alone. Else whether to replace it.

        Whoever asks to overwrite has doubts: then a file with the right size and time is also read and compared.

        Raises:
            OSError: it cannot be examined.
        """
        try:
            status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if is_restored(entry, status, folder, self._chunks, reads=self._overwrite):
            is_mended = self.target.mend(folder, entry, owner, path)
            if is_mended is not None:
                self.tally.unchanged += 1
                self.tally.mended += is_mended
                return None
            reason = "has other metadata, and other names that would get the stored one too"
        else:
            reason = difference(entry, status)
        if self._overwrite and not stat.S_ISDIR(status.st_mode):
            return True
        self.tally.conflicts.add(path, reason)
        return None

    def fail(self, path: bytes, error: OSError) -> None:
        """Tally that something could not be made.

        Raises:
            LimitError: the target is full, so that going on is of no use.
        """
        if error.errno in FULL:
            message = f"no space left for {os.fsdecode(path)!r}: {error.strerror}"
            raise LimitError(message) from error
        if isinstance(error, FileExistsError):
            self.tally.conflicts.add(path, "its name was taken meanwhile, or the file system takes it for another's")
        else:
            self.tally.failed.add(path, error.strerror or str(error))

    def _note(self, shortfall: Shortfall, path: bytes) -> None:
        self.tally.add_shortfall(shortfall, path)

    def _pieces(self, entry: Entry) -> Pieces:
        if not entry.content:
            return ()
        span = sole_span(entry.level, entry.content)
        if span is not None:
            data = self._chunks.read(span.chunk)
            self.tally.written_bytes += len(data)
            return ((len(data), data),)
        return self._counted(iter_pieces(self._chunks, entry.file_content))

    def _counted(self, pieces: Iterator[tuple[int, memoryview | None]]) -> Pieces:
        for length, data in pieces:
            yield length, data
            if data is not None:
                self.tally.written_bytes += length
            self.on_step(self.tally)


def difference(entry: Entry, status: os.stat_result) -> str:
    """How something that is not the same as the entry differs, in words."""
    if stat.S_IFMT(entry.mode) != stat.S_IFMT(status.st_mode):
        return f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, and {_KINDS[stat.S_IFMT(entry.mode)]} is stored"
    if stat.S_ISREG(entry.mode):
        return "has another size" if status.st_size != entry.size else "has another modification time"
    return "leads elsewhere" if stat.S_ISLNK(entry.mode) else "is another device"


_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symlink",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}

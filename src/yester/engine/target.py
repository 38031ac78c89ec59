# SPDX-License-Identifier: MIT
"""Writing stored files below a folder of the host, with everything about them, and nowhere else.

Does not know stores: bytes come from an iterator. Decides nothing about what may be replaced: that is `restore`'s.

Rules that keep a hostile tree, or somebody who changes the target meanwhile, from leading a write astray:

- A folder is reached from the target's own handle, one component at a time, each opened with `O_NOFOLLOW`: no symlink is
  ever followed, `..` is never used, and paths may be longer than PATH_MAX.
- A file gets its bytes and all metadata before it gets its name. Files that do not reach that point leave nothing; but where the file
  system has no files without names (NFS, FAT), or a file is replaced, a process that is killed leaves `.yester-restore-…` behind.
- Names appear with calls that fail if the name exists; replacing one is a rename, and never writes into what was there.
- Metadata goes to open handles; those of what is not a regular file or folder are `O_PATH`, by way of /proc/self/fd.

What the user or the file system may not have is noted as a `Shortfall` and left out: it is no error.

Threads: a `Target` or `FolderChain` belongs to one thread.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple, Self

from yester.core.content import HOLE, Span
from yester.core.records import Entry, Tree
from yester.engine.source import OPEN_DIRECTORY
from yester.errors import CorruptionError
from yester.store.chunks import NamingSource

OPEN_FOLDERS_MAX = 30
"""Handles a chain holds: deeper folders are found again from the top. Two chains a process stay below 64."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that no later file escapes."""

_ACL_ACCESS = b"system.posix_acl_access"
_ACL_DEFAULT = b"system.posix_acl_default"
_ACLS = (_ACL_ACCESS, _ACL_DEFAULT)
_SET_ID = stat.S_ISUID | stat.S_ISGID
_NO_ID = 2**32 - 1
"""To chown this means to change nothing."""
_COMPARE_BYTES = 1 << 20
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


class Shortfall(StrEnum):
    """What could not be restored for lack of rights, or of a file system that has it."""

    OWNER = "owner"
    SET_ID = "set-user-id and set-group-id bits"
    PERMISSIONS = "permissions"
    TIMES = "times"
    XATTR = "extended attributes"
    ACL = "access control lists"
    DEVICE = "device nodes"
    LINK = "hard links"
    SPECIAL = "symlinks, FIFOs and sockets"


class Owner(NamedTuple):
    """Who something shall belong to on this machine."""

    uid: int
    gid: int


class OwnerMap(NamedTuple):
    """The ids of one tree whose names have other ids on this machine."""

    users: dict[int, int]
    groups: dict[int, int]

    def owner_of(self, entry: Entry) -> Owner:
        """Who the entry shall belong to."""
        return Owner(self.users.get(entry.uid, entry.uid), self.groups.get(entry.gid, entry.gid))


class Owners:
    """Finds the ids that names have here. Each name is looked up once: it may take the network."""

    def __init__(self, *, numeric: bool) -> None:
        self._numeric = numeric
        self._uids: dict[str, int | None] = {}
        self._gids: dict[str, int | None] = {}

    def of_tree(self, tree: Tree) -> OwnerMap:
        """The map for the entries of a tree. Ids without a name there, or whose name is unknown here, stay as they are."""
        if self._numeric:
            return OwnerMap({}, {})
        return OwnerMap(
            _local_ids(tree.users, self._uids, lambda name: pwd.getpwnam(name).pw_uid),
            _local_ids(tree.groups, self._gids, lambda name: grp.getgrnam(name).gr_gid),
        )


def _local_ids(names: dict[int, str], known: dict[str, int | None], look_up: Callable[[str], int]) -> dict[int, int]:
    ids = {}
    for stored, name in names.items():
        if name not in known:
            try:
                known[name] = look_up(name)
            except (KeyError, ValueError):  # ValueError: a NUL, or what the locale cannot encode
                known[name] = None
        local = known[name]
        if local is not None and local != stored:
            ids[stored] = local
    return ids


class FolderChain:
    """Open handles of a folder and of those above it, up to the target. A context manager.

    For an ordinary user, folders of theirs that are on the way get the permissions they need to be entered and written
    to, if `mends_permissions`; the final ones come when a restore is through with all that is below.
    """

    def __init__(self, root: int, *, mends_permissions: bool = True) -> None:
        """`root` is the open target; the caller closes it, after this."""
        self._root = root
        self._mends_permissions = mends_permissions and os.geteuid() != 0
        self._names: list[bytes] = []
        self._handles: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all handles but the target's. Safe to call twice."""
        self._cut(0)

    def open(self, path: bytes) -> int:
        """The handle of the folder at a path below the target; valid until the next call. Going on nearby is cheap.

        Raises:
            OSError: it is not there, or it, or something above it, is not a folder, be it a symlink to one.
        """
        names = path.split(b"/") if path else []
        common = 0
        for ours, wanted in zip(self._names, names, strict=False):
            if ours != wanted:
                break
            common += 1
        if common > 0 and self._handles[common - 1] < 0:
            common = 0
        self._cut(common)
        for name in names[common:]:
            parent = self._handles[-1] if self._handles else self._root
            handle = open_folder(name, parent=parent, mends_permissions=self._mends_permissions)
            self._names.append(name)
            self._handles.append(handle)
            far = len(self._handles) - OPEN_FOLDERS_MAX - 1
            if far >= 0 and self._handles[far] >= 0:
                os.close(self._handles[far])
                self._handles[far] = -1
        return self._handles[-1] if self._handles else self._root

    def _cut(self, count: int) -> None:
        """Keep the first `count` folders."""
        while len(self._handles) > count:
            handle = self._handles.pop()
            self._names.pop()
            if handle >= 0:
                os.close(handle)


def open_folder(name: bytes, *, parent: int | None, mends_permissions: bool) -> int:
    """Open a folder, not following a symlink in its place.

    `mends_permissions`: if it belongs to this user and they lack a permission for it, they get it.

    Raises:
        OSError: not there, not a folder, not permitted.
    """
    if mends_permissions:
        probe = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(probe)
            if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(proc_path(probe), stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
        finally:
            os.close(probe)
    return os.open(name, OPEN_DIRECTORY, dir_fd=parent)


def is_not_a_folder(error: OSError) -> bool:
    """Whether opening a folder failed because something else, be it a symlink to a folder, has its name."""
    return error.errno in (errno.ENOTDIR, errno.ELOOP)


def proc_path(handle: int) -> bytes:
    """A path to exactly what is open, symlinks included, for calls that take no `O_PATH` handle."""
    return b"/proc/self/fd/%d" % handle


def is_same(entry: Entry, status: os.stat_result, folder: int, name: bytes) -> bool:
    """Whether what an open folder has under a name is what is stored, as far as can be told without reading a file.

    For a regular file that is size and modification time (`holds_content` compares the rest). A whole number of seconds there
    also stands for any time within that second: some file systems store no more.
    """
    kind = stat.S_IFMT(entry.mode)
    if stat.S_IFMT(status.st_mode) != kind:
        return False
    if kind == stat.S_IFREG:
        return status.st_size == entry.size and is_same_time(status.st_mtime_ns, entry.mtime_ns)
    if kind == stat.S_IFLNK:
        try:
            return os.readlink(name, dir_fd=folder) == entry.content
        except OSError:
            return False
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        return status.st_rdev == entry.rare.rdev
    return True


def holds_content(folder: int, name: bytes, spans: Iterable[Span], chunks: NamingSource) -> bool:
    """Whether a regular file in an open folder has just the bytes of these level-0 spans. Reads it, and of what is stored only slices.

    Raises:
        OSError: it cannot be read. CorruptionError: a chunk cannot.
    """
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        for span in spans:
            if span.chunk != HOLE:
                data = _read_whole(file, span.length)
                if (chunks.chunk_id(data) != span.chunk) if span.start is None else (data != span.of(chunks.read(span.chunk))):
                    return False
                continue
            left = span.length
            while left:
                zeros = _read_whole(file, min(left, _COMPARE_BYTES))
                if not zeros or zeros.strip(b"\0"):
                    return False
                left -= len(zeros)
        return not os.read(file, 1)
    finally:
        os.close(file)


def _read_whole(file: int, count: int) -> bytes:
    """So many bytes; fewer only at the end of the file."""
    data = os.read(file, count)
    while len(data) < count and (more := os.read(file, count - len(data))):
        data += more
    return data


def is_same_time(found_ns: int, stored_ns: int) -> bool:
    """Whether a file system that was given `stored_ns` could show `found_ns`."""
    return found_ns == stored_ns or (found_ns % 1_000_000_000 == 0 and 0 <= stored_ns - found_ns < 1_000_000_000)


def inherits_acl(folder: int) -> bool:
    """Whether what is made in an open folder gets an access control list from it."""
    try:
        os.getxattr(folder, _ACL_DEFAULT)
    except OSError:
        return False
    return True


class Target:
    """Makes files in open folders, and sets what is to be known about them.

    `note` hears of each shortfall, with the path that is handed through for it.
    """

    def __init__(self, note: Callable[[Shortfall, bytes], None]) -> None:
        self._note = note
        self._uid = os.geteuid()
        self._can_link_handles = os.path.exists(b"/proc/self/fd")
        self._temporary_prefix = b".yester-restore-%d-%s-" % (os.getpid(), os.urandom(4).hex().encode())
        self._temporary_count = 0

    def write_file(
        self,
        folder: int,
        entry: Entry,
        owner: Owner,
        pieces: Iterable[tuple[int, memoryview | None]],
        path: bytes,
        *,
        replaces: bool = False,
        drops_acl: bool = False,
    ) -> None:
        """Write a regular file; `pieces` are its bytes in order, None for a hole. It appears whole or not at all.

        `replaces`: take the place of a file that has its name. `drops_acl`: `folder` hands down an ACL.

        Raises:
            FileExistsError: its name is taken, and `replaces` is not set.
            OSError: it cannot be written. CorruptionError: from `pieces`, or they are not as long as the entry says.
        """
        mode = entry.mode & 0o777
        if entry.extra is not None and entry.extra.xattrs:
            mode |= stat.S_IWUSR  # setting them asks for the right to write, even of those who have it open
        file = -1
        temporary = b""
        if self._can_link_handles:
            # Without a name until it is whole: nothing to clean up whatever happens. As fast as a rename (measured on ext4).
            try:
                file = os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=folder)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        if file < 0:
            temporary = self._temporary_name()
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            _write_pieces(file, pieces, entry.size)
            self.set_metadata(file, os.fstat(file), entry, owner, path, drops_acl=drops_acl)
            if temporary:
                if not replaces:
                    _refuse_existing(folder, entry.name)
                os.rename(temporary, entry.name, src_dir_fd=folder, dst_dir_fd=folder)
                temporary = b""
            elif replaces:
                self._replace(folder, entry.name, lambda name: os.link(proc_path(file), name, dst_dir_fd=folder, follow_symlinks=True))
            else:
                os.link(proc_path(file), entry.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(file)
            if temporary:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)

    def make_special(
        self, folder: int, entry: Entry, owner: Owner, path: bytes, *, replaces: bool = False, drops_acl: bool = False
    ) -> bool:
        """Make a symlink, FIFO, socket or device node. False, and noted, if this user or file system cannot have one.

        Raises:
            FileExistsError: its name is taken, and `replaces` is not set.
            OSError: it cannot be made.
        """

        def make(name: bytes) -> None:
            if stat.S_ISLNK(entry.mode):
                os.symlink(entry.content, name, dir_fd=folder)
            else:
                os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, entry.rare.rdev, dir_fd=folder)
            self._finish_special(folder, name, entry, owner, path, drops_acl=drops_acl)

        try:
            if replaces:
                self._replace(folder, entry.name, make)
            else:
                make(entry.name)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            is_device = stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)
            self._note(Shortfall.DEVICE if is_device else Shortfall.SPECIAL, path)
            return False
        return True

    def link(self, source_folder: int, source: bytes, folder: int, name: bytes, *, replaces: bool = False) -> None:
        """Give what is called `source` in another folder a second name.

        Raises:
            FileExistsError: its name is taken, and `replaces` is not set.
            OSError: it cannot be linked.
        """

        def make(new_name: bytes) -> None:
            os.link(source, new_name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)

        if replaces:
            self._replace(folder, name, make)
        else:
            make(name)

    def mend(self, folder: int, entry: Entry, owner: Owner, path: bytes) -> bool | None:
        """Give an existing file that `is_same` as the entry the stored metadata, as far as it differs.

        Returns whether anything differed; None if something does but was left, as the file has names that the stored one had not.

        Raises:
            OSError: it cannot be examined.
        """
        handle = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(handle)
            if self._matches(proc_path(handle), status, entry, owner):
                return False
            if status.st_nlink > entry.rare.nlink or stat.S_IFMT(status.st_mode) != stat.S_IFMT(entry.mode):
                return None
            self.set_metadata(proc_path(handle), status, entry, owner, path, drops_acl=True)
        finally:
            os.close(handle)
        return True

    def set_metadata(
        self, handle: int | bytes, status: os.stat_result, entry: Entry, owner: Owner, path: bytes, *, drops_acl: bool
    ) -> None:
        """Set owner, permissions, xattrs, ACLs and times of something open, as far as they differ from its `status`.

        `drops_acl`: it may have an ACL that the entry has not. Other xattrs that the entry does not have are left alone: not all of
        them are the user's. Set-id bits are set only if it belongs to whom the entry says.

        Raises:
            OSError: only for a full disk.
        """
        mode = stat.S_IMODE(entry.mode)
        sets_mode = False
        if status.st_uid != owner.uid or status.st_gid != owner.gid:
            sets_mode = bool(mode & _SET_ID)  # a change of owner clears them
            if not _set_owner(handle, status, owner):
                self._note(Shortfall.OWNER, path)
                if mode & _SET_ID:
                    mode &= ~_SET_ID
                    self._note(Shortfall.SET_ID, path)
        xattrs = entry.extra.xattrs if entry.extra is not None else ()
        if xattrs:
            sets_mode |= self._set_xattrs(handle, status, xattrs, path)
        if drops_acl:
            for name in _stray_acls(handle, xattrs):
                try:
                    os.removexattr(handle, name)
                    sets_mode = True
                except OSError as error:
                    self._note_unless_full(error, Shortfall.ACL, path)
        if (sets_mode or stat.S_IMODE(status.st_mode) != mode) and not stat.S_ISLNK(entry.mode):
            try:
                os.chmod(handle, mode)
            except OSError as error:
                self._note_unless_full(error, Shortfall.PERMISSIONS, path)
        if status.st_mtime_ns != entry.mtime_ns:
            try:
                os.utime(handle, ns=(entry.atime_ns, entry.mtime_ns))
            except OSError as error:
                self._note_unless_full(error, Shortfall.TIMES, path)

    def _set_xattrs(self, handle: int | bytes, status: os.stat_result, xattrs: tuple[tuple[bytes, bytes], ...], path: bytes) -> bool:
        """Set those that differ; returns whether the permissions may have changed."""
        has_changed = False
        if self._uid and status.st_uid == self._uid and not status.st_mode & stat.S_IWUSR:
            # Setting a user attribute takes the right to write, which an owner can always have.
            with suppress(OSError):
                os.chmod(handle, stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
                has_changed = True
        shortfalls = set()
        for name, value in xattrs:
            try:
                if _find_xattr(handle, name) != value:
                    os.setxattr(handle, name, value)
                    has_changed |= name == _ACL_ACCESS
            except (OSError, ValueError):  # ENOSPC too: ext4 has a limit for each file; ValueError: a NUL in the name
                shortfalls.add(Shortfall.ACL if name in _ACLS else Shortfall.XATTR)
        for shortfall in shortfalls:
            self._note(shortfall, path)
        return has_changed

    def _matches(self, handle: bytes, status: os.stat_result, entry: Entry, owner: Owner) -> bool:
        return (
            status.st_mtime_ns == entry.mtime_ns
            and (status.st_mode == entry.mode or stat.S_ISLNK(entry.mode))
            and status.st_uid == owner.uid
            and status.st_gid == owner.gid
            and all(_find_xattr(handle, name) == value for name, value in entry.rare.xattrs)
            and not _stray_acls(handle, entry.rare.xattrs)
        )

    def _finish_special(self, folder: int, name: bytes, entry: Entry, owner: Owner, path: bytes, *, drops_acl: bool) -> None:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(handle)
            if stat.S_IFMT(status.st_mode) != stat.S_IFMT(entry.mode) or status.st_nlink != 1:
                raise OSError(errno.ESTALE, "it was replaced by something else while it was made")
            self.set_metadata(proc_path(handle), status, entry, owner, path, drops_acl=drops_acl)
        finally:
            os.close(handle)

    def _replace(self, folder: int, name: bytes, make: Callable[[bytes], None]) -> None:
        """Make something under a temporary name, then let it take the place of what is called `name`."""
        temporary = self._temporary_name()
        try:
            make(temporary)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            # Still there after an error, and after renaming one name of a file onto another, which does nothing.
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)

    def _temporary_name(self) -> bytes:
        self._temporary_count += 1
        return self._temporary_prefix + b"%d" % self._temporary_count

    def _note_unless_full(self, error: OSError, shortfall: Shortfall, path: bytes) -> None:
        if error.errno in FULL:
            raise error
        self._note(shortfall, path)


def _write_pieces(file: int, pieces: Iterable[tuple[int, memoryview | None]], size: int) -> None:
    position = 0
    ends_in_hole = False
    for length, data in pieces:
        position += length
        if position > size:
            message = f"its content is longer than the {size} bytes it should have"
            raise CorruptionError(message)
        ends_in_hole = data is None
        if data is None:
            os.lseek(file, length, os.SEEK_CUR)
            continue
        written = os.write(file, data)
        while written < len(data):
            written += os.write(file, data[written:])
    if position != size:
        message = f"its content ends at {position} bytes, before the {size} it should have"
        raise CorruptionError(message)
    if ends_in_hole:
        # The size is on the disk long before the data; after a power cut the file would pass for one that was restored whole.
        # Without a hole at its end a file is as long as what is there of it.
        os.fdatasync(file)
        os.ftruncate(file, size)


def _set_owner(handle: int | bytes, status: os.stat_result, owner: Owner) -> bool:
    """Whether it belongs to `owner` now. If not, it may at least have got the group."""
    if _NO_ID in owner:
        return False
    try:
        os.chown(handle, owner.uid, owner.gid)
    except OSError as error:
        if error.errno in FULL:
            raise
    else:
        return True
    if status.st_gid != owner.gid:
        with suppress(OSError):
            os.chown(handle, -1, owner.gid)
    return False


def _find_xattr(handle: int | bytes, name: bytes) -> bytes | None:
    try:
        return os.getxattr(handle, name)
    except (OSError, ValueError):
        return None


def _stray_acls(handle: int | bytes, xattrs: tuple[tuple[bytes, bytes], ...]) -> list[bytes]:
    """The ACLs that something has and, by these xattrs, should not have."""
    try:
        found = [os.fsencode(name) for name in os.listxattr(handle)]
    except OSError:
        return []
    return [name for name in found if name in _ACLS and all(name != wanted for wanted, _ in xattrs)]


def _refuse_existing(folder: int, name: bytes) -> None:
    """For file systems without unnamed files. Somebody who makes the name right after this loses what they made."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise FileExistsError(errno.EEXIST, "its name was taken meanwhile")

# SPDX-License-Identifier: MIT
# ruff: noqa: D102 # methods are named like the calls that they make
"""System calls as values, carried out in a folder, with what came of them as text that two file systems can be compared by.

What differs between good file systems is left out of the text: inode numbers, sizes and offsets of directories, blocks, and the
times themselves. What is compared of times is which of them a call moved. Access times are not looked at unless they were set:
a mount may well not keep them.

A case changes the current folder, the umask and the user of the process, so judges run it in a process of their own.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import socket
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

Argument = str | int | bytes

ROOT = "root"
"""The user that runs the judge, root or not."""
USERS = {"owner": (65501, 65501, ()), "mate": (65502, 65502, (65501,)), "stranger": (65503, 65503, ())}
"""User id, group id and further groups; no names are needed for them."""

LIBC = ctypes.CDLL(None, use_errno=True)
"""The C library, for calls that Python does not have."""
_LONG_AGO_NS = 10**18
"""Times before this, in 2001, were set by a case, and can be compared."""
_UTIME_NOW = (1 << 30) - 1
_UTIME_OMIT = (1 << 30) - 2
_AT_FDCWD = -100
_CLOCK_REALTIME_COARSE = 5
_SHOWN_BYTES = 40
_READ_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Step:
    """One call: a method of `Actor`, its arguments, and who makes it."""

    call: str
    arguments: tuple[Argument, ...]
    user: str = ROOT

    def __str__(self) -> str:
        who = "" if self.user == ROOT else f"  # as {self.user} {USERS[self.user]}"
        return f"{self.call}({', '.join(map(_show_argument, self.arguments))}){who}"


def step(call: str, *arguments: Argument, user: str = ROOT) -> Step:
    """A step."""
    return Step(call, arguments, user)


@dataclass(frozen=True, slots=True)
class Case:
    """Calls that prepare an empty folder, and those that are judged: what they return, what they change, which times they move."""

    name: str
    setup: tuple[Step, ...]
    acts: tuple[Step, ...]
    mode: int = 0o755
    """Of the folder, which belongs to the user `owner`."""

    def __str__(self) -> str:
        lines = [f"in a folder of mode {self.mode:o} of user {USERS['owner'][0]}:"]
        return "\n".join([*lines, *map(str, self.setup), "then", *map(str, self.acts)])


@dataclass(slots=True)
class Actor:
    """Carries steps out in one folder. Paths are relative to it, descriptors are numbered by the case."""

    folder: Path
    descriptors: dict[int, int] = field(default_factory=dict)

    def do(self, one: Step) -> str:
        """Carry a step out: the name of its error, or what it returned."""
        call: Callable[..., object] = getattr(self, f"do_{one.call}")
        os.chdir(self.folder)
        try:
            with _acting_as(one.user):
                result = call(*one.arguments)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        except KeyError:
            return "no descriptor"  # its open failed
        except ValueError as error:
            return str(error)  # nothing can be mapped of an empty file
        return "ok" if result is None else str(result)

    def close(self) -> None:
        """Close what the case left open."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()
        os.umask(0o022)

    def describe(self) -> Iterator[str]:
        """All that is in the folder, and the folder itself, sorted by path."""
        for path in _walk(self.folder):
            name = os.fsencode(path.relative_to(self.folder)).decode(errors="backslashreplace")
            status = path.lstat()
            line = f"{name}: {_show_status(status)}"
            if stat.S_ISREG(status.st_mode):
                line += f" {_show_file(path, status.st_size)}"
            elif stat.S_ISLNK(status.st_mode):
                line += f" -> {_short(os.readlink(path))}"
            names = sorted(
                name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.") and os.access(path, os.R_OK)
            )
            yield line + "".join(f" {name}={_show_bytes(os.getxattr(path, name, follow_symlinks=False))}" for name in names)

    def times(self) -> dict[int, tuple[Path, int, int]]:
        """A path, the modification and the change time of everything, by inode number: renamed things are the same things."""
        found: dict[int, tuple[Path, int, int]] = {}
        for path in _walk(self.folder):
            status = path.lstat()
            found.setdefault(status.st_ino, (path.relative_to(self.folder), status.st_mtime_ns, status.st_ctime_ns))
        return found

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep everything from being freed, so that its inode number is not given to something else."""
        with contextlib.ExitStack() as stack:
            for path in _walk(self.folder):
                stack.callback(os.close, os.open(path, os.O_PATH | os.O_NOFOLLOW))
            yield

    # Paths.

    def do_mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)

    def do_rmdir(self, path: str) -> None:
        os.rmdir(path)

    def do_unlink(self, path: str) -> None:
        os.unlink(path)

    def do_rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def do_renameat2(self, source: str, target: str, flags: int) -> None:
        check(LIBC.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags))

    def do_link(self, source: str, target: str) -> None:
        os.link(source, target, follow_symlinks=False)

    def do_link_followed(self, source: str, target: str) -> None:
        check(LIBC.linkat(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), 0x400))

    def do_symlink(self, text: str, path: str) -> None:
        os.symlink(text, path)

    def do_readlink(self, path: str) -> str:
        return _short(os.readlink(path))

    def do_mkfifo(self, path: str, mode: int) -> None:
        os.mkfifo(path, mode)

    def do_mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(path, mode, device)

    def do_socket(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path)

    def do_connect(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(path)
            server.listen()
            client.connect(path)

    def do_chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def do_chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid)

    def do_lchown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(path, uid, gid)

    def do_truncate(self, path: str, size: int) -> None:
        os.truncate(path, size)

    def do_utimens(self, path: str, atime_ns: int, mtime_ns: int, follow: int) -> None:
        """`utimensat`; a time may be -1 for now and -2 for unchanged."""
        special = {-1: (0, _UTIME_NOW), -2: (0, _UTIME_OMIT)}
        pairs = [special.get(time_ns, divmod(time_ns, 10**9)) for time_ns in (atime_ns, mtime_ns)]
        times = struct.pack("qqqq", *pairs[0], *pairs[1])
        check(LIBC.utimensat(_AT_FDCWD, os.fsencode(path), times, 0 if follow else 0x100))

    def do_times(self, path: str) -> str:
        status = os.lstat(path)
        return " ".join(str(at) if at < _LONG_AGO_NS else "recent" for at in (status.st_atime_ns, status.st_mtime_ns))

    def do_access(self, path: str, mode: int) -> bool:
        check(LIBC.access(os.fsencode(path), mode))
        return True

    def do_stat(self, path: str) -> str:
        return _show_status(os.stat(path))

    def do_lstat(self, path: str) -> str:
        return _show_status(os.lstat(path))

    def do_statvfs(self, path: str) -> str:
        found = os.statvfs(path)
        sane = 0 < found.f_bavail <= found.f_bfree <= found.f_blocks and found.f_frsize > 0
        return f"namemax {found.f_namemax}, {'some' if sane else 'odd'} blocks free"

    def do_chdir(self, path: str) -> None:
        os.chdir(path)

    def do_getcwd(self, path: str) -> str:
        os.chdir(path)
        return os.path.relpath(os.getcwd(), self.folder.resolve())

    def do_list(self, path: str) -> str:
        with os.scandir(path) as entries:
            return " ".join(sorted(f"{entry.name}:{_type_of(entry)}" for entry in entries))

    def do_setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(path, name, value, flags)

    def do_lsetxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(path, name, value, flags, follow_symlinks=False)

    def do_getxattr(self, path: str, name: str) -> str:
        return _show_bytes(os.getxattr(path, name))

    def do_getxattr_into(self, path: str, name: str, size: int) -> int:
        buffer = ctypes.create_string_buffer(max(size, 1))
        return check(LIBC.getxattr(os.fsencode(path), os.fsencode(name), buffer, size))

    def do_listxattr(self, path: str) -> str:
        # What security modules and the mount itself add is not the case's.
        return " ".join(sorted(name for name in os.listxattr(path) if name.startswith(("user.", "trusted.", "system.posix_acl"))))

    def do_removexattr(self, path: str, name: str) -> None:
        os.removexattr(path, name)

    def do_umask(self, mask: int) -> None:
        os.umask(mask)

    # Descriptors.

    def do_open(self, number: int, path: str, flags: int, mode: int) -> None:
        descriptor = os.open(path, flags | os.O_NONBLOCK, mode)
        if number in self.descriptors:
            os.close(self.descriptors[number])
        self.descriptors[number] = descriptor

    def do_close(self, number: int) -> None:
        os.close(self.descriptors.pop(number))

    def do_dup(self, number: int, copy: int) -> None:
        self.descriptors[copy] = os.dup(self.descriptors[number])

    def do_read(self, number: int, size: int) -> str:
        return _show_bytes(os.read(self.descriptors[number], size))

    def do_pread(self, number: int, size: int, offset: int) -> str:
        return _show_bytes(os.pread(self.descriptors[number], size, offset))

    def do_write(self, number: int, data: bytes) -> int:
        return os.write(self.descriptors[number], data)

    def do_pwrite(self, number: int, data: bytes, offset: int) -> int:
        return os.pwrite(self.descriptors[number], data, offset)

    def do_writev(self, number: int, one: bytes, two: bytes) -> int:
        return os.writev(self.descriptors[number], [one, two])

    def do_lseek(self, number: int, offset: int, whence: int) -> int:
        return os.lseek(self.descriptors[number], offset, whence)

    def do_ftruncate(self, number: int, size: int) -> None:
        os.ftruncate(self.descriptors[number], size)

    def do_fstat(self, number: int) -> str:
        return _show_status(os.fstat(self.descriptors[number]))

    def do_fchmod(self, number: int, mode: int) -> None:
        os.fchmod(self.descriptors[number], mode)

    def do_fchown(self, number: int, uid: int, gid: int) -> None:
        os.fchown(self.descriptors[number], uid, gid)

    def do_futimens(self, number: int, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self.descriptors[number], ns=(atime_ns, mtime_ns))

    def do_fsync(self, number: int) -> None:
        os.fsync(self.descriptors[number])

    def do_fdatasync(self, number: int) -> None:
        os.fdatasync(self.descriptors[number])

    def do_syncfs(self, number: int) -> None:
        check(LIBC.syncfs(self.descriptors[number]))

    def do_fsetxattr(self, number: int, name: str, value: bytes) -> None:
        os.setxattr(self.descriptors[number], name, value)

    def do_fgetxattr(self, number: int, name: str) -> str:
        return _show_bytes(os.getxattr(self.descriptors[number], name))

    def do_fchdir_list(self, number: int) -> str:
        os.fchdir(self.descriptors[number])
        return " ".join(sorted(os.listdir()))

    def do_openat(self, number: int, folder: int, path: str, flags: int, mode: int) -> None:
        self.descriptors[number] = os.open(path, flags, mode, dir_fd=self.descriptors[folder])

    def do_mkdirat(self, folder: int, path: str, mode: int) -> None:
        os.mkdir(path, mode, dir_fd=self.descriptors[folder])

    def do_unlinkat(self, folder: int, path: str) -> None:
        os.unlink(path, dir_fd=self.descriptors[folder])

    def do_fstatat(self, folder: int, path: str) -> str:
        return _show_status(os.stat(path, dir_fd=self.descriptors[folder], follow_symlinks=False))

    def do_link_open(self, number: int, target: str) -> None:
        """Give an open file another name, as one does with a file that has none."""
        os.link(f"/proc/self/fd/{self.descriptors[number]}", target, follow_symlinks=True)

    def do_map_write(self, number: int, data: bytes, offset: int) -> None:
        with mmap.mmap(self.descriptors[number], 0) as mapped:
            mapped[offset : offset + len(data)] = data
            mapped.flush()

    def do_map_read(self, number: int) -> str:
        with mmap.mmap(self.descriptors[number], 0, access=mmap.ACCESS_READ) as mapped:
            return _show_bytes(mapped[:])

    # Locks.

    def do_flock(self, number: int, operation: int) -> None:
        fcntl.flock(self.descriptors[number], operation | fcntl.LOCK_NB)

    def do_lock_open_file(self, number: int, kind: int, start: int, size: int) -> None:
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, size, 0)
        fcntl.fcntl(self.descriptors[number], fcntl.F_OFD_SETLK, lock)

    def do_lock(self, number: int, kind: int, start: int, size: int) -> None:
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, size, 0)
        fcntl.fcntl(self.descriptors[number], fcntl.F_SETLK, lock)

    def do_lock_elsewhere(self, path: str, kind: int, start: int, size: int) -> str:
        """The lock that another process would get."""
        return _in_a_child(lambda: self._try_lock(path, kind, start, size))

    def _try_lock(self, path: str, kind: int, start: int, size: int) -> str:
        descriptor = os.open(path, os.O_RDWR)
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, size, 0)
        holder = fcntl.fcntl(descriptor, fcntl.F_GETLK, lock)
        found, _, begin, length, _ = struct.unpack("hhqqi4x", holder)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLK, lock)
        except OSError as error:
            return f"{errno.errorcode[error.errno or 0]}, held: {found} {begin} {length}"
        return "locked"

    # Listing while things change.

    def do_many(self, path: str, count: int) -> None:
        for number in range(count):
            os.close(os.open(f"{path}/name-{number:05}", os.O_CREAT | os.O_WRONLY, 0o644))

    def do_seekdir(self, path: str) -> str:
        """Seek back to each place of a directory that `telldir` gave; the name there must be the same again."""
        with _Directory(path) as directory:
            seen = []
            while True:
                place = directory.tell()
                if (name := directory.read()) is None:
                    break
                seen.append((place, name))
            wrong = 0
            for place, name in [*seen[::7], *reversed(seen[::11])]:
                directory.seek(place)
                wrong += directory.read() != name
            directory.rewind()
            again = 0
            while directory.read() is not None:
                again += 1
            return f"{len(seen)} names, {len({name for _, name in seen})} different, {wrong} wrong, {again} again"

    def do_remove_while_listing(self, path: str) -> str:
        """Remove each name as it is read, as `rm -r` does."""
        with _Directory(path) as directory:
            removed = 0
            while (name := directory.read()) is not None:
                if name not in (b".", b".."):
                    os.unlink(os.path.join(os.fsencode(path), name))
                    removed += 1
        return f"{removed} removed, {len(os.listdir(path))} left"

    def do_add_while_listing(self, path: str) -> str:
        """Add names while others are read: those that were there must be listed once each."""
        before = set(os.listdir(os.fsencode(path)))
        seen: list[bytes] = []
        with _Directory(path) as directory:
            while (name := directory.read()) is not None:
                seen.append(name)
                if len(seen) % 10 == 0:
                    os.close(os.open(f"{path}/added-{len(seen)}", os.O_CREAT | os.O_WRONLY, 0o644))
        for name in set(os.listdir(os.fsencode(path))) - before:
            os.unlink(os.path.join(os.fsencode(path), name))  # how many were seen, and so added, is not laid down
        listed = [name for name in seen if name in before]
        return f"{len(listed)} listed, {len(set(listed))} different, {len(before)} there before"


class _Directory:
    """A directory stream of the C library, whose places Python does not show."""

    def __init__(self, path: str) -> None:
        for name, result in (("opendir", ctypes.c_void_p), ("readdir64", ctypes.c_void_p), ("telldir", ctypes.c_long)):
            getattr(LIBC, name).restype = result
        self._stream = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))
        if not self._stream:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        LIBC.closedir(self._stream)

    def tell(self) -> int:
        place: int = LIBC.telldir(self._stream)
        return place

    def seek(self, place: int) -> None:
        LIBC.seekdir(self._stream, ctypes.c_long(place))

    def rewind(self) -> None:
        LIBC.rewinddir(self._stream)

    def read(self) -> bytes | None:
        """The next name; it stands 19 bytes into the entry."""
        entry = LIBC.readdir64(self._stream)
        return None if not entry else ctypes.string_at(entry + 19)


@contextlib.contextmanager
def _acting_as(user: str) -> Iterator[None]:
    """Be somebody else for one call. The saved user id stays root's, so that there is a way back."""
    if user == ROOT:
        yield
        return
    uid, gid, groups = USERS[user]
    before = os.getresuid(), os.getresgid(), os.getgroups()
    os.setgroups(groups)
    os.setresgid(gid, gid, before[1][0])
    os.setresuid(uid, uid, before[0][0])
    try:
        yield
    finally:
        os.setresuid(*before[0])
        os.setresgid(*before[1])
        os.setgroups(before[2])


def check(result: int) -> int:
    """The result of a call of the C library.

    Raises:
        OSError: it failed.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _in_a_child(call: Callable[[], str]) -> str:
    """What a function returns in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, call().encode())
        except OSError as error:
            os.write(writer, errno.errorcode.get(error.errno or 0, "?").encode())
        finally:
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, 4096).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return answer


def _walk(folder: Path) -> Iterator[Path]:
    """A folder and all below it that this user may look at."""
    yield folder
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for path in sorted(Path(parent, name) for name in [*folders, *files]):
            with contextlib.suppress(PermissionError):
                path.lstat()
                yield path


def _show_status(status: os.stat_result) -> str:
    text = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid} links {status.st_nlink}"
    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
        text += f" size {status.st_size}"
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        text += f" device {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return text


def _show_file(path: Path, size: int) -> str:
    """All bytes of a file; of one that is mostly holes, the first and the last."""
    if not os.access(path, os.R_OK):
        return "unreadable"
    with path.open("rb") as file:
        if size <= _READ_BYTES:
            return _show_bytes(file.read())
        return f"{os.pread(file.fileno(), 16, 0)!r}…{os.pread(file.fileno(), 16, size - 16)!r}"


def _show_bytes(data: bytes) -> str:
    return repr(data) if len(data) <= _SHOWN_BYTES else f"{data[:16]!r}…{data[-16:]!r} ({len(data)} bytes, CRC {zlib.crc32(data):08x})"


def _show_argument(value: Argument) -> str:
    """As Python has it, but a run of the same character as a product."""
    if isinstance(value, bytes) and len(value) > _SHOWN_BYTES and len(set(value)) > 2:
        return f"{value[:8]!r}… of {len(value)}"
    text = repr(value)
    return (
        re.sub(r"(.{1,2}?)\1{40,}", lambda match: f"' + '{match[1]}' * {len(match[0]) // len(match[1])} + '", text)
        .replace("'' + ", "")
        .replace(" + ''", "")
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:20]}… ({len(text)} characters)"


def _type_of(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    return "folder" if entry.is_dir(follow_symlinks=False) else "file" if entry.is_file(follow_symlinks=False) else "other"


def wait_tick() -> None:
    """Wait until the clock that file systems take times from has moved on."""
    begin = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) == begin:
        time.sleep(0.0005)


def run_cases(cases: Sequence[Case], folder: Path) -> list[list[str]]:
    """Carry cases out, each in a new folder below `folder`, and return what came of each, line by line.

    All are prepared before the first is judged, so that one tick of the clock serves all of them.
    """
    actors = []
    traces = []
    for number, case in enumerate(cases):
        own = folder / f"case-{number}"
        own.mkdir()
        if os.geteuid() == 0:
            os.chown(own, *USERS["owner"][:2])
        own.chmod(case.mode)
        actor = Actor(own)
        traces.append([f"{one} = {actor.do(one)}" for one in case.setup])
        os.umask(0o022)
        actors.append(actor)
    wait_tick()
    for case, actor, lines in zip(cases, actors, traces, strict=True):
        before = actor.times()
        with actor.held():
            lines.extend([f"{one} = {actor.do(one)}" for one in case.acts])
            after = actor.times()
        lines.extend(_show_moved(before, after))
        lines.extend(actor.describe())
        actor.close()
    return traces


def _show_moved(before: dict[int, tuple[Path, int, int]], after: dict[int, tuple[Path, int, int]]) -> Iterator[str]:
    """A line for each thing that is still there."""
    for number, (path, *old) in sorted(before.items(), key=lambda item: item[1][0]):
        if number in after:
            moved = [name for name, one, two in zip(("mtime", "ctime"), old, after[number][1:], strict=True) if one != two]
            yield f"{path}: still there, {' and '.join(moved) if moved else 'no time'} moved"

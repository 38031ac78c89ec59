# SPDX-License-Identifier: MIT
# ruff: noqa: D403, D415 # the text of a question is its title in a table
"""Judge `limits`: what a file system may do without, asked for one by one; the answers become a table.

Nothing here is a finding: that a program can tell is what matters, by an error that it expects. Only an answer that is wrong is one,
such as a call that says it worked and did not.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from commands import must_run
from judging import Bench, Finding, Verdict
from steps import LIBC, USERS, Actor, check, step, wait_tick

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_WHITEOUT = 4
_KEEP_SIZE, _PUNCH_HOLE, _COLLAPSE, _ZERO, _INSERT = 1, 2, 8, 16, 32
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FICLONE, _FS_IOC_FSGETXATTR, _FS_IOC_FIEMAP = (
    0x80086601,
    0x40086602,
    0x40049409,
    0x801C581F,
    0xC020660B,
)
_NODUMP = 0x40
_WRONG = "wrong: "
"""Begins an answer that is a finding."""

_HOLE_START, _HOLE_END, _SIZE = 65_536, 1_048_576, 1_114_112


class _Probes:
    """The questions, each a method that returns an answer or raises an OSError; the first line of its text is its title."""

    def __init__(self, folder: Path, *, is_quick: bool) -> None:
        self._folder = folder
        self._is_quick = is_quick

    def all(self) -> list[Callable[[], str]]:
        return [getattr(self, name) for name in vars(_Probes) if name.startswith("ask_")]

    def _open(self, name: str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
        return os.open(self._folder / name, flags, 0o644)

    def _filled(self, name: str) -> int:
        descriptor = self._open(name)
        os.pwrite(descriptor, b"x" * _SIZE, 0)
        return descriptor

    def _sparse(self, name: str) -> int:
        descriptor = self._open(name)
        os.pwrite(descriptor, b"x" * _HOLE_START, 0)
        os.pwrite(descriptor, b"x" * (_SIZE - _HOLE_END), _HOLE_END)
        os.fsync(descriptor)
        return descriptor

    def ask_hole(self) -> str:
        """`lseek` with `SEEK_HOLE` in a sparse file"""
        found = os.lseek(self._sparse("hole"), 0, os.SEEK_HOLE)
        return {_HOLE_START: "the hole", _SIZE: "no hole: all is data"}.get(found, f"{_WRONG}{found}")

    def ask_data(self) -> str:
        """`lseek` with `SEEK_DATA` in a hole"""
        found = os.lseek(self._sparse("data"), _HOLE_START + 1, os.SEEK_DATA)
        return {_HOLE_END: "the end of the hole", _HOLE_START + 1: "no hole: all is data"}.get(found, f"{_WRONG}{found}")

    def ask_blocks(self) -> str:
        """`st_blocks` of a sparse file of 1 GiB"""
        descriptor = self._open("blocks")
        os.ftruncate(descriptor, 1 << 30)
        os.fsync(descriptor)
        return "few" if os.fstat(descriptor).st_blocks < 1000 else "as if it were full"

    def _fallocate(self, name: str, mode: int, offset: int, size: int) -> int:
        descriptor = self._filled(name)
        check(LIBC.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(size)))
        return descriptor

    def ask_allocate(self) -> str:
        """`fallocate`, to reserve space and extend"""
        return _size(self._fallocate("allocate", 0, _SIZE, 4096), _SIZE + 4096)

    def ask_allocate_keep(self) -> str:
        """`fallocate` with `KEEP_SIZE`"""
        return _size(self._fallocate("allocate-keep", _KEEP_SIZE, _SIZE, 4096), _SIZE)

    def ask_posix_fallocate(self) -> str:
        """`posix_fallocate`, which the C library does by writing where it must"""
        descriptor = self._filled("posix-fallocate")
        os.posix_fallocate(descriptor, 0, _SIZE + 5000)
        return _size(descriptor, _SIZE + 5000)

    def ask_punch(self) -> str:
        """`fallocate` with `PUNCH_HOLE`"""
        descriptor = self._fallocate("punch", _PUNCH_HOLE | _KEEP_SIZE, 4096, 8192)
        return _bytes(descriptor, 4095, b"x" + bytes(8))

    def ask_zero(self) -> str:
        """`fallocate` with `ZERO_RANGE`"""
        return _bytes(self._fallocate("zero", _ZERO, 4096, 8192), 4095, b"x" + bytes(8))

    def ask_collapse(self) -> str:
        """`fallocate` with `COLLAPSE_RANGE`"""
        return _size(self._fallocate("collapse", _COLLAPSE, 4096, 4096), _SIZE - 4096)

    def ask_insert(self) -> str:
        """`fallocate` with `INSERT_RANGE`"""
        return _size(self._fallocate("insert", _INSERT, 4096, 4096), _SIZE + 4096)

    def ask_copy_file_range(self) -> str:
        """`copy_file_range` within the file system"""
        source, target = self._filled("copied"), self._open("copy")
        done = os.copy_file_range(source, target, 100_000)
        return _bytes(target, done - 1, b"x")

    def ask_sendfile(self) -> str:
        """`sendfile` from file to file"""
        source, target = self._filled("sent"), self._open("received")
        return _bytes(target, os.sendfile(target, source, 0, 100_000) - 1, b"x")

    def ask_clone(self) -> str:
        """`ioctl FICLONE`, as `cp --reflink=always`"""
        source, target = self._filled("cloned"), self._open("clone")
        fcntl.ioctl(target, _FICLONE, source)
        return _bytes(target, 5, b"x")

    def ask_tmpfile(self) -> str:
        """`open` with `O_TMPFILE`"""
        descriptor = os.open(self._folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        return f"{os.write(descriptor, b'x')} byte written" if os.fstat(descriptor).st_nlink == 0 else f"{_WRONG}it has a name"

    def ask_relink(self) -> str:
        """`linkat` of an open file that has lost its last name"""
        descriptor = self._open("gone")
        os.unlink(self._folder / "gone")
        source = f"/proc/self/fd/{descriptor}".encode()
        check(LIBC.linkat(_AT_FDCWD, source, _AT_FDCWD, os.fsencode(self._folder / "back"), 0x400))
        return "a name again"

    def ask_whiteout(self) -> str:
        """`renameat2` with `WHITEOUT`"""
        self._open("covered")
        check(LIBC.renameat2(_AT_FDCWD, os.fsencode(self._folder / "covered"), _AT_FDCWD, os.fsencode(self._folder / "moved"), _WHITEOUT))
        return "a whiteout" if stat.S_ISCHR((self._folder / "covered").lstat().st_mode) else f"{_WRONG}no whiteout"

    def ask_handle(self) -> str:
        """`name_to_handle_at`, as NFS servers need"""
        return f"{len(self._handle('handle'))} bytes"

    def _handle(self, name: str) -> bytes:
        self._open(name)
        handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
        mount = ctypes.c_int()
        check(LIBC.name_to_handle_at(_AT_FDCWD, os.fsencode(self._folder / name), handle, ctypes.byref(mount), 0))
        return handle.raw[: 8 + struct.unpack("I", handle.raw[:4])[0]]

    def ask_open_handle(self) -> str:
        """`open_by_handle_at`"""
        handle = self._handle("by-handle")
        folder = os.open(self._folder, os.O_RDONLY)
        descriptor = check(LIBC.open_by_handle_at(folder, ctypes.create_string_buffer(handle), os.O_RDONLY))
        return "the file" if os.path.samestat(os.fstat(descriptor), (self._folder / "by-handle").stat()) else f"{_WRONG}another file"

    def ask_flags(self) -> str:
        """`ioctl FS_IOC_GETFLAGS`, as `lsattr`"""
        fcntl.ioctl(self._open("flags"), _FS_IOC_GETFLAGS, bytearray(8))
        return "flags"

    def ask_set_flags(self) -> str:
        """`ioctl FS_IOC_SETFLAGS`, as `chattr +d`"""
        fcntl.ioctl(self._open("set-flags"), _FS_IOC_SETFLAGS, struct.pack("q", _NODUMP))
        return "set"

    def ask_fsxattr(self) -> str:
        """`ioctl FS_IOC_FSGETXATTR`"""
        fcntl.ioctl(self._open("fsxattr"), _FS_IOC_FSGETXATTR, bytearray(28))
        return "flags"

    def ask_fiemap(self) -> str:
        """`ioctl FS_IOC_FIEMAP`, as `filefrag`"""
        fcntl.ioctl(self._filled("fiemap"), _FS_IOC_FIEMAP, bytearray(struct.pack("QQIIII", 0, 1 << 40, 0, 0, 0, 0)))
        return "extents"

    def _xattr(self, name: str) -> str:
        path = self._folder / f"xattr-{name}"
        path.touch()
        os.setxattr(path, name, b"value")
        return "kept" if os.getxattr(path, name) == b"value" else f"{_WRONG}another value"

    def ask_trusted(self) -> str:
        """`setxattr trusted.*`, as root"""
        return self._xattr("trusted.one")

    def ask_security(self) -> str:
        """`setxattr security.*`, as root"""
        return self._xattr("security.one")

    def ask_capability(self) -> str:
        """`setxattr security.capability`, as `setcap`"""
        path = self._folder / "capable"
        path.touch()
        os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0))
        return f"{len(os.getxattr(path, 'security.capability'))} bytes"

    def ask_xattr_size(self) -> str:
        """the longest value of an extended attribute"""
        path = self._folder / "xattr-size"
        path.touch()
        return f"{_largest(lambda size: os.setxattr(path, 'user.long', b'v' * size), 65_536):,} bytes"

    def ask_acl(self) -> str:
        """an access control list that gives a stranger rights, and is obeyed"""
        actor = self._with_acl(USERS["stranger"][0], bits=6, mode=0o600)
        answer = actor.do(step("open", 1, "acl", os.O_RDWR, 0, user="stranger"))
        actor.close()
        return "opened" if answer == "ok" else f"kept, not obeyed: {answer}"

    def ask_acl_denial(self) -> str:
        """an access control list that takes a stranger's rights, and is obeyed"""
        actor = self._with_acl(USERS["stranger"][0], bits=0, mode=0o666)
        answer = actor.do(step("open", 1, "acl", os.O_RDWR, 0, user="stranger"))
        actor.close()
        return "refused" if answer == "EACCES" else f"kept, not obeyed: {answer}"

    def ask_acl_mode(self) -> str:
        """`chmod` changes the mask of an access control list"""
        self._with_acl(USERS["stranger"][0], bits=6, mode=0o660)
        (self._folder / "acl").chmod(0o640)
        return "changed" if b"\x10\x00\x04\x00" in os.getxattr(self._folder / "acl", "system.posix_acl_access") else "kept, not changed"

    def ask_acl_default(self) -> str:
        """what is made in a folder gets its default access control list"""
        folder = self._folder / "acl-folder"
        folder.mkdir()
        os.setxattr(folder, "system.posix_acl_default", _acl(USERS["stranger"][0], 6))
        (folder / "new").touch()
        return "inherited" if "system.posix_acl_access" in os.listxattr(folder / "new") else "not inherited"

    def _with_acl(self, uid: int, *, bits: int, mode: int) -> Actor:
        if os.geteuid() != 0:
            raise PermissionError(errno.EPERM, "only root can be somebody else")
        path = self._folder / "acl"
        path.touch()
        path.chmod(mode)
        os.setxattr(path, "system.posix_acl_access", _acl(uid, bits))
        return Actor(self._folder)

    def ask_direct(self) -> str:
        """`open` with `O_DIRECT`, write and read"""
        descriptor = self._open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        with mmap.mmap(-1, 8192) as buffer:
            buffer[:] = b"d" * 8192
            os.writev(descriptor, [buffer])
            os.preadv(descriptor, [buffer], 4096)
            return "works" if buffer[:4096] == b"d" * 4096 else f"{_WRONG}other bytes"

    def ask_unaligned_direct(self) -> str:
        """the same, not aligned"""
        return f"{os.write(self._open('direct-odd', os.O_RDWR | os.O_CREAT | os.O_DIRECT), b'odd')} bytes written"

    def ask_lease(self) -> str:
        """`fcntl F_SETLEASE`, as Samba's oplocks"""
        descriptor = self._open("lease")
        os.close(descriptor)
        fcntl.fcntl(os.open(self._folder / "lease", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return "a lease"

    def ask_inotify(self) -> str:
        """`inotify` tells of a file that is made"""
        watcher = check(LIBC.inotify_init1(os.O_NONBLOCK))
        check(LIBC.inotify_add_watch(watcher, os.fsencode(self._folder), 0x100))
        self._open("noticed")
        return "told" if b"noticed" in os.read(watcher, 4096) else f"{_WRONG}told of something else"

    def ask_device(self) -> str:
        """opening a device file, as root"""
        path = self._folder / "null"
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        return f"{os.write(os.open(path, os.O_WRONLY), b'x')} byte written"

    def ask_setuid(self) -> str:
        """running a setuid program as somebody else"""
        path = self._folder / "whoami"
        path.write_bytes(Path("/usr/bin/id").read_bytes())
        path.chmod(0o4755)
        uid = USERS["stranger"][0]
        told = subprocess.run([path, "-u"], capture_output=True, text=True, user=uid, check=True).stdout.strip()
        return "runs as its owner" if told == str(path.stat().st_uid) else "runs as the caller"

    def ask_access_time(self) -> str:
        """reading moves the access time (relatime)"""
        descriptor = self._filled("accessed")
        os.utime(descriptor, ns=(10**9, 10**9))
        wait_tick()
        os.pread(descriptor, 10, 0)
        return "moves" if os.fstat(descriptor).st_atime_ns != 10**9 else "does not move"

    def ask_birth_time(self) -> str:
        """`statx` tells the time of birth"""
        self._open("born")
        told = subprocess.run(["stat", "--format=%W", self._folder / "born"], capture_output=True, text=True, check=True).stdout.strip()
        return "no" if told in ("0", "-") else "yes"

    def ask_links(self) -> str:
        """names of one file"""
        most = 200 if self._is_quick else 65_001
        (self._folder / "links").mkdir()
        os.close(os.open(self._folder / "links" / "one", os.O_CREAT, 0o644))
        for number in range(2, most + 1):
            try:
                os.link(self._folder / "links" / "one", self._folder / "links" / str(number))
            except OSError as error:
                return f"{number - 1:,}, then {errno.errorcode[error.errno or 0]}"
        return f"{most:,} and more"

    def ask_size(self) -> str:
        """the largest size of a file"""
        descriptor = self._open("size")
        largest = _largest(lambda size: os.ftruncate(descriptor, size), (1 << 63) - 1)
        try:
            os.ftruncate(descriptor, (1 << 63) - 1)
        except OSError as error:
            return f"{largest:,} bytes, then {errno.errorcode[error.errno or 0]}"
        return f"{largest:,} bytes"

    def ask_name(self) -> str:
        """the longest name"""
        return f"{_largest(lambda size: os.close(os.open(self._folder / ('n' * size), os.O_CREAT)), 1000)} bytes"

    def ask_range_of_times(self) -> str:
        """times in the year 1900 and in the year 2500"""
        descriptor = self._open("times")
        kept = []
        for seconds in (-2_208_988_800, 16_725_225_600):
            os.utime(descriptor, ns=(seconds * 10**9 + 1, seconds * 10**9 + 1))
            kept.append("kept" if os.fstat(descriptor).st_mtime_ns == seconds * 10**9 + 1 else "not kept")
        return " · ".join(kept)

    def ask_fadvise(self) -> str:
        """`posix_fadvise`, `readahead`, `sync_file_range`"""
        descriptor = self._filled("advised")
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        check(LIBC.readahead(descriptor, ctypes.c_long(0), 4096))
        check(LIBC.sync_file_range(descriptor, ctypes.c_long(0), ctypes.c_long(0), 7))
        return "accepted"

    def ask_program_running(self) -> str:
        """writing to a program that runs"""
        path = self._folder / "sleeping"
        path.write_bytes(Path("/usr/bin/sleep").read_bytes())
        path.chmod(0o755)
        with subprocess.Popen([path, "60"]) as running:
            try:
                os.close(os.open(path, os.O_WRONLY))
            finally:
                running.kill()
        return "allowed"


def _acl(uid: int, bits: int) -> bytes:
    """An access control list with one named user, as the kernel has it in an attribute."""
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, bits, uid), (4, 6, nobody), (16, 6, nobody), (32, 6 if bits == 0 else 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _size(descriptor: int, expected: int) -> str:
    size = os.fstat(descriptor).st_size
    return "works" if size == expected else f"{_WRONG}{size} bytes instead of {expected}"


def _bytes(descriptor: int, offset: int, expected: bytes) -> str:
    found = os.pread(descriptor, len(expected), offset)
    return "works" if found == expected else f"{_WRONG}{found!r}"


def _largest(attempt: Callable[[int], None], limit: int) -> int:
    """The largest number up to `limit` for which a call does not fail."""
    low, high = 1, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            attempt(middle)
        except OSError:
            high = middle
        else:
            low = middle
    return low


def _error_name(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, str(error))
    return {"ENOTSUP": "EOPNOTSUPP"}.get(name, name)  # two names of one number; manuals have the second


def _ask(probe: Callable[[], str]) -> str:
    before = set(os.listdir("/proc/self/fd"))
    try:
        return probe()
    except OSError as error:
        return f"`{_error_name(error)}`"
    except subprocess.CalledProcessError as error:
        return f"{_WRONG}{error}"
    finally:
        for descriptor in set(os.listdir("/proc/self/fd")) - before:
            try:
                os.close(int(descriptor))
            except OSError:
                continue  # that of the listing itself


class Limits:
    """What may not be there."""

    name = "limits"
    title = "holes, fallocate, O_TMPFILE, ioctl, handles, ACLs…: which error a program sees"
    packages: dict[str, str] = {}  # noqa: RUF012 # as in the Protocol
    limit_s = 300.0

    def judge(self, bench: Bench) -> Verdict:
        """Ask both folders everything."""
        here, there = (_Probes(folder, is_quick=bench.is_quick).all() for folder in (bench.judged, bench.host))
        rows = []
        findings = []
        for probe, same in zip(here, there, strict=True):
            title = (probe.__doc__ or "").strip()
            judged, host = _ask(probe), _ask(same)
            rows.append(f"| {title} | {judged} | {host} |")
            if judged.startswith(_WRONG):
                findings.append(Finding(title, f"judged: {judged}\nhost:   {host}"))
        for folder in (bench.judged, bench.host):
            must_run(["find", folder, "-mindepth", "1", "-delete"], folder=folder)
        who = "" if os.geteuid() == 0 else ", as an ordinary user"
        notes = ["What a program that asks for it sees:", "", "| asked for | judged | host |", "|---|---|---|", *rows]
        return Verdict(f"{len(rows)} questions, Python {sys.version_info.major}.{sys.version_info.minor}{who}", len(rows), findings, notes)

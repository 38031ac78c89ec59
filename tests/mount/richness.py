# SPDX-License-Identifier: MIT
"""A folder with one of everything, and comparing two folders entry by entry."""

import hashlib
import os
import random
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 1024 * 1024
IS_ROOT = os.geteuid() == 0

SPARSE_BYTES = 64 * MIB
LONG_NAME = b"n" * 255
DEEP_NAME = b"d" * 150
DEEP_LEVELS = 18
"""Times the name's length: near to PATH_MAX, with room for the folder that holds it."""

STRANGE_NAMES = [
    b"not utf-8 \xff\xfe",
    b"new\nline",
    b" leading and trailing ",
    b"-rf",
    b"back\\slash",
    b"'\"$(quotes)",
    b"*",
    "\u00fc\U0001f600".encode(),
]
"""Besides `LONG_NAME`."""


def make_rich_folder(folder: Path) -> None:
    """Fill an empty folder with every kind of file and metadata that this user can make."""
    root = os.fsencode(folder)
    _make_files(root + b"/files")
    _make_names(root + b"/names")
    _make_metadata(root + b"/metadata")
    _make_links(root + b"/links")
    _make_special(root + b"/special")
    _make_deep(root + b"/deep")
    os.mkdir(root + b"/empty")


def _write(path: bytes, data: bytes = b"data") -> bytes:
    with open(path, "wb") as file:
        file.write(data)
    return path


def _make_files(folder: bytes) -> None:
    os.mkdir(folder)
    rng = random.Random(1)
    _write(folder + b"/empty", b"")
    _write(folder + b"/one byte", b"x")
    _write(folder + b"/text", b"needle in a line\nanother line\n")
    _write(folder + b"/one block", rng.randbytes(4096))
    _write(folder + b"/over 1 MiB", rng.randbytes(MIB + 1))
    _write(folder + b"/many chunks", b"".join(rng.randbytes(1000) + bytes(1000) for _ in range(3000)))
    with open(folder + b"/sparse", "wb") as sparse:
        sparse.truncate(SPARSE_BYTES)
        for at in (MIB, 40 * MIB):
            sparse.seek(at)
            sparse.write(rng.randbytes(8192))
    with open(folder + b"/nothing but a hole", "wb") as sparse:
        sparse.truncate(MIB)


def _make_names(folder: bytes) -> None:
    os.mkdir(folder)
    for name in [*STRANGE_NAMES, LONG_NAME]:
        _write(folder + b"/" + name)
        os.mkdir(folder + b"/" + name[:-1] + b"D")
        _write(folder + b"/" + name[:-1] + b"D/" + name)


def _make_metadata(folder: bytes) -> None:
    os.mkdir(folder)
    for mode in (0o600, 0o640, 0o444, 0o755, 0o4755, 0o2755, 0o6711) + ((0o000,) if IS_ROOT else ()):
        os.chmod(_write(folder + b"/mode %o" % mode), mode)
    for mode in (0o700, 0o1777, 0o2755, 0o555):
        os.mkdir(folder + b"/folder %o" % mode)
        os.chmod(folder + b"/folder %o" % mode, mode)
    for label, time_ns in {b"ns": 1_234_567_890_123_456_789, b"before 1970": -(10**15) - 1, b"2100": 4_102_444_800_000_000_001}.items():
        os.utime(_write(folder + b"/time " + label), ns=(time_ns + 7, time_ns))
    xattrs = {"user.text": b"value", "user.empty": b"", "user.bytes": bytes(range(256)), "user.long": b"x" * 2000}
    os.mkdir(folder + b"/folder with xattrs")
    for path in (_write(folder + b"/file with xattrs"), folder + b"/folder with xattrs"):
        for name, value in xattrs.items():
            os.setxattr(path, name, value)
    os.mkdir(folder + b"/folder with an ACL")
    acl = ["setfacl", "-m", "user:33:rx,group:7:r,mask::rx"]
    subprocess.run([*acl, _write(folder + b"/file with an ACL")], check=True)
    subprocess.run([*acl, "-m", "default:user:33:rwx", folder + b"/folder with an ACL"], check=True)
    if IS_ROOT:
        for number, (uid, gid) in enumerate([(1000, 1001), (65534, 65534), (2**32 - 2, 2**32 - 3)]):
            os.chown(_write(folder + b"/owner %d" % number), uid, gid)
        os.setxattr(_write(folder + b"/file with root's xattrs"), "trusted.secret", b"1")
        capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective
        os.setxattr(folder + b"/file with root's xattrs", "security.capability", capability)


def _make_links(folder: bytes) -> None:
    os.mkdir(folder)
    targets = [b"../files/text", b"dangling", b"/etc/hostname", b".", b"t" * 3900, b"not utf-8 \xff\n", b"link 0"]
    for number, target in enumerate(targets):
        os.symlink(target, folder + b"/link %d" % number)
    os.mkdir(folder + b"/folder")
    _write(folder + b"/hard 1", b"linked")
    os.link(folder + b"/hard 1", folder + b"/hard 2")
    os.link(folder + b"/hard 1", folder + b"/folder/hard 3")
    os.link(folder + b"/link 1", folder + b"/hard link to link 1")
    for name in (b"alike 1", b"alike 2"):  # the same in all but the inode
        os.utime(_write(folder + b"/" + name, b"alike"), ns=(1, 1))


def _make_special(folder: bytes) -> None:
    os.mkdir(folder)
    os.mkfifo(folder + b"/fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server, _working_in(folder):  # a socket's path is short
        server.bind(b"socket")
    if IS_ROOT:
        os.mknod(folder + b"/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(folder + b"/block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))


def _make_deep(folder: bytes) -> None:
    path = folder
    os.mkdir(path)
    for _ in range(DEEP_LEVELS):
        path += b"/" + DEEP_NAME
        os.mkdir(path)
    _write(path + b"/bottom")


@contextmanager
def _working_in(folder: bytes) -> Iterator[None]:
    before = os.open(".", os.O_PATH)
    os.chdir(folder)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@dataclass(frozen=True)
class Facts:
    """All that two folders can have in common about one name. A folder's size and link count are its file system's own matter."""

    mode: str
    owner: tuple[int, int]
    mtime_ns: int
    size: int
    nlink: int
    device: int
    content: str
    target: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    linked_to: bytes
    """The first name of the same file where it has several hard links."""


@dataclass(frozen=True)
class Described:
    """A folder as it is: facts by path, and blocks by path of regular files. The path of the folder itself is `.`."""

    facts: dict[bytes, Facts]
    blocks: dict[bytes, int]


def describe(folder: str | Path) -> Described:
    """Read a folder and all below it."""
    facts, blocks = {}, {}
    first_names: dict[tuple[int, int], bytes] = {}
    root = os.fsencode(folder)
    for path in _walk(root, b"."):
        full = root + b"/" + path
        status = os.lstat(full)
        is_folder = stat.S_ISDIR(status.st_mode)
        is_file = stat.S_ISREG(status.st_mode)
        is_linked = not is_folder and status.st_nlink > 1
        facts[path] = Facts(
            stat.filemode(status.st_mode),
            (status.st_uid, status.st_gid),
            status.st_mtime_ns,
            0 if is_folder else status.st_size,
            0 if is_folder else status.st_nlink,
            status.st_rdev,
            _hash(full) if is_file else "",
            os.readlink(full) if stat.S_ISLNK(status.st_mode) else b"",
            tuple((name, os.getxattr(full, name, follow_symlinks=False)) for name in sorted(os.listxattr(full, follow_symlinks=False))),
            first_names.setdefault((status.st_dev, status.st_ino), path) if is_linked else b"",
        )
        if is_file:
            blocks[path] = status.st_blocks
    return Described(facts, blocks)


def access_times(folder: str | Path) -> dict[bytes, int]:
    """When each entry that is no folder was read last. Looking at this does not change it."""
    root = os.fsencode(folder)
    found = {path: os.lstat(root + b"/" + path) for path in _walk(root, b".")}
    return {path: status.st_atime_ns for path, status in found.items() if not stat.S_ISDIR(status.st_mode)}


def _walk(root: bytes, path: bytes) -> Iterator[bytes]:
    yield path
    with os.scandir(root + b"/" + path) as listing:
        items = sorted(listing, key=lambda item: item.name)
    for item in items:
        below = path + b"/" + item.name
        if item.is_dir(follow_symlinks=False):
            yield from _walk(root, below)
        else:
            yield below


def _hash(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def differences(one: Described, other: Described, *ignored: str) -> list[str]:
    """What differs between two folders, in words; `ignored` names facts that need not agree."""
    found = [f"{path!r} is only in the first" for path in one.facts.keys() - other.facts.keys()]
    found += [f"{path!r} is only in the second" for path in other.facts.keys() - one.facts.keys()]
    for path in one.facts.keys() & other.facts.keys():
        for name, fact in asdict(one.facts[path]).items():
            if name not in ignored and fact != (there := getattr(other.facts[path], name)):
                found.append(f"{name} of {path!r}: {fact!r} against {there!r}")
    return sorted(found)

# SPDX-License-Identifier: MIT
"""Random work in a folder, one system call that changes something at a time, and what the folder is then.

The same seed does the same to any folder, so a folder of the host can follow a live one. Every part of a step changes all of what
it changes or nothing: that is what makes "the folder as it was after some part" a thing to look for after a crash.
"""

import ctypes
import hashlib
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from yester.core.records import Entry
from yester.engine.files import FileReader
from yester.engine.trees import TreeReader
from yester.store.store import Store

FOLDERS = [b"", b"d", b"d/e", b"f"]
PATHS = [b"/".join(filter(None, (folder, name))) for folder, name in product(FOLDERS, (b"a", b"b", b"c", b"d", b"e", b"f"))]
XATTR = "user.test"
PAGE_BYTES = 4096
WRITE_MAX = 60_000
_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)

Shape = tuple[int, int, bytes, bytes]
"""Mode, names, hash of the content or target, value of one attribute."""
Shapes = dict[bytes, Shape]


@dataclass(frozen=True)
class Step:
    """A system call to make. `data_seed` says what to write."""

    kind: str
    path: bytes
    other: bytes = b""
    number: int = 0
    length: int = 0
    data_seed: int = 0

    @property
    def syncs(self) -> bool:
        """Whether all that was done before is durable once this has succeeded."""
        return self.kind in ("fsync", "fsync folder")

    def parts(self) -> list["Step"]:
        """What a file system in user space is asked for: done one after the other they are the step.

        The kernel sends a write that begins inside a page it does not have as two: up to the end of that page, and the rest.
        """
        first = PAGE_BYTES - self.number % PAGE_BYTES
        if self.kind == "write" and first < PAGE_BYTES and first < self.length:
            return [replace(self, length=first), self]
        return [self]


def random_step(rng: random.Random) -> Step:
    """What to do next."""
    kinds = ["create"] * 4 + ["write"] * 8 + ["mkdir"] * 2 + ["rename"] * 4 + ["exchange", "rename without replacing"]
    kinds += ["unlink"] * 2 + ["rmdir", "truncate", "truncate", "symlink", "link", "chmod", "setxattr", "fsync", "fsync folder"]
    return Step(
        rng.choice(kinds), rng.choice(PATHS), rng.choice(PATHS), rng.randrange(40_000), rng.randrange(1, WRITE_MAX), rng.getrandbits(30)
    )


def do(step: Step, root: bytes) -> int:
    """Do it below `root`; the number of the error, 0 if there was none."""
    path, other = root + b"/" + step.path, root + b"/" + step.other
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)),
        "write": lambda: _with_file(path, os.O_WRONLY, lambda file: os.pwrite(file, _bytes_of(step), step.number)),
        "truncate": lambda: os.truncate(path, step.number),
        "mkdir": lambda: os.mkdir(path, 0o755),
        "rmdir": lambda: os.rmdir(path),
        "unlink": lambda: os.unlink(path),
        "symlink": lambda: os.symlink(step.other, path),
        "link": lambda: os.link(path, other, follow_symlinks=False),
        "rename": lambda: _rename(path, other, 0),
        "rename without replacing": lambda: _rename(path, other, _NOREPLACE),
        "exchange": lambda: _rename(path, other, _EXCHANGE),
        "chmod": lambda: os.chmod(path, 0o700 | step.number % 0o100),
        "setxattr": lambda: os.setxattr(path, XATTR, b"%d" % step.number),
        "fsync": lambda: _with_file(path, os.O_RDONLY, os.fsync),
        "fsync folder": lambda: _with_file(root, os.O_RDONLY | os.O_DIRECTORY, os.fsync),
    }
    try:
        calls[step.kind]()
    except OSError as error:
        return error.errno or -1
    return 0


def describe(root: bytes) -> Shapes:
    """Everything below a folder."""
    found: Shapes = {}
    for top, folders, files in os.walk(root):
        for name in [b"", *folders, *files] if top == root else [*folders, *files]:
            path = os.path.join(top, name) if name else top
            status = os.lstat(path)
            content, xattr = b"", b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            if not stat.S_ISLNK(status.st_mode):
                xattr = os.getxattr(path, XATTR) if XATTR in os.listxattr(path) else b""
            is_folder = stat.S_ISDIR(status.st_mode)
            found[path[len(root) :]] = status.st_mode, 1 if is_folder else status.st_nlink, hash_content(content), xattr
    return found


def describe_snapshot(store: Store, root: Entry) -> Shapes:
    """Everything in a snapshot, in the same terms."""
    chunks = store.reader()
    trees = TreeReader(chunks)
    found: Shapes = {}
    waiting = [(b"", root)]
    while waiting:
        path, entry = waiting.pop()
        content = b"" if stat.S_ISDIR(entry.mode) else entry.content
        if stat.S_ISREG(entry.mode):
            content = bytes(FileReader(chunks, entry.file_content, entry.size).read(0, entry.size))
        found[path] = entry.mode, entry.rare.nlink, hash_content(content), dict(entry.rare.xattrs).get(os.fsencode(XATTR), b"")
        if stat.S_ISDIR(entry.mode):
            waiting += [(path + b"/" + child.name, child) for child in trees.read(entry.tree).entries]
    return found


def fingerprint(shapes: Shapes) -> bytes:
    """Tells folders apart. The mode of the root does not matter: who makes it chooses it."""
    inner = {path: shape for path, shape in shapes.items() if path}
    return hashlib.sha256(repr(sorted(inner.items())).encode()).digest()


def _with_file(path: bytes, flags: int, call: Callable[[int], object]) -> None:
    file = os.open(path, flags | os.O_NOFOLLOW)
    try:
        call(file)
    finally:
        os.close(file)


def _rename(old: bytes, new: bytes, flags: int) -> None:
    if _libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _bytes_of(step: Step) -> bytes:
    return random.Random(step.data_seed).randbytes(WRITE_MAX)[: step.length]


def hash_content(content: bytes) -> bytes:
    """Tells contents apart."""
    return hashlib.sha256(content).digest() if content else b""

# SPDX-License-Identifier: MIT
"""Whether a store's data file is the one that was written here, or a copy of one.

A copy of a file that somebody was writing has pages of different moments, and nothing in LMDB would notice. So the store remembers the
file system, the inode number and the inode's generation of its data file, in a file beside it; where these are others the file was copied,
or restored from somewhere, and its pages are looked at once before LMDB gets it. What is in them is met by hashes, as always.

The generation is a number that ext4, XFS, Btrfs and F2FS give an inode each time that it is used for a new file: after `rm` and `cp` ext4
often gives the same inode again. Where there is none, as on tmpfs, which counts inodes up, it is 0.

Not noticed: a copy that was written into the same file, as by `rsync --inplace`; one that got the same inode number where there are no
generations.
"""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from yester.store.datafile import DATA_FILE

IDENTITY_FILE = "data.id"
_BYTES_MAX = 64
_GET_GENERATION = 2 << 30 | struct.calcsize("l") << 16 | ord("v") << 8 | 1
"""FS_IOC_GETVERSION (ioctl_iflags(2), linux/fs.h): says that it gives a long, and gives an int."""


def is_own_file(path: Path) -> bool:
    """Whether the data file of the store `path` is the one that was remembered. About 20 µs. Raises OSError."""
    try:
        known = os.open(path / IDENTITY_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(known, _BYTES_MAX) == _identity(path)
    finally:
        os.close(known)


def remember_file(path: Path) -> None:
    """Remember the data file of the store `path`. Where that may not be written it is looked at again each time."""
    new = path / f"{IDENTITY_FILE}.{os.getpid()}"
    with suppress(OSError):
        try:
            # Several processes may do this at once; they write the same.
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, _identity(path))
            finally:
                os.close(file)
            os.replace(new, path / IDENTITY_FILE)
        finally:
            new.unlink(missing_ok=True)


def _identity(path: Path) -> bytes:
    data = path / DATA_FILE
    return b"%d %d %d\n" % (os.statvfs(path).f_fsid, os.stat(data).st_ino, _generation(data))


def _generation(path: Path) -> int:
    """The generation of a file's inode; 0 where the file system has none, or does not tell, or the file may not be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(struct.unpack_from("=I", fcntl.ioctl(file, _GET_GENERATION, bytes(8)))[0])
    except OSError:
        return 0
    finally:
        os.close(file)  # LMDB's own locks are on `lock.mdb`: closing this file frees none of them

# SPDX-License-Identifier: MIT
"""Whether a store's data file is the one that was written here, or a copy of one.

A copy of a file that somebody was writing has pages of different moments, and nothing in LMDB would notice. So the store remembers the
file system and the inode number of its data file, in a file beside it; where these are others the file was copied, or restored from
somewhere, and its pages are looked at once before LMDB gets it. What is in them is met by hashes, as always.

Not noticed: a copy that was written into the same file, as by `rsync --inplace`.
"""

import os
from contextlib import suppress
from pathlib import Path

from yester.store.datafile import DATA_FILE

IDENTITY_FILE = "data.id"
_BYTES_MAX = 64


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
    return b"%d %d\n" % (os.statvfs(path).f_fsid, os.stat(path / DATA_FILE).st_ino)

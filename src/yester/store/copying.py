# SPDX-License-Identifier: MIT
"""Copying a store's data file byte by byte, before something dares to change it.

The caller sees to it that nobody writes meanwhile: a copy of a file that is being written may be of no use.

Crash at any point: the copy has its name only once all of it is on the disk. What is there under another name before that is written over
when it is made again. One that is whole is never written over: it may be all there is of the store as it was.
"""

import errno
import os
import shutil
from pathlib import Path

from yester.errors import ConflictError, StoreAccessError, StoreFullError
from yester.store.datafile import DATA_FILE
from yester.store.folder import sync_folder

_PARTIAL_FILE = f"{DATA_FILE}.partial"


def check_copy_folder(path: Path, folder: Path) -> None:
    """Refuse a folder that has more in it than a copy that was interrupted, is in the store `path`, or whose disk has no room for a copy.

    Raises:
        ConflictError, StoreFullError, StoreAccessError: nothing was changed.
    """
    resolved = folder.resolve()
    if resolved.is_relative_to(path.resolve()):
        message = f"{folder} is in the store {path}; nothing was changed"
        raise ConflictError(message, hint="name a folder elsewhere for the copy, best on another disk")
    try:
        names = set(os.listdir(folder)) if folder.exists() else set()
        if DATA_FILE in names:
            message = f"{folder} has a whole store or copy of one in it; nothing was copied, and nothing was changed"
            raise ConflictError(
                message, hint="if a repair that was interrupted has made it, go on with --no-copy; else name another folder"
            )
        if not names <= {_PARTIAL_FILE}:
            message = f"{folder} is there already and not an empty folder; nothing was copied, and nothing was changed"
            raise ConflictError(message, hint="name a missing or empty folder for the copy")
        size = (path / DATA_FILE).stat().st_size
        disk = os.statvfs(next(parent for parent in (resolved, *resolved.parents) if parent.exists()))
        partial_bytes = (folder / _PARTIAL_FILE).stat().st_size if _PARTIAL_FILE in names else 0
    except OSError as error:
        message = f"cannot make a copy in {folder}: {error.strerror}; nothing was changed"
        raise StoreAccessError(message, hint="name another folder for the copy") from error
    if disk.f_bavail * disk.f_frsize + partial_bytes < size:
        raise _full(folder, size)


def copy_data_file(path: Path, folder: Path) -> int:
    """Copy the data file of the store `path` into `folder`, a store of its own then; durable on return. Returns its bytes.

    Raises:
        ConflictError, StoreFullError, StoreAccessError: as `check_copy_folder`; there is no copy.
    """
    check_copy_folder(path, folder)
    target, partial = folder / DATA_FILE, folder / _PARTIAL_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            with (path / DATA_FILE).open("rb") as source, partial.open("xb") as copy:
                os.fchmod(copy.fileno(), 0o600)
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
                size = os.fstat(copy.fileno()).st_size
            partial.rename(target)
            sync_folder(folder)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder, (path / DATA_FILE).stat().st_size) from error
        message = f"the copy of {path} in {folder} could not be made: {error.strerror}; nothing was changed"
        raise StoreAccessError(message, hint="name another folder for the copy") from error
    return size


def _full(folder: Path, size: int) -> StoreFullError:
    message = f"there is no room for a copy of the store in {folder}: it takes {size >> 20} MiB; nothing was changed"
    return StoreFullError(message, hint="name a folder on another disk for the copy")

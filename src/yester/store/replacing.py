# SPDX-License-Identifier: MIT
"""Having a new data file take the place of a store's own, in one step, as somebody else's as much as the old one was.

Whoever has the old one open would go on using it: the caller sees to it that nobody has. Crash at any point: the old file or the new one,
whole, whichever the name leads to.
"""

import os
import shutil
from pathlib import Path

from yester.errors import StoreAccessError
from yester.store.datafile import DATA_FILE


def check_owner(path: Path, folder: Path) -> None:
    """Refuse if a new file in `folder` could not be given to whom the data file of the store `path` belongs.

    Raises:
        StoreAccessError: it cannot; nothing was changed. OSError: the folder cannot be written.
    """
    probe = folder / "owner"
    with probe.open("xb") as file:
        try:
            _give(file.fileno(), path)
        except PermissionError as error:
            message = f"the store {path} belongs to another user, and a new data file could not be given to them; nothing was changed"
            raise StoreAccessError(message, hint="do it as the user whose store it is, or as root") from error
        finally:
            probe.unlink()


def take_place(path: Path, folder: Path) -> None:
    """Have the data file in `folder` take the place of that of the store `path`, with its owner, group, mode and attributes.

    Its bytes and these are on the disk before it does; that it did is not yet: sync the store's folder.

    Raises:
        OSError: it did not; nothing was changed.
    """
    new = folder / DATA_FILE
    handle = os.open(new, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give(handle, path)
        shutil.copystat(path / DATA_FILE, new)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(new, path / DATA_FILE)


def _give(handle: int, path: Path) -> None:
    """Give an open file the owner and group of a store's data file, if it has others."""
    old, new = os.stat(path / DATA_FILE), os.fstat(handle)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(handle, old.st_uid, old.st_gid)

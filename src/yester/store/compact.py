# SPDX-License-Identifier: MIT
"""Making the data file of a store small again: LMDB writes freed pages again and never gives them back to the disk.

The whole environment is written anew into a folder beside the data file, which then takes its place by a rename. Whatever
instant the process or the power ends at, the store's file is the old one or the new one, whole. A folder that is left over is removed
when the store is next opened.

Needs the store alone: whoever has the old file open would go on writing into it.
"""

import errno
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from yester.errors import CorruptionError, StoreAccessError, StoreFullError
from yester.store.datafile import DATA_FILE
from yester.store.folder import COMPACT_FOLDER, sync_folder, use_alone
from yester.store.identity import remember_file
from yester.store.lmdb import MAP_BYTES, Environment, Table
from yester.store.replacing import check_owner, take_place
from yester.store.store import Store
from yester.store.verify import verify_data_file

if TYPE_CHECKING:
    from yester.store.slots import Unlock


class Compacted(NamedTuple):
    """Bytes of the data file before and after."""

    before_bytes: int
    after_bytes: int


def compact(path: Path, *, map_bytes: int = MAP_BYTES, unlock: "Unlock | None" = None) -> Compacted:
    """Make the data file of the store in `path` as small as what is in it; durable on return. 300 MB/s.

    `unlock` as for `Store.open`.

    Raises:
        BusyError: some process has the store open.
        StoreAccessError: a new file cannot be made, or not be given to whom the store belongs.
        StoreFullError: no room for the new file beside the old one.
        CorruptionError: the new file is not as the old one. In each case nothing was changed.
    """
    Store.open(path, map_bytes=map_bytes, unlock=unlock).close()  # says what is wrong with it, and clears up
    with use_alone(path), Environment(path, map_bytes=map_bytes) as environment:
        with environment.read() as view:
            needed_bytes = view.used_pages() * environment.page_bytes
        disk = environment.disk()
        if needed_bytes > disk.f_bavail * disk.f_frsize:
            raise _no_room(path, needed_bytes)
        before_bytes = environment.file_bytes()
        folder = path / COMPACT_FOLDER
        try:
            folder.mkdir(mode=0o700)
            check_owner(path, folder)
            environment.copy_to(folder)
            _judge_copy(environment, folder)
            take_place(path, folder)
        except StoreFullError as error:
            raise _no_room(path, needed_bytes) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room(path, needed_bytes) from error
            message = f"the store {path} cannot be compacted: {error.strerror}; nothing was changed"
            raise StoreAccessError(message, hint="see whose the folder of the store is, and whether its disk is sound") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        remember_file(path)
        with suppress(OSError):  # the new file is durable; which of the two the name leads to after a power loss does not matter
            sync_folder(path)
    return Compacted(before_bytes, (path / DATA_FILE).stat().st_size)


def _no_room(path: Path, needed_bytes: int) -> StoreFullError:
    message = f"no space left for a second file beside that of the store {path}: it takes {needed_bytes >> 20} MiB; nothing was changed"
    return StoreFullError(message, hint="free space on that disk; the second file takes the place of the first when it is complete")


def _judge_copy(environment: Environment, folder: Path) -> None:
    """Raises CorruptionError unless a copy has sound pages and as many rows in each table; what a row says is copied by pages."""
    problems = verify_data_file(folder)
    with Environment(folder, readonly=True, map_bytes=environment.map_bytes()) as copy, copy.read() as copied, environment.read() as view:
        problems += [f"the table {table.value.decode()} has other rows" for table in Table if copied.count(table) != view.count(table)]
    if problems:
        message = f"the compacted copy of the store {environment.path} is not as the store: {problems[0]}; nothing was changed"
        raise CorruptionError(message, hint="run `yester check --read-data`")

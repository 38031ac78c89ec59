# SPDX-License-Identifier: MIT
"""Judging LMDB's data file by its bytes alone, before LMDB maps it.

LMDB compares nothing with the length of the file; what it maps beyond the end is SIGBUS when touched, which nobody can
catch: 40 of 40 truncated files killed the process (docs/adr/0002). So the last page that the newest meta page
states must be in the file, with one exception: a page that is taken from the end of the file and freed again within one
transaction is never written, so the file of a whole store may end early, if all that is missing is in its list of free
pages. (Random transactions left 171 of 1,800 files so.)

Reads the two meta pages, and the B-tree of free page numbers; see `store.pages`. Bytes are hostile: every number is checked before it
is followed.

Reference: mdb.c of LMDB 0.9 (MDB_meta, mdb_page_loose).
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from yester.errors import CorruptionError, NotFoundError, StoreAccessError
from yester.store.pages import IS_BIG, IS_BRANCH, IS_LEAF, META_MAGIC, NODE, NUMBER, PAGE, node_places, page_below

DATA_FILE = "data.mdb"

# Page header, magic, version, address, map size; the record of the free list, whose first field is the page size and whose
# last its root; of the record of the main database its flags and its root; last page, transaction id.
_META_PAGE = struct.Struct("<16xIIQQ I36xQ 4xH34xQ QQ")
_TRIES = 5
_FREE_TAIL_PAGES_MAX = 100_000
"""400 MB: more than any transaction of ours takes. A file that lacks more is cut short, whatever it says."""


class Meta(NamedTuple):
    """What a meta page says: among others where the trees of free pages and of tables have their roots."""

    page_bytes: int
    free_root: int
    main_flags: int
    main_root: int
    last_page: int
    transaction: int


def check_data_file(path: Path) -> None:
    """Refuse the data file in directory `path` if LMDB could touch what is beyond its end. Reads two pages of most files.

    Raises:
        NotFoundError: no data file.
        CorruptionError: pages are missing at its end, or it is not an LMDB file.
        StoreAccessError: the operating system refuses.
    """
    file = path / DATA_FILE
    try:
        with file.open("rb") as data:
            meta = read_meta(file, data)
            for _ in range(_TRIES):
                # The length is asked for after the meta page was read: a writer makes the file longer before it says so.
                size = os.fstat(data.fileno()).st_size
                missing = range(size // meta.page_bytes, meta.last_page + 1)
                if not missing or _are_free(data, meta, missing, size):
                    return
                previous, meta = meta, read_meta(file, data)
                if meta == previous:
                    break
                # Somebody wrote meanwhile, maybe into pages of the list that was being read.
    except FileNotFoundError as error:
        message = f"there is no store in {path}"
        raise NotFoundError(message, hint="make one with `yester init`, or name another with --store") from error
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise StoreAccessError(message) from error
    raise _damaged(file, f"is cut short: {size} bytes where its pages need {(meta.last_page + 1) * meta.page_bytes}")


def read_meta(file: Path, data: BinaryIO) -> Meta:
    """The newer of the two meta pages. Raises CorruptionError if there is none."""
    first = _read(data, 0, _META_PAGE.size)
    if len(first) < _META_PAGE.size:
        raise _damaged(file, f"is only {len(first)} bytes long")
    magic, _version, _address, _map_size, page_bytes, *_ = _META_PAGE.unpack(first)
    if magic != META_MAGIC or not 512 <= page_bytes <= 65536:
        raise _damaged(file, "is not an LMDB database")
    second = _read(data, page_bytes, _META_PAGE.size)
    metas = [Meta(page_bytes, *_META_PAGE.unpack(page)[-5:]) for page in (first, second) if len(page) == _META_PAGE.size]
    return max(metas, key=lambda meta: meta.transaction)


def _are_free(data: BinaryIO, meta: Meta, pages: range, size: int) -> bool:
    """Whether all of these pages are in the list of free pages; False if the list cannot be read."""
    if pages.stop - pages.start > _FREE_TAIL_PAGES_MAX:
        return False
    missing = set(pages)
    waiting = [meta.free_root]
    seen = set()
    try:
        while waiting and missing:
            number = waiting.pop()
            if number in seen:
                return False
            seen.add(number)
            page = _read(data, number * meta.page_bytes, meta.page_bytes)
            flags = PAGE.unpack_from(page)[2]
            for at in node_places(page):
                low, high, node_flags, key_bytes = NODE.unpack_from(page, at)
                if flags & IS_BRANCH:
                    waiting.append(page_below(page, at))
                elif flags & IS_LEAF:
                    value = page[at + NODE.size + key_bytes :][: low | high << 16]
                    if node_flags & IS_BIG:
                        value = _read(data, NUMBER.unpack_from(value)[0] * meta.page_bytes + PAGE.size, min(low | high << 16, size))
                    [count] = NUMBER.unpack_from(value)
                    missing.difference_update(struct.unpack_from(f"<{min(count, len(value) // 8 - 1)}Q", value, NUMBER.size))
    except (struct.error, OverflowError):
        return False
    return not missing


def _read(data: BinaryIO, offset: int, count: int) -> bytes:
    """The bytes there; fewer beyond the end of the file."""
    return os.pread(data.fileno(), count, offset) if offset < 1 << 62 else b""


def _damaged(file: Path, what: str) -> CorruptionError:
    return CorruptionError(
        f"{file} {what}; it was not opened, and nothing was changed",
        hint="run `yester repair`, or restore the store from a copy; keep the damaged file until then",
    )

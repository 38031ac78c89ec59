# SPDX-License-Identifier: MIT
"""Rows: the changed nodes of a live folder as they are stored (docs/format.md §10)."""

import re
import stat

import msgspec

from yester.core.content import Content
from yester.core.ids import ID_BYTES, ChunkId, TreeId
from yester.core.node_table import NODE_ID_BYTES
from yester.core.records import MODE_MAX, Entry, Extra, entry_problem, is_valid_name
from yester.errors import CorruptionError, FormatError

ROW_VERSION = 1
ROOT_NUMBER = 1
"""The number of the root of every live folder."""

_TRASH_NAME = re.compile(rb"\.Trash(-[0-9]+)?")
"""What file managers keep in the root of a mount, of things that were deleted (freedesktop.org trash specification)."""


class NodeRow(msgspec.Struct, frozen=True, array_like=True):
    """A changed node as it is stored."""

    version: int
    node_id: bytes
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    links: tuple[tuple[int, bytes], ...]
    """Each name of it: the number of the folder it is in, and the name. The root has none."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""
    """Of a symlink."""
    base_bytes: int = 0
    """Of a regular file: how much of its base counts. Of a folder: how many folders are right in it."""
    base_level: int = 0
    base: bytes = b""
    """Of a regular file: the spans of its base. Of a folder: the tree and the node table of its base; nothing if it has none."""
    hole_bytes: int = 0
    """Of a regular file: holes in its base."""
    is_published: bool = False
    """Whether it is as in the last version, and has a row only for those below it, or for having several names."""

    @property
    def file_base(self) -> Content:
        """The base of a regular file; empty for all else."""
        return Content(self.base_level, self.base) if stat.S_ISREG(self.mode) else Content(0, b"")

    @property
    def folder_base(self) -> tuple[TreeId, ChunkId] | None:
        """Tree and node table of the base of a folder; None if it has none, or is none."""
        if not stat.S_ISDIR(self.mode) or not self.base:
            return None
        return TreeId(ChunkId(self.base[:ID_BYTES])), ChunkId(self.base[ID_BYTES:])


def decode_row(number: int, stored: bytes) -> NodeRow:
    """A stored row.

    Raises:
        FormatError: a newer release wrote it.
        CorruptionError: it is none, or says what no version could hold: that would make its folder unreadable with all that is in it.
    """
    try:
        row = msgspec.msgpack.decode(stored, type=NodeRow)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(number, str(error)) from error
    if row.version > ROW_VERSION:
        message = f"node {number} of a live folder has version {row.version}; this release reads up to {ROW_VERSION}"
        raise FormatError(message, hint="use a newer yester with this store")
    if row.version < 1:
        raise damaged(number, f"it has version {row.version}")
    if problem := _problem(number, row):
        raise damaged(number, problem)
    return row


def is_trash(folder: int, name: bytes) -> bool:
    """Whether this is the trash of a file manager: it lies in the root, and is part of no version."""
    return folder == ROOT_NUMBER and _TRASH_NAME.fullmatch(name) is not None


def _problem(number: int, row: NodeRow) -> str:
    """Why a row cannot be right; empty if it can."""
    if not 0 <= row.mode <= MODE_MAX:
        return "its mode is absurd"
    is_folder = stat.S_ISDIR(row.mode)
    if is_folder and len(row.base) not in (0, 2 * ID_BYTES):
        return "its base is not that of a folder"
    if len(row.node_id) != NODE_ID_BYTES:
        return "its node id is none"
    if number == ROOT_NUMBER and row.links:
        return "it is the root and has a name"
    if not all(is_valid_name(name) for _, name in row.links) or len(set(row.links)) != len(row.links):
        return "its names are not file names, or one stands twice"
    content = row.base if stat.S_ISREG(row.mode) else bytes(ID_BYTES) if is_folder else row.target
    extra = Extra(rdev=row.rdev, xattrs=row.xattrs)
    return entry_problem(Entry(b"any", row.mode, row.uid, row.gid, row.mtime_ns, row.atime_ns, row.size, row.base_level, content, extra))


def damaged(number: int, problem: str) -> CorruptionError:
    """The error for a node whose rows cannot be."""
    message = f"node {number} of a live folder is damaged: {problem}"
    hint = "run `yester repair`: it takes what is damaged out of the folder, and says what is lost; `yester check` names the folder"
    return CorruptionError(message, hint=hint)

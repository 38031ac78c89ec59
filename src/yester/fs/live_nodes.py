# SPDX-License-Identifier: MIT
"""The nodes of a live folder: what each is in memory, and the row that is stored of a changed one (docs/format.md §10, docs/adr/0007)."""

import errno
import os
import stat
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, NewType, NoReturn

import msgspec

from yester.core.acl import ACCESS, DEFAULT
from yester.core.content import EMPTY, Content
from yester.core.extents import Extent, ExtentMap
from yester.core.ids import ChunkId
from yester.core.node_row import ROOT_NUMBER, ROW_VERSION, NodeRow, damaged
from yester.core.node_table import NODE_ID_BYTES, NodeMark
from yester.core.records import NAME_BYTES_MAX, SIZE_MAX, Entry
from yester.engine.live_base import FolderBase
from yester.engine.live_content import FileCut
from yester.engine.live_version import CutNode

NodeNumber = NewType("NodeNumber", int)
NodeId = NewType("NodeId", bytes)
ROOT: Final = NodeNumber(ROOT_NUMBER)

_XATTR_NAMESPACES = (b"user.", b"trusted.", b"security.")
_SET_ID = stat.S_ISUID | stat.S_ISGID


class Replacing(Enum):
    """What a rename does where the new name is taken."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    EXCHANGE = "exchange"


class NewNode(NamedTuple):
    """What a node shall be made as. `mode` holds its type; `umask` is the creator's, and takes bits away from it."""

    mode: int
    uid: int
    gid: int
    rdev: int = 0
    target: bytes = b""
    umask: int = 0


@dataclass(slots=True)
class LiveNode:
    """A file, folder or special file. Attributes as `stat` shows them.

    It `has_row` once it differs from the base, or one of the nodes below it does. Without a row it is only remembered, for as long as
    `uses` says: once for each time the kernel was told of it, for each time it is open, and for each node that is right in it.
    """

    number: NodeNumber
    node_id: NodeId
    mode: int
    uid: int
    gid: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    links: list[tuple[NodeNumber, bytes]]
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    target: bytes = b""
    extents: ExtentMap | None = None
    """Of a regular file with a row."""
    base: Content = EMPTY
    base_size: int = 0
    """Of a regular file without a row: how many bytes it has, all of its base. With one, `extents` says so, and this is not kept up."""
    hole_bytes: int = 0
    folder: FolderBase | None = None
    """Of a folder that was in the last version."""
    names: dict[bytes, int] | None = None
    """Of a folder: what was added to its base, and `REMOVED` for what was removed, or added and removed again."""
    subfolders: int = 0
    has_row: bool = True
    is_published: bool = False
    """Whether the last version has it as it is. Of what a version that is being made holds, not before that is finished."""
    uses: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it is one."""
        return self.names is not None

    @property
    def size(self) -> int:
        """Bytes of a file or of a symlink's target."""
        if self.extents is not None:
            return self.extents.size
        return self.base_size if stat.S_ISREG(self.mode) else len(self.target)

    @property
    def stored_bytes(self) -> int:
        """Bytes of a file that are no holes, roughly: what it takes on a disk."""
        if self.extents is None:
            return self.base_size - self.hole_bytes
        return min(self.size, max(0, self.extents.base_bytes - self.hole_bytes) + self.extents.written_bytes)

    @property
    def nlink(self) -> int:
        """Names it has; for a folder two and one for each folder in it, as programs expect, and none once it is removed."""
        if self.names is None:
            return len(self.links)
        return 2 + self.subfolders if self.links or self.number == ROOT else 0


def random_node_id() -> NodeId:
    """A node id that nothing else has."""
    return NodeId(os.urandom(NODE_ID_BYTES))


def node_of_entry(parent: NodeNumber, entry: Entry, mark: NodeMark) -> LiveNode:
    """A node as it is in the base; it has no row."""
    node = LiveNode(
        NodeNumber(mark.number),
        NodeId(mark.node_id),
        entry.mode,
        entry.uid,
        entry.gid,
        entry.rare.rdev,
        entry.atime_ns,
        entry.mtime_ns,
        mark.ctime_ns,
        [(parent, entry.name)],
        dict(entry.rare.xattrs),
        has_row=False,
        is_published=True,
    )
    if mark.folder is not None:
        node.folder = FolderBase(entry.tree, ChunkId(mark.folder.table))
        node.subfolders = mark.folder.subfolders
        node.names = {}
    elif stat.S_ISREG(entry.mode):
        node.base, node.base_size, node.hole_bytes = entry.file_content, entry.size, entry.rare.hole_bytes
    else:
        node.target = entry.content
    return node


def encode_row(node: LiveNode) -> bytes:
    """The row of a node that has one."""
    row = NodeRow(
        ROW_VERSION,
        node.node_id,
        node.mode,
        node.uid,
        node.gid,
        node.rdev,
        node.size,
        node.atime_ns,
        node.mtime_ns,
        node.ctime_ns,
        tuple(node.links),
        tuple(sorted(node.xattrs.items())),
        node.target,
        node.extents.base_bytes if node.extents is not None else node.subfolders,
        node.base.level,
        node.base.spans if node.folder is None else b"".join(node.folder),
        node.hole_bytes,
        node.is_published,
    )
    return msgspec.msgpack.encode(row)


def node_of_row(number: NodeNumber, row: NodeRow, extents: list[Extent]) -> LiveNode:
    """The node of a row, without the names in it.

    Raises:
        CorruptionError: the row cannot be that of a node.
    """
    node = LiveNode(
        number,
        NodeId(row.node_id),
        row.mode,
        row.uid,
        row.gid,
        row.rdev,
        row.atime_ns,
        row.mtime_ns,
        row.ctime_ns,
        [(NodeNumber(parent), name) for parent, name in row.links],
        dict(row.xattrs),
        row.target,
        is_published=row.is_published,
    )
    if stat.S_ISDIR(row.mode):
        node.names = {}
        node.subfolders = row.base_bytes
        node.folder = FolderBase(*row.folder_base) if row.folder_base is not None else None
    elif stat.S_ISREG(row.mode):
        if not 0 <= row.base_bytes <= row.size <= SIZE_MAX or (extents and extents[-1].end > row.size):
            raise damaged(number, "its size is not that of its bytes")
        node.extents = ExtentMap(base_bytes=row.base_bytes, size=row.size, extents=tuple(extents))
        node.base, node.hole_bytes = row.file_base, row.hole_bytes
    return node


def cut_of(node: LiveNode, names: dict[bytes, int]) -> CutNode:
    """A node as it is now, for a version; of a folder with these names."""
    file = None
    if stat.S_ISREG(node.mode):
        extents = node.extents
        file = (
            FileCut(node.base_size, node.base, node.base_size, ())
            if extents is None
            else FileCut(extents.size, node.base, extents.base_bytes, extents.extents())
        )
    return CutNode(
        node.number,
        node.node_id,
        node.mode,
        node.uid,
        node.gid,
        node.rdev,
        node.atime_ns,
        node.mtime_ns,
        node.ctime_ns,
        tuple(node.links),
        tuple(sorted(node.xattrs.items())),
        node.target,
        file,
        node.folder,
        names,
    )


def drop_set_id(node: LiveNode) -> None:
    """As the kernel does for a user without rights: a set-group-id bit without permission to execute means something else."""
    if node.mode & stat.S_IXGRP:
        node.mode &= ~_SET_ID
    else:
        node.mode &= ~stat.S_ISUID


def check_name(name: bytes) -> None:
    """Raises ENAMETOOLONG or EINVAL for what is no name."""
    if len(name) > NAME_BYTES_MAX:
        fail(errno.ENAMETOOLONG)
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        fail(errno.EINVAL)


def check_xattr_name(name: bytes) -> None:
    """Raises ERANGE, EOPNOTSUPP or EINVAL for what is no name of an extended attribute: those have a namespace (xattr(7))."""
    if not 0 < len(name) <= NAME_BYTES_MAX or b"\0" in name:
        fail(errno.ERANGE)
    if name in (ACCESS, DEFAULT):
        return
    if not name.startswith(_XATTR_NAMESPACES):
        fail(errno.EOPNOTSUPP)
    if name in _XATTR_NAMESPACES:
        fail(errno.EINVAL)


def fail(number: int) -> NoReturn:
    """Raise the error that a program shall see."""
    raise OSError(number, os.strerror(number))

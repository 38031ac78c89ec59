# SPDX-License-Identifier: MIT
"""What a live folder means: a writable tree of nodes, without FUSE (docs/adr/0007).

Every operation is a plain call that changes the model at once, or raises `OSError` with the number a program shall see and
changes nothing. What it changed is noted; `take_change` gives all that was noted between two operations to be committed in one
transaction, so a crash leaves the folder as it was after some operation.

Rules of the nodes:
1. A node has a number for life, from a counter; it is its inode number. It also has a random node id. A file that takes another's
   place by rename takes its node id as well: saving by way of a temporary file is a change of the same thing.
2. A file lives as long as it has a name or is open; what has neither is gone, at the latest when the folder is loaded again.
3. A folder has one name. Nothing is moved into itself.

Does not check permissions: the kernel does (`default_permissions`). Does not wait: who wants durability commits what it takes.

Threads: everything here belongs to one thread.
"""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, NewType, NoReturn

import msgspec

from yester.core.content import EMPTY, Content
from yester.core.extents import Extent, ExtentMap
from yester.core.records import NAME_BYTES_MAX, SIZE_MAX, SYMLINK_BYTES_MAX
from yester.errors import CorruptionError
from yester.store.live import LiveChange, LiveHead, LiveRows

NodeNumber = NewType("NodeNumber", int)
NodeId = NewType("NodeId", bytes)
ROOT: Final = NodeNumber(1)
NODE_ID_BYTES = 16

_ROW_VERSION = 1
_SET_ID = stat.S_ISUID | stat.S_ISGID
_LINKS_MAX = 65_000
"""As ext4: programs expect some limit, and a row holds all names of its file."""


class Replacing(Enum):
    """What a rename does where the new name is taken."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    EXCHANGE = "exchange"


class NodeRow(msgspec.Struct, frozen=True, array_like=True):
    """A changed node as it is stored (docs/format.md §10)."""

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
    base_level: int = 0
    base_spans: bytes = b""
    """Of a regular file: how much of its base counts, and the base (see `core.extents`)."""


@dataclass(slots=True)
class LiveNode:
    """A file, folder or special file. Attributes as `stat` shows them."""

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
    """Of a regular file."""
    base: Content = EMPTY
    children: dict[bytes, NodeNumber] | None = None
    """Of a folder, in no order that means anything."""
    subfolders: int = 0
    opens: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it is one."""
        return self.children is not None

    @property
    def size(self) -> int:
        """Bytes of a file or of a symlink's target."""
        return self.extents.size if self.extents is not None else len(self.target)

    @property
    def nlink(self) -> int:
        """Names it has; for a folder two and one for each folder in it, as programs expect, and none once it is removed."""
        if self.children is None:
            return len(self.links)
        return 2 + self.subfolders if self.links or self.number == ROOT else 0


class NewNode(NamedTuple):
    """What a node shall be made as. `mode` holds its type; the creator's umask has been applied."""

    mode: int
    uid: int
    gid: int
    rdev: int = 0
    target: bytes = b""


class LiveTree:
    """The tree, and what of it is not committed yet.

    `read_committed` gives the bytes of an extent that is in the store, `read_base` bytes of a base from an offset on; `now_ns`
    and `new_id` are the clock and random node ids.
    """

    def __init__(
        self,
        rows: LiveRows,
        *,
        read_committed: Callable[[Extent], bytes],
        read_base: Callable[[Content, int, int], bytes],
        now_ns: Callable[[], int],
        new_id: Callable[[], NodeId],
    ) -> None:
        """Raises CorruptionError if the rows are those of no tree."""
        self._head = rows.head
        self._read_committed = read_committed
        self._read_base = read_base
        self._now_ns = now_ns
        self._new_id = new_id
        self._next_node = rows.head.next_node
        self._nodes: dict[int, LiveNode] = {}
        self._dirty: set[int] = set()
        self._gone: set[int] = set()
        self._names: dict[tuple[int, bytes], int | None] = {}
        self._batch = rows.head.next_batch
        self._buffers: dict[int, bytearray] = {}
        """Bytes of batches that are not committed yet, the current one included."""
        self._stored_extents: dict[int, dict[int, Extent]] = {}
        """What was last taken of each file's extents, by node and offset."""
        self._batch_uses: dict[int, int] = dict.fromkeys(rows.batch_bytes, 0)
        """How many bytes of each committed batch files consist of. A batch goes with the last of them."""
        self._load(rows)

    # --- looking ---

    def node(self, number: int) -> LiveNode:
        """The node of a number. Raises ESTALE if it is gone."""
        return self._nodes.get(number) or _fail(errno.ESTALE)

    def lookup(self, parent: int, name: bytes) -> LiveNode:
        """The node of a name in a folder. Raises ENOENT, ENOTDIR, ENAMETOOLONG."""
        _check_name(name)
        number = self._children(parent).get(name)
        return self._nodes[number] if number is not None else _fail(errno.ENOENT)

    def list(self, number: int) -> list[tuple[bytes, LiveNode]]:
        """What a folder holds, sorted by name."""
        return [(name, self._nodes[child]) for name, child in sorted(self._children(number).items())]

    def parent(self, number: int) -> LiveNode:
        """The folder that a folder is in; the root for the root and for what was removed."""
        node = self.node(number)
        return self._nodes[node.links[0][0]] if node.links else self._nodes[ROOT]

    def read(self, number: int, offset: int, count: int) -> bytes:
        """Bytes of a file; fewer only at its end."""
        node = self.node(number)
        extents = _extents_of(node)
        pieces = []
        for piece in extents.pieces(offset, offset + count):
            if piece.extent is not None:
                pieces.append(self._read_extent(piece.extent))
            elif piece.is_base:
                pieces.append(self._read_base(node.base, piece.offset, piece.length))
            else:
                pieces.append(bytes(piece.length))
        return b"".join(pieces)

    # --- changing names ---

    def create(self, parent: int, name: bytes, new: NewNode) -> LiveNode:
        """Make a file, folder or special file. Raises EEXIST, ENOENT where the folder was removed, and as `lookup`."""
        _check_name(name)
        folder = self._living_folder(parent)
        if name in self._children(parent):
            _fail(errno.EEXIST)
        if stat.S_ISLNK(new.mode) != bool(new.target) or len(new.target) > SYMLINK_BYTES_MAX:
            _fail(errno.ENAMETOOLONG if new.target else errno.EINVAL)
        mode, gid = new.mode, new.gid
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        now = self._now_ns()
        number = NodeNumber(self._next_node)
        self._next_node += 1
        node = LiveNode(number, self._new_id(), mode, new.uid, gid, new.rdev, now, now, now, [], target=new.target)
        if stat.S_ISREG(mode):
            node.extents = ExtentMap(base_bytes=0, size=0)
        elif stat.S_ISDIR(mode):
            node.children = {}
        self._nodes[number] = node
        self._add_name(folder, name, node)
        self._touch(folder, now)
        return node

    def link(self, number: int, parent: int, name: bytes) -> LiveNode:
        """Give a file one more name. Raises EPERM for a folder, ENOENT for what has no name any more, EMLINK, EEXIST."""
        _check_name(name)
        node, folder = self.node(number), self._living_folder(parent)
        if name in self._children(parent):
            _fail(errno.EEXIST)
        if node.is_folder:
            _fail(errno.EPERM)
        if not node.links:
            _fail(errno.ENOENT)
        if len(node.links) >= _LINKS_MAX:
            _fail(errno.EMLINK)
        now = self._now_ns()
        self._add_name(folder, name, node)
        self._changed(node, now)
        self._touch(folder, now)
        return node

    def unlink(self, parent: int, name: bytes) -> None:
        """Take a name from anything but a folder. Raises EISDIR for one, and as `lookup`."""
        node = self.lookup(parent, name)
        if node.is_folder:
            _fail(errno.EISDIR)
        self._drop(parent, name, node)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty folder. Raises ENOTDIR, ENOTEMPTY, and as `lookup`."""
        node = self.lookup(parent, name)
        if node.children is None:
            _fail(errno.ENOTDIR)
        if node.children:
            _fail(errno.ENOTEMPTY)
        self._drop(parent, name, node)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, replacing: Replacing = Replacing.ALLOWED) -> None:
        """Move a name, in one step for all who look; two names of one file stay as they are, as the system call has it.

        Raises:
            OSError: EEXIST, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL for a folder into itself, and as `lookup`.
        """
        node = self.lookup(parent, name)
        _check_name(new_name)
        target_folder = self._living_folder(new_parent)
        number = self._children(new_parent).get(new_name)
        there = self._nodes[number] if number is not None else None
        if replacing is Replacing.FORBIDDEN and there is not None:
            _fail(errno.EEXIST)
        if replacing is Replacing.EXCHANGE and there is None:
            _fail(errno.ENOENT)
        if node.is_folder and self._is_within(new_parent, node):
            _fail(errno.EINVAL)
        if there is not None and there.is_folder and self._is_within(parent, there):
            _fail(errno.EINVAL if replacing is Replacing.EXCHANGE else errno.ENOTEMPTY)
        if there is node:
            return
        folder = self._nodes[parent]
        now = self._now_ns()
        if there is not None and replacing is Replacing.EXCHANGE:
            self._remove_name(folder, name, node)
            self._remove_name(target_folder, new_name, there)
            self._add_name(folder, name, there)
            self._add_name(target_folder, new_name, node)
            self._changed(there, now)
        else:
            if there is not None:
                self._check_replaceable(node, there)
                if stat.S_ISREG(node.mode) and stat.S_ISREG(there.mode) and len(node.links) == len(there.links) == 1:
                    node.node_id, there.node_id = there.node_id, node.node_id
                self._drop(new_parent, new_name, there)
            self._remove_name(folder, name, node)
            self._add_name(target_folder, new_name, node)
        self._changed(node, now)
        self._touch(folder, now)
        self._touch(target_folder, now)

    # --- changing what a node is ---

    def write(self, number: int, offset: int, data: bytes | memoryview) -> int:
        """Write into a file; returns how much, which is all. Takes set-id bits away. Raises EFBIG."""
        node = self.node(number)
        extents = _extents_of(node)
        if offset + len(data) > SIZE_MAX:
            _fail(errno.EFBIG)
        if not data:
            return 0
        buffer = self._buffers.setdefault(self._batch, bytearray())
        extents.write(offset, len(data), self._batch, len(buffer))
        buffer += data
        self._content_changed(node)
        return len(data)

    def truncate(self, number: int, size: int) -> None:
        """Give a file another size; what is new of it is zeros. Takes set-id bits away. Raises EFBIG, EINVAL, EISDIR."""
        node = self.node(number)
        extents = _extents_of(node)
        if size < 0:
            _fail(errno.EINVAL)
        if size > SIZE_MAX:
            _fail(errno.EFBIG)
        extents.truncate(size)
        self._content_changed(node)

    def set_mode(self, number: int, mode: int) -> None:
        """Set the permission bits."""
        node = self.node(number)
        node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
        self._changed(node, self._now_ns())

    def set_owner(self, number: int, *, uid: int | None = None, gid: int | None = None) -> None:
        """Set owner, group or both. Takes set-id bits away from what is no folder."""
        node = self.node(number)
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        if not node.is_folder:
            _drop_set_id(node)
        self._changed(node, self._now_ns())

    def set_times(self, number: int, *, atime_ns: int | None = None, mtime_ns: int | None = None) -> None:
        """Set the time of access, of modification, or both."""
        node = self.node(number)
        node.atime_ns = node.atime_ns if atime_ns is None else atime_ns
        node.mtime_ns = node.mtime_ns if mtime_ns is None else mtime_ns
        self._changed(node, self._now_ns())

    def set_xattr(self, number: int, name: bytes, value: bytes) -> None:
        """Set an extended attribute. Raises ERANGE for a name that is none."""
        if not 0 < len(name) <= NAME_BYTES_MAX or b"\0" in name:
            _fail(errno.ERANGE)
        node = self.node(number)
        node.xattrs[name] = value
        self._changed(node, self._now_ns())

    def remove_xattr(self, number: int, name: bytes) -> None:
        """Remove an extended attribute. Raises ENODATA if there is none."""
        node = self.node(number)
        if name not in node.xattrs:
            _fail(errno.ENODATA)
        del node.xattrs[name]
        self._changed(node, self._now_ns())

    def open(self, number: int) -> LiveNode:
        """Keep a node until it is released as often as it was opened."""
        node = self.node(number)
        node.opens += 1
        return node

    def release(self, number: int) -> None:
        """Undo one `open`."""
        node = self.node(number)
        node.opens -= 1
        self._forget_if_gone(node)

    # --- committing ---

    @property
    def pending_bytes(self) -> int:
        """Written bytes in memory that are not committed yet."""
        return sum(map(len, self._buffers.values()))

    @property
    def has_changes(self) -> bool:
        """Whether there is anything for `take_change` to take."""
        return bool(self._dirty or self._gone or self._names) or self._batch in self._buffers

    def take_change(self) -> LiveChange | None:
        """All that was changed since this was last asked, to be committed after what was taken before; None if nothing was.

        What is taken counts as committed from now on, but for bytes, which stay in memory until `committed` is told.
        """
        if not self.has_changes:
            return None
        extents = self._take_extents()
        dropped = tuple(batch for batch, uses in self._batch_uses.items() if not uses and batch not in self._buffers)
        for batch in dropped:
            del self._batch_uses[batch]
        nodes: dict[int, bytes | None] = {number: msgspec.msgpack.encode(_row_of(self._nodes[number])) for number in self._dirty}
        nodes |= dict.fromkeys(self._gone)
        buffer = self._buffers.get(self._batch)
        written = None if buffer is None else (self._batch, buffer)
        if written is not None:
            self._batch += 1
        self._head = msgspec.structs.replace(self._head, next_node=self._next_node, next_batch=self._batch)
        names, self._names = self._names, {}
        self._dirty, self._gone = set(), set()
        return LiveChange(self._head, nodes, names, extents, written, dropped)

    def committed(self, change: LiveChange) -> None:
        """A change that was taken is in the store."""
        if change.batch is not None:
            del self._buffers[change.batch[0]]

    def _take_extents(self) -> Mapping[tuple[int, int], Extent | None]:
        taken: dict[tuple[int, int], Extent | None] = {}
        for number in self._gone:
            taken |= {(number, offset): None for offset in self._stored_extents.get(number, ())}
        for number in self._dirty:
            extents = self._nodes[number].extents
            if extents is not None:
                taken |= {(number, offset): extent for offset, extent in extents.take_changes().items()}
        for (number, offset), extent in taken.items():
            stored = self._stored_extents.setdefault(number, {})
            before = stored.pop(offset, None)
            if before is not None:
                self._batch_uses[before.batch] -= before.length
            if extent is not None:
                stored[offset] = extent
                self._batch_uses[extent.batch] = self._batch_uses.get(extent.batch, 0) + extent.length
        for number in self._gone:
            self._stored_extents.pop(number, None)
        if self._batch in self._buffers:
            self._batch_uses.setdefault(self._batch, 0)
        return taken

    # --- helpers ---

    def _load(self, rows: LiveRows) -> None:
        for number, stored in rows.nodes.items():
            row = _decode_row(number, stored)
            if row.links or number == ROOT:
                self._nodes[number] = _node_of(NodeNumber(number), row, rows.extents.get(number, []))
            else:
                self._gone.add(number)
        for number, extents in rows.extents.items():
            for extent in extents:
                self._stored_extents.setdefault(number, {})[extent.offset] = extent
                self._batch_uses[extent.batch] += extent.length
        if ROOT not in self._nodes:
            _damaged(ROOT, "it is not there")
        for (parent, name), number in rows.names.items():
            folder, node = self._nodes.get(parent), self._nodes.get(number)
            if folder is None or folder.children is None or node is None or (parent, name) not in node.links:
                _damaged(number, f"it has no name {name!r} in {parent}")
            folder.children[name] = node.number
            folder.subfolders += node.is_folder
        for node in self._nodes.values():
            for parent, name in node.links:
                if rows.names.get((parent, name)) != node.number:
                    _damaged(node.number, f"{parent} does not have its name {name!r}")

    def _children(self, number: int) -> dict[bytes, NodeNumber]:
        children = self.node(number).children
        return children if children is not None else _fail(errno.ENOTDIR)

    def _living_folder(self, number: int) -> LiveNode:
        """A folder in which something can be made: not one that was removed and is only still open."""
        self._children(number)
        node = self._nodes[number]
        if not node.links and number != ROOT:
            _fail(errno.ENOENT)
        return node

    def _add_name(self, folder: LiveNode, name: bytes, node: LiveNode) -> None:
        assert folder.children is not None
        folder.children[name] = node.number
        folder.subfolders += node.is_folder
        node.links.append((folder.number, name))
        self._names[folder.number, name] = node.number
        self._dirty.add(node.number)

    def _remove_name(self, folder: LiveNode, name: bytes, node: LiveNode) -> None:
        assert folder.children is not None
        del folder.children[name]
        folder.subfolders -= node.is_folder
        node.links.remove((folder.number, name))
        self._names[folder.number, name] = None
        self._dirty.add(node.number)

    def _drop(self, parent: int, name: bytes, node: LiveNode) -> None:
        """Take a name away, and the node with its last."""
        folder = self._nodes[parent]
        now = self._now_ns()
        self._remove_name(folder, name, node)
        self._touch(folder, now)
        self._changed(node, now)
        self._forget_if_gone(node)

    def _forget_if_gone(self, node: LiveNode) -> None:
        if not node.links and not node.opens and node.number != ROOT:
            del self._nodes[node.number]
            self._dirty.discard(node.number)
            self._gone.add(node.number)

    def _check_replaceable(self, node: LiveNode, there: LiveNode) -> None:
        if there.is_folder and not node.is_folder:
            _fail(errno.EISDIR)
        if node.is_folder and not there.is_folder:
            _fail(errno.ENOTDIR)
        if there.children:
            _fail(errno.ENOTEMPTY)

    def _is_within(self, number: int, folder: LiveNode) -> bool:
        """Whether a folder is `folder` or lies below it."""
        while number != folder.number:
            if number == ROOT:
                return False
            number = self._nodes[number].links[0][0]
        return True

    def _touch(self, folder: LiveNode, now_ns: int) -> None:
        """A folder's list of names has changed."""
        folder.mtime_ns = now_ns
        self._changed(folder, now_ns)

    def _changed(self, node: LiveNode, now_ns: int) -> None:
        node.ctime_ns = now_ns
        self._dirty.add(node.number)

    def _content_changed(self, node: LiveNode) -> None:
        _drop_set_id(node)
        node.mtime_ns = now_ns = self._now_ns()
        self._changed(node, now_ns)

    def _read_extent(self, extent: Extent) -> bytes:
        buffer = self._buffers.get(extent.batch)
        if buffer is None:
            return self._read_committed(extent)
        return bytes(buffer[extent.position : extent.position + extent.length])


def empty_root(head: LiveHead, *, node_id: NodeId, mode: int, uid: int, gid: int, now_ns: int) -> LiveChange:
    """The change that gives a new live folder its root."""
    row = NodeRow(_ROW_VERSION, node_id, stat.S_IFDIR | mode, uid, gid, 0, 0, now_ns, now_ns, now_ns, ())
    return LiveChange(head, nodes={ROOT: msgspec.msgpack.encode(row)})


def random_node_id() -> NodeId:
    """A node id that nothing else has."""
    return NodeId(os.urandom(NODE_ID_BYTES))


def _row_of(node: LiveNode) -> NodeRow:
    return NodeRow(
        _ROW_VERSION,
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
        node.extents.base_bytes if node.extents is not None else 0,
        node.base.level,
        node.base.spans,
    )


def _node_of(number: NodeNumber, row: NodeRow, extents: list[Extent]) -> LiveNode:
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
    )
    if stat.S_ISDIR(row.mode):
        node.children = {}
    elif stat.S_ISREG(row.mode):
        if not 0 <= row.base_bytes <= row.size <= SIZE_MAX or (extents and extents[-1].end > row.size):
            _damaged(number, "its size is not that of its bytes")
        node.extents = ExtentMap(base_bytes=row.base_bytes, size=row.size, extents=tuple(extents))
        node.base = Content(row.base_level, row.base_spans)
    return node


def _decode_row(number: int, stored: bytes) -> NodeRow:
    try:
        row = msgspec.msgpack.decode(stored, type=NodeRow)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _damaged(number, str(error))
    if row.version != _ROW_VERSION:
        _damaged(number, f"it has version {row.version}, which this release does not know")
    return row


def _damaged(number: int, problem: str) -> NoReturn:
    message = f"node {number} of a live folder is damaged: {problem}"
    raise CorruptionError(message, hint="run `yester check`; keep a copy of the store before any repair")


def _extents_of(node: LiveNode) -> ExtentMap:
    if node.extents is None:
        _fail(errno.EISDIR if node.is_folder else errno.EINVAL)
    return node.extents


def _drop_set_id(node: LiveNode) -> None:
    """As the kernel does for a user without rights: a set-group-id bit without permission to execute means something else."""
    if node.mode & stat.S_IXGRP:
        node.mode &= ~_SET_ID
    else:
        node.mode &= ~stat.S_ISUID


def _check_name(name: bytes) -> None:
    if len(name) > NAME_BYTES_MAX:
        _fail(errno.ENAMETOOLONG)
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        _fail(errno.EINVAL)


def _fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))

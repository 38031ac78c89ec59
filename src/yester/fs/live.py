# SPDX-License-Identifier: MIT
"""What a live folder means: a writable tree of nodes, without FUSE (docs/adr/0007).

Every operation is a plain call that changes the model at once, or raises `OSError` with the number a program shall see and
changes nothing. What it changed is noted; `take_change` gives all that was noted between two operations to be committed in one
transaction, so a crash leaves the folder as it was after some operation.

Rules of the nodes:
1. A node has a number for life, from a counter; it is its inode number. It also has a random node id. A file that takes another's
   place by rename takes its node id as well: saving by way of a temporary file is a change of the same thing.
2. A file lives as long as it has a name or is used; what has neither is gone, at the latest when the folder is loaded again.
3. A folder has one name. Nothing is moved into itself.

To whoever will carry changes to other devices, an operation is one of five, each about one node id: *create* (`create`, `link`),
*overwrite* (what changes bytes or attributes), *remove* (`unlink`, `rmdir`), *move* (`rename`), and *replace* (`rename` over a file,
which goes on as the same node id).

A version: `begin_version` gives the changed nodes as they are now, which are then stored elsewhere while work in the folder goes on;
`finish_version` makes what was stored the base of these nodes, and takes the rows away of those that did not change since.

Does not check permissions: the kernel does (`default_permissions`). Does not wait: who wants durability commits what it takes.

Threads: everything here belongs to one thread.
"""

import errno
import stat
from collections.abc import Callable, Iterator
from functools import partial

from yester.core.acl import ACCESS, DEFAULT, encode_acl, inherited, is_plain, mode_of, parse_acl, with_mode
from yester.core.content import Content
from yester.core.extents import Extent, ExtentMap
from yester.core.node_row import is_trash
from yester.core.records import SIZE_MAX, SYMLINK_BYTES_MAX, TIME_NS_MAX, Snapshot
from yester.engine.live_base import BaseReader
from yester.engine.live_content import read_pieces
from yester.engine.live_version import Cut, StoredVersion
from yester.fs.live_inodes import Inodes
from yester.fs.live_log import ChangeLog
from yester.fs.live_nodes import (
    ROOT,
    LiveNode,
    NewNode,
    NodeId,
    NodeNumber,
    Replacing,
    check_name,
    check_xattr_name,
    cut_of,
    drop_set_id,
    fail,
)
from yester.store.live import REMOVED, LiveChange, LiveRows

_LINKS_MAX = 65_000
"""As ext4: programs expect some limit, and a row holds all names of its file."""

_Links = list[tuple[NodeNumber, bytes]]


class LiveTree:
    """The tree, and what of it is not committed yet.

    `base` reads what earlier versions hold, `read_committed` the bytes of an extent that is in the store; `now_ns` and `new_id` are
    the clock and random node ids.
    """

    def __init__(
        self,
        rows: LiveRows,
        base: BaseReader,
        *,
        read_committed: Callable[[Extent], bytes],
        now_ns: Callable[[], int],
        new_id: Callable[[], NodeId],
    ) -> None:
        """Raises CorruptionError if the rows are those of no tree."""
        self._log = ChangeLog(rows, read_committed)
        self._inodes = Inodes(rows, base, self._log)
        self._now_ns = now_ns
        self._new_id = new_id
        self._next_node = rows.head.next_node
        self._unpublished = {number for number in self._inodes.rows if not self._inodes.loaded[number].is_published}
        """Nodes that changed since the last version was begun."""
        self._begun: set[int] = set()
        """Nodes of the version that is being made that did not change since."""
        self.change_count = 0
        """Grows with each change."""

    # --- looking ---

    def node(self, number: int) -> LiveNode:
        """The node of a number. Raises ESTALE if it is gone, or was neither remembered nor looked up lately."""
        return self._inodes.get(number)

    def lookup(self, parent: int, name: bytes) -> LiveNode:
        """The node of a name in a folder. Raises ENOENT, ENOTDIR, ENAMETOOLONG."""
        return self.find(parent, name) or fail(errno.ENOENT)

    def find(self, parent: int, name: bytes) -> LiveNode | None:
        """As `lookup`; None if there is none."""
        check_name(name)
        return self._inodes.child(self.node(parent), name)

    def names(self, number: int) -> list[bytes]:
        """The names in a folder, sorted. 10 ms for 100,000."""
        return self._inodes.names(self.node(number))

    def list(self, number: int) -> Iterator[tuple[bytes, LiveNode]]:
        """What a folder holds, sorted by name."""
        folder = self.node(number)
        for name in self._inodes.names(folder):
            node = self._inodes.child(folder, name)
            assert node is not None
            yield name, node

    def parent(self, number: int) -> LiveNode:
        """The folder that a folder is in; the root for the root and for what was removed."""
        node = self.node(number)
        return self.node(node.links[0][0] if node.links else ROOT)

    def path(self, number: int) -> bytes:
        """The path of a node below the root, one of them if it has several; nothing for the root. Raises ENOENT for what was removed."""
        names: list[bytes] = []
        node = self.node(number)
        if not node.links and number != ROOT:
            fail(errno.ENOENT)
        while node.links:
            parent, name = node.links[0]
            names.append(name)
            node = self.node(parent)
        return b"/".join(reversed(names))

    def read(self, number: int, offset: int, count: int) -> bytes:
        """Bytes of a file; fewer only at its end."""
        node = self._file(number)
        if node.extents is None:
            end = min(node.base_size, offset + count)
            return self._inodes.read_base(node.base, offset, end - offset) if end > offset else b""
        pieces = node.extents.pieces(offset, offset + count)
        return read_pieces(pieces, partial(self._inodes.read_base, node.base), self._log.read)

    def keep(self, number: int) -> LiveNode:
        """Keep a node, whatever becomes of its names, until it is let go as often as it was kept: it is known to somebody, or open."""
        node = self.node(number)
        self._inodes.use(node)
        return node

    def let_go(self, number: int, count: int = 1) -> None:
        """Undo `keep` so many times. A node that has no name is gone then."""
        node = self.node(number)
        self._inodes.unuse(node, count)
        self._forget_if_gone(node)

    # --- changing names ---

    def create(self, parent: int, name: bytes, new: NewNode) -> LiveNode:
        """Make a file, folder or special file. Raises EEXIST, ENOENT where the folder was removed, and as `lookup`."""
        check_name(name)
        folder = self._living_folder(parent)
        if self._inodes.child(folder, name) is not None:
            fail(errno.EEXIST)
        if stat.S_ISLNK(new.mode) != bool(new.target) or len(new.target) > SYMLINK_BYTES_MAX:
            fail(errno.ENAMETOOLONG if new.target else errno.EINVAL)
        mode, gid, xattrs = _permissions(folder, new), new.gid, _inherited_xattrs(folder, new)
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        now = self._now_ns()
        number = NodeNumber(self._next_node)
        self._next_node += 1
        node = LiveNode(number, self._new_id(), mode, new.uid, gid, new.rdev, now, now, now, [], xattrs, new.target)
        if stat.S_ISREG(mode):
            node.extents = ExtentMap(base_bytes=0, size=0)
        elif stat.S_ISDIR(mode):
            node.names = {}
        self._inodes.insert(node)
        self._add_name(folder, name, node)
        self._touch(folder, now)
        return node

    def link(self, number: int, parent: int, name: bytes) -> LiveNode:
        """Give a file one more name. Raises EPERM for a folder, ENOENT for what has no name any more, EMLINK, EEXIST."""
        check_name(name)
        node, folder = self.node(number), self._living_folder(parent)
        if self._inodes.child(folder, name) is not None:
            fail(errno.EEXIST)
        if node.is_folder:
            fail(errno.EPERM)
        if not node.links:
            fail(errno.ENOENT)
        if len(node.links) >= _LINKS_MAX:
            fail(errno.EMLINK)
        now = self._now_ns()
        self._add_name(folder, name, node)
        self._changed(node, now)
        self._touch(folder, now)
        return node

    def unlink(self, parent: int, name: bytes) -> None:
        """Take a name from anything but a folder. Raises EISDIR for one, and as `lookup`."""
        node = self.lookup(parent, name)
        if node.is_folder:
            fail(errno.EISDIR)
        self._drop(parent, name, node)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty folder. Raises ENOTDIR, ENOTEMPTY, and as `lookup`."""
        node = self.lookup(parent, name)
        if not node.is_folder:
            fail(errno.ENOTDIR)
        if not self._inodes.is_empty(node):
            fail(errno.ENOTEMPTY)
        self._drop(parent, name, node)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, replacing: Replacing = Replacing.ALLOWED) -> None:
        """Move a name, in one step for all who look; two names of one file stay as they are, as the system call has it.

        Raises:
            OSError: EEXIST, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL for a folder into itself, and as `lookup`.
        """
        node = self.lookup(parent, name)
        check_name(new_name)
        target_folder = self._living_folder(new_parent)
        there = self._inodes.child(target_folder, new_name)
        if replacing is Replacing.FORBIDDEN and there is not None:
            fail(errno.EEXIST)
        if replacing is Replacing.EXCHANGE and there is None:
            fail(errno.ENOENT)
        if node.is_folder and self._is_within(new_parent, node):
            fail(errno.EINVAL)
        if there is not None and there.is_folder and self._is_within(parent, there):
            fail(errno.EINVAL if replacing is Replacing.EXCHANGE else errno.ENOTEMPTY)
        if there is node:
            return
        folder = self.node(parent)
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
        node = self._file(number)
        if offset + len(data) > SIZE_MAX:
            fail(errno.EFBIG)
        if not data:
            return 0
        extents = self._changing(node)
        extents.write(offset, len(data), *self._log.write(data))
        self._content_changed(node)
        return len(data)

    def truncate(self, number: int, size: int, *, keeps_set_id: bool = False) -> None:
        """Give a file another size; what is new of it is zeros. Takes set-id bits away, but for root. Raises EFBIG, EINVAL, EISDIR."""
        node = self._file(number)
        if size < 0:
            fail(errno.EINVAL)
        if size > SIZE_MAX:
            fail(errno.EFBIG)
        self._changing(node).truncate(size)
        self._content_changed(node, keeps_set_id=keeps_set_id)

    def set_content(self, number: int, content: Content, size: int, hole_bytes: int) -> None:
        """Have a file consist of what the store holds, without reading or copying any of it."""
        node = self._file(number)
        self._changing(node).restart(size)
        node.base, node.hole_bytes = content, hole_bytes
        self._content_changed(node)

    def set_mode(self, number: int, mode: int) -> None:
        """Set the permission bits."""
        node = self.node(number)
        if ACCESS in node.xattrs:
            node.xattrs[ACCESS] = encode_acl(with_mode(parse_acl(node.xattrs[ACCESS]), mode))  # raises where that is damaged
        node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
        self._changed(node, self._now_ns())

    def set_owner(self, number: int, *, uid: int | None = None, gid: int | None = None) -> None:
        """Set owner, group or both. Takes set-id bits away from what is no folder."""
        node = self.node(number)
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        if not node.is_folder:
            drop_set_id(node)
        self._changed(node, self._now_ns())

    def set_times(self, number: int, *, atime_ns: int | None = None, mtime_ns: int | None = None) -> None:
        """Set the time of access, of modification, or both: the nearest that can be stored."""
        node = self.node(number)
        node.atime_ns = node.atime_ns if atime_ns is None else _storable_time(atime_ns)
        node.mtime_ns = node.mtime_ns if mtime_ns is None else _storable_time(mtime_ns)
        self._changed(node, self._now_ns())

    def set_xattr(self, number: int, name: bytes, value: bytes) -> None:
        """Set an extended attribute. An access list changes the mode with it. Raises as `check_xattr_name`, and EINVAL and EACCES."""
        check_xattr_name(name)
        node = self.node(number)
        if name in (ACCESS, DEFAULT):
            self._set_acl(node, name, value)
        else:
            node.xattrs[name] = value
        self._changed(node, self._now_ns())

    def get_xattr(self, number: int, name: bytes) -> bytes:
        """An extended attribute. Raises ENODATA if there is none, and as `set_xattr`."""
        check_xattr_name(name)
        value = self.node(number).xattrs.get(name)
        return value if value is not None else fail(errno.ENODATA)

    def touch(self, number: int) -> None:
        """Something was changed of a node to what it was: only the time of its change moves."""
        self._changed(self.node(number), self._now_ns())

    def _set_acl(self, node: LiveNode, name: bytes, value: bytes) -> None:
        try:
            acl = parse_acl(value)
        except ValueError:
            fail(errno.EINVAL)
        if name == DEFAULT and not node.is_folder:
            fail(errno.EACCES)
        if name == ACCESS and acl:
            node.mode = stat.S_IFMT(node.mode) | node.mode & ~0o777 & 0o7777 | mode_of(acl)
        if not acl or (name == ACCESS and is_plain(acl)):
            node.xattrs.pop(name, None)
        else:
            node.xattrs[name] = value

    def remove_xattr(self, number: int, name: bytes) -> None:
        """Remove an extended attribute. Raises ENODATA if there is none."""
        check_xattr_name(name)
        node = self.node(number)
        if name not in node.xattrs:
            fail(errno.ENODATA)
        del node.xattrs[name]
        self._changed(node, self._now_ns())

    # --- committing ---

    @property
    def pending_bytes(self) -> int:
        """Written bytes in memory that are not committed yet."""
        return self._log.pending_bytes

    @property
    def untaken_bytes(self) -> int:
        """Those of them that `take_change` would take."""
        return self._log.untaken_bytes

    @property
    def dirty_bytes(self) -> int:
        """Written bytes that no version holds yet, those in the trash included."""
        return self._log.used_bytes

    @property
    def extent_count(self) -> int:
        """How many extents all files have, but for what changed since the last commit."""
        return self._log.extent_count

    @property
    def has_changes(self) -> bool:
        """Whether there is anything for `take_change` to take."""
        return self._log.has_changes

    def take_change(self) -> LiveChange | None:
        """All that was changed since this was last asked; see `ChangeLog.take`."""
        return self._log.take(self._inodes.loaded, self._next_node)

    def committed(self, change: LiveChange) -> None:
        """A change that was taken is in the store."""
        self._log.committed(change)

    # --- versions ---

    @property
    def unpublished_nodes(self) -> int:
        """How many nodes changed since the last version was begun, those in the trash, and those without a name, included."""
        return len(self._unpublished)

    def waiting(self) -> tuple[int, int]:
        """How many nodes, and written bytes, wait for the next version. O(changed nodes)."""
        nodes = [self._inodes.loaded[number] for number in self._wanted() & self._unpublished]
        return len(nodes), sum(node.extents.written_bytes for node in nodes if node.extents is not None)

    def begin_version(self) -> Cut | None:
        """The folder as it is now, as far as it changed since the last version; None if it did not.

        Every version that was begun is finished or abandoned before the next. What is in the trash belongs to none.
        """
        loaded = self._inodes.loaded
        wanted = self._wanted()
        if not wanted:
            return None
        nodes = {}
        for number in wanted:
            node = loaded[number]
            names = dict(node.names) if node.names is not None else {}
            if number == ROOT:
                names = {name: child for name, child in names.items() if not is_trash(number, name)}
            nodes[number] = cut_of(node, names)
            if node.extents is not None:
                node.extents.was_shortened = False
        self._unpublished -= wanted
        self._begun = wanted
        outside_links = self._find_outside_links()
        linked = (loaded[number] for number in self._inodes.rows if len(loaded[number].links) > 1)
        found = ((node.number, outside_links(node)) for node in linked)
        first_links: dict[int, tuple[int, bytes]] = {number: min(links) for number, links in found if links}
        bases = {node.base for node in nodes.values() if node.base is not None}
        folders = {base: folder for base in bases if (folder := self._inodes.known_base(base)) is not None}
        return Cut(nodes, self._next_node, self._log.begin_version(), folders, first_links)

    def abandon_version(self) -> None:
        """A version that was begun could not be stored: all of it is still to be published."""
        for number in self._begun:
            self._inodes.loaded[number].is_published = False
        self._unpublished |= self._begun
        self._begun = set()
        self._log.end_version()

    def finish_version(self, cut: Cut, version: StoredVersion, snapshot: Snapshot | None) -> None:
        """What was cut is stored. With the next change that is taken, the snapshot is published and rows go that are not needed."""
        self._log.end_version()
        for number, was in cut.nodes.items():
            node = self._inodes.loaded.get(number)
            if node is None or not node.has_row:
                continue  # it is gone since
            self._log.change_node(number)
            node.is_published = number in self._begun
            if was.file is not None:
                self._rebase_file(node, was.file.size, cut.last_batch, version)
            elif node.names is not None:
                node.folder = version.folders[number]
                for name, child in was.names.items():
                    if node.names.get(name) == child:
                        del node.names[name]
                        self._log.change_name(number, name, None)
        if snapshot is not None:
            self._log.publish(snapshot)
        self._begun = set()
        self._drop_rows()

    def _rebase_file(self, node: LiveNode, size: int, last_batch: int, version: StoredVersion) -> None:
        assert node.extents is not None
        if not node.extents.was_shortened:
            stored = version.files[node.number]
            node.extents.rebase(size, last_batch=last_batch)
            node.base, node.hole_bytes = stored.content, stored.hole_bytes

    def _wanted(self) -> set[int]:
        """The nodes of the next version: those that changed, and the folders above them."""
        loaded, outside_links = self._inodes.loaded, self._find_outside_links()
        wanted: set[int] = set()
        for number in self._unpublished:
            links = outside_links(loaded[number])
            if links or number == ROOT:
                wanted.add(number)
            for parent, _ in links:
                _add_way(wanted, parent, self._inodes)
        for number in tuple(wanted):
            # A file that was published by another name may be in a folder that comes back from the trash.
            added = (loaded[number].names or {}).items()
            wanted.update(child for name, child in added if child != REMOVED and not is_trash(number, name))
        return wanted

    def _find_outside_links(self) -> Callable[[LiveNode], _Links]:
        """Tells those names of a node that a version has: of what is neither removed nor in the trash. Good until something changes."""
        loaded = self._inodes.loaded
        outside: dict[int, bool] = {ROOT: True}
        """Whether a folder is neither removed nor in the trash."""

        def is_outside(number: int) -> bool:
            way = []
            while number not in outside:
                way.append(number)
                links = loaded[number].links
                if not links or is_trash(*links[0]):
                    outside[number] = False
                    break
                number = links[0][0]
            outside.update(dict.fromkeys(way, outside[number]))
            return outside[number]

        return lambda node: [(parent, name) for parent, name in node.links if is_outside(parent) and not is_trash(parent, name)]

    def _drop_rows(self) -> None:
        """Take the rows of all nodes that are as in the base, but for those that must have one."""
        loaded = self._inodes.loaded
        kept = {int(ROOT)}
        for number in self._inodes.rows:
            node = loaded[number]
            if not node.is_published or len(node.links) != 1:
                kept.add(number)
                for parent, _ in node.links:
                    _add_way(kept, parent, self._inodes)
        for number in self._inodes.rows - kept:
            self._inodes.take_row(loaded[number])

    # --- helpers ---

    def _file(self, number: int) -> LiveNode:
        node = self.node(number)
        if not stat.S_ISREG(node.mode):
            fail(errno.EISDIR if node.is_folder else errno.EINVAL)
        return node

    def _changing(self, file: LiveNode) -> ExtentMap:
        """The extents of a file that is about to be written."""
        self._inodes.give_row(file)
        assert file.extents is not None
        return file.extents

    def _living_folder(self, number: int) -> LiveNode:
        """A folder in which something can be made: not one that was removed and is only still open."""
        node = self.node(number)
        if not node.is_folder:
            fail(errno.ENOTDIR)
        if not node.links and number != ROOT:
            fail(errno.ENOENT)
        return node

    def _add_name(self, folder: LiveNode, name: bytes, node: LiveNode) -> None:
        self._inodes.give_row(folder)
        assert folder.names is not None
        folder.names[name] = node.number
        folder.subfolders += node.is_folder
        node.links.append((folder.number, name))
        self._inodes.use(folder)
        self._log.change_name(folder.number, name, node.number)
        self._note(node)

    def _remove_name(self, folder: LiveNode, name: bytes, node: LiveNode) -> None:
        self._inodes.give_row(node)
        assert folder.names is not None
        # What was added and is removed again leaves nothing behind, unless a version is being made that has it.
        is_left = self._log.is_version_begun or self._inodes.base_of(folder).find(name) is not None
        if is_left:
            folder.names[name] = REMOVED
        else:
            del folder.names[name]
        self._log.change_name(folder.number, name, REMOVED if is_left else None)
        folder.subfolders -= node.is_folder
        node.links.remove((folder.number, name))
        self._inodes.unuse(folder)
        self._note(node)

    def _drop(self, parent: int, name: bytes, node: LiveNode) -> None:
        """Take a name away, and the node with its last."""
        folder = self.node(parent)
        now = self._now_ns()
        self._remove_name(folder, name, node)
        self._touch(folder, now)
        self._changed(node, now)
        self._forget_if_gone(node)

    def _forget_if_gone(self, node: LiveNode) -> None:
        if not node.links and not node.uses and node.number != ROOT:
            self._inodes.remove(node)
            self._unpublished.discard(node.number)
            self._begun.discard(node.number)
            self._log.drop_row(node)

    def _check_replaceable(self, node: LiveNode, there: LiveNode) -> None:
        if there.is_folder and not node.is_folder:
            fail(errno.EISDIR)
        if node.is_folder and not there.is_folder:
            fail(errno.ENOTDIR)
        if there.is_folder and not self._inodes.is_empty(there):
            fail(errno.ENOTEMPTY)

    def _is_within(self, number: int, folder: LiveNode) -> bool:
        """Whether a folder is `folder` or lies below it."""
        return number == folder.number or folder.number in self._inodes.ancestors(number)

    def _touch(self, folder: LiveNode, now_ns: int) -> None:
        """A folder's list of names has changed."""
        folder.mtime_ns = now_ns
        self._changed(folder, now_ns)

    def _changed(self, node: LiveNode, now_ns: int) -> None:
        node.ctime_ns = now_ns
        self._inodes.give_row(node)
        self._note(node)

    def _note(self, node: LiveNode) -> None:
        """A node that has a row differs from the last version."""
        self.change_count += 1
        node.is_published = False
        self._begun.discard(node.number)
        self._unpublished.add(node.number)
        self._log.change_node(node.number)

    def _content_changed(self, node: LiveNode, *, keeps_set_id: bool = False) -> None:
        if not keeps_set_id:
            drop_set_id(node)
        node.mtime_ns = now_ns = self._now_ns()
        self._changed(node, now_ns)


def _permissions(folder: LiveNode, new: NewNode) -> int:
    """The mode with which something is made: cut down by the umask, or by what the folder says of all that is made in it."""
    if stat.S_ISLNK(new.mode):
        return new.mode
    if DEFAULT in folder.xattrs:
        return new.mode & ~0o777 | mode_of(inherited(parse_acl(folder.xattrs[DEFAULT]), new.mode))
    return new.mode & ~new.umask


def _inherited_xattrs(folder: LiveNode, new: NewNode) -> dict[bytes, bytes]:
    """The access lists that something begins with."""
    default = folder.xattrs.get(DEFAULT)
    if default is None or stat.S_ISLNK(new.mode):
        return {}
    acl = inherited(parse_acl(default), new.mode)
    xattrs = {} if is_plain(acl) else {ACCESS: encode_acl(acl)}
    return xattrs | ({DEFAULT: default} if stat.S_ISDIR(new.mode) else {})


def _add_way(numbers: set[int], folder: int, inodes: Inodes) -> None:
    """Add a folder and those above it, up to one that is there already."""
    if folder in numbers:
        return
    numbers.add(folder)
    for above in inodes.ancestors(folder):
        if above in numbers:
            return
        numbers.add(above)


def _storable_time(time_ns: int) -> int:
    return min(max(time_ns, -TIME_NS_MAX), TIME_NS_MAX)

# SPDX-License-Identifier: MIT
"""What the snapshot mount means: names, inodes, attributes and bytes, without FUSE.

    snapshots/<source>/<YYYY-MM-DD_HH-MM-SS>/…     every snapshot; of a live folder <source> is `live/<name>`
    snapshots/<source>/latest                      a symlink to the newest
    at/<time>/<source>                             a symlink to the newest snapshot not after that time
    versions/<source>/<path>/<snapshot><.ext>      the distinct versions of one file
    forgotten/<source>/<YYYY-MM-DD_HH-MM-SS>/…     every snapshot that was forgotten and can be had back; elsewhere they are not shown

Rules of the inodes:
1. Numbers come from a counter and are never used twice: the kernel would mix old pages with new.
2. A *file* in several snapshots that is the same in content and all attributes is one inode: the kernel then has one
   page cache for it, and tools that compare or count see that it is the same.
3. A *directory* has an inode of its own in each place: the kernel refuses to show one directory twice.
4. A node lives as long as the kernel knows it (`forget`), or as long as something below it does.

Archived nodes never change, so the kernel may keep what it is told about them for ever. Folders in which names can
appear, and go when a snapshot is forgotten (`snapshots` and below it, `at`, `versions`, `forgotten`), are asked again after a second at
most. What is open of a snapshot that goes stays as it is.

Threads: everything here belongs to the thread that serves the mount, but `HistoryFolder.load`, which may take long and
runs on another.
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, NewType

from yester.core.content import Content, sole_span
from yester.core.records import NAME_BYTES_MAX, Entry
from yester.core.times import parse_time
from yester.engine.files import FileReader
from yester.engine.history import file_history
from yester.engine.trees import TreeReader, find_entry
from yester.errors import UsageError
from yester.fs.snapshot_index import SnapshotIndex
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

Inode = NewType("Inode", int)
ROOT = Inode(1)

FOREVER_S = 10.0**8
"""For what cannot change while the mount lives."""
GROWING_S = 0.5
"""For folders in which a new snapshot must appear within a second."""

BLOCK_BYTES = 512
_OPEN_READERS = 64
"""Files whose decoded content list is kept. Reading one not among them decodes it again: 3 µs."""
_TREE_CACHE_ENTRIES = 10_000


class Attributes(NamedTuple):
    """What `stat` shows, and for how long the kernel may remember it."""

    inode: Inode
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    mtime_ns: int
    atime_ns: int
    valid_s: float


@dataclass(frozen=True, slots=True)
class Presentation:
    """How the mount shows things. With `as_me` all is owned by `uid` and `gid` and readable by them."""

    uid: int
    gid: int
    as_me: bool = False


class Node:
    """Something with an inode number. `lookups` is how often the kernel was told of it and has not forgotten.

    `parent` keeps the folder through which it was first seen alive, for messages and for `..`.
    """

    __slots__ = ("inode", "lookups", "name", "parent")

    def __init__(self, inode: Inode, parent: "Folder | None", name: bytes) -> None:
        self.inode: Final = inode
        self.parent: Final = parent
        self.name: Final = name
        self.lookups = 0

    @property
    def path(self) -> bytes:
        """The path below the mount by which it was first seen."""
        names = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            names.append(node.name)
            node = node.parent
        return b"/".join(reversed(names))


class ArchivedNode(Node):
    """A file, folder or special file of a snapshot. Immutable, but that the driver notes when it `was_opened` for the first time."""

    __slots__ = ("entry", "was_opened")

    def __init__(self, inode: Inode, parent: "Folder", name: bytes, entry: Entry) -> None:
        Node.__init__(self, inode, parent, name)  # half the cost of super(), once for each of 80,000 files
        self.entry: Final = entry
        self.was_opened = False


class Link(Node):
    """A symlink that the view makes up. Its target may change from one moment to the next."""

    __slots__ = ("target",)

    def __init__(self, inode: Inode, parent: "Folder", name: bytes, target: bytes) -> None:
        super().__init__(inode, parent, name)
        self.target = target


class Folder(Node):
    """A folder that can be listed and searched."""

    __slots__ = ()
    grows = True
    """Whether names may appear in it while it is mounted."""

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        """Its names, in a stable order, each with its entry if it is archived."""
        raise NotImplementedError

    def has(self, view: "View", name: bytes) -> bool:
        """Whether `find` of this name would give a node, as cheaply as that can be told."""
        return any(name == listed for listed, _ in self.list(view))

    def make(self, view: "View", inode: Inode, name: bytes) -> Node:
        """The node of a name that it `has`. Not called for archived ones."""
        raise NotImplementedError

    def find_entry(self, view: "View", name: bytes) -> Entry | None:
        """The entry of an archived name; None if there is none."""
        return None

    def mtime_ns(self, view: "View") -> int:
        """When its list of names last changed."""
        return view.started_ns


class ArchivedFolder(ArchivedNode, Folder):
    """A folder of a snapshot."""

    __slots__ = ()
    grows = False

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        return [(entry.name, entry) for entry in view.trees.read(self.entry.tree).entries]

    def find_entry(self, view: "View", name: bytes) -> Entry | None:
        return find_entry(view.trees.read(self.entry.tree), name)


class RootFolder(Folder):
    """The mount point."""

    __slots__ = ()
    grows = False

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        return [(name, None) for name in _WAYS_IN]

    def make(self, view: "View", inode: Inode, name: bytes) -> Node:
        return _WAYS_IN[name](inode, self, name)


class SourcesFolder(Folder):
    """A folder of sources. Those of live folders are called `live/<name>`, and stand in a folder of that name."""

    __slots__ = ("group",)

    def __init__(self, inode: Inode, parent: Folder, name: bytes, group: str = "") -> None:
        """`group` is what the sources in it begin with, slash included."""
        super().__init__(inode, parent, name)
        self.group: Final = group

    def sources(self, view: "View") -> Iterable[str]:
        """The sources that it shows, whatever their group, sorted."""
        return view.index.sources()

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        inner = (source[len(self.group) :] for source in self.sources(view) if source.startswith(self.group))
        return dict.fromkeys((os.fsencode(name.partition("/")[0]) for name in inner), None).items()

    def make(self, view: "View", inode: Inode, name: bytes) -> Node:
        source = self.group + os.fsdecode(name)
        if source in self.sources(view):
            return self.make_source(view, inode, name, source)
        return type(self)(inode, self, name, source + "/")

    def make_source(self, view: "View", inode: Inode, name: bytes, source: str) -> Node:
        """The node of a source."""
        raise NotImplementedError


class SnapshotsFolder(SourcesFolder):
    """`snapshots`: the sources."""

    __slots__ = ()

    def make_source(self, view: "View", inode: Inode, name: bytes, source: str) -> Node:
        return SourceFolder(inode, self, name, source)


class SourceFolder(Folder):
    """`snapshots/<source>`: its snapshots, and `latest`."""

    __slots__ = ("source",)

    def __init__(self, inode: Inode, parent: Folder, name: bytes, source: str) -> None:
        super().__init__(inode, parent, name)
        self.source: Final = source

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        yield from view.index.roots(self.source).items()
        yield b"latest", None

    def has(self, view: "View", name: bytes) -> bool:
        return name == b"latest" or name in view.index.roots(self.source)

    def find_entry(self, view: "View", name: bytes) -> Entry | None:
        return view.index.roots(self.source).get(name)

    def make(self, view: "View", inode: Inode, name: bytes) -> Node:
        latest = view.store.latest_snapshot(self.source)
        return Link(inode, self, name, os.fsencode(latest.snapshot.name) if latest else b".")

    def mtime_ns(self, view: "View") -> int:
        latest = view.store.latest_snapshot(self.source)
        return latest.snapshot.time_ns if latest else view.started_ns


class ForgottenFolder(SourcesFolder):
    """`forgotten`: the sources of which something is forgotten.

    It is there, and empty, where nothing is: a folder that comes and goes would have to be asked for by the kernel, and
    looked for by people.
    """

    __slots__ = ()

    def sources(self, view: "View") -> Iterable[str]:
        return view.index.forgotten_sources()

    def make_source(self, view: "View", inode: Inode, name: bytes, source: str) -> Node:
        return ForgottenSource(inode, self, name, source)


class ForgottenSource(Folder):
    """`forgotten/<source>`: its snapshots that were forgotten."""

    __slots__ = ("source",)

    def __init__(self, inode: Inode, parent: Folder, name: bytes, source: str) -> None:
        super().__init__(inode, parent, name)
        self.source: Final = source

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        return view.index.forgotten_roots(self.source).items()

    def find_entry(self, view: "View", name: bytes) -> Entry | None:
        return view.index.forgotten_roots(self.source).get(name)

    def make(self, view: "View", inode: Inode, name: bytes) -> Node:
        raise AssertionError  # all that it has is archived


class AtFolder(Folder):
    """`at`: has every time expression, and lists none."""

    __slots__ = ()

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        return []

    def has(self, view: "View", name: bytes) -> bool:
        try:
            parse_time(os.fsdecode(name), now_ns=time.time_ns())
        except UsageError:
            return False
        return True

    def make(self, view: "View", inode: Inode, name: bytes) -> Node:
        return AtTimeFolder(inode, self, name)


class AtTimeFolder(SourcesFolder):
    """`at/<time>`: for each source that had a snapshot by then, a symlink to the newest of those."""

    __slots__ = ("when",)

    def __init__(self, inode: Inode, parent: Folder, name: bytes, group: str = "") -> None:
        super().__init__(inode, parent, name, group)
        self.when: Final[str] = parent.when if isinstance(parent, AtTimeFolder) else os.fsdecode(name)

    def sources(self, view: "View") -> Iterable[str]:
        return [source for source in view.index.sources() if self._snapshot(view, source)]

    def has(self, view: "View", name: bytes) -> bool:
        source = self.group + os.fsdecode(name)
        return self._snapshot(view, source) is not None or super().has(view, name)

    def make_source(self, view: "View", inode: Inode, name: bytes, source: str) -> Node:
        found = self._snapshot(view, source)
        up = b"../" * (2 + self.group.count("/"))
        target = b"%ssnapshots/%s/%s" % (up, os.fsencode(source), os.fsencode(found.snapshot.name)) if found else b"."
        return Link(inode, self, name, target)

    def _snapshot(self, view: "View", source: str) -> StoredSnapshot | None:
        until_ns = parse_time(self.when, now_ns=time.time_ns())
        return view.store.snapshot_at(source, until_ns)


class VersionsRoot(SourcesFolder):
    """`versions`: the sources."""

    __slots__ = ()

    def make_source(self, view: "View", inode: Inode, name: bytes, source: str) -> Node:
        return VersionsFolder(inode, self, name, source, b"")


class HistoryFolder(Folder):
    """A folder made of what a path was in the snapshots of a source.

    What it holds is read by `load`, which looks into every snapshot of the source and so may take seconds where there are
    thousands: the driver calls it on another thread when `is_loaded` says so, before anything else.
    """

    __slots__ = ("_content", "_generation")

    def __init__(self, inode: Inode, parent: Folder, name: bytes) -> None:
        super().__init__(inode, parent, name)
        self._generation = -1
        self._content: dict[bytes, Entry | None] = {}

    def is_loaded(self, view: "View") -> bool:
        """Whether what it holds is as new as the store's newest snapshot."""
        return self._generation == view.index.generation()

    def load(self, view: "View") -> None:
        """Find what it holds. Callable on any thread; one at a time over all folders."""
        generation = view.store.snapshots_generation()
        with view.history_lock:
            content = self.find_content(view, view.history_trees)
        self._content, self._generation = content, generation

    def find_content(self, view: "View", trees: TreeReader) -> dict[bytes, Entry | None]:
        """What it holds, in the order in which it is listed."""
        raise NotImplementedError

    def list(self, view: "View") -> Iterable[tuple[bytes, Entry | None]]:
        return self._content.items()

    def has(self, view: "View", name: bytes) -> bool:
        return name in self._content

    def find_entry(self, view: "View", name: bytes) -> Entry | None:
        return self._content.get(name)


class VersionsFolder(HistoryFolder):
    """`versions/<source>/<path>`: for a path that was a file, its versions; for one that was a folder, all names it ever held."""

    __slots__ = ("inner_path", "source")

    def __init__(self, inode: Inode, parent: Folder, name: bytes, source: str, inner_path: bytes) -> None:
        super().__init__(inode, parent, name)
        self.source: Final = source
        self.inner_path: Final = inner_path

    def find_content(self, view: "View", trees: TreeReader) -> dict[bytes, Entry | None]:
        content: dict[bytes, Entry | None] = {}
        for version in file_history(view.store, trees, self.source, self.inner_path):
            entry = version.entry
            if entry is None:
                continue
            if stat.S_ISDIR(entry.mode):
                content |= {child.name: None for child in trees.read(entry.tree).entries}
            else:
                suffix = os.path.splitext(self.inner_path)[1]
                content[(os.fsencode(version.first.snapshot.name) + suffix)[:NAME_BYTES_MAX]] = entry
        return dict(sorted(content.items()))

    def make(self, view: "View", inode: Inode, name: bytes) -> Node:
        inner_path = self.inner_path + b"/" + name if self.inner_path else name
        return VersionsFolder(inode, self, name, self.source, inner_path)


_WAYS_IN: Mapping[bytes, Callable[[Inode, Folder, bytes], Folder]] = {
    b"at": AtFolder,
    b"forgotten": ForgottenFolder,
    b"snapshots": SnapshotsFolder,
    b"versions": VersionsRoot,
}
"""What the mount point holds."""

_FileIdentity = tuple[object, ...]


class View:
    """The tree of nodes, and the bytes of files. Errors are the store's (`CorruptionError` …); absence is None."""

    def __init__(self, store: Store, presentation: Presentation, root: Folder | None = None) -> None:
        """`root` is the snapshot mount's, unless another is given; nodes have numbers after its own."""
        self.store = store
        self.presentation = presentation
        self.index = SnapshotIndex(store)
        self.chunks = store.reader(read_ahead=True)
        self.trees = TreeReader(self.chunks, cache_entries=_TREE_CACHE_ENTRIES)
        self.started_ns = time.time_ns()
        self.history_lock = threading.Lock()
        self.history_trees = TreeReader(store.reader(), cache_entries=_TREE_CACHE_ENTRIES)
        """For whoever holds the lock."""
        self.root: Final = root or RootFolder(ROOT, None, b"")
        self.root.lookups = 1
        self._next_inode = self.root.inode + 1
        self._nodes: dict[int, Node] = {self.root.inode: self.root}
        self._files: dict[_FileIdentity, ArchivedNode] = {}
        self._children: dict[tuple[int, bytes], Node] = {}
        self._readers: dict[int, FileReader] = {}

    def node(self, inode: int) -> Node | None:
        """The node of a number; None if the kernel has forgotten it."""
        return self._nodes.get(inode)

    def node_count(self) -> int:
        """How many nodes the kernel knows."""
        return len(self._nodes)

    def find(self, folder: Folder, name: bytes) -> Node | None:
        """The node of a name in a folder; None if there is none. Not counted as a lookup: see `remember`."""
        entry = folder.find_entry(self, name)
        if entry is not None:
            return self.archived(folder, entry, name)
        return self.synthetic(folder, name) if not isinstance(folder, ArchivedFolder) and folder.has(self, name) else None

    def archived(self, folder: Folder, entry: Entry, name: bytes) -> ArchivedNode:
        """The node of an archived entry in a folder."""
        if stat.S_ISDIR(entry.mode):
            key = (folder.inode, name)
            known = self._children.get(key)
            if isinstance(known, ArchivedFolder) and known.entry == entry:
                return known
            node: ArchivedNode = ArchivedFolder(self._new_inode(), folder, name, entry)
            self._children[key] = node
        else:
            identity = _identity(entry)
            file = self._files.get(identity)
            if file is not None:
                return file
            node = ArchivedNode(self._new_inode(), folder, name, entry)
            self._files[identity] = node
        self._nodes[node.inode] = node
        return node

    def synthetic(self, folder: Folder, name: bytes) -> Node:
        """The node of a name that the view makes up and `folder` has."""
        key = (folder.inode, name)
        node = self._children.get(key)
        if node is None or isinstance(node, ArchivedNode):
            node = folder.make(self, self._new_inode(), name)
            self._children[key] = node
            self._nodes[node.inode] = node
        elif isinstance(node, Link):
            made = folder.make(self, node.inode, name)
            assert isinstance(made, Link)
            node.target = made.target
        return node

    def list(self, folder: Folder) -> list[tuple[bytes, Entry | None]]:
        """All names of a folder as they are now, in a stable order."""
        return list(folder.list(self))

    def child(self, folder: Folder, name: bytes, entry: Entry | None) -> Node:
        """The node of a listed name."""
        return self.synthetic(folder, name) if entry is None else self.archived(folder, entry, name)

    def remember(self, node: Node) -> None:
        """The kernel was told of this node once more."""
        node.lookups += 1

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` of the times it was told of this node."""
        node = self._nodes.get(inode)
        if node is None or node is self.root:
            return
        node.lookups -= count
        self.drop_unknown(node)

    def drop_unknown(self, node: Node) -> None:
        """Let go of a node that the kernel does not know (any more)."""
        if node.lookups > 0 or node is self.root:
            return
        self._nodes.pop(node.inode, None)
        self._readers.pop(node.inode, None)
        if isinstance(node, ArchivedNode) and not isinstance(node, Folder):
            self._files.pop(_identity(node.entry), None)
        elif node.parent is not None and self._children.get((node.parent.inode, node.name)) is node:
            del self._children[node.parent.inode, node.name]

    def attributes(self, node: Node) -> Attributes:
        """What `stat` shows of a node."""
        if isinstance(node, ArchivedNode):
            return self._archived_attributes(node)
        me = self.presentation
        if isinstance(node, Link):
            now_ns = self.started_ns
            mode = stat.S_IFLNK | 0o777
            return Attributes(node.inode, mode, 1, me.uid, me.gid, 0, len(node.target), 0, now_ns, now_ns, 0.0)
        assert isinstance(node, Folder)
        mtime_ns = node.mtime_ns(self)
        valid_s = GROWING_S if node.grows else FOREVER_S
        return Attributes(node.inode, stat.S_IFDIR | 0o555, 1, me.uid, me.gid, 0, 0, 0, mtime_ns, mtime_ns, valid_s)

    def entry_valid_s(self, folder: Folder) -> float:
        """For how long the kernel may believe that a name in this folder is, or is not, there."""
        return GROWING_S if folder.grows else FOREVER_S

    def read(self, node: ArchivedNode, offset: int, count: int) -> bytes | memoryview:
        """Bytes of a file; see `FileReader.read`."""
        reader = self._readers.get(node.inode)
        if reader is None:
            if len(self._readers) >= _OPEN_READERS:
                del self._readers[next(iter(self._readers))]
            entry = node.entry
            reader = self._readers[node.inode] = FileReader(self.chunks, Content(entry.level, entry.content), entry.size)
        return reader.read(offset, count)

    def read_small(self, node: ArchivedNode) -> bytes | memoryview:
        """All bytes of a file. Quick for one that is a single chunk, as nearly all small ones are."""
        entry = node.entry
        span = sole_span(entry.level, entry.content)
        if span is not None:
            data = self.chunks.read(span.chunk)
            if len(data) == entry.size == span.length:
                return data
        return self.read(node, 0, entry.size)

    def read_link(self, node: Node) -> bytes | None:
        """A symlink's target; None if it is none."""
        if isinstance(node, Link):
            return node.target
        if isinstance(node, ArchivedNode) and stat.S_ISLNK(node.entry.mode):
            return node.entry.content
        return None

    def xattrs(self, node: Node) -> tuple[tuple[bytes, bytes], ...]:
        """Extended attributes of a node, sorted by name."""
        return node.entry.rare.xattrs if isinstance(node, ArchivedNode) else ()

    def needs_load(self, node: Node) -> HistoryFolder | None:
        """The node itself, if it must be loaded before it is asked for names."""
        return node if isinstance(node, HistoryFolder) and not node.is_loaded(self) else None

    def _archived_attributes(self, node: ArchivedNode) -> Attributes:
        entry, me = node.entry, self.presentation
        mode, uid, gid = entry.mode, entry.uid, entry.gid
        if me.as_me:
            uid, gid = me.uid, me.gid
            mode |= stat.S_IRUSR | (stat.S_IXUSR if stat.S_ISDIR(mode) or mode & 0o111 else 0)
        extra = entry.rare
        blocks = -(-entry.stored_bytes // BLOCK_BYTES) if stat.S_ISREG(mode) else 0
        return Attributes(
            node.inode, mode, extra.nlink, uid, gid, extra.rdev, entry.size, blocks, entry.mtime_ns, entry.atime_ns, FOREVER_S
        )

    def _new_inode(self) -> Inode:
        inode = Inode(self._next_inode)
        self._next_inode += 1
        return inode


def _identity(entry: Entry) -> _FileIdentity:
    """Equal for files that are one: same content and same attributes, whatever their names.

    But not the access time of a file with several names: a backup that reads one of them again keeps what it has of the
    others as long as nothing else of them differs, and they must not fall apart.
    """
    atime_ns = entry.atime_ns if entry.rare.nlink == 1 else None
    return (entry.mode, entry.uid, entry.gid, entry.mtime_ns, atime_ns, entry.size, entry.level, entry.content, entry.extra)

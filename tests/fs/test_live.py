# SPDX-License-Identifier: MIT
"""The writable tree, beside a folder of the host to which the same is done; and what is left of it after a crash."""

import ctypes
import errno
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.fs.live_folder import NAME, LiveSandbox, Shape, do_something, new_file, snapshot_shapes, stored_shapes
from yester.engine.live_rows import waiting
from yester.errors import CorruptionError
from yester.fs import live_inodes
from yester.fs.live_nodes import ROOT, NewNode, NodeNumber, Replacing
from yester.store.live import LiveChange

if TYPE_CHECKING:
    from yester.engine.live_version import Cut

Result = TypeVar("Result")
_FLAGS = {Replacing.ALLOWED: 0, Replacing.FORBIDDEN: 1, Replacing.EXCHANGE: 2}  # RENAME_NOREPLACE, RENAME_EXCHANGE
_libc = ctypes.CDLL(None, use_errno=True)


def outcome(call: Callable[[], Result]) -> tuple[Result | None, int]:
    """What a call returns, and the number of the error it raises."""
    try:
        return call(), 0
    except OSError as error:
        return None, error.errno or -1


PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)
OFFSETS = st.integers(0, 300)


class Machine(RuleBasedStateMachine):
    """Does the same to a live folder and to a folder of the host, and compares."""

    is_encrypted = False

    @initialize()
    def start(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="yester-live-"))
        self.host = os.fsencode(self.place / "host")
        os.mkdir(self.host, 0o755)
        self.mine = LiveSandbox(self.place / "store", is_encrypted=self.is_encrypted)
        self.idle_nodes_max, live_inodes.IDLE_NODES_MAX = live_inodes.IDLE_NODES_MAX, 8
        self.handles: list[tuple[NodeNumber, int]] = []
        self.begun: tuple[Cut, dict[bytes, Shape]] | None = None
        self.umask = os.umask(0)

    def teardown(self) -> None:
        if hasattr(self, "place"):
            for _, file in self.handles:
                os.close(file)
            self.mine.close()
            live_inodes.IDLE_NODES_MAX = self.idle_nodes_max
            os.umask(self.umask)
            shutil.rmtree(self.place)

    def both(self, ours: Callable[[int, bytes], Any], theirs: Callable[[bytes], Any], path: bytes) -> tuple[Any, Any] | None:
        """Do it to the parent and name of a path, and to the host's path; what both return, or None after the same error."""
        if self.leads_through_symlink(path):
            return None  # the kernel resolves those
        found, ours_failed = outcome(lambda: ours(*self.resolve(path)))
        expected, theirs_failed = outcome(lambda: theirs(self.host + b"/" + path))
        assert ours_failed == theirs_failed, (path, errno.errorcode.get(ours_failed), errno.errorcode.get(theirs_failed))
        return None if ours_failed else (found, expected)

    def resolve(self, path: bytes) -> tuple[int, bytes]:
        *folders, name = path.split(b"/")
        number: int = ROOT
        for folder in folders:
            number = self.mine.tree.lookup(number, folder).number
        return number, name

    def leads_through_symlink(self, path: bytes) -> bool:
        parts = path.split(b"/")
        return any(os.path.islink(os.path.join(self.host, *parts[:count])) for count in range(1, len(parts)))

    def make(self, path: bytes, mode: int, theirs: Callable[[bytes], Any], target: bytes = b"") -> None:
        new = NewNode(mode, os.geteuid(), os.getegid(), target=target)
        self.both(lambda parent, name: self.mine.tree.create(parent, name, new), theirs, path)

    @rule(path=PATHS, mode=st.sampled_from([0o755, 0o700, 0o2755]))
    def mkdir(self, path: bytes, mode: int) -> None:
        def theirs(host: bytes) -> None:
            os.mkdir(host)
            os.chmod(host, mode | os.stat(host).st_mode & stat.S_ISGID)

        self.make(path, stat.S_IFDIR | mode, theirs)

    @rule(path=PATHS, mode=st.sampled_from([0o644, 0o600]))
    def create(self, path: bytes, mode: int) -> None:
        self.make(path, stat.S_IFREG | mode, lambda host: os.close(os.open(host, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)))

    @rule(path=PATHS)
    def symlink(self, path: bytes) -> None:
        self.make(path, stat.S_IFLNK | 0o777, lambda host: os.symlink(b"to/nowhere", host), target=b"to/nowhere")

    @rule(path=PATHS)
    def mkfifo(self, path: bytes) -> None:
        self.make(path, stat.S_IFIFO | 0o640, lambda host: os.mkfifo(host, 0o640))

    @rule(path=PATHS, new=PATHS)
    def link(self, path: bytes, new: bytes) -> None:
        if self.leads_through_symlink(path):
            return

        def ours(parent: int, name: bytes) -> None:
            number = self.mine.tree.lookup(*self.resolve(path)).number
            self.mine.tree.link(number, parent, name)

        source = self.host + b"/" + path
        if os.path.lexists(source):
            self.both(ours, lambda host: os.link(source, host, follow_symlinks=False), new)

    @rule(path=PATHS)
    def unlink(self, path: bytes) -> None:
        self.both(self.mine.tree.unlink, os.unlink, path)

    @rule(path=PATHS)
    def rmdir(self, path: bytes) -> None:
        self.both(self.mine.tree.rmdir, os.rmdir, path)

    @rule(path=PATHS, new=PATHS, replacing=st.sampled_from(Replacing))
    def rename(self, path: bytes, new: bytes, replacing: Replacing) -> None:
        if self.leads_through_symlink(new) or not os.path.lexists(self.host + b"/" + path):
            return

        def ours(parent: int, name: bytes) -> None:
            self.mine.tree.rename(parent, name, *self.resolve(new), replacing)

        def theirs(host: bytes) -> None:
            if _libc.renameat2(-100, host, -100, self.host + b"/" + new, _FLAGS[replacing]):
                raise OSError(ctypes.get_errno(), "")

        self.both(ours, theirs, path)

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o755]))
    def chmod(self, path: bytes, mode: int) -> None:
        if os.path.islink(self.host + b"/" + path):
            return
        self.both(
            lambda parent, name: self.mine.tree.set_mode(self.mine.tree.lookup(parent, name).number, mode),
            lambda host: os.chmod(host, mode),
            path,
        )

    @rule(path=PATHS)
    def open(self, path: bytes) -> None:
        if not os.path.isfile(self.host + b"/" + path) or len(self.handles) > 4:
            return
        opened = self.both(
            lambda parent, name: self.mine.tree.keep(self.mine.tree.lookup(parent, name).number).number,
            lambda host: os.open(host, os.O_RDWR | os.O_NOFOLLOW),
            path,
        )
        if opened is not None:
            self.handles.append(opened)

    @precondition(lambda self: self.handles)
    @rule(which=st.integers(0, 4), offset=OFFSETS, data=st.binary(min_size=1, max_size=120))
    def write(self, which: int, offset: int, data: bytes) -> None:
        number, file = self.handles[which % len(self.handles)]
        assert self.mine.tree.write(number, offset, data) == os.pwrite(file, data, offset)

    @precondition(lambda self: self.handles)
    @rule(which=st.integers(0, 4), size=OFFSETS)
    def truncate(self, which: int, size: int) -> None:
        number, file = self.handles[which % len(self.handles)]
        self.mine.tree.truncate(number, size)
        os.ftruncate(file, size)

    @precondition(lambda self: self.handles)
    @rule(which=st.integers(0, 4), offset=OFFSETS, count=OFFSETS)
    def read(self, which: int, offset: int, count: int) -> None:
        number, file = self.handles[which % len(self.handles)]
        assert self.mine.tree.read(number, offset, count) == os.pread(file, count, offset)
        assert self.mine.tree.node(number).nlink == os.fstat(file).st_nlink

    @precondition(lambda self: self.handles)
    @rule(which=st.integers(0, 4))
    def release(self, which: int) -> None:
        number, file = self.handles.pop(which % len(self.handles))
        self.mine.tree.let_go(number)
        os.close(file)

    @rule()
    def commit(self) -> None:
        self.mine.commit()
        assert self.mine.tree.pending_bytes == 0
        rows = self.mine.folders.load(NAME)
        used = {extent.batch for extents in rows.extents.values() for extent in extents}
        assert set(rows.batch_bytes) - used <= {rows.head.next_batch - 1}, "a batch goes with the last that names it, at the next commit"

    @rule()
    def begin_version(self) -> None:
        if self.begun is None and (cut := self.mine.tree.begin_version()) is not None:
            self.mine.commit()
            self.begun = cut, snapshot_shapes(self.mine)

    @precondition(lambda self: self.begun is not None)
    @rule()
    def finish_version(self) -> None:
        assert self.begun is not None
        (cut, shapes), self.begun = self.begun, None
        self.mine.finish(cut, self.mine.store_version(cut))
        stored = self.mine.store.latest_snapshot(f"live/{NAME}")
        assert stored is not None
        assert stored_shapes(self.mine.store, stored.snapshot.root) == shapes
        files = [shape for path, shape in shapes.items() if stat.S_ISREG(shape[0])]
        sizes = {shape[1]: shape[4] for shape in files if shape[3] > 1}
        totals = stored.snapshot.totals
        assert totals.files == len(files)
        assert totals.directories == sum(stat.S_ISDIR(shape[0]) for shape in shapes.values()) - 1
        assert totals.size_bytes == sum(sizes.values()) + sum(shape[4] for shape in files if shape[3] == 1)

    @precondition(lambda self: self.begun is not None)
    @rule()
    def abandon_version(self) -> None:
        assert self.begun is not None
        self.mine.tree.abandon_version()
        self.begun = None

    @precondition(lambda self: not self.handles)
    @rule()
    def publish_and_nothing_is_left_but_what_must_be(self) -> None:
        if self.begun is not None:
            self.abandon_version()
        self.mine.publish()
        tree = self.mine.tree
        assert tree.unpublished_nodes == 0
        linked = [tree.node(number) for number in tree._inodes.rows if len(tree.node(number).links) > 1]
        must = {ROOT, *(node.number for node in linked)}
        for node in linked:
            for parent, _ in node.links:
                must |= {parent, *tree._inodes.ancestors(parent)}
        assert tree._inodes.rows == must
        rows = self.mine.folders.load(NAME)
        assert set(rows.nodes) == must
        assert (rows.names, rows.extents) == ({}, {})
        self.mine.commit()

    @precondition(lambda self: not self.handles)
    @rule()
    def restart(self) -> None:
        self.mine.commit()
        before = self.mine.describe()
        self.mine.load()
        self.begun = None
        assert self.mine.describe() == before

    @rule()
    def start_again_after_a_crash(self) -> None:
        """What a crash leaves right after a commit is what is there, but for files without a name."""
        self.mine.commit()
        crashed = LiveSandbox.__new__(LiveSandbox)
        crashed.store, crashed.folders, crashed.clock_ns = self.mine.store, self.mine.folders, 0
        crashed.load()
        assert crashed.describe() == self.mine.describe()

    @invariant()
    def both_are_alike(self) -> None:
        if not hasattr(self, "mine"):
            return
        ours = self.mine.describe()
        assert {path: self.shape(path) for path in ours} == self.host_shapes()
        numbers = {path: found[0] for path, found in ours.items()}
        inodes = {path: os.lstat(self.host + path).st_ino for path in ours}
        assert {frozenset(p for p in numbers if numbers[p] == n) for n in numbers.values()} == {
            frozenset(p for p in inodes if inodes[p] == n) for n in inodes.values()
        }

    def shape(self, path: bytes) -> tuple[object, ...]:
        node = self.mine.tree.node(ROOT) if not path else self.mine.tree.lookup(*self.resolve(path[1:]))
        data = self.mine.tree.read(node.number, 0, 10_000) if stat.S_ISREG(node.mode) else node.target
        return node.mode, node.nlink, node.size if not node.is_folder else 0, data

    def host_shapes(self) -> dict[bytes, tuple[object, ...]]:
        found: dict[bytes, tuple[object, ...]] = {}
        for top, folders, files in os.walk(self.host):
            for name in [b"", *folders, *files] if top == self.host else [*folders, *files]:
                path = os.path.join(top, name) if name else top
                status = os.lstat(path)
                is_folder = stat.S_ISDIR(status.st_mode)
                data = b""
                if stat.S_ISREG(status.st_mode):
                    data = Path(os.fsdecode(path)).read_bytes()
                elif stat.S_ISLNK(status.st_mode):
                    data = os.readlink(path)
                found[path[len(self.host) :]] = status.st_mode, status.st_nlink, 0 if is_folder else status.st_size, data
        return found


def test_it_is_what_a_folder_of_the_host_is() -> None:
    run_state_machine_as_test(Machine)


class EncryptedMachine(Machine):
    """The same in an encrypted store."""

    is_encrypted = True


def test_in_an_encrypted_store_it_is_too() -> None:
    run_state_machine_as_test(EncryptedMachine, settings=settings(max_examples=20))


def failure(call: Callable[..., object], *arguments: object, **named: object) -> int:
    """The number of the error that a call raises."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the number is what is looked at)
        call(*arguments, **named)
    return caught.value.errno or -1


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_leaves_the_folder_as_it_was_at_the_last_commit(mine: LiveSandbox, seed: int) -> None:
    """Whatever was done since, and whatever was open: only files without a name are gone."""
    rng = random.Random(seed)
    last = mine.describe()
    for step in range(rng.randrange(20, 200)):
        do_something(mine, rng)
        if rng.random() < 0.1 or step == 0:
            mine.commit()
            last = mine.describe()
    mine.load()
    assert mine.describe() == last
    mine.commit()
    rows = mine.folders.load(NAME)
    assert set(rows.nodes) == {found[0] for found in last.values()}
    assert set(rows.extents) <= set(rows.nodes)


def test_a_file_that_takes_anothers_place_takes_its_node_id(mine: LiveSandbox) -> None:
    """Saving by way of a temporary file is a change of the same thing. The inode number is that of the file, as everywhere."""
    target, temporary = new_file(mine, b"letter", b"old"), new_file(mine, b"letter.tmp", b"new")
    node_id, number = target.node_id, temporary.number
    mine.commit()
    mine.tree.rename(ROOT, b"letter.tmp", ROOT, b"letter")
    mine.commit()
    mine.load()
    found = mine.tree.lookup(ROOT, b"letter")
    assert (found.node_id, found.number) == (node_id, number)
    assert mine.tree.read(number, 0, 9) == b"new"


def test_a_file_that_is_moved_keeps_its_node_id(mine: LiveSandbox) -> None:
    node = new_file(mine, b"a")
    folder = mine.tree.create(ROOT, b"d", NewNode(stat.S_IFDIR | 0o755, 0, 0))
    node_id = node.node_id
    mine.tree.rename(ROOT, b"a", folder.number, b"b")
    assert mine.tree.lookup(folder.number, b"b").node_id == node_id


def test_what_is_written_by_others_loses_its_set_id_bits(mine: LiveSandbox) -> None:
    node = new_file(mine, b"a")
    changes: list[Callable[[], object]] = [
        lambda: mine.tree.write(node.number, 0, b"1"),
        lambda: mine.tree.truncate(node.number, 5),
        lambda: mine.tree.set_owner(node.number, uid=7),
    ]
    for change in changes:
        mine.tree.set_mode(node.number, 0o6755)
        change()
        assert stat.S_IMODE(node.mode) == 0o755
        mine.tree.set_mode(node.number, 0o6745)  # without execution by the group the bit means locking
        change()
        assert stat.S_IMODE(node.mode) == 0o2745


def test_what_is_made_in_a_folder_with_the_set_group_id_bit_gets_its_group(mine: LiveSandbox) -> None:
    folder = mine.tree.create(ROOT, b"d", NewNode(stat.S_IFDIR | 0o2755, 1, 50))
    assert mine.tree.create(folder.number, b"f", NewNode(stat.S_IFREG | 0o644, 1, 60)).gid == 50
    below = mine.tree.create(folder.number, b"e", NewNode(stat.S_IFDIR | 0o755, 1, 60))
    assert (below.gid, below.mode) == (50, stat.S_IFDIR | 0o2755)


def test_extended_attributes_and_times_are_kept(mine: LiveSandbox) -> None:
    node = new_file(mine, b"a")
    mine.tree.set_xattr(node.number, b"user.b", b"\0")
    mine.tree.set_xattr(node.number, b"user.a", b"")
    mine.tree.set_times(node.number, mtime_ns=-5)
    mine.tree.set_times(node.number, atime_ns=7)
    before_ns = node.ctime_ns
    mine.commit()
    mine.load()
    found = mine.tree.lookup(ROOT, b"a")
    assert (found.xattrs, found.mtime_ns, found.atime_ns, found.ctime_ns) == ({b"user.a": b"", b"user.b": b"\0"}, -5, 7, before_ns)
    mine.tree.remove_xattr(found.number, b"user.a")
    assert found.ctime_ns > before_ns
    assert failure(mine.tree.remove_xattr, found.number, b"user.a") == errno.ENODATA
    assert failure(mine.tree.set_xattr, found.number, b"", b"") == errno.ERANGE


def test_what_is_not_allowed_changes_nothing(mine: LiveSandbox) -> None:
    tree = mine.tree
    file = new_file(mine, b"file", b"1")
    folder = tree.create(ROOT, b"d", NewNode(stat.S_IFDIR | 0o755, 0, 0))
    mine.commit()
    regular = NewNode(stat.S_IFREG | 0o644, 0, 0)
    for name, number in (
        (b"", errno.EINVAL),
        (b"..", errno.EINVAL),
        (b"a/b", errno.EINVAL),
        (b"a\0", errno.EINVAL),
        (b"x" * 256, errno.ENAMETOOLONG),
    ):
        assert failure(tree.create, ROOT, name, regular) == number
        assert failure(tree.lookup, ROOT, name) == number
        assert failure(tree.rename, ROOT, b"file", ROOT, name) == number
    assert failure(tree.create, ROOT, b"l", NewNode(stat.S_IFLNK | 0o777, 0, 0, target=b"x" * 5000)) == errno.ENAMETOOLONG
    assert failure(tree.create, ROOT, b"l", NewNode(stat.S_IFLNK | 0o777, 0, 0)) == errno.EINVAL
    assert failure(tree.write, file.number, 2**63 - 1, b"1") == errno.EFBIG
    assert failure(tree.truncate, file.number, 2**63) == errno.EFBIG
    assert failure(tree.truncate, file.number, -1) == errno.EINVAL
    assert failure(tree.truncate, folder.number, 0) == errno.EISDIR
    assert failure(tree.lookup, file.number, b"x") == errno.ENOTDIR
    assert failure(tree.node, 999) == errno.ESTALE
    assert tree.write(file.number, 10**6, b"") == 0
    assert tree.take_change() is None


def test_a_folder_is_not_replaced_by_what_is_in_it(mine: LiveSandbox) -> None:
    folder = mine.tree.create(ROOT, b"d", NewNode(stat.S_IFDIR | 0o755, 0, 0))
    new_file(mine, b"a", parent=folder.number)
    assert failure(mine.tree.rename, folder.number, b"a", ROOT, b"d") == errno.ENOTEMPTY
    assert failure(mine.tree.rename, folder.number, b"a", ROOT, b"d", Replacing.EXCHANGE) == errno.EINVAL
    assert failure(mine.tree.rename, folder.number, b"a", ROOT, b"d", Replacing.FORBIDDEN) == errno.EEXIST


def test_a_removed_folder_that_is_still_open_takes_nothing_in(mine: LiveSandbox) -> None:
    folder = mine.tree.create(ROOT, b"d", NewNode(stat.S_IFDIR | 0o755, 0, 0))
    file = new_file(mine, b"file")
    mine.tree.keep(folder.number)
    mine.tree.rmdir(ROOT, b"d")
    assert (folder.nlink, mine.tree.names(folder.number)) == (0, [])
    assert failure(mine.tree.create, folder.number, b"x", NewNode(stat.S_IFREG, 0, 0)) == errno.ENOENT
    assert failure(mine.tree.link, file.number, folder.number, b"x") == errno.ENOENT
    assert failure(mine.tree.rename, ROOT, b"file", folder.number, b"x") == errno.ENOENT
    assert mine.tree.parent(folder.number).number == ROOT
    mine.tree.let_go(folder.number)
    assert failure(mine.tree.node, folder.number) == errno.ESTALE


@pytest.mark.parametrize("seed", range(30))
def test_versions_hold_all_but_the_trash(mine: LiveSandbox, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(8):
        for _ in range(rng.randrange(40)):
            do_something(mine, rng, b".Trash-1")
        shapes = snapshot_shapes(mine)
        if mine.publish() is not None:
            latest = mine.store.latest_snapshot(f"live/{NAME}")
            assert latest is not None
            assert stored_shapes(mine.store, latest.snapshot.root) == shapes
        assert mine.tree.waiting() == (0, 0)
        assert waiting(mine.folders.load(NAME)) == (0, 0)
        if rng.random() < 0.3:
            mine.load()


def test_a_file_that_comes_back_from_the_trash_by_another_name_is_in_the_next_version(mine: LiveSandbox) -> None:
    trash, copy = (mine.tree.create(ROOT, name, NewNode(stat.S_IFDIR | 0o755, 0, 0)) for name in (b".Trash-1", b"copy"))
    file = new_file(mine, b"a", b"one")
    mine.tree.link(file.number, copy.number, b"a")
    mine.tree.rename(ROOT, b"copy", trash.number, b"copy")
    mine.publish()
    mine.tree.rename(trash.number, b"copy", ROOT, b"copy")
    shapes = snapshot_shapes(mine)
    stored = mine.publish()
    assert stored is not None
    assert stored_shapes(mine.store, stored.snapshot.root) == shapes


def test_what_was_removed_has_no_path(mine: LiveSandbox) -> None:
    folder = mine.tree.create(ROOT, b"d", NewNode(stat.S_IFDIR | 0o755, 0, 0))
    mine.tree.keep(folder.number)
    assert mine.tree.path(folder.number) == b"d"
    mine.tree.rmdir(ROOT, b"d")
    assert failure(mine.tree.path, folder.number) == errno.ENOENT


def test_a_number_that_was_used_is_not_used_again(mine: LiveSandbox) -> None:
    new_file(mine, b"a", b"one")
    mine.commit()
    head = mine.folders.load(NAME).head
    for bad in (msgspec.structs.replace(head, next_node=2), msgspec.structs.replace(head, next_batch=1)):
        mine.folders.apply(NAME, LiveChange(bad))
        with pytest.raises(CorruptionError, match="counts as unused"):
            mine.load()


def test_much_that_is_written_before_a_commit_is_one_batch(mine: LiveSandbox) -> None:
    files = [new_file(mine, b"%d" % number, b"%d" % number * 100) for number in range(50)]
    change = mine.commit()
    assert change is not None
    assert len(change.batches) == 1
    assert len(mine.folders.load(NAME).batch_bytes) == 1
    for number, file in enumerate(files):
        assert mine.tree.read(file.number, 0, 1000) == b"%d" % number * 100


def test_rows_that_are_of_no_tree_are_damage(mine: LiveSandbox) -> None:
    node = new_file(mine, b"a", b"1")
    mine.commit()
    rows = mine.folders.load(NAME)
    good = rows.nodes[node.number]

    def shorter(stored: bytes) -> bytes:
        row = msgspec.msgpack.decode(stored)
        row[6] = 0
        return msgspec.msgpack.encode(row)

    bad_rows: list[tuple[int, bytes | None]] = [
        (node.number, None),
        (node.number, b"\xc1"),
        (node.number, msgspec.msgpack.encode([99])),
        (node.number, shorter(good)),
        (ROOT, None),
    ]
    for number, row in bad_rows:
        before = rows.nodes[number]
        mine.folders.apply(NAME, LiveChange(rows.head, nodes={number: row}))
        with pytest.raises(CorruptionError, match="is damaged"):
            mine.load()
        mine.folders.apply(NAME, LiveChange(rows.head, nodes={number: before}))
    for key, value in (((ROOT, b"a"), None), ((ROOT, b"b"), node.number), ((node.number, b"x"), node.number), ((ROOT, b"c"), 999)):
        mine.folders.apply(NAME, LiveChange(rows.head, names={key: value}))
        with pytest.raises(CorruptionError, match="is damaged"):
            mine.load()
        mine.folders.apply(NAME, LiveChange(rows.head, names={key: None, (ROOT, b"a"): node.number}))
    mine.load()
    assert mine.tree.read(node.number, 0, 9) == b"1"

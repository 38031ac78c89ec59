# SPDX-License-Identifier: MIT
"""Backing real folders up."""

import errno
import fcntl
import itertools
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engine.planting import plant
from tests.engine.sandbox import MakeStore, Sandbox, both_kinds
from yester.core.content import EMPTY, iter_spans
from yester.core.ids import ChunkId
from yester.core.records import ANY_XATTR, RECORD_VERSION, TIME_NS_MAX, Entry, Tree, decode_seen, decode_tree, encode_tree
from yester.engine.backup import BackupOptions, DryRun, back_up, default_source_name
from yester.engine.check import check
from yester.engine.compare import compare
from yester.engine.files import FileReader, iter_pieces
from yester.engine.scan import BackupProgress
from yester.engine.source import SourceReader, make_entry
from yester.engine.trees import TreeReader
from yester.errors import ConflictError, CorruptionError, NotFoundError, StoreAccessError, UsageError
from yester.store.chunks import ChunkWriter
from yester.store.damage import count_damaged, note_damaged
from yester.store.lmdb import Environment, Table, WriteTransaction
from yester.store.snapshots import seen_change
from yester.store.store import Store

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and from then on reading any file is an error of the test."""

    def forbid() -> None:
        def refuse(_self: SourceReader, _directory: int, name: bytes, *_: object) -> None:
            message = f"{name!r} was read again"
            raise AssertionError(message)

        monkeypatch.setattr(SourceReader, "read_file", refuse)

    return forbid


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_files_of_all_sizes_come_back(small_sandbox: Sandbox) -> None:
    sizes = [0, 1, 63, 64, 65, 1023, 1024, 1025, 10_000, 200_000]
    for size in sizes:
        small_sandbox.write(f"f{size}", os.urandom(size))
    result = small_sandbox.back_up()
    for size in sizes:
        assert small_sandbox.read(f"f{size}") == (small_sandbox.folder / f"f{size}").read_bytes()
    assert (result.snapshot.totals.files, result.snapshot.totals.size_bytes) == (len(sizes), sum(sizes))
    assert result.snapshot.added.new_files == len(sizes)


@both_kinds
def test_metadata_of_files_and_folders_is_kept(sandbox: Sandbox) -> None:
    file = sandbox.write("d/file", b"data")
    file.chmod(0o4751)
    os.utime(file, ns=(-5_000_000_001, 1_234_567_890_123_456_789))
    os.utime(file.parent, ns=(1, 2))
    (sandbox.folder / "d").chmod(0o1700)
    sandbox.back_up()
    entry, folder = sandbox.entry("d/file"), sandbox.entry("d")
    assert (entry.mode, entry.mtime_ns, entry.atime_ns) == (stat.S_IFREG | 0o4751, 1_234_567_890_123_456_789, -5_000_000_001)
    assert (folder.mode, folder.mtime_ns) == (stat.S_IFDIR | 0o1700, 2)
    tree = TreeReader(sandbox.store.reader()).read(folder.tree)
    assert tree.users[os.geteuid()] == sandbox.results[0].snapshot.user


@needs_root
def test_owners_are_kept_whether_they_have_names_or_not(sandbox: Sandbox) -> None:
    os.chown(sandbox.write("nameless"), 4_294_967_294, 123_456_789)
    os.chown(sandbox.write("named"), 0, 0)
    sandbox.back_up()
    assert (sandbox.entry("nameless").uid, sandbox.entry("nameless").gid) == (4_294_967_294, 123_456_789)
    tree = TreeReader(sandbox.store.reader()).read(sandbox.entry("").tree)
    assert (tree.users, tree.groups) == ({0: "root"}, {0: "root"})


def test_symlinks_are_kept_and_not_followed(sandbox: Sandbox) -> None:
    targets = {"to-file": b"file", "dangling": b"/nowhere", "loop": b"loop", "long": b"x" * 4095, "strange": b"\xff\n../"}
    for name, target in targets.items():
        os.symlink(target, os.fsencode(sandbox.folder / name))
    sandbox.write("file", b"1")
    sandbox.back_up()
    for name, target in targets.items():
        entry = sandbox.entry(name)
        assert (stat.S_ISLNK(entry.mode), entry.content, entry.size) == (True, target, len(target))


@both_kinds
def test_hard_links_are_read_and_counted_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sandbox.write("a", b"linked")
    (sandbox.folder / "d").mkdir()
    os.link(first, sandbox.folder / "d" / "b")
    reads: list[bytes] = []
    hook_reads(monkeypatch, reads.append)
    result = sandbox.back_up()
    one, other = sandbox.entry("a"), sandbox.entry("d/b")
    assert reads == [b"a"]
    assert one.rare.nlink == 2
    assert one.rare.link == other.rare.link == (first.stat().st_dev, first.stat().st_ino)
    assert one.content == other.content
    assert result.snapshot.totals.size_bytes == 6


@pytest.fixture
def xattrs(sandbox: Sandbox) -> None:
    """Skips where the file system has none."""
    try:
        os.setxattr(sandbox.folder, "user.test", b"")
        os.removexattr(sandbox.folder, "user.test")
    except OSError as error:
        pytest.skip(f"no extended attributes: {error}")


@pytest.mark.usefixtures("xattrs")
def test_extended_attributes_are_kept(sandbox: Sandbox) -> None:
    file = sandbox.write("file")
    os.setxattr(file, "user.b", b"\0\xff")
    os.setxattr(file, "user.a", b"")
    os.setxattr(sandbox.write("d/x").parent, "user.folder", b"1")
    sandbox.back_up()
    assert sandbox.entry("file").rare.xattrs == ((b"user.a", b""), (b"user.b", b"\0\xff"))
    assert sandbox.entry("d").rare.xattrs == ((b"user.folder", b"1"),)
    assert sandbox.results[0].snapshot.xattr_names == (b"user.a", b"user.b", b"user.folder")


@pytest.mark.usefixtures("xattrs")
def test_an_attribute_that_cannot_be_read_is_a_problem_of_its_own(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it belongs to is in the snapshot, and is looked at again next time."""
    for path in (sandbox.write("d/file", b"1"), sandbox.folder / "d"):
        os.setxattr(path, "user.bad", b"1")
        os.setxattr(path, "user.good", b"1")
    getxattr = os.getxattr

    def fail(path: Any, name: str, *, follow_symlinks: bool = True) -> bytes:  # noqa: ANN401 (whatever os takes)
        if name == "user.bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return getxattr(path, name, follow_symlinks=follow_symlinks)

    with monkeypatch.context() as patched:
        patched.setattr(os, "getxattr", fail)
        for _ in range(2):
            sandbox.back_up()
            reason = "its attribute user.bad cannot be read, and is left out: Input/output error"
            assert sandbox.problems() == [(b"d", reason), (b"d/file", reason)]
            assert sandbox.read("d/file") == b"1"
            assert [sandbox.entry(path).rare.xattrs for path in ("d", "d/file")] == [((b"user.good", b"1"),)] * 2
    sandbox.back_up()
    assert sandbox.problems() == []
    assert [len(sandbox.entry(path).rare.xattrs) for path in ("d", "d/file")] == [2, 2]


def test_rules_that_are_too_large_are_not_used_in_part(sandbox: Sandbox) -> None:
    sandbox.write(".yesterignore", b"#" * (1 << 20) + b"\nfile\n")
    sandbox.write("file")
    sandbox.back_up()
    assert sandbox.problems() == [(b".yesterignore", "its rules are not used: it is larger than 1 MiB")]
    assert sandbox.names() == [b".yesterignore", b"file"]


@pytest.mark.usefixtures("xattrs")
def test_names_of_xattrs_of_unchanged_folders_are_known(sandbox: Sandbox) -> None:
    os.setxattr(sandbox.write("deep/er/file"), "user.deep", b"1")
    os.setxattr(sandbox.folder / "deep", "user.folder", b"1")
    sandbox.write("other")
    for _ in range(3):
        assert sandbox.back_up().snapshot.xattr_names == (b"user.deep", b"user.folder")
        sandbox.write("other", os.urandom(3))


@pytest.mark.usefixtures("xattrs")
def test_too_many_names_of_xattrs_are_not_listed(sandbox: Sandbox) -> None:
    for number in range(65):
        os.setxattr(sandbox.write(f"f{number}"), f"user.{number}", b"")
    assert sandbox.back_up().snapshot.xattr_names == (ANY_XATTR,)
    assert sandbox.back_up().snapshot.xattr_names == (ANY_XATTR,)


@pytest.mark.usefixtures("xattrs")
def test_acls_are_kept_as_they_are(sandbox: Sandbox) -> None:
    acl = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff")
    file = sandbox.write("file")
    try:
        os.setxattr(file, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no ACLs: {error}")
    sandbox.back_up()
    assert sandbox.entry("file").rare.xattrs == ((b"system.posix_acl_access", os.getxattr(file, "system.posix_acl_access")),)


def test_special_files_are_kept_and_never_opened(sandbox: Sandbox) -> None:
    os.mkfifo(sandbox.folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(".", os.O_RDONLY)
        os.chdir(sandbox.folder)  # the path of a socket is short
        try:
            listener.bind("socket")
        finally:
            os.fchdir(here)
            os.close(here)
        result = sandbox.back_up()
    assert stat.S_ISFIFO(sandbox.entry("fifo").mode)
    assert stat.S_ISSOCK(sandbox.entry("socket").mode)
    assert (result.problems, result.snapshot.totals.others) == ((), 2)


@needs_root
def test_device_nodes_are_kept(sandbox: Sandbox) -> None:
    try:
        os.mknod(sandbox.folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(sandbox.folder / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 1_000_000))
    except OSError as error:
        pytest.skip(f"no device nodes: {error}")
    sandbox.back_up()
    assert (stat.S_ISCHR(sandbox.entry("null").mode), sandbox.entry("null").rare.rdev) == (True, os.makedev(1, 3))
    assert (stat.S_ISBLK(sandbox.entry("disk").mode), sandbox.entry("disk").rare.rdev) == (True, os.makedev(259, 1_000_000))


def test_names_of_any_bytes_are_kept(sandbox: Sandbox) -> None:
    names = sorted([b"\xff\xfe", b"new\nline", b"-n", b" ", b"x" * 255, "ä".encode(), "a\u0308".encode(), b"\\", b"\x01"])
    for name in names:
        sandbox.write(name, name)
    sandbox.back_up()
    assert sandbox.names() == names
    for name in names:
        assert sandbox.read(name) == name


def test_a_sparse_file_of_a_tebibyte_costs_its_data_alone(sandbox: Sandbox) -> None:
    file = sandbox.write("sparse")
    size = 1 << 40
    with file.open("wb") as data:
        data.write(b"start")
        data.seek(size // 2)
        data.write(b"middle")
        data.truncate(size)
    sandbox.back_up()
    entry = sandbox.entry("sparse")
    assert (entry.size, sandbox.problems()) == (size, [])
    assert entry.stored_bytes < 1 << 20
    pieces = list(iter_pieces(sandbox.store.reader(), entry.file_content))
    assert sum(length for length, _ in pieces) == size
    assert b"".join(bytes(data) for _, data in pieces if data is not None).strip(b"\0").startswith(b"start")


def test_a_file_that_ends_or_begins_with_a_hole_comes_back(sandbox: Sandbox) -> None:
    for name, offset, size in (("begin", 1 << 20, 0), ("end", 0, 1 << 20), ("only", 0, 3_000_000)):
        with sandbox.write(name).open("wb") as data:
            data.seek(offset)
            data.write(b"" if name == "only" else b"data")
            data.truncate(offset + size + 4)
    sandbox.back_up()
    for name in ("begin", "end", "only"):
        assert sandbox.read(name) == (sandbox.folder / name).read_bytes()
        assert sandbox.entry(name).rare.hole_bytes > 0


@contextmanager
def deep_folder(folder: Path, names: list[str]) -> Iterator[None]:
    """Folders within each other, below each of which there may be others; deeper than any path can be."""
    here = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    try:
        for name in names:
            os.mkdir(name)
            os.chdir(name)
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def find_deep(sandbox: Sandbox, names: list[bytes]) -> Entry:
    return TreeReader(sandbox.store.reader()).get(sandbox.results[-1].snapshot.root, b"/".join(names))


def test_paths_may_be_deeper_than_path_max(sandbox: Sandbox) -> None:
    names = [f"{number:03}".ljust(60, "x") for number in range(300)]
    with deep_folder(sandbox.folder, names):
        Path("bottom").write_bytes(b"deep")
    result = sandbox.back_up()
    assert result.problems == ()
    assert result.snapshot.totals.directories == 301
    assert find_deep(sandbox, [name.encode() for name in [*names, "bottom"]]).size == 4
    assert sandbox.back_up().snapshot.added.chunk_bytes == 0
    subprocess.run(["rm", "-rf", sandbox.folder / names[0]], check=True)


def test_deep_folders_may_have_many_folders_each(sandbox: Sandbox) -> None:
    """Parents are closed on the way down and found again on the way up, again and again."""
    names = ["d"] * 70
    with deep_folder(sandbox.folder, names):
        for _ in range(10):
            for name in "abc":
                Path(name, "e").mkdir(parents=True)
                Path(name, "e", "file").write_bytes(name.encode())
            os.chdir("..")
    result = sandbox.back_up()
    assert (result.problems, result.vanished) == ((), 0)
    for depth in range(61, 71):
        for folder in (b"a", b"b", b"c"):
            assert find_deep(sandbox, [b"d"] * depth + [folder, b"e", b"file"]).size == 1


def test_a_folder_of_100_000_entries_is_kept_and_a_change_in_it_is_cheap(sandbox: Sandbox) -> None:
    for number in range(100_000):
        os.mknod(sandbox.folder / f"f{number:06}")
    sandbox.back_up()
    assert len(sandbox.names()) == 100_000
    sandbox.write("f050000", b"changed")
    added = sandbox.back_up().snapshot.added
    assert (added.new_files, added.changed_files) == (0, 1)
    assert added.chunk_bytes < 2_000_000


def test_no_file_stays_open(sandbox: Sandbox) -> None:
    with deep_folder(sandbox.folder, ["d"] * 80):
        Path("file").write_bytes(b"1")
    sandbox.back_up()
    before = os.listdir("/proc/self/fd")
    sandbox.back_up()
    assert len(os.listdir("/proc/self/fd")) == len(before)


# --- what has changed -------------------------------------------------------------------------------------------------


def test_unchanged_files_are_never_read_again(sandbox: Sandbox, no_reading: Callable[[], None]) -> None:
    sandbox.write("a", b"1")
    sandbox.write("d/b", b"2")
    first = sandbox.back_up()
    no_reading()
    second = sandbox.back_up()
    assert second.snapshot.root.content == first.snapshot.root.content
    assert (second.snapshot.added.changed_files, second.snapshot.added.chunk_bytes) == (0, 0)
    assert second.snapshot.totals == first.snapshot.totals


@pytest.mark.parametrize("change", ["content", "mtime", "mode", "xattr", "replaced", "same-mtime"])
def test_every_change_of_a_file_is_seen(sandbox: Sandbox, change: str) -> None:
    file = sandbox.write("d/a", b"old")
    sandbox.write("d/b", b"other")
    sandbox.back_up()
    before = sandbox.entry("d/a")
    while file.stat().st_ctime_ns >= time.time_ns() - 20_000_000:
        time.sleep(0.001)  # the next change must fall into another tick of the clock
    if change == "content":
        file.write_bytes(b"new")
    elif change == "mtime":
        os.utime(file, ns=(1, 1))
    elif change == "mode":
        file.chmod(0o600)
    elif change == "xattr":
        os.setxattr(file, "user.new", b"1")
    elif change == "replaced":
        sandbox.write("d/.a.tmp", b"new")
        (sandbox.folder / "d/.a.tmp").rename(file)
    elif change == "same-mtime":
        status = file.stat()
        file.write_bytes(b"new")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    sandbox.back_up()
    assert sandbox.entry("d/a") != before
    assert sandbox.read("d/a") == file.read_bytes()
    assert sandbox.names("d") == [b"a", b"b"]
    assert sandbox.read("d/a", sandbox.results[0]) == b"old"


def test_an_access_time_alone_changes_nothing(sandbox: Sandbox) -> None:
    file = sandbox.write("a", b"1")
    first = sandbox.back_up()
    os.utime(file, ns=(file.stat().st_atime_ns + 10**9, file.stat().st_mtime_ns))
    assert sandbox.back_up().snapshot.root.content == first.snapshot.root.content


def test_reading_leaves_access_times_alone(sandbox: Sandbox) -> None:
    file = sandbox.write("a", b"1")
    os.utime(file, ns=(1, 10**18))
    sandbox.back_up()
    assert file.stat().st_atime_ns == 1


def test_fresh_files_are_read_again(sandbox: Sandbox) -> None:
    """A write in the same tick of the clock, after the backup read the file, would have the same time stamps."""
    sandbox.is_now = True
    file = sandbox.write("a", b"before")
    first = sandbox.back_up()
    status = file.stat()
    # What a coarse clock would do: new bytes, no new time stamp. The ctime cannot be set, so the record is.
    file.write_bytes(b"later!")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    _pretend_ctime(sandbox, first.snapshot.root, file)
    sandbox.back_up()
    assert sandbox.read("a") == b"later!"


def _pretend_ctime(sandbox: Sandbox, root: Entry, file: Path) -> None:
    """Rewrite the marks of the root folder as if the file had had its ctime of now all along; no mark stays no mark."""
    store = sandbox.store
    seen = store.find_seen("docs", b"")
    assert seen is not None
    assert seen.tree == root.content
    marks = tuple(mark if mark == (0, 0) else (mark[0], file.stat().st_ctime_ns) for mark in seen.marks)
    with store.backup_lock(lambda _: None), store.writer() as writer:
        writer.after_trees(seen_change("docs", b"", msgspec.structs.replace(seen, marks=marks)))


def test_settled_files_are_trusted_and_fresh_ones_are_not(sandbox: Sandbox, no_reading: Callable[[], None]) -> None:
    sandbox.is_now = True
    sandbox.write("a", b"1")
    sandbox.back_up()
    seen = sandbox.store.find_seen("docs", b"")
    assert seen is not None
    assert seen.marks == ((0, 0),)
    sandbox.is_now = False
    sandbox.back_up()
    seen = sandbox.store.find_seen("docs", b"")
    assert seen is not None
    assert seen.marks != ((0, 0),)
    no_reading()
    sandbox.back_up()


def test_a_deleted_file_does_not_come_back(sandbox: Sandbox) -> None:
    for is_now in (True, False):
        sandbox.is_now = is_now
        sandbox.write("d/gone", b"1")
        sandbox.write("d/kept", b"1")
        sandbox.back_up()
        (sandbox.folder / "d/gone").unlink()
        sandbox.back_up()
        assert sandbox.names("d") == [b"kept"]


def test_a_folder_that_was_emptied_is_empty(sandbox: Sandbox) -> None:
    file = sandbox.write("d/a", b"1")
    sandbox.back_up()
    file.unlink()
    sandbox.back_up()
    assert sandbox.names("d") == []


def test_a_folder_that_comes_back_is_found_again(sandbox: Sandbox) -> None:
    sandbox.write("d/a", b"1")
    sandbox.back_up()
    (sandbox.folder / "d").rename(sandbox.folder / "e")
    sandbox.back_up()
    (sandbox.folder / "e").rename(sandbox.folder / "d")
    assert sandbox.back_up().snapshot.added.chunk_bytes < 1000
    assert (sandbox.names(), sandbox.names("d")) == ([b"d"], [b"a"])


def test_a_file_that_becomes_a_folder_and_back_is_kept_as_it_is(sandbox: Sandbox) -> None:
    sandbox.write("x", b"file")
    sandbox.back_up()
    (sandbox.folder / "x").unlink()
    sandbox.write("x/inside", b"1")
    sandbox.back_up()
    assert sandbox.read("x/inside") == b"1"
    (sandbox.folder / "x/inside").unlink()
    (sandbox.folder / "x").rmdir()
    (sandbox.folder / "x").symlink_to("inside")
    sandbox.back_up()
    assert sandbox.entry("x").content == b"inside"


def test_moved_files_cost_nothing(sandbox: Sandbox) -> None:
    sandbox.write("old/name", os.urandom(3_000_000))
    sandbox.back_up()
    (sandbox.folder / "old").rename(sandbox.folder / "new")
    assert sandbox.back_up().snapshot.added.chunk_bytes < 10_000


def lose(sandbox: Sandbox, path: str) -> None:
    """Note the first chunk of a file as damaged."""
    chunk = ChunkId(sandbox.entry(path).content[:32])
    sandbox.store.environment.write(lambda transaction: note_damaged(transaction, chunk, now_ns=sandbox.now_ns))


@pytest.mark.parametrize("data", [b"small", random.Random(4).randbytes(12_000)])
def test_an_unchanged_file_with_damage_is_read_and_stored_again(small_sandbox: Sandbox, data: bytes) -> None:
    """Its marks say that it need not be; the second has a span list, which is what is lost of it."""
    before = small_sandbox.write("d/lost", data)
    small_sandbox.write("d/kept", b"other")
    os.link(before, small_sandbox.folder / "d" / "twin")
    first = small_sandbox.back_up()
    lose(small_sandbox, "d/lost")
    assert count_damaged(small_sandbox.store.environment) == 1
    second = small_sandbox.back_up()
    assert count_damaged(small_sandbox.store.environment) == 0
    assert small_sandbox.read("d/lost", first) == small_sandbox.read("d/twin", second) == data
    assert second.snapshot.root.content == first.snapshot.root.content
    assert check(small_sandbox.store, read_data=True).is_whole


def test_a_chunk_below_a_span_list_is_healed(small_sandbox: Sandbox) -> None:
    data = random.Random(5).randbytes(30_000)
    small_sandbox.write("big", data)
    small_sandbox.back_up()
    content = small_sandbox.entry("big").file_content
    *_, last = iter_spans(content, small_sandbox.store.reader().read)
    small_sandbox.store.environment.write(lambda transaction: note_damaged(transaction, last.chunk, now_ns=1))
    small_sandbox.back_up()
    assert small_sandbox.read("big") == data
    assert count_damaged(small_sandbox.store.environment) == 0


def test_damage_in_what_is_gone_from_the_source_stays_known(damaged_sandbox: Sandbox) -> None:
    gone = damaged_sandbox.write("gone", b"gone")
    damaged_sandbox.write("here", b"here")
    first = damaged_sandbox.back_up()
    lose(damaged_sandbox, "gone")
    gone.unlink()
    second = damaged_sandbox.back_up()
    assert second.snapshot.added.new_files == 0
    assert count_damaged(damaged_sandbox.store.environment) == 1
    with pytest.raises(CorruptionError, match="found it nowhere"):
        damaged_sandbox.read("gone", first)


def test_where_nothing_is_damaged_no_unchanged_file_is_read_again(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.write("a", b"1")
    sandbox.back_up()
    monkeypatch.setattr(SourceReader, "read_file", None)
    sandbox.back_up()


@pytest.mark.expect_log("is read again")
def test_a_damaged_tree_is_made_anew(damaged_sandbox: Sandbox) -> None:
    """Also for a folder that is empty now: nothing may be taken over from what cannot be read."""
    file = damaged_sandbox.write("d/a", b"1")
    damaged_sandbox.write("e/b", b"1")
    damaged_sandbox.back_up()
    trees = [damaged_sandbox.entry(name).tree for name in ("d", "e")]
    elsewhere = damaged_sandbox.store.environment.get(Table.CHUNKS, damaged_sandbox.entry("d/a").content[:32]) or b""

    def put_all(transaction: WriteTransaction) -> None:
        for tree in trees:
            transaction.put(Table.CHUNKS, tree, elsewhere)

    damaged_sandbox.store.environment.write(put_all)
    file.unlink()
    result = damaged_sandbox.back_up(source="docs")
    assert result.problems == ()
    assert damaged_sandbox.names("d") == []
    assert damaged_sandbox.names("e") == [b"b"]


@pytest.mark.expect_log("is read again")
def test_what_a_damaged_segment_held_of_a_folder_is_stored_again(damaged_sandbox: Sandbox) -> None:
    """Its tree, the lists of its files and their bytes, for all snapshots that have the same."""
    damaged_sandbox.write("d/large", random.Random(1).randbytes(12_000_000))
    damaged_sandbox.write("d/small", b"1")
    damaged_sandbox.back_up()
    before = damaged_sandbox.read("d/large")

    def damage_all(transaction: WriteTransaction) -> None:
        for key, segment in list(transaction.iterate(Table.SEGMENTS)):
            transaction.put(Table.SEGMENTS, key, bytes(segment[:-10]) + bytes(10))

    damaged_sandbox.store.environment.write(damage_all)
    assert damaged_sandbox.back_up().problems == ()
    assert damaged_sandbox.read("d/large") == before
    assert damaged_sandbox.read("d/small") == b"1"
    assert damaged_sandbox.back_up().snapshot.added.chunk_bytes == 0


@pytest.mark.expect_log("scan record")
def test_a_damaged_memory_of_the_last_backup_is_made_anew(sandbox: Sandbox) -> None:
    sandbox.write("d/a", b"1")
    sandbox.back_up()
    with sandbox.store.environment.read() as view:
        keys = [key for key, _ in view.iterate(Table.SCAN)]
    for damage in (b"\xc1", b"", b"\x93\x01\xc4\x00\x90"):
        for key in keys:
            _put(sandbox.store, key, damage)
        sandbox.back_up()
        assert sandbox.read("d/a") == b"1"
    assert decode_seen(sandbox.store.environment.get(Table.SCAN, keys[0]) or b"").marks


def _put(store: Store, key: bytes, value: bytes) -> None:
    store.environment.write(lambda transaction: transaction.put(Table.SCAN, key, value))


# --- a source that changes, or cannot be read -------------------------------------------------------------------------


def hook_reads(monkeypatch: pytest.MonkeyPatch, before: Callable[[bytes], None]) -> None:
    """Call `before` with a file's name each time its bytes are about to be read, after it was opened."""
    read_bytes = SourceReader._read_bytes
    names: list[bytes] = []
    open_file = SourceReader._open

    def note_name(self: SourceReader, directory: int, name: bytes) -> int:
        names.append(name)
        return open_file(self, directory, name)

    def read(self: SourceReader, file: int, status: os.stat_result) -> object:
        before(names[-1])
        return read_bytes(self, file, status)

    monkeypatch.setattr(SourceReader, "_open", note_name)
    monkeypatch.setattr(SourceReader, "_read_bytes", read)


@pytest.mark.parametrize(("before", "after"), [(b"short", b"now much longer"), (b"x" * 3_000_000, b"short"), (b"", b"x"), (b"x", b"")])
def test_a_file_that_changes_once_while_it_is_read_is_stored_as_it_ends(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, before: bytes, after: bytes
) -> None:
    file = sandbox.write("a", before)
    changes = [after]

    def change(_name: bytes) -> None:
        if changes:
            file.write_bytes(changes.pop())

    hook_reads(monkeypatch, change)
    sandbox.back_up()
    assert sandbox.problems() == []
    assert sandbox.read("a") == after


@pytest.mark.parametrize("sizes", [range(10, 1000, 10), range(3_000_000, 0, -100_000), range(0, 30_000_000, 3_000_000)])
def test_a_file_that_goes_on_changing_is_a_problem_and_is_read_again_next_time(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, sizes: range
) -> None:
    file = sandbox.write("a", b"x" * sizes[0])
    sandbox.write("b", b"calm")
    waiting = iter(sizes[1:])

    def change(name: bytes) -> None:
        if name == b"a":
            os.truncate(file, next(waiting))

    with monkeypatch.context() as patch:
        hook_reads(patch, change)
        sandbox.back_up()
    assert sandbox.problems() == [(b"a", "changed while it was read: what was read is stored")]
    assert sandbox.results[0].snapshot.skipped == 1
    assert sandbox.read("b") == b"calm"
    assert sandbox.entry("a").size == len(sandbox.read("a"))
    sandbox.back_up()
    assert sandbox.problems() == []
    assert sandbox.read("a") == file.read_bytes()


def test_a_file_that_grows_as_fast_as_it_is_read_does_not_hold_the_backup_up(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sandbox.write("log", b"x" * 1_000_000)
    inode = file.stat().st_ino
    read = os.read

    def grow(handle: int, count: int) -> bytes:
        if os.fstat(handle).st_ino == inode:
            os.truncate(file, file.stat().st_size + count)
        return read(handle, count)

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", grow)
        sandbox.back_up()
    assert sandbox.problems() == [(b"log", "changed while it was read: what was read is stored")]
    assert 1_000_000 < sandbox.entry("log").size < 100_000_000


def test_a_source_that_vanishes_is_not_quietly_stored_in_part(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        sandbox.write(f"d{number}/file", b"%d" % number)
    hook_reads(monkeypatch, lambda _name: shutil.rmtree(sandbox.folder, ignore_errors=True))
    sandbox.back_up()
    [(_, reason)] = sandbox.problems()
    assert reason == "was removed or moved while it was backed up: what is in the snapshot may not be all"


@pytest.mark.parametrize("time_s", [20_000_000_000, -20_000_000_000])
def test_a_time_that_cannot_be_stored_becomes_the_nearest(sandbox: Sandbox, time_s: int) -> None:
    sandbox.write("file", b"1")
    fields = list((sandbox.folder / "file").lstat())
    status = os.stat_result([*fields[:8], time_s, *fields[9:]], {"st_mtime_ns": time_s * 10**9, "st_atime_ns": time_s * 10**9})
    entry = make_entry(b"file", status, EMPTY)
    assert entry.mtime_ns == entry.atime_ns == (TIME_NS_MAX if time_s > 0 else -TIME_NS_MAX)
    tree = Tree(RECORD_VERSION, {}, {}, (entry,))
    assert decode_tree(encode_tree(tree)) == tree


def test_files_and_folders_may_vanish(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After they were listed, before they are opened."""
    for name in ("a", "b", "d/file", "z"):
        sandbox.write(name, name.encode())

    def vanish(name: bytes) -> None:
        if name == b"a":
            (sandbox.folder / "b").unlink()
            (sandbox.folder / "d/file").unlink()
            (sandbox.folder / "d").rmdir()

    hook_reads(monkeypatch, vanish)
    result = sandbox.back_up()
    assert (sandbox.problems(), result.vanished) == ([], 2)
    assert sandbox.names() == [b"a", b"z"]


def test_a_file_may_become_something_else(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO that takes a file's place must not hang the backup, nor a symlink lead it astray."""
    for name in ("a", "b", "c", "d"):
        sandbox.write(name, b"1")
    secret = sandbox.folder.parent / "secret"
    secret.write_bytes(b"secret")
    places: dict[bytes, Callable[[Path], None]] = {b"b": os.mkfifo, b"c": lambda path: path.symlink_to(secret), b"d": Path.mkdir}
    open_file = SourceReader._open

    def replace(self: SourceReader, directory: int, name: bytes) -> int:
        if name in places:
            path = sandbox.folder / os.fsdecode(name)
            path.unlink()
            places[name](path)
        return open_file(self, directory, name)

    monkeypatch.setattr(SourceReader, "_open", replace)
    sandbox.back_up()
    assert [path for path, _ in sandbox.problems()] == [b"b", b"c", b"d"]
    assert sandbox.names() == [b"a"]


def test_a_folder_may_become_a_symlink(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.write("d/file", b"1")
    sandbox.write("e", b"1")
    outside = sandbox.folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")

    def replace(name: bytes) -> None:
        if name == b"e":
            (sandbox.folder / "d").rename(sandbox.folder.parent / "moved")
            (sandbox.folder / "d").symlink_to(outside)

    hook_reads(monkeypatch, replace)
    sandbox.back_up()
    assert [path for path, _ in sandbox.problems()] == [b"d"]
    assert sandbox.names() == [b"e"]


def test_a_deep_folder_may_be_moved_away(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its closed parents cannot be found again through `..` then."""
    with deep_folder(sandbox.folder, ["d"] * 80):
        Path("file").write_bytes(b"1")
    sandbox.write("/".join(["d"] * 10 + ["other", "file"]), b"1")
    deep = sandbox.folder / "/".join(["d"] * 11)

    def move(name: bytes) -> None:
        if name == b"file" and deep.exists():
            deep.rename(sandbox.folder.parent / "moved")

    hook_reads(monkeypatch, move)
    result = sandbox.back_up()
    assert [reason for _, reason in sandbox.problems()] == ["was moved while it was backed up: some of its folders are missing"]
    assert result.vanished == 1


@not_as_root
def test_what_may_not_be_read_is_a_problem(sandbox: Sandbox) -> None:
    _check_unreadable(sandbox)


@needs_root
def test_what_may_not_be_read_is_a_problem_for_an_ordinary_user() -> None:
    """As `nobody`, in a process of its own."""
    program = """
import os, sys
from pathlib import Path
from yester.engine.backup import BackupOptions, back_up
from yester.store.store import Store
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # only now: nobody may not be allowed to read these modules
folder, path = map(Path, sys.argv[1:])
for name in ("file", "folder/inside", "readable"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"1")
(folder / "file").chmod(0)
(folder / "folder").chmod(0)
with Store.create(path) as store:
    result = back_up(store, [folder], BackupOptions())
    print(sorted((problem.path.decode().rsplit("/")[-1], problem.reason) for problem in result.problems))
    print(result.snapshot.totals.files, result.snapshot.skipped)
"""
    folder = Path("/tmp") / f"yester-{os.getpid()}"
    folder.mkdir()
    try:
        os.chown(folder, 65534, 65534)
        (folder / "source").mkdir()
        os.chown(folder / "source", 65534, 65534)
        command = [sys.executable, "-c", program, os.fspath(folder / "source"), os.fspath(folder / "store")]
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)
    assert ran.stdout.splitlines() == [
        "[('file', 'cannot be read: Permission denied'), ('folder', 'cannot be opened: Permission denied')]",
        "1 2",
    ]


def _check_unreadable(sandbox: Sandbox) -> None:
    sandbox.write("file", b"1").chmod(0)
    sandbox.write("folder/inside", b"1").parent.chmod(0)
    sandbox.write("readable", b"1")
    sandbox.back_up()
    (sandbox.folder / "folder").chmod(0o700)
    assert sandbox.problems() == [(b"file", "cannot be read: Permission denied"), (b"folder", "cannot be opened: Permission denied")]
    assert sandbox.names() == [b"readable"]


def test_an_error_while_reading_is_a_problem_of_that_file(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        sandbox.write(name, b"1")

    def fail(name: bytes) -> None:
        if name == b"b":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        hook_reads(patch, fail)
        sandbox.back_up()
    assert sandbox.problems() == [(b"b", "cannot be read: Input/output error")]
    assert sandbox.names() == [b"a", b"c"]
    sandbox.back_up()
    assert sandbox.names() == [b"a", b"b", b"c"]


def test_a_folder_that_lists_a_name_twice_is_no_problem(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some file systems do for a name that is renamed meanwhile."""
    sandbox.write("a", b"1")
    scandir = os.scandir

    @contextmanager
    def scan_twice(handle: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(handle) as listing:
            yield list(listing) * 2

    with monkeypatch.context() as patch:
        patch.setattr("yester.engine.scan.os.scandir", scan_twice)
        sandbox.back_up()
    assert sandbox.names() == [b"a"]


# --- what is left out -------------------------------------------------------------------------------------------------


def test_rules_leave_files_and_folders_out(sandbox: Sandbox) -> None:
    for name in ("keep.txt", "drop.o", "build/x", "src/build/x", "src/keep.o", "src/a.o"):
        sandbox.write(name, b"1")
    result = sandbox.back_up(exclude=("*.o", "build/", "!keep.o"))
    assert (sandbox.names(), sandbox.names("src")) == ([b"keep.txt", b"src"], [b"keep.o"])
    assert (result.excluded, sandbox.problems()) == (4, [])


def test_rule_files_in_the_source_hold_below_their_folder(sandbox: Sandbox) -> None:
    for name in ("a/x.tmp", "a/deep/x.tmp", "a/deep/keep.tmp", "b/x.tmp", "a/only-here", "b/only-here"):
        sandbox.write(name, b"1")
    sandbox.write("a/.yesterignore", b"*.tmp\n/only-here\n# a comment\n")
    sandbox.write("a/deep/.yesterignore", b"!keep.tmp\n")
    sandbox.back_up()
    assert sandbox.names("a") == [b".yesterignore", b"deep"]
    assert sandbox.names("a/deep") == [b".yesterignore", b"keep.tmp"]
    assert sandbox.names("b") == [b"only-here", b"x.tmp"]


def test_new_rules_take_files_out_of_the_next_snapshot(sandbox: Sandbox) -> None:
    sandbox.write("d/a.tmp", b"1")
    sandbox.back_up()
    sandbox.back_up(exclude=("*.tmp",))
    assert sandbox.names("d") == []
    sandbox.back_up()
    assert sandbox.names("d") == [b"a.tmp"]


def test_a_rule_file_that_is_none_is_a_problem_and_no_reason_to_stop(sandbox: Sandbox) -> None:
    sandbox.write("a/.yesterignore", b"[\n")
    sandbox.write("a/x", b"1")
    (sandbox.folder / "b/.yesterignore").mkdir(parents=True)
    (sandbox.folder / "c").mkdir()
    os.mkfifo(sandbox.folder / "c/.yesterignore")
    sandbox.write("c/x", b"1")
    sandbox.back_up()
    assert [path for path, _ in sandbox.problems()] == [b"a/.yesterignore"]
    assert (sandbox.names("a"), sandbox.names("c")) == ([b".yesterignore", b"x"], [b".yesterignore", b"x"])


def test_a_line_that_is_no_rule_does_not_switch_off_the_others(sandbox: Sandbox) -> None:
    sandbox.write(".yesterignore", b"*.tmp\n[bad\nsecret*\n")
    for name in ("a.tmp", "secret1", "kept"):
        sandbox.write(name)
    sandbox.back_up()
    assert sandbox.names() == [b".yesterignore", b"kept"]
    assert sandbox.problems() == [(b".yesterignore", "'[bad' is not a rule: a [ has no ]")]


def test_rules_can_come_from_files(sandbox: Sandbox) -> None:
    rules = sandbox.folder.parent / "rules"
    rules.write_bytes(b"*.o\n\xff\n")
    sandbox.write("a.o")
    sandbox.write(b"\xff")
    sandbox.write("b")
    sandbox.back_up(exclude_from=(rules,))
    assert sandbox.names() == [b"b"]
    with pytest.raises(UsageError, match="cannot read the rules"):
        sandbox.back_up(exclude_from=(rules / "nowhere",))


def test_caches_can_be_left_out(sandbox: Sandbox) -> None:
    tag = b"Signature: 8a477f597d28d172789f06886806bc55\n"
    sandbox.write("cache/CACHEDIR.TAG", tag)
    sandbox.write("cache/big", b"1")
    sandbox.write("cache/sub/x", b"1")
    sandbox.write("no-cache/CACHEDIR.TAG", b"Signature: wrong")
    sandbox.write("no-cache/kept", b"1")
    (sandbox.folder / "folder/CACHEDIR.TAG").mkdir(parents=True)
    (sandbox.folder / "fifo").mkdir()
    os.mkfifo(sandbox.folder / "fifo/CACHEDIR.TAG")
    sandbox.back_up()
    assert sandbox.names("cache") == [b"CACHEDIR.TAG", b"big", b"sub"]
    sandbox.back_up(exclude_caches=True)
    assert (sandbox.names("cache"), sandbox.names("no-cache")) == ([b"CACHEDIR.TAG"], [b"CACHEDIR.TAG", b"kept"])


@needs_root
def test_one_file_system_keeps_mount_points_empty(sandbox: Sandbox) -> None:
    mount = sandbox.folder / "mount"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", mount], check=False, capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted")
    try:
        (mount / "inside").write_bytes(b"1")
        sandbox.back_up(one_file_system=True)
        assert (sandbox.names(), sandbox.names("mount")) == ([b"mount"], [])
        sandbox.back_up()
        assert sandbox.names("mount") == [b"inside"]
    finally:
        subprocess.run(["umount", mount], check=True)


def test_the_store_is_not_backed_up_into_itself(sandbox: Sandbox) -> None:
    sandbox.write("source-file")
    sandbox.back_up(sandbox.folder.parent)
    assert sandbox.names("store") == []
    assert sandbox.names("source") == [b"source-file"]


# --- what to back up, and as what -------------------------------------------------------------------------------------


def test_several_paths_lie_side_by_side(sandbox: Sandbox) -> None:
    sandbox.write("one/a", b"1")
    sandbox.write("two/b", b"2")
    file = sandbox.write("three/file", b"3")
    paths = (sandbox.folder / "one", sandbox.folder / "two", file)
    result = sandbox.back_up(*paths)
    assert sandbox.names() == [b"file", b"one", b"two"]
    assert (sandbox.read("one/a"), sandbox.read("file")) == (b"1", b"3")
    assert result.snapshot.paths == tuple(os.fsencode(path) for path in paths)
    again = sandbox.back_up(*paths)
    assert again.snapshot.added.changed_files <= 1


def test_a_file_or_a_symlink_can_be_backed_up_alone(sandbox: Sandbox) -> None:
    file = sandbox.write("file", b"1")
    link = sandbox.folder / "link"
    link.symlink_to(sandbox.folder)
    sandbox.back_up(file, source="file")
    assert (sandbox.names(), sandbox.read("file")) == ([b"file"], b"1")
    sandbox.back_up(link, source="link")
    assert stat.S_ISLNK(sandbox.entry("link").mode)


def test_paths_that_cannot_lie_side_by_side_are_refused(sandbox: Sandbox) -> None:
    sandbox.write("one/x/f")
    sandbox.write("two/x/f")
    for paths in ([sandbox.folder / "one/x", sandbox.folder / "two/x"], [sandbox.folder, Path("/")]):
        with pytest.raises(UsageError, match=r"same last name|it holds them"):
            sandbox.back_up(*paths)


def test_missing_paths_are_refused_before_anything_is_done(sandbox: Sandbox) -> None:
    with pytest.raises(NotFoundError, match="nothing was backed up"):
        sandbox.back_up(sandbox.folder, sandbox.folder / "missing")
    with pytest.raises(UsageError):
        back_up(sandbox.store, [], BackupOptions())
    assert sandbox.store.snapshots() == []


def test_a_source_is_called_like_its_folder(sandbox: Sandbox) -> None:
    assert back_up(sandbox.store, [sandbox.folder], BackupOptions()).snapshot.source == "source"
    assert default_source_name([Path("/")]) == "root"
    assert default_source_name([Path(os.fsdecode(b"/x/\xff"))]) == "\ufffd"


@pytest.mark.parametrize("name", ["a/b", "a@b", "a:b", "live", ".", "..", "x" * 256, "new\nline", "\udcff"])
def test_names_that_commands_or_folders_cannot_have_are_refused(sandbox: Sandbox, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a source"):
        sandbox.back_up(source=name)


def test_another_folder_of_the_same_name_is_no_new_version(sandbox: Sandbox) -> None:
    sandbox.write("one/x/f")
    sandbox.write("two/x/f")
    sandbox.back_up(sandbox.folder / "one/x", source="")
    with pytest.raises(ConflictError, match="nothing was backed up") as caught:
        sandbox.back_up(sandbox.folder / "two/x", source="")
    assert "--name x" in caught.value.hint
    sandbox.back_up(sandbox.folder / "two/x", source="x")


def test_tags_and_messages_are_kept(sandbox: Sandbox) -> None:
    snapshot = sandbox.back_up(tags=("a", "b"), message="why").snapshot
    assert (snapshot.tags, snapshot.message) == (("a", "b"), "why")


def test_a_dry_run_stores_nothing_and_tells_what_it_would(sandbox: Sandbox) -> None:
    sandbox.write("a", os.urandom(100_000))
    sandbox.write("b", b"same")
    sandbox.write("c", b"same")
    before = sandbox.store.last_transaction()
    dry = back_up(sandbox.store, [sandbox.folder], BackupOptions(), sink=DryRun(sandbox.store))
    assert (dry.stored, sandbox.store.snapshots(), sandbox.store.last_transaction()) == (None, [], before)
    real = sandbox.back_up()
    assert dry.snapshot.added.chunk_bytes == real.snapshot.added.chunk_bytes
    assert dry.snapshot.totals == real.snapshot.totals


def test_progress_can_be_watched(sandbox: Sandbox) -> None:
    sandbox.write("d/a", b"123")
    progress = BackupProgress()
    back_up(sandbox.store, [sandbox.folder], BackupOptions(), progress=progress)
    assert (progress.files, progress.directories, progress.size_bytes, progress.new_files, progress.current) == (1, 2, 3, 1, b"d")


# --- the store --------------------------------------------------------------------------------------------------------


def test_a_second_backup_waits_for_the_first(sandbox: Sandbox) -> None:
    """In another process, and it is told for whom it waits."""
    sandbox.write("a", b"1")
    program = """
import sys
from pathlib import Path
from yester.engine.backup import BackupOptions, back_up
from yester.store.store import Store
store, folder = map(Path, sys.argv[1:])
with Store.open(store) as opened:
    back_up(opened, [folder], BackupOptions(source="second"), on_wait=lambda holder: print("waits for", holder, flush=True))
print("done", flush=True)
"""
    command = [sys.executable, "-c", program, os.fspath(sandbox.store.path), os.fspath(sandbox.folder)]
    with sandbox.store.backup_lock(lambda _: None):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        assert second.stdout is not None
        assert second.stdout.readline() == f"waits for process {os.getpid()}\n"
        assert sandbox.store.snapshots("second") == []
    assert second.communicate()[0] == "done\n"
    assert second.returncode == 0
    assert len(sandbox.store.snapshots("second")) == 1


def test_the_lock_ends_with_the_process_that_holds_it(sandbox: Sandbox) -> None:
    program = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, os.fspath(sandbox.store.path / "backup.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waits: list[str] = []
        with pytest.raises(BlockingIOError):
            fcntl.flock(os.open(sandbox.store.path / "backup.lock", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)

        def kill(who: str) -> None:
            waits.append(who)
            holder.kill()

        with sandbox.store.backup_lock(kill):
            pass
    assert len(waits) == 1


def fail_nth_write(monkeypatch: pytest.MonkeyPatch, nth: int, error: Exception) -> None:
    """Let the nth commit from now on fail."""
    write = Environment.write
    numbers = itertools.count(1)

    def fail(self: Environment, apply: Callable[[object], object]) -> object:
        if next(numbers) == nth:
            raise error
        return write(self, apply)

    monkeypatch.setattr(Environment, "write", fail)


def every_committed_tree_resolves(store: Store) -> None:
    """No tree, reachable from a snapshot or only remembered, names anything that is not there."""
    report = check(store, read_data=True)
    assert report.findings == ()


@pytest.mark.parametrize("file_bytes", [3000, 20], ids=["much data", "many trees"])
@pytest.mark.parametrize("error", [StoreAccessError("full"), OSError(errno.EIO, "EIO")], ids=["ours", "the system's"])
def test_whichever_commit_fails_nothing_is_published_and_nothing_dangles(
    make_store: MakeStore, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, error: Exception, file_bytes: int
) -> None:
    """Every closed segment is a commit; the next backup goes on from what was committed."""
    monkeypatch.setattr("yester.store.chunks.SEGMENT_BYTES", file_bytes * 3)
    monkeypatch.setattr("yester.store.chunks.BATCH_STORED_BYTES", 1)
    for number in range(30):
        sandbox.write(f"d{number // 10}/f{number}", os.urandom(file_bytes))
    for nth in itertools.count(1):
        store = make_store(f"store{nth}")
        with monkeypatch.context() as patch:
            fail_nth_write(patch, nth, error)
            try:
                back_up(store, [sandbox.folder], BackupOptions(source="docs"))
            except (StoreAccessError, OSError):
                assert store.snapshots() == []
            else:
                break
        every_committed_tree_resolves(store)
        result = back_up(store, [sandbox.folder], BackupOptions(source="docs"))
        assert result.problems == ()
        every_committed_tree_resolves(store)
        assert _files_below(store, result.snapshot.root, file_bytes) == 30
    assert nth > 10


def _files_below(store: Store, root: Entry, file_bytes: int) -> int:
    """How many files can be read in full."""
    trees = TreeReader(store.reader())
    empty = plant(store, {})
    found = [difference.new for difference in compare(trees, empty, root)]
    files = [FileReader(trees.chunks, entry.file_content, entry.size) for entry in found if entry is not None]
    return sum(len(file.read(0, file_bytes)) == file_bytes for file in files)


def test_a_backup_that_is_interrupted_goes_on_where_it_was(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yester.store.chunks.SEGMENT_BYTES", 4096)
    monkeypatch.setattr("yester.store.chunks.BATCH_STORED_BYTES", 8192)
    monkeypatch.setattr("yester.store.chunks.BATCH_RAW_BYTES", 8192)
    for number in range(60):
        sandbox.write(f"d{number // 10}/f{number}", os.urandom(3000))
    with monkeypatch.context() as patch:

        def interrupt(name: bytes) -> None:
            if name == b"f45":
                while sandbox.store.find_seen("docs", b"d2") is None:
                    time.sleep(0.001)  # commits are made on a thread of their own
                raise KeyboardInterrupt

        hook_reads(patch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            sandbox.back_up()
    every_committed_tree_resolves(sandbox.store)
    result = sandbox.back_up()
    assert result.problems == ()
    assert result.snapshot.added.new_files + result.snapshot.added.changed_files < 60
    assert result.snapshot.added.chunk_bytes < 60 * 3000 * 2 // 3


def test_an_error_of_the_store_is_none_of_the_file_that_is_read(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under the store must end the backup, not count as one unreadable file after the other."""
    sandbox.write("a", b"1")
    sandbox.write("b", b"2")

    def fail(_self: ChunkWriter, _kind: object, _data: object) -> None:
        message = "no space left for the store"
        raise StoreAccessError(message)

    monkeypatch.setattr(ChunkWriter, "add", fail)
    with pytest.raises(StoreAccessError):
        sandbox.back_up()
    assert sandbox.store.snapshots() == []


def test_a_source_that_is_as_its_newest_snapshot_is_not_published_again_if_that_is_wanted(sandbox: Sandbox) -> None:
    sandbox.write("file", b"text")
    first = sandbox.back_up(only_if_changed=True)
    same = sandbox.back_up(only_if_changed=True)
    assert (first.is_unchanged, same.is_unchanged) == (False, True)
    assert same.stored == first.stored
    for change in (
        lambda: sandbox.write("file", b"other"),
        lambda: sandbox.write("empty"),
        (sandbox.folder / "empty").unlink,
        lambda: sandbox.folder.chmod(0o711),
    ):
        change()
        assert not sandbox.back_up(only_if_changed=True).is_unchanged
    assert not sandbox.back_up().is_unchanged
    assert len(sandbox.store.snapshots()) == 6


def test_a_root_that_was_made_up_differs_only_by_what_it_holds(sandbox: Sandbox) -> None:
    files = [sandbox.write(name, b"text") for name in ("one", "other")]
    sandbox.back_up(*files, only_if_changed=True)
    assert sandbox.back_up(*files, only_if_changed=True).is_unchanged
    assert not sandbox.back_up(files[0], only_if_changed=True).is_unchanged
    files[0].write_bytes(b"changed")
    assert not sandbox.back_up(files[0], only_if_changed=True).is_unchanged


def test_an_empty_tag_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(UsageError, match="a tag is empty; nothing was stored"):
        back_up(sandbox.store, [sandbox.folder], BackupOptions(tags=("x", "")))
    assert sandbox.store.snapshots() == []

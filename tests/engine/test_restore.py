# SPDX-License-Identifier: MIT
"""Restoring: what was backed up comes back as it was, and nothing else is touched."""

import errno
import json
import os
import pwd
import resource
import shutil
import signal
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

from tests.engine.planting import ATIME_NS, T0_NS, File, Folder, Items, plant, plant_data, plant_deep
from tests.engine.sandbox import MakeStore, Sandbox, both_kinds, children
from yester.core.content import HOLE, pack_span
from yester.core.records import RECORD_VERSION, Entry, Extra, Snapshot, Tree
from yester.engine import restore as restore_module
from yester.engine import restore_pool
from yester.engine.check import check
from yester.engine.restore import RestoreOptions, RestoreProgress, RestoreResult, restore
from yester.engine.restore_files import FileRestorer, Findings, Tally, Task, join
from yester.engine.restore_preview import Change
from yester.engine.restore_walk import StoredWalk
from yester.engine.target import OPEN_FOLDERS_MAX, Owners, Shortfall, Target
from yester.engine.trees import TreeReader, store_tree
from yester.engine.worker import Worker
from yester.errors import ConflictError, CorruptionError, LimitError, UsageError, YesterError
from yester.store.chunks import segment_key, unpack_location
from yester.store.lmdb import Table
from yester.store.segments import Codec, Kind, parse_header
from yester.store.store import Store

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may do this")

ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff")
"""rw for the owner, r for user 1000, the group and others."""


# --- tools ------------------------------------------------------------------------------------------------------------


def bring_back(
    store: Store,
    root: Entry,
    destination: Path,
    *,
    on_change: Callable[[Change, bytes], None] = lambda _change, _path: None,
    **options: Any,  # noqa: ANN401 (as `RestoreOptions` has them)
) -> RestoreResult:
    """Restore, without waiting for the disk."""
    named: dict[str, Any] = {"sync": False}
    return restore(store, root, destination, RestoreOptions(**named | options), on_change=on_change)


def describe(folder: Path) -> dict[bytes, tuple[Any, ...]]:
    """All that is to be known of a folder and everything below it, by relative path; but access times, as looking changes them.

    Names of one file are told by the first.
    """
    found: dict[bytes, tuple[Any, ...]] = {}
    names: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(folder)

    def look(path: bytes) -> None:
        full = top + b"/" + path if path else top
        status = os.lstat(full)
        content: object = None
        xattrs = sorted((name, os.getxattr(full, name, follow_symlinks=False)) for name in list_xattrs(full))
        first = names.setdefault((status.st_dev, status.st_ino), path) if not stat.S_ISDIR(status.st_mode) else path
        if stat.S_ISREG(status.st_mode):
            content = Path(os.fsdecode(full)).read_bytes() if status.st_size < 1 << 30 else status.st_blocks
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(full)
        elif stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
            content = status.st_rdev
        found[path] = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content, xattrs, first)
        if stat.S_ISDIR(status.st_mode):
            for name in sorted(os.listdir(full)):
                look(path + b"/" + name if path else name)

    look(b"")
    return found


def list_xattrs(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def assert_same(one: Path, other: Path) -> None:
    first, second = describe(one), describe(other)
    assert list(first) == list(second)
    for path, facts in first.items():
        assert second[path] == facts, path


def assert_access_times(store: Store, root: Entry, destination: Path) -> None:
    """Before anything else has a look."""
    for visit, stored in StoredWalk(store.reader(), root, None, is_new=True, owners=Owners(numeric=True), tally=Tally()).enter():
        for entry in (visit.entry, *stored.entries):
            path = join(visit.path, entry.name if entry is not visit.entry else b"")
            assert os.lstat(os.fsencode(destination) + b"/" + path).st_atime_ns == entry.atime_ns, path


def change_times(folder: Path) -> dict[bytes, int]:
    """ctimes: any write to a file or its metadata shows."""
    return {
        os.path.join(path, name): os.lstat(os.path.join(path, name)).st_ctime_ns
        for path, *rest in os.walk(os.fsencode(folder))
        for names in [[b""], *rest]
        for name in names
    }


def root_of(sandbox: Sandbox) -> Entry:
    return sandbox.results[-1].snapshot.root


def summary(result: RestoreResult) -> dict[str, int]:
    """How many of what went wrong, without what did not."""
    counts = {"conflicts": result.conflicts.count, "damaged": result.damaged.count, "failed": result.failed.count}
    counts |= {shortfall.name: findings.count for shortfall, findings in result.shortfalls.items()}
    return {what: count for what, count in counts.items() if count}


def paths(findings: Findings) -> list[bytes]:
    return sorted(finding.path for finding in findings.first)


def plant_entries(store: Store, *entries: Entry, users: dict[int, str] | None = None) -> Entry:
    """A folder of just these entries, good or bad, in this order."""
    with store.writer() as writer:
        tree = Tree(RECORD_VERSION, users or {}, users or {}, entries)
        stored = store_tree(tree, store.parameters.chunking, lambda record: writer.add(Kind.TREE, record))
    return Entry(b"", stat.S_IFDIR | 0o755, os.geteuid(), os.getegid(), T0_NS, ATIME_NS, 0, 0, stored)


def mine(root: Entry, **changes: Any) -> Entry:  # noqa: ANN401 (fields of an entry)
    """An entry that belongs to whoever runs the test."""
    return msgspec.structs.replace(root, uid=os.geteuid(), gid=os.getegid(), **changes)


def plant_mine(store: Store, items: Items, *, mode: int = 0o755) -> Entry:
    """As `plant`, but all of it belongs to whoever runs the test."""

    def own(name: bytes, entry: Entry) -> Entry:
        if not stat.S_ISDIR(entry.mode):
            return mine(entry, name=name)
        tree = TreeReader(store.reader()).read(entry.tree)
        inner = plant_entries(store, *(own(below.name, below) for below in tree.entries))
        return mine(entry, name=name, content=inner.content)

    return msgspec.structs.replace(own(b"", plant(store, items)), mode=stat.S_IFDIR | mode)


def regular(name: bytes, data: bytes = b"", **changes: Any) -> Callable[[Store], Entry]:  # noqa: ANN401 (fields of an entry)
    """A file's entry, once there is a store to put its bytes into."""

    def make(store: Store) -> Entry:
        with store.writer() as writer:
            content = plant_data(writer, store.parameters.chunking, data)
        mode = stat.S_IFREG | 0o644
        entry = Entry(name, mode, os.geteuid(), os.getegid(), T0_NS, ATIME_NS, len(data), content.level, content.spans)
        return msgspec.structs.replace(entry, **changes)

    return make


def damage(store: Store, chunk: bytes) -> None:
    """Flip a bit of one chunk, and nothing else of its segment."""
    location = unpack_location(store.environment.get(Table.CHUNKS, chunk) or b"")
    key = segment_key(location.segment)
    stored = store.environment.get(Table.SEGMENTS, key) or b""
    header = parse_header(stored, None)
    payload = bytearray(Codec().decode(stored, header))
    payload[header.bounds[location.place]] ^= 1
    chunks = [bytes(payload[start:end]) for start, end in zip(header.bounds, header.bounds[1:], strict=False)]
    encoded = Codec().encode(header.kind, chunks)
    store.environment.write(lambda transaction: transaction.put(Table.SEGMENTS, key, encoded))


@pytest.fixture
def damaged(make_store: MakeStore) -> Store:
    """A store that a test may damage."""
    return make_store("damaged", may_be_damaged=True)


@pytest.fixture
def hostile(make_store: MakeStore) -> Store:
    """A store of trees that no backup makes."""
    return make_store("hostile", may_be_damaged=True)


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "restored"
    yield folder
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that nothing may be written to."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "keep").write_bytes(b"kept")
    return folder


def assert_untouched(elsewhere: Path) -> None:
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == {"keep": b"kept"}


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    here = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def can(call: Callable[[], object]) -> bool:
    """Whether the system lets us do this; it is done then."""
    try:
        call()
    except OSError:
        return False
    return True


def fill_with_everything(folder: Path) -> None:
    """Every kind of file, and all metadata that this user and file system may have."""
    (folder / "d/empty").mkdir(parents=True)
    (folder / "small").write_bytes(b"small")
    (folder / "nothing").write_bytes(b"")
    (folder / "large").write_bytes(os.urandom(5_000_000))
    (folder / "d/read-only").write_bytes(b"r")
    for mode in (0 if IS_ROOT else 0o600, 0o400, 0o751, 0o666, 0o7777 if IS_ROOT else 0o6755):
        (folder / f"mode{mode:o}").write_bytes(b"m")
        (folder / f"mode{mode:o}").chmod(mode)
    for raw in (b"\xff\xfe", b"new\nline", b"-n", b" ", b"x" * 255, "ä".encode()):
        (folder / os.fsdecode(raw)).write_bytes(raw)
    for link, target in (("link", "small"), ("dangling", "no/where"), ("absolute", "/etc/hostname"), ("d/up", ".." + "/." * 1000)):
        (folder / link).symlink_to(target)
    for name in ("second", "d/third", "d/empty/fourth"):
        os.link(folder / "small", folder / name)
    os.mkfifo(folder / "fifo", 0o640)
    os.link(folder / "fifo", folder / "d/fifo")
    os.link(folder / "link", folder / "d/link", follow_symlinks=False)
    with socket.socket(socket.AF_UNIX) as listener, working_in(folder):
        listener.bind("socket")
    with (folder / "sparse").open("wb") as data:
        data.truncate(3 << 20)
        data.seek(1 << 20)
        data.write(b"middle")
    with (folder / "hole").open("wb") as data:
        data.truncate(1 << 20)
    for name in ("small", "d", "d/read-only"):
        can(lambda name=name: os.setxattr(folder / name, "user.note", name.encode()))  # type: ignore[misc]  # a default is how a loop's value is kept
    can(lambda: os.setxattr(folder / "large", "system.posix_acl_access", ACL))
    can(lambda: os.setxattr(folder / "d", "system.posix_acl_default", ACL))
    if IS_ROOT:
        os.chown(folder / "nothing", 12345, 54321)
        os.chown(folder / "link", 12345, 54321, follow_symlinks=False)
        os.chown(folder / "d/empty", 12345, 54321)
        (folder / "capable").write_bytes(b"c")
        capability = bytes.fromhex("0100000200040000000000000000000000000000")
        can(lambda: os.setxattr(folder / "capable", "security.capability", capability))
        can(lambda: os.setxattr(folder / "nothing", "trusted.secret", b"\0\1"))
        can(lambda: os.setxattr(folder / "link", "trusted.secret", b"l", follow_symlinks=False))
        can(lambda: os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)))
        can(lambda: os.mknod(folder / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 1_000_000)))
    (folder / "d/read-only").chmod(0o444)
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, ns=(-5 * 10**9 + number, 10**18 + number * 1_000_000_007), follow_symlinks=False)
    (folder / "d/empty").chmod(0o555)
    (folder / "d").chmod(0o2550 if IS_ROOT else 0o550)
    os.utime(folder, ns=(1, 2))


# --- what comes back --------------------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("processes", [1, 2])
def test_everything_comes_back_as_it_was(sandbox: Sandbox, destination: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 3)
    fill_with_everything(sandbox.folder)
    original = describe(sandbox.folder)
    sandbox.back_up()
    result = bring_back(sandbox.store, root_of(sandbox), destination, processes=processes)
    assert summary(result) == {}
    assert result.is_complete
    assert_access_times(sandbox.store, root_of(sandbox), destination)
    restored = describe(destination)
    assert list(restored) == list(original)
    for name, facts in original.items():
        assert restored[name] == facts, name
    assert (destination / "sparse").stat().st_blocks < 1000
    assert (destination / "hole").stat().st_blocks == 0
    assert result.links == 5
    (sandbox.folder / "d").chmod(0o700)
    (sandbox.folder / "d/empty").chmod(0o700)


def test_restoring_again_changes_nothing(sandbox: Sandbox, destination: Path) -> None:
    fill_with_everything(sandbox.folder)
    sandbox.back_up()
    first = bring_back(sandbox.store, root_of(sandbox), destination)
    before, times = describe(destination), change_times(destination)
    again = bring_back(sandbox.store, root_of(sandbox), destination)
    assert summary(again) == {}
    assert (again.files, again.links, again.others, again.mended, again.written_bytes) == (0, 0, 0, 0, 0)
    assert again.unchanged == first.files + first.links + first.others
    assert describe(destination) == before
    if IS_ROOT:  # anybody else must open folders that they had closed to themselves
        assert change_times(destination) == times
    (sandbox.folder / "d").chmod(0o700)
    (sandbox.folder / "d/empty").chmod(0o700)


def test_a_file_of_slices_is_restored_checked_and_compared(tmp_path: Path, destination: Path) -> None:
    """Live folders make them where little of a chunk was written."""
    chunk = os.urandom(10_000)
    with Store.create(tmp_path / "sliced") as store:
        with store.writer() as writer:
            data = writer.add(Kind.DATA, chunk)
            other = writer.add(Kind.DATA, b"other")
            spans = pack_span(data, 4000, 0) + pack_span(other, 5) + pack_span(data, 3000, 7000)
            entry = Entry(b"file", stat.S_IFREG | 0o644, os.geteuid(), os.getegid(), 10**18, 10**18, 7005, 0, spans)
            tree = store_tree(
                Tree(RECORD_VERSION, {}, {}, (entry,)), store.parameters.chunking, lambda record: writer.add(Kind.TREE, record)
            )
        root = Entry(b"", stat.S_IFDIR | 0o755, os.geteuid(), os.getegid(), 10**18, 10**18, 0, 0, tree)
        store.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", 10**18, 10**18, root))
        assert check(store, read_data=True).findings == ()
        bring_back(store, root, destination)
        assert (destination / "file").read_bytes() == chunk[:4000] + b"other" + chunk[7000:]
        again = bring_back(store, root, destination)
        assert (again.files, again.unchanged) == (0, 1)
        (destination / "file").write_bytes(b"x" * 7005)
        os.utime(destination / "file", ns=(10**18, 10**18))
        assert bring_back(store, root, destination, overwrite=True).files == 1
        assert (destination / "file").read_bytes() == chunk[:4000] + b"other" + chunk[7000:]
        past_the_end = msgspec.structs.replace(entry, content=pack_span(data, 7005, 3000))
        with store.writer() as writer:
            tree = store_tree(
                Tree(RECORD_VERSION, {}, {}, (past_the_end,)), store.parameters.chunking, lambda record: writer.add(Kind.TREE, record)
            )
        store.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", 10**18 + 1, 10**18, msgspec.structs.replace(root, content=tree)))
        [finding] = check(store, read_data=False).findings
        assert "is not what a file needs of it" in finding.what


@both_kinds
def test_many_files_are_restored_by_several_processes(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def count(module: str, does: str, inherited: list[int]) -> Worker:
        started.append(module)
        return Worker(module, does, inherited)

    monkeypatch.setattr(restore_pool, "Worker", count)
    for number in range(2500):
        sandbox.write(f"d{number % 50}/e/f{number}", b"%d" % number * (number % 40))
    for number in range(0, 500, 7):
        os.link(sandbox.folder / f"d{number % 50}/e/f{number}", sandbox.folder / f"link{number}")
    sandbox.back_up()
    progress = RestoreProgress()
    result = restore(sandbox.store, root_of(sandbox), destination, RestoreOptions(sync=False, processes=3), progress=progress)
    assert len(started) == 3
    assert (result.files, result.links, result.directories, result.is_complete) == (2500, 72, 101, True)
    assert (progress.files, progress.directories, progress.written_bytes) == (2572, 101, result.written_bytes)
    assert_same(sandbox.folder, destination)
    assert children() == set()


def test_few_files_are_restored_without_other_processes(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_pool, "Worker", lambda *_: pytest.fail("a process was started"))
    for number in range(400):
        sandbox.write(f"f{number}", b"1")
    sandbox.back_up()
    assert bring_back(sandbox.store, root_of(sandbox), destination).files == 400


def test_a_folder_of_many_files_is_shared_out(sandbox: Sandbox, destination: Path) -> None:
    for number in range(2300):
        sandbox.write(f"f{number}", b"%d" % number)
    os.link(sandbox.folder / "f7", sandbox.folder / "f999x")
    sandbox.back_up()
    result = bring_back(sandbox.store, root_of(sandbox), destination, processes=2)
    assert (result.files, result.links, result.conflicts.count) == (2300, 1, 0)
    assert_same(sandbox.folder, destination)


def test_large_files_of_many_chunks_come_back(small_sandbox: Sandbox, destination: Path) -> None:
    small_sandbox.write("big", os.urandom(300_000))
    small_sandbox.write("zeros", bytes(100_000))
    for number in range(60):
        small_sandbox.write(f"wide/name{number}")
    small_sandbox.back_up()
    assert summary(bring_back(small_sandbox.store, root_of(small_sandbox), destination)) == {}
    assert_same(small_sandbox.folder, destination)


def test_a_sparse_file_of_a_tebibyte_is_sparse_again(sandbox: Sandbox, destination: Path) -> None:
    size = 1 << 40
    with sandbox.write("sparse").open("wb") as data:
        data.write(b"start")
        data.seek(size // 2)
        data.write(b"middle")
        data.truncate(size)
    sandbox.back_up()
    result = bring_back(sandbox.store, root_of(sandbox), destination)
    status = (destination / "sparse").stat()
    assert (summary(result), status.st_size) == ({}, size)
    assert status.st_blocks * 512 < 1 << 20
    with (destination / "sparse").open("rb") as data:
        assert data.read(6) == b"start\0"
        data.seek(size // 2)
        assert data.read(7) == b"middle\0"


def test_paths_may_be_deeper_than_path_max(sandbox: Sandbox, destination: Path) -> None:
    names = [f"{number:03}".ljust(60, "x") for number in range(200)]
    with working_in(sandbox.folder):
        for name in names:
            for folder in (name, "side"):
                os.mkdir(folder)
            Path("side/file").write_bytes(name.encode())
            os.chdir(name)
        Path("bottom").write_bytes(b"deep")
        os.link("bottom", "other")
        os.symlink("bottom", "link")
    sandbox.back_up()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2 * OPEN_FOLDERS_MAX + 20, hard))
    try:
        result = bring_back(sandbox.store, root_of(sandbox), destination, processes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.failed.first == []
    assert (result.files, result.links, result.others, result.directories, result.is_complete) == (201, 1, 1, 401, True)
    with working_in(destination):
        for name in names:
            assert Path("side/file").read_bytes() == name.encode()
            os.chdir(name)
        assert Path("bottom").read_bytes() == b"deep"
        assert (os.stat("bottom").st_nlink, os.readlink("link")) == (2, "bottom")
    again = bring_back(sandbox.store, root_of(sandbox), destination, processes=1)
    assert (again.files, again.unchanged, again.is_complete) == (0, 203, True)


def test_depth_has_no_limit(store: Store, destination: Path) -> None:
    root = msgspec.structs.replace(plant_deep(store, 1500), name=b"")
    result = bring_back(store, root, destination)
    assert (result.files, result.directories, result.failed.count) == (1, 1501, 0)


def test_no_file_stays_open(sandbox: Sandbox, destination: Path) -> None:
    for number in range(300):
        sandbox.write(f"d{number}/f", b"1")
    sandbox.back_up()
    before = len(os.listdir("/proc/self/fd"))
    bring_back(sandbox.store, root_of(sandbox), destination, processes=1)
    bring_back(sandbox.store, root_of(sandbox), destination, dry_run=True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_single_file_comes_into_the_destination(sandbox: Sandbox, destination: Path) -> None:
    fill_with_everything(sandbox.folder)
    original = describe(sandbox.folder)
    sandbox.back_up()
    for name in ("large", "link", "fifo", "nothing", "mode6755" if not IS_ROOT else "mode7777"):
        result = bring_back(sandbox.store, sandbox.entry(name), destination)
        assert (summary(result), result.directories, result.files + result.others) == ({}, 0, 1), name
    restored = describe(destination)
    for path in set(restored) - {b""}:
        assert restored[path][:-1] == original[path][:-1]
    assert bring_back(sandbox.store, sandbox.entry("large"), destination).unchanged == 1
    (sandbox.folder / "d").chmod(0o700)
    (sandbox.folder / "d/empty").chmod(0o700)


def test_what_is_restored_can_be_synced(sandbox: Sandbox, destination: Path) -> None:
    sandbox.write("a", b"1")
    sandbox.back_up()
    restore(sandbox.store, root_of(sandbox), destination, RestoreOptions())
    assert_same(sandbox.folder, destination)


def test_a_file_that_changed_between_two_of_its_names_is_two_files(store: Store, destination: Path) -> None:
    link = Extra(nlink=2, link=(1, 7))
    root = plant_entries(store, regular(b"a", b"old", extra=link)(store), regular(b"b", b"new!", extra=link)(store))
    result = bring_back(store, root, destination)
    assert (result.files, result.links) == (2, 0)
    assert [(destination / name).read_bytes() for name in "ab"] == [b"old", b"new!"]


@needs_root
def test_owners_are_found_by_name_or_by_number(store: Store, destination: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    root = plant_entries(
        store,
        regular(b"known", uid=4242, gid=4242)(store),
        regular(b"nameless", uid=4244, gid=4244)(store),
        regular(b"unknown", uid=4243, gid=4243)(store),
        users={4242: "nobody", 4243: "no such user \0"},
    )
    bring_back(store, msgspec.structs.replace(root, uid=4242), destination / "names")
    bring_back(store, root, destination / "numbers", numeric_ids=True)
    assert [(destination / "names" / name).stat().st_uid for name in ("known", "unknown", "nameless")] == [nobody.pw_uid, 4243, 4244]
    assert [(destination / "numbers" / name).stat().st_uid for name in ("known", "unknown", "nameless")] == [4242, 4243, 4244]
    assert (destination / "names").stat().st_uid == nobody.pw_uid


@needs_root
def test_the_folder_that_an_entry_was_found_in_names_its_owner(store: Store, destination: Path) -> None:
    entry = regular(b"file", uid=4242)(store)
    parent = Tree(RECORD_VERSION, {4242: "nobody"}, {}, (entry,))
    restore(store, entry, destination, RestoreOptions(sync=False), parent=parent)
    assert (destination / "file").stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_names_are_looked_up_on_this_machine() -> None:
    me = pwd.getpwuid(os.geteuid())
    tree = Tree(RECORD_VERSION, {4242: me.pw_name, me.pw_uid: me.pw_name, 7: "no-such-user", 8: "\0"}, {}, ())
    assert Owners(numeric=False).of_tree(tree).users == {4242: me.pw_uid}
    assert Owners(numeric=True).of_tree(tree).users == {}


def test_inherited_acls_are_not_kept(sandbox: Sandbox, destination: Path) -> None:
    sandbox.write("d/file", b"1").chmod(0o640)
    (sandbox.folder / "d/fifo").parent.chmod(0o751)
    os.mkfifo(sandbox.folder / "d/fifo")
    sandbox.write("file", b"2")
    sandbox.back_up()
    destination.mkdir()
    try:
        os.setxattr(destination, "system.posix_acl_default", ACL)
    except OSError as error:
        pytest.skip(f"no ACLs: {error}")
    assert summary(bring_back(sandbox.store, root_of(sandbox), destination)) == {}
    assert_same(sandbox.folder, destination)


def test_an_acl_that_may_not_be_removed_is_a_shortfall(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the folder, and of the file that inherits one. All else is set all the same."""
    sandbox.write("d/file", b"1").parent.chmod(0o751)
    os.utime(sandbox.folder / "d", ns=(7, 7))
    sandbox.back_up()
    (destination / "d").mkdir(parents=True)
    try:
        os.setxattr(destination / "d", "system.posix_acl_default", ACL)
    except OSError as error:
        pytest.skip(f"no ACLs: {error}")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "removexattr", refuse)
    result = bring_back(sandbox.store, root_of(sandbox), destination)
    assert [(shortfall, findings.count) for shortfall, findings in result.shortfalls.items()] == [(Shortfall.ACL, 2)]
    assert result.failed.count == 0
    assert (destination / "d").stat().st_mtime_ns == 7


@pytest.mark.parametrize("size", [4, 3_000_000])
@pytest.mark.parametrize("dry_run", [False, True])
def test_overwriting_finds_other_bytes_under_the_same_size_and_time(
    small_sandbox: Sandbox, destination: Path, size: int, dry_run: bool
) -> None:
    """As after bit rot, or a program that puts the time back. The file of zeros is stored as a hole."""
    files = [small_sandbox.write("random", os.urandom(size)), small_sandbox.write("zeros", bytes(size))]
    os.truncate(files[1], 0)
    os.truncate(files[1], size)
    small_sandbox.back_up()
    bring_back(small_sandbox.store, root_of(small_sandbox), destination)
    assert bring_back(small_sandbox.store, root_of(small_sandbox), destination, overwrite=True).unchanged == 2
    for file in files:
        copy = destination / file.name
        status = copy.stat()
        with copy.open("r+b") as data:
            data.seek(size // 2)
            byte = data.read(1)
            data.seek(size // 2)
            data.write(bytes([byte[0] ^ 1]))
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    told: list[tuple[Change, bytes]] = []
    bring_back(
        small_sandbox.store,
        root_of(small_sandbox),
        destination,
        overwrite=True,
        dry_run=dry_run,
        on_change=lambda change, path: told.append((change, path)),
    )
    if dry_run:
        assert told == [(Change.REPLACE, b"random"), (Change.REPLACE, b"zeros")]
    else:
        assert [(destination / file.name).read_bytes() for file in files] == [file.read_bytes() for file in files]


# --- what is there already --------------------------------------------------------------------------------------------


def test_files_that_are_the_same_only_get_their_metadata_mended(sandbox: Sandbox, destination: Path) -> None:
    fill_with_everything(sandbox.folder)
    sandbox.back_up()
    bring_back(sandbox.store, root_of(sandbox), destination)
    before = describe(destination)
    for path in (destination / "large", destination / "d", destination / "fifo", destination / "d/read-only"):
        path.chmod(0o700)
    can(lambda: os.setxattr(destination / "small", "user.note", b"other"))
    os.utime(destination / "link", ns=(5, 5), follow_symlinks=False)
    os.utime(destination / "d", ns=(5, 5))
    inodes = {path: path.lstat().st_ino for path in destination.rglob("*")}
    (destination / "extra").write_bytes(b"mine")
    result = bring_back(sandbox.store, root_of(sandbox), destination)
    assert (result.files, result.others, result.links, summary(result)) == (0, 0, 0, {})
    assert result.mended >= 4
    assert (destination / "extra").read_bytes() == b"mine"
    (destination / "extra").unlink()
    os.utime(destination, ns=(1, 2))
    assert {path: path.lstat().st_ino for path in destination.rglob("*")} == inodes
    after = describe(destination)
    for name, facts in before.items():
        assert after[name] == facts, name
    (sandbox.folder / "d").chmod(0o700)
    (sandbox.folder / "d/empty").chmod(0o700)


def make_conflicts(destination: Path) -> None:
    """For each of `CONFLICTS`, something else in its place."""
    destination.mkdir()
    (destination / "size").write_bytes(b"other size")
    (destination / "time").write_bytes(b"stored")
    (destination / "kind").symlink_to("size")
    (destination / "target").symlink_to("elsewhere")
    os.mkfifo(destination / "fifo-for-file")
    (destination / "file-for-fifo").write_bytes(b"f")
    (destination / "file-for-folder").write_bytes(b"f")
    (destination / "folder-for-file/inside").mkdir(parents=True)
    (destination / "folder-for-link").mkdir()
    (destination / "untouched").write_bytes(b"mine")


def plant_conflicts(store: Store) -> Entry:
    items = dict.fromkeys(("size", "time", "kind", "fifo-for-file", "folder-for-file", "new"), b"stored")
    root = plant_mine(store, items | {"target": "there", "folder-for-link": "there", "file-for-folder": {"a": b"1"}})
    entries = list(TreeReader(store.reader()).read(root.tree).entries)
    entries.append(Entry(b"file-for-fifo", stat.S_IFIFO | 0o600, os.geteuid(), os.getegid(), T0_NS, T0_NS, 0, 0, b""))
    return plant_entries(store, *sorted(entries, key=lambda entry: entry.name))


CONFLICTS = [
    b"fifo-for-file",
    b"file-for-fifo",
    b"file-for-folder",
    b"folder-for-file",
    b"folder-for-link",
    b"kind",
    b"size",
    b"target",
    b"time",
]


@pytest.mark.parametrize("has_tmpfile", [True, False])
def test_what_differs_is_kept_and_reported(store: Store, destination: Path, has_tmpfile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_tmpfile:
        forbid_tmpfile(monkeypatch)
    make_conflicts(destination)
    before = describe(destination)
    result = bring_back(store, plant_conflicts(store), destination)
    assert paths(result.conflicts) == CONFLICTS
    assert not result.is_complete
    assert (result.files, result.others, summary(result)) == (1, 0, {"conflicts": 9})
    after = describe(destination)
    assert after.pop(b"new")[4] == b"stored"
    assert {path: facts for path, facts in after.items() if path} == {path: facts for path, facts in before.items() if path}


@pytest.mark.parametrize("has_tmpfile", [True, False])
@pytest.mark.parametrize("processes", [1, 2])
def test_what_differs_is_replaced_if_asked_for(
    store: Store, destination: Path, has_tmpfile: bool, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 2)
    if not has_tmpfile:
        forbid_tmpfile(monkeypatch)
    make_conflicts(destination)
    result = bring_back(store, plant_conflicts(store), destination, overwrite=True, processes=processes)
    assert paths(result.conflicts) == [b"folder-for-file", b"folder-for-link"]
    assert (destination / "folder-for-file/inside").is_dir()
    for name in ("size", "time", "kind", "fifo-for-file", "new"):
        assert not (destination / name).is_symlink()
        assert (destination / name).read_bytes() == b"stored"
    assert (destination / "file-for-folder/a").read_bytes() == b"1"
    assert os.readlink(destination / "target") == "there"
    assert (destination / "file-for-fifo").is_fifo()
    assert (destination / "untouched").read_bytes() == b"mine"
    assert not [name for name in os.listdir(destination) if name.startswith(".")]


def test_names_of_one_file_are_joined_again_only_where_they_are_missing(sandbox: Sandbox, destination: Path) -> None:
    sandbox.write("a", b"1")
    for name in "bcd":
        os.link(sandbox.folder / "a", sandbox.folder / name)
    sandbox.back_up()
    bring_back(sandbox.store, root_of(sandbox), destination)
    (destination / "b").unlink()
    shutil.copy2(destination / "a", destination / "b")
    os.utime(destination / "b", ns=((destination / "a").stat().st_atime_ns, (destination / "a").stat().st_mtime_ns))
    (destination / "c").unlink()
    (destination / "d").unlink()
    (destination / "d").write_bytes(b"other")
    result = bring_back(sandbox.store, root_of(sandbox), destination)
    assert (result.links, result.unchanged, paths(result.conflicts)) == (1, 2, [b"d"])
    assert (destination / "c").samefile(destination / "a")
    assert not (destination / "b").samefile(destination / "a")
    bring_back(sandbox.store, root_of(sandbox), destination, overwrite=True)
    assert (destination / "d").samefile(destination / "a")


def test_a_file_with_a_name_elsewhere_keeps_its_metadata(store: Store, destination: Path, elsewhere: Path) -> None:
    root = plant_mine(store, {"a": b"1"})
    bring_back(store, root, destination)
    os.link(destination / "a", elsewhere / "a")
    assert bring_back(store, root, destination).unchanged == 1
    (elsewhere / "a").chmod(0o600)
    assert paths(bring_back(store, root, destination).conflicts) == [b"a"]
    assert (elsewhere / "a").stat().st_mode & 0o777 == 0o600
    assert bring_back(store, root, destination, overwrite=True).files == 1
    assert (elsewhere / "a").stat().st_mode & 0o777 == 0o600
    assert (destination / "a").stat().st_mode & 0o777 == 0o644


def test_whole_seconds_are_enough_where_the_file_system_keeps_no_more(store: Store, destination: Path) -> None:
    root = plant_mine(store, {"a": File(b"1", mtime_ns=T0_NS + 123), "b": File(b"1", mtime_ns=T0_NS + 123)})
    bring_back(store, root, destination)
    os.utime(destination / "a", ns=(T0_NS, T0_NS))
    os.utime(destination / "b", ns=(T0_NS, T0_NS + 1))
    result = bring_back(store, root, destination)
    assert (result.mended, paths(result.conflicts)) == (1, [b"b"])


def test_a_name_that_is_taken_meanwhile_is_a_conflict(store: Store, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file = Target.write_file

    def come_first(self: Target, folder: int, entry: Entry, *rest: Any, **more: Any) -> None:  # noqa: ANN401 (handed on)
        (destination / os.fsdecode(entry.name)).write_bytes(b"faster")
        write_file(self, folder, entry, *rest, **more)

    monkeypatch.setattr(Target, "write_file", come_first)
    for has_tmpfile in (True, False):
        if not has_tmpfile:
            forbid_tmpfile(monkeypatch)
            shutil.rmtree(destination)
        result = bring_back(store, plant_mine(store, {"a": b"1"}), destination)
        assert (result.files, paths(result.conflicts)) == (0, [b"a"])
        assert os.listdir(destination) == ["a"]
        assert (destination / "a").read_bytes() == b"faster"


def forbid_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that knows no files without a name; only in this process."""
    open_ = os.open

    def refuse(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: ANN401 (as os.open)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return open_(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)


def test_file_systems_without_unnamed_files_will_do(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_with_everything(sandbox.folder)
    original = describe(sandbox.folder)
    sandbox.back_up()
    forbid_tmpfile(monkeypatch)
    assert summary(bring_back(sandbox.store, root_of(sandbox), destination, processes=1)) == {}
    assert describe(destination) == original
    (sandbox.folder / "d").chmod(0o700)
    (sandbox.folder / "d/empty").chmod(0o700)


def test_file_systems_without_hard_links_get_copies(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.write("a", b"1")
    os.link(sandbox.folder / "a", sandbox.folder / "b")
    sandbox.back_up()
    forbid_tmpfile(monkeypatch)

    def refuse(*_: Any, **__: Any) -> None:  # noqa: ANN401 (as os.link)
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", refuse)
    result = bring_back(sandbox.store, root_of(sandbox), destination)
    assert (result.files, summary(result)) == (2, {"LINK": 1})
    assert (destination / "b").read_bytes() == b"1"


# --- dry runs ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_makes_nothing_and_lists_everything(sandbox: Sandbox, destination: Path) -> None:
    fill_with_everything(sandbox.folder)
    sandbox.back_up()
    changes: list[tuple[Change, bytes]] = []
    preview = bring_back(sandbox.store, root_of(sandbox), destination, dry_run=True, on_change=lambda *change: changes.append(change))
    assert not destination.exists()
    assert {change for change, _ in changes} == {Change.CREATE}
    result = bring_back(sandbox.store, root_of(sandbox), destination)
    assert sorted(path for _, path in changes) == sorted(describe(destination))
    assert preview == result
    again: list[tuple[Change, bytes]] = []
    nothing = bring_back(sandbox.store, root_of(sandbox), destination, dry_run=True, on_change=lambda *change: again.append(change))
    assert (again, nothing.files, nothing.unchanged) == ([], 0, result.files + result.links + result.others)
    (sandbox.folder / "d").chmod(0o700)
    (sandbox.folder / "d/empty").chmod(0o700)


def test_a_dry_run_tells_what_would_be_kept_replaced_and_mended(store: Store, destination: Path) -> None:
    make_conflicts(destination)
    (destination / "new").write_bytes(b"stored")
    os.utime(destination / "new", ns=(T0_NS, T0_NS))
    (destination / "new").chmod(0o600)
    root = plant_conflicts(store)
    before, times = describe(destination), change_times(destination)
    for overwrite in (False, True):
        changes: list[tuple[Change, bytes]] = []
        result = bring_back(
            store, root, destination, dry_run=True, overwrite=overwrite, on_change=lambda *change, to=changes: to.append(change)
        )
        kept = [b"folder-for-file", b"folder-for-link"] if overwrite else CONFLICTS
        assert sorted(path for change, path in changes if change is Change.KEEP) == paths(result.conflicts) == kept
        assert [path for change, path in changes if change is Change.MEND] == [b"", b"new"]
        assert sorted(path for change, path in changes if change is Change.REPLACE) == [path for path in CONFLICTS if path not in kept]
        assert [path for change, path in changes if change is Change.CREATE] == ([b"file-for-folder/a"] if overwrite else [])
    assert describe(destination) == before
    assert change_times(destination) == times


def test_a_dry_run_of_a_single_file_lists_it(sandbox: Sandbox, destination: Path) -> None:
    sandbox.write("a", b"1")
    sandbox.back_up()
    changes: list[tuple[Change, bytes]] = []
    result = bring_back(sandbox.store, sandbox.entry("a"), destination, dry_run=True, on_change=lambda *change: changes.append(change))
    assert (changes, result.files, destination.exists()) == ([(Change.CREATE, b"a")], 1, False)


# --- hostile trees and targets ----------------------------------------------------------------------------------------


def symlink(name: bytes, target: bytes) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, os.geteuid(), os.getegid(), T0_NS, ATIME_NS, len(target), 0, target)


def folder_entry(store: Store, name: bytes, *entries: Entry) -> Entry:
    return mine(plant_entries(store, *entries), name=name)


def test_a_symlink_and_a_folder_of_one_name_lead_nowhere(hostile: Store, destination: Path, elsewhere: Path) -> None:
    evil = regular(b"evil", b"evil")(hostile)
    link, folder = symlink(b"a", os.fsencode(elsewhere)), folder_entry(hostile, b"a", evil)
    for entries in ((link, folder), (folder, link)):
        for processes in (1, 2):
            result = bring_back(hostile, plant_entries(hostile, *entries), destination, processes=processes)
            assert paths(result.damaged) == [b"a"]
            assert_untouched(elsewhere)
            shutil.rmtree(destination)


@pytest.mark.parametrize("overwrite", [True, False])
def test_symlinks_of_an_earlier_restore_are_not_followed(hostile: Store, destination: Path, elsewhere: Path, overwrite: bool) -> None:
    """First a tree with symlinks, then one that has folders in their places."""
    target = os.fsencode(elsewhere)
    first = plant_entries(hostile, symlink(b"a", target), symlink(b"file", target + b"/keep"), symlink(b"new", target + b"/new"))
    evil = regular(b"keep", b"evil")(hostile)
    inner = folder_entry(hostile, b"a", folder_entry(hostile, b"deep", evil), evil)
    second = plant_entries(hostile, inner, regular(b"file", b"evil")(hostile), regular(b"new", b"evil")(hostile))
    bring_back(hostile, first, destination)
    result = bring_back(hostile, second, destination, overwrite=overwrite)
    assert_untouched(elsewhere)
    assert paths(result.conflicts) == ([] if overwrite else [b"a", b"file", b"new"])
    assert (destination / "a").is_symlink() is not overwrite
    if overwrite:
        assert (destination / "a/deep/keep").read_bytes() == b"evil"


@pytest.mark.parametrize("processes", [1, 2])
def test_folders_that_become_symlinks_meanwhile_are_not_followed(
    hostile: Store, destination: Path, elsewhere: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 1)
    evil = regular(b"evil", b"evil")(hostile)
    root = plant_entries(hostile, folder_entry(hostile, b"a", folder_entry(hostile, b"b", evil, symlink(b"l", b"x"))), evil)
    swapped: list[bool] = []

    def swap() -> None:
        if not swapped:
            (destination / "a").rename(destination / "moved")
            (destination / "a").symlink_to(elsewhere)
            (elsewhere / "b").mkdir()
            swapped.append(True)

    run, submit = FileRestorer.run, restore_pool.WorkerPool.submit

    def run_later(self: FileRestorer, task: Task) -> None:
        swap()
        run(self, task)

    def submit_later(self: restore_pool.WorkerPool, tasks: list[Task]) -> None:
        swap()
        submit(self, tasks)

    monkeypatch.setattr(FileRestorer, "run", run_later)
    monkeypatch.setattr(restore_pool.WorkerPool, "submit", submit_later)
    result = bring_back(hostile, root, destination, processes=processes)
    assert swapped
    assert os.listdir(elsewhere / "b") == []
    assert result.failed.count >= 1
    assert {b"a", b"a/b", b"a/b/l"} >= set(paths(result.failed))


def test_names_that_are_none_are_reported_and_go_nowhere(hostile: Store, destination: Path) -> None:
    names = [b"", b".", b"..", b"../evil", b"/tmp/evil", b"a/b", b"nul\0", b"x" * 256]
    root = plant_entries(hostile, *(regular(name, b"evil")(hostile) for name in names), regular(b"zz", b"good")(hostile))
    result = bring_back(hostile, root, destination / "inner")
    assert (result.files, result.damaged.count) == (1, len(names))
    assert os.listdir(destination) == ["inner"]
    assert os.listdir(destination / "inner") == ["zz"]
    with pytest.raises(CorruptionError, match="not a file name"):
        bring_back(hostile, regular(b"../evil")(hostile), destination / "inner")


def test_a_further_name_of_a_file_that_is_not_there_is_no_link_to_what_is(store: Store, destination: Path, elsewhere: Path) -> None:
    link = Extra(nlink=2, link=(1, 7))
    root = plant_entries(store, regular(b"a", b"kept", extra=link)(store), regular(b"b", b"kept", extra=link)(store))
    destination.mkdir()
    (destination / "a").symlink_to(elsewhere / "keep")
    result = bring_back(store, root, destination)
    assert (result.files, result.links, paths(result.conflicts)) == (1, 0, [b"a"])
    assert (destination / "b").stat().st_nlink == 1
    assert not (destination / "b").is_symlink()


def test_content_of_another_length_than_stated_is_damage(hostile: Store, destination: Path) -> None:
    good = regular(b"good", b"123456")(hostile)
    long = msgspec.structs.replace(good, name=b"long", size=5)
    short = msgspec.structs.replace(good, name=b"short", size=7)
    empty = msgspec.structs.replace(good, name=b"empty", size=7, content=b"")
    hole = msgspec.structs.replace(good, name=b"hole", content=pack_span(HOLE, 2**62))
    root = plant_entries(hostile, empty, good, hole, long, short)
    result = bring_back(hostile, root, destination)
    assert paths(result.damaged) == [b"empty", b"hole", b"long", b"short"]
    assert os.listdir(destination) == ["good"]


def test_impossible_owners_and_times_are_left_out(hostile: Store, destination: Path) -> None:
    root = plant_entries(hostile, regular(b"a", uid=2**32 - 1, mode=stat.S_IFREG | 0o4755, mtime_ns=2**63, atime_ns=-(2**63))(hostile))
    result = bring_back(hostile, root, destination)
    assert summary(result) == {"OWNER": 1, "SET_ID": 1}
    assert (destination / "a").stat().st_mode & 0o7777 == 0o755


def test_a_destination_that_is_none_is_refused(sandbox: Sandbox, destination: Path, tmp_path: Path) -> None:
    sandbox.write("a", b"1")
    sandbox.back_up()
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    for dry_run in (True, False):
        for name in ("file", "dangling", "file/below"):
            with pytest.raises(ConflictError, match="not a folder"):
                bring_back(sandbox.store, root_of(sandbox), tmp_path / name, dry_run=dry_run)
        with pytest.raises(UsageError, match="inside the store"):
            bring_back(sandbox.store, root_of(sandbox), sandbox.store.path / "out", dry_run=dry_run)
    (tmp_path / "link").symlink_to(tmp_path)
    assert bring_back(sandbox.store, root_of(sandbox), tmp_path / "link/restored").files == 1
    assert destination.is_dir()


def test_the_store_itself_is_never_restored_into(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store()
    root = plant_mine(store, {"store": {"data.mdb": b"evil"}, "other": b"1"})
    result = bring_back(store, root, tmp_path, overwrite=True)
    assert (result.files, paths(result.conflicts)) == (1, [b"store"])


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_damage_costs_exactly_the_files_that_need_it(
    damaged: Store, destination: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 2)
    lost = os.urandom(3_000_000)
    link = Extra(nlink=2, link=(1, 7))
    root = plant_mine(
        damaged,
        {
            "a": b"good",
            "lost": lost,
            "again": {"lost": File(lost, mode=0o600), "good": b"good"},
            "linked": File(lost[: 2 << 20], extra=link),
            "linked too": File(lost[: 2 << 20], extra=link),
            "z": os.urandom(100_000),
        },
    )
    chunk = TreeReader(damaged.reader()).get(root, b"lost").content[40:72]
    damage(damaged, chunk)
    destination.mkdir()
    (destination / "lost").write_bytes(b"old")
    result = bring_back(damaged, root, destination, processes=processes, overwrite=True)
    assert paths(result.damaged) == [b"again/lost", b"linked", b"linked too", b"lost"]
    assert chunk.hex() in result.damaged.first[0].reason
    assert not result.is_complete
    assert sorted(describe(destination)) == [b"", b"a", b"again", b"again/good", b"lost", b"z"]
    assert (destination / "lost").read_bytes() == b"old"


def test_damaged_files_leave_nothing_where_there_are_no_unnamed_files(
    damaged: Store, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plant_mine(damaged, {"a": b"good", "lost": b"lost"})
    damage(damaged, TreeReader(damaged.reader()).get(root, b"lost").content[:32])
    forbid_tmpfile(monkeypatch)
    assert paths(bring_back(damaged, root, destination).damaged) == [b"lost"]
    assert os.listdir(destination) == ["a"]


def test_a_damaged_folder_is_reported_and_not_made(damaged: Store, destination: Path) -> None:
    root = plant_mine(damaged, {"a": b"1", "lost": {"x": b"2"}, "sub": {"lost": {"y": b"3"}, "z": b"4"}})
    for path in (b"lost", b"sub/lost"):
        damage(damaged, TreeReader(damaged.reader()).get(root, path).content)
    for dry_run in (True, False):
        result = bring_back(damaged, root, destination, dry_run=dry_run)
        assert (result.files, paths(result.damaged)) == (2, [b"lost", b"sub/lost"])
    assert sorted(describe(destination)) == [b"", b"a", b"sub", b"sub/z"]


def test_a_damaged_root_is_an_error_and_makes_nothing(damaged: Store, destination: Path) -> None:
    root = plant_mine(damaged, {"a": b"1"})
    damage(damaged, root.content)
    with pytest.raises(CorruptionError):
        bring_back(damaged, root, destination)
    assert not destination.exists()


# --- full disks and sudden ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_tmpfile", [True, False])
def test_a_full_disk_ends_it_with_a_clear_error(
    store: Store, destination: Path, has_tmpfile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_tmpfile:
        forbid_tmpfile(monkeypatch)
    root = plant_mine(store, {"a": b"1", "b": b"22", "c": b"3", "link": "a"})
    write = os.write
    is_full = True

    def fail(file: int, data: bytes) -> int:
        if is_full and len(data) == 2:
            write(file, data[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(LimitError, match=r"no space left for 'b'.* at least 1 files were restored .* are whole") as caught:
        bring_back(store, root, destination)
    assert "run the same command again" in caught.value.hint
    assert os.listdir(destination) == ["a"]
    is_full = False
    assert (bring_back(store, root, destination).files, sorted(os.listdir(destination))) == (2, ["a", "b", "c", "link"])


@needs_root
@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_file_system_keeps_whole_files_only(
    sandbox: Sandbox, destination: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 10)
    for number in range(200):
        sandbox.write(f"d{number % 7}/f{number}", os.urandom(20_000))
    sandbox.back_up()
    destination.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", destination], check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        with pytest.raises(LimitError, match="no space left"):
            bring_back(sandbox.store, root_of(sandbox), destination, processes=processes)
        restored = [path for path in destination.rglob("*") if path.is_file()]
        assert restored
        assert all(path.read_bytes() == (sandbox.folder / path.relative_to(destination)).read_bytes() for path in restored)
        assert children() == set()
        subprocess.run(["mount", "-o", "remount,size=64m", destination], check=True)
        result = bring_back(sandbox.store, root_of(sandbox), destination, processes=processes)
        assert (result.files, result.unchanged) == (200 - len(restored), len(restored))
        assert_same(sandbox.folder, destination)
    finally:
        subprocess.run(["umount", destination], check=True)


def test_an_error_of_one_file_leaves_the_others_alone(store: Store, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def fail(file: int, data: bytes) -> int:
        if len(data) == 2:
            raise OSError(errno.EFBIG, "File too large")
        return write(file, data)

    monkeypatch.setattr(os, "write", fail)
    result = bring_back(store, plant_mine(store, {"a": b"1", "b": b"22", "c": b"3"}), destination)
    assert [(finding.path, finding.reason) for finding in result.failed.first] == [(b"b", "File too large")]
    assert sorted(os.listdir(destination)) == ["a", "c"]


def test_ctrl_c_ends_all_processes_and_leaves_no_unfinished_file(sandbox: Sandbox, destination: Path) -> None:
    """A real one: SIGINT to the whole process group, as from a terminal."""
    for number in range(3000):
        sandbox.write(f"d{number % 30}/f{number}", b"%d" % number * 1000)
    sandbox.back_up()
    program = """
import os, sys
from pathlib import Path
from yester.engine.check import check
from yester.engine.restore import RestoreOptions, restore
from yester.store.store import Store
with Store.open(Path(sys.argv[1])) as store:
    root = store.latest_snapshot("docs").snapshot.root
    while True:
        restore(store, root, Path(sys.argv[2]) / str(os.times().elapsed), RestoreOptions(processes=2, sync=False))
"""
    command = [sys.executable, "-c", program, os.fspath(sandbox.store.path), os.fspath(destination)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, process_group=0, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(destination.glob("*/d*/f*")):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    for path in destination.glob("*/d*/*"):
        assert path.read_bytes() == (sandbox.folder / path.parent.name / path.name).read_bytes()


def test_a_process_that_is_killed_ends_the_restore(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 10)
    for number in range(200):
        sandbox.write(f"d{number}/f", b"1")
    sandbox.back_up()
    submit = restore_pool.WorkerPool.submit

    def kill(self: restore_pool.WorkerPool, tasks: list[Any]) -> None:
        submit(self, tasks)
        for worker in self._workers:
            worker.process.kill()

    monkeypatch.setattr(restore_pool.WorkerPool, "submit", kill)
    with pytest.raises(YesterError, match="was ended by SIGKILL; files that are in place are whole"):
        bring_back(sandbox.store, root_of(sandbox), destination, processes=2)
    assert children() == set()
    monkeypatch.setattr(restore_pool.WorkerPool, "submit", submit)
    bring_back(sandbox.store, root_of(sandbox), destination, processes=2)
    assert_same(sandbox.folder, destination)


def test_where_no_process_can_be_started_one_does_everything(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 1)
    for name in "abc":
        sandbox.write(name, b"1")
    sandbox.back_up()
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert bring_back(sandbox.store, root_of(sandbox), destination, processes=2).files == 3
    assert_same(sandbox.folder, destination)


def test_a_bug_in_a_process_is_told_as_one(sandbox: Sandbox, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_module, "BATCH_FILES", 1)
    for name in "abc":
        sandbox.write(name, b"1")
    sandbox.back_up()
    job = restore_pool.Job
    monkeypatch.setattr(restore_pool, "Job", lambda tasks: job([msgspec.structs.replace(task, start="no number") for task in tasks]))
    with pytest.raises(RuntimeError, match="in a process that restores files: Traceback"):
        bring_back(sandbox.store, root_of(sandbox), destination, processes=2)
    assert children() == set()


# --- ordinary users ---------------------------------------------------------------------------------------------------

AS_NOBODY = """
import json, os, sys
from pathlib import Path
import msgspec
from yester.core.records import Entry
from yester.engine.check import check
from yester.engine.restore import RestoreOptions, restore
from yester.store.store import Store
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
path, destination, processes, root = sys.argv[1:]
root = msgspec.msgpack.decode(bytes.fromhex(root), type=Entry)
with Store.open(Path(path)) as store:
    result = restore(store, root, Path(destination), RestoreOptions(sync=False, processes=int(processes), numeric_ids=True))
counts = {
    shortfall.name: [findings.count, [os.fsdecode(finding.path) for finding in findings.first]]
    for shortfall, findings in result.shortfalls.items()
}
failed = {os.fsdecode(finding.path): finding.reason for finding in result.failed.first}
print(json.dumps([counts, result.files, result.others, result.unchanged, result.mended, result.is_complete, failed]))
"""


class OrdinaryUser:
    """Restores as somebody who is not root, in a process of its own, below a folder of theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uid = 65534 if IS_ROOT else os.geteuid()
        self.gid = 65534 if IS_ROOT else os.getegid()
        self.store = Store.create(folder / "store")

    def may_start_python(self) -> bool:
        """Whether worker processes can be had."""
        as_user = ["setpriv", f"--reuid={self.uid}", "--clear-groups"] if IS_ROOT else []
        command = [*as_user, sys.executable, "-c", "import yester.store.store"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, check=False, capture_output=True, env=environment).returncode == 0

    def restore(self, root: Entry, *, processes: int = 1) -> list[Any]:
        """What AS_NOBODY prints."""
        if IS_ROOT:
            subprocess.run(["chown", "-R", f"{self.uid}:{self.gid}", self.folder / "store"], check=True)
        encoded = msgspec.msgpack.encode(root).hex()
        command = [
            sys.executable,
            "-c",
            AS_NOBODY,
            os.fspath(self.folder / "store"),
            os.fspath(self.folder / "out"),
            str(processes),
            encoded,
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert ran.returncode == 0, ran.stderr
        found: list[Any] = json.loads(ran.stdout)
        return found


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    folder = Path("/tmp") / f"yester-restore-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        if IS_ROOT:
            os.chown(folder, 65534, 65534)
        found = OrdinaryUser(folder)
        yield found
        found.store.close()
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
        subprocess.run(["rm", "-rf", folder], check=True)


def plant_privileged(user: OrdinaryUser) -> Entry:
    """Things of which an ordinary user gets only a part."""
    store = user.store
    own: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    entries = [
        regular(b"foreign", b"1", uid=4242, gid=4242)(store),
        regular(b"foreign-setuid", b"1", uid=4242, gid=user.gid, mode=stat.S_IFREG | 0o6755)(store),
        regular(b"own", b"1", **own)(store),
        regular(b"own-setuid", b"1", mode=stat.S_IFREG | 0o4751, **own)(store),
        regular(b"read-only", b"1", mode=stat.S_IFREG | 0o444, extra=Extra(xattrs=((b"user.note", b"1"),)), **own)(store),
        regular(b"secret", b"1", extra=Extra(xattrs=((b"security.capability", bytes(20)), (b"trusted.x", b"1"))), **own)(store),
        Entry(b"null", stat.S_IFCHR | 0o666, **own, mtime_ns=T0_NS, atime_ns=T0_NS, size=0, level=0, content=b"", extra=Extra(rdev=0x103)),
        Entry(b"fifo", stat.S_IFIFO | 0o640, **own, mtime_ns=T0_NS, atime_ns=T0_NS, size=0, level=0, content=b""),
    ]
    entries += [regular(b"many%d" % number, uid=0, gid=0)(store) for number in range(10)]
    folder = msgspec.structs.replace(plant_entries(store, regular(b"inside", b"1", **own)(store)), **own)
    entries += [
        msgspec.structs.replace(folder, name=b"closed", mode=stat.S_IFDIR),
        msgspec.structs.replace(folder, name=b"read-only-folder", mode=stat.S_IFDIR | 0o555),
        msgspec.structs.replace(folder, name=b"write-only-folder", mode=stat.S_IFDIR | 0o300),
    ]
    return msgspec.structs.replace(plant_entries(store, *sorted(entries, key=lambda entry: entry.name)), mode=stat.S_IFDIR | 0o555, **own)


def test_ordinary_users_get_what_they_can_own_and_a_summary(user: OrdinaryUser) -> None:
    root = plant_privileged(user)
    counts, files, others, _, _, is_complete, failed = user.restore(root)
    out = user.folder / "out"
    assert (files, others, is_complete, failed) == (19, 1, True, {})
    assert counts.pop("OWNER") == [12, ["foreign", "foreign-setuid", "many0", "many1", "many2"]]
    assert counts.pop("SET_ID") == [1, ["foreign-setuid"]]
    assert counts.pop("DEVICE") == [1, ["null"]]
    assert counts.pop("XATTR")[1][0] == "secret"
    assert counts == {}
    assert (out / "foreign").stat().st_uid == user.uid
    modes = {name: stat.S_IMODE((out / name).stat().st_mode) for name in os.listdir(out)}
    assert (modes["foreign-setuid"], modes["own-setuid"], modes["read-only"], modes["fifo"]) == (0o755, 0o4751, 0o444, 0o640)
    assert (modes["closed"], modes["read-only-folder"], modes["write-only-folder"]) == (0, 0o555, 0o300)
    if list_xattrs(os.fsencode(out / "read-only")):
        assert os.getxattr(out / "read-only", "user.note") == b"1"


@pytest.mark.parametrize("processes", [1, 2])
def test_ordinary_users_can_restore_again_into_folders_they_may_not_enter(user: OrdinaryUser, processes: int) -> None:
    if processes > 1 and not user.may_start_python():
        pytest.skip("nobody may not run this Python")
    root = plant_privileged(user)
    user.restore(root)
    out = user.folder / "out"
    subprocess.run(["chmod", "u+rwx", out, out / "closed"], check=True)
    (out / "closed/inside").unlink()
    (out / "own").unlink()
    (out / "read-only").chmod(0o400)
    (out / "closed").chmod(0)
    out.chmod(0o500)
    _, files, others, unchanged, mended, is_complete, failed = user.restore(root, processes=processes)
    assert (files, others, unchanged, is_complete, failed) == (2, 0, 18, True, {})
    assert mended >= 1
    modes = {name: stat.S_IMODE((out / name).stat().st_mode) for name in os.listdir(out)}
    assert (modes["closed"], modes["read-only"], modes["write-only-folder"], stat.S_IMODE(out.stat().st_mode)) == (0, 0o444, 0o300, 0o555)
    (out / "closed").chmod(0o700)
    assert (out / "closed/inside").read_bytes() == b"1"


def test_what_an_ordinary_user_may_not_write_is_reported(user: OrdinaryUser) -> None:
    own: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    inner = msgspec.structs.replace(plant_entries(user.store, regular(b"inside", b"1", **own)(user.store)), name=b"theirs", **own)
    root = msgspec.structs.replace(plant_entries(user.store, inner, regular(b"z", b"1", **own)(user.store)), **own)
    if not IS_ROOT:
        pytest.skip("only root can make a folder of somebody else")
    out = user.folder / "out"
    (out / "theirs").mkdir(parents=True)
    os.chown(out, user.uid, user.gid)
    _, files, _, _, _, is_complete, failed = user.restore(root)
    assert (files, is_complete) == (1, False)
    assert failed == {"theirs/inside": "Permission denied"}
    assert stat.S_IMODE((out / "theirs").stat().st_mode) == 0o755


# --- the walk ---------------------------------------------------------------------------------------------------------


def test_folders_are_walked_in_the_order_in_which_they_were_stored(store: Store) -> None:
    root = plant(store, {"b": {"x": {}, "y": {}}, "a": {}, "c": Folder({})})
    walk = StoredWalk(store.reader(), root, None, is_new=True, owners=Owners(numeric=True), tally=Tally())
    assert [visit.path for visit, _ in walk.enter()] == [b"", b"a", b"b", b"b/x", b"b/y", b"c"]
    assert [visit.path for visit in walk.leave()] == [b"a", b"b/x", b"b/y", b"b", b"c", b""]


def test_what_a_walk_is_kept_out_of_stays_out(store: Store) -> None:
    root = plant(store, {"b": {"x": {}, "y": {}}, "c": {}})
    walk = StoredWalk(store.reader(), root, None, is_new=True, owners=Owners(numeric=True), tally=Tally())
    for visit, _ in walk.enter():
        visit.is_pruned = visit.path == b"b"
    assert [visit.path for visit, _ in walk.enter()] == [b"", b"c"]
    assert [visit.path for visit in walk.leave()] == [b"c", b""]

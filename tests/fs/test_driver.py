# SPDX-License-Identifier: MIT
"""The driver: every error becomes an errno, and listings resume anywhere. Handlers are called as pyfuse3 calls them."""

import errno
import inspect
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar, cast

import msgspec
import pyfuse3
import pytest
import trio
from trio.testing import MockClock

from tests.fs.conftest import Planter
from yester import errors
from yester.core.content import pack_span
from yester.core.ids import ChunkId
from yester.core.records import Extra
from yester.errors import YesterError
from yester.fs import driver, mounting
from yester.fs.driver import ERRNO, SnapshotOperations
from yester.fs.view import ROOT, View
from yester.store.leases import list_leases

Result = TypeVar("Result")
NO_CONTEXT = cast("pyfuse3.RequestContext", None)  # no handler looks at it


@pytest.fixture
def operations(view: View) -> SnapshotOperations:
    return SnapshotOperations(view)


def answer(handler: Callable[..., Awaitable[Result]], *arguments: object) -> Result:
    """What the kernel is answered."""
    return trio.run(handler, *arguments)


def error(handler: Callable[..., Awaitable[object]], *arguments: object) -> int:
    """The errno that the kernel is answered."""
    with pytest.raises(pyfuse3.FUSEError) as raised:
        trio.run(handler, *arguments)
    return raised.value.errno


def find(operations: SnapshotOperations, path: str | bytes) -> int:
    """The inode of a path; it must be there."""
    inode = int(ROOT)
    for name in os.fsencode(path).split(b"/"):
        inode = answer(operations.lookup, inode, name, NO_CONTEXT).st_ino
        assert inode, f"no {name!r} of {path!r}"
    return inode


SNAPSHOT = "snapshots/docs/2026-11-22_10-00-00"


# --- errors -----------------------------------------------------------------------------------------------------------


def _all_errors(parent: type[YesterError]) -> set[type[YesterError]]:
    return {parent}.union(*map(_all_errors, parent.__subclasses__()))


def test_every_error_of_ours_has_an_errno() -> None:
    assert set(ERRNO) == {found for found in _all_errors(YesterError) if found.__module__ == errors.__name__}
    assert all(number in errno.errorcode for number in ERRNO.values())


class Failing(SnapshotOperations):
    """Its `getattr` raises what it is told."""

    failure: BaseException

    @driver.guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> NoReturn:
        raise self.failure


@pytest.fixture
def failing(view: View) -> Failing:
    return Failing(view)


@pytest.mark.expect_log("getattr ''")
@pytest.mark.parametrize("kind", ERRNO)
def test_an_error_of_ours_is_answered_by_its_errno_and_logged(
    failing: Failing, kind: type[YesterError], caplog: pytest.LogCaptureFixture
) -> None:
    failing.failure = kind("chunk 12 is damaged", hint="a hint")
    assert error(failing.getattr, ROOT, NO_CONTEXT) == ERRNO[kind]
    assert caplog.messages == ["getattr '': chunk 12 is damaged"]


@pytest.mark.expect_log("getattr ''")
@pytest.mark.parametrize(
    ("failure", "number"),
    [(OSError(errno.EIO, "I/O error"), errno.EIO), (PermissionError(errno.EACCES, "no"), errno.EACCES), (OSError("odd"), errno.EIO)],
)
def test_an_error_of_the_system_is_passed_on_and_logged(
    failing: Failing, failure: OSError, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    failing.failure = failure
    assert error(failing.getattr, ROOT, NO_CONTEXT) == number
    assert str(failure) in caplog.text


def test_an_answer_that_is_an_errno_is_passed_on_and_not_logged(failing: Failing, caplog: pytest.LogCaptureFixture) -> None:
    failing.failure = pyfuse3.FUSEError(errno.ENOTDIR)
    assert error(failing.getattr, ROOT, NO_CONTEXT) == errno.ENOTDIR
    assert not caplog.records


@pytest.mark.expect_log("failed unexpectedly")
@pytest.mark.parametrize(
    "failure", [ValueError("odd"), KeyError(1), MemoryError(), RecursionError(), AssertionError(), UnicodeError()], ids=repr
)
def test_whatever_else_goes_wrong_is_an_io_error_and_logged_with_its_place(
    failing: Failing, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failing.failure = failure
    assert error(failing.getattr, ROOT, NO_CONTEXT) == errno.EIO
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is failure


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_what_shall_end_the_process_does(failing: Failing, failure: BaseException) -> None:
    failing.failure = failure
    with pytest.raises(type(failure)):
        trio.run(failing.getattr, ROOT, NO_CONTEXT)


def test_every_handler_that_can_fail_is_guarded() -> None:
    handlers = {
        name for name, value in vars(SnapshotOperations).items() if inspect.iscoroutinefunction(value) and hasattr(pyfuse3.Operations, name)
    }
    unguarded = {name for name in handlers if not hasattr(vars(SnapshotOperations)[name], "__wrapped__")}
    assert {"lookup", "readdir", "read", "getxattr"} <= handlers
    assert unguarded == {"forget", "release"}


@pytest.mark.parametrize("pairs", [[], [(1, 1)], [(99, 1)], [(ROOT, 2**63)]])
def test_forgetting_never_fails(operations: SnapshotOperations, pairs: list[tuple[int, int]]) -> None:
    answer(operations.forget, pairs)


def test_a_request_about_a_number_that_is_not_known_is_stale(operations: SnapshotOperations) -> None:
    assert error(operations.getattr, 99, NO_CONTEXT) == errno.ESTALE
    assert error(operations.lookup, 99, b"a", NO_CONTEXT) == errno.ESTALE
    assert error(operations.opendir, 99, NO_CONTEXT) == errno.ESTALE
    assert error(operations.read, 99, 0, 1) == errno.ESTALE


@pytest.mark.expect_log("damaged|is not in the store")
def test_the_log_names_the_file_that_is_damaged(operations: SnapshotOperations, planter: Planter, caplog: pytest.LogCaptureFixture) -> None:
    file = msgspec.structs.replace(planter.file([b"x"]), content=pack_span(ChunkId(b"m" * 32), 1))
    planter.snapshot({b"dir": {b"new\nline\xff": file}})
    inode = find(operations, SNAPSHOT.encode() + b"/dir/new\nline\xff")
    assert error(operations.read, inode, 0, 1) == errno.EIO
    assert rf"read '{SNAPSHOT}/dir/new\nline\xff': chunk 6d6d" in caplog.text


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_name_that_is_there_is_answered_with_its_attributes(operations: SnapshotOperations, planter: Planter) -> None:
    planter.snapshot({b"a": planter.file([b"x" * 600], mode=stat.S_IFREG | 0o640, mtime_ns=-1, atime_ns=1)})
    folder = find(operations, SNAPSHOT)
    reply = answer(operations.lookup, folder, b"a", NO_CONTEXT)
    assert (reply.st_mode, reply.st_uid, reply.st_gid, reply.st_nlink) == (stat.S_IFREG | 0o640, 1000, 1000, 1)
    assert (reply.st_size, reply.st_blocks, reply.st_rdev, reply.generation) == (600, 2, 0, 0)
    assert (reply.st_mtime_ns, reply.st_ctime_ns, reply.st_atime_ns) == (-1, -1, 1)
    assert reply.entry_timeout > 10**6
    assert reply.attr_timeout > 10**6
    assert answer(operations.getattr, reply.st_ino, NO_CONTEXT).st_ino == reply.st_ino


def test_a_name_that_is_not_there_is_answered_for_as_long_as_it_may_be_believed(operations: SnapshotOperations, planter: Planter) -> None:
    planter.snapshot({b"a": b"data"})
    absent = answer(operations.lookup, find(operations, SNAPSHOT), b"b", NO_CONTEXT)
    assert (absent.st_ino, absent.entry_timeout > 10**6) == (0, True)
    absent = answer(operations.lookup, find(operations, "snapshots/docs"), b"2026-11-22_11-00-00", NO_CONTEXT)
    assert (absent.st_ino, 0 < absent.entry_timeout < 1) == (0, True)


def test_a_name_in_a_growing_folder_may_not_be_believed_for_long_though_its_attributes_may(
    operations: SnapshotOperations, planter: Planter
) -> None:
    planter.snapshot({b"a": b"data"})
    in_snapshot = answer(operations.lookup, find(operations, SNAPSHOT), b"a", NO_CONTEXT)
    assert in_snapshot.entry_timeout > 10**6
    in_versions = answer(operations.lookup, find(operations, "versions/docs/a"), b"2026-11-22_10-00-00", NO_CONTEXT)
    assert in_versions.st_ino == in_snapshot.st_ino
    assert in_versions.entry_timeout < 1
    assert in_versions.attr_timeout > 10**6


@pytest.mark.parametrize("length", [256, 1000])
def test_a_name_that_is_too_long_is_refused(operations: SnapshotOperations, length: int) -> None:
    assert error(operations.lookup, ROOT, b"n" * length, NO_CONTEXT) == errno.ENAMETOOLONG


def test_only_folders_are_searched_and_listed_and_only_links_read(operations: SnapshotOperations, planter: Planter) -> None:
    planter.snapshot({b"a": b"data", b"link": "target"})
    file, link = find(operations, f"{SNAPSHOT}/a"), find(operations, f"{SNAPSHOT}/link")
    assert error(operations.lookup, file, b"b", NO_CONTEXT) == errno.ENOTDIR
    assert error(operations.opendir, file, NO_CONTEXT) == errno.ENOTDIR
    assert error(operations.readlink, file, NO_CONTEXT) == errno.EINVAL
    assert answer(operations.readlink, link, NO_CONTEXT) == b"target"
    assert answer(operations.readlink, find(operations, "snapshots/docs/latest"), NO_CONTEXT) == b"2026-11-22_10-00-00"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_CREAT])
def test_a_file_is_not_opened_for_writing(operations: SnapshotOperations, planter: Planter, flags: int) -> None:
    planter.snapshot({b"a": b"data"})
    assert error(operations.open, find(operations, f"{SNAPSHOT}/a"), flags, NO_CONTEXT) == errno.EROFS


def test_a_file_is_read_and_its_pages_may_be_kept(operations: SnapshotOperations, planter: Planter) -> None:
    planter.snapshot({b"a": b"0123456789"})
    opened = answer(operations.open, find(operations, f"{SNAPSHOT}/a"), os.O_RDONLY | os.O_NOATIME, NO_CONTEXT)
    assert opened.keep_cache
    assert not opened.direct_io
    assert bytes(answer(operations.read, opened.fh, 3, 4)) == b"3456"
    assert bytes(answer(operations.read, opened.fh, 8, 4)) == b"89"
    assert bytes(answer(operations.read, opened.fh, 10, 4)) == b""
    answer(operations.release, opened.fh)


def test_what_was_forgotten_is_let_go_at_the_first_moment_at_which_nothing_is_open(
    operations: SnapshotOperations, planter: Planter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who read all the time leave no more than moments between."""
    gone, _ = planter.snapshot({b"a": b"data", b"sub": {}}), planter.snapshot({}, at="2026-11-23_10-00-00")
    inode, folder = find(operations, f"{SNAPSHOT}/a"), find(operations, f"{SNAPSHOT}/sub")
    store = planter.store

    def generation() -> int:
        [lease] = list_leases(store.leases_folder)
        return lease.generation

    async def use() -> None:
        first = await operations.open(inode, os.O_RDONLY, NO_CONTEXT)
        store.forget([gone.id], now_ns=0)
        forgotten = store.snapshots_generation()
        await trio.sleep(60)
        listing = await operations.opendir(folder, NO_CONTEXT)
        await operations.release(first.fh)
        assert generation() < forgotten
        await operations.releasedir(listing)
        assert generation() == forgotten
        store.undelete([gone.id])
        for _ in range(3):
            await operations.release((await operations.open(inode, os.O_RDONLY, NO_CONTEXT)).fh)
        assert generation() == forgotten  # it is asked for every two seconds, not at each file
        await trio.sleep(3)
        assert generation() == store.snapshots_generation()

    monkeypatch.setattr("pyfuse3.main", use)
    trio.run(mounting._serve, lambda: None, store, operations, clock=MockClock(autojump_threshold=0))


def test_xattrs_are_listed_and_read(operations: SnapshotOperations, planter: Planter) -> None:
    file = planter.file([b"data"], extra=Extra(xattrs=((b"user.a", b""), (b"user.b", b"\0\xff"))))
    planter.snapshot({b"a": file, b"b": b"data"}, xattr_names=(b"user.a", b"user.b"))
    has, lacks = find(operations, f"{SNAPSHOT}/a"), find(operations, f"{SNAPSHOT}/b")
    assert answer(operations.listxattr, has, NO_CONTEXT) == [b"user.a", b"user.b"]
    assert answer(operations.getxattr, has, b"user.b", NO_CONTEXT) == b"\0\xff"
    assert answer(operations.listxattr, lacks, NO_CONTEXT) == []
    assert error(operations.getxattr, lacks, b"user.a", NO_CONTEXT) == errno.ENODATA
    assert error(operations.getxattr, has, b"security.selinux", NO_CONTEXT) == errno.EOPNOTSUPP
    assert error(operations.getxattr, find(operations, "snapshots"), b"user.a", NO_CONTEXT) == errno.ENODATA


def test_the_file_system_has_no_room_and_takes_names_of_255_bytes(operations: SnapshotOperations) -> None:
    shown = answer(operations.statfs, NO_CONTEXT)
    assert shown.f_namemax == 255
    assert shown.f_blocks > 0
    assert shown.f_bfree == shown.f_bavail == shown.f_ffree == 0


# --- listings ---------------------------------------------------------------------------------------------------------


class Listing:
    """What `readdir` tells a kernel whose buffer takes `room` names a call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, operations: SnapshotOperations) -> None:
        self.operations = operations
        self.told: list[tuple[bytes, int, int]] = []
        """Name, inode and cookie, as told by the last call."""
        self.room = 0
        monkeypatch.setattr(pyfuse3, "readdir_reply", self._reply)

    def read(self, handle: int, start: int, room: int) -> list[tuple[bytes, int, int]]:
        self.told, self.room = [], room
        answer(self.operations.readdir, handle, start, cast("pyfuse3.ReaddirToken", None))
        return self.told

    def _reply(self, _token: object, name: bytes, attributes: pyfuse3.EntryAttributes, next_id: int) -> bool:
        if len(self.told) == self.room:
            return False
        self.told.append((name, attributes.st_ino, next_id))
        return True


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch, operations: SnapshotOperations) -> Listing:
    return Listing(monkeypatch, operations)


def test_a_listing_starts_with_the_folder_and_its_parent(listing: Listing, planter: Planter) -> None:
    planter.snapshot({b"dir": {b"a": b"data"}})
    folder, parent = find(listing.operations, f"{SNAPSHOT}/dir"), find(listing.operations, SNAPSHOT)
    handle = answer(listing.operations.opendir, folder, NO_CONTEXT)
    assert [(name, inode) for name, inode, _ in listing.read(handle, 0, 2)] == [(b".", folder), (b"..", parent)]
    root = answer(listing.operations.opendir, ROOT, NO_CONTEXT)
    assert [(name, inode) for name, inode, _ in listing.read(root, 0, 2)] == [(b".", ROOT), (b"..", ROOT)]


@pytest.mark.parametrize("room", [1, 2, 3, 7, 100])
def test_a_listing_resumes_where_it_was_whatever_fits_in_one_reply(listing: Listing, planter: Planter, room: int) -> None:
    planter.snapshot({b"%02d" % number: {} for number in range(20)})
    handle = answer(listing.operations.opendir, find(listing.operations, SNAPSHOT), NO_CONTEXT)
    names: list[bytes] = []
    cookie = 0
    while told := listing.read(handle, cookie, room):
        names += (name for name, _, _ in told)
        cookie = told[-1][2]
    assert names == [b".", b"..", *(b"%02d" % number for number in range(20))]
    answer(listing.operations.releasedir, handle)


def test_a_listing_resumes_at_any_cookie_it_gave(listing: Listing, planter: Planter) -> None:
    planter.snapshot({b"%02d" % number: b"data" for number in range(5)})
    handle = answer(listing.operations.opendir, find(listing.operations, SNAPSHOT), NO_CONTEXT)
    whole = listing.read(handle, 0, 100)
    for position, (_, _, cookie) in enumerate(whole):
        assert listing.read(handle, cookie, 100) == whole[position + 1 :]
    assert listing.read(handle, 0, 100) == whole


def test_only_what_fitted_counts_as_told(listing: Listing, planter: Planter, view: View) -> None:
    planter.snapshot({b"%02d" % number: {} for number in range(5)})
    folder = find(listing.operations, SNAPSHOT)
    known = view.node_count()
    handle = answer(listing.operations.opendir, folder, NO_CONTEXT)
    told = listing.read(handle, 0, 4)
    assert view.node_count() == known + 2
    answer(listing.operations.forget, [(inode, 1) for _, inode, _ in told[2:]])
    assert view.node_count() == known


def test_what_was_listed_is_known_until_it_is_forgotten(listing: Listing, planter: Planter, view: View) -> None:
    planter.snapshot({b"a": b"data"})
    folder = find(listing.operations, SNAPSHOT)
    handle = answer(listing.operations.opendir, folder, NO_CONTEXT)
    [_, _, (_, inode, _)] = listing.read(handle, 0, 100)
    assert find(listing.operations, f"{SNAPSHOT}/a") == inode
    answer(listing.operations.forget, [(inode, 1)])
    assert view.node(inode) is not None
    answer(listing.operations.forget, [(inode, 1)])
    assert view.node(inode) is None


def test_what_an_open_folder_lists_does_not_change(listing: Listing, planter: Planter) -> None:
    planter.snapshot({})
    folder = find(listing.operations, "snapshots/docs")
    handle = answer(listing.operations.opendir, folder, NO_CONTEXT)
    before = listing.read(handle, 0, 100)
    planter.snapshot({}, at="2026-11-22_11-00-00")
    assert listing.read(handle, 0, 100) == before
    again = answer(listing.operations.opendir, folder, NO_CONTEXT)
    assert again != handle
    assert len(listing.read(again, 0, 100)) == len(before) + 1


@pytest.mark.expect_log("failed unexpectedly")
def test_a_closed_folder_is_not_listed_any_more(listing: Listing) -> None:
    handle = answer(listing.operations.opendir, ROOT, NO_CONTEXT)
    answer(listing.operations.releasedir, handle)
    assert error(listing.operations.readdir, handle, 0, None) == errno.EIO


def test_versions_are_loaded_before_they_are_listed_or_searched(listing: Listing, planter: Planter) -> None:
    planter.snapshot({b"a": b"1"}, at="2026-11-21_10-00-00")
    folder = find(listing.operations, "versions/docs/a")
    planter.snapshot({b"a": b"2"})
    handle = answer(listing.operations.opendir, folder, NO_CONTEXT)
    assert [name for name, _, _ in listing.read(handle, 2, 100)] == [b"2026-11-21_10-00-00", b"2026-11-22_10-00-00"]

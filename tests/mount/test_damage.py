# SPDX-License-Identifier: MIT
"""A damaged or hostile store in a mount: an error for exactly what is touched, its name in the log, all else readable."""

import errno
import mmap
import os
import random
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from tests.mount.conftest import Place, errno_of
from yester.core.content import pack_span
from yester.core.ids import ChunkId
from yester.core.records import RECORD_VERSION, Entry, Extra, Snapshot, Tree
from yester.engine.trees import TreeReader, store_tree
from yester.store.chunks import segment_key, unpack_location
from yester.store.lmdb import Table
from yester.store.segments import Kind
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

FILE_BYTES = 30_000


def flip_byte(place: Place, stored: bytes) -> None:
    """Damage the one place in the store's file that holds these bytes. Nothing has it open."""
    place.is_damaged = True
    with (place.store / "data.mdb").open("r+b") as file:
        data = file.read()
        assert data.count(stored) == 1
        at = data.index(stored) + len(stored) // 2
        file.seek(at)
        file.write(bytes([data[at] ^ 0x10]))


def read_all(folder: Path, names: Iterable[str]) -> dict[str, bytes | int]:
    """What each file holds, or the errno that reading it gives."""
    return {name: read(folder / name) for name in names}


def read(file: Path) -> bytes | int:
    return errno_of(file.read_bytes) or file.read_bytes()


@pytest.fixture
def files(place: Place) -> dict[str, bytes]:
    """Files in the folder that do not compress: the store's file has their bytes as they are."""
    rng = random.Random(1)
    files = {f"file {number}": rng.randbytes(FILE_BYTES) for number in range(20)}
    for name, data in files.items():
        place.write(name, data)
    return files


def test_a_flipped_byte_is_an_error_for_the_file_it_is_in_and_for_no_other(place: Place, files: dict[str, bytes]) -> None:
    first, second = place.back_up(), place.back_up()
    flip_byte(place, files["file 7"])
    place.mount()
    for stored in (first, second):
        assert read_all(place.shown(stored), files) == files | {"file 7": errno.EIO}
    log = place.log.read_text()
    assert f"snapshots/docs/{first.snapshot.name}/file 7': chunk" in log
    assert "is damaged" in log
    assert all(f"/{name}'" not in log for name in files if name != "file 7")
    # What is known of the damaged file is still shown, and the mount is well.
    assert (place.shown(first) / "file 7").stat().st_size == FILE_BYTES
    assert len(os.listdir(place.shown(first))) == len(files)
    place.unmount()


def test_a_large_file_is_readable_but_for_its_damaged_chunk(place: Place) -> None:
    data = random.Random(2).randbytes(6 << 20)
    place.write("large", data)
    stored = place.back_up()
    damaged_at = 3 << 20
    flip_byte(place, data[damaged_at : damaged_at + 1000])
    place.mount()
    file = os.open(place.shown(stored) / "large", os.O_RDONLY)
    page = mmap.PAGESIZE
    lost = []
    for at in range(0, len(data), page):
        if failed := errno_of(os.pread, file, page, at):
            assert failed == errno.EIO
            lost.append(at)
        else:
            assert os.pread(file, page, at) == data[at : at + page]
    os.close(file)
    assert damaged_at in lost
    assert lost[-1] - lost[0] < 1 << 20, "one chunk is at most 1 MiB"
    assert "/large': chunk" in place.log.read_text()
    place.unmount()


def test_a_flipped_byte_in_compressed_data_never_gives_wrong_bytes(place: Place) -> None:
    rng = random.Random(3)
    files = {f"file {number:02}": b"".join(rng.choice([b"alpha ", b"beta ", b"gamma "]) for _ in range(5000)) for number in range(20)}
    for name, data in files.items():
        place.write(name, data)
    stored = place.back_up()
    with place.open_store() as store, store.environment.read() as view:
        [segment] = {bytes(value) for _, value in view.iterate(Table.SEGMENTS) if len(value) > 10_000}
    flip_byte(place, segment[-1000:-900])
    place.mount()
    found = read_all(place.shown(stored), files)
    damaged = {name for name, data in found.items() if data == errno.EIO}
    assert {name: data for name, data in found.items() if name not in damaged} == {
        name: data for name, data in files.items() if name not in damaged
    }
    assert damaged
    log = place.log.read_text()
    assert {name for name in files if f"/{name}': chunk" in log} == damaged
    place.unmount()


def test_a_damaged_folder_is_an_error_and_its_siblings_are_readable(place: Place, files: dict[str, bytes]) -> None:
    for number in range(5):
        place.write(f"folder {number}/inner", b"data")
    stored = place.back_up()
    lost = ChunkId(_entry(place, stored, b"folder 3").content)
    _drop_chunk(place, lost)
    place.mount()
    folder = place.shown(stored)
    assert len(os.listdir(folder)) == len(files) + 5
    assert read_all(folder, files) == files
    for number in range(5):
        if number != 3:
            assert os.listdir(folder / f"folder {number}") == ["inner"]
    for look in (lambda: os.listdir(folder / "folder 3"), lambda: os.lstat(folder / "folder 3" / "inner")):
        assert errno_of(look) == errno.EIO
    assert stat.S_ISDIR((folder / "folder 3").stat().st_mode)
    assert "/folder 3'" in place.log.read_text()
    place.unmount()


def _entry(place: Place, stored: StoredSnapshot, name: bytes) -> Entry:
    with place.open_store() as store:
        return TreeReader(store.reader()).get(stored.snapshot.root, name)


def _drop_chunk(place: Place, chunk: ChunkId) -> None:
    place.is_damaged = True
    with place.open_store() as store:
        store.environment.write(lambda transaction: transaction.delete(Table.CHUNKS, chunk))


# --- hostile trees ----------------------------------------------------------------------------------------------------


def _file(name: bytes, **attributes: object) -> Entry:
    entry = Entry(name, stat.S_IFREG | 0o644, os.getuid(), os.getgid(), 10**18, 10**18, 0, 0, b"")
    return msgspec.structs.replace(entry, **attributes)


def _link(name: bytes, target: bytes) -> Entry:
    return _file(name, mode=stat.S_IFLNK | 0o777, content=target, size=len(target))


HIDDEN = [
    _file(b""),
    _file(b"."),
    _file(b".."),
    _file(b"a/b"),
    _file(b"/etc/passwd"),
    _file(b"nul\0nul"),
    _file(b"long" * 64),
    _file(b"twice"),
    _file(b"no type", mode=0o644),
    _file(b"odd type", mode=0o170644),
    _file(b"huge mode", mode=2**40),
    _file(b"negative size", size=-1),
    _file(b"huge size", size=2**63),
    _file(b"huge owner", uid=2**32),
    _file(b"negative owner", gid=-1),
    _file(b"half a span", content=b"x" * 39),
    _file(b"huge level", level=200),
    _file(b"no links", extra=Extra(nlink=0)),
    _file(b"many links", extra=Extra(nlink=2**40)),
    _file(b"more hole than file", extra=Extra(hole_bytes=1)),
    _file(b"negative hole", extra=Extra(hole_bytes=-1)),
    _file(b"huge device", mode=stat.S_IFCHR | 0o644, extra=Extra(rdev=2**40)),
    _file(b"fifo with content", mode=stat.S_IFIFO | 0o644, content=b"x"),
    _file(b"folder without id", mode=stat.S_IFDIR | 0o755, content=b"x"),
    _file(b"xattr without name", extra=Extra(xattrs=((b"", b"1"),))),
    _file(b"xattr with nul", extra=Extra(xattrs=((b"user.a\0b", b"1"),))),
    _file(b"xattr with a long name", extra=Extra(xattrs=((b"user." + b"x" * 251, b"1"),))),
    _link(b"empty link", b""),
    _link(b"long link", b"x" * 4096),
    _link(b"link with nul", b"a\0b"),
]
"""Entries that must not be shown."""

ODD = [
    _file(b"before all time", mtime_ns=-(2**63), atime_ns=-(2**63)),
    _file(b"after all time", mtime_ns=2**64 - 1, atime_ns=2**64 - 1),
    _file(b"largest size", size=2**63 - 1),
    _file(b"no such chunk", size=10, content=pack_span(ChunkId(b"x" * 32), 10)),
    _file(b"empty spans", size=10, content=bytes(40) + pack_span(ChunkId(b"x" * 32), 10)),
    _file(b"spans past the end of numbers", size=10, content=pack_span(ChunkId(b"x" * 32), 2**64 - 1) * 8),
    _file(b"large xattr", extra=Extra(xattrs=((b"user.large", b"x" * 70_000),))),
    _file(b"xattr of no kind", extra=Extra(xattrs=((b"nonsense", b"1"),))),
    _file(b"bad ACL", extra=Extra(xattrs=((b"system.posix_acl_access", b"nonsense"),))),
    _file(b"bad capability", extra=Extra(xattrs=((b"security.capability", b"nonsense"),))),
    _file(b"suid of root", mode=stat.S_IFREG | 0o6755, uid=0, gid=0),
    _link(b"link of 4095", b"x" * 4095),
    _file(b"no such folder", mode=stat.S_IFDIR | 0o755, content=b"x" * 32),
]
"""Entries that are shown, whatever comes of reading them."""

GOOD = b"twice"


def _publish(store: Store, entries: Iterable[Entry], *, xattr_names: tuple[bytes, ...] = ()) -> StoredSnapshot:
    with store.writer() as writer:
        data = writer.add(Kind.DATA, b"good")
        good = _file(GOOD, size=4, content=pack_span(data, 4))
        tree = Tree(RECORD_VERSION, {}, {}, tuple(sorted([good, *entries], key=lambda entry: (entry.name, -entry.size))))
        root = store_tree(tree, store.parameters.chunking, lambda record: writer.add(Kind.TREE, record))
    entry = Entry(b"", stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), 0, 0, 0, 0, root)
    return store.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", 10**18, 10**18, entry, xattr_names=xattr_names))


def test_hostile_entries_do_not_hide_their_siblings(place: Place) -> None:
    place.is_damaged = True
    with place.open_store() as store:
        stored = _publish(store, [*HIDDEN, *ODD], xattr_names=(b"*",))
    place.mount()
    folder = os.fsencode(place.shown(stored))
    shown = sorted([GOOD, *(entry.name for entry in ODD)])
    assert os.listdir(folder) == shown
    with open(folder + b"/" + GOOD, "rb") as file:
        assert file.read() == b"good"
    for name in shown:
        path = folder + b"/" + name
        assert os.lstat(path).st_ino
        for look in (os.listxattr, _read_bytes, os.readlink, _get_xattrs):
            assert errno_of(look, path) != errno.ENOTCONN, path
    for entry in HIDDEN:
        if b"\0" not in entry.name and b"/" not in entry.name and entry.name not in (GOOD, b"", b".", b".."):
            assert errno_of(os.lstat, folder + b"/" + entry.name) == (errno.ENOENT if len(entry.name) <= 255 else errno.ENAMETOOLONG)
    log = place.log.read_text()
    for entry in HIDDEN:
        assert repr(entry.name)[2:-1] in log, entry.name
    place.unmount()


def _read_bytes(path: bytes) -> None:
    with open(path, "rb") as file:
        file.read(100)
        file.seek(2**40)
        file.read(100)


def _get_xattrs(path: bytes) -> None:
    for name in ("user.large", "system.posix_acl_access", "security.capability"):
        os.getxattr(path, name)


def test_a_tree_of_nonsense_is_an_error(place: Place) -> None:
    place.is_damaged = True
    with place.open_store() as store:
        with store.writer() as writer:
            nonsense = writer.add(Kind.TREE, b"T" + b"\xff" * 100)
        folder = _file(b"nonsense", mode=stat.S_IFDIR | 0o755, content=nonsense)
        stored = _publish(store, [folder])
    place.mount()
    assert errno_of(os.listdir, place.shown(stored) / "nonsense") == errno.EIO
    assert (place.shown(stored) / os.fsdecode(GOOD)).read_bytes() == b"good"
    place.unmount()


def test_a_segment_that_is_lost_touches_only_what_is_in_it(place: Place) -> None:
    small = random.Random(4).randbytes(1000)
    place.write("lost", small)
    place.back_up()
    place.write("kept", random.Random(5).randbytes(1000))
    stored = place.back_up()
    place.is_damaged = True
    with place.open_store() as store:
        with store.environment.read() as view:
            location = unpack_location(view.get(Table.CHUNKS, _entry_content(store, stored, b"lost")[:32]) or b"")
        store.environment.write(lambda transaction: transaction.delete(Table.SEGMENTS, segment_key(location.segment)))
    place.mount()
    assert read(place.shown(stored) / "lost") == errno.EIO
    assert read(place.shown(stored) / "kept") == random.Random(5).randbytes(1000)
    place.unmount()


def _entry_content(store: Store, stored: StoredSnapshot, name: bytes) -> bytes:
    return TreeReader(store.reader()).get(stored.snapshot.root, name).content

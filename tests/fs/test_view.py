# SPDX-License-Identifier: MIT
"""The snapshot mount as a model: what a kernel would see of it, without one."""

import os
import random
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.fs.conftest import MTIME_NS, SMALL_CHUNKS, Kernel, Planter, file_entry
from yester.core.content import Content, pack_span
from yester.core.ids import ChunkId
from yester.core.records import ANY_XATTR, RECORD_VERSION, Entry, Extra, Snapshot, decode_snapshot, encode_snapshot
from yester.core.times import parse_time
from yester.errors import CorruptionError
from yester.fs import view as view_module
from yester.fs.view import FOREVER_S, GROWING_S, ROOT, ArchivedFolder, Folder, Link, Node, Presentation, VersionsFolder, View
from yester.store import snapshots as snapshots_module
from yester.store.lmdb import Table, WriteTransaction
from yester.store.snapshots import snapshot_key
from yester.store.store import Store

NOW = "2026-11-22_12-00-00"


def _now_ns() -> int:
    return parse_time(NOW, now_ns=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is `NOW` for the view."""
    monkeypatch.setattr(view_module, "time", SimpleNamespace(time_ns=_now_ns))


# --- names ------------------------------------------------------------------------------------------------------------


def test_the_mount_point_holds_four_ways_in(kernel: Kernel) -> None:
    assert kernel.names("") == [b"at", b"forgotten", b"snapshots", b"versions"]


def test_a_store_without_snapshots_shows_empty_folders(kernel: Kernel) -> None:
    assert [kernel.names(folder) for folder in ("at", "snapshots", "versions", "forgotten")] == [[], [], [], []]
    assert kernel.find("snapshots/docs") is None
    assert kernel.find("versions/docs") is None
    assert kernel.names("at/now") == []


@pytest.mark.expect_log("is not a name")
def test_a_bad_name_of_a_source_or_snapshot_hides_no_other(kernel: Kernel, planter: Planter) -> None:
    """The kernel answers EIO for the whole of a folder with one of these in it."""
    for source in ("docs", "..", "a/b", "", "x" * 256):
        stored = planter.snapshot({}, source=source)
    for number, name in enumerate(("", ".", "a/b", "good")):
        snapshot = msgspec.structs.replace(stored.snapshot, source="docs", name=name, time_ns=number)
        id_, record = encode_snapshot(snapshot)
        planter.store.environment.write(partial(_put_snapshot, id_, snapshot_key(snapshot), record))
    for folder in ("snapshots", "versions", "at/now"):
        assert kernel.names(folder) == [b"docs"]
    assert kernel.names("snapshots/docs") == [b"good", b"2026-11-22_10-00-00", b"latest"]


def _put_snapshot(id_: bytes, key: bytes, record: bytes, transaction: WriteTransaction) -> None:
    transaction.put(Table.SNAPSHOTS, key, record)
    transaction.put(Table.SNAPSHOT_IDS, id_, key)
    transaction.put(Table.META, snapshots_module.GENERATION_KEY, os.urandom(8))


def test_sources_and_their_snapshots_are_listed_oldest_first(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({}, at="2026-11-22_10-00-00", source="photos")
    planter.snapshot({}, at="2026-11-21_10-00-00", source="photos")
    planter.snapshot({}, at="2026-11-22_10-00-00", source="photos")
    planter.snapshot({}, source="docs")
    assert kernel.names("snapshots") == [b"docs", b"photos"]
    assert kernel.names("snapshots/photos") == [b"2026-11-21_10-00-00", b"2026-11-22_10-00-00", b"2026-11-22_10-00-00-2", b"latest"]


@pytest.mark.parametrize("name", [b"a", b".hidden", b"\xff\xfe", b"new\nline", b"n" * 255, "\u00fc".encode()])
def test_a_folder_of_a_snapshot_holds_what_was_stored_whatever_its_name(kernel: Kernel, planter: Planter, name: bytes) -> None:
    planter.snapshot({name: {name: b"data"}})
    path = b"snapshots/docs/2026-11-22_10-00-00/"
    assert kernel.names(path + name) == [name]
    assert kernel.read(path + name + b"/" + name) == b"data"
    assert kernel.get(path + name + b"/" + name).path == path + name + b"/" + name


@pytest.mark.parametrize(
    "path",
    [
        "nonsense",
        "snapshots/nonsense",
        "snapshots/docs/nonsense",
        "snapshots/docs/2026-11-22_10-00-00/nonsense",
        "versions/nonsense",
        "versions/docs/nonsense",
        "versions/docs/a/nonsense",
        "forgotten/docs",
        "forgotten/nonsense",
        "at/nonsense",
        "at/",
        "at/\udcff",
        "at/now/nonsense",
    ],
)
def test_a_name_that_is_not_there_is_absent(kernel: Kernel, planter: Planter, path: str) -> None:
    planter.snapshot({b"a": b"data"})
    assert kernel.find(path) is None
    kernel.forget_all()
    assert kernel.view.node_count() == 1


def test_an_empty_folder_is_empty(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"empty": {}})
    assert kernel.names("snapshots/docs/2026-11-22_10-00-00/empty") == []


def test_a_symlink_shows_its_target_and_nothing_else_has_one(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"link": "../else\udcff", b"file": b"data"})
    snapshot = "snapshots/docs/2026-11-22_10-00-00"
    assert kernel.view.read_link(kernel.get(f"{snapshot}/link")) == b"../else\xff"
    assert kernel.view.read_link(kernel.get(f"{snapshot}/file")) is None
    assert kernel.view.read_link(kernel.get(snapshot)) is None
    assert kernel.view.read_link(kernel.get("snapshots")) is None


# --- latest, and new snapshots ----------------------------------------------------------------------------------------


def test_latest_is_a_symlink_to_the_newest_snapshot_and_follows_it(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"old"}, at="2026-11-21_10-00-00")
    before = kernel.get("snapshots/docs/latest")
    assert isinstance(before, Link)
    assert before.target == b"2026-11-21_10-00-00"
    planter.snapshot({b"a": b"new"}, at="2026-11-22_10-00-00")
    after = kernel.get("snapshots/docs/latest")
    assert after is before
    assert before.target == b"2026-11-22_10-00-00"
    assert kernel.view.attributes(after).size == len(before.target)
    assert kernel.view.attributes(after).valid_s == 0


def test_an_older_snapshot_that_comes_later_does_not_become_the_latest(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({}, at="2026-11-22_10-00-00")
    planter.snapshot({}, at="2026-11-20_10-00-00")
    assert kernel.link("snapshots/docs/latest") == b"2026-11-22_10-00-00"


def test_a_new_snapshot_and_a_new_source_appear_and_what_was_there_stays_the_same(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"folder": {b"a": b"data"}})
    file = kernel.get("snapshots/docs/2026-11-22_10-00-00/folder/a")
    folder = kernel.get("snapshots/docs/2026-11-22_10-00-00/folder")
    assert kernel.find("snapshots/docs/2026-11-22_11-00-00") is None
    assert kernel.find("snapshots/photos") is None
    planter.snapshot({b"folder": {b"a": b"data"}}, at="2026-11-22_11-00-00")
    planter.snapshot({}, source="photos")
    assert kernel.names("snapshots") == [b"docs", b"photos"]
    assert kernel.names("snapshots/docs") == [b"2026-11-22_10-00-00", b"2026-11-22_11-00-00", b"latest"]
    assert kernel.names("snapshots/docs/2026-11-22_11-00-00") == [b"folder"]
    assert kernel.get("snapshots/docs/2026-11-22_10-00-00/folder/a") is file
    assert kernel.get("snapshots/docs/2026-11-22_10-00-00/folder") is folder


def test_a_snapshot_that_is_taken_away_is_gone_and_what_is_open_of_it_stays(kernel: Kernel, planter: Planter) -> None:
    stored = planter.snapshot({b"a": b"data"})
    file = kernel.get_file("snapshots/docs/2026-11-22_10-00-00/a")
    planter.remove(stored)
    assert kernel.find("snapshots/docs/2026-11-22_10-00-00") is None
    assert kernel.find("snapshots/docs") is None
    assert kernel.names("snapshots") == kernel.names("versions") == []
    assert bytes(kernel.view.read(file, 0, 10)) == b"data"
    kernel.forget_all()
    _assert_only_the_root_is_left(kernel.view)


def test_another_snapshot_in_the_place_of_one_is_another_folder(kernel: Kernel, planter: Planter) -> None:
    stored = planter.snapshot({b"a": b"old"})
    path = "snapshots/docs/2026-11-22_10-00-00"
    before = kernel.get(path)
    planter.remove(stored)
    planter.snapshot({b"a": b"new"})
    after = kernel.get(path)
    assert after.inode > before.inode
    assert kernel.read(f"{path}/a") == b"new"
    kernel.forget(before.inode, kernel.told[before.inode])
    assert kernel.get(path) is after


def test_an_open_listing_stays_as_it_was(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({})
    folder = kernel.get("snapshots/docs")
    assert isinstance(folder, Folder)
    listing = kernel.view.list(folder)
    planter.snapshot({}, at="2026-11-22_11-00-00")
    assert [name for name, _ in listing] == [b"2026-11-22_10-00-00", b"latest"]


def test_only_folders_in_which_snapshots_appear_are_asked_again(kernel: Kernel, planter: Planter, clock: None) -> None:
    planter.snapshot({b"folder": {}})
    view = kernel.view
    planter.store.forget([planter.snapshot({}, at="2026-11-21").id], now_ns=0)
    made_up = ("at", "at/now", "versions", "versions/docs", "versions/docs/folder", "forgotten", "forgotten/docs")
    for path in ("snapshots", "snapshots/docs", *made_up):
        folder = kernel.get(path)
        assert isinstance(folder, Folder)
        assert view.entry_valid_s(folder) == view.attributes(folder).valid_s == GROWING_S < 1, path
    for path in ("", "snapshots/docs/2026-11-22_10-00-00", "snapshots/docs/2026-11-22_10-00-00/folder"):
        folder = kernel.get(path)
        assert isinstance(folder, Folder)
        assert view.entry_valid_s(folder) == view.attributes(folder).valid_s == FOREVER_S, path


# --- forgotten --------------------------------------------------------------------------------------------------------


def test_a_forgotten_snapshot_is_shown_apart_and_nowhere_else(kernel: Kernel, planter: Planter, clock: None) -> None:
    first = planter.snapshot({b"a": b"old"}, at="2026-11-20_10-00-00")
    planter.snapshot({b"a": b"new"}, at="2026-11-21_10-00-00")
    versions = kernel.names("versions/docs/a")
    file = kernel.get("snapshots/docs/2026-11-20_10-00-00/a")
    planter.store.forget([first.id], now_ns=0)
    assert kernel.names("forgotten") == [b"docs"]
    assert kernel.names("forgotten/docs") == [b"2026-11-20_10-00-00"]
    assert kernel.read("forgotten/docs/2026-11-20_10-00-00/a") == b"old"
    assert kernel.get("forgotten/docs/2026-11-20_10-00-00/a") is file, "the kernel keeps its pages"
    assert kernel.names("snapshots/docs") == [b"2026-11-21_10-00-00", b"latest"]
    assert kernel.find("snapshots/docs/2026-11-20_10-00-00") is None
    assert kernel.find("at/2026-11-20/docs") is None
    assert kernel.names("versions/docs/a") == versions[1:]
    assert kernel.find("forgotten/docs/latest") is None
    planter.store.undelete([first.id])
    assert kernel.names("forgotten") == []
    assert kernel.find("forgotten/docs") is None
    assert kernel.read("snapshots/docs/2026-11-20_10-00-00/a") == b"old"


def test_latest_and_times_go_back_when_the_newest_is_forgotten(kernel: Kernel, planter: Planter, clock: None) -> None:
    planter.snapshot({}, at="2026-11-20_10-00-00")
    newest = planter.snapshot({}, at="2026-11-21_10-00-00")
    latest, now = kernel.get("snapshots/docs/latest"), kernel.get("at/now/docs")
    planter.store.forget([newest.id], now_ns=0)
    assert kernel.get("snapshots/docs/latest") is latest
    assert kernel.view.read_link(latest) == b"2026-11-20_10-00-00"
    assert kernel.get("at/now/docs") is now
    assert kernel.view.read_link(now) == b"../../snapshots/docs/2026-11-20_10-00-00"


def test_what_is_open_of_a_snapshot_that_is_forgotten_stays(kernel: Kernel, planter: Planter) -> None:
    only = planter.snapshot({b"folder": {b"a": b"data"}})
    folder = kernel.get("snapshots/docs/2026-11-22_10-00-00/folder")
    file = kernel.get_file("snapshots/docs/2026-11-22_10-00-00/folder/a")
    planter.store.forget([only.id], now_ns=0)
    assert kernel.find("snapshots/docs") is None
    assert isinstance(folder, Folder)
    assert [name for name, _ in kernel.view.list(folder)] == [b"a"]
    assert kernel.view.find(folder, b"a") is file
    assert bytes(kernel.view.read(file, 0, 10)) == b"data"
    kernel.forget_all()
    _assert_only_the_root_is_left(kernel.view)


def test_forgotten_versions_of_a_live_folder_stand_where_others_do(kernel: Kernel, planter: Planter) -> None:
    version = planter.snapshot({}, source="live/Work")
    planter.store.forget([version.id], now_ns=0)
    assert kernel.names("forgotten") == [b"live"]
    assert kernel.names("forgotten/live") == [b"Work"]
    assert kernel.names("forgotten/live/Work") == [b"2026-11-22_10-00-00"]
    assert kernel.names("snapshots") == []


# --- at ---------------------------------------------------------------------------------------------------------------


def test_at_has_any_time_and_lists_none(kernel: Kernel, planter: Planter, clock: None) -> None:
    planter.snapshot({}, at="2026-11-20_10-00-00")
    planter.snapshot({}, at="2026-11-21_10-00-00")
    planter.snapshot({}, at="2026-11-22_10-00-00")
    target = "../../snapshots/docs/{}_10-00-00"
    for time, day in {
        "now": "2026-11-22",
        "2h": "2026-11-22",
        "3h": "2026-11-21",
        "yesterday": "2026-11-21",
        "2026-11-21": "2026-11-21",
        "2026-11-21_09-59": "2026-11-20",
        "2026-11-21_10-00-00": "2026-11-21",
        "2026": "2026-11-22",
        "2030-01-01": "2026-11-22",
    }.items():
        assert kernel.link(f"at/{time}/docs").decode() == target.format(day), time
    assert kernel.names("at") == []


def test_at_a_time_shows_the_sources_that_had_a_snapshot_by_then(kernel: Kernel, planter: Planter, clock: None) -> None:
    planter.snapshot({}, at="2026-11-20_10-00-00", source="docs")
    planter.snapshot({}, at="2026-11-22_10-00-00", source="photos")
    assert kernel.names("at/now") == [b"docs", b"photos"]
    assert kernel.names("at/2026-11-21") == [b"docs"]
    assert kernel.names("at/2026-11-19") == []
    assert kernel.find("at/2026-11-21/photos") is None


def test_at_now_follows_a_new_snapshot(kernel: Kernel, planter: Planter, clock: None) -> None:
    planter.snapshot({}, at="2026-11-20_10-00-00")
    link = kernel.get("at/now/docs")
    planter.snapshot({}, at="2026-11-22_10-00-00")
    assert kernel.get("at/now/docs") is link
    assert kernel.view.read_link(link) == b"../../snapshots/docs/2026-11-22_10-00-00"


# --- versions ---------------------------------------------------------------------------------------------------------


def test_versions_of_a_file_are_distinct_and_named_by_the_first_snapshot_that_has_each(kernel: Kernel, planter: Planter) -> None:
    for hour, data in enumerate([b"one", b"one", b"two", b"two", b"one"]):
        planter.snapshot({b"dir": {b"a.txt": data}}, at=f"2026-11-22_0{hour}-00-00")
    folder = "versions/docs/dir/a.txt"
    assert kernel.names(folder) == [b"2026-11-22_00-00-00.txt", b"2026-11-22_02-00-00.txt", b"2026-11-22_04-00-00.txt"]
    assert [kernel.read(f"{folder}/2026-11-22_0{hour}-00-00.txt") for hour in (0, 2, 4)] == [b"one", b"two", b"one"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        (b"a.tar.gz", b".gz"),
        (b"Makefile", b""),
        (b".bashrc", b""),
        (b"a.b\xff", b".b\xff"),
        (b"x." + b"e" * 250, b"." + b"e" * 235),
    ],
)
def test_a_version_keeps_the_extension_and_has_a_name_that_a_folder_can_hold(
    kernel: Kernel, planter: Planter, name: bytes, version: bytes
) -> None:
    planter.snapshot({b"dir.d": {name: b"data"}})
    assert kernel.names(b"versions/docs/dir.d/" + name) == [b"2026-11-22_10-00-00" + version]


def test_a_version_is_the_same_file_as_in_its_snapshot(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a.txt": b"data"})
    version = kernel.get("versions/docs/a.txt/2026-11-22_10-00-00.txt")
    assert version is kernel.get("snapshots/docs/2026-11-22_10-00-00/a.txt")


def test_a_deleted_file_keeps_its_versions(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"data"}, at="2026-11-21")
    planter.snapshot({}, at="2026-11-22")
    assert kernel.names("versions/docs") == [b"a"]
    assert kernel.names("versions/docs/a") == [b"2026-11-21_23-59-59"]


def test_a_folder_of_versions_has_every_name_it_ever_held(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"dir": {b"a": b"1", b"b": b"1"}}, at="2026-11-20")
    planter.snapshot({b"dir": {b"b": b"2", b"c": {b"d": b"1"}}}, at="2026-11-21")
    planter.snapshot({b"e": b"1"}, at="2026-11-22")
    assert kernel.names("versions/docs") == [b"dir", b"e"]
    assert kernel.names("versions/docs/dir") == [b"a", b"b", b"c"]
    assert kernel.names("versions/docs/dir/c") == [b"d"]
    assert all(isinstance(node, VersionsFolder) for node in kernel.nodes("versions/docs/dir").values())


def test_a_path_that_was_a_file_and_a_folder_shows_both(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"x": b"data"}, at="2026-11-20")
    planter.snapshot({b"x": {b"inner": b"1"}}, at="2026-11-21")
    planter.snapshot({b"x": "target"}, at="2026-11-22")
    assert kernel.names("versions/docs/x") == [b"2026-11-20_23-59-59", b"2026-11-22_23-59-59", b"inner"]
    assert kernel.view.read_link(kernel.get("versions/docs/x/2026-11-22_23-59-59")) == b"target"


def test_versions_are_loaded_again_when_a_snapshot_was_added_and_only_then(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"1"}, at="2026-11-21")
    assert kernel.names("versions/docs/a") == [b"2026-11-21_23-59-59"]
    folder = kernel.get("versions/docs/a")
    assert kernel.view.needs_load(folder) is None
    planter.snapshot({b"a": b"2"}, at="2026-11-22")
    assert kernel.view.needs_load(folder) is folder
    assert kernel.names("versions/docs/a") == [b"2026-11-21_23-59-59", b"2026-11-22_23-59-59"]
    assert kernel.get("versions/docs/a") is folder


def test_versions_of_two_sources_do_not_mix(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"1"}, source="docs")
    planter.snapshot({b"b": b"1"}, source="docs2")
    assert kernel.names("versions/docs") == [b"a"]
    assert kernel.names("versions/docs2") == [b"b"]


def test_versions_may_be_loaded_on_other_threads(kernel: Kernel, planter: Planter) -> None:
    for day in range(1, 9):
        planter.snapshot({b"a": b"%d" % day, b"b": b"%d" % day}, at=f"2026-11-0{day}")
    folders = [kernel.get(path) for path in ("versions/docs", "versions/docs/a", "versions/docs/b")]
    threads = [threading.Thread(target=folder.load, args=(kernel.view,)) for folder in folders if isinstance(folder, VersionsFolder)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [kernel.view.needs_load(folder) for folder in folders] == [None, None, None]
    assert [len(kernel.view.list(folder)) for folder in folders if isinstance(folder, Folder)] == [2, 8, 8]


# --- inodes -----------------------------------------------------------------------------------------------------------


def test_the_same_file_in_two_snapshots_is_one_inode_whatever_it_is_called(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"data", b"link": "target"}, at="2026-11-21_10-00-00")
    planter.snapshot({b"dir": {b"b": b"data"}, b"link": "target"}, at="2026-11-22_10-00-00", source="other")
    first, second = "snapshots/docs/2026-11-21_10-00-00", "snapshots/other/2026-11-22_10-00-00"
    assert kernel.get(f"{first}/a") is kernel.get(f"{second}/dir/b")
    assert kernel.get(f"{first}/link") is kernel.get(f"{second}/link")


@pytest.mark.parametrize(
    "difference",
    [
        {"mode": stat.S_IFREG | 0o600},
        {"uid": 1},
        {"gid": 1},
        {"mtime_ns": MTIME_NS + 1},
        {"atime_ns": MTIME_NS + 1},
        {"extra": Extra(nlink=2, link=(1, 1))},
        {"extra": Extra(xattrs=((b"user.a", b"1"),))},
        {"extra": Extra(hole_bytes=1)},
    ],
    ids=str,
)
def test_files_that_differ_in_any_attribute_are_two_inodes(kernel: Kernel, planter: Planter, difference: dict[str, Any]) -> None:
    file = planter.file([b"data"])
    planter.snapshot({b"a": file, b"b": msgspec.structs.replace(file, **difference), b"c": b"other data"})
    nodes = kernel.nodes("snapshots/docs/2026-11-22_10-00-00")
    assert len({node.inode for node in nodes.values()}) == 3


def test_hard_links_are_one_inode_and_others_with_the_same_bytes_are_not(kernel: Kernel, planter: Planter) -> None:
    linked = planter.file([b"data"], extra=Extra(nlink=2, link=(8, 77)))
    other = planter.file([b"data"], extra=Extra(nlink=2, link=(8, 78)))
    read_later = msgspec.structs.replace(linked, atime_ns=linked.atime_ns + 1)
    planter.snapshot({b"a": linked, b"dir": {b"b": read_later}, b"other": other})
    path = "snapshots/docs/2026-11-22_10-00-00"
    assert kernel.get(f"{path}/a") is kernel.get(f"{path}/dir/b")
    assert kernel.get(f"{path}/a") is not kernel.get(f"{path}/other")
    assert kernel.view.attributes(kernel.get(f"{path}/a")).nlink == 2


def test_folders_are_never_one_inode(kernel: Kernel, planter: Planter) -> None:
    same = {b"x": {b"y": b"data"}}
    planter.snapshot({b"a": same, b"b": same}, at="2026-11-21_10-00-00")
    planter.snapshot({b"a": same, b"b": same}, at="2026-11-22_10-00-00")
    paths = [f"snapshots/docs/2026-11-{day}_10-00-00{below}" for day in (21, 22) for below in ("", "/a", "/b", "/a/x", "/b/x")]
    nodes = [kernel.get(path) for path in paths]
    assert len({node.inode for node in nodes}) == len(paths)
    assert [node.path.decode() for node in nodes] == paths
    assert [kernel.get(path) for path in paths] == nodes


def test_a_forgotten_file_comes_back_under_another_number(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"data"})
    path = "snapshots/docs/2026-11-22_10-00-00/a"
    first = kernel.get(path).inode
    kernel.forget_all()
    assert kernel.view.node(first) is None
    assert kernel.get(path).inode > first


def test_a_node_lives_until_it_is_forgotten_as_often_as_it_was_told(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"data"})
    path = "snapshots/docs/2026-11-22_10-00-00/a"
    inode = kernel.get(path).inode
    kernel.get(path)
    kernel.nodes("snapshots/docs/2026-11-22_10-00-00")
    kernel.forget(inode, 2)
    assert kernel.view.node(inode) is not None
    kernel.forget(inode, 1)
    assert kernel.view.node(inode) is None


def test_forgetting_what_is_not_known_does_nothing(kernel: Kernel) -> None:
    kernel.view.forget(12345, 1)
    kernel.view.forget(ROOT, 1000)
    assert kernel.view.node(ROOT) is not None


def test_a_listed_node_that_the_kernel_was_not_told_of_is_dropped(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b"data", b"dir": {}})
    folder = kernel.get("snapshots/docs/2026-11-22_10-00-00")
    assert isinstance(folder, Folder)
    known = kernel.view.node_count()
    for name, entry in kernel.view.list(folder):
        kernel.view.drop_unknown(kernel.view.child(folder, name, entry))
    assert kernel.view.node_count() == known
    file = kernel.get("snapshots/docs/2026-11-22_10-00-00/a")
    kernel.view.drop_unknown(file)
    assert kernel.view.node(file.inode) is file


def test_what_is_open_keeps_its_path_after_its_folder_was_forgotten(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"dir": {b"a": b"data"}})
    file = kernel.get("snapshots/docs/2026-11-22_10-00-00/dir/a")
    for inode, count in list(kernel.told.items()):
        if inode != file.inode:
            kernel.forget(inode, count)
    assert file.path == b"snapshots/docs/2026-11-22_10-00-00/dir/a"
    assert kernel.view.node_count() == 2
    assert kernel.get("snapshots/docs/2026-11-22_10-00-00/dir/a") is file


def _assert_only_the_root_is_left(view: View) -> None:
    assert view.node_count() == 1
    assert view.node(ROOT) is not None
    assert (view._files, view._children, view._readers) == ({}, {}, {})


class KernelMachine(RuleBasedStateMachine):
    """A kernel that looks up, lists and forgets as it likes while snapshots are added, forgotten and had back."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = next(self.folders)
        self.store = Store.create(self.folder, chunking=SMALL_CHUNKS)
        self.planter = Planter(self.store)
        self.kernel = Kernel(View(self.store, Presentation(uid=501, gid=502)))
        self.seen: dict[int, Node] = {}
        """Every node there ever was, by its number."""
        self.hour = 0

    folders: Iterator[Path]

    @initialize()
    def add_first(self) -> None:
        self.add_snapshot([b"1", b"1"], "a")

    @rule(data=st.lists(st.sampled_from([b"1", b"2"]), min_size=2, max_size=2), source=st.sampled_from("ab"))
    def add_snapshot(self, data: list[bytes], source: str) -> None:
        self.hour += 1
        self.planter.snapshot({b"f": data[0], b"d": {b"f": data[1], b"l": "target"}}, at=f"2026-11-22_{self.hour % 24:02}", source=source)

    @rule(data=st.data(), way=st.sampled_from(["forget", "undelete"]))
    def forget_or_undelete(self, data: st.DataObject, way: str) -> None:
        forgotten = [found.stored for found in self.store.forgotten_snapshots()]
        if snapshots := self.store.snapshots() if way == "forget" else forgotten:
            id_ = data.draw(st.sampled_from(snapshots)).id
            _ = self.store.forget([id_], now_ns=0) if way == "forget" else self.store.undelete([id_])

    PATHS = st.sampled_from(
        [
            *("snapshots", "snapshots/a", "snapshots/b", "snapshots/a/latest", "nonsense", "snapshots/a/{}/nonsense"),
            *("snapshots/a/{}", "snapshots/a/{}/f", "snapshots/a/{}/d", "snapshots/a/{}/d/f", "snapshots/a/{}/d/l"),
            *("at", "at/2026", "at/2026/a", "versions", "versions/a", "versions/a/f", "versions/a/d", "versions/a/d/f"),
            *("forgotten", "forgotten/a", "forgotten/a/{}", "forgotten/a/{}/f", "forgotten/a/{}/d/f"),
        ]
    )

    @rule(path=PATHS, hour=st.integers(1, 4))
    def look_up(self, path: str, hour: int) -> None:
        self.kernel.find(path.format(f"2026-11-22_{hour:02}-59-59"))

    @rule(path=PATHS, hour=st.integers(1, 4))
    def list_folder(self, path: str, hour: int) -> None:
        path = path.format(f"2026-11-22_{hour:02}-59-59")
        if isinstance(self.kernel.find(path), Folder):
            self.kernel.nodes(path)

    @rule(path=PATHS, hour=st.integers(1, 4))
    def read(self, path: str, hour: int) -> None:
        path = path.format(f"2026-11-22_{hour:02}-59-59")
        if path.endswith("/f") and path.startswith(("snapshots", "forgotten")) and self.kernel.find(path):
            assert self.kernel.read(path) in (b"1", b"2")

    @precondition(lambda self: self.kernel.told)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        inode = data.draw(st.sampled_from(sorted(self.kernel.told)))
        self.kernel.forget(inode, data.draw(st.integers(1, self.kernel.told[inode])))

    @rule()
    def forget_all(self) -> None:
        self.kernel.forget_all()
        _assert_only_the_root_is_left(self.kernel.view)

    @invariant()
    def what_was_told_is_known_and_nothing_else(self) -> None:
        view = self.kernel.view
        nodes = dict(view._nodes)
        assert set(nodes) == set(self.kernel.told) | {ROOT}
        for inode, node in nodes.items():
            assert node.inode == inode
            assert self.seen.setdefault(inode, node) is node, "a number was used twice"
            assert inode == ROOT or node.lookups == self.kernel.told[inode]

    def teardown(self) -> None:
        self.kernel.forget_all()
        _assert_only_the_root_is_left(self.kernel.view)
        self.store.close()


def test_the_views_books_agree_with_the_kernels_and_nothing_leaks(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("stores")
    KernelMachine.folders = (folder / str(number) for number in range(10**9))
    run_state_machine_as_test(KernelMachine, settings=settings(max_examples=20, stateful_step_count=25))


# --- attributes -------------------------------------------------------------------------------------------------------


def test_a_files_attributes_are_those_that_were_stored(kernel: Kernel, planter: Planter) -> None:
    file = planter.file([b"x" * 1025], mode=stat.S_IFREG | 0o4751, uid=7, gid=2**32 - 2, mtime_ns=-1, atime_ns=10**19, extra=Extra(nlink=3))
    planter.snapshot({b"a": file})
    shown = kernel.view.attributes(kernel.get("snapshots/docs/2026-11-22_10-00-00/a"))
    assert (shown.mode, shown.uid, shown.gid, shown.nlink) == (stat.S_IFREG | 0o4751, 7, 2**32 - 2, 3)
    assert (shown.mtime_ns, shown.atime_ns, shown.size, shown.blocks, shown.rdev) == (-1, 10**19, 1025, 3, 0)
    assert shown.valid_s == FOREVER_S


@pytest.mark.parametrize(
    ("pieces", "blocks"),
    [
        ([], 0),
        ([b"x"], 1),
        ([b"x" * 512], 1),
        ([b"x" * 513], 2),
        ([10**12], 0),
        ([10**12, b"x"], 1),
        ([b"x" * 1024, 4096, b"x" * 1024, 4096], 4),
    ],
)
def test_blocks_count_what_is_not_a_hole(kernel: Kernel, planter: Planter, pieces: list[bytes | int], blocks: int) -> None:
    planter.snapshot({b"a": planter.file(pieces)})
    shown = kernel.view.attributes(kernel.get("snapshots/docs/2026-11-22_10-00-00/a"))
    assert shown.blocks == blocks
    assert shown.size == sum(piece if isinstance(piece, int) else len(piece) for piece in pieces)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR])
def test_special_files_keep_their_kind_and_device(kernel: Kernel, planter: Planter, kind: int) -> None:
    rdev = os.makedev(259, 70000) if kind in (stat.S_IFBLK, stat.S_IFCHR) else 0
    planter.snapshot({b"a": file_entry(Content(0, b""), 0, mode=kind | 0o640, extra=Extra(rdev=rdev) if rdev else None)})
    shown = kernel.view.attributes(kernel.get("snapshots/docs/2026-11-22_10-00-00/a"))
    assert (shown.mode, shown.rdev, shown.size, shown.blocks) == (kind | 0o640, rdev, 0, 0)


def test_a_symlink_is_as_long_as_its_target_and_takes_no_blocks(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": "target"})
    shown = kernel.view.attributes(kernel.get("snapshots/docs/2026-11-22_10-00-00/a"))
    assert (shown.mode, shown.size, shown.blocks) == (stat.S_IFLNK | 0o777, 6, 0)


def test_what_the_view_makes_up_is_readable_by_all_and_owned_by_the_mounter(kernel: Kernel, planter: Planter, clock: None) -> None:
    planter.snapshot({b"a": b"data"})
    for path in ("", "snapshots", "snapshots/docs", "at", "at/now", "versions", "versions/docs", "versions/docs/a"):
        shown = kernel.view.attributes(kernel.get(path))
        assert (shown.mode, shown.uid, shown.gid, shown.nlink) == (stat.S_IFDIR | 0o555, 501, 502, 1), path
    for path in ("snapshots/docs/latest", "at/now/docs"):
        shown = kernel.view.attributes(kernel.get(path))
        assert (shown.mode, shown.uid, shown.gid) == (stat.S_IFLNK | 0o777, 501, 502), path


def test_a_sources_folder_has_the_time_of_its_newest_snapshot(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({}, at="2026-11-21_10-00-00")
    stored = planter.snapshot({}, at="2026-11-22_10-00-00")
    assert kernel.view.attributes(kernel.get("snapshots/docs")).mtime_ns == stored.snapshot.time_ns


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        (stat.S_IFREG | 0o000, 0o400),
        (stat.S_IFREG | 0o060, 0o460),
        (stat.S_IFREG | 0o001, 0o501),
        (stat.S_IFREG | 0o755, 0o755),
    ],
)
def test_as_me_everything_is_mine_and_readable(store: Store, planter: Planter, mode: int, shown: int) -> None:
    kernel = Kernel(View(store, Presentation(uid=501, gid=502, as_me=True)))
    file = planter.file([b"data"], mode=mode)
    planter.snapshot({b"a": file, b"dir": msgspec.structs.replace(planter.plant({b"b": file}), mode=stat.S_IFDIR | 0o000)})
    path = "snapshots/docs/2026-11-22_10-00-00"
    for inner in ("a", "dir/b"):
        attributes = kernel.view.attributes(kernel.get(f"{path}/{inner}"))
        assert (stat.S_IMODE(attributes.mode), attributes.uid, attributes.gid) == (shown, 501, 502)
    folder = kernel.view.attributes(kernel.get(f"{path}/dir"))
    assert (stat.S_IMODE(folder.mode), folder.uid, folder.gid) == (0o500, 501, 502)


# --- extended attributes ----------------------------------------------------------------------------------------------


def test_extended_attributes_are_shown_on_files_folders_and_links(kernel: Kernel, planter: Planter) -> None:
    xattrs = ((b"system.posix_acl_access", b"\2\0\0\0"), (b"user.a", b""))
    extra = Extra(xattrs=xattrs)
    folder = msgspec.structs.replace(planter.plant({}), extra=extra)
    planter.snapshot({b"a": planter.file([b"data"], extra=extra), b"dir": folder, b"b": b"data"})
    path = "snapshots/docs/2026-11-22_10-00-00"
    assert kernel.view.xattrs(kernel.get(f"{path}/a")) == xattrs
    assert kernel.view.xattrs(kernel.get(f"{path}/dir")) == xattrs
    assert kernel.view.xattrs(kernel.get(f"{path}/b")) == ()
    assert kernel.view.xattrs(kernel.get("snapshots")) == ()


def test_an_attribute_that_no_snapshot_has_is_known_not_to_be_there(kernel: Kernel, planter: Planter) -> None:
    index = kernel.view.index
    assert not index.may_have_xattr(b"user.a")
    stored = planter.snapshot({}, xattr_names=(b"user.a",))
    assert index.may_have_xattr(b"user.a")
    planter.store.forget([stored.id], now_ns=0)
    assert index.may_have_xattr(b"user.a"), "its files are shown among the forgotten ones"
    assert not index.may_have_xattr(b"security.selinux")
    planter.snapshot({}, at="2026-11-22_11-00-00", source="other", xattr_names=(b"security.selinux",))
    assert index.may_have_xattr(b"security.selinux")
    assert not index.may_have_xattr(b"user.b")
    planter.snapshot({}, at="2026-11-22_12-00-00", xattr_names=(ANY_XATTR,))
    assert index.may_have_xattr(b"user.b")


# --- reading ----------------------------------------------------------------------------------------------------------

_DATA = random.Random(1).randbytes(5 * SMALL_CHUNKS.max_bytes + 17)
_PIECES: list[bytes | int] = [_DATA, 3000, _DATA[:10], 1, b"", _DATA[:2048], 5000]
_WHOLE = b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in _PIECES)


def test_a_file_is_read_across_chunks_and_holes_at_any_place(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": planter.file(_PIECES)})
    node = kernel.get_file("snapshots/docs/2026-11-22_10-00-00/a")

    @given(offset=st.integers(0, len(_WHOLE) + 10), count=st.integers(0, len(_WHOLE) + 10))
    def read(offset: int, count: int) -> None:
        assert bytes(kernel.view.read(node, offset, count)) == _WHOLE[offset : offset + count]

    read()


def test_a_file_of_many_chunks_is_read_through_its_lists(kernel: Kernel, planter: Planter) -> None:
    rng = random.Random(2)
    pieces: list[bytes | int] = [rng.randbytes(rng.randrange(1, 200)) for _ in range(3000)]
    pieces[700] = 1000
    file = planter.file(pieces)
    assert file.level > 0
    planter.snapshot({b"a": file})
    node = kernel.get_file("snapshots/docs/2026-11-22_10-00-00/a")
    data = b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)
    for _ in range(200):
        offset, count = rng.randrange(len(data)), rng.randrange(20_000)
        assert bytes(kernel.view.read(node, offset, count)) == data[offset : offset + count]


def test_an_empty_file_reads_as_nothing(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": b""})
    assert kernel.read("snapshots/docs/2026-11-22_10-00-00/a") == b""


def test_more_files_are_read_than_are_kept_open(kernel: Kernel, planter: Planter) -> None:
    files = {b"%03d" % number: b"%d" % number for number in range(view_module._OPEN_READERS + 10)}
    planter.snapshot(files)
    path = b"snapshots/docs/2026-11-22_10-00-00/"
    for _ in range(2):
        assert {name: kernel.read(path + name) for name in files} == files
    assert len(kernel.view._readers) == view_module._OPEN_READERS


def test_a_missing_chunk_is_an_error_and_not_zeros(kernel: Kernel, planter: Planter) -> None:
    good = planter.file([b"x" * 1024])
    missing = good.content + pack_span(ChunkId(b"m" * 32), 1000)
    planter.snapshot({b"a": msgspec.structs.replace(good, content=missing, size=2024)})
    node = kernel.get_file("snapshots/docs/2026-11-22_10-00-00/a")
    assert bytes(kernel.view.read(node, 0, 1024)) == b"x" * 1024
    for offset, count in [(0, 2024), (1024, 1), (2000, 100)]:
        with pytest.raises(CorruptionError):
            kernel.view.read(node, offset, count)


def test_a_file_whose_list_ends_too_early_is_an_error(kernel: Kernel, planter: Planter) -> None:
    planter.snapshot({b"a": msgspec.structs.replace(planter.file([b"x" * 1024]), size=5000)})
    node = kernel.get_file("snapshots/docs/2026-11-22_10-00-00/a")
    with pytest.raises(CorruptionError):
        kernel.view.read(node, 1024, 100)


def test_a_folder_whose_record_is_missing_is_an_error_and_its_siblings_are_there(kernel: Kernel, planter: Planter) -> None:
    lost = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0, b"m" * 32)
    planter.snapshot({b"lost": lost, b"a": b"data"})
    path = "snapshots/docs/2026-11-22_10-00-00"
    assert kernel.names(path) == [b"a", b"lost"]
    folder = kernel.get(f"{path}/lost")
    assert isinstance(folder, ArchivedFolder)
    with pytest.raises(CorruptionError):
        kernel.view.list(folder)
    with pytest.raises(CorruptionError):
        kernel.view.find(folder, b"a")
    assert kernel.read(f"{path}/a") == b"data"


# --- many snapshots ---------------------------------------------------------------------------------------------------


def test_ten_thousand_snapshots_are_not_decoded_to_look_at_the_top(store: Store, planter: Planter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a file manager does before somebody opens the folder of a source may cost more for each snapshot."""
    root = planter.plant({})

    def add_all(transaction: WriteTransaction) -> None:
        for number in range(10_000):
            snapshot = Snapshot(RECORD_VERSION, "docs", f"snapshot {number}", number * 10**9, 0, root)
            _, record = encode_snapshot(snapshot)
            transaction.put(Table.SNAPSHOTS, snapshots_module.source_prefix("docs") + snapshots_module.time_key(snapshot.time_ns), record)

    store.environment.write(add_all)
    decoded = 0

    def decode(record: bytes) -> Snapshot:
        nonlocal decoded
        decoded += 1
        return decode_snapshot(record)

    monkeypatch.setattr(snapshots_module, "decode_snapshot", decode)
    kernel = Kernel(View(store, Presentation(0, 0)))
    assert kernel.names("") == [b"at", b"forgotten", b"snapshots", b"versions"]
    assert kernel.names("snapshots") == [b"docs"]
    for path in ("", "at", "forgotten", "snapshots", "versions", "versions/docs"):
        kernel.view.attributes(kernel.get(path))
    assert decoded == 0
    kernel.view.attributes(kernel.get("snapshots/docs"))
    kernel.link("at/2026/docs")
    assert decoded <= 5
    assert len(kernel.names("snapshots/docs")) == 10_001
    assert decoded <= 10_010
    kernel.names("snapshots/docs")
    assert decoded <= 10_010

# SPDX-License-Identifier: MIT
"""Comparing two directories: what counts as a difference, and that the differences are all there is."""

import stat
from dataclasses import FrozenInstanceError
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yester.core.content import pack_span
from yester.core.ids import chunk_id
from yester.core.records import RECORD_VERSION, Entry, Extra, Tree
from yester.core.treediff import Change, ChangeKind, diff_trees, looks_same, same_entry

FILE = stat.S_IFREG | 0o644
LINK = stat.S_IFLNK | 0o777
FOLDER = stat.S_IFDIR | 0o755
DEVICE = stat.S_IFCHR | 0o600


def make_entry(name: bytes = b"x", mode: int = FILE, **fields: Any) -> Entry:  # noqa: ANN401 (as the fields of an entry)
    base = Entry(name=name, mode=mode, uid=1, gid=1, mtime_ns=1, atime_ns=1, size=0, level=0, content=b"")
    return msgspec.structs.replace(base, **fields)


def make_tree(*entries: Entry) -> Tree:
    return Tree(RECORD_VERSION, {}, {}, tuple(sorted(entries, key=lambda entry: entry.name)))


entries = st.builds(
    make_entry,
    name=st.sampled_from([b"a", b"a.b", b"a0", b"b", b"\xff", b"A", b"ab"]),
    mode=st.sampled_from([FILE, FOLDER, FILE | 0o100]),
    mtime_ns=st.integers(0, 1),
    atime_ns=st.integers(0, 1),
    content=st.sampled_from([b"", chunk_id(b"")]),
)
trees = st.lists(entries, max_size=7, unique_by=lambda entry: entry.name).map(lambda some: make_tree(*some))


def kinds(old: Tree | None, new: Tree | None) -> list[tuple[bytes, ChangeKind]]:
    return [(change.name, change.kind) for change in diff_trees(old, new)]


def test_what_only_one_side_has_is_added_or_removed() -> None:
    a, b = make_entry(b"a"), make_entry(b"b")
    assert list(diff_trees(make_tree(a), make_tree(b))) == [Change(b"a", a, None), Change(b"b", None, b)]
    assert kinds(make_tree(a), make_tree(b)) == [(b"a", ChangeKind.REMOVED), (b"b", ChangeKind.ADDED)]


def test_no_directory_is_compared_as_an_empty_one() -> None:
    tree = make_tree(make_entry(b"a"), make_entry(b"b"))
    assert kinds(None, tree) == [(b"a", ChangeKind.ADDED), (b"b", ChangeKind.ADDED)]
    assert kinds(tree, None) == [(b"a", ChangeKind.REMOVED), (b"b", ChangeKind.REMOVED)]
    assert kinds(None, None) == []


SPAN = pack_span(chunk_id(b"one"), 3)
OTHER_SPAN = pack_span(chunk_id(b"two"), 3)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (make_entry(content=SPAN, size=3), make_entry(content=OTHER_SPAN, size=3), ChangeKind.CONTENT),
        (make_entry(content=SPAN, size=3), make_entry(content=SPAN, size=3, level=1), ChangeKind.CONTENT),
        (make_entry(content=SPAN, size=3), make_entry(content=OTHER_SPAN, size=3, mtime_ns=2), ChangeKind.CONTENT),
        (make_entry(mode=LINK, content=b"here"), make_entry(mode=LINK, content=b"there"), ChangeKind.CONTENT),
        (make_entry(mode=FOLDER, content=chunk_id(b"1")), make_entry(mode=FOLDER, content=chunk_id(b"2")), ChangeKind.CONTENT),
        (make_entry(mode=DEVICE, extra=Extra(rdev=1)), make_entry(mode=DEVICE, extra=Extra(rdev=2)), ChangeKind.CONTENT),
        (make_entry(), make_entry(mode=FILE | 0o111), ChangeKind.METADATA),
        (make_entry(), make_entry(uid=2), ChangeKind.METADATA),
        (make_entry(), make_entry(gid=2), ChangeKind.METADATA),
        (make_entry(), make_entry(mtime_ns=2), ChangeKind.METADATA),
        (make_entry(), make_entry(extra=Extra(xattrs=((b"user.a", b"1"),))), ChangeKind.METADATA),
        (make_entry(mode=FOLDER, content=chunk_id(b"1")), make_entry(mode=FOLDER, content=chunk_id(b"1"), uid=2), ChangeKind.METADATA),
        (make_entry(), make_entry(mode=LINK, content=b"x"), ChangeKind.TYPE),
        (make_entry(mode=FOLDER, content=chunk_id(b"1")), make_entry(), ChangeKind.TYPE),
    ],
)
def test_the_kind_of_a_change_is_the_greatest_difference(old: Entry, new: Entry, kind: ChangeKind) -> None:
    assert kinds(make_tree(old), make_tree(new)) == [(b"x", kind)]
    assert kinds(make_tree(new), make_tree(old)) == [(b"x", kind)]
    assert not same_entry(old, new)


def test_the_access_time_alone_is_no_difference() -> None:
    old, new = make_entry(atime_ns=1), make_entry(atime_ns=2)
    assert same_entry(old, new)
    assert kinds(make_tree(old), make_tree(new)) == []
    assert not same_entry(old, make_entry(atime_ns=2, mtime_ns=2))


def test_entries_of_different_names_are_not_the_same() -> None:
    assert not same_entry(make_entry(b"a"), make_entry(b"b"))


def test_a_change_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Change(b"x", None, make_entry()).name = b"y"  # type: ignore[misc]  # which is what the test is about


@given(trees)
def test_a_directory_does_not_differ_from_itself(tree: Tree) -> None:
    assert list(diff_trees(tree, tree)) == []


@given(trees, trees)
def test_changes_are_sorted_by_name_and_each_name_comes_once(old: Tree, new: Tree) -> None:
    names = [change.name for change in diff_trees(old, new)]
    assert names == sorted(set(names))


@given(trees, trees)
def test_the_other_way_round_the_same_names_differ_with_sides_swapped(old: Tree, new: Tree) -> None:
    there = list(diff_trees(old, new))
    back = list(diff_trees(new, old))
    assert [Change(change.name, change.new, change.old) for change in there] == back
    swapped = {ChangeKind.ADDED: ChangeKind.REMOVED, ChangeKind.REMOVED: ChangeKind.ADDED}
    assert [swapped.get(change.kind, change.kind) for change in there] == [change.kind for change in back]


@given(trees, trees)
def test_the_changes_applied_to_the_old_directory_give_the_new_one(old: Tree, new: Tree) -> None:
    result = {entry.name: entry for entry in old.entries}
    for change in diff_trees(old, new):
        assert result.pop(change.name, None) == change.old
        if change.new is not None:
            result[change.name] = change.new
    wanted = {entry.name: entry for entry in new.entries}
    assert result.keys() == wanted.keys()
    assert all(same_entry(result[name], entry) for name, entry in wanted.items())


def test_files_of_several_names_look_the_same_whatever_their_inodes_were() -> None:
    one = Entry(b"a", 0o100644, 0, 0, 1, 2, 3, 0, b"", Extra(nlink=2, link=(7, 8)))
    other = msgspec.structs.replace(one, atime_ns=9, extra=Extra(nlink=2, link=(7, 9)))
    assert looks_same(one, other)
    assert not same_entry(one, other)
    assert not looks_same(one, msgspec.structs.replace(other, extra=Extra(nlink=3, link=(7, 9))))
    assert not looks_same(one, msgspec.structs.replace(other, mtime_ns=5))
    assert not looks_same(one, msgspec.structs.replace(other, extra=None))

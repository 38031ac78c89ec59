# SPDX-License-Identifier: MIT
"""Finding names in all snapshots."""

import stat

import pytest

from tests.engine.planting import DAY_NS, T0_NS, publish
from yester.core.ids import TreeId
from yester.core.records import Tree
from yester.engine.find import EVERYWHERE, Glob, Match, Scope, find
from yester.engine.trees import TreeReader
from yester.errors import CorruptionError, NotFoundError, UsageError
from yester.store.store import Store


def search(
    store: Store, pattern: str | bytes, scope: Scope = EVERYWHERE, *, ignore_case: bool = False
) -> list[tuple[str, bytes, int, int, int]]:
    """Source, path, days of the first and last snapshot, and how many, of each match."""
    return [_shown(match) for match in find(store, TreeReader(store.reader()), pattern, scope, ignore_case=ignore_case)]


def _shown(match: Match) -> tuple[str, bytes, int, int, int]:
    days = [(stored.snapshot.time_ns - T0_NS) // DAY_NS for stored in (match.first, match.last)]
    return match.source, match.path, days[0], days[1], match.count


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("a.txt", "a.txt", True),
        ("a.txt", "x/y/a.txt", True),
        ("a.txt", "aa.txt", False),
        ("a.txt", "a.txt/b", False),
        ("*.txt", "x/a.txt", True),
        ("*", ".hidden", True),
        ("?.txt", "ä.txt", True),
        ("?.txt", "ab.txt", False),
        ("[a-c]", "b", True),
        ("[!a-c]", "b", False),
        ("[*]", "*", True),
        ("a\nb*", "a\nbc\n", True),
        ("a", "a\n", False),
        ("x/*.txt", "x/a.txt", True),
        ("x/*.txt", "w/x/a.txt", True),
        ("x/*.txt", "x/y/a.txt", False),
        ("/x/*.txt", "x/a.txt", True),
        ("/x/*.txt", "w/x/a.txt", False),
        ("/a", "a", True),
        ("/a", "x/a", False),
        ("x/**/a", "x/a", True),
        ("x/**/a", "x/1/2/a", True),
        ("x/**/a", "y/1/2/a", False),
        ("x/**", "x/1/2", True),
        ("x/**", "x", False),
        ("**/a", "a", True),
        ("**/a", "1/2/a", True),
        ("**", "1/2", True),
        ("x/**/y/**/z", "x/1/y/2/y/3/z", True),
        ("x/**/y/**/z", "x/1/2/z", False),
        ("x//a", "x/a", True),
        ("x/a/", "x/a", True),
    ],
)
def test_patterns_mean_what_they_mean_in_a_shell(pattern: str, path: str, fits: bool) -> None:
    assert Glob(pattern).matches(path.encode()) is fits


def test_names_that_are_no_text_can_be_matched() -> None:
    assert Glob("\udcff*").matches(b"\xff\xfe")
    assert Glob("?").matches(b"\xff")
    assert not Glob("?").matches(b"\xff\xff")


def test_case_can_be_ignored_beyond_ascii() -> None:
    assert Glob("ÄRGER.*", ignore_case=True).matches("Dir/ärger.TXT".encode())
    assert not Glob("ÄRGER.*").matches("ärger.TXT".encode())
    assert Glob("DIR/x", ignore_case=True).matches(b"dir/X")


@pytest.mark.parametrize("pattern", ["", "/", "//"])
def test_an_empty_pattern_is_refused(store: Store, pattern: str) -> None:
    with pytest.raises(UsageError):
        search(store, pattern)


def test_each_distinct_file_is_told_with_the_snapshots_that_have_it(store: Store) -> None:
    for number in range(6):
        publish(store, {"beside": b"%d" % number, "d": {"a.txt": b"old" if number < 2 else b"new", "b": b""} if number != 4 else {}})
    assert search(store, "a.txt") == [("docs", b"d/a.txt", 0, 1, 2), ("docs", b"d/a.txt", 2, 5, 3)]
    assert [(entry[1], entry[4]) for entry in search(store, "beside")] == [(b"beside", 1)] * 6


def test_a_folder_is_one_match_whatever_it_held(store: Store) -> None:
    for number in range(3):
        publish(store, {"d": {"a": b"%d" % number}})
    publish(store, {"d": b"a file"})
    assert search(store, "d") == [("docs", b"d", 3, 3, 1), ("docs", b"d", 0, 2, 3)]
    assert search(store, "d/") == [("docs", b"d", 0, 2, 3)]
    newest = next(match for match in find(store, TreeReader(store.reader()), "d/"))
    assert TreeReader(store.reader()).get(newest.entry, b"a") == TreeReader(store.reader()).get(store.snapshots()[2].snapshot.root, b"d/a")


def test_matches_are_sorted_by_path_components(store: Store) -> None:
    publish(store, {"a": {"z": b""}, "a.b": {"z": b""}, "b": {"c": {"z": b""}, "z": b""}, "z": b""})
    publish(store, {"z": b"", "0": {"z": b""}})
    assert [match[1] for match in search(store, "z")] == [b"0/z", b"a/z", b"a.b/z", b"b/c/z", b"b/z", b"z"]


def test_types_can_be_chosen(store: Store) -> None:
    publish(store, {"x1": b"", "x2": "target", "x3": {}})
    assert [match[1] for match in search(store, "x*", Scope(types={stat.S_IFREG}))] == [b"x1"]
    assert [match[1] for match in search(store, "x*", Scope(types={stat.S_IFLNK, stat.S_IFDIR}))] == [b"x2", b"x3"]


def test_sources_and_times_can_be_chosen(store: Store) -> None:
    for number in range(4):
        publish(store, {"a": b"", "n": b"%d" % number}, "docs")
        publish(store, {"a": b""}, "home")
    assert search(store, b"a") == [("docs", b"a", 0, 3, 4), ("home", b"a", 0, 3, 4)]
    assert search(store, "a", Scope(source="home")) == [("home", b"a", 0, 3, 4)]
    assert search(store, "a", Scope(source="docs", since_ns=T0_NS + DAY_NS, until_ns=T0_NS + 2 * DAY_NS)) == [("docs", b"a", 1, 2, 2)]
    assert search(store, "a", Scope(since_ns=T0_NS + 9 * DAY_NS)) == []
    with pytest.raises(NotFoundError, match="no source 'dox'"):
        search(store, "a", Scope(source="dox"))


def test_a_folder_that_many_snapshots_share_is_read_once(store: Store) -> None:
    for number in range(30):
        publish(store, {"same": {"d": {"a": b""}}, "other": {"n": b"%d" % number}})
    reads: list[TreeId] = []

    class CountingTrees(TreeReader):
        def read(self, tree: TreeId) -> Tree:
            reads.append(tree)
            return super().read(tree)

    assert len(list(find(store, CountingTrees(store.reader()), "a"))) == 1
    assert len(reads) == 30 + 30 + 2


@pytest.mark.expect_log("the folder docs:d is left out: it is damaged")
def test_a_damaged_folder_does_not_hide_the_others(store: Store) -> None:
    root = publish(store, {"d": {"a": b"1"}, "e": {"a": b"2"}, "a": b""}).snapshot.root
    damaged = TreeReader(store.reader()).get(root, b"d").tree

    class DamagedTrees(TreeReader):
        def read(self, tree: TreeId) -> Tree:
            if tree == damaged:
                message = "it is damaged"
                raise CorruptionError(message)
            return super().read(tree)

    assert [match.path for match in find(store, DamagedTrees(store.reader()), "a")] == [b"a", b"e/a"]

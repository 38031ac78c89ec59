# SPDX-License-Identifier: MIT
"""Naming snapshots and paths."""

import os
import stat
from pathlib import Path

import pytest

from tests.engine.damaging import put
from tests.engine.planting import DAY_NS, SECOND_NS, T0_NS, publish
from tests.engine.sandbox import MakeStore, Sandbox
from yester.core.records import RECORD_VERSION, Entry, Snapshot
from yester.engine.select import find_history_targets, resolve
from yester.errors import CorruptionError, NotFoundError, UsageError, YesterError
from yester.store.lmdb import Table
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

NOW_NS = T0_NS + 10 * DAY_NS


def name_of(store: Store, text: str) -> str:
    return resolve(store, text, now_ns=NOW_NS)[0].snapshot.name


def path_of(store: Store, text: str) -> bytes:
    return resolve(store, text, now_ns=NOW_NS)[1]


@pytest.fixture
def three(store: Store) -> list[StoredSnapshot]:
    """Snapshots of `docs` on three days, at 10:00."""
    return [publish(store, {"a": b"%d" % number}) for number in range(3)]


# --- snapshots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["docs", "docs@latest", "docs:", "docs@latest:", "docs@2026-11-24", "docs@now"])
def test_the_newest_snapshot_of_a_source(store: Store, three: list[StoredSnapshot], text: str) -> None:
    assert resolve(store, text, now_ns=NOW_NS) == (three[2], b"")


def test_an_id_prefix_names_a_snapshot(store: Store, three: list[StoredSnapshot]) -> None:
    digits = three[1].id.hex()
    for text in (digits, digits[:9], digits[:8].upper()):
        assert resolve(store, f"{text}:a", now_ns=NOW_NS) == (three[1], b"a")


def test_an_id_needs_four_digits(store: Store, three: list[StoredSnapshot]) -> None:
    with pytest.raises(NotFoundError, match="at least 4 digits"):
        resolve(store, three[1].id.hex()[:3], now_ns=NOW_NS)


def test_an_ambiguous_id_lists_what_it_could_be(store: Store) -> None:
    root = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0, publish(store, {}).snapshot.root.content)
    prefixes: dict[str, int] = {}
    while max(prefixes.values(), default=0) < 2:
        added = store.add_snapshot(Snapshot(RECORD_VERSION, "many", "", T0_NS + len(prefixes) * SECOND_NS, T0_NS, root))
        prefix = added.id.hex()[:4]
        prefixes[prefix] = prefixes.get(prefix, 0) + 1
    with pytest.raises(UsageError, match="is the start of 2 snapshot ids: ") as caught:
        resolve(store, prefix, now_ns=NOW_NS)
    assert added.id.hex()[:12] in caught.value.message
    assert f"many@{added.snapshot.name}" in caught.value.message


def test_a_source_that_is_called_like_an_id_wins(store: Store, three: list[StoredSnapshot]) -> None:
    source = three[0].id.hex()[:6]
    named = publish(store, {}, source)
    assert resolve(store, source, now_ns=NOW_NS)[0] == named
    assert resolve(store, three[0].id.hex()[:7], now_ns=NOW_NS)[0] == three[0]


def test_snapshots_of_one_second_are_told_apart_by_name(store: Store) -> None:
    made = [publish(store, {}, time_ns=T0_NS + number) for number in range(3)]
    assert [snapshot.snapshot.name for snapshot in made] == ["2026-11-22_10-00-00", "2026-11-22_10-00-00-2", "2026-11-22_10-00-00-3"]
    for snapshot in made:
        assert resolve(store, f"docs@{snapshot.snapshot.name}:x", now_ns=NOW_NS) == (snapshot, b"x")


@pytest.mark.parametrize(
    ("when", "day"),
    [
        ("2026-11-22", 0),
        ("2026-11-22_10-00-00", 0),
        ("2026-11-23 09:59", 0),
        ("2026-11-23 09:59:59", 0),
        ("2026-11-23 10:00", 1),
        ("2026-11-23_18-00-00", 1),
        ("2026-11", 2),
        ("8d", 2),
        ("8d1h", 1),
        ("2200", 2),
        ("3000", 2),
    ],
)
def test_a_time_names_the_newest_snapshot_not_after_it(store: Store, three: list[StoredSnapshot], when: str, day: int) -> None:
    assert resolve(store, f"docs@{when}", now_ns=NOW_NS) == (three[day], b"")
    assert resolve(store, f"docs@{when}:a/b", now_ns=NOW_NS) == (three[day], b"a/b")


def test_the_longest_text_that_is_a_time_is_the_time(store: Store, three: list[StoredSnapshot]) -> None:
    assert resolve(store, "docs@2026-11-23 09:59:59", now_ns=NOW_NS) == (three[0], b"")
    assert resolve(store, "docs@2026-11-23 11:x:59", now_ns=NOW_NS) == (three[1], b"x:59")
    assert resolve(store, "docs@2026-11-23:11:59", now_ns=NOW_NS) == (three[1], b"11:59")


@pytest.mark.parametrize("when", ["2026-11-21", "2020", "3000y"])
def test_before_the_first_snapshot_there_is_none(store: Store, three: list[StoredSnapshot], when: str) -> None:
    with pytest.raises(NotFoundError, match="its oldest is 2026-11-22_10-00-00"):
        resolve(store, f"docs@{when}", now_ns=NOW_NS)


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("", UsageError, "no snapshot was named"),
        (":a", UsageError, "no snapshot was named"),
        ("dox", NotFoundError, "is it docs?"),
        ("dox@latest", NotFoundError, "is it docs?"),
        ("@latest", NotFoundError, "yester snapshots"),
        ("zebra:a", NotFoundError, "yester snapshots"),
        ("x" * 1000, NotFoundError, "yester snapshots"),
        ("x" * 1000 + "@1d", NotFoundError, "yester snapshots"),
        ("00000000", NotFoundError, "yester snapshots"),
        ("a" * 65, NotFoundError, "yester snapshots"),
        ("docs@", UsageError, "is not a time"),
        ("docs@noon", UsageError, "is not a time"),
        ("docs@latest@latest", UsageError, "is not a time"),
        ("docs:a/../b", UsageError, "'..'"),
    ],
)
def test_what_cannot_be_resolved_says_why_and_what_to_do(
    store: Store, three: list[StoredSnapshot], text: str, error: type[YesterError], told: str
) -> None:
    with pytest.raises(error) as caught:
        resolve(store, text, now_ns=NOW_NS)
    assert told in f"{caught.value.message}\n{caught.value.hint}"
    assert caught.value.hint


def test_an_empty_store_says_how_to_get_a_snapshot(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve(store, "docs", now_ns=NOW_NS)
    assert "yester backup" in caught.value.hint


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("docs:", b""),
        ("docs:/", b""),
        ("docs:.", b""),
        ("docs:a/b", b"a/b"),
        ("docs:/a//b/./c/", b"a/b/c"),
        ("docs:./a", b"a"),
        ("docs:a:b@c", b"a:b@c"),
        ("docs:a..b/...", b"a..b/..."),
        ("docs:\udcff", b"\xff"),
        ("docs:/home/ann/docs", b""),
        ("docs:/home/ann/docs/a/b/", b"a/b"),
        ("docs:home/ann/docs/a", b"home/ann/docs/a"),
        ("docs:/home/ann/docs2", b"home/ann/docs2"),
    ],
)
def test_paths_are_relative_to_the_root_of_the_snapshot(store: Store, three: list[StoredSnapshot], text: str, path: bytes) -> None:
    assert path_of(store, text) == path


def test_with_several_paths_each_lies_under_its_last_name(store: Store) -> None:
    publish(store, {"ann": {}, "docs": {}}, "two", paths=(b"/home/ann", b"/home/ann/docs"))
    assert path_of(store, "two:/home/ann/x") == b"ann/x"
    assert path_of(store, "two:/home/ann/docs/x") == b"docs/x"
    assert path_of(store, "two:/home") == b"home"
    assert path_of(store, "two:ann/x") == b"ann/x"


def test_the_root_folder_holds_every_path(store: Store) -> None:
    publish(store, {"etc": {}}, "all", paths=(b"/",))
    assert path_of(store, "all:/etc/hosts") == b"etc/hosts"


def test_a_single_file_lies_under_its_name(sandbox: Sandbox) -> None:
    file = sandbox.write("letter.txt", b"Dear")
    sandbox.back_up(file, source="one")
    assert path_of(sandbox.store, f"one:{file}") == b"letter.txt"
    assert find_history_targets(sandbox.store, "letter.txt", sandbox.folder) == [("one", b"letter.txt")]


# --- the sources that know a path -------------------------------------------------------------------------------------


def test_a_path_of_this_computer_is_found_in_every_source_that_has_it(store: Store) -> None:
    publish(store, {}, "docs", paths=(b"/home/ann/docs",))
    publish(store, {}, "home", paths=(b"/home",))
    publish(store, {}, "other", paths=(b"/srv",))
    targets = [("docs", b"x/y"), ("home", b"ann/docs/x/y")]
    assert find_history_targets(store, "/home/ann/docs/x/y", Path("/")) == targets
    assert find_history_targets(store, "x/../x/./y", Path("/home/ann/docs")) == targets
    assert find_history_targets(store, "../docs/x//y/", Path("/home/ann/docs")) == targets
    assert find_history_targets(store, ".", Path("/home/ann/docs")) == [("docs", b""), ("home", b"ann/docs")]
    assert find_history_targets(store, "/home/ann", Path("/")) == [("home", b"ann")]


def test_a_place_that_has_changed_is_given_as_it_was_too(store: Store) -> None:
    publish(store, {}, paths=(b"/home/ann",))
    publish(store, {}, paths=(b"/home/ann", b"/etc"))
    publish(store, {}, paths=(b"/home/ann", b"/etc"))
    assert find_history_targets(store, "/home/ann/x", Path("/")) == [("docs", b"ann/x"), ("docs", b"x")]
    assert find_history_targets(store, "/etc/x", Path("/")) == [("docs", b"etc/x")]


def test_source_and_path_can_be_given(store: Store, three: list[StoredSnapshot]) -> None:
    assert find_history_targets(store, "docs:a//b", Path("/")) == [("docs", b"a/b")]
    assert find_history_targets(store, "docs:", Path("/")) == [("docs", b"")]
    assert find_history_targets(store, "docs:/home/ann/docs/a", Path("/")) == [("docs", b"a")]


def test_a_file_whose_name_has_a_colon_is_found(store: Store, three: list[StoredSnapshot]) -> None:
    assert find_history_targets(store, "dox:a", Path("/home/ann/docs")) == [("docs", b"dox:a")]
    assert find_history_targets(store, "./docs:a", Path("/home/ann/docs")) == [("docs", b"docs:a")]


def test_symlinks_are_followed_where_nothing_is_found_without(store: Store, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    publish(store, {}, "by-link", paths=(os.fsencode(link),))
    assert find_history_targets(store, "x", real) == [("by-link", b"x")]
    publish(store, {}, "by-real", paths=(os.fsencode(real),))
    assert find_history_targets(store, "x", real) == [("by-real", b"x")]
    assert find_history_targets(store, "x", link) == [("by-link", b"x")]
    assert find_history_targets(store, "gone/x", tmp_path / "link") == [("by-link", b"gone/x")]


def test_a_path_that_no_source_has_is_not_found(store: Store, three: list[StoredSnapshot]) -> None:
    with pytest.raises(NotFoundError, match="no source has /nowhere/x"):
        find_history_targets(store, "x", Path("/nowhere"))
    with pytest.raises(NotFoundError) as caught:
        find_history_targets(store, "docs", Path("/nowhere"))
    assert "docs:" in caught.value.hint
    with pytest.raises(UsageError):
        find_history_targets(store, "", Path("/"))


@pytest.mark.expect_log("a snapshot of docs is left out")
def test_a_source_of_which_all_records_are_damaged_says_so(make_store: MakeStore) -> None:
    store = make_store(may_be_damaged=True)
    for number in range(2):
        publish(store, {"a": b"%d" % number})
    with store.environment.read() as view:
        keys = [key for key, _ in view.iterate(Table.SNAPSHOTS)]
    for key in keys:
        put(store, Table.SNAPSHOTS, key, b"\xc1")
    for text in ("docs", "docs:a", "docs@latest", "docs@yesterday"):
        with pytest.raises(CorruptionError, match=r"the records of all snapshots of 'docs' in .* are damaged") as caught:
            resolve(store, text, now_ns=NOW_NS)
        assert "yester repair" in caught.value.hint


# --- forgotten ones ---------------------------------------------------------------------------------------------------


def test_the_name_of_a_forgotten_snapshot_does_not_quietly_mean_the_one_before(store: Store, three: list[StoredSnapshot]) -> None:
    again = publish(store, {}, time_ns=three[1].snapshot.time_ns + 1)
    store.forget([three[1].id, again.id], now_ns=NOW_NS)
    for gone in (three[1], again):
        for text in (f"docs@{gone.snapshot.name}", f"docs@{gone.snapshot.name}:a", gone.id.hex()[:12]):
            with pytest.raises(NotFoundError, match=f"docs@{gone.snapshot.name} was forgotten") as caught:
                resolve(store, text, now_ns=NOW_NS)
            assert "yester undelete" in caught.value.hint
    assert resolve(store, "docs@2026-11-23", now_ns=NOW_NS) == (three[0], b""), "a time means what there is"


def test_a_source_of_which_all_is_forgotten_says_so(store: Store, three: list[StoredSnapshot]) -> None:
    store.forget([stored.id for stored in three], now_ns=NOW_NS)
    for text in ("docs", "docs@yesterday", f"docs@{three[0].snapshot.name}"):
        with pytest.raises(NotFoundError, match=r"all snapshots of 'docs' in .* were forgotten") as caught:
            resolve(store, text, now_ns=NOW_NS)
        assert "yester undelete docs" in caught.value.hint

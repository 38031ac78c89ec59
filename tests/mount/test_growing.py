# SPDX-License-Identifier: MIT
"""A running mount and new snapshots; the views by time and by version."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.conftest import Place, wait_until
from yester.store.snapshots import StoredSnapshot

HOUR_NS = 3600 * 10**9
PROMISED_S = 1.0
"""A new snapshot appears within this."""


@dataclass
class Source:
    """A source of its own in the mount that the tests here share, with one snapshot: `a.txt` holds `old`."""

    place: Place
    name: str

    def __post_init__(self) -> None:
        self.folder = self.place.path / self.name
        self.write("a.txt", b"old")
        self.first = self.back_up()

    def write(self, name: str, data: bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def back_up(self) -> StoredSnapshot:
        return self.place.back_up(self.name, self.folder)

    def add_at(self, time_ns: int) -> StoredSnapshot:
        return self.place.add_at(time_ns, self.name)

    @property
    def snapshots(self) -> Path:
        return self.place.point / "snapshots" / self.name

    @property
    def versions(self) -> Path:
        return self.place.point / "versions" / self.name

    def at(self, when: str) -> Path:
        return self.place.point / "at" / when / self.name


@pytest.fixture(scope="module")
def mounted(module_place: Place) -> Iterator[Place]:
    """A store that was empty when it was mounted."""
    module_place.open_store().close()
    module_place.mount()
    assert os.listdir(module_place.point / "snapshots") == []
    yield module_place
    module_place.unmount()


numbers = itertools.count()


@pytest.fixture
def source(mounted: Place) -> Source:
    """A source that the mount has not heard of before."""
    return Source(mounted, f"source{next(numbers)}")


def wait_promised(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, what, within_s=PROMISED_S)


def test_a_new_snapshot_appears_in_a_second(source: Source) -> None:
    wait_promised(source.snapshots.exists, "the source is there")
    assert os.listdir(source.snapshots) == [source.first.snapshot.name, "latest"]
    source.write("a.txt", b"new")
    stored = source.back_up()
    wait_promised(lambda: os.readlink(source.snapshots / "latest") == stored.snapshot.name, "latest is the new one")
    wait_promised(lambda: len(os.listdir(source.snapshots)) == 3, "the new one is listed")
    wait_promised(lambda: (source.snapshots / "latest" / "a.txt").read_bytes() == b"new", "the new content is read")


def test_a_new_source_appears_although_it_was_looked_for_before(mounted: Place) -> None:
    name = f"source{next(numbers)}"
    ways = [mounted.point / way for way in (f"snapshots/{name}/latest/a.txt", f"versions/{name}/a.txt", f"at/now/{name}/a.txt")]
    assert [way.exists() for way in ways] == [False, False, False]
    Source(mounted, name)
    wait_promised(lambda: all(way.exists() for way in ways), "it is there, whichever way it is looked for")
    wait_promised(lambda: name in os.listdir(mounted.point / "snapshots"), "it is listed")


def test_a_snapshot_appears_although_its_name_was_looked_for_before(source: Source) -> None:
    expected = source.snapshots / f"{source.first.snapshot.name}-2"
    wait_promised(source.snapshots.exists, "the source is there")
    assert not expected.exists()
    source.add_at(source.first.snapshot.time_ns)
    wait_promised(expected.exists, "the snapshot of the same second")


def test_what_is_open_in_an_old_snapshot_stays_as_it_is(source: Source) -> None:
    wait_promised(source.snapshots.exists, "the source is there")
    folder = os.open(source.snapshots / "latest", os.O_RDONLY)
    source.write("a.txt", b"new")
    source.back_up()
    wait_promised(lambda: (source.snapshots / "latest" / "a.txt").read_bytes() == b"new", "the new content is read")
    file = os.open("a.txt", os.O_RDONLY, dir_fd=folder)
    assert os.read(file, 10) == b"old"
    os.close(file)
    os.close(folder)


# --- forgotten --------------------------------------------------------------------------------------------------------


def test_a_forgotten_snapshot_goes_in_a_second_and_what_is_open_of_it_stays(source: Source) -> None:
    source.write("folder/large", b"large" * 1_000_000)
    source.write("a.txt", b"newer")
    middle = source.back_up()
    source.write("a.txt", b"newest")
    newest = source.back_up()
    shown = source.place.shown(middle)
    wait_promised(lambda: shown.exists() and os.readlink(source.snapshots / "latest") == newest.snapshot.name, "all are there")
    assert len(os.listdir(source.versions / "a.txt")) == 3
    assert (source.at("now") / "a.txt").read_bytes() == b"newest"
    folder, file = os.open(shown / "folder", os.O_RDONLY), os.open(shown / "folder" / "large", os.O_RDONLY)
    os.read(file, 10)
    with source.place.open_store() as store:
        store.forget([middle.id, newest.id], now_ns=time.time_ns())
    first = source.first.snapshot.name
    wait_promised(lambda: not shown.exists(), "it is gone")
    wait_promised(lambda: os.listdir(source.snapshots) == [first, "latest"], "the list is that of the rest")
    wait_promised(lambda: os.readlink(source.snapshots / "latest") == first, "latest is what is left")
    wait_promised(lambda: (source.snapshots / "latest" / "a.txt").read_bytes() == b"old", "so is what it leads to")
    wait_promised(lambda: (source.at("now") / "a.txt").read_bytes() == b"old", "and the newest by time")
    wait_promised(lambda: len(os.listdir(source.versions / "a.txt")) == 1, "its versions are gone")
    forgotten = source.place.point / "forgotten" / source.name
    wait_promised(lambda: forgotten.exists() and os.listdir(forgotten) == [middle.snapshot.name, newest.snapshot.name], "they are here")
    assert (forgotten / newest.snapshot.name / "a.txt").read_bytes() == b"newest"
    assert os.pread(file, 5, 4_999_995) == b"large"
    assert os.listdir(folder) == ["large"]
    assert os.stat("large", dir_fd=folder).st_size == 5_000_000
    again = os.open("large", os.O_RDONLY, dir_fd=folder)
    assert os.pread(again, 5, 2_000_000) == b"large"
    for handle in (folder, file, again):
        os.close(handle)
    with source.place.open_store() as store:
        store.undelete([middle.id, newest.id])
    wait_promised(shown.exists, "it is back")
    wait_promised(lambda: not forgotten.exists(), "nothing is forgotten any more")
    wait_promised(lambda: os.readlink(source.snapshots / "latest") == newest.snapshot.name, "latest as well")


def test_a_source_of_which_all_is_forgotten_goes_in_a_second(source: Source) -> None:
    wait_promised(lambda: source.snapshots.exists() and source.versions.exists() and source.at("now").exists(), "it is there")
    with source.place.open_store() as store:
        store.forget([source.first.id], now_ns=time.time_ns())
    ways = (source.snapshots, source.snapshots / "latest", source.versions, source.at("now"))
    wait_promised(lambda: not any(map(os.path.lexists, ways)), "it is nowhere")
    wait_promised(lambda: source.name not in os.listdir(source.snapshots.parent), "it is not listed")
    shown = source.place.point / "forgotten" / source.name / source.first.snapshot.name
    wait_promised(shown.exists, "it is among the forgotten ones")
    assert (shown / "a.txt").read_bytes() == b"old"


# --- at ---------------------------------------------------------------------------------------------------------------


def test_a_time_leads_to_the_newest_snapshot_that_is_not_after_it(source: Source) -> None:
    now_ns = time.time_ns()
    yesterday = source.add_at(now_ns - 24 * HOUR_NS)
    hours_ago = source.add_at(now_ns - 3 * HOUR_NS)
    wait_promised(source.snapshots.exists, "the source is there")
    midnight_ns = now_ns // (24 * HOUR_NS) * 24 * HOUR_NS
    by_midnight = hours_ago if now_ns - 3 * HOUR_NS < midnight_ns else yesterday  # early in the day, that was yesterday as well
    for when, stored in {"2h": hours_ago, "20h": yesterday, "1d": yesterday, "yesterday": by_midnight}.items():
        assert os.path.realpath(source.at(when)) == str(source.place.shown(stored)), when
        assert (source.at(when) / "a.txt").read_bytes() == b"old", when
    assert source.name in os.listdir(source.at("2h").parent)
    assert source.name not in os.listdir(source.at("2d").parent)
    assert not source.at("2d").exists()


def test_a_time_that_is_none_is_not_there_and_times_are_not_listed(mounted: Place) -> None:
    at = mounted.point / "at"
    for name in ("nonsense", "2026-13", ".Trash", "\udcff", "-1h", "new\nline"):
        with pytest.raises(FileNotFoundError):
            os.lstat(at / name)
    os.lstat(at / "2h")
    assert os.listdir(at) == []


# --- versions ---------------------------------------------------------------------------------------------------------


def test_the_versions_of_a_file_appear_as_they_are_made(source: Source) -> None:
    folder = source.versions / "a.txt"
    first = f"{source.first.snapshot.name}.txt"
    wait_promised(lambda: folder.exists() and os.listdir(folder) == [first], "the first version is listed")
    assert (folder / first).read_bytes() == b"old"
    source.back_up()
    source.write("a.txt", b"new")
    stored = source.back_up()
    name = f"{stored.snapshot.name}.txt"
    wait_promised(lambda: set(os.listdir(folder)) == {first, name}, "the new version is listed, and the unchanged one is not")
    assert (folder / name).read_bytes() == b"new"
    assert os.path.samefile(folder / name, source.place.shown(stored) / "a.txt")


def test_the_versions_of_a_folder_hold_what_was_deleted(source: Source) -> None:
    (source.folder / "a.txt").unlink()
    source.write("folder/b.txt", b"b")
    stored = source.back_up()
    wait_promised(lambda: source.versions.exists() and os.listdir(source.versions) == ["a.txt", "folder"], "both are listed")
    assert len(os.listdir(source.versions / "a.txt")) == 1
    assert os.listdir(source.versions / "folder" / "b.txt") == [f"{stored.snapshot.name}.txt"]
    assert not (source.versions / "c.txt").exists()

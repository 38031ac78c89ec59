# SPDX-License-Identifier: MIT
"""Continuous backup by a clock of its own: real folders and events, and not one second of waiting."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.sandbox import Sandbox
from yester.engine import continuous as continuous_module
from yester.engine.backup import BackupOptions, BackupResult, back_up
from yester.engine.continuous import ContinuousBackup, Pace, Settling, wait_readable
from yester.engine.folder_watch import FolderWatch, Gap
from yester.errors import NotFoundError, StoreFullError, YesterError

MOMENTS = st.lists(st.floats(0, 1000), max_size=20).map(sorted)


@given(MOMENTS)
def test_a_backup_is_due_after_quiet_but_never_long_after_the_first_change(moments: list[float]) -> None:
    settling = Settling(Pace(quiet_s=10, interval_s=30))
    for moment in moments:
        settling.changed(moment)
    if not moments:
        assert settling.due_s() == float("inf")
    else:
        assert settling.due_s() == min(moments[-1] + 10, moments[0] + 30)
        assert settling.is_waiting
    settling.clear()
    assert settling.due_s() == float("inf")


@dataclass
class Script:
    """Time, and what happens in it: actions at moments. Waiting for events ends at the next action, and time has gone on.

    Observer, stop and clock in one; the run ends after the last action.
    """

    sandbox: Sandbox
    watch: FolderWatch
    actions: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    now_s: float = 0.0
    backup_s: float = 0.0
    said: list[tuple[float, str]] = field(default_factory=list)
    failures: list[YesterError] = field(default_factory=list)
    """The next backups end with these."""
    after_scan: Callable[[], object] = lambda: None
    _is_over: bool = False

    def at(self, moment_s: float, action: Callable[[], object]) -> None:
        self.actions.append((moment_s, action))

    def run(self, until_s: float, *, is_deaf: bool = False, pace: Pace | None = None) -> list[tuple[float, str]]:
        """Run it; what was said, and when. `snapshot` stands for a new one, `same` for a backup that found nothing new."""
        self.at(until_s, lambda: setattr(self, "_is_over", True))
        self.actions.sort(key=lambda pair: pair[0])
        ContinuousBackup(
            [self.sandbox.folder],
            pace or Pace(quiet_s=10, interval_s=60, look_s=1000, retry_s=20),
            self.watch,
            self.back_up,
            self,
            is_deaf_after_scan=is_deaf,
            clock=lambda: self.now_s,
            wait=self.wait,
        ).run(self)
        return self.said

    def back_up(self) -> BackupResult:
        if self.failures:
            raise self.failures.pop(0)
        self.sandbox.now_ns += 60 * 10**9
        options = BackupOptions(source="docs", only_if_changed=True)
        result = back_up(self.sandbox.store, [self.sandbox.folder], options, observer=self.watch)
        self.sandbox.results.append(result)
        self.after_scan()
        self.now_s += self.backup_s
        return result

    def wait(self, descriptors: Sequence[int], timeout_s: float) -> None:
        end_s = self.now_s + timeout_s
        if self.actions and self.actions[0][0] <= end_s:
            moment_s, action = self.actions.pop(0)
            self.now_s = max(self.now_s, moment_s)
            action()
        else:
            self.now_s = end_s

    def is_set(self) -> bool:
        return self._is_over

    def fileno(self) -> int:
        return -1

    def backed_up(self, result: BackupResult) -> None:
        self.said.append((round(self.now_s, 1), "same" if result.is_unchanged else "snapshot"))

    def failed(self, error: YesterError, retry_s: float) -> None:
        self.said.append((round(self.now_s, 1), error.message))

    def noticed(self, message: str, hint: str) -> None:
        if not message.startswith("watching"):
            self.said.append((round(self.now_s, 1), message))


@pytest.fixture
def script(sandbox: Sandbox) -> Iterator[Script]:
    sandbox.write("file", b"0")
    with FolderWatch() as watch:
        yield Script(sandbox, watch)


def test_a_change_is_in_a_snapshot_when_it_has_settled(script: Script) -> None:
    script.at(100, lambda: script.sandbox.write("file", b"1"))
    said = script.run(200)
    assert said == [(0, "snapshot"), (110, "snapshot")]
    assert script.sandbox.read("file") == b"1"


def test_a_burst_is_one_snapshot_and_what_never_rests_is_one_a_minute(script: Script) -> None:
    for number in range(30):
        script.at(100 + number * 5, partial(script.sandbox.write, "file", b"%d" % number))
    said = script.run(400)
    times = [moment for moment, _ in said]
    assert times == pytest.approx([0, 160, 225, 255], abs=1)
    assert script.sandbox.read("file") == b"29"


def test_nothing_is_published_where_nothing_differs(script: Script) -> None:
    script.sandbox.write("x.tmp", b"")
    script.at(100, lambda: os.utime(script.sandbox.folder / "file", ns=(1, (script.sandbox.folder / "file").stat().st_mtime_ns)))
    assert script.run(200) == [(0, "snapshot"), (110, "same")]
    assert len(script.sandbox.store.snapshots()) == 1


def test_a_change_during_a_backup_is_in_the_next(script: Script) -> None:
    script.backup_s = 1
    changes = [b"during", b""]
    script.after_scan = lambda: script.sandbox.write("file", changes.pop(0)) if changes[0] else None
    said = script.run(100)
    assert said == [(1, "snapshot"), (12, "snapshot")]
    assert script.sandbox.read("file") == b"during"


def test_hooks_that_clean_up_after_the_backup_do_not_wake_it_for_ever(script: Script) -> None:
    script.after_scan = lambda: script.sandbox.write("dump.sql", os.urandom(8))
    said = script.run(2500, is_deaf=True)
    assert said == [(0, "snapshot"), (1000, "snapshot"), (2000, "snapshot")], "only when it looks in any case"


def test_a_large_source_that_always_changes_leaves_time_for_others(script: Script) -> None:
    script.backup_s = 8
    for number in range(40):
        script.at(100 + number * 11, partial(script.sandbox.write, "file", b"%d" % number))
    times = [moment for moment, _ in script.run(600)]
    assert all(later - earlier >= 40 for earlier, later in pairwise(times))
    assert script.sandbox.read("file") == b"39"


def test_with_a_gap_it_looks_at_the_interval_says_so_once_and_comes_back(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    end_scan = script.watch.end_scan

    def end_with_gap() -> None:
        end_scan()
        script.watch.gap = Gap("3 folders cannot be watched", "raise it") if script.now_s < 150 else None

    monkeypatch.setattr(script.watch, "end_scan", end_with_gap)
    said = script.run(1200)
    assert said == [
        (0, "snapshot"), (0, "3 folders cannot be watched; changes are looked for every 60 s instead"),
        (60, "same"), (120, "same"), (180, "same"), (180, "all folders are watched again"), (1180, "same"),
    ]  # fmt: skip


def test_with_a_gap_it_looks_once_more_before_it_ends(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.watch, "read", lambda: False)
    begin_scan = script.watch.begin_scan

    def begin_with_gap() -> None:
        begin_scan()
        script.watch.gap = Gap("nothing can be watched")

    monkeypatch.setattr(script.watch, "begin_scan", begin_with_gap)
    script.at(30, lambda: script.sandbox.write("file", b"unheard"))
    assert [text for _, text in script.run(40)][-2:] == ["ending: what changed last is backed up first", "snapshot"]
    assert script.sandbox.read("file") == b"unheard"


def test_a_folder_that_is_removed_is_waited_for_and_watched_when_it_is_made_again(script: Script) -> None:
    folder = script.sandbox.folder
    script.at(100, lambda: shutil.rmtree(folder))
    script.at(150, lambda: script.sandbox.write("again", b"1"))
    script.at(200, lambda: script.sandbox.write("again", b"2"))
    said = script.run(300)
    assert said == [
        (0, "snapshot"), (110, f"{folder} is not there; nothing is backed up until it is there again"),
        (150, "everything is there again"), (150, "snapshot"), (210, "snapshot"),
    ]  # fmt: skip
    assert script.sandbox.read("again") == b"2"


def test_what_is_not_backed_up_in_the_end_is_told(script: Script) -> None:
    script.at(95, lambda: shutil.rmtree(script.sandbox.folder))
    said = script.run(100)
    assert said[1][1].endswith("nothing is backed up until it is there again")
    assert said[2:] == [(100, "ending: what changed since the last snapshot is not backed up")]
    assert len(script.sandbox.store.snapshots()) == 1


def test_what_changed_last_is_backed_up_before_it_ends(script: Script) -> None:
    script.at(99, lambda: script.sandbox.write("file", b"last"))
    said = script.run(100)
    assert [text for _, text in said] == ["snapshot", "ending: what changed last is backed up first", "snapshot"]
    assert script.sandbox.read("file") == b"last"


def test_what_changed_when_it_was_told_to_end_elsewhere_is_backed_up(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def change_and_end(message: str, _hint: str) -> None:
        if message.startswith("watching"):
            script.sandbox.write("file", b"last")
            script._is_over = True

    monkeypatch.setattr(script, "noticed", change_and_end)
    assert script.run(1000) == [(0, "snapshot"), (0, "snapshot")]
    assert script.sandbox.read("file") == b"last"


def test_a_backup_that_fails_is_told_once_and_tried_again(script: Script) -> None:
    def fail() -> None:
        script.failures = [StoreFullError("the disk is full"), StoreFullError("the disk is full")]
        script.sandbox.write("file", b"1")

    script.at(100, fail)
    said = script.run(300)
    assert said == [(0, "snapshot"), (110, "the disk is full"), (150, "snapshot")]
    assert script.sandbox.read("file") == b"1"


def test_a_look_that_fails_is_tried_again_though_nothing_was_heard(script: Script) -> None:
    script.at(500, lambda: script.failures.append(StoreFullError("the disk is full")))
    assert script.run(1100) == [(0, "snapshot"), (1000, "the disk is full"), (1020, "same")]


def test_a_first_backup_that_fails_ends_it(script: Script) -> None:
    script.failures = [NotFoundError("not there")]
    with pytest.raises(NotFoundError):
        script.run(100)


def test_a_mount_point_without_its_disk_is_no_version_of_it(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = script.sandbox.folder
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        script.sandbox.write("file", b"on the disk")
        script.at(100, lambda: subprocess.run(["umount", folder], check=True))
        script.at(200, lambda: subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True))
        said = script.run(250)
    finally:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", folder], check=True, capture_output=True)
    assert said[:3] == [
        (0, "snapshot"), (110, f"the disk at {folder} is not mounted; nothing is backed up until it is there again"),
        (200, "everything is there again"),
    ]  # fmt: skip


def test_waiting_for_real_ends_when_something_is_readable() -> None:
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, b"\0")
        wait_readable([read_end], 60)
        wait_readable([], 0)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_the_mount_point_of_a_folder_is_found_through_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    assert continuous_module._mount_point(tmp_path / "link" / "task") == "/proc"

# SPDX-License-Identifier: MIT
"""Hearing of changes in what a backup reads: all of them, and no others. Events are there as soon as a change is made: nothing waits."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.sandbox import Sandbox
from yester.engine import folder_watch as folder_watch_module
from yester.engine.backup import BackupOptions, back_up
from yester.engine.folder_watch import FolderWatch
from yester.engine.inotify import Inotify


@pytest.fixture
def watch() -> Iterator[FolderWatch]:
    with FolderWatch() as watch:
        yield watch


class Scarce(Inotify):
    """The system lets it watch only so many folders."""

    def __init__(self, count_max: int) -> None:
        super().__init__()
        self.count_max = count_max
        self.numbers: set[int] = set()

    def watch(self, folder: int) -> int:
        number = super().watch(folder)
        if number not in self.numbers and len(self.numbers) >= self.count_max:
            super().unwatch(number)
            raise OSError(errno.ENOSPC, "no space")
        self.numbers.add(number)
        return number


def back_up_watched(sandbox: Sandbox, watch: FolderWatch, *paths: Path, **options: object) -> None:
    sandbox.now_ns += 60 * 10**9
    chosen = BackupOptions(source="docs", **options)  # type: ignore[arg-type] # as the caller names them
    sandbox.results.append(back_up(sandbox.store, paths or (sandbox.folder,), chosen, observer=watch))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a" / "new").write_bytes(b""),
        lambda folder: (folder / "a" / "b" / "file").write_bytes(b"other"),
        lambda folder: (folder / "a" / "b" / "file").chmod(0o600),
        lambda folder: os.utime(folder / "a" / "b" / "file"),
        lambda folder: os.setxattr(folder / "a" / "b" / "file", "user.x", b"1"),
        lambda folder: (folder / "a" / "b" / "file").rename(folder / "file"),
        lambda folder: (folder / "a" / "b" / "file").unlink(),
        lambda folder: (folder / "a" / "link").symlink_to("b"),
        lambda folder: (folder / "a" / "b").rename(folder / "a" / "c"),
        lambda folder: shutil.rmtree(folder / "a"),
        lambda folder: folder.chmod(0o711),
        lambda folder: folder.rename(folder.parent / "elsewhere"),
    ],
)
def test_each_kind_of_change_is_heard(sandbox: Sandbox, watch: FolderWatch, change: object) -> None:
    sandbox.write("a/b/file", b"text")
    back_up_watched(sandbox, watch)
    assert not watch.read()
    assert callable(change)
    change(sandbox.folder)
    assert watch.read()
    assert not watch.read(), "once"


def test_reading_and_backing_up_are_no_changes(sandbox: Sandbox, watch: FolderWatch) -> None:
    sandbox.write("a/b/file", b"text")
    back_up_watched(sandbox, watch)
    back_up_watched(sandbox, watch)
    (sandbox.folder / "a/b/file").read_bytes()
    assert not watch.changed_during_scan
    assert not watch.read()


def test_what_has_no_name_any_more_is_no_change(sandbox: Sandbox, watch: FolderWatch) -> None:
    with sandbox.write("file", b"text").open("ab", buffering=0) as file:
        back_up_watched(sandbox, watch)
        (sandbox.folder / "file").unlink()
        assert watch.read()
        file.write(b"more")
        assert not watch.read()


def test_what_rules_leave_out_is_not_heard_of(sandbox: Sandbox, watch: FolderWatch) -> None:
    sandbox.write(".yesterignore", b"*.tmp\n/build/\n")
    sandbox.write("sub/.yesterignore", b"!kept.tmp\n")
    sandbox.write("build/x/y", b"")
    sandbox.write("cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n")
    back_up_watched(sandbox, watch, exclude=("*.log",), exclude_caches=True)
    for name in ("a.tmp", "sub/b.tmp", "sub/c.log", "build/x/y", "build/z", "cache/thing", "cache/.yesterignore"):
        (sandbox.folder / name).write_bytes(b"changed")
    (sandbox.folder / "sub" / "folder.tmp").mkdir()
    (sandbox.folder / "sub" / "folder.tmp" / "file").write_bytes(b"")
    assert not watch.read()
    for name in ("sub/kept.tmp", "cache/CACHEDIR.TAG", "sub/.yesterignore", "text"):
        (sandbox.folder / name).write_bytes(b"changed")
        assert watch.read(), name


def test_what_becomes_left_out_is_not_heard_of_after_the_next_backup(sandbox: Sandbox, watch: FolderWatch) -> None:
    sandbox.write("build/x", b"")
    back_up_watched(sandbox, watch)
    sandbox.write("build/x", b"1")
    assert watch.read()
    sandbox.write(".yesterignore", b"build\n")
    back_up_watched(sandbox, watch)
    sandbox.write("build/x", b"2")
    assert not watch.read()
    assert watch.folder_count == 1
    kernel = Path(f"/proc/self/fdinfo/{watch.descriptor()}").read_text()
    assert kernel.count("inotify wd:") == 1, "and the kernel's memory is given back"


def test_no_symlink_is_followed(sandbox: Sandbox, watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (sandbox.folder / "link").symlink_to(tmp_path / "outside")
    back_up_watched(sandbox, watch)
    (sandbox.folder / "another").symlink_to(tmp_path / "outside")
    assert watch.read()
    (tmp_path / "outside" / "file").write_bytes(b"")
    assert not watch.read()


def test_the_store_on_the_watched_tree_does_not_count(sandbox: Sandbox, watch: FolderWatch) -> None:
    sandbox.write("source/file", b"text")
    back_up_watched(sandbox, watch, sandbox.folder.parent)  # the store is there, too
    sandbox.write("file", b"other")
    assert watch.read()
    back_up_watched(sandbox, watch, sandbox.folder.parent)
    sandbox.store.add_snapshot(sandbox.results[-1].snapshot)
    assert not watch.changed_during_scan
    assert not watch.read()


def test_new_folders_are_watched_at_once_with_what_is_in_them(sandbox: Sandbox, watch: FolderWatch) -> None:
    back_up_watched(sandbox, watch)
    (sandbox.folder / "new" / "deep" / "deeper").mkdir(parents=True)
    assert watch.read()
    (sandbox.folder / "new" / "deep" / "deeper" / "file").write_bytes(b"")
    assert watch.read()
    back_up_watched(sandbox, watch)
    assert watch.folder_count == 4


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_folder_that_was_moved_is_known_by_its_new_path(sandbox: Sandbox, watch: FolderWatch, tmp_path: Path, is_heard: bool) -> None:
    sandbox.write(".yesterignore", b"/b/noise\n")
    sandbox.write("a/noise", b"")
    back_up_watched(sandbox, watch)
    (sandbox.folder / "a").rename(sandbox.folder / "b")
    if not is_heard:
        assert watch._inotify is not None
        watch._inotify.read()
    back_up_watched(sandbox, watch)
    sandbox.write("b/noise", b"1")
    assert not watch.read()
    (sandbox.folder / "b").rename(tmp_path / "b")
    back_up_watched(sandbox, watch)
    (tmp_path / "b" / "file").write_bytes(b"")
    assert not watch.read(), "it is not in the source any more"


def test_a_file_named_by_itself_is_watched_and_its_neighbours_are_not(sandbox: Sandbox, watch: FolderWatch) -> None:
    one, other = sandbox.write("one", b"1"), sandbox.write("other", b"1")
    neighbour = sandbox.write("neighbour", b"1")
    back_up_watched(sandbox, watch, one, other)
    neighbour.write_bytes(b"2")
    assert not watch.read()
    for file in (one, other):
        (sandbox.folder / "temporary").write_bytes(b"2")
        assert not watch.read()
        (sandbox.folder / "temporary").rename(file)
        assert watch.read(), "as editors save"


def test_what_changes_during_the_scan_is_heard_of(sandbox: Sandbox, watch: FolderWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        sandbox.write(f"{name}/file", b"text")
    entered: list[bytes] = []
    enter = watch.enter

    def enter_and_change(folder: int, prefix: bytes, path: bytes, *rest: object, **options: object) -> None:
        enter(folder, prefix, path, *rest, **options)  # type: ignore[arg-type] # passed on as they came
        entered.append(path)
        if path == b"c":
            (sandbox.folder / "a" / "file").write_bytes(b"changed after it was read")

    monkeypatch.setattr(watch, "enter", enter_and_change)
    back_up_watched(sandbox, watch)
    assert entered == [b"", b"a", b"b", b"c"]
    assert watch.changed_during_scan
    assert sandbox.read("a/file") == b"text"


def test_lost_events_count_as_a_change_and_the_next_scan_finds_new_folders(sandbox: Sandbox, watch: FolderWatch) -> None:
    queue_max = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue_max > 200_000:
        pytest.skip("the queue is too large to fill it quickly")
    files = [sandbox.write(name, b"") for name in ("a.tmp", "b.tmp")]
    back_up_watched(sandbox, watch, exclude=("*.tmp",))
    for number in range(queue_max + 10):
        os.utime(files[number % 2])
    (sandbox.folder / "lost").mkdir()
    assert watch.read(), "though no event that was kept counts"
    sandbox.write("lost/file", b"1")
    assert not watch.read(), "nobody knew of this folder"
    back_up_watched(sandbox, watch, exclude=("*.tmp",))
    sandbox.write("lost/file", b"2")
    assert watch.read()


def test_a_limit_is_a_gap_with_its_remedy_until_it_is_raised(sandbox: Sandbox) -> None:
    for number in range(5):
        sandbox.write(f"{number}/file", b"")
    scarce = Scarce(3)
    with FolderWatch(lambda: scarce) as watch:
        back_up_watched(sandbox, watch)
        assert watch.gap is not None
        assert watch.gap.reason.startswith("3 folders cannot be watched: they are more than the system lets a user watch")
        assert watch.gap.hint.startswith("raise it, as root: sysctl fs.inotify.max_user_watches=")
        sandbox.write("0/file", b"1")
        assert watch.read(), "what is watched is still heard of"
        scarce.count_max = 100
        back_up_watched(sandbox, watch)
        assert watch.gap is None
        sandbox.write("4/file", b"1")
        assert watch.read()


def test_where_nothing_can_be_watched_each_scan_tries_again(sandbox: Sandbox) -> None:
    answers: list[OSError | None] = [OSError(errno.EMFILE, "too many"), OSError(errno.ENOSYS, "not there"), None]

    def open_inotify() -> Inotify:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return Inotify()

    with FolderWatch(open_inotify) as watch:
        back_up_watched(sandbox, watch)
        assert watch.gap is not None
        assert watch.descriptor() is None
        assert not watch.read()
        assert "fs.inotify.max_user_instances" in watch.gap.hint
        back_up_watched(sandbox, watch)
        assert watch.gap.reason == "no folder can be watched: not there"
        back_up_watched(sandbox, watch)
        assert watch.gap is None
        sandbox.write("file", b"")
        assert watch.read()


def test_a_file_system_that_others_change_is_a_gap(sandbox: Sandbox, watch: FolderWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    device = sandbox.folder.stat().st_dev
    monkeypatch.setattr(folder_watch_module, "_remote_devices", lambda: {device: "nfs4"})
    back_up_watched(sandbox, watch)
    assert watch.gap is not None
    assert watch.gap.reason == f"{sandbox.folder}/ is on a file system (nfs4) that others may change, of which this computer does not hear"


def test_which_file_systems_others_change_stands_in_the_mount_table(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(
        b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        b"40 22 0:45 / /home/ann/far rw shared:20 - nfs4 server:/ann rw\n"
        b"41 22 0:46 / /home/ann/ssh\\040host rw - fuse.sshfs ann@host: rw\n"
        b"42 22 8:17 / /media/stick rw - fuseblk /dev/sdb1 rw\n"
    )
    assert folder_watch_module._remote_devices(str(tmp_path / "mountinfo")) == {os.makedev(0, 45): "nfs4", os.makedev(0, 46): "fuse.sshfs"}
    assert folder_watch_module._remote_devices(str(tmp_path / "nothing")) == {}


_IN_A_NAMESPACE = """
import os, sys
from yester.core.ignore import RuleStack
from yester.engine.folder_watch import FolderWatch
limit = "/proc/sys/user/max_inotify_watches"
def scan(watch):
    watch.begin_scan()
    for name in ("a", "b", "c"):
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        watch.enter(folder, os.fsencode(os.getcwd()) + b"/", os.fsencode(name), RuleStack())
        os.close(folder)
    watch.end_scan()
    return watch.gap.reason if watch.gap else "all"
open(limit, "w").write("2")
with FolderWatch() as watch:
    print(scan(watch))
    open(limit, "w").write("100")
    print(scan(watch))
"""


def test_the_limit_of_the_system_is_met(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", _IN_A_NAMESPACE]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip(f"no user namespace: {done.stderr.strip()}")
    first, second = done.stdout.splitlines()
    assert first.startswith("1 folders cannot be watched: they are more than the system lets a user watch")
    assert second == "all"

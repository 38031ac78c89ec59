# SPDX-License-Identifier: MIT
"""A live folder that is mounted: real programs work in it, versions appear, and ending it loses nothing.

What each system call does is compared with a folder of the host by `scripts/judge`; what survives a crash is in tests/faults.
"""

import errno
import json
import mmap
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.mount.conftest import Place, Server, errno_of, find_server, mounted_below, new_place, wait_until
from tests.mount.richness import describe, differences, make_rich_folder
from yester.core.acl import ACCESS, DEFAULT, AclEntry, encode_acl, parse_acl
from yester.engine.check import check
from yester.store.store import Store

IS_ROOT = os.geteuid() == 0
NOBODY = 2**32 - 1
"""The id of entries of an access list that name nobody."""


@pytest.fixture
def live(place: Place) -> Place:
    """A live folder that makes versions when told to."""
    place.mount_live()
    return place


def versions(folder: Path) -> list[str]:
    return os.listdir(folder / ".snapshots")


# --- work


def test_what_is_copied_in_is_the_same_also_after_mounting_again(live: Place) -> None:
    make_rich_folder(live.folder)
    copied = live.point / "copy"
    subprocess.run(["cp", "-a", "--", live.folder, copied], check=True)
    before = describe(copied)
    assert differences(describe(live.folder), before) == []
    assert live.run("umount", live.point).returncode == 0
    live.mount_live()
    assert describe(copied) == before


def test_git_works_in_it(live: Place) -> None:
    repository = live.point / "repository"
    git: list[str | Path] = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-C", repository]
    subprocess.run(["git", "init", "-q", repository], check=True)
    for number in range(5):
        (repository / f"file{number}").write_text(f"content {number}\n" * 500)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", f"commit {number}"], check=True)
    subprocess.run([*git, "gc", "-q"], check=True)
    subprocess.run([*git, "fsck", "--full", "--strict"], check=True, capture_output=True)
    assert subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True).stdout == b""
    clone = live.point / "clone"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", repository, clone], check=True)
    assert (clone / "file4").read_text() == "content 4\n" * 500


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite_works_in_it(live: Place, mode: str) -> None:
    database = live.point / "database"
    with sqlite3.connect(database) as connection:
        assert connection.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        connection.execute("create table numbers (number integer primary key, text text)")
        for number in range(50):
            connection.execute("insert into numbers values (?, ?)", (number, "x" * 300))
            connection.commit()
    connection.close()
    with sqlite3.connect(database) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("select count(*) from numbers").fetchone() == (50,)
    connection.close()


def test_editors_save_by_way_of_a_temporary_file(live: Place) -> None:
    """The letter is the same thing before and after, as its node id says; and it is never there half."""
    letter = live.point / "letter.txt"
    letter.write_text("first")
    live.make_version()
    for text in ("second", "third"):
        temporary = live.point / ".letter.txt.tmp"
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(letter)
    assert letter.read_text() == "third"
    live.make_version()
    assert [(live.point / ".snapshots" / name / "letter.txt").read_text() for name in versions(live.point)] == ["third", "first"]


def test_a_mapped_file_is_written(live: Place) -> None:
    file = live.point / "mapped"
    file.write_bytes(bytes(100_000))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[50_000:50_006] = b"mapped"
        mapped.flush()
    live.make_version()
    [version] = versions(live.point)
    assert (live.point / ".snapshots" / version / "mapped").read_bytes()[50_000:50_006] == b"mapped"


def test_a_file_that_is_open_outlives_its_name(live: Place) -> None:
    path = live.point / "file"
    with path.open("w+b") as file:
        file.write(b"still here")
        file.flush()
        path.unlink()
        live.make_version()
        file.seek(0)
        assert file.read() == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0


def test_a_large_sparse_file_takes_little(live: Place) -> None:
    file = live.point / "sparse"
    with file.open("wb") as opened:
        opened.truncate(6 << 30)
        opened.seek(5 << 30)
        opened.write(b"far away")
    assert os.stat(file).st_size == 6 << 30
    assert os.stat(file).st_blocks * 512 < 1 << 20
    live.make_version()
    with file.open("rb") as opened:
        opened.seek((5 << 30) - 4)
        assert opened.read(12) == bytes(4) + b"far away"
    assert os.stat(file).st_blocks * 512 < 1 << 20
    assert os.stat(live.store / "data.mdb").st_size < 64 << 20


def test_programs_that_lock_files_are_served(live: Place) -> None:
    file = live.point / "locked"
    file.touch()
    with subprocess.Popen(["flock", file, "cat"], stdin=subprocess.PIPE) as holder:
        wait_until(lambda: subprocess.run(["flock", "-n", file, "true"], check=False).returncode == 1, "the lock is held")
        assert holder.stdin is not None
        holder.stdin.close()
    assert subprocess.run(["flock", "-n", file, "true"], check=False).returncode == 0


def test_access_lists_are_kept_inherited_and_gone_by(live: Place) -> None:
    acl = tuple(AclEntry(*fields) for fields in ((1, 6, NOBODY), (2, 6, 4321), (4, 0, NOBODY), (0x10, 6, NOBODY), (0x20, 0, NOBODY)))
    file, folder = live.point / "file", live.point / "folder"
    file.write_bytes(b"for 4321")
    os.setxattr(file, ACCESS, encode_acl(acl))
    assert os.stat(file).st_mode & 0o777 == 0o660, "the group bits are the mask"
    file.chmod(0o600)
    assert parse_acl(os.getxattr(file, ACCESS))[3].permissions == 0
    folder.mkdir()
    os.setxattr(folder, DEFAULT, encode_acl(acl))
    umask = os.umask(0)  # the kernel takes it away from what it asks for, also where it should not count
    (folder / "below").mkdir(0o777)
    os.umask(umask)
    assert os.getxattr(folder / "below", DEFAULT) == encode_acl(acl)
    assert os.stat(folder / "below").st_mode & 0o777 == 0o660
    os.removexattr(file, ACCESS)
    assert os.listxattr(file) == []


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
def test_the_kernel_goes_by_access_lists() -> None:
    acl = tuple(AclEntry(*fields) for fields in ((1, 6, NOBODY), (2, 4, 4321), (4, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)))
    with tempfile.TemporaryDirectory() as folder, new_place(Path(folder)) as place:
        place.mount_live("--allow-other")
        place.path.chmod(0o755)
        file = place.point / "file"
        file.write_bytes(b"for 4321")
        file.chmod(0o600)
        reader = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", "cat", os.fspath(file)]
        assert subprocess.run(reader, check=False, capture_output=True).returncode == 1
        os.setxattr(file, ACCESS, encode_acl(acl))
        assert subprocess.run(reader, check=False, capture_output=True).stdout == b"for 4321"
        file.chmod(0o600)
        assert subprocess.run(reader, check=False, capture_output=True).returncode == 1, "the mask takes it away"


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
def test_others_may_look_at_old_versions_and_order_nothing() -> None:
    with tempfile.TemporaryDirectory() as folder, new_place(Path(folder)) as place:
        place.mount_live("--allow-other")
        place.path.chmod(0o755)
        place.point.chmod(0o777)
        (place.point / "file").write_text("first")
        (place.point / "file").chmod(0o644)
        place.make_version()
        other = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups"]
        old = place.point / ".snapshots" / versions(place.point)[0]
        assert subprocess.run([*other, "cat", old / "file"], check=False, capture_output=True).stdout == b"first"
        set_order = f"import os; os.setxattr({os.fspath(place.point)!r}, 'user.yester.order', b'{{}}')"
        refused = subprocess.run([*other, sys.executable, "-c", set_order], check=False, capture_output=True, text=True)
        assert "PermissionError" in refused.stderr


@pytest.mark.parametrize("order", [b"", b"nonsense", b"[]", b'{"path_hex": "x"}', b'{"message": "a\nb"}', b'{"other": 1}'])
def test_nonsense_is_no_order(live: Place, order: bytes) -> None:
    assert errno_of(os.setxattr, live.point, "user.yester.order", order) == errno.EINVAL
    assert errno_of(os.setxattr, live.point, "user.yester.state", b"dirty") == errno.EPERM


def test_a_store_that_is_moved_goes_on(live: Place) -> None:
    live.store.rename(live.path / "moved")
    (live.point / "file").write_text("written")
    with (live.point / "file").open() as file:
        os.fsync(file.fileno())
    assert os.statvfs(live.point).f_bavail > 0
    (live.path / "moved").rename(live.store)
    live.make_version()
    assert (live.point / "file").read_text() == "written"


# --- versions


def test_a_version_appears_by_itself_once_it_is_quiet(place: Place) -> None:
    done = place.run("live", "--name", "work", "--quiet", "0.3", "--store", place.store, "--log", place.log, place.point)
    assert done.returncode == 0
    place.watch(find_server(place.point))
    for number in range(20):
        (place.point / f"file{number}").write_text("a burst")
    wait_until(lambda: any((place.point / ".snapshots" / name / "file19").exists() for name in versions(place.point)), "there is a version")
    with_some = [name for name in versions(place.point) if (place.point / ".snapshots" / name / "file0").exists()]
    assert len(with_some) == 1, "a burst is one version"


def test_each_folder_shows_the_versions_in_which_it_differs(live: Place) -> None:
    for name in ("letters", "quiet"):
        (live.point / name).mkdir()
        (live.point / name / "file").write_text("first")
    live.make_version()
    (live.point / "letters" / "file").write_text("second")
    live.make_version()
    assert len(versions(live.point)) == len(versions(live.point / "letters")) == 2
    assert len(versions(live.point / "quiet")) == 1
    newest, oldest = versions(live.point / "letters")
    assert newest > oldest, "the newest comes first"
    assert (live.point / "letters" / ".snapshots" / oldest / "file").read_text() == "first"
    assert ".snapshots" not in os.listdir(live.point / "letters")
    shutil.copy2(live.point / "letters" / ".snapshots" / oldest / "file", live.point / "letters" / "file")
    assert (live.point / "letters" / "file").read_text() == "first"


def test_old_versions_do_not_change(live: Place) -> None:
    (live.point / "file").write_text("first")
    live.make_version()
    old = live.point / ".snapshots" / versions(live.point)[0]
    assert errno_of(os.open, old / "file", os.O_WRONLY) == errno.EROFS
    assert errno_of(os.mkdir, old / "new") == errno.EROFS
    assert errno_of(os.unlink, old / "file") == errno.EROFS
    assert errno_of(os.rename, old / "file", live.point / "moved") in (errno.EROFS, errno.EXDEV)
    assert errno_of(os.link, old / "file", live.point / "linked") in (errno.EROFS, errno.EXDEV)
    assert errno_of(os.chmod, old / "file", 0o600) == errno.EROFS
    assert errno_of(os.rmdir, live.point / ".snapshots") == errno.EPERM
    assert errno_of(os.mkdir, live.point / ".snapshots") == errno.EEXIST
    assert os.stat(old / "file").st_ino != os.stat(live.point / "file").st_ino


def test_forgotten_versions_go_from_a_folder_in_use_and_what_is_open_of_them_stays(live: Place) -> None:
    for text in ("first", "second", "third"):
        (live.point / "file").write_text(text)
        live.make_version()
    third, second, first = versions(live.point)
    old = os.open(live.point / ".snapshots" / second, os.O_RDONLY)
    file = os.open("file", os.O_RDONLY, dir_fd=old)
    refused = live.run("forget", f"live/work@{third}", "--yes", "--store", live.store)
    assert (refused.returncode, "is based on it" in refused.stderr) == (1, True)
    assert live.run("forget", f"live/work@{second}", "--store", live.store).returncode == 0
    wait_until(lambda: versions(live.point) == [third, first], "it is not listed", within_s=1)
    wait_until(lambda: not (live.point / ".snapshots" / second).exists(), "it is not found", within_s=1)
    assert (os.listdir(old), os.read(file, 10)) == (["file"], b"second")
    os.close(file)
    os.close(old)
    busy = live.run("forget", "live/work", "--remove-folder", "--yes", "--store", live.store)
    assert (busy.returncode, "is in use by" in busy.stderr) == (1, True)
    assert live.run("undelete", f"live/work@{second}", "--store", live.store).returncode == 0
    wait_until(lambda: versions(live.point) == [third, second, first], "it is back", within_s=1)
    live.unmount()
    assert live.run("forget", "live/work", "--remove-folder", "--yes", "--store", live.store).returncode == 1, "one is pinned"
    assert live.run("unpin", f"live/work@{second}", "--store", live.store).returncode == 0
    assert live.run("forget", "live/work", "--remove-folder", "--yes", "--store", live.store).returncode == 0
    live.mount_live()
    assert os.listdir(live.point) == versions(live.point) == []


def test_the_trash_of_a_file_manager_is_in_no_version(live: Place) -> None:
    trash = live.point / ".Trash-0" / "files"
    trash.mkdir(parents=True)
    (live.point / "kept").write_text("kept")
    (live.point / "deleted").write_text("deleted")
    (live.point / "deleted").rename(trash / "deleted")
    live.make_version()
    assert os.listdir(live.point / ".snapshots" / versions(live.point)[0]) == ["kept"]
    [folder] = json.loads(live.run("status", "--store", live.store, "--json").stdout)["live_folders"]
    assert (folder["dirty_bytes"], folder["changed_nodes"]) == (0, 0)
    done = live.run("umount", live.point)
    assert "everything is in the store, and in the last version" in done.stdout
    [folder] = json.loads(live.run("status", "--store", live.store, "--json").stdout)["live_folders"]
    assert (folder["dirty_bytes"], folder["changed_nodes"]) == (0, 0)
    live.mount_live()
    assert (trash / "deleted").read_text() == "deleted"


def test_the_snapshot_mount_and_the_commands_show_versions(live: Place) -> None:
    (live.point / "file").write_text("first")
    live.make_version()
    (live.point / "file").write_text("second one")
    done = live.run("snapshot", "--store", live.store, "work", "--message", "a remark", "--json")
    assert json.loads(done.stdout)["latest"]["message"] == "a remark"
    shown = live.path / "shown"
    shown.mkdir()
    live.mount(point=shown)
    assert (shown / "snapshots" / "live" / "work" / "latest" / "file").read_text() == "second one"
    now = shown / "at" / "now" / "live" / "work" / "file"
    wait_until(lambda: now.read_text() == "second one", "the second of the second version has come")
    assert len(os.listdir(shown / "versions" / "live" / "work" / "file")) == 2
    listed = json.loads(live.run("snapshots", "--store", live.store, "--json").stdout)
    assert [snapshot["source"] for snapshot in listed] == ["live/work", "live/work"]
    [history] = json.loads(live.run("log", "--store", live.store, live.point / "file", "--json").stdout)
    assert (history["source"], history["path"], len(history["versions"])) == ("live/work", "file", 2)
    older = listed[0]["name"]
    assert "M file" in live.run("diff", "--store", live.store, f"live/work@{older}", "live/work").stdout
    assert live.run("cat", "--store", live.store, f"live/work@{older}:file").stdout == "first"


def test_a_live_folder_begins_as_any_snapshot_was(place: Place) -> None:
    make_rich_folder(place.folder)
    stored = place.back_up()
    size = os.stat(place.store / "data.mdb").st_size
    done = place.run("live", "--store", place.store, "--name", "again", "--from", "docs", "--log", place.log, place.point)
    assert (done.stderr, done.returncode) == ("", 0)
    place.watch(find_server(place.point))
    shown = place.path / "shown"
    shown.mkdir()
    place.mount(point=shown)
    archived = shown / "snapshots" / "docs" / stored.snapshot.name
    ignored = {b"."}  # the mount point has the times of its making
    found = differences(describe(place.point), describe(archived))
    assert [line for line in found if not any(f"of {path!r}:" in line for path in ignored)] == []
    assert os.stat(place.store / "data.mdb").st_size < size + (2 << 20), "nothing was copied"
    done = place.run("live", "--store", place.store, "--name", "again", "--from", "docs", shown / "none")
    assert done.returncode == 1


# --- rewinding, and how it is


def test_a_folder_is_rewound_and_that_is_undone(live: Place) -> None:
    (live.point / "letters").mkdir()
    (live.point / "letters" / "report").write_text("first")
    (live.point / "gone").write_text("gone")
    live.make_version()
    first = versions(live.point)[0]
    (live.point / "letters" / "report").write_text("second, and longer")
    (live.point / "gone").unlink()
    (live.point / "new").write_text("new")

    dry = live.run("rewind", "--store", live.store, "work", "--to", first, "--dry-run")
    assert (live.point / "new").exists()
    assert {"M letters/report", "+ gone", "- new"} <= {line.split("  ")[0] for line in dry.stdout.splitlines()}
    second = versions(live.point)[0]
    with (live.point / "letters" / "report").open("rb") as held:
        done = live.run("rewind", "--store", live.store, "work", "letters", "--to", first)
        assert done.returncode == 0
        assert held.read() == b"first", "what the kernel had of it is forgotten"
    assert (live.point / "new").exists(), "only a part was rewound"
    assert live.run("rewind", "--store", live.store, "work", "--to", first).returncode == 0
    assert sorted(os.listdir(live.point)) == ["gone", "letters"]
    assert live.run("rewind", "--store", live.store, "work", "--to", second).returncode == 0
    assert sorted(os.listdir(live.point)) == ["letters", "new"]
    assert (live.point / "letters" / "report").read_text() == "second, and longer"


def test_commands_work_on_a_live_folder_that_is_not_mounted(live: Place) -> None:
    (live.point / "file").write_text("first")
    live.make_version()
    first = versions(live.point)[0]
    (live.point / "file").write_text("second")
    assert live.run("umount", live.point).returncode == 0
    done = live.run("rewind", "--store", live.store, "work", "--to", first)
    assert (done.stdout.splitlines()[0], done.returncode) == ("M file  6 B → 5 B", 0)
    assert live.run("snapshot", "--store", live.store, "work").stdout.startswith("nothing has changed since")
    assert live.run("snapshot", "--store", live.store, "none").returncode == 1
    live.mount_live()
    assert (live.point / "file").read_text() == "first"


def test_status_says_how_live_folders_are(live: Place) -> None:
    (live.point / "file").write_bytes(b"12345")
    assert os.getxattr(live.point / "file", "user.yester.state") == b"dirty"
    assert os.getxattr(live.point / "file", "user.yester.versions") == b"0"
    [folder] = json.loads(live.run("status", "--store", live.store, "--json").stdout)["live_folders"]
    assert (folder["name"], folder["mounted_at"], folder["dirty_bytes"]) == ("work", str(live.point), 5)
    live.make_version()
    assert os.getxattr(live.point / "file", "user.yester.state") == b"clean"
    assert os.getxattr(live.point / "file", "user.yester.versions") == b"1"
    assert os.listxattr(live.point / "file") == []
    assert os.listxattr(live.point) == []
    shown = live.run("status", "--store", live.store).stdout
    assert "work" in shown
    assert str(live.point) in shown
    [folder] = json.loads(live.run("status", "--store", live.store, "--json").stdout)["live_folders"]
    assert (folder["dirty_bytes"], folder["changed_nodes"]) == (0, 0)
    assert folder["last_version"] is not None


# --- ending


def test_unmounting_waits_until_all_is_in_the_store_and_says_so(live: Place) -> None:
    (live.point / "file").write_bytes(os.urandom(5_000_000))
    expected = (live.point / "file").read_bytes()
    done = live.run("umount", live.point)
    assert "everything is in the store" in done.stdout
    with Store.open(live.store) as store:
        [stored] = store.snapshots("live/work")
        assert stored.snapshot.totals.size_bytes == len(expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_loses_nothing(live: Place, number: signal.Signals) -> None:
    [server] = live.servers
    (live.point / "file").write_text("written just now")
    server.signal(number)
    server.wait_ended()
    assert mounted_below(live.path) == []
    with Store.open(live.store) as store:
        assert len(store.snapshots("live/work")) == 1
    live.mount_live()
    assert (live.point / "file").read_text() == "written just now"


def test_a_live_folder_is_mounted_once(live: Place) -> None:
    other = live.path / "other"
    other.mkdir()
    done = live.run("live", "--name", "work", "--store", live.store, other)
    assert done.returncode == 1
    assert "is in use by process" in done.stderr
    assert live.run("mount", "--store", live.store, live.store).returncode == 1


def test_after_its_process_died_it_is_dead_until_it_is_mounted_again(live: Place) -> None:
    [server] = live.servers
    (live.point / "file").write_text("synced")
    with (live.point / "file").open() as file:
        os.fsync(file.fileno())
    server.signal(signal.SIGKILL)
    server.wait_ended()
    assert errno_of(os.listdir, live.point) == errno.ENOTCONN
    [folder] = json.loads(live.run("status", "--store", live.store, "--json").stdout)["live_folders"]
    assert not folder["is_answering"]
    live.log.unlink(missing_ok=True)
    done = live.run("live", "--name", "work", "--store", live.store, "--log", live.log, live.point)
    assert done.returncode == 0
    live.watch(find_server(live.point))
    assert (live.point / "file").read_text() == "synced"


# --- promises


def test_backups_mounts_and_versions_at_once_keep_nobody_waiting(live: Place) -> None:
    """For some seconds: a backup again and again, versions again and again, a reader of the snapshot mount, and a writer who measures."""
    for number in range(300):
        live.write(f"folder/{number}", os.urandom(5000))
    live.back_up()
    shown = live.path / "shown"
    shown.mkdir()
    live.mount(point=shown)
    is_over = threading.Event()
    problems: list[BaseException] = []

    def again_and_again(work: object) -> None:
        assert callable(work)
        try:
            while not is_over.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 (it is told below)
            problems.append(error)

    def back_up() -> None:
        live.write("folder/changing", os.urandom(400_000))
        live.back_up()

    def read() -> None:
        latest = shown / "snapshots" / "docs" / "latest" / "folder"
        assert len(list(latest.iterdir())) >= 300

    threads = [threading.Thread(target=again_and_again, args=(work,)) for work in (back_up, live.make_version, read)]
    for thread in threads:
        thread.start()
    longest_s = 0.0
    end = time.monotonic() + 6
    count = 0
    while time.monotonic() < end:
        before = time.monotonic()
        path = live.point / f"file{count % 50}"
        path.write_bytes(b"%d" % count * 1000)
        longest_s = max(longest_s, time.monotonic() - before)
        count += 1
    is_over.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert count > 100
    print(f"{count} files written, the longest took {longest_s:.3f} s")  # noqa: T201 (machines differ: it is not judged here)
    with Store.open(live.store) as store:
        assert check(store, read_data=True).findings == ()
        assert len(store.snapshots("docs")) > 2
        assert len(store.snapshots("live/work")) > 2


def _peak_kib(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_memory_does_not_grow_with_what_is_written(live: Place) -> None:
    [server] = live.servers
    block = os.urandom(1 << 20)
    with (live.point / "large").open("wb") as file:
        for number in range(400):
            file.write(block[number:] + block[:number])
    for number in range(3000):
        (live.point / f"small{number}").write_bytes(block[number : number + 3000])
    live.make_version()
    assert _peak_kib(server) < 300 * 1024


def test_a_full_disk_is_told_to_the_writer_and_outlived(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not IS_ROOT:
        pytest.skip("only root can mount a small disk")
    path = tmp_path_factory.mktemp("full")
    (path / "store").mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "none", path / "store"], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {made.stderr.decode()}")
    try:
        place = Place(path, is_damaged=True)
        place.mount_live()
        written: dict[str, bytes] = {}
        failed = 0
        for number in range(40):
            data = os.urandom(2_000_000)
            name = f"file{number}"
            failed = errno_of(_write_synced, place.point / name, data)
            if failed:
                break
            written[name] = data
        assert failed == errno.ENOSPC
        assert len(written) > 5
        assert errno_of(_write_synced, place.point / "more", os.urandom(2_000_000)) == errno.ENOSPC
        assert all((place.point / name).read_bytes() == data for name, data in written.items()), "it stays readable"
        done = place.run("snapshot", "--store", place.store, "work")
        assert done.returncode == 1
        assert "may have no room for a version" in done.stderr
        for name in list(written)[: len(written) // 2]:
            (place.point / name).unlink()
            del written[name]
        _write_synced(place.point / "again", b"again" * 1000)
        written["again"] = b"again" * 1000
        assert place.run("umount", place.point).returncode == 0
        place.mount_live()
        assert all((place.point / name).read_bytes() == data for name, data in written.items())
        place.close()
    finally:
        subprocess.run(["umount", path / "store"], check=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

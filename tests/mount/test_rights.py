# SPDX-License-Identifier: MIT
"""Who may see what in a mount."""

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Place, errno_of, mounted_below
from tests.mount.richness import IS_ROOT
from yester.core.content import pack_span
from yester.core.records import RECORD_VERSION, Entry, Snapshot, Tree
from yester.engine.trees import store_tree
from yester.store.segments import Kind
from yester.store.snapshots import StoredSnapshot

STRANGER = 12345
NOBODY = 65534


@pytest.fixture
def strangers(place: Place) -> Iterator[tuple[Place, StoredSnapshot]]:
    """A snapshot of what somebody else owns; not mounted."""
    with place.open_store() as store, store.writer() as writer:
        content = pack_span(writer.add(Kind.DATA, b"data"), 4)

        def file(name: bytes, mode: int) -> Entry:
            return Entry(name, stat.S_IFREG | mode, STRANGER, STRANGER, 0, 0, 4, 0, content)

        def folder(name: bytes, mode: int, *entries: Entry) -> Entry:
            tree = store_tree(
                Tree(RECORD_VERSION, {}, {}, entries), store.parameters.chunking, lambda record: writer.add(Kind.TREE, record)
            )
            return Entry(name, stat.S_IFDIR | mode, STRANGER, STRANGER, 0, 0, 0, 0, tree)

        root = folder(b"", 0o755, folder(b"closed", 0o700, file(b"inner", 0o600)), file(b"private", 0o600), file(b"public", 0o644))
        writer.flush()
        stored = store.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", 0, 0, root))
    yield place, stored
    place.unmount()


def test_permissions_of_the_archive_hold(strangers: tuple[Place, StoredSnapshot]) -> None:
    if IS_ROOT:
        pytest.skip("root may read everything")
    place, stored = strangers
    place.mount()
    folder = place.shown(stored)
    assert (folder / "public").read_bytes() == b"data"
    assert errno_of((folder / "private").read_bytes) == errno.EACCES
    assert errno_of(os.listdir, folder / "closed") == errno.EACCES
    assert errno_of(os.lstat, folder / "closed" / "inner") == errno.EACCES
    assert (folder / "private").stat().st_uid == STRANGER


def test_as_me_everything_is_mine_and_readable(strangers: tuple[Place, StoredSnapshot]) -> None:
    place, stored = strangers
    place.mount("--as-me")
    folder = place.shown(stored)
    for name in ("public", "private", "closed/inner"):
        status = (folder / name).stat()
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
        assert (folder / name).read_bytes() == b"data"
    assert stat.S_IMODE((folder / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "closed").stat().st_mode) == 0o700


def _read_as_nobody(folder: Path, name: str) -> subprocess.CompletedProcess[bytes]:
    """What somebody without rights gets. Started in `folder`: what leads there may be closed to them."""
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "cat", name]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False)


def test_others_may_not_look_into_a_mount(strangers: tuple[Place, StoredSnapshot]) -> None:
    if not IS_ROOT:
        pytest.skip("only root can become somebody else")
    place, stored = strangers
    place.mount()
    done = _read_as_nobody(place.shown(stored), "public")
    assert done.returncode == 1
    assert b"Permission denied" in done.stderr


def test_with_allow_other_others_may_read_what_its_permissions_allow(strangers: tuple[Place, StoredSnapshot]) -> None:
    if not IS_ROOT:
        pytest.skip("only root can become somebody else")
    place, stored = strangers
    place.mount("--allow-other")
    folder = place.shown(stored)
    assert _read_as_nobody(folder, "public").stdout == b"data"
    for name in ("private", "closed/inner"):
        done = _read_as_nobody(folder, name)
        assert done.returncode == 1
        assert b"Permission denied" in done.stderr
    [line] = [line for line in Path("/proc/self/mounts").read_text().splitlines() if line.split()[1] == str(place.point)]
    assert "allow_other" in line.split()[3].split(",")


def test_allow_other_needs_the_systems_consent_for_ordinary_users(strangers: tuple[Place, StoredSnapshot]) -> None:
    if IS_ROOT:
        pytest.skip("root needs no consent")
    if "user_allow_other" in Path("/etc/fuse.conf").read_text().splitlines():
        pytest.skip("it is given here")
    place, _ = strangers
    done = place.run("mount", "--store", place.store, "--allow-other", place.point)
    assert done.returncode == 1
    assert "--allow-other is not permitted to ordinary users here; nothing was mounted" in done.stderr
    assert "put the line `user_allow_other` into /etc/fuse.conf" in done.stderr
    assert not mounted_below(place.path)

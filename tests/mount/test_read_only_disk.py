# SPDX-License-Identifier: MIT
"""A store on a disk that is mounted read-only: looking, mounting and restoring work; what would write says so and changes nothing."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import Place
from yester.store.identity import IDENTITY_FILE
from yester.store.store import Store

FILES = {"a": b"1", "d/b": b"2" * 100_000}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Have nothing in a folder be written, by a read-only mount over itself: with permissions alone LMDB wants to write its lock file."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a folder read-only")
@pytest.mark.parametrize("is_known", [True, False])
def test_mount_and_restore_work_from_a_disk_that_cannot_be_written(place: Place, is_known: bool) -> None:
    """Also of a copy, which is looked at each time, since that cannot be remembered."""
    for name, data in FILES.items():
        place.write(name, data)
    stored = place.back_up()
    if not is_known:
        (place.store / IDENTITY_FILE).unlink()
    before = {path.name: path.read_bytes() for path in place.store.iterdir() if path.is_file()}
    with read_only(place.store):
        place.mount()
        assert {name: (place.shown(stored) / name).read_bytes() for name in FILES} == FILES
        place.unmount()
        target = place.path / "back"
        assert place.run("restore", "docs", "--to", target, "--store", place.store).returncode == 0
        assert {name: (target / name).read_bytes() for name in FILES} == FILES
        for reads in (["snapshots"], ["check", "--read-data"], ["repair", "--dry-run"], ["stats"]):
            done = place.run(*reads, "--store", place.store)
            assert done.returncode == 0, (reads, done.stderr)
        for writes in (["backup", str(place.folder)], ["repair", "--no-copy"], ["live", str(place.point)]):
            done = place.run(*writes, "--store", place.store)
            assert done.returncode == 1, writes
            assert "yester: " in done.stderr
            assert "Traceback" not in done.stderr
        assert {path.name: path.read_bytes() for path in place.store.iterdir() if path.is_file()} == before
    with Store.open(place.store) as store:
        assert store.snapshots() == [stored]

# SPDX-License-Identifier: MIT
"""Much at once: many readers while a backup runs, and very large folders."""

import os
import random
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.conftest import COMMAND, Place, environment
from yester.core.records import RECORD_VERSION, Entry, Snapshot, Tree
from yester.engine.trees import store_tree
from yester.store.segments import Kind

THREADS = 8
FILES = 40


def test_eight_readers_read_right_while_a_backup_runs(place: Place) -> None:
    rng = random.Random(1)
    files = {f"folder {number % 4}/{number}": rng.randbytes(rng.randrange(300_000)) for number in range(FILES)}
    files["large"] = rng.randbytes(8 << 20)
    for name, data in files.items():
        place.write(name, data)
    snapshot = place.shown(place.back_up())
    place.mount()
    names = sorted(files)

    def read(number: int) -> int:
        """Read files in an order of its own, over and over while the backup runs; at least once each."""
        own = random.Random(number)
        count = 0
        while count < len(names) or backup.poll() is None:
            name = own.choice(names)
            with (snapshot / name).open("rb") as file:
                start = own.randrange(len(files[name]) + 1)
                file.seek(start)
                assert file.read(200_000) == files[name][start : start + 200_000]
            drop_pages(snapshot / name)
            count += 1
        return count

    other = place.path / "other"
    other.mkdir()
    for number in range(300):
        (other / str(number)).write_bytes(rng.randbytes(50_000))
    command: list[str | Path] = [*COMMAND, "backup", "--store", place.store, "--name", "other", other]
    with subprocess.Popen(command, env=environment(place.path), stdout=subprocess.PIPE) as backup, ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(read, range(THREADS)))
        assert backup.wait() == 0
    assert min(counts) >= len(names)
    assert (place.point / "snapshots" / "other" / "latest" / "299").read_bytes() == (other / "299").read_bytes()
    place.unmount()


def drop_pages(path: Path) -> None:
    """Have the kernel forget a file's bytes, so that reading it again asks the mount."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


@pytest.mark.parametrize("count", [100_000])
def test_a_folder_of_very_many_files_is_listed_whole(place: Place, count: int) -> None:
    entries = tuple(
        Entry(b"a file with a name of usual length %06d" % number, stat.S_IFREG | 0o644, 0, 0, number, number, 0, 0, b"")
        for number in range(count)
    )
    with place.open_store() as store:
        with store.writer() as writer:
            tree = store_tree(
                Tree(RECORD_VERSION, {}, {}, entries), store.parameters.chunking, lambda record: writer.add(Kind.TREE, record)
            )
        root = Entry(b"", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0, tree)
        stored = store.add_snapshot(Snapshot(RECORD_VERSION, "docs", "", 0, 0, root))
    place.mount("--as-me")
    folder = place.shown(stored)
    with os.scandir(os.fsencode(folder)) as listing:
        found = [item.name for item in listing]
    assert found == [entry.name for entry in entries]
    assert (folder / os.fsdecode(found[count // 2])).stat().st_mtime_ns == count // 2
    with os.scandir(folder) as listing:  # left half read
        next(listing)
    place.unmount()

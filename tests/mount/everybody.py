# SPDX-License-Identifier: MIT
"""One of many processes that use a store at once, each as it likes, until a file appears.

usage: python -m tests.mount.everybody ROLE STORE FOLDER STOP SEED

ROLE: `backup` changes files in FOLDER and backs it up; `prune` forgets all but the last snapshots of each source, and prunes; `read` reads
snapshots below FOLDER, a mount; `write` changes files in FOLDER, a live folder that is mounted. Says how often it did that.

Every file has one of a few contents, so what one has just pruned another is about to store. Each folder has a list of what is in it.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from yester.engine.backup import BackupOptions, back_up
from yester.engine.prune import prune
from yester.errors import BusyError
from yester.store.compact import compact
from yester.store.store import Store

LIST = "list"
_FILES = 12
_CONTENTS = 40
_KEPT = 2
_SHOWN_WITHIN_S = 20.0
"""A snapshot that is gone must vanish from a mount within a second; this machine is busy."""


def content(number: int) -> bytes:
    """One of the contents."""
    rng = random.Random(number)
    return rng.randbytes(rng.choice([10, 3000, 70_000, 400_000]))


def change(folder: Path, rng: random.Random) -> None:
    """Give some files other contents, and say in the list which."""
    listed: dict[str, int] = json.loads((folder / LIST).read_text()) if (folder / LIST).exists() else {}
    for _ in range(4):
        name, number = f"folder{rng.randrange(3)}/file{rng.randrange(_FILES // 3)}", rng.randrange(_CONTENTS)
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content(number))
        listed[name] = number
    (folder / LIST).write_text(json.dumps(listed))


def judge(folder: Path) -> int:
    """Compare a folder with its list; how many files it has.

    Raises:
        OSError: something is not there. AssertionError: it is not what was written.
    """
    listed: dict[str, int] = json.loads((folder / LIST).read_text())
    for name, number in listed.items():
        assert (folder / name).read_bytes() == content(number), folder / name
    return len(listed)


def _back_up(path: Path, folder: Path, rng: random.Random) -> int:
    change(folder, rng)
    with Store.open(path) as store:
        result = back_up(store, [folder], BackupOptions())
    assert not result.problems
    return 1


def _prune(path: Path, _folder: Path, _rng: random.Random) -> int:
    with Store.open(path) as store:
        old = [stored.id for source in store.sources() for stored in store.snapshots(source)[:-_KEPT]]
        store.forget(old, now_ns=time.time_ns())
        chunks = prune(store, grace_ns=0).dead_chunks
    with pytest.raises(BusyError):
        compact(path)  # somebody has it open
    return chunks


def _read(_path: Path, point: Path, rng: random.Random) -> int:
    snapshots = [snapshot for source in (point / "snapshots").iterdir() for snapshot in source.iterdir() if not snapshot.is_symlink()]
    if not snapshots:
        return 0
    snapshot = rng.choice(snapshots)
    if snapshot.parent.name == "live":
        return 0
    try:
        return judge(snapshot)
    except OSError:
        give_up = time.monotonic() + _SHOWN_WITHIN_S
        while snapshot.name in {shown.name for shown in snapshot.parent.iterdir()}:
            assert time.monotonic() < give_up, f"{snapshot} is listed and cannot be read"
            time.sleep(0.05)
        return 0


def _write(_path: Path, folder: Path, rng: random.Random) -> int:
    change(folder, rng)
    return judge(folder)


_ROLES: dict[str, Callable[[Path, Path, random.Random], int]] = {"backup": _back_up, "prune": _prune, "read": _read, "write": _write}


def main() -> None:
    """Do it until told to stop, and once."""
    role, path, folder, stop, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    rounds = done = 0
    with suppress(KeyboardInterrupt):
        while not rounds or not Path(stop).exists():
            done += _ROLES[role](Path(path), Path(folder), rng)
            rounds += 1
    print(rounds, done)  # noqa: T201 (it is a command)


if __name__ == "__main__":
    main()

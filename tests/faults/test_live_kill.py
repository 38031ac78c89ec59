# SPDX-License-Identifier: MIT
"""A live folder whose process is killed at any moment is then as it was after some operation, and has all that was synced.

The same is done to a folder of the host, step by step, so what the live folder may be is known. Versions are made all the time
meanwhile: many kills are in the middle of one. Every version must be what the folder was at some moment.
"""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.live_server import NAME
from tests.faults.live_work import Shapes, Step, describe, describe_snapshot, do, fingerprint, random_step
from tests.faults.witness import SMALL_CHUNKS
from tests.mount.conftest import environment
from yester.engine.check import check
from yester.store.live import source_of
from yester.store.store import Store

ROUNDS = 220
SEED = 11
STEPS_MAX = 400
DELAY_MAX_S = 0.15
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]


class Server:
    """Serves the live folder, and dies of a signal."""

    def __init__(self, place: Path) -> None:
        self.point = place / "mnt"
        self.store = place / "store"
        self.point.mkdir()
        Store.create(self.store, chunking=SMALL_CHUNKS).close()
        arguments = [os.fspath(self.store), os.fspath(self.point), "0.01", "0.03"]
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.live_server", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(place, PYTHONPATH=os.pathsep.join(sys.path)),
            text=True,
        )

    def start(self) -> int:
        """Mount it; the id of the process that serves it."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._answer())

    def wait_ended(self) -> None:
        """Wait until the process that served it is gone, and take the dead mount away."""
        assert self._answer() == "ended"
        subprocess.run(["fusermount3", "-uz", "--", self.point], check=False, capture_output=True)

    def close(self) -> None:
        subprocess.run(["fusermount3", "-uz", "--", self.point], check=False, capture_output=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def running_server(place: Path) -> Iterator[Server]:
    server = Server(place)
    try:
        yield server
    finally:
        server.close()


def test_a_killed_live_folder_is_as_it_was_after_some_operation_with_all_that_was_synced(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    mirror = os.fsencode(tmp_path / "mirror")
    os.mkdir(mirror)
    seen = Counter[str]()
    ever: set[bytes] = set()
    with running_server(tmp_path) as server:
        root = os.fsencode(server.point)
        may_be: list[Shapes] = [{b"": (0, 0, b"", b"")}]
        for number in range(ROUNDS):
            pid = server.start()
            found = describe(root)
            prints = [fingerprint(shapes) for shapes in may_be]
            assert fingerprint(found) in prints, f"seed {SEED}, round {number}: {_difference(found, may_be)}"
            seen["lost some" if prints[-1] != fingerprint(found) else "lost nothing"] += 1
            shutil.rmtree(mirror)
            subprocess.run(["cp", "-a", "--", root, mirror], check=True)
            killer = threading.Timer(rng.uniform(0, DELAY_MAX_S), os.kill, (pid, signal.SIGKILL))
            killer.start()
            may_be = _work_until_dead(rng, root, mirror, ever, seen)
            killer.join()
            server.wait_ended()
    with Store.open(server.store) as store:
        assert check(store, read_data=True).findings == ()
        versions = store.snapshots(source_of(NAME))
        for stored in versions:
            assert fingerprint(describe_snapshot(store, stored.snapshot.root)) in ever, f"{stored.snapshot.name} is no moment of the folder"
    print(f"seed {SEED}: {dict(seen)}, {len(versions)} versions")  # noqa: T201 (what the kills hit)
    assert seen["lost some"] >= ROUNDS // 10
    assert seen["lost nothing"] >= ROUNDS // 10
    assert len(versions) >= ROUNDS // 4


def _difference(found: Shapes, may_be: list[Shapes]) -> str:
    """What a folder has other than after any operation since the last sync: beside the one that it is most like."""
    nearest = min(may_be, key=lambda shapes: len(found.items() ^ shapes.items()))
    differs = f"{dict(found.items() - nearest.items())} and not {dict(nearest.items() - found.items())}"
    return f"not as after any operation since the last sync; most like after {may_be.index(nearest)} of {len(may_be) - 1}, but {differs}"


def _work_until_dead(rng: random.Random, root: bytes, mirror: bytes, ever: set[bytes], seen: Counter[str]) -> list[Shapes]:
    """Work in both until one is dead; what it may be then: as after any part since the last sync, those of the unfinished step included."""
    states = [describe(mirror)]
    ever.add(fingerprint(states[0]))
    for _ in range(STEPS_MAX):
        step = random_step(rng)
        failed = do(step, root)
        for part in step.parts():
            expected = do(part, mirror)
            states.append(describe(mirror))
            ever.add(fingerprint(states[-1]))
        seen["steps"] += 1
        if failed in _DEAD or (failed == errno.EIO and _is_dead(root)):
            return states
        assert failed == expected, (SEED, step, errno.errorcode.get(failed), errno.errorcode.get(expected))
        if step.syncs and not failed:
            states = states[-1:]
            seen["syncs"] += 1
    while not _is_dead(root):
        states = states[-1:]
    return states


def _is_dead(root: bytes) -> bool:
    """Whether nobody serves the folder any more; all that was done is synced otherwise."""
    sync = Step("fsync folder", b"")
    failed = do(sync, root)
    if failed == errno.EIO:  # what the kernel says of a request that somebody took and died while taking it
        failed = do(sync, root)
    assert failed in (0, *_DEAD), errno.errorcode.get(failed)
    return failed in _DEAD

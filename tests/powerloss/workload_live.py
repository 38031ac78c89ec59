# SPDX-License-Identifier: MIT
"""Work in a live folder that is mounted, in a store on the disk whose writes are logged; run by record.sh inside user-mode Linux.

usage: python -m tests.powerloss.workload_live MOUNTPOINT     with $ACK in the environment

Acknowledges the store, and after every sync the number of steps that were done by then. Versions are made all the time meanwhile.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.faults.live_work import do, random_step
from tests.faults.witness import SMALL_CHUNKS, make_batches_small
from yester.fs.live_session import Pace
from yester.fs.mounting import LiveOptions, MountOptions, serve_live
from yester.store.store import Store

SEED = 7
STEPS = 700
NAME = "work"
STORE_FOLDER = "store"
STORE_MADE = "store"
VERSIONS_MIN = 5

_MAP_BYTES = 1 << 34  # a process in user-mode Linux has an address space of 512 GiB
_PACE = Pace(0.05, 0.3, is_a_second_apart=False)


def main() -> None:
    """Serve in one process, work in another, until the work is done; unmounting makes the last version."""
    drivers = f"/usr/lib/uml/modules/{os.uname().release}/kernel/fs/fuse/fuse.ko"
    subprocess.run(["insmod", drivers], check=True)
    if not Path("/dev/fuse").exists():
        os.mknod("/dev/fuse", 0o600 | 0o020000, os.makedev(10, 229))
    make_batches_small()
    point, store_path = Path("/run/live"), Path(sys.argv[1]) / STORE_FOLDER
    point.mkdir()
    Store.create(store_path, chunking=SMALL_CHUNKS, map_bytes=_MAP_BYTES).close()
    _acknowledge(STORE_MADE)
    read_end, write_end = os.pipe()
    server = os.fork()
    if server == 0:
        with Store.open(store_path, map_bytes=_MAP_BYTES) as store:
            serve_live(store, LiveOptions(NAME, pace=_PACE), point, MountOptions(), lambda: os.close(write_end))
        os._exit(0)
    os.close(write_end)
    os.read(read_end, 1)
    _work(os.fsencode(point))
    subprocess.run(["fusermount3", "-u", point], check=True)
    assert os.waitpid(server, 0)[1] == 0
    with Store.open(store_path, map_bytes=_MAP_BYTES) as store:
        assert len(store.snapshots()) >= VERSIONS_MIN, len(store.snapshots())


def _work(root: bytes) -> None:
    rng = random.Random(SEED)
    for number in range(1, STEPS + 1):
        step = random_step(rng)
        if do(step, root) == 0 and step.syncs:
            _acknowledge(str(number))


def _acknowledge(text: str) -> None:
    """Say that something is durable now."""
    subprocess.run([os.environ["ACK"], text], check=True)


if __name__ == "__main__":
    main()

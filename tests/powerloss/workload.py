# SPDX-License-Identifier: MIT
"""Two real backups, into a store on the disk whose writes are logged; run by record.sh inside user-mode Linux.

usage: python -m tests.powerloss.workload MOUNTPOINT     with $ACK in the environment
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.witness import SMALL_CHUNKS, make_batches_small, sample_nodes, write_nodes
from yester.engine.backup import BackupOptions, back_up
from yester.store.store import Store

SEED = 2
FILES = 110
SOURCE = "sample"
STORE_FOLDER = "a/new/store"
STORE_MADE = "store"
VERSIONS = 2

_MAP_BYTES = 1 << 34  # a process in user-mode Linux has an address space of 512 GiB
_COMMITS_MIN = 40


def main() -> None:
    """Make a store and back the sample up, version by version, acknowledging the store and each snapshot."""
    make_batches_small()
    folder = Path("/run/folder")
    with Store.create(Path(sys.argv[1]) / STORE_FOLDER, chunking=SMALL_CHUNKS, map_bytes=_MAP_BYTES) as store:
        _acknowledge(STORE_MADE)
        for version in range(VERSIONS):
            write_nodes(folder, sample_nodes(SEED, version, files=FILES))
            result = back_up(store, [folder], BackupOptions(source=SOURCE))
            assert result.stored is not None
            assert not result.problems
            _acknowledge(f"{version}-{result.stored.id.hex()}")
        assert store.last_transaction() >= _COMMITS_MIN, store.last_transaction()


def _acknowledge(text: str) -> None:
    """Say that something is durable now. The text must be one word."""
    subprocess.run([os.environ["ACK"], text], check=True)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""The life of an encrypted store: backups, forgetting, pruning, compacting, changing its passphrase, in a user-mode Linux; as workload.py.

Acknowledges `made-ID` after a snapshot was published, `forgetting-ID` before one is forgotten, `forgotten-ID` after that, and
`changing-N` and `changed-N` around having the N-th passphrase open it instead of the one before. The remark of a snapshot says
which version of the sample it is of.
"""

import sys
import time
from pathlib import Path

from tests.encrypted import CHEAP
from tests.faults.witness import SMALL_CHUNKS, make_batches_small, sample_nodes, write_nodes
from tests.powerloss.workload import _MAP_BYTES, STORE_MADE, _acknowledge
from yester.engine.backup import BackupOptions, back_up
from yester.engine.prune import prune
from yester.store.compact import compact
from yester.store.slots import KeySlots, Unlock, passphrase_secret
from yester.store.store import Store

SEED = 4
FILES = 40
SOURCE = "sample"
STORE_FOLDER = "store"
VERSIONS = 6
COMPACT_AFTER = (3, 5)
"""Versions."""


def passphrase(number: int) -> str:
    """The passphrases that open the store one after the other."""
    return f"passphrase {number}"


def unlock_with(number: int) -> Unlock:
    """Opens the store with one of them."""
    return lambda locked: locked.open(passphrase_secret(passphrase(number), CHEAP))


def main() -> None:
    """Two versions are kept, the older ones forgotten; what they needed is freed at once."""
    make_batches_small()
    folder, path = Path("/run/folder"), Path(sys.argv[1]) / STORE_FOLDER
    Store.create(path, chunking=SMALL_CHUNKS, map_bytes=_MAP_BYTES, passphrase=passphrase(0), encryption=CHEAP).close()
    _acknowledge(STORE_MADE)
    for version in range(VERSIONS):
        write_nodes(folder, sample_nodes(SEED, version, files=FILES))
        with Store.open(path, map_bytes=_MAP_BYTES, unlock=unlock_with(version)) as store:
            stored = back_up(store, [folder], BackupOptions(source=SOURCE, message=str(version))).stored
            assert stored is not None
            _acknowledge(f"made-{stored.id.hex()}")
            for old in store.snapshots(SOURCE)[:-2]:
                _acknowledge(f"forgetting-{old.id.hex()}")
                store.forget([old.id], now_ns=time.time_ns())
                _acknowledge(f"forgotten-{old.id.hex()}")
            report = prune(store, grace_ns=0)
            assert bool(report.dead_chunks) == (version >= 2)
            slots = KeySlots(store.environment)
            _acknowledge(f"changing-{version + 1}")
            slots.replace(slots.list()[0].number, passphrase_secret(passphrase(version + 1), CHEAP))
            _acknowledge(f"changed-{version + 1}")
        if version in COMPACT_AFTER:
            compact(path, map_bytes=_MAP_BYTES, unlock=unlock_with(version + 1))


if __name__ == "__main__":
    main()

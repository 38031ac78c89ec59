# SPDX-License-Identifier: MIT
"""Says whether the store of workload_prune, on a disk after a power loss, has all that was not forgotten, whole.

usage: python -m tests.powerloss.verify_prune FOLDER     asked and answering as verify.py does
"""

from pathlib import Path

from tests.faults.witness import judge, sample_nodes
from tests.powerloss.verify import answer_questions
from tests.powerloss.workload_prune import FILES, SEED, STORE_FOLDER, VERSIONS, unlock_with
from yester.engine.check import check
from yester.engine.prune import prune
from yester.errors import LockedError, NotFoundError, YesterError
from yester.store.folder import COMPACT_FOLDER
from yester.store.store import Store

_VERSIONS = [sample_nodes(SEED, version, files=FILES) for version in range(VERSIONS)]


def find_problem(disk: Path, acked: list[str]) -> tuple[str, str]:
    """What is wrong, empty if nothing is; and what was found."""
    path = disk / STORE_FOLDER
    was_compacting = (path / COMPACT_FOLDER).exists()
    try:
        store = _open(path, acked)
    except NotFoundError as error:
        return (f"the store is gone: {error.message}" if acked else ""), "no store"
    except YesterError as error:
        return f"the store cannot be opened: {error!r}", "damaged"
    with store:
        if (path / COMPACT_FOLDER).exists():
            return "what a compaction left was not cleared away", "damaged"
        problem = _find_loss(store, acked) or _find_damage(store)
        found = f"{len(store.snapshots())} snapshots, {len(store.forgotten_snapshots())} forgotten"
        prune(store, grace_ns=0)
        problem = problem or _find_loss(store, acked) or _find_damage(store)
        if not problem and store.forgotten_snapshots():
            problem = "a prune left something of what was forgotten"
        return problem, "compacting" if was_compacting else found


def _open(path: Path, acked: list[str]) -> Store:
    """Open it with the passphrase that it was last given, or the one that it was about to be given."""
    changed = max((int(text.split("-")[1]) for text in acked if text.startswith("changed-")), default=0)
    try:
        return Store.open(path, unlock=unlock_with(changed))
    except LockedError:
        if f"changing-{changed + 1}" not in acked:
            raise
        return Store.open(path, unlock=unlock_with(changed + 1))


def _find_loss(store: Store, acked: list[str]) -> str:
    ids = {stored.id.hex() for stored in store.snapshots()}
    said: dict[str, set[str]] = {word: set() for word in ("made", "forgetting", "forgotten", "changing", "changed", "store")}
    for text in acked:
        word, _, id_ = text.partition("-")
        said[word].add(id_)
    if lost := said["made"] - said["forgetting"] - ids:
        return f"snapshots are gone: {lost}"
    if kept := said["forgotten"] & ids:
        return f"forgotten snapshots are back: {kept}"
    return ""


def _find_damage(store: Store) -> str:
    report = check(store, read_data=True)
    if not report.is_whole:
        return f"check says {report}"
    for stored in [*store.snapshots(), *(forgotten.stored for forgotten in store.forgotten_snapshots())]:
        judgement = judge(store, stored, _VERSIONS[int(stored.snapshot.message)])
        if not judgement.is_whole():
            return f"version {stored.snapshot.message} is not whole: {judgement.damaged} {judgement.wrong}"
    return ""


if __name__ == "__main__":
    answer_questions(find_problem)

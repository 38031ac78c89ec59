# SPDX-License-Identifier: MIT
"""Says whether a live folder, on a disk after a power loss, is as it was after some step and has all that was synced.

usage: python -m tests.powerloss.verify_live FOLDER     asked and answering as verify.py does

What it may be is known from doing the same steps to a folder of the host.
"""

import os
import random
import stat
import sys
from pathlib import Path

from tests.faults.live_work import XATTR, Shapes, describe, describe_snapshot, do, fingerprint, hash_content, random_step
from tests.powerloss.verify import answer_questions
from tests.powerloss.workload_live import NAME, SEED, STEPS, STORE_FOLDER, STORE_MADE
from yester.engine.check import check
from yester.errors import NotFoundError, YesterError
from yester.fs.live_control import carry_out
from yester.fs.live_nodes import ROOT, LiveNode
from yester.fs.live_orders import Order
from yester.fs.live_session import LiveSession, Pace, open_folder
from yester.store.live import source_of
from yester.store.store import Store


class LiveVerifier:
    """Knows what the folder was after each part of each step."""

    def __init__(self, folder: Path) -> None:
        mirror = os.fsencode(folder / "mirror")
        os.mkdir(mirror)
        rng = random.Random(SEED)
        self._prints = [fingerprint(describe(mirror))]
        self._after = [0]
        """Where in these each step was done."""
        for _ in range(STEPS):
            for part in random_step(rng).parts():
                do(part, mirror)
                self._prints.append(fingerprint(describe(mirror)))
            self._after.append(len(self._prints) - 1)

    def find_problem(self, disk: Path, acked: list[str]) -> tuple[str, str]:
        """What is wrong, empty if nothing is; and what was found."""
        try:
            store = Store.open(disk / STORE_FOLDER)
        except NotFoundError as error:
            return (f"the store is gone: {error.message}" if acked else ""), "no store"
        except YesterError as error:
            return f"the store cannot be opened: {error!r}", "damaged"
        synced = max((int(text) for text in acked if text != STORE_MADE), default=0)
        with store:
            report = check(store, read_data=True)
            if not report.is_whole:
                return f"check says {report}", "damaged"
            for stored in store.snapshots():
                if fingerprint(describe_snapshot(store, stored.snapshot.root)) not in self._prints:
                    return f"the version {stored.snapshot.name} is no moment of the folder", "damaged"
            return self._find_problem_of_folder(store, synced)

    def _find_problem_of_folder(self, store: Store, synced: int) -> tuple[str, str]:
        try:
            found = fingerprint(_describe_folder(store))
        except NotFoundError:
            return (f"the folder is gone, and step {synced} was synced" if synced else ""), "no folder"
        if found not in self._prints[self._after[synced] :]:
            what = "as it was before" if found in self._prints else "as it never was"
            return f"the folder is {what}, and step {synced} was synced", "wrong"
        carry_out(store, NAME, Order(), mount_point=None)
        latest = store.latest_snapshot(source_of(NAME))
        if latest is None or fingerprint(describe_snapshot(store, latest.snapshot.root)) != found:
            return "the next version is not what the folder is", "wrong"
        return "", "more than was synced" if self._prints[self._after[synced]] != found else "what was synced"


def _describe_folder(store: Store) -> Shapes:
    with open_folder(store, NAME) as rows:
        tree = LiveSession(store, NAME, rows, Pace()).tree
        found: Shapes = {}
        waiting: list[tuple[bytes, LiveNode]] = [(b"", tree.node(ROOT))]
        while waiting:
            path, node = waiting.pop()
            content = tree.read(node.number, 0, node.size) if stat.S_ISREG(node.mode) else node.target
            xattr = node.xattrs.get(os.fsencode(XATTR), b"")
            found[path] = node.mode, 1 if node.is_folder else node.nlink, hash_content(content), xattr
            if node.is_folder:
                waiting += [(path + b"/" + name, child) for name, child in tree.list(node.number)]
        return found


if __name__ == "__main__":
    answer_questions(LiveVerifier(Path(sys.argv[1])).find_problem)

# SPDX-License-Identifier: MIT
"""Says whether a disk after a power loss holds all that was promised before it.

usage: python -m tests.powerloss.verify FOLDER

Reads lines of JSON with `disk`, where it is mounted, and `acked`, the list of acknowledgements; answers each with a line of
JSON with `problem`, empty if all is right, and `state`, what was found. FOLDER is for its own files.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.witness import SMALL_CHUNKS, Nodes, judge, sample_nodes, write_nodes
from tests.powerloss.workload import FILES, SEED, SOURCE, STORE_FOLDER, STORE_MADE, VERSIONS
from yester.engine.backup import BackupOptions, back_up
from yester.engine.check import check
from yester.errors import NotFoundError, YesterError
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store


class Verifier:
    """Knows what was backed up, and has what the next backup will find."""

    def __init__(self, folder: Path) -> None:
        self._versions: list[Nodes] = [sample_nodes(SEED, version, files=FILES) for version in range(VERSIONS + 1)]
        self._folder = folder / "next"
        write_nodes(self._folder, self._versions[-1])

    def find_problem(self, disk: Path, acked: list[str]) -> tuple[str, str]:
        """What is wrong, empty if nothing is; and what was found."""
        path = disk / STORE_FOLDER
        try:
            store = Store.open(path)
        except NotFoundError as error:
            if acked:
                return f"the store is gone: {error.message}", "no store"
            with Store.create(path, chunking=SMALL_CHUNKS) as store:
                return self._find_problem_of_next_backup(store, []), "no store"
        except YesterError as error:
            return f"the store cannot be opened: {error!r}", "damaged"
        with store:
            found = store.snapshots(SOURCE)
            state = f"{len(found)} of {VERSIONS} snapshots"
            ids = [stored.id.hex() for stored in found]
            lost = [text for text in acked if text != STORE_MADE and text.split("-")[1] not in ids]
            if lost:
                return f"acknowledged snapshots are gone: {lost}", state
            problem = self._find_damage(store, found, self._versions, read_data=True)
            return problem or self._find_problem_of_next_backup(store, found), state

    def _find_problem_of_next_backup(self, store: Store, before: list[StoredSnapshot]) -> str:
        result = back_up(store, [self._folder], BackupOptions(source=SOURCE))
        if result.stored is None or result.problems:
            return f"the next backup has problems: {result.problems}"
        if [stored.id for stored in store.snapshots(SOURCE)] != [stored.id for stored in [*before, result.stored]]:
            return "the next backup did more than add a snapshot"
        problem = self._find_damage(store, [result.stored], self._versions[VERSIONS:], read_data=False)
        return f"after the next backup: {problem}" if problem else ""

    def _find_damage(self, store: Store, snapshots: list[StoredSnapshot], versions: list[Nodes], *, read_data: bool) -> str:
        """Ask `check`, then read every byte of the snapshots, which should be of these versions."""
        report = check(store, read_data=read_data)
        if not report.is_whole:
            return f"check says {report}"
        for version, (stored, nodes) in enumerate(zip(snapshots, versions, strict=False)):
            judgement = judge(store, stored, nodes)
            if not judgement.is_whole():
                return f"snapshot {version} is not whole: {judgement.damaged} {judgement.wrong}"
        return ""


def answer_questions(find_problem: Callable[[Path, list[str]], tuple[str, str]]) -> None:
    """Answer until there are no more."""
    for line in sys.stdin:
        question = json.loads(line)
        problem, state = find_problem(Path(question["disk"]), question["acked"])
        print(json.dumps({"problem": problem, "state": state}), flush=True)  # noqa: T201 (it is a command)


if __name__ == "__main__":
    answer_questions(Verifier(Path(sys.argv[1])).find_problem)

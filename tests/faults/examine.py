# SPDX-License-Identifier: MIT
"""Reads damaged stores in a process of its own, which may crash.

`Examiner` is for tests; it runs this module as a program:

    python -m tests.faults.examine SEED FILES VERSIONS        reads jobs, one a line, and answers with findings, one a line
"""

import logging
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Self

import msgspec

from tests.faults.sabotage import ROOT
from tests.faults.witness import Nodes, judge, sample_nodes
from yester.core.records import Snapshot
from yester.engine.check import check_path
from yester.engine.check_report import FindingKind
from yester.errors import YesterError
from yester.store.store import Store

SOURCE = "sample"
CRASHED = "crashed"
_ADDRESS_SPACE = 3 << 30
"""Of the process: whatever a damaged length says, it must not make us take more."""


class Job(msgspec.Struct, frozen=True):
    """A store to read, and the ids of its snapshots.

    `checks`: have `check --read-data` look first, and go no further if it finds damaged pages.
    """

    store: str
    ids: list[str]
    checks: bool = False


class Named(msgspec.Struct, frozen=True):
    """A path that check says is touched by damage, in snapshots from one to another."""

    path: bytes
    is_folder: bool
    first: str
    last: str


class Findings(msgspec.Struct, frozen=True):
    """What reading a store gave, by version of the sample."""

    error: str = ""
    """Opening it or listing its snapshots gave this error of ours; or `CRASHED`."""
    damaged: list[set[bytes]] = []
    """Paths that gave one of our errors."""
    wrong: list[dict[bytes, str]] = []
    """Paths that gave other bytes than were stored, and no error. Must be empty."""
    snapshots: list[Snapshot] = []
    check_found: list[str] = []
    check_named: list[Named] = []
    check_named_all: bool = True
    pages_are_damaged: bool = False
    """Check found that; nothing else was read."""


class Examiner:
    """Asks about stores, one after another. A context manager. Every version of the sample has a snapshot, in order."""

    def __init__(self, seed: int, files: int, versions: int) -> None:
        self._command = [sys.executable, "-m", "tests.faults.examine", str(seed), str(files), str(versions)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def ask(self, job: Job) -> Findings:
        """Read a store. If that ends the process, `error` is `CRASHED` and how."""
        if self._process is None:
            environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            return msgspec.msgpack.decode(bytes.fromhex(line.decode()), type=Findings)
        self._process.communicate()
        status = self._process.returncode
        self._process = None
        return Findings(f"{CRASHED} with status {status}")


def _examine(job: Job, versions: list[Nodes]) -> Findings:
    path = Path(job.store)
    found: list[str] = []
    named: list[Named] = []
    named_all = True
    try:
        if job.checks:
            report = check_path(path, read_data=True)
            found = [finding.what for finding in report.findings]
            if any(finding.kind is FindingKind.DATABASE for finding in report.findings):
                return Findings(check_found=found, pages_are_damaged=True)
            named = [
                Named(touched.path, touched.is_folder, touched.first.snapshot.name, touched.last.snapshot.name)
                for finding in report.findings
                for touched in finding.affected
            ]
            named_all = not any(finding.affected_more for finding in report.findings)
        with Store.open(path) as store:
            snapshots = store.snapshots(SOURCE)
            # A damaged snapshot record is left out of the list; a snapshot with another id is none of those that were made.
            nodes_of = dict(zip(job.ids, versions, strict=True))
            judgements = [judge(store, stored, nodes_of[stored.id.hex()]) for stored in snapshots if stored.id.hex() in nodes_of]
    except YesterError as error:
        return Findings(f"{type(error).__name__}: {error.message}", check_found=found)
    return Findings(
        damaged=[set(judgement.damaged) for judgement in judgements],
        wrong=[judgement.wrong for judgement in judgements],
        snapshots=[stored.snapshot for stored in snapshots],
        check_found=found,
        check_named=named,
        check_named_all=named_all,
    )


def main() -> None:
    """Answer until there are no more questions."""
    seed, files, versions = map(int, sys.argv[1:])
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nodes: list[Nodes] = [sample_nodes(seed, version, files=files) for version in range(versions)]
    for line in sys.stdin.buffer:
        findings = _examine(msgspec.json.decode(line, type=Job), nodes)
        print(msgspec.msgpack.encode(findings).hex(), flush=True)  # noqa: T201 (it is a program)


if __name__ == "__main__":
    main()

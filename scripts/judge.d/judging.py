# SPDX-License-Identifier: MIT
"""What a judge is, what it gets and what it returns. Nothing here runs anything."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Bench:
    """What a judge works with.

    `judged` and `host` are empty folders, of the file system that is judged and of the host's; the judge may leave things in
    both. `scratch` is a folder of the host that outlives the run, for what is worth keeping: sources, programs built from them.
    """

    judged: Path
    host: Path
    scratch: Path
    seed: int
    is_quick: bool

    def pick(self, *, quick: int, full: int) -> int:
        """How much of something to do."""
        return quick if self.is_quick else full

    def random(self, purpose: str) -> random.Random:
        """Numbers that are the same for the same seed and purpose."""
        return random.Random(f"{self.seed} {purpose}")  # noqa: S311 # nothing secret


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the judged folder does otherwise than the host's, or otherwise than a model of a file.

    `case` names it in a few words. `text` says what was seen, and enough to see it again; it may have several lines.
    Findings of one `kind` look like one mistake: only the first of them is shown, with the cases of the others.
    """

    case: str
    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says.

    `ran` is what was run, with versions and seeds, for a cell of a table. `notes` are lines of Markdown that belong below it.
    """

    ran: str
    cases: int
    findings: Sequence[Finding]
    notes: Sequence[str] = ()


class Judge(Protocol):
    """One judge: a module of this folder has the class, `__main__` the list."""

    name: str
    title: str
    """For --list: a few words."""
    packages: dict[str, str]
    """Commands that it needs, and the Debian package that brings each."""
    limit_s: float
    """A full run that takes longer than this hangs."""

    def judge(self, bench: Bench) -> Verdict:
        """Run in a process of its own, whose current folder, user and umask it may change."""

# SPDX-License-Identifier: MIT
"""Doing the same work in two folders, one after the other, and comparing what it tells."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commands import Outcome, run
from folders import remove
from judging import Bench, Finding
from steps import Actor

_SHOWN_LINES = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chore works: an empty folder, and a folder of the host with what was prepared for all of them."""

    folder: Path
    material: Path
    is_quick: bool
    environment: Mapping[str, str] = field(default_factory=dict)

    def tell(self, *words: str | Path, within: str = "", limit_s: float = 300, stdin: str = "") -> str:
        """Run a command in the folder, or in one below it; its output and how it ended, without the folder's own path."""
        outcome = self.run(*words, within=within, limit_s=limit_s, stdin=stdin)
        ending = "took too long" if outcome.status is None else f"exit status {outcome.status}"
        shown = " ".join(map(str, words)).replace(str(self.folder), "FOLDER")[:100]
        return f"{shown}: {ending}\n{outcome.output.replace(str(self.folder), 'FOLDER')}".strip()

    def run(self, *words: str | Path, within: str = "", limit_s: float = 300, stdin: str = "") -> Outcome:
        """Run a command in the folder, or in one below it."""
        return run(words, folder=self.folder / within, limit_s=limit_s, environment=self.environment, stdin=stdin)

    def describe(self, within: str = "") -> Iterator[str]:
        """All that is in the folder: types, modes, owners, links, sizes, bytes."""
        return Actor(self.folder / within).describe()


Chore = Callable[[Place], Iterator[str]]
"""Work that tells what came of it in texts that must be the same in any good folder."""


def compare(chores: Sequence[Chore], bench: Bench, *, material: Path, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Do each chore in both folders, and find where they tell something else."""
    findings = []
    for chore in chores:
        told = []
        for parent in (bench.judged, bench.host):
            folder = parent / chore.__name__
            folder.mkdir()
            told.append(_do(chore, Place(folder, material, bench.is_quick, environment or {})))
            os.chdir("/")
            remove(folder)
        judged, host = told
        if judged != host:
            findings.append(Finding(_name(chore), _show(judged, host)))
    return findings


def _do(chore: Chore, place: Place) -> list[str]:
    told = []
    try:
        for text in chore(place):
            told += text.splitlines()
    except Exception as error:  # noqa: BLE001 # what went wrong is what it tells
        told.append(f"{type(error).__name__}: {error}".replace(str(place.folder), "FOLDER"))
    return told


def _name(chore: Chore) -> str:
    return chore.__name__.replace("_", " ")


def _show(judged: Sequence[str], host: Sequence[str]) -> str:
    """The first place where they differ, with what comes before it."""
    at = next((place for place, pair in enumerate(zip(judged, host, strict=False)) if pair[0] != pair[1]), min(len(judged), len(host)))
    lines = [f"        {line}" for line in host[max(at - 3, 0) : at]]
    here, there = set(judged), set(host)
    only = [f"judged: {line}" for line in judged[at:] if line not in there][:_SHOWN_LINES]
    only += [f"host:   {line}" for line in host[at:] if line not in here][:_SHOWN_LINES]
    lines += only or [f"judged: {line}" for line in judged[at : at + 3]] + [f"host:   {line}" for line in host[at : at + 3]]
    return "\n".join(line[:300] for line in lines)

# SPDX-License-Identifier: MIT
"""The rows of the table: what is measured, in which unit, and what yester is to reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

YESTER, RESTIC, BORG, PLAIN = "yester", "restic", "borg", "plain"
"""The columns. `PLAIN` is no backup at all: the tree on its own file system, for context."""


class Unit(Enum):
    """What a value counts. MB are 10^6 bytes."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MB = "MB"
    MB_PER_S = "MB/s"
    PER_S = "/s"
    TIMES = "×"
    REQUESTS = "requests"

    def show(self, value: float) -> str:
        """A value with its unit; at least two digits that say something."""
        if self is Unit.REQUESTS:
            return f"{value:,.0f}"
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        return f"{value:,.{digits}f} {self.value}"


@dataclass(frozen=True, slots=True)
class Target:
    """Bounds for yester's value, and for yester's value divided by that of another column. All that are given must hold.

    `beside` names these columns; where it names several, it is enough that the ratio's bound holds for one of them.
    """

    at_most: float | None = None
    at_least: float | None = None
    ratio_at_most: float | None = None
    ratio_at_least: float | None = None
    beside: tuple[str, ...] = (RESTIC,)

    def show(self, unit: Unit) -> str:
        """The bounds as text; empty if there is none."""
        bounds = [
            ("≤ ", self.at_most, unit.show),
            ("≥ ", self.at_least, unit.show),
            ("≤ ", self.ratio_at_most, self._show_ratio),
            ("≥ ", self.ratio_at_least, self._show_ratio),
        ]
        return ", ".join(sign + show(bound) for sign, bound, show in bounds if bound is not None)

    def _show_ratio(self, bound: float) -> str:
        others = " or ".join(self.beside)
        return others if bound == 1 else f"{bound:g} × {others}"

    def is_reached(self, value: float | None, ratios: Mapping[str, float]) -> bool | None:
        """Whether all bounds hold; None if there is none, or if what they bound was not measured."""
        own = _is_within(value, self.at_most, self.at_least)
        if self.ratio_at_most is None and self.ratio_at_least is None:
            return own
        beside = [_is_within(ratios.get(name), self.ratio_at_most, self.ratio_at_least) for name in self.beside]
        ratio = True if True in beside else None if None in beside else False
        if self.at_most is None and self.at_least is None:
            return ratio
        return False if False in (own, ratio) else None if None in (own, ratio) else True


def _is_within(value: float | None, at_most: float | None, at_least: float | None) -> bool | None:
    """Whether a value keeps its bounds; None if there is no value or no bound."""
    if value is None or (at_most is None and at_least is None):
        return None
    return (at_most is None or value <= at_most) and (at_least is None or value >= at_least)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `id` is what `--only` takes."""

    id: str
    title: str
    unit: Unit
    target: Target = Target()


ROWS = (
    Row("backup", "first backup", Unit.SECONDS, Target(ratio_at_most=0.45)),
    Row("unchanged", "backup again, nothing changed", Unit.SECONDS, Target(ratio_at_most=0.35)),
    Row("size", "store size after it", Unit.MB, Target(ratio_at_most=0.87)),
    Row("restore", "restore by command", Unit.SECONDS, Target(ratio_at_most=0.6)),
    Row("changed", "backup again, 1 % of the files changed", Unit.SECONDS),
    Row("mount", "mount ready", Unit.SECONDS, Target(at_most=0.5)),
    Row("find", "first `find`", Unit.SECONDS, Target(ratio_at_most=0.6)),
    Row("ls", "first `ls -lR`", Unit.SECONDS, Target(ratio_at_most=0.12)),
    Row("tar", "first read of all files with `tar`", Unit.SECONDS, Target(ratio_at_most=0.25)),
    Row("tar-again", "the same again", Unit.SECONDS, Target(ratio_at_most=0.15)),
    Row("big", "cold 1 GiB file through the mount", Unit.MB_PER_S, Target(at_least=600, ratio_at_least=2)),
    Row("second", "second snapshot: data requests for its unchanged files", Unit.REQUESTS, Target(at_most=0)),
    Row("second-control", "second snapshot: data requests for its changed files", Unit.REQUESTS),
    Row("second-read", "second snapshot: time to read its unchanged files", Unit.SECONDS),
    Row("memory-backup", "peak memory of the first backup", Unit.MB, Target(at_most=250)),
    Row("memory-backup-anon", "of that, without mapped files", Unit.MB),
    Row("memory-mount", "peak memory of the mount after all of the above", Unit.MB, Target(at_most=200)),
    Row("memory-mount-anon", "at that time, without mapped files", Unit.MB),
)

SECOND_ROWS = frozenset({"second", "second-control", "second-read"})
MEMORY_MOUNT_ROWS = frozenset({"memory-mount", "memory-mount-anon"})
MOUNT_ROWS = frozenset({"mount", "find", "ls", "tar", "tar-again"}) | SECOND_ROWS | MEMORY_MOUNT_ROWS
"""Rows that one mount is made for and read through, in this order."""

FIRST_ROUND_ROWS = SECOND_ROWS | MEMORY_MOUNT_ROWS
"""Rows whose values hardly differ from round to round, and take long."""


class Results:
    """What was measured: for each row and tool a value a round, or why there is none."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], list[float]] = {}
        self.failures: dict[tuple[str, str], str] = {}

    def add(self, row: str, tool: str, value: float) -> None:
        """Record one round's value."""
        self.values.setdefault((row, tool), []).append(value)

    def fail(self, row: str, tool: str, reason: str) -> None:
        """Record that a row could not be measured; of several reasons the first is kept."""
        self.failures.setdefault((row, tool), reason)

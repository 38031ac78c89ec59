# SPDX-License-Identifier: MIT
"""The rows of the table: what is measured, in which unit, and what yester is to reach."""

from dataclasses import dataclass
from enum import Enum

YESTER, RESTIC, BORG, PLAIN = "yester", "restic", "borg", "plain"
"""The columns. `PLAIN` is no backup at all: the tree on its own file system, for context."""


class Unit(Enum):
    """What a value counts. MB are 10^6 bytes."""

    SECONDS = "s"
    MB = "MB"
    MB_PER_S = "MB/s"
    REQUESTS = "requests"

    def show(self, value: float) -> str:
        """A value with its unit; at least two digits that say something."""
        if self is Unit.REQUESTS:
            return f"{value:,.0f}"
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        return f"{value:,.{digits}f} {self.value}"


@dataclass(frozen=True, slots=True)
class Target:
    """Bounds for yester's value, and for yester's value divided by restic's. All that are given must hold."""

    at_most: float | None = None
    at_least: float | None = None
    ratio_at_most: float | None = None
    ratio_at_least: float | None = None

    def show(self, unit: Unit) -> str:
        """The bounds as text; empty if there is none."""
        bounds = [
            ("≤ ", self.at_most, unit.show),
            ("≥ ", self.at_least, unit.show),
            ("≤ ", self.ratio_at_most, "{:g} × restic".format),
            ("≥ ", self.ratio_at_least, "{:g} × restic".format),
        ]
        return ", ".join(sign + show(bound) for sign, bound, show in bounds if bound is not None)

    def is_reached(self, value: float | None, ratio: float | None) -> bool | None:
        """Whether all bounds hold; None if there is none, or if what they bound was not measured."""
        bounds = [
            (value, self.at_most, 1),
            (value, self.at_least, -1),
            (ratio, self.ratio_at_most, 1),
            (ratio, self.ratio_at_least, -1),
        ]
        checked = [(found, bound, sign) for found, bound, sign in bounds if bound is not None]
        if any(found is not None and found * sign > bound * sign for found, bound, sign in checked):
            return False
        return None if not checked or any(found is None for found, _, _ in checked) else True


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

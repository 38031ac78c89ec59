# SPDX-License-Identifier: MIT
"""The rows and columns of the table about the life of a store, and what it is to reach."""

from rows import RESTIC, YESTER, Row, Target, Unit

FRESH = "yester fresh"
"""A new store of yester: with the same last snapshots as the old one, or not encrypted."""
RESTIC_FRESH = "restic fresh"
COLUMNS = (YESTER, FRESH, RESTIC, RESTIC_FRESH)
BESIDE = (FRESH, RESTIC)

KEPT = 5
"""Snapshots that each round keeps."""


def _beside_fresh(ratio_at_most: float) -> Target:
    return Target(ratio_at_most=ratio_at_most, beside=(FRESH,))


STORE_ROWS = (
    Row("round-backup", "a round: backup with 10 % of the files changed", Unit.SECONDS),
    Row("round-prune", f"a round: keep {KEPT}, prune", Unit.SECONDS, Target(ratio_at_most=0.5)),
    Row("size-third", "store size after a third of the rounds", Unit.MB),
    Row("size-two-thirds", "after two thirds", Unit.MB),
    Row("size", "after all of them", Unit.MB, _beside_fresh(1.25)),
    Row("size-compact", "after `yester compact`, too", Unit.MB, _beside_fresh(1.25)),
    Row("compact", "`yester compact`", Unit.SECONDS),
    Row("backup", "then: backup with 10 % of the files changed", Unit.SECONDS, _beside_fresh(1.2)),
    Row("restore", "restore by command", Unit.SECONDS, _beside_fresh(1.2)),
    Row("cat", "print the largest file", Unit.SECONDS, _beside_fresh(1.2)),
    Row("ls", "list all names of a snapshot", Unit.SECONDS, _beside_fresh(1.2)),
    Row("check", "`check --read-data`", Unit.SECONDS, Target(ratio_at_most=0.5)),
    Row("check-rate", "the same, by second of processor time", Unit.MB_PER_S, Target(at_least=400)),
    Row("prune", f"all rounds at once: keep {KEPT}, prune", Unit.SECONDS, Target(ratio_at_most=0.5)),
    Row("prune-size", "store size after that", Unit.MB),
    Row("encrypted", "first backup, encrypted", Unit.SECONDS, _beside_fresh(1.15)),
)

ROUND_ROWS = frozenset({"round-backup", "round-prune"})
SIZE_ROWS = ("size-third", "size-two-thirds", "size")

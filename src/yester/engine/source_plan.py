# SPDX-License-Identifier: MIT
"""What a person wants of a source and of a store: values, wherever they are written down (`cli.config` reads them)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from yester.core.recurrence import Recurrence
from yester.core.retention import Policy

if TYPE_CHECKING:  # not loaded for whoever wants to know only the store
    from yester.engine.backup import BackupOptions
    from yester.engine.hooks import Hooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source as somebody wants it. Without `paths` it is only a policy for snapshots that are made by other means."""

    name: str
    options: "BackupOptions"
    hooks: "Hooks"
    paths: tuple[Path, ...] = ()
    store: Path | None = None
    every: str = ""
    """Empty: never by itself."""
    recurrence: Recurrence | None = None
    on_battery: bool = True
    max_age_ns: int | None = None
    """None: it cannot be too old."""
    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How often a store is looked after in runs by schedule (None: never), and which share of its data is read then."""

    every_ns: int | None
    share: float

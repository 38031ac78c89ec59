# SPDX-License-Identifier: MIT
"""How far something is that is done in steps, for those who watch it."""

from dataclasses import dataclass


@dataclass(slots=True)
class StepProgress:
    """Which step, and how much of it is done; another thread may read it at any time. `total` is 0 where it cannot be told."""

    step: str = ""
    done: int = 0
    total: int = 0

    def begin(self, step: str, total: int = 0) -> None:
        """Start a step."""
        self.step, self.done, self.total = step, 0, total

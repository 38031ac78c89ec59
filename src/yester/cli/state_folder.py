# SPDX-License-Identifier: MIT
"""Where yester keeps what it knows of this computer and what can be lost: logs, and how runs ended."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yester.engine.runs import RunBook


def state_folder() -> Path:
    """The folder; it need not be there."""
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "yester"


def run_book() -> "RunBook":
    """What this computer knows of runs by schedule."""
    from yester.engine.runs import RunBook

    return RunBook(state_folder() / "runs")

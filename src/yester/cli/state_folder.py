# SPDX-License-Identifier: MIT
"""Where yester keeps what it knows of this computer and what can be lost: logs, and how runs ended."""

import os
from pathlib import Path


def state_folder() -> Path:
    """The folder; it need not be there."""
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "yester"

# SPDX-License-Identifier: MIT
"""How something else than a terminal starts this yester: a menu, a timer."""

import os
import shutil
import sys


def own_program() -> list[str]:
    """The words that run this yester from anywhere, whatever the PATH is there."""
    found = shutil.which(sys.argv[0])
    return [os.path.abspath(found)] if found and os.path.basename(found) == "yester" else [sys.executable, "-m", "yester"]

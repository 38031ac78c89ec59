# SPDX-License-Identifier: MIT
"""How a module of ours is run in a process of its own: by a fresh interpreter, never a fork, as LMDB needs."""

import os
import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """What runs `python -m` of a module, and not one that lies in the current folder: the process may run as root."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """In which it finds the modules that this process found, and no passphrase."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("YESTER_PASSPHRASE", None)
    return environment

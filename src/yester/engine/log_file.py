# SPDX-License-Identifier: MIT
"""Logs of what nobody watched: appended to, and never large."""

import os
from pathlib import Path


def append_log(path: Path, text: str, *, bytes_max: int) -> None:
    """Add to a log, which is made if it is missing, for its owner alone. Several processes may do so at once.

    One that has grown larger than this becomes `NAME.1`, in the place of what was called so, and a new one is begun.

    Raises:
        OSError: it cannot be written.
    """
    if path.exists() and path.stat().st_size > bytes_max:
        path.replace(path.with_name(f"{path.name}.1"))
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(log, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))

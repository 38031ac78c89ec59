# SPDX-License-Identifier: MIT
"""Giving a person's own file new content in one step: whoever reads it meanwhile, or after a crash, has the old or the new one."""

import os
import secrets
from pathlib import Path

from yester.store.folder import sync_folder


def replace_file(path: Path, data: bytes, *, mode: int) -> None:
    """Give a file new content and this mode (as far as the umask lets it, if it is new). Durable on return; a symlink to it stays one.

    Raises:
        OSError: nothing was changed.
    """
    path = Path(os.path.realpath(path))
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        try:
            if path.exists():
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)

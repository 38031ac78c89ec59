# SPDX-License-Identifier: MIT
"""What this computer remembers of encrypted stores: how often their snapshots had been changed when it last saw them.

Somebody who can write to a store's file could put all of it back as it was once, which nothing in it tells (docs/security.md). The
number is kept in `$XDG_STATE_HOME/yester/stores/ID`, of each user for himself. If it cannot be kept, nothing fails.
"""

from contextlib import suppress
from pathlib import Path

from yester.cli.state_folder import state_folder
from yester.engine.replace_file import replace_file
from yester.errors import YesterError
from yester.store.store import Store


def changes_missing(store: Store) -> int:
    """How many changes of a store's snapshots this computer has seen that are not in it any more. 0 for a plain store."""
    return max(0, _recall(store) - store.changes())


def remember(store: Store) -> None:
    """Note how far an encrypted store is, if it is further than before. Nothing fails where it cannot be read any more."""
    with suppress(YesterError):
        if store.environment.key is not None and store.changes() > _recall(store):
            _note(store)


def remember_anew(store: Store) -> None:
    """Note how far an encrypted store is, even if it was further before."""
    if store.environment.key is not None:
        _note(store)


def _recall(store: Store) -> int:
    try:
        return int(_path(store).read_text("ascii"))
    except (OSError, ValueError):
        return 0


def _note(store: Store) -> None:
    path = _path(store)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, f"{store.changes()}\n".encode(), mode=0o600)


def _path(store: Store) -> Path:
    return state_folder() / "stores" / store.parameters.store_id.hex()

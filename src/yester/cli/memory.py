# SPDX-License-Identifier: MIT
"""What this computer remembers of encrypted stores: the summary of what each had when it was last seen here (`store.summary`).

Somebody who can write to a store's file could put all of it back as it was once, which nothing in it tells (docs/security.md). What is
remembered is in `$XDG_STATE_HOME/yester/stores/ID`, of each user for himself: how often the store was changed, the sum of what it had then,
and whether a store was seen since that does not go on from there. Once noted, that stays until a person accepts the store: one that is
changed on, here or elsewhere, soon has as many changes as before. If nothing can be kept, nothing fails.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from yester.cli.state_folder import state_folder
from yester.engine.replace_file import replace_file
from yester.errors import YesterError
from yester.store.store import Store

_REPLACED, _UNKNOWN = "replaced", "?"


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last that was seen of a store. `total` is in hex, empty if it is not known."""

    changes: int = 0
    total: str = ""
    is_replaced: bool = False


def replaced_problem(store: Store) -> str:
    """What is wrong if this store does not go on from what this computer last saw of it, and nobody has accepted that; else nothing.

    Nothing for a plain store.
    """
    if store.environment.key is None:
        return ""
    # Recalled first: what other processes add to the store meanwhile makes it no older.
    seen, now = _recall(store), _look(store)
    if now.changes < seen.changes:
        problem = f"is older than it was when last seen here: {seen.changes - now.changes} changes of its snapshots and keys are gone"
    elif now.changes == seen.changes and seen.total not in ("", now.total):
        problem = "has as many changes as when last seen here, but others: it was put back, and changed by somebody else"
    elif seen.is_replaced:
        problem = "was put back as it was earlier, and has been changed since; nobody here has accepted that"
    else:
        return ""
    if not seen.is_replaced:
        _note(store, _Seen(seen.changes, seen.total, is_replaced=True))
    return f"the store {store.path} {problem}"


def remember(store: Store) -> None:
    """Note how far an encrypted store is, if it goes on from what was seen before. Nothing fails where it cannot be read any more."""
    with suppress(YesterError):
        if store.environment.key is None or replaced_problem(store):
            return
        seen, now = _recall(store), _look(store)
        if now.changes > seen.changes or not seen.total:
            _note(store, now)


def remember_anew(store: Store) -> None:
    """Note how far an encrypted store is, whatever was seen before."""
    if store.environment.key is not None:
        _note(store, _look(store))


def _look(store: Store) -> _Seen:
    found = store.summary()
    return _Seen(found.changes, (found.total + found.keys).hex()) if found is not None else _Seen()


def _recall(store: Store) -> _Seen:
    try:
        words = _path(store).read_text("ascii").split()
        total = words[1] if len(words) > 1 and words[1] != _UNKNOWN else ""
        return _Seen(int(words[0]), total, _REPLACED in words[2:])
    except (OSError, ValueError, IndexError):
        return _Seen()


def _note(store: Store, seen: _Seen) -> None:
    path = _path(store)
    words = [str(seen.changes), seen.total or _UNKNOWN, *([_REPLACED] if seen.is_replaced else [])]
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, f"{' '.join(words)}\n".encode(), mode=0o600)


def _path(store: Store) -> Path:
    return state_folder() / "stores" / store.parameters.store_id.hex()

# SPDX-License-Identifier: MIT
"""Finding what a person names: `SNAP[:PATH]`, and for histories `SOURCE:PATH` or a path of this computer.

    SNAP   SOURCE              its newest snapshot
           SOURCE@latest       the same
           SOURCE@NAME         the snapshot of that name, such as 2026-11-22_10-00-00-2
           SOURCE@TIME         the newest snapshot not after that time (core.times)
           ID                  at least 4 hex digits that one snapshot's id starts with

Sources have neither `@` nor `:` in their names, so only the end of a TIME is in doubt: `docs@2026-11-22 10:30:20` has no
PATH, since the longest text that is a time is the time. A source that is called like an id wins over the id.

Reads snapshot records only, never trees: whether a path exists is not asked here.
"""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from yester.core.records import Snapshot
from yester.core.times import parse_time
from yester.errors import CorruptionError, NotFoundError, UsageError, YesterError
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

ID_DIGITS_MIN = 4
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_TIME_COLONS_MAX = 2
"""Colons a time may hold: `2026-11-22 10:30:20` has two."""
_CANDIDATES_SHOWN = 8
_NAME_LENGTH_MIN = len("2026-11-22_10-00-00")
_SEE_ALL = "list sources and snapshots with `yester snapshots`"


def resolve(store: Store, text: str, *, now_ns: int) -> tuple[StoredSnapshot, bytes]:
    """The snapshot that `SNAP[:PATH]` names, and the path relative to its root; empty for the root itself.

    PATH may also be an absolute path of the host below one of the paths that were backed up. A leading slash means that
    where it can, else nothing.

    Raises:
        UsageError: not of that form, an id that fits several snapshots, no time, or a path with `..`.
        NotFoundError: no such source or snapshot. CorruptionError: no record of the source can be read.
    """
    head, _, path = text.partition(":")
    source, at, _ = head.partition("@")
    if at:
        stored, path = _find_at(store, source, text[len(source) + 1 :], now_ns=now_ns)
    else:
        stored = _find_newest_or_id(store, source)
    return stored, inner_path(stored.snapshot, path)


def resolve_whole(store: Store, text: str, *, now_ns: int) -> StoredSnapshot:
    """The snapshot that `SNAP` names, where a PATH in it would make no sense.

    Raises:
        UsageError, NotFoundError, CorruptionError: as `resolve`; there is a PATH.
    """
    stored, path = resolve(store, text, now_ns=now_ns)
    if path:
        message = f"{text!r} names something in a snapshot, and only whole ones will do here; nothing was changed"
        raise UsageError(message, hint=f"leave the path out: {label(stored)}")
    return stored


def find_exact(candidates: Sequence[StoredSnapshot], text: str) -> StoredSnapshot | None:
    """The one of these snapshots that `SOURCE@NAME`, or at least 4 hex digits that its id starts with, names; None if there is none.

    For what changes or removes snapshots: a time is not taken, since it names another snapshot once that one is gone.

    Raises:
        UsageError: an id that fits several.
    """
    source, at, name = text.partition("@")
    if at:
        return next((stored for stored in candidates if (stored.snapshot.source, stored.snapshot.name) == (source, name)), None)
    if not may_be_exact(text):
        return None
    return _only_one([stored for stored in candidates if stored.id.hex().startswith(text.lower())], text)


def may_be_exact(text: str) -> bool:
    """Whether `find_exact` could find anything by this text, in any store."""
    return "@" in text or (len(text) >= ID_DIGITS_MIN and not set(text) - _HEX_DIGITS)


def find_history_targets(store: Store, path: str, cwd: Path) -> list[tuple[str, bytes]]:
    """The sources, and the paths in them, whose histories show the past of what a person names.

    `path` is `SOURCE:PATH`, or a path of this computer (relative ones from `cwd`, itself absolute) that is or lies below
    something that was backed up; it need not exist any more. A source appears more than once if the place in it has
    changed, as when a second folder was added to it; what its newer snapshots say comes first. Symlinks are followed
    only if nothing was found without. 3 µs a snapshot.

    Raises:
        UsageError: empty, or `..` in the path inside a source.
        NotFoundError: no source has it.
    """
    if not path:
        message = "no path was named"
        raise UsageError(message)
    source, colon, inner = path.partition(":")
    if colon and source in store.sources():
        latest = store.latest_snapshot(source)
        if latest is not None:
            return [(source, inner_path(latest.snapshot, inner))]
    snapshots = [stored.snapshot for stored in reversed(store.snapshots())]
    absolute = os.path.abspath(os.path.join(cwd, path))
    resolved = os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute))
    for host_path, follow in ((absolute, False), (resolved, True)):
        parts = _split(os.fsencode(host_path))
        found = {(snapshot.source, inner): None for snapshot in snapshots for inner in _places_of(snapshot, parts, follow=follow)}
        if found:
            return sorted(found, key=lambda target: target[0])
    message = f"no source has {absolute}"
    if path in store.sources():
        raise NotFoundError(message, hint=f"for everything in the source write {path}:")
    raise NotFoundError(message, hint=f"name it as SOURCE:PATH; {_SEE_ALL}")


def find_pinned(store: Store, source: str) -> list[StoredSnapshot]:
    """The snapshots of a source that are pinned, oldest first.

    Raises:
        NotFoundError: the store has no such source.
    """
    listing = store.listing(source)
    if not listing.snapshots:
        raise source_not_found(store, source)
    return [stored for stored in listing.snapshots if stored.id in listing.pins]


def source_not_found(store: Store, source: str) -> NotFoundError:
    """The error for a source, or whatever it was meant to be, that the store does not have."""
    if any(forgotten.stored.snapshot.source == source for forgotten in store.forgotten_snapshots()):
        message = f"all snapshots of {source!r} in {store.path} were forgotten"
        return NotFoundError(message, hint=f"`yester undelete {source}` brings them back; `yester snapshots --forgotten` lists them")
    sources = store.sources()
    near = difflib.get_close_matches(source, sources, n=3, cutoff=0.5)
    message = f"there is no source {source!r} in {store.path}"
    if near:
        return NotFoundError(message, hint=f"is it {' or '.join(near)}? {_SEE_ALL}")
    if not sources:
        return NotFoundError(message, hint="the store has no snapshots yet: make one with `yester backup`")
    return NotFoundError(message, hint=_SEE_ALL)


def _find_newest_or_id(store: Store, name: str) -> StoredSnapshot:
    if not name:
        message = "no snapshot was named"
        raise UsageError(message, hint=f"write SOURCE, SOURCE@TIME or the start of an id; {_SEE_ALL}")
    if name in store.sources():
        return _newest(store, name)
    if set(name) - _HEX_DIGITS:
        raise source_not_found(store, name)
    if len(name) < ID_DIGITS_MIN:
        message = f"there is no source {name!r} in {store.path}, and an id needs at least {ID_DIGITS_MIN} digits"
        raise NotFoundError(message, hint=_SEE_ALL)
    found = _only_one(store.find_snapshots_by_id(name), name)
    if found is None:
        _refuse_forgotten(store, name)
        message = f"there is neither a source nor a snapshot id {name!r} in {store.path}"
        raise NotFoundError(message, hint=_SEE_ALL)
    return found


def _refuse_forgotten(store: Store, text: str) -> None:
    """Raises NotFoundError if `text` names a forgotten snapshot, as `find_exact` reads it."""
    forgotten = find_exact([found.stored for found in store.forgotten_snapshots()], text)
    if forgotten is not None:
        message = f"the snapshot {label(forgotten)} was forgotten"
        raise NotFoundError(message, hint=f"`yester undelete {text}` brings it back; a mount shows it in its folder `forgotten`")


def _only_one(found: Sequence[StoredSnapshot], digits: str) -> StoredSnapshot | None:
    """What these digits of an id fit; None for nothing. Raises UsageError for several."""
    if len(found) > 1:
        shown = [f"{stored.id.hex()[: len(digits) + 8]} ({label(stored)})" for stored in found[:_CANDIDATES_SHOWN]]
        more = [f"and {len(found) - len(shown)} more"] if len(found) > len(shown) else []
        message = f"{digits!r} is the start of {len(found)} snapshot ids: {', '.join(shown + more)}"
        raise UsageError(message, hint="write more digits of the one you mean")
    return found[0] if found else None


def _find_at(store: Store, source: str, rest: str, *, now_ns: int) -> tuple[StoredSnapshot, str]:
    """The snapshot of what follows `SOURCE@`, and the path that follows it."""
    if source not in store.sources():
        raise source_not_found(store, source)
    which, _, path = rest.partition(":")
    if which == "latest":
        return _newest(store, source), path
    for stored in store.snapshots(source):
        if stored.snapshot.name == which:
            return stored, path
    if len(which) >= _NAME_LENGTH_MIN:
        # Read as a time, it would name the one before, and a restore would bring that without a word.
        _refuse_forgotten(store, f"{source}@{which}")
    until_ns, path = _parse_time_and_path(rest, now_ns=now_ns)
    found = store.snapshot_at(source, until_ns)
    if found is None and not store.snapshots(source):
        raise _none_readable(store, source)
    if found is None:
        oldest = next((f"; its oldest is {stored.snapshot.name}" for stored in store.snapshots(source)), "")
        message = f"{source!r} has no snapshot from {which!r} or before it{oldest}"
        raise NotFoundError(message, hint=_SEE_ALL)
    return found, path


def _parse_time_and_path(rest: str, *, now_ns: int) -> tuple[int, str]:
    """The last nanosecond of the time at the start of `rest`, and what follows it after a colon."""
    pieces = rest.split(":")
    error: UsageError | None = None
    for count in range(min(len(pieces), _TIME_COLONS_MAX + 1), 0, -1):
        try:
            return parse_time(":".join(pieces[:count]), now_ns=now_ns), ":".join(pieces[count:])
        except UsageError as not_a_time:
            error = not_a_time
    assert error is not None
    raise error


def _newest(store: Store, source: str) -> StoredSnapshot:
    stored = store.latest_snapshot(source)
    if stored is None:
        raise _none_readable(store, source)
    return stored


def _none_readable(store: Store, source: str) -> YesterError:
    """The error for a source that had snapshots a moment ago, of which none can be read."""
    if source in store.sources():
        message = f"the records of all snapshots of {source!r} in {store.path} are damaged, or of a newer release"
        return CorruptionError(message, hint="run `yester check`; `yester repair` keeps the folders that damaged records named")
    message = f"the snapshots of {source!r} were removed meanwhile"
    return NotFoundError(message, hint=_SEE_ALL)


def label(stored: StoredSnapshot) -> str:
    """A snapshot as `SOURCE@NAME`."""
    return f"{stored.snapshot.source}@{stored.snapshot.name}"


def inner_path(snapshot: Snapshot, text: str) -> bytes:
    """PATH as a snapshot has it: relative to its root, without needless slashes and dots."""
    raw = os.fsencode(text)
    parts = _split(raw)
    if b".." in parts:
        message = f"{text!r} leads out of folders with '..'"
        raise UsageError(message, hint="write the path from the root of the snapshot")
    if raw.startswith(b"/"):
        for place in _places_of(snapshot, parts, follow=False):
            return place
    return b"/".join(parts)


def _split(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _places_of(snapshot: Snapshot, host_path: list[bytes], *, follow: bool) -> Iterator[bytes]:
    """Where in a snapshot a path of its host is, given as its components; that of the innermost backed-up path first.

    With `follow`, symlinks on the way to the backed-up paths are followed as they are on this computer now.
    """
    bases = [_split(os.path.realpath(path) if follow else path) for path in snapshot.paths]
    for base in sorted(bases, key=len, reverse=True):
        if host_path[: len(base)] == base:
            name = base[-1:] if snapshot.is_root_made_up else []
            yield b"/".join(name + host_path[len(base) :])

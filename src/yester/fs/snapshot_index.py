# SPDX-License-Identifier: MIT
"""The names of sources and snapshots that the snapshot mount shows.

Reads no more than is asked for, and that once until the set of snapshots changes: a mount asks for the same names very often.

Threads: as `fs.view`.
"""

import logging
import os

from yester.core.records import ANY_XATTR, Entry, is_valid_name
from yester.store.live import LIVE_PREFIX
from yester.store.store import Store

_log = logging.getLogger(__name__)


class SnapshotIndex:
    """The names of sources and snapshots, read again when a snapshot was added or removed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._generation = -1
        self._sources: list[str] | None = None
        self._roots: dict[str, dict[bytes, Entry]] = {}
        self._forgotten: dict[str, dict[bytes, Entry]] | None = None
        self._xattr_names: frozenset[bytes] | None = None

    def generation(self) -> int:
        """Differs from what it was whenever the set of snapshots does. About 2 µs."""
        generation = self._store.snapshots_generation()
        if generation != self._generation:
            self._generation = generation
            self._sources = self._forgotten = self._xattr_names = None
            self._roots = {}
        return generation

    def sources(self) -> list[str]:
        """All sources, sorted."""
        self.generation()
        if self._sources is None:
            self._sources = [source for source in self._store.sources() if _may_show_source(source)]
        return self._sources

    def roots(self, source: str) -> dict[bytes, Entry]:
        """A source's snapshots by name, oldest first, each with its root directory. 3 µs a snapshot the first time."""
        self.generation()
        roots = self._roots.get(source)
        if roots is None:
            named = ((os.fsencode(found.snapshot.name), found.snapshot.root) for found in self._store.snapshots(source))
            roots = self._roots[source] = {name: root for name, root in named if _may_show(name)}
        return roots

    def forgotten_sources(self) -> list[str]:
        """All sources with forgotten snapshots, sorted."""
        return sorted(self._load_forgotten())

    def forgotten_roots(self, source: str) -> dict[bytes, Entry]:
        """A source's forgotten snapshots by name, oldest first, each with its root directory."""
        return self._load_forgotten().get(source, {})

    def may_have_xattr(self, name: bytes) -> bool:
        """Whether any file of any snapshot, forgotten or not, can have an extended attribute of this name."""
        self.generation()
        if self._xattr_names is None:
            forgotten = [found.stored for found in self._store.forgotten_snapshots()]
            self._xattr_names = frozenset(name for found in (*self._store.snapshots(), *forgotten) for name in found.snapshot.xattr_names)
        return name in self._xattr_names or ANY_XATTR in self._xattr_names

    def _load_forgotten(self) -> dict[str, dict[bytes, Entry]]:
        self.generation()
        if self._forgotten is None:
            self._forgotten = {}
            for found in self._store.forgotten_snapshots():
                snapshot = found.stored.snapshot
                name = os.fsencode(snapshot.name)
                if _may_show_source(snapshot.source) and _may_show(name):
                    self._forgotten.setdefault(snapshot.source, {})[name] = snapshot.root
        return self._forgotten


def _may_show_source(source: str) -> bool:
    return _may_show(os.fsencode(source.removeprefix(LIVE_PREFIX)))


def _may_show(name: bytes) -> bool:
    """Whether a name from the store may be given to the kernel, which answers EIO for a whole folder with one that may not."""
    if not is_valid_name(name):
        _log.error("a source or snapshot is left out: %r is not a name", name)
        return False
    return True

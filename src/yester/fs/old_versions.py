# SPDX-License-Identifier: MIT
"""`.snapshots`: the versions of each folder of a live folder, where one works (docs/adr/0007).

    <folder>/.snapshots/<YYYY-MM-DD_HH-MM-SS>/…     the folder as it was, newest first; only versions in which it differs

It is found by name in every folder and listed in none. A version is found by the path that the folder has now. Two versions of one
second get names of two seconds, the second one that of the next that is free: Samba reads them as times.

Inode numbers here begin where those of live nodes end, so no old file is ever taken for a live one.
"""

import os
import stat
from collections.abc import Callable, Iterable
from typing import Final

from yester.core.node_table import NUMBER_MAX
from yester.core.records import Entry
from yester.core.times import snapshot_name
from yester.engine.history import PathHistory
from yester.engine.trees import TreeReader
from yester.fs.view import Folder, HistoryFolder, Inode, Node, Presentation, View
from yester.store.store import Store

SNAPSHOTS_NAME = b".snapshots"
ROOT_INODE = Inode(NUMBER_MAX + 1)
_SECOND_NS = 10**9


class OldVersions(Folder):
    """The root of all `.snapshots`, which nobody sees: it has one by the number of each live folder."""

    __slots__ = ("path_of", "source")
    grows = True

    def __init__(self, source: str, path_of: Callable[[int], bytes]) -> None:
        """`path_of` gives the path of a live folder by its number."""
        super().__init__(ROOT_INODE, None, b"")
        self.source: Final = source
        self.path_of: Final = path_of

    def list(self, view: View) -> Iterable[tuple[bytes, Entry | None]]:
        return []

    def has(self, view: View, name: bytes) -> bool:
        return True

    def make(self, view: View, inode: Inode, name: bytes) -> Node:
        return FolderVersions(inode, self, name, self.source, lambda: self.path_of(int(name)))


class FolderVersions(HistoryFolder):
    """`.snapshots` of one folder."""

    __slots__ = ("_history", "_loaded_path", "_path_of", "_source")

    def __init__(self, inode: Inode, parent: OldVersions, name: bytes, source: str, path_of: Callable[[], bytes]) -> None:
        super().__init__(inode, parent, name)
        self._source: Final = source
        self._path_of: Final = path_of
        self._loaded_path = b""
        self._history: PathHistory | None = None

    def is_loaded(self, view: View) -> bool:
        path, self._loaded_path = self._loaded_path, self._path_of()
        if path != self._loaded_path:
            self._history = None
        return self._history is not None and super().is_loaded(view)

    @property
    def path(self) -> bytes:
        return b"/".join(filter(None, (self._path_of(), SNAPSHOTS_NAME)))

    def find_content(self, view: View, trees: TreeReader) -> dict[bytes, Entry | None]:
        content: dict[bytes, Entry | None] = {}
        history = self._history or PathHistory(view.store, trees, self._source, self._loaded_path)
        self._history = history
        for version in history.update():
            if version.entry is None or not stat.S_ISDIR(version.entry.mode):
                continue
            time_ns = version.first.snapshot.time_ns
            while (name := os.fsencode(snapshot_name(time_ns))) in content:
                time_ns += _SECOND_NS
            content[name] = version.entry
        return dict(reversed(content.items()))


def open_versions(store: Store, source: str, path_of: Callable[[int], bytes]) -> View:
    """The view of all `.snapshots` of a live folder."""
    return View(store, Presentation(os.geteuid(), os.getegid()), OldVersions(source, path_of))


def versions_of(view: View, number: int) -> Node:
    """`.snapshots` of the live folder with this number."""
    return view.synthetic(view.root, b"%d" % number)

# SPDX-License-Identifier: MIT
"""A real folder that is backed up again and again, with a clock of its own."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.engine.planting import SECOND_NS
from yester.core.chunking import ChunkParams
from yester.core.records import Entry
from yester.engine.backup import BackupOptions, BackupResult, back_up
from yester.engine.files import FileReader
from yester.engine.trees import TreeReader
from yester.store.snapshots import StoredSnapshot
from yester.store.store import Store

both_kinds = pytest.mark.parametrize("store", [False, True], ids=["plain", "encrypted"], indirect=True)
"""A test that is done with a plain store, and with an encrypted one."""


def children() -> set[int]:
    """Processes that this one started and that are not gone."""
    return {int(number) for task in Path("/proc/self/task").iterdir() for number in (task / "children").read_text().split()}


class MakeStore(Protocol):
    """Makes a store; it is closed and, unless it `may_be_damaged`, checked when the test is over."""

    def __call__(
        self, name: str = "store", *, chunking: ChunkParams | None = None, may_be_damaged: bool = False, is_encrypted: bool = False
    ) -> Store:
        """Make it in a folder of that name."""
        ...


@dataclass(slots=True)
class Sandbox:
    """Backs `folder` up into `store`, every run a minute after the one before.

    The runs' clock is an hour ahead, so that whatever was written before a run is older than it by more than any tick of
    a clock: a file that is not touched again is unchanged for the next run. `is_now` is for tests of just that.
    """

    store: Store
    folder: Path
    now_ns: int
    is_now: bool = False
    results: list[BackupResult] = field(default_factory=list)

    def back_up(self, *paths: Path, **options: Any) -> BackupResult:  # noqa: ANN401 (as `BackupOptions` has them)
        """Back up, by default the whole folder as source `docs`."""
        self.now_ns += 60 * SECOND_NS
        named: dict[str, Any] = {"source": "docs"}
        result = back_up(self.store, paths or (self.folder,), BackupOptions(**named | options))
        self.results.append(result)
        return result

    def write(self, name: str | bytes, data: bytes = b"") -> Path:
        """Write a file below the folder, and its folders; its ctime is another than before, however soon this comes."""
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        before_ns = path.lstat().st_ctime_ns if path.exists() else 0
        path.write_bytes(data)
        while path.lstat().st_ctime_ns == before_ns:
            os.utime(path)
        return path

    def read(self, path: str | bytes, result: BackupResult | StoredSnapshot | None = None) -> bytes:
        """A file's bytes in the snapshot of a run; of the newest if none is named."""
        entry = self.entry(path, result)
        return bytes(FileReader(self.store.reader(), entry.file_content, entry.size).read(0, entry.size))

    def entry(self, path: str | bytes, result: BackupResult | StoredSnapshot | None = None) -> Entry:
        """The entry at a path."""
        root = (result or self.results[-1]).snapshot.root
        return TreeReader(self.store.reader()).get(root, os.fsencode(path))

    def names(self, path: str | bytes = b"", result: BackupResult | StoredSnapshot | None = None) -> list[bytes]:
        """The names in a folder."""
        return [entry.name for entry in TreeReader(self.store.reader()).read(self.entry(path, result).tree).entries]

    def problems(self) -> list[tuple[bytes, str]]:
        """Those of the newest run: paths relative to the folder, and reasons."""
        prefix = os.fsencode(self.folder) + b"/"
        return [(problem.path.removeprefix(prefix), problem.reason) for problem in self.results[-1].problems]

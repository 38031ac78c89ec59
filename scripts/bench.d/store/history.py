# SPDX-License-Identifier: MIT
"""The source of the rounds: a copy of the tree in which every round changes a tenth of the files, the same ones in each run."""

import random
import shutil
import subprocess
from pathlib import Path

from datasets import DataSets, change_file

_CHANGED_SHARE = 0.1


class History:
    """A tree that changes from round to round."""

    def __init__(self, data: DataSets, folder: Path) -> None:
        """Copies the tree to `folder`."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", data.tree, folder], check=True)
        self.tree = folder
        self.entries = data.contents.entries
        self._names = sorted({*data.changed_names, *data.unchanged_names})
        self._round = 0

    @property
    def largest(self) -> str:
        """The largest file, as a path in the tree."""
        return max(self._names, key=lambda name: ((self.tree / name).stat().st_size, name))

    def go_on(self) -> None:
        """The next round: by turns, bytes in the middle of a file are replaced, and bytes are appended."""
        self._round += 1
        chosen = random.Random(self._round).sample(self._names, round(_CHANGED_SHARE * len(self._names)))  # noqa: S311 (data, no secret)
        for number, name in enumerate(chosen):
            change_file(self.tree / name, number, f"round {self._round}")

# SPDX-License-Identifier: MIT
"""`yester cat`."""

import stat
import sys
import time
from pathlib import Path

import click

from yester.cli.options import SnapshotName, open_store, store_option
from yester.cli.output import show_name
from yester.engine.files import iter_pieces
from yester.engine.select import resolve
from yester.engine.trees import TreeReader
from yester.errors import UsageError

_ZEROS = bytes(1 << 20)


@click.command("cat")
@click.argument("snap", metavar="SNAP:PATH", type=SnapshotName())
@store_option
def command(snap: str, store_path: Path) -> None:
    """Print a file of a snapshot to standard output.

    \b
    Examples:
      yester cat Documents:letters/to-ann.txt
      yester cat Documents@2026-11-01:letters/to-ann.txt | diff - letters/to-ann.txt

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    with open_store(store_path) as store:
        chunks = store.reader()
        stored, path = resolve(store, snap, now_ns=time.time_ns())
        entry = TreeReader(chunks).get(stored.snapshot.root, path)
        if not stat.S_ISREG(entry.mode):
            message = f"{show_name(path) or snap} is not a file"
            raise UsageError(message, hint="`yester ls` lists folders and shows where symlinks point")
        out = sys.stdout.buffer
        for length, data in iter_pieces(chunks, entry.file_content):
            if data is not None:
                out.write(data)
                continue
            for start in range(0, length, len(_ZEROS)):
                out.write(_ZEROS[: length - start])
        out.flush()

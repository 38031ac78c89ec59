# SPDX-License-Identifier: MIT
"""`yester compact`."""

from pathlib import Path

import click

from yester.cli.options import json_option, open_store, store_option
from yester.cli.output import print_json, show_size
from yester.cli.passphrases import Unlocker
from yester.store.compact import compact


@click.command("compact")
@store_option
@json_option
def command(store_path: Path, as_json: bool) -> None:
    """Make the store's file as small as what is in it: write it anew beside the old one, and let it take its place.

    Needs room for the new file, and the store alone: unmount what is mounted first. If it is interrupted the old file stays.

    \b
    Examples:
      yester prune && yester compact

    Exit status: 0 done, 1 failed (nothing was changed), 2 wrong usage.
    """
    unlocker = Unlocker()
    open_store(store_path, unlock=unlocker, is_written=True).close()
    done = compact(store_path, unlock=unlocker)
    if as_json:
        print_json({"before_bytes": done.before_bytes, "after_bytes": done.after_bytes})
    else:
        print(f"the store's file takes {show_size(done.after_bytes)} now; it took {show_size(done.before_bytes)}")

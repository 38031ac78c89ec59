# SPDX-License-Identifier: MIT
"""`yester init`."""

from pathlib import Path

import click

from yester.cli.options import store_option
from yester.cli.passphrases import given_passphrase, new_passphrase
from yester.store.store import Store


@click.command("init")
@click.option("--encrypt", is_flag=True, help="Encrypt all that will be stored; without the passphrase nobody can read it, you neither.")
@store_option
def command(encrypt: bool, store_path: Path) -> None:
    """Make an empty store. `yester backup` does this by itself on first use, but only one that is not encrypted.

    A store is encrypted from the beginning or never. The passphrase is asked for twice, or comes from --passphrase-file,
    --passphrase-command or $YESTER_PASSPHRASE. Print a recovery key (`yester key export`) for the day on which it is forgotten.

    \b
    Examples:
      yester init
      yester init --encrypt --store /media/disk/yester

    Exit status: 0 made, 1 failed (there is one already, or the folder is not empty), 2 wrong usage.
    """
    if not encrypt:
        Store.create(store_path).close()
        click.echo(f"made an empty store in {store_path}", err=True)
        return
    passphrase = given_passphrase()
    Store.create(store_path, passphrase=passphrase if passphrase is not None else new_passphrase(None, question="passphrase")).close()
    click.echo(f"made an empty, encrypted store in {store_path}", err=True)
    click.echo("hint: if the passphrase is lost, so is all that is stored; `yester key export` prints a recovery key", err=True)

# SPDX-License-Identifier: MIT
"""The command group, and the one place where errors become messages and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some files were skipped (docs/cli.md); 130 interrupted.

Subcommands are imported when they run: `yester --help` must not pay for trio and LMDB.
"""

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from yester.cli.output import print_error
from yester.errors import NotFoundError, StoreAccessError, UsageError, YesterError

INTERRUPTED = 130

COMMANDS = {
    "init": "Make an empty store.",
    "key": "Manage what opens an encrypted store.",
    "backup": "Back up folders into a new snapshot.",
    "snapshots": "List snapshots.",
    "ls": "List a folder of a snapshot.",
    "cat": "Print a file of a snapshot.",
    "log": "Show the history of one file.",
    "find": "Find files in all snapshots by name.",
    "diff": "Compare two snapshots.",
    "restore": "Copy files out of a snapshot.",
    "mount": "Show all snapshots as folders.",
    "live": "Mount a working folder that keeps every version.",
    "snapshot": "Make a version of a live folder now.",
    "rewind": "Make a live folder as it was at a time.",
    "status": "Show how old backups are, live folders and mounts.",
    "umount": "End a mount.",
    "schedule": "Have sources backed up by themselves.",
    "policy": "Say what to keep of snapshots.",
    "config": "Edit and check the configuration.",
    "desktop": 'Put "Previous versions" into menus of file managers.',
    "forget": "Thin snapshots out by a policy, or forget single ones.",
    "undelete": "Have forgotten snapshots back.",
    "pin": "Keep snapshots from being forgotten.",
    "unpin": "Let snapshots be forgotten again.",
    "stats": "Show what the store holds and takes.",
    "check": "Look for damage in the store.",
    "repair": "Put back what is damaged in the store.",
    "prune": "Free the space of what was forgotten.",
    "compact": "Make the store's file as small as what is in it.",
}
"""Each in `yester.cli.command_<name>`."""


class CommandGroup(click.Group):
    """Finds subcommands in `COMMANDS` and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"yester.cli.command_{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "config_file", metavar="FILE", default=None, help="Use another configuration.")
@click.version_option(package_name="yester")
def cli(config_file: str | None) -> None:  # options.current_config_path asks for it
    """Keep every version of your files, and see them as ordinary folders.

    \b
    Examples:
      yester backup ~/Documents            back a folder up (makes the store on first use)
      yester mount ~/Snapshots             then look into ~/Snapshots with any file manager
      yester log ~/Documents/report.odt    the versions of one file

    The store is --store DIR, else $YESTER_STORE, else what the configuration says, else ~/.local/share/yester/store. The configuration is
    --config FILE, else $YESTER_CONFIG, else ~/.config/yester/config.toml; this last need not be there.

    Shell completion: eval "$(_YESTER_COMPLETE=bash_source yester)" in ~/.bashrc (zsh_source, fish_source for others).

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 done but some files were skipped.
    """


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.exit(_run())


def _run() -> int:
    as_json = "--json" in sys.argv[1:]
    _prepare_output()
    try:
        result = cli.main(prog_name="yester", standalone_mode=False)
        sys.stdout.flush()
    except YesterError as error:
        print_error(error, as_json=as_json)
        return error.exit_code
    except click.ClickException as error:
        if as_json:
            print_error(UsageError(error.format_message()), as_json=True)
        else:
            error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("yester: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # Its reader went away, as `head` does.
        return 1
    except OSError as error:
        print_error(_as_ours(error), as_json=False)
        _drop_output()
        return 1
    return result if isinstance(result, int) else 0


def _prepare_output() -> None:
    """Let no name stop a command: what the terminal cannot show is escaped, and a closed stream takes everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (until this process ends)
        else:
            stream.reconfigure(errors="backslashreplace")


def _as_ours(error: OSError) -> YesterError:
    """The error for a system call that nobody expected to fail: of the output, or for want of a current folder."""
    what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    try:
        os.getcwd()
    except FileNotFoundError:
        return NotFoundError("the folder this command was started in is not there any more", hint="change to another folder: cd")
    return StoreAccessError(
        f"the operating system refused: {what}{error.strerror or error}", hint="see what stands above, if anything, for what was done"
    )


def _drop_output() -> None:
    """Keep Python from writing at its exit what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

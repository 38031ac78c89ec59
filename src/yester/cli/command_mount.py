# SPDX-License-Identifier: MIT
"""`yester mount`."""

import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from yester.cli.options import HostPath, store_option
from yester.cli.output import print_error
from yester.cli.tuning import MIB, tune_process
from yester.errors import MountError, YesterError
from yester.store.store import Store

_LOG_BYTES_MAX = 1 << 20


@click.command("mount")
@click.argument("mount_point", metavar="MNT", type=HostPath())
@click.option("--foreground", "-f", is_flag=True, help="Serve in this process until it is unmounted or interrupted.")
@click.option("--allow-other", is_flag=True, help="Let other users in (file permissions still hold).")
@click.option("--as-me", is_flag=True, help="Show everything as owned and readable by you.")
@click.option(
    "--log",
    "log_file",
    metavar="FILE",
    type=HostPath(),
    default=None,
    help="Where the mount reports damage. Default: ~/.local/state/yester/mount.log; stderr with -f.",
)
@store_option
def command(mount_point: Path, foreground: bool, allow_other: bool, as_me: bool, log_file: Path | None, store_path: Path) -> None:
    """Show all snapshots as folders below MNT, an empty folder. Copying a file out restores it.

    \b
    MNT/snapshots/SOURCE/TIME/…         every snapshot; `latest` is the newest
    MNT/at/WHEN/SOURCE/…                as it was at a time: 2026-11-22, yesterday, 2h …
    MNT/versions/SOURCE/PATH/           the distinct versions of one file

    New snapshots appear while it is mounted. End it with `yester umount MNT`.

    \b
    Examples:
      mkdir -p ~/Snapshots && yester mount ~/Snapshots
      cp ~/Snapshots/at/yesterday/Documents/report.odt .

    Exit status: 0 mounted and serving, 1 failed, 2 wrong usage.
    """
    # Everything that can be refused is refused before the fork, where the person sees it.
    try:
        from yester.fs.mounting import MountOptions, check_fuse, prepare_mount_point
    except ImportError as error:
        message = f"FUSE cannot be used: {error}; nothing was mounted"
        raise MountError(message, hint="install the packages fuse3 and libfuse3-3 (apt-get install fuse3), then yester again") from error
    options = MountOptions(allow_other=allow_other, as_me=as_me)
    store_path = Path(os.path.abspath(store_path))  # the process that serves leaves the folder it was started in
    check_fuse(options)
    resolved = prepare_mount_point(mount_point, store_path)
    if foreground:
        _start_log(log_file)
        _serve(store_path, resolved, options, ready=None)
        return
    log_file = log_file or _default_log()
    read_end, write_end = os.pipe()
    # The store is opened after the fork: LMDB environments do not survive one.
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _become_daemon(store_path, resolved, options, log_file, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    if said != _READY:
        _, status = os.waitpid(child, 0)
        if said:
            raise SystemExit(os.waitstatus_to_exitcode(status))
        message = f"the process that should serve {mount_point} ended before it did; nothing is mounted"
        raise MountError(message, hint=f"its log is {log_file}")
    os.statvfs(resolved)


_READY = b"ready"


def _become_daemon(store_path: Path, mount_point: Path, options: object, log_file: Path, ready: int) -> NoReturn:
    """The child: leave the terminal, serve, and never return. Errors before it serves still go to the terminal."""
    code = 1
    try:
        os.setsid()
        # What the shell has open besides, a lock perhaps, must not stay open for as long as the mount lives.
        os.closerange(3, ready)
        os.closerange(ready + 1, os.sysconf("SC_OPEN_MAX"))
        _start_log(log_file)
        _serve(store_path, mount_point, options, ready=ready)
        code = 0
    except YesterError as error:
        print_error(error, as_json=False)
        os.write(ready, b"failed")
        code = error.exit_code
    except BaseException:
        logging.getLogger("yester").exception("the mount of %s ended unexpectedly", mount_point)
        raise
    finally:
        os._exit(code)


def _serve(store_path: Path, mount_point: Path, options: object, ready: int | None) -> None:
    from yester.fs.mounting import MountOptions, serve

    assert isinstance(options, MountOptions)

    def on_ready() -> None:
        tune_process(kept_bytes=4 * MIB)
        if ready is not None:
            _detach()
            os.write(ready, _READY)
            os.close(ready)

    with Store.open(store_path) as store:
        serve(store, mount_point, options, on_ready)


def _detach() -> None:
    """Let go of the terminal and of the folder the command was run in."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _default_log() -> Path:
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state_home) / "yester" / "mount.log"


def _start_log(log_file: Path | None) -> None:
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if log_file is not None:
        try:
            log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handler = logging.handlers.RotatingFileHandler(
                log_file, maxBytes=_LOG_BYTES_MAX, backupCount=1, encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            print(f"yester: cannot write the log {log_file}: {error.strerror}; damage will not be reported there", file=sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("yester").addHandler(handler)

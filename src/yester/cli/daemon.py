# SPDX-License-Identifier: MIT
"""Serving a mount: in the foreground, or in a process of its own that the command leaves behind once it serves.

Everything that can be refused is refused before the fork, where the person sees it; what goes wrong before it serves still reaches
the terminal. The store is opened after the fork: LMDB environments do not survive one.
"""

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from yester.cli.options import HostPath
from yester.cli.output import print_error
from yester.cli.state_folder import state_folder
from yester.cli.tuning import MIB, tune_process
from yester.errors import MountError, YesterError

_LOG_BYTES_MAX = 1 << 20
_READY = b"ready"

Serve = Callable[[Callable[[], None]], None]
"""Serves until unmounted; calls what it is given once the mount answers."""


Function = TypeVar("Function", bound=Callable[..., object])


def mount_options(function: Function) -> Function:
    """The options of every mount: `foreground`, `allow_other` and `log_file`."""
    log = click.option(
        "--log",
        "log_file",
        metavar="FILE",
        type=HostPath(),
        default=None,
        help="Where the mount reports damage. Default: ~/.local/state/yester/mount.log; stderr with -f.",
    )
    others = click.option("--allow-other", is_flag=True, help="Let other users in (file permissions still hold).")
    here = click.option("--foreground", "-f", is_flag=True, help="Serve in this process until it is unmounted or interrupted.")
    return here(others(log(function)))


def no_fuse(error: ImportError) -> MountError:
    """The error where FUSE's library is missing."""
    message = f"FUSE cannot be used: {error}; nothing was mounted"
    return MountError(message, hint="install the packages fuse3 and libfuse3-3 (apt-get install fuse3), then yester again")


def run_mount(mount_point: Path, serve: Serve, *, log_file: Path | None, in_foreground: bool) -> None:
    """Serve a mount; return once it answers, or with `in_foreground` when it has ended.

    Raises:
        YesterError: it could not be served. SystemExit: the same, said by the other process already.
    """
    if in_foreground:
        _start_log(log_file)
        serve(_settle)
        return
    log_file = log_file or state_folder() / "mount.log"
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _become_daemon(mount_point, serve, log_file, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    if said != _READY:
        _, status = os.waitpid(child, 0)
        if said:
            raise SystemExit(os.waitstatus_to_exitcode(status))
        message = f"the process that should serve {mount_point} ended before it did; nothing is mounted"
        raise MountError(message, hint=f"its log is {log_file}")
    os.stat(mount_point)  # The kernel takes the folder for root's until it has asked: its owner's chmod would be refused.


def _settle() -> None:
    """The mount answers: what follows is small work without end."""
    tune_process(kept_bytes=4 * MIB)


def _become_daemon(mount_point: Path, serve: Serve, log_file: Path, ready: int) -> NoReturn:
    """The child: leave the terminal, serve, and never return. Errors before it serves still go to the terminal."""
    code, is_serving = 1, False

    def on_ready() -> None:
        nonlocal is_serving
        is_serving = True
        _settle()
        _detach()
        os.write(ready, _READY)
        os.close(ready)

    try:
        os.setsid()
        # What the shell has open besides, a lock perhaps, must not stay open for as long as the mount lives.
        os.closerange(3, ready)
        os.closerange(ready + 1, os.sysconf("SC_OPEN_MAX"))
        _start_log(log_file)
        serve(on_ready)
        code = 0
    except YesterError as error:
        if is_serving:
            logging.getLogger("yester").error("the mount of %s ended: %s", mount_point, error.message)  # noqa: TRY400 (it says it all)
        else:
            print_error(error, as_json=False)
            os.write(ready, b"failed")
        code = error.exit_code
    except BaseException:
        logging.getLogger("yester").exception("the mount of %s ended unexpectedly", mount_point)
        raise
    finally:
        os._exit(code)


def _detach() -> None:
    """Let go of the terminal and of the folder the command was run in."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


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

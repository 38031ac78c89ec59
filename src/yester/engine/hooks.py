# SPDX-License-Identifier: MIT
"""Commands of a person's own before and after a backup: dump a database, unlock a disk, tell somebody.

`/bin/sh -c` runs each, since people write `pg_dump shop > shop.sql`. It has a session of its own without a terminal, so that it and what
it starts can be ended together: when it takes too long, or when the backup is interrupted. What it starts in the background and
leaves behind when it ends by itself is not touched.

The policy: a hook that fails *before* the backup stops it, unless `Hooks.goes_on_after_failure`. Hooks *after* it run whatever
became of the backup, and of hooks before it: what those stopped must start again. A failing one stops nothing. Hooks *on failure* run
before these.

Output of both streams is kept in the order in which it comes, the last `OUTPUT_BYTES_MAX` of it. The environment tells what a hook
needs to know (docs/cli.md), and no passphrase of a store. May block for as long as hooks take; for the thread that gets signals.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from yester.core.printable import printable
from yester.engine.backup import BackupResult
from yester.errors import HookError, YesterError

OUTPUT_BYTES_MAX = 64 * 1024
TIMEOUT_S = 3600.0
_LINES_SHOWN = 10
_LINE_CHARACTERS_MAX = 200
_READ_BYTES = 64 * 1024
"""As much as a pipe holds."""
_READS_AT_END_MAX = 4
"""What a hook leaves in the background may go on writing for ever."""
_POLL_MS_MAX = 3_600_000
"""What poll() can be asked for has a bound."""
_GRACE_S = 5.0
"""From asking a hook to end until it is killed."""
_INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECRETS = ("YESTER_PASSPHRASE", "YESTER_KEY")
_OUTCOME = ("YESTER_STATUS", "YESTER_SNAPSHOT", "YESTER_SKIPPED", "YESTER_ERROR")


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands for a shell, run one after another. False if there are none."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    on_failure: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S
    """For each."""
    goes_on_after_failure: bool = False
    """Whether to back up although a hook before it failed."""

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.on_failure)


class Occasion(Enum):
    """When a hook runs."""

    BEFORE = "before"
    AFTER = "after"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class HookRun:
    """How a hook ended. `output` is the end of what it wrote; `dropped_bytes` came before that."""

    occasion: Occasion
    command: str
    problem: str
    """Why it is taken to have failed; empty if it did not."""
    seconds: float
    output: bytes
    dropped_bytes: int

    @property
    def name(self) -> str:
        """The hook, for a message: printable, and not long."""
        text = printable(self.command)
        return f"'{text}'" if len(text) <= 60 else f"'{text[:57]}…'"

    def last_lines(self, count: int = _LINES_SHOWN) -> list[str]:
        """The last lines of its output that are not blank, for people: printable, and cut where they are long."""
        lines = [printable(line.expandtabs()) for line in self.output.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
        return [line if len(line) <= _LINE_CHARACTERS_MAX else line[:_LINE_CHARACTERS_MAX] + "…" for line in lines[-count:]]


@dataclass(frozen=True, slots=True)
class Backup:
    """What hooks are told of the backup that they belong to."""

    store: Path
    source: str
    paths: tuple[Path, ...]


Report = Callable[[HookRun], None]


def back_up_with_hooks(hooks: Hooks, backup: Backup, back_up: Callable[[], BackupResult], report: Report) -> BackupResult:
    """Call `back_up` between hooks, each of which is given to `report` when it has ended; returns what it returns.

    What `back_up` raises is raised again, after the hooks that are for that. An interrupted hook is ended; those after the backup run
    all the same.

    Raises:
        HookError: a hook before the backup failed; `back_up` was not called.
    """
    environment = _environment(backup)
    outcome = {"YESTER_STATUS": "interrupted"}
    try:
        _run_before(hooks, backup, environment, report)
        result = back_up()
        outcome = _outcome(result)
    except Exception as error:
        message = error.message if isinstance(error, YesterError) else repr(error)
        outcome = {"YESTER_STATUS": "failed", "YESTER_ERROR": message.replace("\0", "")}
        _run_all(Occasion.FAILURE, hooks.on_failure, environment | outcome, hooks.timeout_s, report)
        raise
    finally:
        _run_all(Occasion.AFTER, hooks.after, environment | outcome, hooks.timeout_s, report)
    return result


def _run_before(hooks: Hooks, backup: Backup, environment: dict[str, str], report: Report) -> None:
    for command in hooks.before:
        run = run_hook(Occasion.BEFORE, command, environment, hooks.timeout_s)
        report(run)
        if run.problem and not hooks.goes_on_after_failure:
            said = "".join(f"\n  {line}" for line in run.last_lines())
            message = f"the hook {run.name} before the backup of {printable(backup.source)!r} {run.problem}; nothing was backed up"
            message += f". It said:{said}" if said else " (it said nothing)"
            raise HookError(message, hint="try the hook by itself; --ignore-hook-failure backs up all the same")


def _run_all(occasion: Occasion, commands: Sequence[str], environment: dict[str, str], timeout_s: float, report: Report) -> None:
    """Run each of these, whatever becomes of those before. An interruption ends one, and is raised after the last."""
    interruption: KeyboardInterrupt | None = None
    for command in commands:
        try:
            report(run_hook(occasion, command, environment, timeout_s))
        except KeyboardInterrupt as error:
            interruption = error
    if interruption is not None:
        raise interruption


def _environment(backup: Backup) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS) and name not in _OUTCOME}
    return kept | {
        "YESTER_SOURCE": backup.source,
        "YESTER_STORE": os.path.abspath(backup.store),
        "YESTER_PATHS": "\n".join(os.path.abspath(path) for path in backup.paths),
    }


def _outcome(result: BackupResult) -> dict[str, str]:
    outcome = {"YESTER_STATUS": "done", "YESTER_SKIPPED": str(len(result.problems))}
    if result.is_unchanged:
        outcome["YESTER_STATUS"] = "unchanged"
    if result.problems:
        outcome["YESTER_STATUS"] = "skipped"
    if result.stored is not None:
        outcome["YESTER_SNAPSHOT"] = result.stored.id.hex()
    return outcome


def run_hook(occasion: Occasion, command: str, environment: dict[str, str], timeout_s: float) -> HookRun:
    """Run one hook to its end. If this is interrupted, it and all that it started are ended before the interruption goes on."""
    begin_s = time.monotonic()
    tail = _Tail()
    with ExitStack() as stack:
        try:
            with _undivided():
                process = subprocess.Popen(
                    ("/bin/sh", "-c", command),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environment | {"YESTER_HOOK": occasion.value},
                    start_new_session=True,
                )
                end = stack.enter_context(_ending(process))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the command
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return HookRun(occasion, command, f"could not be started: {reason}", 0.0, b"", 0)
        assert process.stdout is not None
        has_ended = _follow(process.stdout, end, tail, begin_s + timeout_s)
        if not has_ended:
            _stop(process, end)
        _read_rest(process.stdout, tail)
    problem = _problem(process.wait()) if has_ended else f"took longer than {timeout_s:g} s and was stopped"
    return HookRun(occasion, command, problem, time.monotonic() - begin_s, bytes(tail.kept), tail.dropped_bytes)


@contextmanager
def _undivided() -> Iterator[None]:
    """Signals that interrupt this thread do so when the body has ended: a process that is being started would be nobody's."""
    if threading.current_thread() is not threading.main_thread():
        yield  # they interrupt the main thread only
        return
    # Blocking them while the process starts would be simpler, but it would have them blocked as well.
    came: list[signal.Signals] = []
    with _blocked():
        handlers = {number: handler for number in _INTERRUPTING if callable(handler := signal.getsignal(number))}
        for number in handlers:
            signal.signal(number, lambda came_as, _frame: came.append(signal.Signals(came_as)))
    try:
        yield
    finally:
        with _blocked():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        for number in came:
            handlers[number](number, None)


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ending(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Stops the process if the body raises, and closes its output. Gives what becomes readable when it ends."""
    try:
        end = os.pidfd_open(process.pid)
    except OSError:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    try:
        yield end
    except BaseException:
        _stop(process, end)
        raise
    finally:
        os.close(end)
        if process.stdout is not None:
            process.stdout.close()


class _Tail:
    """The end of an output."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.dropped_bytes = 0

    def add(self, data: bytes) -> None:
        """Append, and drop what is too much from the beginning."""
        self.kept += data
        excess = max(0, len(self.kept) - OUTPUT_BYTES_MAX)
        del self.kept[:excess]
        self.dropped_bytes += excess


def _follow(output: IO[bytes], end: int, tail: _Tail, deadline_s: float) -> bool:
    """Read what a hook writes until it has ended, which is True, or the time is over.

    Its end is that of its process, not that of its output: what it left in the background may keep that open.
    """
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(end, select.POLLIN)
    while (left_s := deadline_s - time.monotonic()) > 0:
        ready = {descriptor for descriptor, _ in poll.poll(min(left_s * 1000, _POLL_MS_MAX))}
        if end in ready:
            return True
        if output.fileno() in ready:
            data = os.read(output.fileno(), _READ_BYTES)
            if not data:
                poll.unregister(output)
            tail.add(data)
    return False


def _read_rest(output: IO[bytes], tail: _Tail) -> None:
    """Read what is in the pipe, and wait for no more."""
    os.set_blocking(output.fileno(), False)
    with suppress(BlockingIOError):
        for _ in range(_READS_AT_END_MAX):
            tail.add(os.read(output.fileno(), _READ_BYTES))


def _stop(process: subprocess.Popen[bytes], end: int) -> None:
    """End a hook with all of its group: ask, wait a moment, kill. Nothing if it has been waited for.

    The leader is waited for last: until then its number, which is the group's, is nobody else's.
    """
    if process.returncode is not None:
        return
    with suppress(PermissionError, subprocess.TimeoutExpired):  # It has become another user, as with sudo: its own affair then.
        try:
            os.killpg(process.pid, signal.SIGTERM)
            select.select([end], [], [], _GRACE_S)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_GRACE_S)


def _problem(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status}" if status else ""

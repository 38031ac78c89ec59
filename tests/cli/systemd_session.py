# SPDX-License-Identifier: MIT
"""Run in a mount namespace of its own by `test_timers`: a manager of systemd's for users, and yester's timers in it.

Ends with 77 where systemd cannot run. Argument: the folder to back up.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from yester.cli.config import read_config
from yester.cli.config_edit import set_in_source
from yester.cli.systemd_timers import SystemdTimers
from yester.cli.timers import Invocation, State
from yester.store.store import Store

NAME = "my docs"
UNIT = "yester-my\\x20docs"
START_S = 15.0


def main() -> None:
    """Start systemd, try all, end systemd."""
    timers = SystemdTimers(Path.home() / ".config" / "systemd" / "user", is_system=False)
    log = Path.home() / "systemd.log"
    with own_control_groups():
        with open(log, "wb") as output:
            manager = subprocess.Popen(["/lib/systemd/systemd", "--user"], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            until = time.monotonic() + START_S
            while not timers.is_there():
                if manager.poll() is not None or time.monotonic() > until:
                    give_up(f"systemd ended, or did not answer: {log.read_text()}")
                time.sleep(0.05)
            try_all(timers, Path(sys.argv[1]))
        finally:
            manager.terminate()
            with suppress(subprocess.TimeoutExpired):
                manager.wait(10)
            manager.kill()
            manager.wait()


@contextmanager
def own_control_groups() -> Iterator[None]:
    """Be alone in a control group of each hierarchy that systemd uses: it takes along whoever is in the same one."""
    own = []
    try:
        for group in current_control_groups():
            own.append(group / f"yester-test-{os.getpid()}")
            own[-1].mkdir()
            (own[-1] / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        give_up(f"no control group of its own: {error}")
    try:
        yield
    finally:
        for group in own:
            (group.parent / "cgroup.procs").write_text(str(os.getpid()))
            for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                inner.rmdir()
            group.rmdir()


def current_control_groups() -> Iterator[Path]:
    """Where this process is in the hierarchies that systemd uses (cgroups(7))."""
    root = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, inner = line.split(":", 2)
        if controllers == "name=systemd":
            yield root / "systemd" / inner.lstrip("/")
        elif not controllers:
            yield (root / "unified" if (root / "unified").is_dir() else root) / inner.lstrip("/")


def give_up(reason: str) -> NoReturn:
    """End the test as one that cannot run here."""
    sys.stderr.write(reason)
    raise SystemExit(77)


def try_all(timers: SystemdTimers, folder: Path) -> None:
    """Add a source, have systemd start its backup, and take it away."""
    path, store = Path.home() / "config.toml", Path.home() / "store"
    Store.create(store).close()
    set_in_source(path, NAME, {"paths": [str(folder)], "every": "daily 03:00", "store": str(store)})
    invocation = Invocation((sys.executable, "-P", "-m", "yester"), path, (("PYTHONPATH", os.environ["PYTHONPATH"]),))
    source = read_config(path).source(NAME)
    assert timers.look(source, invocation) is State.OFF
    assert timers.apply([source], invocation)
    assert timers.look(source, invocation) is State.ON
    assert not timers.apply([source], invocation)
    shown = systemctl("list-timers", "--all")
    assert f"{UNIT}.timer" in shown, shown

    for count in (1, 1):  # The second time nothing is due, which is no failure.
        systemctl("start", f"{UNIT}.service")
        with Store.open(store) as opened:
            assert len(opened.snapshots(NAME)) == count

    changed = set_in_source(path, NAME, {"every": "15m"}).source(NAME)
    assert timers.look(changed, invocation) is State.OUTDATED
    assert timers.apply([changed], invocation)
    assert timers.look(changed, invocation) is State.ON
    assert timers.apply([], invocation)
    assert f"{UNIT}.timer" not in systemctl("list-timers", "--all")
    assert not list(timers.folder.glob("yester-*"))


def systemctl(*words: str) -> str:
    """What it prints; it must not fail."""
    done = subprocess.run(["systemctl", "--user", "--no-pager", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


if __name__ == "__main__":
    main()

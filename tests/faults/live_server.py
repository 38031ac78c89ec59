# SPDX-License-Identifier: MIT
"""Serves a live folder again and again, each time in a process of its own that may be killed; started once, since starting is slow.

usage: python -m tests.faults.live_server STORE MOUNTPOINT QUIET_S INTERVAL_S

Every line on stdin has it mounted once more; the answer is the process id once it serves.
"""

import os
import sys
from pathlib import Path

from yester.fs.live_session import Pace
from yester.fs.mounting import LiveOptions, MountOptions, prepare_mount_point, serve_live
from yester.store.store import Store

NAME = "killed"


def main() -> None:
    """Fork a server for each line."""
    store, point = Path(sys.argv[1]), Path(sys.argv[2])
    pace = Pace(float(sys.argv[3]), float(sys.argv[4]), is_a_second_apart=False)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            _serve(store, point, pace)
        os.waitpid(child, 0)
        print("ended", flush=True)  # noqa: T201 (it is a command)


def _serve(store_path: Path, point: Path, pace: Pace) -> None:
    code = 1
    try:
        resolved = prepare_mount_point(point, store_path)
        with Store.open(store_path) as store:
            options = MountOptions()
            serve_live(store, LiveOptions(NAME, pace=pace), resolved, options, lambda: print(os.getpid(), flush=True))  # noqa: T201 (as above)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()

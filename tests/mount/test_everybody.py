# SPDX-License-Identifier: MIT
"""Eight processes back up, prune, mount and write at once for a minute, and nothing that is not forgotten is lost."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount.conftest import Place, environment, find_server
from tests.mount.everybody import judge
from yester.engine.check import check
from yester.engine.prune import prune

SECONDS = float(os.environ.get("YESTER_TEST_STRESS_S", "60"))
ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.timeout(SECONDS * 4 + 120)


@pytest.mark.skipif(os.geteuid() != 0, reason="once is enough: root runs it")
def test_backups_prunes_mounts_and_a_live_folder_at_once(place: Place) -> None:
    place.open_store().close()
    place.mount()
    live = place.path / "live"
    live.mkdir()
    done = place.run("live", "--name", "work", "--quiet", "0.3", "--every", "1", "--store", place.store, "--log", place.log, live)
    assert done.returncode == 0, done.stderr
    place.watch(find_server(live))
    folders = [place.path / f"source{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
    stop = place.path / "stop"
    roles = [*(("backup", folder) for folder in folders), *[("prune", place.path)] * 2, *[("read", place.point)] * 2, ("write", live)]
    own = environment(place.path)
    own["PYTHONPATH"] += f":{ROOT}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.mount.everybody", role, place.store, folder, stop, str(seed)],
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, (role, folder) in enumerate(roles)
    ]
    time.sleep(SECONDS)  # what is tested is that nothing happens in this time
    stop.touch()
    counts = []
    for process, (role, _) in zip(processes, roles, strict=True):
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, ""), role
        rounds, amount = map(int, out.split())
        counts.append((role, rounds, amount))
    assert all(rounds > 1 and amount for _, rounds, amount in counts), counts

    judge(live)
    place.unmount()
    place.mount()
    with place.open_store() as store:
        assert check(store, read_data=True).findings == ()
        prune(store, grace_ns=0)
        assert check(store, read_data=True).findings == ()
        snapshots = store.snapshots()
    assert {stored.snapshot.source for stored in snapshots} == {*(folder.name for folder in folders), "live/work"}
    for stored in snapshots:
        if stored.snapshot.source != "live/work":  # versions of which are any moments, also between a file and the list
            assert judge(place.shown(stored))
    assert judge(place.point / "snapshots" / "live" / "work" / "latest")

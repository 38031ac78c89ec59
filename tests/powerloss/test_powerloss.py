# SPDX-License-Identifier: MIT
"""Power loss at any disk write: whatever the disk kept, all that was acknowledged is there, and it goes on.

Backups; prunes and compactions; work in a live folder.

A user-mode Linux does the work on a disk of which every write is logged (record.sh, workload*.py); replay.py makes disks of the log
as power loss could have left them; verify*.py judge each.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.powerloss.replay import Recording, State, replay
from tests.powerloss.workload import STORE_MADE, VERSIONS

ROOT = Path(__file__).parent.parent.parent
PYTHON_SETTINGS = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
PREFIX_STATES_MIN = 70
PARTIAL_STATES = 50
LIVE_PREFIX_STATES_MIN = 130
LIVE_PARTIAL_STATES = 70
PRUNE_PREFIX_STATES_MIN = 130
PRUNE_PARTIAL_STATES = 80
SEED = 3
SECONDS_MAX = 60

pytestmark = pytest.mark.timeout(400)


def backup_states(recording: Recording) -> list[State]:
    """The states that the test of backups looks at."""
    return _states(recording, prefixes=PREFIX_STATES_MIN, partial=PARTIAL_STATES)


def live_states(recording: Recording) -> list[State]:
    """The states that the test of a live folder looks at."""
    return _states(recording, prefixes=LIVE_PREFIX_STATES_MIN, partial=LIVE_PARTIAL_STATES)


def prune_states(recording: Recording) -> list[State]:
    """The states that the test of prunes, compactions and changes of keys looks at."""
    return _states(recording, prefixes=PRUNE_PREFIX_STATES_MIN, partial=PRUNE_PARTIAL_STATES)


def _states(recording: Recording, *, prefixes: int, partial: int) -> list[State]:
    every = max(1, (len(recording.entries) - recording.start) // prefixes)
    return recording.prefix_states(every) + recording.partial_states(partial, SEED)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with record("workload", tmp_path_factory.mktemp("recording")) as recording:
        yield recording


@pytest.fixture(scope="module")
def live_recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with record("workload_live", tmp_path_factory.mktemp("recording")) as recording:
        yield recording


@pytest.fixture(scope="module")
def prune_recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with record("workload_prune", tmp_path_factory.mktemp("recording")) as recording:
        yield recording


@contextmanager
def record(module: str, folder: Path) -> Iterator[Recording]:
    """Run a workload in user-mode Linux; every write to its disk is logged."""
    if problem := _why_it_cannot_run(folder):
        pytest.skip(problem)
    workload = ["env", *(f"{name}={value}" for name, value in PYTHON_SETTINGS.items()), sys.executable, "-m", f"tests.powerloss.{module}"]
    recorded = subprocess.run(
        [ROOT / "tests/powerloss/record.sh", folder, *workload],
        cwd=ROOT,
        env=os.environ | {"SECONDS_MAX": str(SECONDS_MAX)},
        check=False,
        capture_output=True,
        text=True,
    )
    if recorded.returncode and "BOOTED" not in (folder / "uml.log").read_text(errors="replace") and "ptrace" in recorded.stderr:
        pytest.skip(f"user-mode Linux may not trace its processes here: {recorded.stderr[-300:]}")
    assert recorded.returncode == 0, recorded.stderr
    with Recording(folder) as recording:
        yield recording


def _why_it_cannot_run(folder: Path) -> str:
    """Why power loss cannot be replayed on this machine; empty if it can."""
    if os.geteuid() != 0:
        return "power loss: only root can mount disk images"
    packages = {"linux.uml": "user-mode-linux", "insmod": "kmod", "dmsetup": "dmsetup", "mkfs.ext4": "e2fsprogs"}
    if missing := [package for command, package in packages.items() if shutil.which(command) is None]:
        return f"power loss: needs the packages {' '.join(missing)}"
    image, disk = folder / "probe.img", folder / "probe"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, disk], check=False, capture_output=True, text=True)
    if mounted.returncode:
        return f"power loss: this machine mounts no disk images: {mounted.stderr.strip()}"
    subprocess.run(["umount", disk], check=True)
    return ""


def test_a_store_survives_power_loss_at_any_write(recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PYTHON_SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    states = backup_states(recording)

    report = replay(recording, states, [sys.executable, "-m", "tests.powerloss.verify"], tmp_path)

    print(f"seed {SEED}: {len(recording.entries)} log entries, {len(states)} states: {dict(report.seen)}")  # noqa: T201 (how to do it again)
    assert report.wrong == {}
    acked = recording.marks_before(len(recording.entries))
    assert [text.split("-")[0] for text in acked] == [STORE_MADE, *map(str, range(VERSIONS))]
    assert report.seen.total() == len(states) >= 100
    assert sum(bool(state.kept) for state in states) >= 40
    assert set(report.seen) == {"no store", *(f"{count} of {VERSIONS} snapshots" for count in range(VERSIONS + 1))}


def test_a_live_folder_survives_power_loss_at_any_write(live_recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PYTHON_SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    states = live_states(live_recording)

    report = replay(live_recording, states, [sys.executable, "-m", "tests.powerloss.verify_live"], tmp_path)

    print(f"seed {SEED}: {len(live_recording.entries)} log entries, {len(states)} states: {dict(report.seen)}")  # noqa: T201 (as above)
    assert report.wrong == {}
    assert report.seen.total() == len(states) >= 200
    assert report.seen["what was synced"] >= 20
    assert report.seen["more than was synced"] >= 20


def test_prunes_compactions_and_changes_of_keys_survive_power_loss_at_any_write(
    prune_recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PYTHON_SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    states = prune_states(prune_recording)

    report = replay(prune_recording, states, [sys.executable, "-m", "tests.powerloss.verify_prune"], tmp_path)

    print(f"seed {SEED}: {len(prune_recording.entries)} log entries, {len(states)} states: {dict(report.seen)}")  # noqa: T201 (as above)
    assert report.wrong == {}
    assert report.seen.total() == len(states) >= 200
    assert report.seen["compacting"] >= 5
    assert report.seen["3 snapshots, 0 forgotten"] >= 5
    assert report.seen["2 snapshots, 1 forgotten"] >= 5

# SPDX-License-Identifier: MIT
"""A lease is seen while its holder lives, and no longer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from yester.errors import FormatError, StoreAccessError
from yester.store import leases as leases_module
from yester.store.leases import HeldLease, Lease, list_leases
from yester.store.store import Store


def test_a_lease_is_listed_until_it_is_released(tmp_path: Path) -> None:
    folder = tmp_path / "leases"
    assert list_leases(folder) == []
    reading, adding = HeldLease(folder, generation=3), HeldLease(folder, generation=4, last_segment=7)
    assert sorted(list_leases(folder), key=lambda lease: lease.generation) == [Lease(3, None, os.getpid()), Lease(4, 7, os.getpid())]
    reading.release()
    reading.release()
    adding.release()
    assert list_leases(folder) == []
    assert list(folder.iterdir()) == []


def test_a_renewed_lease_says_the_new_and_never_nothing(tmp_path: Path) -> None:
    lease = HeldLease(tmp_path, generation=3)
    before = list(tmp_path.iterdir())
    lease.renew(3)
    assert list(tmp_path.iterdir()) == before
    lease.renew(5)
    assert list_leases(tmp_path) == [Lease(5, None, os.getpid())]
    lease.release()


def test_the_lease_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from yester.store import leases as leases_module
from yester.store.leases import HeldLease
lease = HeldLease(Path(sys.argv[1]), generation=1)
print("held", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert list_leases(tmp_path) == [Lease(1, None, holder.pid)]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert list_leases(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_nobody_understands_is_not_passed_over(tmp_path: Path) -> None:
    lease = HeldLease(tmp_path, generation=3)
    [path] = tmp_path.iterdir()
    path.rename(tmp_path / "of-a-later-release")
    with pytest.raises(FormatError, match="nothing was freed"):
        list_leases(tmp_path)
    lease.release()


def test_where_no_file_can_be_made_nothing_is_held(tmp_path: Path) -> None:
    (tmp_path / "leases").write_bytes(b"in the way")
    assert not HeldLease(tmp_path / "leases", generation=1).is_held
    with Store.create(tmp_path / "store") as store:
        for lease in store.leases_folder.iterdir():
            lease.unlink()
        store.leases_folder.rmdir()
        store.leases_folder.write_bytes(b"in the way")
        with pytest.raises(StoreAccessError, match="nothing was stored"), store.adding():
            pass


def test_whoever_has_a_store_open_holds_a_lease(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store") as store:
        assert list_leases(store.leases_folder) == [Lease(0, None, os.getpid())]
    with Store.open(tmp_path / "store") as store:
        assert list_leases(store.leases_folder) == [Lease(0, None, os.getpid())]
        with store.adding():
            assert len(list_leases(store.leases_folder)) == 2
    assert list_leases(tmp_path / "store" / "leases") == []


def test_a_lease_that_cannot_be_renewed_is_kept_and_renewed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = HeldLease(tmp_path, generation=3)
    monkeypatch.setattr(leases_module, "_take", lambda *_arguments: None)  # as on a full disk
    lease.renew(5)
    assert lease.is_held
    assert list_leases(tmp_path) == [Lease(3, None, os.getpid())]
    monkeypatch.undo()
    lease.renew(5)
    assert list_leases(tmp_path) == [Lease(5, None, os.getpid())]
    lease.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_what_root_makes_in_the_store_of_another_is_his(tmp_path: Path) -> None:
    with Store.create(tmp_path / "store"):
        pass
    for name in ("use.lock", "leases"):
        made = tmp_path / "store" / name
        made.rmdir() if made.is_dir() else made.unlink()
    os.chown(tmp_path / "store", 65534, 65534)
    with Store.open(tmp_path / "store") as store, store.backup_lock(lambda _holder: None):
        owners = {made.name: made.stat().st_uid for made in store.path.iterdir()}
    assert [owners[name] for name in ("use.lock", "leases", "backup.lock")] == [65534] * 3

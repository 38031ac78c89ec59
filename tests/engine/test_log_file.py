# SPDX-License-Identifier: MIT
"""Logs that stay small."""

from pathlib import Path

import pytest

from yester.engine.log_file import append_log


def test_a_log_that_has_grown_large_is_kept_as_the_older_one(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for number in range(50):
        append_log(log, f"run {number}\n" + "x" * 100 + "\n", bytes_max=1000)
    older = tmp_path / "x.log.1"
    assert {path.name for path in tmp_path.iterdir()} == {"x.log", "x.log.1"}
    assert max(log.stat().st_size, older.stat().st_size) < 1200
    runs = [line for line in (older.read_text() + log.read_text()).splitlines() if line.startswith("run")]
    assert runs == [f"run {number}" for number in range(50 - len(runs), 50)]
    assert len(runs) > 9, "what was kept of the last runs"


def test_a_log_can_be_read_by_its_owner_alone_and_takes_any_text(tmp_path: Path) -> None:
    append_log(tmp_path / "x.log", "a\udcffb\n", bytes_max=1000)
    assert (tmp_path / "x.log").read_bytes() == b"a\\udcffb\n"
    assert (tmp_path / "x.log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_is_a_symlink_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "x.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        append_log(tmp_path / "x.log", "x", bytes_max=1000)
    assert not (tmp_path / "elsewhere").exists()

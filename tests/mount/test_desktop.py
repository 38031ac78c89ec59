# SPDX-License-Identifier: MIT
"""`yester desktop open` beside mounts that run: which folder the file manager is told to show."""

import os
import signal
from pathlib import Path

import pytest

from tests.mount.conftest import Place


@pytest.fixture
def programs(place: Place) -> Path:
    """A PATH whose xdg-open and filer print what they are to show."""
    programs = place.path / "bin"
    programs.mkdir()
    for name in ("xdg-open", "filer"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s:%s" "${0##*/}" "$*"\n')
        (programs / name).chmod(0o755)
    return programs


def opened(place: Place, programs: Path, *arguments: str | Path) -> str:
    """What `yester desktop open` has shown, and by whom; else its message."""
    done = place.run("desktop", "open", *arguments, PATH=f"{programs}:{os.environ['PATH']}")
    assert (done.returncode == 0) == bool(done.stdout)
    return done.stdout or done.stderr


def test_what_was_backed_up_is_shown_in_the_snapshot_mount(place: Place, programs: Path) -> None:
    file = place.write("letters/ann.txt", b"dear Ann")
    place.back_up()
    assert "no snapshot mount that runs has versions of it" in opened(place, programs, file)
    place.mount()
    versions = place.point / "versions" / "docs"
    assert opened(place, programs, file) == f"xdg-open:{versions}/letters/ann.txt"
    assert opened(place, programs, "--with", "filer", "--", file) == f"filer:{versions}/letters/ann.txt"
    assert opened(place, programs, "--with", "gone", file) == f"xdg-open:{versions}/letters/ann.txt"
    assert opened(place, programs, file.parent) == f"xdg-open:{versions}/letters"
    file.unlink()
    assert opened(place, programs, file) == f"xdg-open:{versions}/letters/ann.txt"
    assert "is in no live folder" in opened(place, programs, place.write("new.txt"))
    place.unmount()


def test_what_is_in_a_snapshot_is_an_old_version_already(place: Place, programs: Path) -> None:
    place.write("ann.txt", b"dear Ann")
    stored = place.back_up()
    place.mount()
    assert "is an old version already" in opened(place, programs, place.shown(stored) / "ann.txt")
    place.unmount()


def test_a_mount_whose_process_died_is_named(place: Place, programs: Path) -> None:
    file = place.write("ann.txt", b"dear Ann")
    place.back_up()
    server = place.mount()
    server.signal(signal.SIGKILL)
    server.wait_ended()
    assert "is gone" in opened(place, programs, place.point / "snapshots" / "x")
    assert "no snapshot mount that runs" in opened(place, programs, file)
    assert place.run("umount", place.point).returncode == 0


def test_nothing_to_show_it_with_is_said(place: Place, programs: Path) -> None:
    file = place.write("ann.txt", b"dear Ann")
    place.back_up()
    place.mount()
    done = place.run("desktop", "open", file, PATH="/nowhere")
    assert done.returncode == 1
    assert f"nothing that is installed can show {place.point}/versions/docs/ann.txt" in done.stderr
    place.unmount()


def test_in_a_live_folder_the_versions_beside_it_are_shown(place: Place, programs: Path) -> None:
    server = place.mount_live()
    file = place.point / "letters" / "ann.txt"
    file.parent.mkdir()
    file.write_text("dear Ann")
    versions = file.parent / ".snapshots"
    assert "has no old versions yet" in opened(place, programs, file)
    place.make_version()
    assert opened(place, programs, file) == f"xdg-open:{versions}"
    assert opened(place, programs, file.parent) == f"xdg-open:{versions}"
    assert opened(place, programs, place.point) == f"xdg-open:{place.point}/.snapshots"
    [version] = versions.iterdir()
    assert opened(place, programs, version / "ann.txt") == f"xdg-open:{versions}"
    assert "is in no live folder" in opened(place, programs, place.write("new.txt"))
    server.signal(signal.SIGKILL)
    server.wait_ended()
    assert "is gone" in opened(place, programs, file)
    assert place.run("umount", place.point).returncode == 0

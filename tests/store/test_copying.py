# SPDX-License-Identifier: MIT
"""Copying a store's data file: whole under its name or not there, and never over another."""

import shutil
import stat
from pathlib import Path

import pytest

from yester.errors import ConflictError
from yester.store.copying import check_copy_folder, copy_data_file
from yester.store.datafile import DATA_FILE
from yester.store.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.create(tmp_path / "store") as store:
        return store.path


def test_a_copy_is_whole_and_alone(path: Path, tmp_path: Path) -> None:
    assert copy_data_file(path, tmp_path / "some" / "copy") == (path / DATA_FILE).stat().st_size
    [copy] = (tmp_path / "some" / "copy").iterdir()
    assert copy.name == DATA_FILE
    assert copy.read_bytes() == (path / DATA_FILE).read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_copy_that_was_interrupted_has_another_name_and_is_made_anew(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "copy"

    def end(_source: object, copy: object, _size: int) -> None:
        copy.write(b"some of it")  # type: ignore[attr-defined]  # a file
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", end)
        patched.setattr(Path, "unlink", lambda *_arguments, **_options: None)  # as if it were killed
        with pytest.raises(KeyboardInterrupt):
            copy_data_file(path, folder)
    assert [file.name for file in folder.iterdir()] == ["data.mdb.partial"]
    check_copy_folder(path, folder)
    copy_data_file(path, folder)
    assert [file.name for file in folder.iterdir()] == [DATA_FILE]
    assert (folder / DATA_FILE).read_bytes() == (path / DATA_FILE).read_bytes()


def test_a_whole_copy_is_not_written_over_and_it_is_said_how_to_go_on(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    copy_data_file(path, folder)
    before = (folder / DATA_FILE).stat()
    with pytest.raises(ConflictError, match="nothing was changed") as refused:
        copy_data_file(path, folder)
    assert "--no-copy" in (refused.value.hint or "")
    assert (folder / DATA_FILE).stat() == before

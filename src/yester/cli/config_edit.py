# SPDX-License-Identifier: MIT
"""Changing `config.toml`: comments, order and blank lines stay, and a mistake never gets into the file.

One writer at a time, by a lock on the file's folder; readers need none, since the file changes in one step.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yester.cli.config import Config, parse_config, read_text
from yester.engine.replace_file import replace_file
from yester.errors import ConflictError, StoreAccessError
from yester.store.folder import folder_lock

if TYPE_CHECKING:
    import tomlkit

_MODE = 0o600
"""A configuration says where passphrases come from, and what a person has."""

SAMPLE = """\
# Configuration of yester. `yester config check` looks for mistakes; docs/config.md has every key.

# store = "/srv/backup"

# [sources.Documents]
# paths = ["~/Documents"]
# exclude = ["*.tmp"]
# every = "daily 03:00"
# keep = { daily = 30, monthly = 12 }
"""
"""What a new file begins with when a person is to edit it."""


def set_in_source(path: Path, name: str, values: Mapping[str, object], *, dry_run: bool = False) -> Config:
    """Give keys of a source these values, and take away those whose value is None; the configuration as it is then, or would be.

    The source's table is made if it is missing, and taken away with its last key.

    Raises:
        UsageError: it would have a mistake, or has one; nothing was changed. StoreAccessError: the file cannot be written.
    """
    with locked(path):
        text = read_text(path)
        parse_config(path, text)
        new = _with_values(text, name, values)
        config = parse_config(path, new)
        if new != text and not dry_run:
            _write(path, new)
        return config


def replace_text(path: Path, text: str, *, instead_of: str) -> Config:
    """Give the file this text; the configuration that it is.

    Raises:
        UsageError: it has a mistake. ConflictError: the file does not hold `instead_of` any more. StoreAccessError: it cannot be written.
    """
    config = parse_config(path, text)
    with locked(path):
        if read_text(path) != instead_of:
            message = f"{path} was changed by somebody else meanwhile, and was left as it is"
            raise ConflictError(message, hint="compare the two, then edit again")
        _write(path, text)
    return config


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to change the configuration; makes its folder.

    Raises:
        StoreAccessError: the folder cannot be made or opened.
    """
    folder = Path(os.path.realpath(path)).parent
    with ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(folder_lock(folder))
        except OSError as error:
            raise _refused(path, error) from error
        yield


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode(), mode=_MODE)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> StoreAccessError:
    message = f"cannot write the configuration {path}: {error.strerror}; nothing was changed"
    return StoreAccessError(message, hint="see whose its folder is, and whether the disk is full")


def _with_values(text: str, name: str, values: Mapping[str, object]) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    sources = _table_in(document, "sources", is_super=True)
    table = _table_in(sources, name, is_super=False)
    for key, value in values.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = _item(value)
    if not table:
        sources.pop(name)
    if not sources:
        document.pop("sources")
    return tomlkit.dumps(document)


def _table_in(parent: "tomlkit.TOMLDocument | Any", key: str, *, is_super: bool) -> Any:  # noqa: ANN401 (tomlkit has many kinds of tables)
    import tomlkit

    if key not in parent:
        parent[key] = tomlkit.table(is_super_table=is_super)
    return parent[key]


def _item(value: object) -> object:
    """A value as people write it: a mapping in one line."""
    import tomlkit

    if not isinstance(value, Mapping):
        return value
    inline = tomlkit.inline_table()
    inline.update(value)
    return inline

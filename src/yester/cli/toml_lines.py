# SPDX-License-Identifier: MIT
"""In which line of a TOML file a key has its value. TOML's parsers do not say."""

from collections.abc import Iterator


def find_line(text: str, keys: tuple[str, ...]) -> int | None:
    """The line, from 1, at which the value of these keys is written; of the nearest around it if that has no line of its own.

    None where it cannot be told. Lines are looked at one by one: text in several lines may mislead it.
    """
    found, depth = None, 0
    for number, line_keys in _keyed_lines(text):
        common = min(len(line_keys), len(keys))
        if depth < common and keys[:common] == line_keys[:common]:
            found, depth = number, common
    return found


def _keyed_lines(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Lines that begin a table or give a key a value, and all the keys that lead there."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            keys = _only_keys(line)
            if keys:
                table = keys
                yield number, keys
        elif "=" in line and (keys := _only_keys(line.partition("=")[0] + "=0")):
            yield number, table + keys


def _only_keys(line: str) -> tuple[str, ...]:
    """The keys of a line that is TOML by itself and has one value; else none."""
    import tomllib

    try:
        value: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        [(key, value)] = value.items()
        keys.append(key)
    return tuple(keys)

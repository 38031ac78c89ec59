# SPDX-License-Identifier: MIT
"""Rendering: names, sizes, times, tables, JSON and errors. Data goes to stdout, all else to stderr."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from yester.core.printable import printable
from yester.errors import YesterError

_KIB = 1024


def show_name(name: bytes) -> str:
    """A name or path for people: what is not printable UTF-8 is escaped, so that no name can move the cursor."""
    return printable(name.decode("utf-8", "backslashreplace"))


def show_text(text: str) -> str:
    """Text that somebody else may have chosen, such as a source's name or a tag, as `show_name` shows a name."""
    return show_name(text.encode("utf-8", "surrogateescape"))


def json_name(name: bytes) -> str:
    """A name or path for JSON: bytes that are not UTF-8 become lone surrogates, as `os.fsdecode` makes them."""
    return name.decode("utf-8", "surrogateescape")


def show_size(size_bytes: float) -> str:
    """A size in binary units, three digits: `4.21 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size_bytes) < _KIB:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.3g} {unit}" if size_bytes < 1000 else f"{size_bytes:.0f} {unit}"
        size_bytes /= _KIB
    return f"{size_bytes:.3g} PiB"


def show_count(count: int, noun: str) -> str:
    """`1 snapshot`, `2 snapshots`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def show_time(time_ns: int) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def json_time(time_ns: int) -> str:
    """A time in UTC as ISO 8601 with all its nanoseconds."""
    seconds, rest = divmod(time_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:09}Z"


def print_json(value: object) -> None:
    """One JSON document to stdout. ASCII only, so that it survives any locale."""
    print(json.dumps(value, indent=2))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """A table to stdout, columns two spaces apart; columns in `right` are aligned to the right."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def print_error(error: YesterError, *, as_json: bool) -> None:
    """An error to stderr, or as JSON to stdout where data would have come."""
    if as_json:
        print_json({"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}})
        return
    print(f"yester: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)

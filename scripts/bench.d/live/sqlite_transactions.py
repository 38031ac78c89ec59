# SPDX-License-Identifier: MIT
"""Small SQLite transactions, each durable before the next: `sqlite_transactions.py FILE MODE COUNT` prints how many seconds they took.

MODE is a journal mode. Afterwards a second connection has to find all rows, and nothing wrong with the database.
"""

import sqlite3
import sys
import time


def main(path: str, mode: str, count: int) -> None:
    """Print the seconds."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    if connection.execute(f"PRAGMA journal_mode={mode}").fetchone() != (mode,):
        sys.exit(f"SQLite refused the journal mode {mode}")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER)")
    begin = time.perf_counter()
    for number in range(count):
        connection.execute("INSERT INTO entry (name, amount) VALUES (?, ?)", (f"name {number:08}", number))
    seconds = time.perf_counter() - begin
    _check(path, count)
    connection.close()
    print(seconds)


def _check(path: str, count: int) -> None:
    other = sqlite3.connect(path)
    found = other.execute("SELECT count(*), sum(amount) FROM entry").fetchone()
    if found != (count, count * (count - 1) // 2):
        sys.exit(f"{count} rows were written, a second connection found {found[0]}")
    if other.execute("PRAGMA integrity_check").fetchone() != ("ok",):
        sys.exit("the database is damaged")
    other.close()


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

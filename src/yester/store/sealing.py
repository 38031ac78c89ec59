# SPDX-License-Identifier: MIT
"""Rows of an encrypted store: how their keys and values are stored (docs/format.md §11.2).

Transactions (`store.lmdb`) seal what is put and open what is read, so nobody else needs to know: keys and values are the same to
all other code. Each value is bound to its table and key. A row that was not sealed there, or is damaged, reads as the empty value, which
no record is: whoever decodes it finds it damaged, and the rows beside it are not hidden.

Names in keys are sealed so that equal ones stay equal: a row is still found by its name, and all rows of a source or folder still
lie together. What is lost is the order by name: sources, folders and names come in any.
"""

import os
from enum import Enum

from yester.store import blocks
from yester.store.keys import SALT_BYTES, Box, StoreKey
from yester.store.lmdb import Table

_NAME_STEP_BYTES = 32
"""Names in keys are filled up to a multiple of this: their lengths would tell more than they do so."""


class KeyForm(Enum):
    """Where a name stands in the keys of a table."""

    PLAIN = "numbers, or ids that tell nothing"
    SOURCE = "a source's name, a zero byte, what follows stays"
    ID = "an id that anybody could compute"
    NAMED = "nothing but a name"
    NAMED_IN_FOLDER = "two numbers of 12 bytes, a name"


_OPEN_TABLES = {Table.META, Table.SEGMENTS, Table.CHUNKS}
"""Not sealed: what must be read before the store is unlocked; segments, which have a form of their own; keyed ids and where they are."""
_KEY_FORMS = {
    Table.SNAPSHOTS: KeyForm.SOURCE,
    Table.FORGOTTEN: KeyForm.SOURCE,
    Table.SCAN: KeyForm.ID,
    Table.LIVE_FOLDERS: KeyForm.NAMED,
    Table.LIVE_NAMES: KeyForm.NAMED_IN_FOLDER,
}
"""Of all others, the keys are stored as they are."""


def row_forms(key: StoreKey) -> "dict[Table, RowForm]":
    """How the rows of each table of a store with this key are stored. A table that is not here is not sealed."""
    return {table: RowForm(table.value, key, _KEY_FORMS.get(table, KeyForm.PLAIN)) for table in Table if table not in _OPEN_TABLES}


class RowForm:
    """How the rows of one table are stored. Any thread may use it."""

    def __init__(self, table: bytes, key: StoreKey, key_form: KeyForm) -> None:
        self._table = table
        self._key = key
        self._key_form = key_form
        self._names = key.names()
        self._fixed_bytes = 12 if key_form is KeyForm.NAMED_IN_FOLDER else 0

    def stored_key(self, key: bytes) -> bytes:
        """What a row is stored under; of the beginning of keys, as far as whole names go, what theirs begin with."""
        match self._key_form:
            case KeyForm.PLAIN:
                return key
            case KeyForm.ID:
                return self._names.seal(key, self._table) if key else key
            case KeyForm.SOURCE:
                source, zero, rest = key.partition(b"\0")
                return self._seal_name(source) + rest if zero else key
            case KeyForm.NAMED | KeyForm.NAMED_IN_FOLDER:
                fixed, name = key[: self._fixed_bytes], key[self._fixed_bytes :]
                return fixed + self._seal_name(name) if name else fixed

    def shown_key(self, stored: bytes) -> bytes:
        """The key of a stored row; of one that nobody with the store key has made, what it is stored under."""
        match self._key_form:
            case KeyForm.PLAIN:
                return stored
            case KeyForm.ID:
                return self._names.open(stored, self._table) or stored
            case KeyForm.SOURCE:
                source = self._open_name(stored[:-8])
                return stored if source is None else source + b"\0" + stored[-8:]
            case KeyForm.NAMED | KeyForm.NAMED_IN_FOLDER:
                name = self._open_name(stored[self._fixed_bytes :])
                return stored if name is None else stored[: self._fixed_bytes] + name

    def seal(self, stored_key: bytes, value: bytes | memoryview) -> bytes:
        """What is stored as the value of the row under this stored key."""
        salt = os.urandom(SALT_BYTES)
        return salt + blocks.seal_blocks(self._box(salt, stored_key), value)

    def open(self, stored_key: bytes, stored: memoryview) -> memoryview:
        """The value of a row; empty if it was not sealed there, or is damaged."""
        return self.open_part(stored_key, stored, 0, self.value_bytes(stored))

    def value_bytes(self, stored: memoryview) -> int:
        """How long a value is that is stored so; 0 for what is too short to be one."""
        return blocks.value_bytes(max(0, len(stored) - SALT_BYTES))

    def open_part(self, stored_key: bytes, stored: memoryview, start: int, length: int) -> memoryview:
        """A part of a value, which ends before the value does; empty if the blocks that hold it are damaged."""
        return blocks.open_blocks(self._box(stored[:SALT_BYTES], stored_key), stored[SALT_BYTES:], start, length)

    def _box(self, salt: bytes | memoryview, stored_key: bytes) -> Box:
        return self._key.row_box(salt, self._table + b"\0" + stored_key)

    def _seal_name(self, name: bytes) -> bytes:
        return self._names.seal(name + bytes(-len(name) % _NAME_STEP_BYTES), self._table)

    def _open_name(self, sealed: bytes) -> bytes | None:
        name = self._names.open(sealed, self._table)
        return None if name is None else name.rstrip(b"\0")

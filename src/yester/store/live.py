# SPDX-License-Identifier: MIT
"""What a live folder keeps in the store between its versions (docs/format.md §10, docs/adr/0007).

Files rows of changed nodes, changed names, extents, and batches of written bytes under the folder's number, and applies what
changed in one transaction, so that whatever instant the process or the power ends at, the tables are the folder as it was
after some operation. Does not know what a node's row says.

Threads: reading on any; changes of one folder are applied by one thread at a time, in order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from yester.core.extents import Extent
from yester.core.records import Snapshot, is_valid_name
from yester.errors import BusyError, ConflictError, CorruptionError, FormatError, NotFoundError
from yester.store.lmdb import TOUCHED_BYTES, Environment, ReadTransaction, Table, WriteTransaction
from yester.store.locks import file_lock
from yester.store.snapshots import StoredSnapshot, put_snapshot

LIVE_VERSION = 1
LIVE_PREFIX = "live/"
"""Begins the source of a live folder. No other source has a slash in its name."""
REMOVED = 0
"""Stands for a name of the base that was removed. No node has this number."""

_FOLDER_BYTES, _NUMBER_BYTES = 4, 8
_NODE_KEY_BYTES = _FOLDER_BYTES + _NUMBER_BYTES
_FOLDERS_MAX = 2**32 - 1
_ROW_TABLES = (Table.LIVE_NODES, Table.LIVE_NAMES, Table.LIVE_EXTENTS, Table.LIVE_BATCHES)
_MEND_HINT = "run `yester repair`: it takes what is damaged out of the folder, and says what is lost; `yester check` only looks"


class LiveHead(msgspec.Struct, frozen=True, array_like=True):
    """A live folder: its number, and the next unused numbers in it."""

    version: int
    number: int
    next_node: int
    next_batch: int


@dataclass(frozen=True, slots=True)
class LiveChange:
    """What one commit changes in a folder. None takes a row away.

    `names` leads from a folder's node number and a name to a node number, or `REMOVED`; `extents` from a node number and an
    offset. `batches` are new batches by number, in parts, `dropped_batches` are those that no extent will name. `snapshot` is published
    with all this.
    """

    head: LiveHead
    nodes: Mapping[int, bytes | None] = field(default_factory=dict)
    names: Mapping[tuple[int, bytes], int | None] = field(default_factory=dict)
    extents: Mapping[tuple[int, int], Extent | None] = field(default_factory=dict)
    batches: Mapping[int, Sequence[bytes | memoryview]] = field(default_factory=dict)
    dropped_batches: tuple[int, ...] = ()
    snapshot: Snapshot | None = None


@dataclass(slots=True)
class LiveRows:
    """All rows of a folder but its bytes."""

    head: LiveHead
    nodes: dict[int, bytes] = field(default_factory=dict)
    names: dict[tuple[int, bytes], int] = field(default_factory=dict)
    extents: dict[int, list[Extent]] = field(default_factory=dict)
    """By node number, in order."""
    batch_bytes: dict[int, int] = field(default_factory=dict)
    """The length of each batch."""


@dataclass(slots=True)
class RawRows:
    """As `LiveRows`, of a folder with damage: None stands for a number, or an extent, that cannot be."""

    stored: dict[tuple[Table, bytes], bytes] = field(default_factory=dict)
    """Rows of nodes, names and extents as they are."""
    nodes: dict[int, bytes] = field(default_factory=dict)
    names: dict[tuple[int, bytes], int | None] = field(default_factory=dict)
    extents: dict[int, list[Extent | None]] = field(default_factory=dict)
    batch_bytes: dict[int, int] = field(default_factory=dict)
    strays: set[bytes] = field(default_factory=set)
    """Keys of extents that name no node and offset."""


class LiveFolders:
    """The live folders of a store."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def names(self) -> list[str]:
        """All there are, sorted."""
        with self._environment.read() as view:
            return list(iter_names(view))

    def create(self, name: str, *, next_node: int, nodes: Mapping[int, bytes]) -> LiveHead:
        """Make a folder of these nodes, the root at least; durable on return.

        Raises:
            ConflictError: there is one of that name.
        """
        key = _name_key(name)

        def apply(transaction: WriteTransaction) -> LiveHead:
            if transaction.get(Table.LIVE_FOLDERS, key) is not None:
                message = f"there is a live folder {name!r} already; nothing was changed"
                raise ConflictError(message, hint="choose another name")
            taken = {_decode_head(name, value).number for name, value in transaction.iterate(Table.LIVE_FOLDERS)}
            head = LiveHead(LIVE_VERSION, max(taken, default=0) + 1, next_node, 1)
            assert head.number <= _FOLDERS_MAX
            _apply_rows(transaction, LiveChange(head, nodes))
            transaction.put(Table.LIVE_FOLDERS, key, msgspec.msgpack.encode(head))
            return head

        return self._environment.write(apply)

    def load_head(self, name: str) -> LiveHead:
        """The head of a folder.

        Raises:
            NotFoundError: there is none of that name. CorruptionError, FormatError: it is not what it should be.
        """
        with self._environment.read() as view:
            return _load_head(view, name)

    def load(self, name: str) -> LiveRows:
        """Everything about a folder as it is now. 2 µs a row.

        Raises:
            NotFoundError: there is none of that name. CorruptionError, FormatError: its rows are not what they should be.
        """
        with self._environment.read() as view:
            return load_rows(view, name)

    def apply(self, name: str, change: LiveChange) -> StoredSnapshot | None:
        """Make a change; durable on return, and whole or not at all. Returns the snapshot, if one was published.

        Raises:
            StoreFullError: the disk is full; nothing was changed. NotFoundError: the folder is not there any more.
        """
        key = _name_key(name)

        def apply(transaction: WriteTransaction) -> StoredSnapshot | None:
            value = transaction.get(Table.LIVE_FOLDERS, key)
            if value is None or _decode_head(key, value).number != change.head.number:
                message = f"the live folder {name!r} was removed meanwhile; nothing was changed"
                raise NotFoundError(message)
            _apply_rows(transaction, change)
            transaction.put(Table.LIVE_FOLDERS, key, msgspec.msgpack.encode(change.head))
            return put_snapshot(transaction, change.snapshot) if change.snapshot is not None else None

        return self._environment.write(apply)

    def read(self, head: LiveHead, extent: Extent) -> bytes:
        """The bytes of an extent that is committed. About 5 µs and a copy.

        Raises:
            CorruptionError: its batch does not have them.
        """
        with self._environment.read() as view:
            part = view.get_part(Table.LIVE_BATCHES, row_key(head.number, extent.batch), extent.position, extent.length)
            if part is None:
                message = f"batch {extent.batch} of live folder {head.number} lacks bytes that a file needs"
                raise CorruptionError(message, hint=_MEND_HINT)
            data = bytes(part)
        self._environment.release_pages(extent.length + TOUCHED_BYTES)
        return data

    def lock(self, head: LiveHead, on_busy: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the right to use a folder, which one process at a time may; see `file_lock`."""
        return folder_lock(self._environment.path, head.number, on_busy)

    def holder(self, head: LiveHead) -> str:
        """Who uses a folder, as `file_lock` says it; nothing if nobody does."""
        found: list[str] = []
        if self._environment.readonly:
            return ""  # its locks cannot be asked

        def note(holder: str) -> None:
            found.append(holder)
            raise BusyError(holder)

        with suppress(BusyError), self.lock(head, note):
            pass
        return found[0] if found else ""


def removal(name: str) -> Callable[[WriteTransaction], None]:
    """The change that takes a folder away, with all that was not published of it.

    Raises, when it is applied:
        NotFoundError: there is none of that name.
    """
    key = _name_key(name)

    def apply(transaction: WriteTransaction) -> None:
        value = transaction.get(Table.LIVE_FOLDERS, key)
        if value is None:
            message = f"there is no live folder {name!r} in the store; nothing was changed"
            raise NotFoundError(message, hint="`yester status` lists those there are")
        try:
            numbers = {find_head(transaction, name).number}
        except CorruptionError:
            # No row says which rows were its own. They must not become those of a folder that is made later.
            numbers = set() if _damaged_heads(transaction) - {name} else _headless(transaction)
        for number in numbers:
            for table in _ROW_TABLES:
                for row, _ in list(transaction.iterate_sizes(table, _folder_key(number))):
                    transaction.delete(table, row)
        transaction.delete(Table.LIVE_FOLDERS, key)

    return apply


def source_of(live_name: str) -> str:
    """The source under which versions of a live folder are snapshots."""
    return LIVE_PREFIX + live_name


def live_name_of(source: str) -> str | None:
    """The live folder whose versions are snapshots of this source; None if it is no such source."""
    return source.removeprefix(LIVE_PREFIX) if source.startswith(LIVE_PREFIX) else None


def folder_lock(store: Path, number: int, on_busy: Callable[[str], None]) -> AbstractContextManager[None]:
    """As `LiveFolders.lock`, of the folder of a number in a store that need not be open."""
    return file_lock(store / f"live-{number}.lock", on_busy)


def iter_names(view: ReadTransaction) -> Iterator[str]:
    """The names of all live folders, sorted; none where a store of an earlier release, which has no table of them, is only read."""
    if view.has_table(Table.LIVE_FOLDERS):
        for name in sorted(name for name, _ in view.iterate(Table.LIVE_FOLDERS)):
            yield name.decode("utf-8", "surrogateescape")


def load_rows(view: ReadTransaction, name: str) -> LiveRows:
    """As `LiveFolders.load`, in a transaction that sees more than that."""
    head = _load_head(view, name)
    rows = LiveRows(head)
    with naming(name):
        _fill(view, rows)
    return rows


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Have the error for a row that cannot be read say of which folder it is."""
    try:
        yield
    except (CorruptionError, FormatError) as error:
        prefix = f"the live folder {name!r}: "
        message = prefix + error.message.removeprefix(prefix)
        raise type(error)(message, hint=error.hint) from error


def _fill(view: ReadTransaction, rows: LiveRows) -> None:
    head = rows.head
    for key, value in _rows(view, Table.LIVE_NODES, head):
        rows.nodes[_number(key)] = bytes(value)
    for key, value in _rows(view, Table.LIVE_NAMES, head):
        rows.names[_number(key[:_NUMBER_BYTES]), key[_NUMBER_BYTES:]] = _number(bytes(value))
    for key, value in _rows(view, Table.LIVE_EXTENTS, head):
        numbers = [_number(bytes(value[at : at + _NUMBER_BYTES])) for at in range(0, 3 * _NUMBER_BYTES, _NUMBER_BYTES)]
        extent = Extent(_number(key[_NUMBER_BYTES:]), *numbers)
        rows.extents.setdefault(_number(key[:_NUMBER_BYTES]), []).append(extent)
    for key, size in view.iterate_sizes(Table.LIVE_BATCHES, _folder_key(head.number)):
        rows.batch_bytes[_number(key[_FOLDER_BYTES:])] = size
    _judge_extents(rows)


def read_raw(view: ReadTransaction, number: int) -> RawRows:
    """All rows of a folder of this number but its bytes, for a repair; a row under a key that cannot be is only in `stored`."""
    raw = RawRows()
    for table in _ROW_TABLES[:3]:
        for key, value in view.iterate(table, _folder_key(number)):
            raw.stored[table, key] = bytes(value)
    for (table, key), stored in raw.stored.items():
        node, rest = int.from_bytes(key[_FOLDER_BYTES:_NODE_KEY_BYTES], "big"), key[_NODE_KEY_BYTES:]
        if table is Table.LIVE_NODES and len(key) == _NODE_KEY_BYTES and node:
            raw.nodes[node] = stored
        elif table is Table.LIVE_NAMES and is_valid_name(rest) and node:
            raw.names[node, rest] = int.from_bytes(stored, "big") if len(stored) == _NUMBER_BYTES else None
        elif table is Table.LIVE_EXTENTS:
            if len(rest) != _NUMBER_BYTES:
                raw.strays.add(key)
                continue
            is_sound = len(stored) == 3 * _NUMBER_BYTES
            numbers = [int.from_bytes(stored[at : at + _NUMBER_BYTES], "big") for at in range(0, 3 * _NUMBER_BYTES, _NUMBER_BYTES)]
            raw.extents.setdefault(node, []).append(Extent(int.from_bytes(rest, "big"), *numbers) if is_sound else None)
    for key, size in view.iterate_sizes(Table.LIVE_BATCHES, _folder_key(number)):
        raw.batch_bytes[int.from_bytes(key[_FOLDER_BYTES:], "big")] = size
    return raw


def find_head(view: ReadTransaction, name: str) -> LiveHead:
    """The head of a folder, or one like it where it is damaged and the rows that are left can only be its own.

    Raises:
        NotFoundError: there is none of that name. FormatError: a newer release wrote it.
        CorruptionError: it is damaged, and nothing says which rows are its own.
    """
    try:
        return _load_head(view, name)
    except CorruptionError:
        numbers = _headless(view)
        if len(numbers) != 1 or _damaged_heads(view) != {name}:
            raise
    number = numbers.pop()
    raw = read_raw(view, number)
    used = {*raw.nodes, *(number for number in raw.names.values() if number is not None), *raw.extents}
    return LiveHead(LIVE_VERSION, number, max(used, default=1) + 1, max(raw.batch_bytes, default=0) + 1)


def _headless(view: ReadTransaction) -> set[int]:
    """Numbers of folders that have rows and no head that can be read."""
    found = {int.from_bytes(key[:_FOLDER_BYTES], "big") for table in _ROW_TABLES for key, _ in view.iterate_sizes(table, b"")}
    for name in iter_names(view):
        with suppress(CorruptionError, FormatError):
            found.discard(_load_head(view, name).number)
    return found


def _damaged_heads(view: ReadTransaction) -> set[str]:
    """The names of folders whose heads cannot be read."""
    found = set()
    for name in iter_names(view):
        try:
            _load_head(view, name)
        except (CorruptionError, FormatError):
            found.add(name)
    return found


def find_damaged_extents(view: ReadTransaction, rows: LiveRows) -> Iterator[tuple[int, Extent]]:
    """The extents whose bytes are not what was written, each with its node. Reads all of them: 1 GB/s."""
    for node, extents in rows.extents.items():
        for extent in extents:
            key = row_key(rows.head.number, extent.batch)
            if view.get_part(Table.LIVE_BATCHES, key, extent.position, extent.length) is None:
                yield node, extent


def _load_head(view: ReadTransaction, name: str) -> LiveHead:
    key = _name_key(name)
    is_key = is_valid_name(key) and view.has_table(Table.LIVE_FOLDERS)
    value = view.get(Table.LIVE_FOLDERS, key) if is_key else None
    if value is None:
        message = f"there is no live folder {name!r} in the store"
        raise NotFoundError(message, hint="`yester status` lists those there are")
    return _decode_head(key, value)


def _judge_extents(rows: LiveRows) -> None:
    """Raises CorruptionError where an extent is none, overlaps the one before, or is not in its batch."""
    for node, extents in rows.extents.items():
        end = 0
        for extent in extents:
            if extent.length < 1 or extent.offset < end or extent.position + extent.length > rows.batch_bytes.get(extent.batch, 0):
                message = f"what it says of its node {node} at offset {extent.offset} cannot be"
                raise CorruptionError(message, hint=_MEND_HINT)
            end = extent.end


def _rows(view: ReadTransaction, table: Table, head: LiveHead) -> Iterator[tuple[bytes, memoryview]]:
    """The rows of a folder, without its number in their keys."""
    for key, value in view.iterate(table, _folder_key(head.number)):
        yield key[_FOLDER_BYTES:], value


def _apply_rows(transaction: WriteTransaction, change: LiveChange) -> None:
    folder = change.head.number
    for number, row in change.nodes.items():
        _put(transaction, Table.LIVE_NODES, row_key(folder, number), row)
    for (parent, name), number_or_none in change.names.items():
        value = None if number_or_none is None else number_or_none.to_bytes(_NUMBER_BYTES, "big")
        _put(transaction, Table.LIVE_NAMES, row_key(folder, parent) + name, value)
    for batch, data in change.batches.items():
        transaction.put(Table.LIVE_BATCHES, row_key(folder, batch), b"".join(data))
    for (node, offset), extent in change.extents.items():
        value = None if extent is None else b"".join(part.to_bytes(_NUMBER_BYTES, "big") for part in extent[1:])
        _put(transaction, Table.LIVE_EXTENTS, row_key(folder, node) + offset.to_bytes(_NUMBER_BYTES, "big"), value)
    for batch in change.dropped_batches:
        transaction.delete(Table.LIVE_BATCHES, row_key(folder, batch))


def _put(transaction: WriteTransaction, table: Table, key: bytes, value: bytes | None) -> None:
    if value is None:
        transaction.delete(table, key)
    else:
        transaction.put(table, key, value)
    transaction.looked_at(1)


def _decode_head(name: bytes, value: memoryview) -> LiveHead:
    try:
        head = msgspec.msgpack.decode(value, type=LiveHead)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the head of the live folder {name.decode('utf-8', 'backslashreplace')} is damaged: {error}"
        raise CorruptionError(message, hint=_MEND_HINT) from error
    if head.version > LIVE_VERSION:
        message = f"a live folder has version {head.version}; this release reads up to {LIVE_VERSION}"
        raise FormatError(message, hint="use a newer yester with this store")
    return head


def _name_key(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _folder_key(folder: int) -> bytes:
    return folder.to_bytes(_FOLDER_BYTES, "big")


def row_key(folder: int, number: int) -> bytes:
    """The key of a row of a folder by number, or how it begins."""
    return _folder_key(folder) + number.to_bytes(_NUMBER_BYTES, "big")


def _number(stored: bytes) -> int:
    if len(stored) != _NUMBER_BYTES:
        message = "one of its rows has a number that is none"
        raise CorruptionError(message, hint=_MEND_HINT)
    return int.from_bytes(stored, "big")

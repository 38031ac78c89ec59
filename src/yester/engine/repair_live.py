# SPDX-License-Identifier: MIT
"""Rows of a live folder that are damaged: a part of `engine.repair`.

One damaged row makes the whole folder unusable. It is taken out, and what hung on it is made again of the rest, so that the folder is one
again (docs/format.md §10). Rules:

1. A file whose row or extents are damaged is as in its base, with all that is in it; it is gone if it has no base. Never a part of each.
2. What leads to a node, `live_names` and bases, decides over what its row says that its names are. A damaged name is made again of that.
3. A folder of which only names are left is made again, with the owner and mode of the one it is in. What nothing leads to any more
   gets a name in the root: `recovered-` and its number.
4. A node that was moved away does not come back where it was. What was removed may: nothing else is known of it.

`plan_live` changes nothing. A folder whose rows are sound, or whose base cannot be read, or that a newer release wrote, stays as it is.
Nobody may use the folder meanwhile: a repair holds its lock.
"""

import os
import stat
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from yester.core.content import unpack_spans
from yester.core.extents import Extent
from yester.core.ids import ChunkId
from yester.core.node_row import ROOT_NUMBER, ROW_VERSION, NodeRow, decode_row
from yester.core.node_table import NODE_ID_BYTES, NodeMark
from yester.core.records import Entry
from yester.engine.live_base import EMPTY_FOLDER, BaseFolder, BaseReader, FolderBase
from yester.engine.repair_records import RowChange
from yester.errors import CorruptionError
from yester.store.chunks import ChunkSource
from yester.store.live import REMOVED, LiveHead, find_head, read_raw, row_key
from yester.store.lmdb import ReadTransaction, Table, WriteTransaction
from yester.store.snapshots import StoredSnapshot

_Place = tuple[int, bytes]
"""A name in a folder."""

_BARE_MODE = stat.S_IFDIR | 0o700
_DEPTH_MAX = 10_000
"""Folders above one another, at most, of a path that is told."""


class Outcome(Enum):
    """What became of something whose rows were damaged."""

    AS_IN_BASE = "as in its base"
    GONE = "gone"
    MADE_AGAIN = "made again"
    """A folder, of what is in it."""
    RENAMED = "renamed"
    """Nothing led to it."""


@dataclass(frozen=True, slots=True)
class LiveLoss:
    """What became of a node of a live folder. `path` is where it is, or was; None if that is not known."""

    folder: str
    number: int
    path: bytes | None
    outcome: Outcome


@dataclass(slots=True)
class LivePlan:
    """How one folder is mended."""

    name: str
    rows: list[RowChange] = field(default_factory=list)
    batches: list[bytes] = field(default_factory=list)
    """Keys of batches that no extent names any more."""
    losses: list[LiveLoss] = field(default_factory=list)
    is_base_lost: bool = False
    """Whether nothing says any more what the root was based on: its trees may have no name then."""

    def apply(self, transaction: WriteTransaction) -> bool:
        """Make it, all or nothing; False where rows are others by now."""
        if any(_get(transaction, row.table, row.key) != row.before for row in self.rows):
            return False
        for row in self.rows:
            if row.after is None:
                transaction.delete(row.table, row.key)
            else:
                transaction.put(row.table, row.key, row.after)
            transaction.looked_at(1)
        for key in self.batches:
            transaction.delete(Table.LIVE_BATCHES, key)
        return True


def plan_live(view: ReadTransaction, chunks: ChunkSource, name: str, latest: StoredSnapshot | None) -> LivePlan:
    """How to make a folder one again; a plan without rows if it is one. `latest` is its last version. Reads the trees of its base.

    Raises:
        CorruptionError: its base cannot be read, or nothing says which rows are its own. FormatError: a newer release wrote it.
    """
    head = find_head(view, name)
    return _Mending(view, head, BaseReader(chunks), latest, LivePlan(name)).run()


class _Mending:
    """One folder, as it is read and then as it will be."""

    def __init__(self, view: ReadTransaction, head: LiveHead, base: BaseReader, latest: StoredSnapshot | None, plan: LivePlan) -> None:
        self._view, self._head, self._base, self._latest, self._plan = view, head, base, latest, plan
        self._raw = read_raw(view, head.number)
        self._was: dict[int, NodeRow] = {}
        """The rows that can be read, as they are."""
        self._nodes: dict[int, NodeRow] = {}
        """The rows as they will be."""
        self._names: dict[int, dict[bytes, int]] = {}
        """By folder, as they will be."""
        self._lost: dict[int, NodeRow | None] = {}
        """Nodes that are not what they were, with their rows where only their bytes are lost."""
        self._entries: dict[int, tuple[Entry, NodeMark]] = {}
        """What bases say of nodes that are lost, and of files with several names."""
        self._folders: dict[int, FolderBase] = {}
        """The bases of all folders, also of those without rows."""
        self._bare: set[int] = set()
        """Folders of which only names are left."""
        self._places: dict[int, list[_Place]] = {}
        """The names of each node with a row, and of files with several: all that can be reached from the root."""
        self._ups: dict[int, _Place] = {}
        """The name of each folder that can be reached."""

    def run(self) -> LivePlan:
        self._judge()
        self._find_bases()
        self._make_lost()
        self._mend_names()
        self._reach(ROOT_NUMBER)
        self._name_unreached()
        self._settle_rows()
        self._settle_links()
        self._tell()
        self._compare()
        return self._plan

    # What is there.

    def _judge(self) -> None:
        """Tell rows that can be right from those that are lost, or are not there though others speak of them."""
        for number, stored in self._raw.nodes.items():
            try:
                self._was[number] = decode_row(number, stored)
            except CorruptionError:
                self._lost[number] = None
        for number, row in self._was.items():
            extents = self._raw.extents.get(number, [])
            if stat.S_ISREG(row.mode) and not _fit(row, extents, self._raw.batch_bytes):
                self._lost[number] = row
        if not stat.S_ISDIR(self._was[ROOT_NUMBER].mode if ROOT_NUMBER in self._was else 0):
            self._lost[ROOT_NUMBER] = None
        for (parent, name), leads_to in self._raw.names.items():
            if leads_to is not None:
                self._names.setdefault(parent, {})[name] = leads_to
        spoken_of = {*self._raw.extents, *self._names}
        spoken_of.update(number for names in self._names.values() for number in names.values() if number != REMOVED)
        spoken_of.update(parent for row in self._was.values() for parent, _ in row.links)
        self._lost |= dict.fromkeys(spoken_of - self._was.keys() - self._lost.keys())
        self._nodes = {number: row for number, row in self._was.items() if number not in self._lost}

    def _find_bases(self) -> None:
        """Walk over all bases, for what is lost and for files with several names."""
        waiting = [(number, FolderBase(*row.folder_base)) for number, row in self._nodes.items() if row.folder_base is not None]
        if ROOT_NUMBER in self._lost:
            live = self._latest.snapshot.live if self._latest is not None else None
            if self._latest is not None and live is not None and live.next_node <= self._head.next_node:
                waiting.append((ROOT_NUMBER, FolderBase(self._latest.snapshot.root.tree, ChunkId(live.table))))
            else:
                self._plan.is_base_lost = True
        while waiting:
            number, base = waiting.pop()
            if number in self._folders:
                continue
            self._folders[number] = base
            folder = self._base.folder(base)
            for entry, mark in zip(folder.entries, folder.marks, strict=True):
                if mark.number in self._lost or entry.rare.nlink > 1:
                    self._entries.setdefault(mark.number, (entry, mark))
                if mark.folder is not None and mark.number not in self._nodes:
                    waiting.append((mark.number, FolderBase(entry.tree, ChunkId(mark.folder.table))))

    def _make_lost(self) -> None:
        """Give what is lost a row again where anything is known of it."""
        holders = {parent for parent, names in self._names.items() if any(names.values())}
        holders |= {parent for row in self._nodes.values() for parent, _ in row.links}
        for number, row in self._lost.items():
            links = row.links if row is not None else ()
            if number == ROOT_NUMBER and number in self._folders:
                self._nodes[number] = self._root_row()
            elif number in self._entries:
                self._nodes[number] = msgspec.structs.replace(_row_of_entry(*self._entries[number]), links=links)
            elif row is not None and row.base:
                size = sum(span.length for span in unpack_spans(row.base))
                self._nodes[number] = msgspec.structs.replace(row, size=size, base_bytes=size)
            elif number == ROOT_NUMBER or number in holders:
                node_id = number.to_bytes(NODE_ID_BYTES, "big")
                owner = next(((known.uid, known.gid) for known in self._was.values()), (os.geteuid(), os.getegid()))
                self._nodes[number] = NodeRow(ROW_VERSION, node_id, _BARE_MODE, *owner, 0, 0, 0, 0, 0, ())
                self._bare.add(number)

    def _root_row(self) -> NodeRow:
        assert self._latest is not None
        assert self._latest.snapshot.live is not None
        root, live = self._latest.snapshot.root, self._latest.snapshot.live
        row = _row_of_entry(root, NodeMark(ROOT_NUMBER, live.node_id, live.ctime_ns, None))
        return msgspec.structs.replace(row, base=b"".join(self._folders[ROOT_NUMBER]))

    # Names.

    def _mend_names(self) -> None:
        """Make damaged names again from what nodes say, and cut those that lead nowhere, or are in what is no folder."""
        damaged = [place for place, number in self._raw.names.items() if number is None or (number and number not in self._nodes)]
        claims = {place: number for number, row in self._nodes.items() for place in row.links}
        for parent, name in damaged:
            moved = self._nodes.get(self._base_number(parent, name))
            if (parent, name) in claims:
                self._names.setdefault(parent, {})[name] = claims[parent, name]
            elif self._raw.names[parent, name] is None and moved is not None and moved.links:
                self._names.setdefault(parent, {})[name] = REMOVED
        for parent in [parent for parent in self._names if parent not in self._nodes or not stat.S_ISDIR(self._nodes[parent].mode)]:
            del self._names[parent]
        for parent, names in self._names.items():
            for name, number in tuple(names.items()):
                if number != REMOVED and number not in self._nodes:
                    self._places.setdefault(number, []).append((parent, name))  # to tell where it was
                    self._cut((parent, name))

    def _base_of(self, number: int) -> BaseFolder:
        return self._base.folder(self._folders[number]) if number in self._folders else EMPTY_FOLDER

    def _base_number(self, parent: int, name: bytes) -> int:
        """What a name in the base of a folder leads to."""
        folder = self._base_of(parent)
        index = folder.find(name)
        return folder.marks[index].number if index is not None else REMOVED

    def _leads_to(self, place: _Place) -> int:
        parent, name = place
        number = self._names.get(parent, {}).get(name)
        return self._base_number(parent, name) if number is None else number

    def _cut(self, place: _Place) -> None:
        """Have a name lead nowhere."""
        parent, name = place
        names = self._names.setdefault(parent, {})
        if self._base_number(parent, name) != REMOVED:
            names[name] = REMOVED
        else:
            names.pop(name, None)

    def _reach(self, top: int) -> None:
        """Find the names of all that is below a folder, and cut those that cannot be."""
        waiting = [top]
        while waiting:
            parent = waiting.pop()
            for name, number, is_folder in self._list(parent):
                place = parent, name
                row = self._nodes.get(number)
                claims = [link for link in row.links if self._leads_to(link) == number] if row is not None else []
                if number == ROOT_NUMBER or (claims and place not in claims) or (is_folder and number in self._ups):
                    self._cut(place)
                    continue
                if row is not None or number in self._entries:
                    self._places.setdefault(number, []).append(place)
                if is_folder:
                    self._ups[number] = place
                    waiting.append(number)

    def _list(self, parent: int) -> list[tuple[bytes, int, bool]]:
        """The names in a folder, with the number of each and whether it is a folder."""
        names = self._names.get(parent, {})
        folder = self._base_of(parent)
        found = [(name, number, self._is_folder(number)) for name, number in names.items() if number != REMOVED]
        for entry, mark in zip(folder.entries, folder.marks, strict=True):
            if entry.name not in names:
                found.append((entry.name, mark.number, self._is_folder(mark.number)))
        return found

    def _is_folder(self, number: int) -> bool:
        row = self._nodes.get(number)
        return stat.S_ISDIR(row.mode) if row is not None else number in self._folders

    def _name_unreached(self) -> None:
        """Give what nothing leads to a name again: one that it says itself, else one in the root."""
        while unreached := sorted(number for number in self._nodes if self._is_lacking(number)):
            number, place = next(
                ((number, place) for number in unreached for place in self._nodes[number].links if self._is_free(place)),
                (unreached[0], None),
            )
            parent, name = place or (ROOT_NUMBER, self._free_name(number))
            self._names.setdefault(parent, {})[name] = number
            self._places[number] = [(parent, name)]
            if self._is_folder(number):
                self._ups[number] = parent, name
                self._reach(number)
            if place is None:
                self._lose(number, Outcome.RENAMED)

    def _free_name(self, number: int) -> bytes:
        """A name in the root that leads to nothing."""
        name = b"recovered-%d" % number
        while self._leads_to((ROOT_NUMBER, name)) != REMOVED:
            name += b"-again"
        return name

    def _is_lacking(self, number: int) -> bool:
        """Whether a node has no name and ought to. One whose row names none was removed."""
        is_held = number in self._lost and any(self._names.get(number, {}).values())
        return number != ROOT_NUMBER and number not in self._places and (bool(self._nodes[number].links) or number in self._bare or is_held)

    def _is_free(self, place: _Place) -> bool:
        parent, _ = place
        return (parent == ROOT_NUMBER or parent in self._ups) and self._leads_to(place) == REMOVED

    # Rows.

    def _settle_rows(self) -> None:
        """Leave rows, of those made again, only to what must have one, and give one to all above what has."""
        needed = {ROOT_NUMBER}
        waiting = [number for number, places in self._places.items() if self._needs_row(number, places)]
        waiting += [number for number, names in self._names.items() if names and number in self._ups]
        while waiting:
            number = waiting.pop()
            if number in needed:
                continue
            needed.add(number)
            if number not in self._nodes:
                self._nodes[number] = _row_of_entry(*self._entry_of(number))
            waiting += [parent for parent, _ in self._places.get(number, ())] + ([self._ups[number][0]] if number in self._ups else [])
        for number in self._nodes.keys() - self._was.keys() - needed:
            del self._nodes[number]
        for number in self._lost.keys() & self._nodes.keys() - needed:
            del self._nodes[number]

    def _needs_row(self, number: int, places: list[_Place]) -> bool:
        if number not in self._nodes and number not in self._entries:
            return False  # it is gone
        is_made = number in self._lost or number not in self._was
        is_named = any(name in self._names.get(parent, {}) for parent, name in places)
        if self._is_folder(number):
            return not is_made or is_named
        # It may have lost a name since its base was made, which a version must say.
        is_other = number in self._lost and number in self._entries and self._entries[number][0].rare.nlink != len(places)
        return not is_made or is_named or is_other or len(places) > 1

    def _entry_of(self, number: int) -> tuple[Entry, NodeMark]:
        """What the base says of a node that can be reached and has no row."""
        if number in self._entries:
            return self._entries[number]
        parent, name = self._ups[number]
        folder = self._base_of(parent)
        index = folder.find(name)
        assert index is not None
        return folder.entries[index], folder.marks[index]

    def _settle_links(self) -> None:
        """Make rows say what names and bases do: their names, whose they are, how many folders are in them."""
        before: dict[int, dict[bytes, int]] = {}
        for (parent, name), number in self._raw.names.items():
            if number is not None:
                before.setdefault(parent, {})[name] = number
        for number, row in tuple(self._nodes.items()):
            changes: dict[str, object] = {}
            if number in self._places or number in self._ups:
                places = self._places.get(number) or [self._ups[number]]
                if set(places) != set(row.links):
                    changes["links"] = tuple(sorted(places))
            if number == ROOT_NUMBER or number in self._ups:
                subfolders = sum(is_folder for _, _, is_folder in self._list(number)) if stat.S_ISDIR(row.mode) else 0
                if subfolders != row.base_bytes:
                    changes["base_bytes"] = subfolders
                if before.get(number, {}) != self._names.get(number, {}):
                    changes["is_published"] = False
            if number in self._bare and number != ROOT_NUMBER:
                above = self._above(number)
                changes |= {"mode": above.mode, "uid": above.uid, "gid": above.gid, "mtime_ns": above.mtime_ns, "ctime_ns": above.ctime_ns}
            if changes:
                self._nodes[number] = msgspec.structs.replace(row, **{"is_published": False} | changes)

    def _above(self, number: int) -> NodeRow:
        """The next folder above whose row was not lost."""
        while number in self._bare and number != ROOT_NUMBER:
            number = self._ups[number][0]
        return self._nodes[number]

    # What is told, and done.

    def _lose(self, number: int, outcome: Outcome) -> None:
        self._plan.losses.append(LiveLoss(self._plan.name, number, self._path_of(number), outcome))

    def _path_of(self, number: int) -> bytes | None:
        parts: list[bytes] = []
        while number != ROOT_NUMBER:
            place = self._ups.get(number) or next(iter(self._places.get(number, ())), None)
            if place is None or len(parts) > _DEPTH_MAX:
                return None
            parts.append(place[1])
            number = place[0]
        return b"/".join(reversed(parts))

    def _tell(self) -> None:
        for number in sorted(self._lost):
            if number in self._bare:
                self._lose(number, Outcome.MADE_AGAIN)
            elif number in self._places or number == ROOT_NUMBER:
                is_there = number in self._nodes or number in self._entries
                self._lose(number, Outcome.AS_IN_BASE if is_there else Outcome.GONE)
            elif number in self._raw.nodes:
                self._lose(number, Outcome.GONE)

    def _compare(self) -> None:
        """List the rows that change."""
        stored = self._raw.stored
        rows: dict[tuple[Table, bytes], bytes] = {}
        folder = self._head.number
        for number, row in self._nodes.items():
            same = self._was.get(number) == row
            rows[Table.LIVE_NODES, row_key(folder, number)] = self._raw.nodes[number] if same else msgspec.msgpack.encode(row)
        for parent, names in self._names.items():
            for name, number in names.items():
                rows[Table.LIVE_NAMES, row_key(folder, parent) + name] = number.to_bytes(8, "big")
        kept = {extent.batch for node, extents in self._raw.extents.items() if node not in self._lost for extent in extents if extent}
        rows |= {
            (table, key): value
            for (table, key), value in stored.items()
            if table is Table.LIVE_EXTENTS and int.from_bytes(key[4:12], "big") not in self._lost and key not in self._raw.strays
        }
        for table, key in sorted(rows.keys() | stored.keys(), key=lambda item: (item[0].value, item[1])):
            before, after = stored.get((table, key)), rows.get((table, key))
            if before != after:
                self._plan.rows.append(RowChange(table, key, before, after))
        self._compare_head()
        if self._plan.rows:
            self._plan.batches = [row_key(folder, batch) for batch in self._raw.batch_bytes if batch not in kept]

    def _compare_head(self) -> None:
        head = msgspec.structs.replace(
            self._head,
            next_node=max(self._head.next_node, max(self._nodes) + 1),
            next_batch=max(self._head.next_batch, max(self._raw.batch_bytes, default=0) + 1),
        )
        key = self._plan.name.encode("utf-8", "surrogateescape")
        before, after = _get(self._view, Table.LIVE_FOLDERS, key), msgspec.msgpack.encode(head)
        if before != after:
            self._plan.rows.append(RowChange(Table.LIVE_FOLDERS, key, before, after))


def _fit(row: NodeRow, extents: list[Extent | None], batch_bytes: dict[int, int]) -> bool:
    """Whether the bytes of a file are all there."""
    end = 0
    for extent in extents:
        if extent is None or extent.length < 1 or extent.offset < end or extent.position + extent.length > batch_bytes.get(extent.batch, 0):
            return False
        end = extent.end
    return end <= row.size and 0 <= row.base_bytes <= row.size


def _row_of_entry(entry: Entry, mark: NodeMark) -> NodeRow:
    """The row of a node that is as the base says, without its names."""
    is_file, is_folder = stat.S_ISREG(entry.mode), stat.S_ISDIR(entry.mode)
    return NodeRow(
        ROW_VERSION,
        mark.node_id,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.rare.rdev,
        entry.size,
        entry.atime_ns,
        entry.mtime_ns,
        mark.ctime_ns,
        (),
        entry.rare.xattrs,
        b"" if is_file or is_folder else entry.content,
        entry.size if is_file else mark.folder.subfolders if mark.folder is not None else 0,
        entry.level if is_file else 0,
        entry.content if is_file else entry.content + mark.folder.table if mark.folder is not None else b"",
        entry.rare.hole_bytes,
    )


def _get(transaction: ReadTransaction, table: Table, key: bytes) -> bytes | None:
    value = transaction.get(table, key)
    return None if value is None else bytes(value)

# SPDX-License-Identifier: MIT
"""What of a live folder was changed and is not committed yet (docs/adr/0007).

Takes note of rows that changed, keeps written bytes until they are in the store, and gives all of it as one `LiveChange`. Batches
that no file consists of any more are dropped, but for those that a version being made still reads.

Threads: as the tree it belongs to.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

import msgspec

from yester.core.extents import Changes, Extent
from yester.core.records import Snapshot
from yester.fs.live_nodes import LiveNode, encode_row
from yester.store.live import LiveChange, LiveRows


class _Batch:
    """Written bytes, as they came: putting them together as they come would copy them again and again."""

    __slots__ = ("_parts", "_starts", "length")

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._starts: list[int] = []
        self.length = 0

    def append(self, data: bytes | memoryview) -> int:
        """Add bytes, which must not change any more; where they begin."""
        position = self.length
        self._parts.append(data)
        self._starts.append(position)
        self.length += len(data)
        return position

    def read(self, position: int, length: int) -> bytes:
        """Some of the bytes."""
        found = []
        index = bisect_right(self._starts, position) - 1
        while length:
            start = position - self._starts[index]
            part = self._parts[index][start : start + length]
            found.append(part)
            position, length, index = position + len(part), length - len(part), index + 1
        return b"".join(found)

    def parts(self) -> Sequence[bytes | memoryview]:
        """All of it, in order."""
        return tuple(self._parts)


class ChangeLog:
    """Everything since the last `take`."""

    def __init__(self, rows: LiveRows, read_committed: Callable[[Extent], bytes]) -> None:
        self._head = rows.head
        self._read_committed = read_committed
        self._dirty: set[int] = set()
        self._gone: set[int] = set()
        self._dropped_extents: dict[tuple[int, int], Extent | None] = {}
        """By node and offset, of nodes that lost their rows; one may have a new one already."""
        self._names: dict[tuple[int, bytes], int | None] = {}
        self._snapshot: Snapshot | None = None
        self._batch = rows.head.next_batch
        self._buffers: dict[int, _Batch] = {}
        """Bytes of batches that are not committed yet."""
        self._taken: set[int] = set()
        """Which of them were taken."""
        self._pinned_batch: int | None = None
        """While a version is being made: batches up to this one are being read, whatever files consist of."""
        self._batch_uses: dict[int, int] = dict.fromkeys(rows.batch_bytes, 0)
        """How many bytes of each committed batch files consist of. A batch goes with the last of them."""
        self.extent_count = sum(map(len, rows.extents.values()))
        for extents in rows.extents.values():
            for extent in extents:
                self._batch_uses[extent.batch] += extent.length

    # --- taking note ---

    def change_node(self, number: int) -> None:
        """A node that has a row is not what it was."""
        self._dirty.add(number)

    def drop_row(self, node: LiveNode) -> None:
        """A node needs no row any more, nor any for names and bytes in it: it is gone, or is what the base says."""
        self._dirty.discard(node.number)
        self._gone.add(node.number)
        self._names |= dict.fromkeys(((node.number, name) for name in node.names or ()), None)
        if node.extents is not None:
            self._dropped_extents |= {(node.number, offset): None for offset in self._count(node.extents.drop())}

    def forget_row(self, number: int) -> None:
        """There is a row of a node that is gone."""
        self._gone.add(number)

    def forget_extent(self, number: int, extent: Extent) -> None:
        """There is an extent of a node that is gone."""
        self._dropped_extents[number, extent.offset] = None
        self._batch_uses[extent.batch] -= extent.length
        self.extent_count -= 1

    def change_name(self, folder: int, name: bytes, number: int | None) -> None:
        """A name in a folder leads to this node, to `REMOVED`, or to what the base says (None)."""
        self._names[folder, name] = number

    def add_row(self, number: int) -> None:
        """A node has a row now."""
        self._gone.discard(number)
        self._dirty.add(number)

    def write(self, data: bytes | memoryview) -> tuple[int, int]:
        """Keep written bytes, which must not change any more; the batch and the position at which they are."""
        buffer = self._buffers.get(self._batch)
        if buffer is None:
            buffer = self._buffers[self._batch] = _Batch()
        return self._batch, buffer.append(data)

    def read(self, extent: Extent) -> bytes:
        """The bytes of an extent, wherever they are."""
        buffer = self._buffers.get(extent.batch)
        if buffer is None:
            return self._read_committed(extent)
        return buffer.read(extent.position, extent.length)

    def publish(self, snapshot: Snapshot) -> None:
        """Have a snapshot published together with all that changed."""
        self._snapshot = snapshot

    # --- for versions ---

    def begin_version(self) -> int:
        """Keep all batches so far, and write into a new one. Returns the number of the last."""
        self._batch += self._batch in self._buffers
        self._pinned_batch = self._batch - 1
        return self._pinned_batch

    @property
    def is_version_begun(self) -> bool:
        """Whether a version is being made."""
        return self._pinned_batch is not None

    def end_version(self) -> None:
        """Batches are not read any more."""
        self._pinned_batch = None

    # --- committing ---

    @property
    def pending_bytes(self) -> int:
        """Written bytes in memory that are not committed yet."""
        return sum(buffer.length for buffer in self._buffers.values())

    @property
    def untaken_bytes(self) -> int:
        """Written bytes that were not taken yet."""
        return sum(buffer.length for batch, buffer in self._buffers.items() if batch not in self._taken)

    @property
    def used_bytes(self) -> int:
        """Written bytes that files consist of, and those that were not taken yet."""
        return sum(self._batch_uses.values()) + self.untaken_bytes

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._dirty or self._gone or self._names or self._snapshot) or len(self._buffers) > len(self._taken)

    def take(self, nodes: Mapping[int, LiveNode], next_node: int) -> LiveChange | None:
        """All that was changed since this was last asked, to be committed after what was taken before; None if nothing was.

        What is taken counts as committed from now on, but for bytes, which stay in memory until `committed` is told.
        """
        if not self.has_changes:
            return None
        extents = self._take_extents(nodes)
        for batch in self._buffers:
            self._batch_uses.setdefault(batch, 0)
        unused = (batch for batch, uses in self._batch_uses.items() if not uses)
        dropped = tuple(batch for batch in unused if batch > (self._pinned_batch or 0) and batch not in self._buffers)
        for batch in dropped:
            del self._batch_uses[batch]
        rows: dict[int, bytes | None] = {number: encode_row(nodes[number]) for number in self._dirty}
        rows |= dict.fromkeys(self._gone)
        batches = {number: buffer.parts() for number, buffer in self._buffers.items() if number not in self._taken}
        self._taken |= batches.keys()
        self._batch += self._batch in batches
        self._head = msgspec.structs.replace(self._head, next_node=next_node, next_batch=self._batch)
        change = LiveChange(self._head, rows, self._names, extents, batches, dropped, self._snapshot)
        self._names, self._snapshot = {}, None
        self._dirty, self._gone = set(), set()
        return change

    def committed(self, change: LiveChange) -> None:
        """A change that was taken is in the store."""
        for batch in change.batches:
            del self._buffers[batch]
            self._taken.discard(batch)

    def _take_extents(self, nodes: Mapping[int, LiveNode]) -> Mapping[tuple[int, int], Extent | None]:
        taken, self._dropped_extents = self._dropped_extents, {}
        for number in self._dirty:
            extents = nodes[number].extents
            if extents is not None:
                taken |= {(number, offset): extent for offset, extent in self._count(extents.take_changes()).items()}
        return taken

    def _count(self, changes: Changes) -> dict[int, Extent | None]:
        """Note how much of each batch is in use, and return what changed otherwise."""
        self.extent_count += changes.added
        for batch, count in changes.uses.items():
            self._batch_uses[batch] = self._batch_uses.get(batch, 0) + count
        return changes.extents

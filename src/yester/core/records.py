# SPDX-License-Identifier: MIT
"""Records: directory entries, trees, snapshots, and what a backup remembers of its source (docs/format.md §5–§7).

Records are msgspec msgpack arrays. New fields are only ever appended, and have defaults: an old reader skips what it
does not know, a new reader fills in what an old writer did not write. Bytes that come from a store are hostile:
`decode_*` raises `CorruptionError` for what is not a record at all, and `entry_problem` names the entries of a well-formed
tree that must not be shown, so that one bad entry does not hide its siblings.
"""

import stat
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from yester.core.content import EMPTY, INLINE_SPANS_MAX, LEVEL_MAX, SPAN_BYTES, Content
from yester.core.ids import ID_BYTES, ChunkId, SnapshotId, TreeId, snapshot_id
from yester.errors import CorruptionError, FormatError, UsageError

RECORD_VERSION = 1
TREE_MAGIC = b"T"

NAME_BYTES_MAX = 255
SYMLINK_BYTES_MAX = 4095
SIZE_MAX = 2**63 - 1
TIME_NS_MAX = 2**63 - 1
"""Into the year 2262; the first is as far before 1970. File systems may know times beyond."""
MODE_MAX = 0o177777
TREE_ENTRIES_MAX = 6_000_000
"""Of a directory: more than fit into the largest record, if each has a name and times of its own."""
_TREE_BYTES_TRUSTED = 1 << 20
"""Smaller records cannot take much memory, whatever they say."""
_ENTRY_BYTES_MIN = 20
_TEXT_MAX = 4000
"""Characters of a tag or remark: it is shown in tables."""
XATTR_NAMES_MAX = 64
"""A snapshot lists at most so many distinct xattr names; one more and it lists only `ANY_XATTR`."""
ANY_XATTR = b"*"


class Extra(msgspec.Struct, frozen=True, array_like=True):
    """What few entries have. An entry without any of it has no `Extra` at all."""

    nlink: int = 1
    """Hard links the file had at its source, also those outside the backup."""
    link: tuple[int, int] = (0, 0)
    """Device and inode at the source where `nlink` > 1: equal within one snapshot means the same file."""
    rdev: int = 0
    """Device number of a block or character device."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """Name and value, sorted by name. POSIX ACLs are the raw `system.posix_acl_*` values."""
    hole_bytes: int = 0
    """How many of the file's bytes are holes."""


NO_EXTRA = Extra()


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One name in a directory, with all that is known of what it names.

    `content` depends on the file type in `mode`: a regular file's packed spans (of `level`), a directory's tree id, a
    symlink's target; else nothing. Times are nanoseconds since the epoch and may be negative.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    size: int
    level: int
    content: bytes
    extra: Extra | None = None

    @property
    def tree(self) -> TreeId:
        """A directory's tree id."""
        assert stat.S_ISDIR(self.mode)
        return TreeId(ChunkId(self.content))

    @property
    def file_content(self) -> Content:
        """A regular file's content; empty for all else."""
        return Content(self.level, self.content) if stat.S_ISREG(self.mode) else EMPTY

    @property
    def rare(self) -> Extra:
        """`extra`, or its defaults."""
        return self.extra or NO_EXTRA

    @property
    def stored_bytes(self) -> int:
        """File bytes that are not holes."""
        return self.size - self.extra.hole_bytes if self.extra else self.size


class Tree(msgspec.Struct, frozen=True, array_like=True):
    """One directory. Entries are sorted by raw name and names are unique.

    `users` and `groups` give the names that the uids and gids of the entries had at the source, as far as they had any.
    """

    version: int
    users: dict[int, str]
    groups: dict[int, str]
    entries: tuple[Entry, ...]


class _TreeOutline(msgspec.Struct, frozen=True, array_like=True):
    """A tree whose tables were not decoded."""

    version: int
    users: msgspec.Raw
    groups: msgspec.Raw
    entries: msgspec.Raw


class Totals(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot holds. `size_bytes` adds up file sizes, counting each hard-linked file once."""

    files: int = 0
    directories: int = 0
    others: int = 0
    size_bytes: int = 0


class Added(msgspec.Struct, frozen=True, array_like=True):
    """What one backup brought that the store did not have."""

    new_files: int = 0
    changed_files: int = 0
    chunk_bytes: int = 0
    """New chunks before compression."""
    stored_bytes: int = 0
    """New segments, as stored."""


class LiveRoot(msgspec.Struct, frozen=True, array_like=True):
    """What the snapshot of a live folder knows of its root besides the entry, and the next unused node number (`core.node_table`)."""

    table: bytes
    subfolders: int
    node_id: bytes
    ctime_ns: int
    next_node: int


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """A root directory plus who, where and when. Its id is the hash of its encoded record."""

    version: int
    source: str
    name: str
    """`YYYY-MM-DD_HH-MM-SS` of `time_ns` in UTC, with `-2`, `-3` … where the source has that name already."""
    time_ns: int
    """When the backup started: the snapshot holds nothing older than this that had changed by then."""
    finished_ns: int
    root: Entry
    """The directory itself; its name is empty."""
    paths: tuple[bytes, ...] = ()
    """Absolute host paths. Unless `is_root_made_up` it is one, and `root` is that folder."""
    host: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()
    totals: Totals = Totals()
    added: Added = Added()
    skipped: int = 0
    """Files that could not be read, or that changed while being read."""
    xattr_names: tuple[bytes, ...] = ()
    """Distinct xattr names in the snapshot, sorted; just `ANY_XATTR` if there are too many to list."""
    message: str = ""
    program: str = ""
    is_root_made_up: bool = False
    """Whether `root` is no folder of the host, but holds each of `paths` under its last component."""
    live: LiveRoot | None = None
    """Of a version of a live folder: where its node tables begin."""


class Forgotten(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot that was forgotten and can be had back: when that was, its record as it was, and the generation that began with it."""

    version: int
    forgotten_ns: int
    record: bytes
    generation: int


class Pin(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot that no policy may forget: since when, and why if somebody said so."""

    version: int
    pinned_ns: int
    message: str = ""


class Damaged(msgspec.Struct, frozen=True, array_like=True):
    """A chunk that something needs and whose bytes are lost: since when that is known."""

    version: int
    noted_ns: int


class SeenDirectory(msgspec.Struct, frozen=True, array_like=True):
    """One source directory at its last backup. `tree` is what it was stored as.

    `marks` holds, for each entry of the tree in its order, what the tree does not: inode number and ctime at the source;
    `UNTRUSTED` where the time stamps could hide a later change (see `engine.scan`). `xattr_names` are those in the
    directory and all below it, as in `Snapshot`.
    """

    version: int
    tree: TreeId
    marks: tuple[tuple[int, int], ...]
    xattr_names: tuple[bytes, ...] = ()


UNTRUSTED = (0, 0)
"""No file has inode 0."""


class _Versioned(msgspec.Struct, frozen=True, array_like=True):
    """What every record begins with, whatever release wrote it."""

    version: int


_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no record."""

_encoder = msgspec.msgpack.Encoder()
_version_decoder = msgspec.msgpack.Decoder(_Versioned)
_tree_decoder = msgspec.msgpack.Decoder(Tree)
_outline_decoder = msgspec.msgpack.Decoder(_TreeOutline)
_snapshot_decoder = msgspec.msgpack.Decoder(Snapshot)
_seen_decoder = msgspec.msgpack.Decoder(SeenDirectory)
_forgotten_decoder = msgspec.msgpack.Decoder(Forgotten)
_pin_decoder = msgspec.msgpack.Decoder(Pin)
_damaged_decoder = msgspec.msgpack.Decoder(Damaged)


def encode_tree(tree: Tree) -> bytes:
    """The bytes whose hash is the tree's id. 0.12 ms for 1000 entries."""
    return TREE_MAGIC + _encoder.encode(tree)


def decode_tree(record: bytes | memoryview) -> Tree:
    """The tree of an encoded record; its entries are not judged (`entry_problem`). 0.28 ms for 1000 entries.

    Raises:
        CorruptionError: not a tree record.
        FormatError: made by a newer release.
    """
    if record[:1] != TREE_MAGIC:
        message = "a chunk that should hold a directory does not"
        raise CorruptionError(message)
    if len(record) > _TREE_BYTES_TRUSTED:
        _refuse_bomb(record[1:])
    tree: Tree = _decode(_tree_decoder, record[1:], "directory")
    return tree


def _refuse_bomb(record: bytes | memoryview) -> None:
    """Raises CorruptionError for a large tree that would take very much more memory than it has bytes, as no real one does."""
    outline: _TreeOutline = _decode(_outline_decoder, record, "directory")
    for items, item_bytes_min in ((outline.entries, _ENTRY_BYTES_MIN), (outline.users, 2), (outline.groups, 2)):
        count = _item_count(bytes(items))
        if count > TREE_ENTRIES_MAX or count * item_bytes_min > len(record):
            message = f"a directory record claims to hold {count} items, more than any can"
            raise CorruptionError(message)


def _item_count(container: bytes) -> int:
    """How many items a msgpack array or map says it has. Only large ones have their number in bytes of its own."""
    width = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}.get(container[0], 0) if container else 0
    return int.from_bytes(container[1 : 1 + width], "big")


def encode_snapshot(snapshot: Snapshot) -> tuple[SnapshotId, bytes]:
    """The record and its id."""
    record = _encoder.encode(snapshot)
    return snapshot_id(record), record


def decode_snapshot(record: bytes) -> Snapshot:
    """The snapshot of an encoded record.

    Raises:
        CorruptionError: not a snapshot record, or its root is not a directory.
        FormatError: made by a newer release.
    """
    snapshot: Snapshot = _decode(_snapshot_decoder, record, "snapshot")
    root = snapshot.root
    if not 0 <= root.mode <= MODE_MAX or not stat.S_ISDIR(root.mode) or len(root.content) != ID_BYTES:
        message = f"the record of snapshot {snapshot.source}@{snapshot.name} is damaged: its root is not a directory"
        raise CorruptionError(message)
    return snapshot


def encode_seen(seen: SeenDirectory) -> bytes:
    """The bytes of a scan record."""
    return _encoder.encode(seen)


def decode_seen(record: bytes | memoryview) -> SeenDirectory:
    """The scan record of these bytes.

    Raises:
        CorruptionError: not a scan record.
        FormatError: made by a newer release.
    """
    seen: SeenDirectory = _decode(_seen_decoder, record, "scan")
    if len(seen.tree) != ID_BYTES:
        message = f"a scan record is damaged: its directory id has {len(seen.tree)} bytes"
        raise CorruptionError(message)
    return seen


def encode_forgotten(forgotten: Forgotten) -> bytes:
    """The bytes that are stored of a forgotten snapshot."""
    return _encoder.encode(forgotten)


def decode_forgotten(record: bytes | memoryview) -> Forgotten:
    """What `encode_forgotten` made these bytes from; the snapshot's own record in it is not decoded.

    Raises:
        CorruptionError: not such a record. FormatError: made by a newer release.
    """
    forgotten: Forgotten = _decode(_forgotten_decoder, record, "forgotten snapshot")
    _check_time(forgotten.forgotten_ns, "forgotten snapshot")
    return forgotten


def encode_pin(pin: Pin) -> bytes:
    """The bytes that are stored of a pin."""
    return _encoder.encode(pin)


def decode_pin(record: bytes | memoryview) -> Pin:
    """The pin of these bytes.

    Raises:
        CorruptionError: not a pin. FormatError: made by a newer release.
    """
    pin: Pin = _decode(_pin_decoder, record, "pin")
    _check_time(pin.pinned_ns, "pin")
    return pin


def _check_time(time_ns: int, what: str) -> None:
    if not -TIME_NS_MAX <= time_ns <= TIME_NS_MAX:
        message = f"a {what} record is damaged: its time is absurd"
        raise CorruptionError(message)


def encode_damaged(damaged: Damaged) -> bytes:
    """The bytes that are stored of a damaged chunk."""
    return _encoder.encode(damaged)


def decode_damaged(record: bytes | memoryview) -> Damaged:
    """What is known of a damaged chunk.

    Raises:
        CorruptionError: not such a record. FormatError: made by a newer release.
    """
    damaged: Damaged = _decode(_damaged_decoder, record, "damaged chunk")
    if not 0 < damaged.noted_ns <= TIME_NS_MAX:
        message = "a damaged chunk record is damaged: its time is absurd"
        raise CorruptionError(message)
    return damaged


def _decode(decoder: Any, record: bytes | memoryview, what: str) -> Any:  # noqa: ANN401 (msgspec's decoders are generic over their record)
    problem: Exception | None = None
    try:
        value = decoder.decode(record)
        version = value.version
    except _UNDECODABLE as error:
        # A newer release may have done more than append fields. Then its version says so.
        problem = error
        version = _find_version(record)
    if version > RECORD_VERSION:
        message = f"a {what} record has version {version}; this release reads up to {RECORD_VERSION}"
        raise FormatError(message, hint="use a newer yester with this store")
    if problem is not None or version < 1:
        message = f"a {what} record is damaged: {problem or 'it has no version'}"
        raise CorruptionError(message) from problem
    return value


def _find_version(record: bytes | memoryview) -> int:
    """The version of a record that cannot be decoded; 0 if that is not to be found either."""
    try:
        return _version_decoder.decode(record).version
    except _UNDECODABLE:
        return 0


def listed_xattr_names(names: AbstractSet[bytes]) -> tuple[bytes, ...]:
    """These distinct xattr names as a snapshot lists them."""
    return tuple(sorted(names)) if len(names) <= XATTR_NAMES_MAX and ANY_XATTR not in names else (ANY_XATTR,)


def check_text(text: str) -> None:
    """Raises UsageError for what cannot be a tag or remark: these are shown in tables, and stored as UTF-8."""
    if len(text) > _TEXT_MAX:
        message = f"a tag or remark of {len(text)} characters is too long; nothing was stored"
        raise UsageError(message, hint=f"write at most {_TEXT_MAX}")
    if not text.isprintable():
        message = f"{text!r} cannot be a tag or remark: it holds characters that cannot be printed; nothing was stored"
        raise UsageError(message, hint="write it as UTF-8 text on one line")


def check_tag(tag: str) -> None:
    """Raises UsageError for what cannot be a tag."""
    if not tag:
        message = "a tag is empty; nothing was stored"
        raise UsageError(message, hint="give it a name, or leave it out")
    check_text(tag)


def is_valid_name(name: bytes) -> bool:
    """Whether a directory may hold this name: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`."""
    return 0 < len(name) <= NAME_BYTES_MAX and b"/" not in name and b"\0" not in name and name not in (b".", b"..")


def entry_problem(entry: Entry) -> str:  # noqa: PLR0911 (one return a rule reads best)
    """Why an entry from a store must not be shown or restored; empty if it may.

    The kernel answers EIO for a whole directory that holds one name with a slash, and cuts names at NUL: nothing that
    fails here may reach it.
    """
    if not is_valid_name(entry.name):
        return "its name is not a file name"
    if entry.size < 0 or entry.size > SIZE_MAX:
        return "its size is absurd"
    if not (0 <= entry.mode <= MODE_MAX and 0 <= entry.uid < 2**32 and 0 <= entry.gid < 2**32):
        return "its mode or owner is absurd"
    content = len(entry.content)
    match stat.S_IFMT(entry.mode):
        case stat.S_IFREG:
            if entry.level < 0 or entry.level > LEVEL_MAX or content % SPAN_BYTES or content > SPAN_BYTES * INLINE_SPANS_MAX:
                return "its content list is damaged"
        case stat.S_IFDIR:
            if content != ID_BYTES:
                return "its directory id is damaged"
        case stat.S_IFLNK:
            if not 0 < content <= SYMLINK_BYTES_MAX or b"\0" in entry.content:
                return "its link target is damaged"
        case stat.S_IFIFO | stat.S_IFSOCK | stat.S_IFBLK | stat.S_IFCHR:
            if content:
                return "it is a special file with content"
        case _:
            return "its file type is unknown"
    return _extra_problem(entry.extra, entry.size) if entry.extra is not None else ""


def _extra_problem(extra: Extra, size: int) -> str:
    if not (1 <= extra.nlink < 2**32 and 0 <= extra.hole_bytes <= size and 0 <= extra.rdev < 2**32):
        return "its link count, device number or holes are absurd"
    if not all(0 < len(name) <= NAME_BYTES_MAX and b"\0" not in name for name, _ in extra.xattrs):
        return "it has an attribute without a proper name"
    return ""

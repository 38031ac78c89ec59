# SPDX-License-Identifier: MIT
"""Records: what was encoded comes back, newer and damaged ones are told apart, and hostile entries are named."""

import stat
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yester.core.content import INLINE_SPANS_MAX, LEVEL_MAX, pack_span
from yester.core.ids import ID_BYTES, ChunkId, TreeId, chunk_id, snapshot_id
from yester.core.records import (
    RECORD_VERSION,
    SIZE_MAX,
    TIME_NS_MAX,
    Added,
    Entry,
    Extra,
    Forgotten,
    Pin,
    SeenDirectory,
    Snapshot,
    Totals,
    Tree,
    decode_forgotten,
    decode_pin,
    decode_seen,
    decode_snapshot,
    decode_tree,
    encode_forgotten,
    encode_pin,
    encode_seen,
    encode_snapshot,
    encode_tree,
    entry_problem,
    is_valid_name,
)
from yester.errors import CorruptionError, FormatError

int64 = st.integers(-(2**63), 2**63 - 1)
uint32 = st.integers(0, 2**32 - 1)
names = st.binary(min_size=1, max_size=255).filter(is_valid_name)
xattrs = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=20)), max_size=3).map(tuple)
extras = st.builds(
    Extra,
    nlink=st.integers(1, 2**32 - 1),
    link=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    rdev=uint32,
    xattrs=xattrs,
    hole_bytes=st.integers(0, SIZE_MAX),
)
entries = st.builds(
    Entry,
    name=names,
    mode=st.integers(0, 0o177777),
    uid=uint32,
    gid=uint32,
    mtime_ns=int64,
    atime_ns=int64,
    size=st.integers(0, SIZE_MAX),
    level=st.integers(0, LEVEL_MAX),
    content=st.binary(max_size=400),
    extra=st.none() | extras,
)
ids = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
owners = st.dictionaries(uint32, st.text(max_size=10), max_size=3)
trees = st.builds(Tree, st.just(RECORD_VERSION), owners, owners, st.lists(entries, max_size=4).map(tuple))
roots = st.builds(lambda entry, tree: msgspec.structs.replace(entry, name=b"", mode=stat.S_IFDIR | 0o755, content=tree), entries, ids)
texts = st.text(max_size=20)
snapshots = st.builds(
    Snapshot,
    version=st.just(RECORD_VERSION),
    source=texts,
    name=texts,
    time_ns=int64,
    finished_ns=int64,
    root=roots,
    paths=st.lists(st.binary(max_size=20), max_size=3).map(tuple),
    host=texts,
    user=texts,
    tags=st.lists(texts, max_size=3).map(tuple),
    totals=st.builds(Totals, st.integers(0, 2**40)),
    added=st.builds(Added, st.integers(0, 2**40)),
    skipped=st.integers(0, 2**40),
    xattr_names=st.lists(st.binary(max_size=20), max_size=3).map(tuple),
    message=texts,
    program=texts,
)
marks = st.lists(st.tuples(st.integers(0, 2**64 - 1), int64), max_size=4).map(tuple)
seen_directories = st.builds(SeenDirectory, st.just(RECORD_VERSION), ids, marks, st.lists(st.binary(max_size=9), max_size=3).map(tuple))

FILE = Entry(b"file", stat.S_IFREG | 0o644, 1000, 1000, 10**18, 10**18, 3, 0, pack_span(chunk_id(b"abc"), 3))
FOLDER = msgspec.structs.replace(FILE, name=b"folder", mode=stat.S_IFDIR | 0o755, size=0, content=chunk_id(b"T"))
LINK = msgspec.structs.replace(FILE, name=b"link", mode=stat.S_IFLNK | 0o777, size=4, content=b"file")
FIFO = msgspec.structs.replace(FILE, name=b"fifo", mode=stat.S_IFIFO | 0o600, size=0, content=b"")
RICH = msgspec.structs.replace(FILE, name=b"rich", extra=Extra(2, (1, 2), 0, ((b"user.a", b"1"),), 3))
TREE = Tree(RECORD_VERSION, {1000: "ann"}, {1000: "staff"}, (FIFO, FILE, FOLDER, LINK, RICH))
SNAPSHOT = Snapshot(
    RECORD_VERSION, "home", "2026-11-22_10-00-00", 1, 2, msgspec.structs.replace(FOLDER, name=b""), (b"/home",), "host", "ann", ("tag",)
)
SEEN = SeenDirectory(RECORD_VERSION, TreeId(ChunkId(bytes(32))), ((1, 2), (0, 0)), (b"user.a",))

Decode = Callable[[bytes], Any]
KINDS: list[tuple[Decode, bytes, bytes]] = [
    (decode_tree, b"T", encode_tree(TREE)),
    (decode_snapshot, b"", encode_snapshot(SNAPSHOT)[1]),
    (decode_seen, b"", encode_seen(SEEN)),
]
"""How to decode it, what stands before its msgpack, one that is encoded."""
all_kinds = pytest.mark.parametrize(("decode", "magic", "record"), KINDS, ids=["tree", "snapshot", "seen"])


@settings(max_examples=50)
@given(trees)
def test_a_tree_comes_back_as_it_was_encoded(tree: Tree) -> None:
    record = encode_tree(tree)
    assert decode_tree(record) == tree
    assert decode_tree(memoryview(record)) == tree
    assert encode_tree(decode_tree(record)) == record


@given(snapshots)
def test_a_snapshot_comes_back_as_it_was_encoded_and_its_id_names_its_bytes(snapshot: Snapshot) -> None:
    its_id, record = encode_snapshot(snapshot)
    assert decode_snapshot(record) == snapshot
    assert its_id == snapshot_id(record)


@given(seen_directories)
def test_a_seen_directory_comes_back_as_it_was_encoded(seen: SeenDirectory) -> None:
    assert decode_seen(encode_seen(seen)) == seen


def test_what_few_entries_have_takes_no_room_in_the_others() -> None:
    assert FILE.extra is None
    assert FILE.rare == Extra()
    assert FILE.stored_bytes == 3
    assert RICH.stored_bytes == 0
    assert len(encode_tree(TREE)) < 600


@pytest.mark.parametrize(
    ("kind", "place"),
    [(0, ()), (0, (3, 0)), (0, (3, 4)), (0, (3, 4, 9)), (1, ()), (1, (5,)), (1, (10,)), (1, (11,)), (2, ())],
    ids=["tree", "first entry", "last entry", "extra", "snapshot", "root", "totals", "added", "seen"],
)
def test_fields_that_a_newer_release_appended_are_skipped(kind: int, place: tuple[int, ...]) -> None:
    decode, magic, record = KINDS[kind]
    fields = msgspec.msgpack.decode(record[len(magic) :])
    inner = fields
    for index in place:
        inner = inner[index]
    inner.extend([None, "new", [1, {"x": b"y"}]])
    assert decode(magic + msgspec.msgpack.encode(fields)) == decode(record)


@all_kinds
def test_a_record_of_a_newer_version_is_refused_as_such_and_not_as_damage(decode: Decode, magic: bytes, record: bytes) -> None:
    fields = msgspec.msgpack.decode(record[len(magic) :])
    for newer in ([RECORD_VERSION + 1, *fields[1:]], [RECORD_VERSION + 1], [RECORD_VERSION + 1, "quite", {"another": "shape"}]):
        with pytest.raises(FormatError) as caught:
            decode(magic + msgspec.msgpack.encode(newer))
        assert caught.value.hint


@all_kinds
@pytest.mark.parametrize("version", [0, -1, "1", None])
def test_a_record_without_a_version_is_damaged(decode: Decode, magic: bytes, record: bytes, version: object) -> None:
    fields = msgspec.msgpack.decode(record[len(magic) :])
    with pytest.raises(CorruptionError):
        decode(magic + msgspec.msgpack.encode([version, *fields[1:]]))


@all_kinds
def test_a_record_cut_short_is_damaged(decode: Decode, magic: bytes, record: bytes) -> None:
    del magic
    for length in range(len(record)):
        with pytest.raises(CorruptionError):
            decode(record[:length])
    with pytest.raises(CorruptionError):
        decode(record + b"\0")


@all_kinds
@settings(max_examples=150)
@given(st.data())
def test_changed_bytes_are_a_record_or_damage_and_nothing_else(decode: Decode, magic: bytes, record: bytes, data: st.DataObject) -> None:
    del magic
    changed = bytearray(record)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    is_decoded_or_refused(decode, bytes(changed))


@all_kinds
@given(garbage=st.binary(max_size=100))
def test_garbage_is_damage(decode: Decode, magic: bytes, record: bytes, garbage: bytes) -> None:
    del record
    is_decoded_or_refused(decode, magic + garbage)


@all_kinds
@pytest.mark.parametrize(
    "garbage",
    [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x94\x01" + b"\x91" * 100_000],
)
def test_deep_and_huge_garbage_is_damage(decode: Decode, magic: bytes, record: bytes, garbage: bytes) -> None:
    del record
    with pytest.raises(CorruptionError):
        decode(magic + garbage)


def is_decoded_or_refused(decode: Decode, record: bytes) -> None:
    try:
        decoded = decode(record)
    except (CorruptionError, FormatError):
        return
    for entry in decoded.entries if isinstance(decoded, Tree) else ():
        assert isinstance(entry_problem(entry), str)


def test_a_chunk_that_is_no_tree_is_damage_as_a_tree() -> None:
    for chunk in (b"", b"T", b"L\0", encode_tree(TREE)[1:], b"some text"):
        with pytest.raises(CorruptionError):
            decode_tree(chunk)


def test_text_that_is_no_text_is_damage() -> None:
    record = encode_tree(TREE).replace(b"ann", b"\xff\xfe\xfd")
    with pytest.raises(CorruptionError):
        decode_tree(record)


@pytest.mark.parametrize(
    "fields", [{"mode": stat.S_IFREG}, {"mode": 0}, {"mode": -1}, {"mode": 2**40}, {"content": b""}, {"content": bytes(33)}]
)
def test_a_snapshot_whose_root_is_no_directory_is_damaged(fields: dict[str, Any]) -> None:
    root = msgspec.structs.replace(SNAPSHOT.root, **fields)
    _, record = encode_snapshot(msgspec.structs.replace(SNAPSHOT, root=root))
    with pytest.raises(CorruptionError):
        decode_snapshot(record)


VALID: list[tuple[Entry, dict[str, Any]]] = [
    (FILE, {}),
    (FILE, {"name": b"\xff\xfe\n"}),
    (FILE, {"name": b"..."}),
    (FILE, {"name": b"x" * 255}),
    (FILE, {"mode": stat.S_IFREG | 0o7777}),
    (FILE, {"uid": 2**32 - 1, "gid": 2**32 - 1}),
    (FILE, {"mtime_ns": -(2**63), "atime_ns": 2**63 - 1}),
    (FILE, {"size": 0, "content": b""}),
    (FILE, {"size": SIZE_MAX, "level": LEVEL_MAX, "content": FILE.content * INLINE_SPANS_MAX}),
    (FILE, {"extra": Extra(2**32 - 1, (2**64 - 1, 2**64 - 1), 0, ((b"x" * 255, b""),), 3)}),
    (FOLDER, {}),
    (LINK, {}),
    (LINK, {"content": b"\xff" * 4095}),
    (FIFO, {}),
    (FIFO, {"mode": stat.S_IFSOCK}),
    (FIFO, {"mode": stat.S_IFCHR, "extra": Extra(rdev=2**32 - 1)}),
    (FIFO, {"mode": stat.S_IFBLK, "extra": Extra(rdev=0)}),
]


@pytest.mark.parametrize(("entry", "fields"), VALID)
def test_a_valid_entry_has_no_problem(entry: Entry, fields: dict[str, Any]) -> None:
    assert entry_problem(msgspec.structs.replace(entry, **fields)) == ""


HOSTILE: list[tuple[Entry, dict[str, Any]]] = [
    *((FILE, {"name": name}) for name in (b"", b".", b"..", b"/", b"a/b", b"/etc", b"a\0b", b"x" * 256)),
    *((FILE, {"size": size}) for size in (-1, SIZE_MAX + 1)),
    *((FILE, {"mode": mode}) for mode in (-1, 0, 0o644, 2**16, 0o170000, stat.S_IFREG | stat.S_IFLNK, 2**63)),
    *((FILE, {"uid": owner}) for owner in (-1, 2**32)),
    *((FILE, {"gid": owner}) for owner in (-1, 2**32)),
    *((FILE, {"level": level}) for level in (-1, LEVEL_MAX + 1, 2**63)),
    *((FILE, {"content": content}) for content in (b"x", FILE.content[:-1], FILE.content * (INLINE_SPANS_MAX + 1))),
    *((FOLDER, {"content": content}) for content in (b"", bytes(31), bytes(33))),
    *((LINK, {"content": content}) for content in (b"", b"a\0b", b"x" * 4096)),
    *((FIFO, {"mode": mode, "content": b"x"}) for mode in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)),
    *((FILE, {"extra": Extra(nlink=count)}) for count in (-1, 0, 2**32)),
    *((FILE, {"extra": Extra(hole_bytes=count)}) for count in (-1, FILE.size + 1)),
    *((FIFO, {"mode": stat.S_IFCHR, "extra": Extra(rdev=number)}) for number in (-1, 2**32)),
    *((FILE, {"extra": Extra(xattrs=((b"user.a", b""), (name, b"")))}) for name in (b"", b"user.a\0b", b"x" * 256)),
]


@pytest.mark.parametrize(("entry", "fields"), HOSTILE)
def test_a_hostile_entry_has_a_problem_that_is_named(entry: Entry, fields: dict[str, Any]) -> None:
    hostile = msgspec.structs.replace(entry, **fields)
    assert entry_problem(hostile)
    assert decode_tree(encode_tree(msgspec.structs.replace(TREE, entries=(FILE, hostile)))).entries == (FILE, hostile)


@given(
    st.builds(
        Entry,
        names,
        *[int64] * 7,
        st.binary(max_size=60),
        st.none() | st.builds(Extra, int64, st.tuples(int64, int64), int64, xattrs, int64),
    )
)
def test_any_entry_is_judged_without_an_error(entry: Entry) -> None:
    assert isinstance(entry_problem(entry), str)


# --- forgotten snapshots and pins ---------------------------------------------------------------------------------------


@given(st.integers(-TIME_NS_MAX, TIME_NS_MAX), st.binary(max_size=30), st.text(max_size=10))
def test_what_is_forgotten_or_pinned_comes_back_as_it_was(time_ns: int, record: bytes, message: str) -> None:
    forgotten, pin = Forgotten(RECORD_VERSION, time_ns, record, 3), Pin(RECORD_VERSION, time_ns, message)
    assert decode_forgotten(encode_forgotten(forgotten)) == forgotten
    assert decode_pin(encode_pin(pin)) == pin


@pytest.mark.parametrize("time_ns", [-(2**63), 2**63, 2**64 - 1])
def test_a_time_that_no_clock_has_is_damage(time_ns: int) -> None:
    with pytest.raises(CorruptionError, match="its time is absurd"):
        decode_forgotten(encode_forgotten(Forgotten(RECORD_VERSION, time_ns, b"", 3)))
    with pytest.raises(CorruptionError, match="its time is absurd"):
        decode_pin(encode_pin(Pin(RECORD_VERSION, time_ns)))

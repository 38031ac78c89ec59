# SPDX-License-Identifier: MIT
"""Storing and reading directory trees, whole, large and hostile ones."""

import os
import stat

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.planting import SMALL_CHUNKS, plant, plant_deep
from tests.engine.sandbox import MakeStore
from yester.core.chunking import ChunkParams
from yester.core.content import HOLE, LIST_MAGIC, pack_span
from yester.core.ids import ChunkId, TreeId, chunk_id
from yester.core.records import RECORD_VERSION, TREE_MAGIC, Entry, Extra, Tree, encode_tree
from yester.engine import trees as trees_module
from yester.engine.trees import TreeReader, find_entry, iter_below, judge_entries, read_tree_record, store_tree
from yester.errors import CorruptionError, FormatError, LimitError, NotFoundError
from yester.store.segments import Kind
from yester.store.store import Store

EMPTY_FILE = Entry(b"f", stat.S_IFREG | 0o644, 0, 0, 0, 0, 0, 0, b"")


class Memory:
    """Chunks in memory, that notes which are read."""

    def __init__(self) -> None:
        self.chunks: dict[ChunkId, bytes] = {}
        self.reads: list[ChunkId] = []

    def store(self, data: bytes | memoryview) -> ChunkId:
        chunk = chunk_id(data)
        self.chunks[chunk] = bytes(data)
        return chunk

    def read(self, chunk: ChunkId) -> memoryview:
        self.reads.append(chunk)
        if chunk not in self.chunks:
            message = f"chunk {chunk.hex()} is missing"
            raise CorruptionError(message)
        return memoryview(self.chunks[chunk])


def entry(name: bytes, **fields: object) -> Entry:
    return msgspec.structs.replace(EMPTY_FILE, name=name, **fields)


def tree_of(*entries: Entry) -> Tree:
    return Tree(RECORD_VERSION, {0: "root"}, {0: "root"}, entries)


def stored_raw(memory: Memory, record: bytes) -> TreeId:
    return TreeId(memory.store(record))


# --- storing and reading ----------------------------------------------------------------------------------------------


@given(names=st.sets(st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name), max_size=60))
def test_trees_of_every_size_come_back(names: set[bytes]) -> None:
    memory = Memory()
    tree = tree_of(*(entry(name) for name in sorted(names) if name not in (b".", b"..")))
    stored = store_tree(tree, SMALL_CHUNKS, memory.store)
    assert TreeReader(memory).read(stored) == tree
    assert read_tree_record(memory, stored) == encode_tree(tree)
    assert all(len(chunk) <= SMALL_CHUNKS.max_bytes or chunk[:1] == LIST_MAGIC for chunk in memory.chunks.values())


def test_equal_trees_have_equal_ids() -> None:
    many = [entry(b"%05d" % number) for number in range(500)]
    ids = [store_tree(tree_of(*many), SMALL_CHUNKS, Memory().store) for _ in range(2)]
    assert ids[0] == ids[1]
    assert store_tree(tree_of(*many[1:]), SMALL_CHUNKS, Memory().store) != ids[0]


def test_a_change_in_a_large_folder_stores_little() -> None:
    memory = Memory()
    many = [entry(b"%06d" % number, mtime_ns=number * 10**9) for number in range(20_000)]
    params = ChunkParams()
    store_tree(tree_of(*many), params, memory.store)
    before = set(memory.chunks)
    many[10_000] = entry(b"%06d" % 10_000, mtime_ns=1)
    changed = store_tree(tree_of(*many), params, memory.store)
    assert sum(len(data) for chunk, data in memory.chunks.items() if chunk not in before) < 700_000 < sum(map(len, memory.chunks.values()))
    assert TreeReader(memory).read(changed).entries[10_000].mtime_ns == 1


def test_trees_are_decoded_once_while_they_are_in_use() -> None:
    memory = Memory()
    trees = [stored_raw(memory, encode_tree(tree_of(*(entry(b"%d-%d" % (number, index)) for index in range(9))))) for number in range(10)]
    reader = TreeReader(memory, cache_entries=30)
    for _ in range(3):
        reader.read(trees[0])
    assert memory.reads == [trees[0]]
    for tree in trees:
        reader.read(tree)
    memory.reads.clear()
    reader.read(trees[9])
    assert memory.reads == []
    reader.read(trees[0])
    assert memory.reads == [trees[0]]


def test_a_tree_larger_than_the_cache_is_read_all_the_same() -> None:
    memory = Memory()
    tree = stored_raw(memory, encode_tree(tree_of(*(entry(b"%03d" % index) for index in range(100)))))
    reader = TreeReader(memory, cache_entries=10)
    assert len(reader.read(tree).entries) == 100


# --- finding ----------------------------------------------------------------------------------------------------------


@given(names=st.sets(st.binary(min_size=1, max_size=3), max_size=20), asked=st.binary(max_size=3))
def test_an_entry_is_found_as_in_a_list(names: set[bytes], asked: bytes) -> None:
    tree = tree_of(*(entry(name) for name in sorted(names)))
    found = find_entry(tree, asked)
    assert (found.name if found else None) == (asked if asked in names else None)


def test_paths_are_followed(store: Store) -> None:
    root = plant(store, {"d": {"e": {"file": b"1"}, "link": "e"}, "x": b"2"})
    trees = TreeReader(store.reader())
    assert trees.get(root, b"") is root
    assert trees.get(root, b"d/e/file").name == b"file"
    for missing in (b"nowhere", b"d/nowhere", b"x/y", b"d/link/file", b"d/e/file/more", b"d//e"):
        assert trees.find(root, missing) is None
        with pytest.raises(NotFoundError, match="in this snapshot"):
            trees.get(root, missing)


def test_a_path_that_is_no_text_can_be_named_in_a_message(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"\\\\xff"):
        TreeReader(store.reader()).get(plant(store, {}), b"\xff\n")


def test_depth_is_no_limit(store: Store) -> None:
    root = plant_deep(store, 3000)
    assert TreeReader(store.reader()).get(root, b"d/" * 3000 + b"f").name == b"f"


# --- damaged and hostile trees ----------------------------------------------------------------------------------------

HOSTILE = [
    entry(b""),
    entry(b"."),
    entry(b".."),
    entry(b"a/b"),
    entry(b"/etc/passwd"),
    entry(b"nul\0"),
    entry(b"x" * 256),
    entry(b"size", size=-1),
    entry(b"huge", size=2**63),
    entry(b"mode", mode=-1),
    entry(b"mode2", mode=0o200000),
    entry(b"type", mode=0o644),
    entry(b"uid", uid=2**32),
    entry(b"gid", gid=-1),
    entry(b"content", content=b"short"),
    entry(b"level", level=9, content=pack_span(chunk_id(b"x"), 1), size=1),
    entry(b"spans", content=pack_span(chunk_id(b"x"), 1) * 9, size=9),
    entry(b"dir", mode=stat.S_IFDIR | 0o755, content=b""),
    entry(b"link", mode=stat.S_IFLNK | 0o777, content=b""),
    entry(b"link2", mode=stat.S_IFLNK | 0o777, content=b"nul\0", size=4),
    entry(b"link3", mode=stat.S_IFLNK | 0o777, content=b"x" * 4096, size=4096),
    entry(b"fifo", mode=stat.S_IFIFO | 0o644, content=b"x"),
    entry(b"nlink", extra=Extra(nlink=0)),
    entry(b"holes", extra=Extra(hole_bytes=1)),
    entry(b"rdev", extra=Extra(rdev=2**32)),
    entry(b"xattr", extra=Extra(xattrs=((b"", b""),))),
]


@pytest.mark.expect_log("is left out")
@pytest.mark.parametrize("bad", HOSTILE, ids=lambda bad: bad.name.decode())
def test_an_entry_that_must_not_be_shown_does_not_hide_its_siblings(bad: Entry) -> None:
    memory = Memory()
    tree = stored_raw(memory, encode_tree(tree_of(*sorted([entry(b"A"), bad, entry(b"zz")], key=lambda each: each.name))))
    assert [each.name for each in TreeReader(memory).read(tree).entries] == [b"A", b"zz"]


@pytest.mark.expect_log("stands twice or out of order")
def test_names_are_shown_once_and_in_order() -> None:
    memory = Memory()
    tree = stored_raw(memory, encode_tree(tree_of(*(entry(name) for name in (b"b", b"a", b"b", b"c", b"c")))))
    assert [each.name for each in TreeReader(memory).read(tree).entries] == [b"b", b"c"]


def test_all_problems_are_told() -> None:
    good, problems = judge_entries(tree_of(entry(b"a"), entry(b"a/b"), entry(b"a")))
    assert [each.name for each in good] == [b"a"]
    assert [name for name, _ in problems] == [b"a/b", b"a"]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"T",
        b"X",
        b"T\xc1",
        b"T\x90",
        TREE_MAGIC + msgspec.msgpack.encode([1, {}, {}, [["name", 1]]]),
        TREE_MAGIC + msgspec.msgpack.encode([1, {}, {}, 7]),
        TREE_MAGIC + b"\x94\x01\x80\x80\xdd\xff\xff\xff\xff",
        TREE_MAGIC + b"\x91" * 100_000,
        TREE_MAGIC + b"\x94\x01\x81\x00\xa1\xff\x80\x90",
        LIST_MAGIC,
        LIST_MAGIC + b"\0" + b"x" * 39,
        LIST_MAGIC + b"\0" + pack_span(chunk_id(b"missing"), 5),
        LIST_MAGIC + b"\xff" + pack_span(chunk_id(b"missing"), 5),
        LIST_MAGIC + b"\0" + pack_span(HOLE, 5),
    ],
)
def test_what_is_no_tree_is_damage(record: bytes) -> None:
    memory = Memory()
    with pytest.raises(CorruptionError):
        TreeReader(memory).read(stored_raw(memory, record))


def test_a_tree_of_a_newer_release_is_told_from_damage() -> None:
    memory = Memory()
    for record in ([99, {}, {}, []], [99, "all", "different"]):
        with pytest.raises(FormatError, match="version 99"):
            TreeReader(memory).read(stored_raw(memory, TREE_MAGIC + msgspec.msgpack.encode(record)))


def test_a_record_in_parts_that_claims_to_be_huge_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small list can name one chunk any number of times, and so can lists of lists."""
    monkeypatch.setattr(trees_module, "TREE_BYTES_MAX", 10 << 20)
    memory = Memory()
    part = memory.store(os.urandom(1000))
    inner = memory.store(LIST_MAGIC + b"\0" + pack_span(part, 1000) * 1000)
    outer = memory.store(LIST_MAGIC + b"\1" + pack_span(inner, 1_000_000) * 1000)
    with pytest.raises(CorruptionError, match="larger than any can be"):
        TreeReader(memory).read(stored_raw(memory, LIST_MAGIC + b"\2" + pack_span(outer, 10**9) * 1000))


def test_a_tree_that_could_not_be_read_again_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees_module, "TREE_BYTES_MAX", 2000)
    entries = tuple(Entry(b"%04d" % number, stat.S_IFREG, 0, 0, 0, 0, 0, 0, b"") for number in range(200))
    with pytest.raises(LimitError, match="from '0000' to '0199'"):
        store_tree(Tree(RECORD_VERSION, {}, {}, entries), ChunkParams(), Memory().store)


def test_a_damaged_folder_hides_only_what_it_holds(make_store: MakeStore) -> None:
    store = make_store()
    root = plant(store, {"a": {"b": b"1"}, "c": {"d": b"2"}, "e": b"3"})
    damaged = TreeReader(store.reader()).get(root, b"a").tree

    class Damaged(TreeReader):
        def read(self, tree: TreeId) -> Tree:
            if tree == damaged:
                message = "damaged"
                raise CorruptionError(message)
            return super().read(tree)

    trees, told = Damaged(store.reader()), []
    listed = iter_below(trees, root, b"at", recursive=True, on_damage=lambda path, _error: told.append(path))
    assert [path for path, _ in listed] == [b"at/a", b"at/c", b"at/c/d", b"at/e"]
    assert told == [b"at/a"]
    with pytest.raises(CorruptionError):
        list(iter_below(trees, trees.get(root, b"a"), b"", recursive=True))


def test_a_hole_in_a_tree_takes_no_memory() -> None:
    memory = Memory()
    with pytest.raises(CorruptionError):
        TreeReader(memory).read(stored_raw(memory, LIST_MAGIC + b"\0" + pack_span(HOLE, 2**62)))


def test_a_part_of_another_length_is_damage() -> None:
    memory = Memory()
    record = encode_tree(tree_of(entry(b"a")))
    parts = [memory.store(record[:10]), memory.store(record[10:])]
    spans = pack_span(parts[0], 10) + pack_span(parts[1], len(record) - 10)
    assert TreeReader(memory).read(stored_raw(memory, LIST_MAGIC + b"\0" + spans)).entries[0].name == b"a"
    wrong = pack_span(parts[0], 11) + pack_span(parts[1], len(record) - 10)
    with pytest.raises(CorruptionError):
        TreeReader(memory).read(stored_raw(memory, LIST_MAGIC + b"\0" + wrong))


def test_a_damaged_tree_in_a_store_is_damage(make_store: MakeStore) -> None:
    store = make_store(may_be_damaged=True)
    with store.writer() as writer:
        chunk = writer.add(Kind.DATA, b"no tree")
    with pytest.raises(CorruptionError, match="should hold a directory does not"):
        TreeReader(store.reader()).read(TreeId(chunk))

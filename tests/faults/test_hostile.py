# SPDX-License-Identifier: MIT
"""A store that somebody made to do harm.

Whatever reads it gives a clear error or leaves the thing out, ends soon, takes little memory, and writes nowhere but where it was told to.
Single readers have their own tests; here one store has everything, and every command gets it.
"""

import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.engine.planting import SMALL_CHUNKS, T0_NS, plant_data
from tests.faults.sabotage import ROOT
from yester.core.content import LIST_MAGIC, pack_span
from yester.core.ids import ChunkId
from yester.core.records import RECORD_VERSION, TREE_MAGIC, Damaged, Entry, Extra, Snapshot, Tree, encode_damaged, encode_tree
from yester.store.chunks import ChunkWriter, Location, segment_key
from yester.store.lmdb import Table
from yester.store.segments import Kind
from yester.store.store import Store

ADDRESS_SPACE = 3 << 30
PATIENCE_S = 100
FILE = Entry(b"", stat.S_IFREG | 0o644, 0, 0, T0_NS, T0_NS, 0, 0, b"")
FOLDER = msgspec.structs.replace(FILE, mode=stat.S_IFDIR | 0o755)
BAD_NAMES = [b"..", b".", b"", b"a/../../escaped", b"/absolute", b"nul\0byte", b"x" * 256, b"../../escaped"]


def put_tree(writer: ChunkWriter, *entries: Entry) -> ChunkId:
    return writer.add(Kind.TREE, encode_tree(Tree(RECORD_VERSION, {}, {}, entries)))


def folder(name: bytes, tree: ChunkId) -> Entry:
    return msgspec.structs.replace(FOLDER, name=name, content=tree)


def many_spans(writer: ChunkWriter, chunk: ChunkId, length: int, levels: int) -> tuple[bytes, int]:
    """A content that names the same chunk 1024 times, and that list 1024 times, and so on; its one span and the bytes it claims."""
    span = pack_span(chunk, length)
    for level in range(levels):
        chunk = writer.add(Kind.TREE, LIST_MAGIC + bytes([level]) + span * 1024)
        length *= 1024
        span = pack_span(chunk, length)
    return span, length


def bomb(writer: ChunkWriter, item: bytes, count: int) -> ChunkId:
    """A folder's record of very many items that compress to nothing, stored in parts, most of them the same part."""
    items = 1_000_000 // len(item)
    start = TREE_MAGIC + b"\x94\x01\x80\x80\xdd" + count.to_bytes(4, "big")
    first = writer.add(Kind.TREE, start)
    rest = writer.add(Kind.TREE, item * items)
    spans = pack_span(first, len(start)) + pack_span(rest, items * len(item)) * (count // items)
    return writer.add(Kind.TREE, LIST_MAGIC + b"\0" + spans)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "store"
    with Store.create(path, chunking=SMALL_CHUNKS) as store:
        with store.writer() as writer:
            good = plant_data(writer, SMALL_CHUNKS, b"good").spans
            one = writer.add(Kind.DATA, b"x")
            span, claimed = many_spans(writer, one, 1, 4)
            parts, _ = many_spans(writer, one, 1, 3)
            lists = writer.add(Kind.TREE, LIST_MAGIC + b"\3" + parts)
            empty = msgspec.msgpack.encode(FILE)
            nested = put_tree(writer, msgspec.structs.replace(FILE, name=b"lost", size=4, content=pack_span(ChunkId(b"\1" * 32), 4)))
            for _ in range(12):
                nested = put_tree(writer, *(folder(b"%03d" % number, nested) for number in range(100)))
            names = put_tree(
                writer, *sorted((msgspec.structs.replace(FILE, name=name) for name in BAD_NAMES), key=lambda entry: entry.name)
            )
            entries = [
                msgspec.structs.replace(FILE, name=b"absurd size", size=2**62, content=good),
                msgspec.structs.replace(FILE, name=b"absurd span", size=2**62, content=pack_span(ChunkId(good[:32]), 2**62)),
                folder(b"bomb of entries", bomb(writer, empty, 20_000_000)),
                folder(b"bomb of nothing", bomb(writer, b"\xc0", 100_000_000)),
                msgspec.structs.replace(FILE, name=b"claims much", size=claimed, level=4, content=span),
                msgspec.structs.replace(FILE, name=b"good", size=4, content=good),
                msgspec.structs.replace(FILE, name=b"negative", size=-1),
                folder(b"many parts", lists),
                folder(b"names", names),
                msgspec.structs.replace(FILE, name=b"odd mode", mode=0o777777),
                msgspec.structs.replace(FILE, name=b"odd owner", uid=-5, extra=Extra(nlink=-1, xattrs=((b"", b""),))),
            ]
            root = folder(b"", put_tree(writer, *sorted(entries, key=lambda entry: entry.name)))
            laughs = folder(b"", nested)
        store.add_snapshot(Snapshot(RECORD_VERSION, "hostile", "", T0_NS, T0_NS, root, (b"/proc", b"/nul\0", b"relative", b"")))
        store.add_snapshot(Snapshot(RECORD_VERSION, "laughs", "", T0_NS, T0_NS, laughs, (b"/proc/kmsg",)))
        store.add_snapshot(Snapshot(RECORD_VERSION, "../../escaped", "", T0_NS, T0_NS, root))
        store.environment.write(lambda transaction: transaction.put(Table.DAMAGED, b"\1" * 32, encode_damaged(Damaged(1, 2**63 - 1))))
        store.environment.write(lambda transaction: transaction.put(Table.CHUNKS, b"\2" * 32, Location(2**47, 65535).pack()))
        store.environment.write(lambda transaction: transaction.put(Table.SEGMENTS, segment_key(2**40), b"ys\1\1\1\0" + b"\xff" * 200))
    return path


def run(path: Path, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with little memory and little time."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HOME": str(home), "YESTER_STORE": str(path)}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))

    return subprocess.run(
        [sys.executable, "-m", "yester", *arguments],
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        preexec_fn=limit,
    )


@pytest.mark.timeout(110)
@pytest.mark.parametrize(
    "command",
    [
        ["snapshots"],
        ["ls", "hostile"],
        ["ls", "hostile:names"],
        ["ls", "hostile:bomb of entries"],
        ["ls", "hostile:bomb of nothing"],
        ["ls", "hostile:many parts"],
        ["cat", "hostile:good"],
        ["cat", "hostile:absurd size"],
        ["cat", "hostile:absurd span"],
        ["diff", "hostile", "../../escaped"],
        ["stats"],
        ["check", "--read-data"],
        ["repair", "--dry-run"],
    ],
    ids=" ".join,
)
def test_whatever_reads_it_ends_soon_with_a_clear_message(hostile: Path, tmp_path: Path, command: list[str]) -> None:
    before = sorted(os.listdir(hostile.parent))
    done = run(hostile, *command, home=tmp_path)
    assert done.returncode in {0, 1, 3}, done.stderr[-2000:]
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    if command[0] == "check":
        assert done.returncode == 1
        for name in ("absurd size", "bomb of entries", "many parts", "negative", "odd mode"):
            assert name in done.stdout, name
    if command == ["cat", "hostile:good"]:
        assert done.stdout == "good"
    assert sorted(os.listdir(hostile.parent)) == before
    assert os.listdir(tmp_path) == []


def test_a_restore_writes_what_is_good_and_nothing_outside(hostile: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    started = time.monotonic()
    for path in ("good", "names", "many parts", "bomb of entries", "negative", "absurd size"):
        done = run(hostile, "restore", f"hostile:{path}", "--to", tmp_path / "a" / "b" / "to", home=tmp_path)
        assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert time.monotonic() - started < PATIENCE_S
    found = {os.path.relpath(os.path.join(folder, name), tmp_path) for folder, _, names in os.walk(tmp_path) for name in names}
    assert found == {"a/b/to/good"}

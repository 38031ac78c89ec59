# SPDX-License-Identifier: MIT
"""The pieces of work, each done in a freshly made and mounted system, and what each measures.

Everything that work reads is in the page cache before, and what it was to write is checked after.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from debian import try_install
from measure import TIMEOUT_S, StepError, check_equal, read_output, run
from rows import YESTER
from trial import Record, read_into_cache

from live.data import LiveData
from live.session import Session
from live.writer import writing

_SQLITE_SCRIPT = Path(__file__).with_name("sqlite_transactions.py")
_MB = 1e6
_FIO_LIMIT_S = 120
"""A system that is slower than this has written less; its growth is to what it did write."""
_BEFORE_S = 5.0
"""How long the writer is watched before versions are published: about as long as five of them take together with their changes."""
_VERSIONS = 5
_CHANGES = 10


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work. `rows` are those that it measures; two more are about the memory of what serves it."""

    id: str
    rows: tuple[str, ...]
    do: Callable[[Session, Record, LiveData], None]
    only_yester: bool = False

    @property
    def all_rows(self) -> tuple[str, ...]:
        """Its rows, with those about memory."""
        return (*self.rows, f"memory-{self.id}", f"memory-{self.id}-anon")

    def is_for(self, name: str) -> bool:
        """Whether a system can do it."""
        return name == YESTER or not self.only_yester


def _copy_small(session: Session, record: Record, data: LiveData) -> None:
    """Copy the small files in, and read them back."""
    read_into_cache(data.small)
    record.measure("cp", lambda: run(["cp", "-a", data.small, session.folder / "small"], session.environment).seconds)
    if record.wants({"tar-cold", "tar-warm"}):
        session.remount_cold()
        read_output(["tar", "--version"], session.environment)  # the program itself is to be warm
        record.add("tar-cold", _read_small(session, data))
        record.add("tar-warm", _read_small(session, data))


def _read_small(session: Session, data: LiveData) -> float:
    ran = run(["tar", "-C", session.folder / "small", "-cf", "-", "."], session.environment)
    if ran.stdout_bytes < data.small_contents.size_bytes:
        check_equal("bytes read", ran.stdout_bytes, data.small_contents.size_bytes)
    return ran.seconds


def _write_large(session: Session, record: Record, data: LiveData) -> None:
    """Write the beginning of the large file."""
    read_into_cache(data.linux.big.parent)
    target = session.folder / "file"
    words = ["dd", f"if={data.linux.big}", f"of={target}", "bs=128k", f"count={data.sizes.write_blocks}", "conv=fsync"]
    seconds = run(words, session.environment).seconds
    check_equal("bytes written", target.stat().st_size, data.sizes.write_blocks << 17)
    record.add("write", seconds)


def _clone(session: Session, record: Record, data: LiveData) -> None:
    """Clone a repository by its protocol, so that git writes a pack and not links, and look at the clone."""
    read_into_cache(data.repository)
    clone = session.folder / "clone"
    record.add("clone", run(["git", "clone", "--quiet", f"file://{data.repository}", clone], session.environment).seconds)
    ran = run(["git", "-C", clone, "status", "--porcelain"], session.environment)
    check_equal("bytes of `git status` about a clean clone", ran.stdout_bytes, 0)
    record.add("status", ran.seconds)


def _run_transactions(session: Session, record: Record, data: LiveData) -> None:
    """The same transactions in both journal modes."""

    def transact(mode: str) -> float:
        words: list[str | Path] = [sys.executable, _SQLITE_SCRIPT, session.folder / f"{mode}.sqlite", mode, str(data.sizes.transactions)]
        return float(read_output(words, session.environment))

    record.measure("sqlite-delete", lambda: transact("delete"))
    record.measure("sqlite-wal", lambda: transact("wal"))


def _write_randomly(session: Session, record: Record, data: LiveData) -> None:
    """Write here and there in the large file, and see how much more the store takes."""
    if shutil.which("fio") is None and (failure := try_install(["fio"])):
        raise StepError(failure)
    read_into_cache(data.linux.big.parent)
    target, result = session.folder / "file", session.folder.parent.parent / "fio.json"
    run(["dd", f"if={data.linux.big}", f"of={target}", "bs=1M", "conv=fsync"], session.environment)
    session.settle()
    before_bytes = session.stored_bytes()
    run(
        [
            *("fio", "--name=random", f"--filename={target}", f"--size={data.linux.big.stat().st_size}", "--rw=randwrite", "--bs=4k"),
            *(f"--io_size={data.sizes.random_bytes}", f"--runtime={_FIO_LIMIT_S}", "--fsync=64", "--ioengine=psync", "--fallocate=none"),
            *("--refill_buffers", "--buffer_compress_percentage=50", "--output-format=json", f"--output={result}"),
        ],
        session.environment,
    )
    written = json.loads(result.read_text())["jobs"][0]["write"]
    record.add("random", written["iops"])
    record.add("growth", (session.stored_bytes() - before_bytes) / written["io_bytes"])
    if record.wants({"growth-settled"}):
        session.settle()
        record.add("growth-settled", (session.stored_bytes() - before_bytes) / written["io_bytes"])


def _publish(session: Session, record: Record, data: LiveData) -> None:
    """Publish versions with a few changes each in a folder with many files, while somebody writes in it."""
    session.publish()  # where it cannot, it is of no use to fill the folder
    read_output(["cp", "-a", data.linux.tree, session.folder / "tree"], session.environment, timeout_s=3 * TIMEOUT_S)
    session.publish()
    names = data.linux.unchanged_names
    versions_before = _count_versions(session)
    seconds, windows = [], []
    with writing(session.folder / "log", session.folder.parent.parent / "laps", session.environment) as laps:
        before = time.monotonic()
        time.sleep(_BEFORE_S)  # a span of time is what is wanted
        before_end = time.monotonic()
        for version in range(_VERSIONS):
            for change in range(_CHANGES):
                number = (version * _CHANGES + change) * 997 % len(names)
                with (session.folder / "tree" / names[number]).open("ab") as file:
                    file.write(b"/* changed for version %d */\n" % version)
            took = session.publish()
            now = time.monotonic()
            seconds.append(took)
            windows.append((now - took, now))
    if (published := _count_versions(session) - versions_before) < _VERSIONS:
        check_equal("versions published", published, _VERSIONS)
    record.add("publish", median(seconds))
    record.add("pause", 1000 * max(laps.longest(begin, end) for begin, end in windows))
    record.add("pause-before", 1000 * laps.longest(before, before_end))


def _count_versions(session: Session) -> int:
    """How many distinct versions yester shows of the folder that is worked in."""
    return len(list((session.folder / ".snapshots").iterdir()))


ALL_WORK = (
    Work("small", ("cp", "tar-cold", "tar-warm"), _copy_small),
    Work("write", ("write",), _write_large),
    Work("git", ("clone", "status"), _clone),
    Work("sqlite", ("sqlite-delete", "sqlite-wal"), _run_transactions),
    Work("random", ("random", "growth", "growth-settled"), _write_randomly),
    Work("publish", ("publish", "pause", "pause-before"), _publish, only_yester=True),
)


def do_work(work: Work, session: Session, record: Record, data: LiveData) -> None:
    """Do a piece of work and see how much memory the system had for it."""
    work.do(session, record, data)
    session.note_memory()
    if session.peak_bytes:
        record.add(f"memory-{work.id}", session.peak_bytes / _MB)
        record.add(f"memory-{work.id}-anon", session.anonymous_bytes / _MB)

# SPDX-License-Identifier: MIT
"""The rows and columns of the live folder's table, and what it is to reach."""

from rows import PLAIN, YESTER, Row, Target, Unit

S3QL, JUICEFS, BINDFS = "s3ql", "juicefs", "bindfs"
COLUMNS = (YESTER, S3QL, JUICEFS, BINDFS, PLAIN)
"""bindfs only passes on; `PLAIN` is the file system that all stores are on, the ground."""

BESIDE = (JUICEFS, S3QL)


def _beside_juicefs(*, at_most: float | None = None, ratio_at_most: float) -> Target:
    return Target(at_most=at_most, ratio_at_most=ratio_at_most, beside=(JUICEFS,))


def _memory_rows(work: str, title: str) -> tuple[Row, Row]:
    return (
        Row(f"memory-{work}", f"peak memory: {title}", Unit.MB, Target(at_most=300)),
        Row(f"memory-{work}-anon", "of that, without mapped files", Unit.MB),
    )


LIVE_ROWS = (
    Row("cp", "`cp -a` of 2,078 small files", Unit.SECONDS, _beside_juicefs(at_most=1.5, ratio_at_most=0.3)),
    Row("tar-cold", "`tar` them back, cold", Unit.SECONDS, Target(at_most=0.5)),
    Row("tar-warm", "the same again, warm", Unit.SECONDS, Target(at_most=0.25)),
    Row("write", "write 128 MiB in blocks of 128 KiB, fsync", Unit.SECONDS, _beside_juicefs(ratio_at_most=1)),
    Row("clone", "`git clone` with history", Unit.SECONDS, _beside_juicefs(ratio_at_most=0.5)),
    Row("status", "`git status` in it", Unit.SECONDS, _beside_juicefs(ratio_at_most=0.5)),
    Row("sqlite-delete", "SQLite: 1,000 transactions, rollback journal", Unit.SECONDS, _beside_juicefs(ratio_at_most=1)),
    Row("sqlite-wal", "SQLite: 1,000 transactions, write-ahead log", Unit.SECONDS, _beside_juicefs(ratio_at_most=1)),
    Row("random", "4 KiB random writes in 1 GiB, fsync every 64", Unit.PER_S, Target(ratio_at_least=2, beside=(S3QL, JUICEFS))),
    Row("growth", "store growth then, to bytes written", Unit.TIMES, Target(at_most=3)),
    Row("growth-settled", "the same after a version was published", Unit.TIMES, Target(at_most=3)),
    Row("publish", "publish a version after 10 changes in 80,000 files", Unit.SECONDS, Target(at_most=0.5)),
    Row("pause", "longest pause of a writer meanwhile", Unit.MILLISECONDS, Target(at_most=100)),
    Row("pause-before", "longest pause of the writer before", Unit.MILLISECONDS),
    *_memory_rows("small", "small files"),
    *_memory_rows("write", "128 MiB"),
    *_memory_rows("git", "git"),
    *_memory_rows("sqlite", "SQLite"),
    *_memory_rows("random", "random writes"),
    *_memory_rows("publish", "80,000 files, versions"),
)

# SPDX-License-Identifier: MIT
"""Judge `fio`: Debian's fio writes blocks that carry checksums, in several ways at once, and reads all of them again."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from commands import first_line, run
from folders import remove
from judging import Bench, Finding, Verdict

_COMMON = (
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--group_reporting",
    "--minimal",
    "--thread=0",
    "--norandommap=0",
)
_JOBS: Mapping[str, tuple[str, ...]] = {
    "in order, psync": ("--ioengine=psync", "--rw=write", "--bs=128k", "--numjobs=2"),
    "in order, odd sizes": ("--ioengine=psync", "--rw=write", "--bs=4608"),
    "at random, psync, fsync": ("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--fsync=64", "--numjobs=2"),
    "at random, many sizes": ("--ioengine=psync", "--rw=randwrite", "--bsrange=512-256k", "--bs_unaligned=0"),
    "at random, verified while writing": ("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--verify_backlog=64"),
    "reading and writing, at random": ("--ioengine=psync", "--rw=randrw", "--bs=8k"),
    "vectors": ("--ioengine=pvsync2", "--rw=randwrite", "--bs=16k"),
    "mapped, in order": ("--ioengine=mmap", "--rw=write", "--bs=64k"),
    "mapped, at random": ("--ioengine=mmap", "--rw=randwrite", "--bs=4k", "--fsync=256"),
    "at once, 16 deep": ("--ioengine=libaio", "--rw=randwrite", "--bs=4k", "--iodepth=16"),
    "past the cache, 16 deep": ("--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--iodepth=16"),
    "each write synced": ("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--sync=1", "--io_size=2m"),
    "many files": ("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--nrfiles=200", "--file_service_type=random"),
    "overwritten twice": ("--ioengine=psync", "--rw=randwrite", "--bs=4k", "--loops=2", "--fsync=128"),
    "space reserved first": ("--ioengine=psync", "--rw=write", "--bs=64k", "--fallocate=posix"),
}


class Fio:
    """Blocks with checksums."""

    name = "fio"
    title = "Debian's fio with --verify: in order, at random, mapped, past the cache"
    packages = {"fio": "fio"}  # noqa: RUF012 # as in the Protocol
    limit_s = 1800.0

    def judge(self, bench: Bench) -> Verdict:
        """Run all jobs in both folders; the host is asked only where the judged folder fails."""
        size_mib = bench.pick(quick=4, full=64)
        findings = [finding for name in _JOBS for finding in _check(name, bench, size_mib)]
        return Verdict(f"{first_line(['fio', '--version'], bench.host)}, {size_mib} MiB a job", len(_JOBS), findings)


def _check(name: str, bench: Bench, size_mib: int) -> Iterator[Finding]:
    judged, command = _run(name, bench.judged, bench.seed, size_mib)
    if judged is not None:
        host, _ = _run(name, bench.host, bench.seed, size_mib)
        yield Finding(name, f"{command}\njudged: {judged}\nhost:   {host or 'no error'}")


def _run(name: str, parent: Path, seed: int, size_mib: int) -> tuple[str | None, str]:
    """The errors of a job, None if there are none, and the command."""
    folder = parent / "fio"
    folder.mkdir()
    words = ["fio", "--name=judge", f"--directory={folder}", f"--size={size_mib}m", f"--randseed={seed}", *_COMMON, *_JOBS[name]]
    outcome = run(words, folder=folder, limit_s=300)
    remove(folder)
    shown = " ".join(words).replace(str(folder), "FOLDER")
    return (None if outcome.status == 0 else outcome.tail(12).replace(str(folder), "FOLDER")), shown

# SPDX-License-Identifier: MIT
"""Compare yester with restic and borg: `scripts/bench`, which see."""

import argparse
import datetime as dt
import fcntl
import os
import platform
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from datasets import DataSets, prepare
from mounting import unmount_below
from report import Setting, render_failures, render_table, write_document
from rows import BORG, FIRST_ROUND_ROWS, PLAIN, RESTIC, ROWS, YESTER, Results
from tools import ROOT, install_tools, version
from trial import Record, run_round

_DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """Run the comparison; 1 if something of it failed."""
    options = _parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that mounts are taken away
    work: Path = options.work.resolve()
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    if work.stat().st_uid != os.geteuid():
        sys.exit(f"bench: {work} is somebody else's: name another folder with --work")
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"bench: another run uses {work}")
        unmount_below(work)  # of a run that was killed
        return _compare(options, work)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compare yester with restic and borg on this machine, and write docs/benchmarks.md.",
        epilog="Rows: " + " ".join(row.id for row in ROWS) + ". Without some of the rows or tools, or with --quick, nothing is written"
        " unless --output says where. Exit status: 0 done, 1 some rows failed, 2 wrong usage.",
    )
    default = Path(os.environ.get("TMPDIR") or "/var/tmp", "yester-bench")  # noqa: S108 # main checks whose it is
    parser.add_argument(
        "--work", type=Path, default=default, metavar="DIR", help="where data sets, stores and mounts are; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often everything is measured; default: %(default)s")
    parser.add_argument(
        "--borg-rounds", type=int, default=1, metavar="N", help="the same for borg, whose mount is slow; default: %(default)s"
    )
    parser.add_argument("--only", nargs="+", choices=[row.id for row in ROWS], metavar="ROW", help="measure only these rows")
    parser.add_argument(
        "--tools", type=_tool_names, default=[YESTER, RESTIC, BORG, PLAIN], metavar="NAME,…", help="default: yester,restic,borg,plain"
    )
    parser.add_argument("--quick", action="store_true", help="a small tree, a small file, one round")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the document to this file")
    return parser.parse_args()


def _tool_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - {YESTER, RESTIC, BORG, PLAIN}:
        message = f"no such tool: {', '.join(sorted(unknown))}"
        raise argparse.ArgumentTypeError(message)
    return names


def _compare(options: argparse.Namespace, work: Path) -> int:
    install_tools(options.tools)
    data = prepare(work / ("quick" if options.quick else "full"), quick=options.quick)
    rounds = 1 if options.quick else options.rounds
    wanted = frozenset(options.only or (row.id for row in ROWS))
    setting = _describe(options, work, data, rounds)
    print("\n".join(setting.lines), file=sys.stderr)

    results = Results()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        names = [name for name in options.tools if name != BORG or number < options.borg_rounds]
        rows = wanted if number == 0 else wanted - FIRST_ROUND_ROWS
        if names and rows:
            run_round([Record(name, rows, results) for name in names], work / "runs", data, dict(os.environ, LC_ALL="C.UTF-8"))

    print(render_table(results))
    print(render_failures(results, setting))
    output = options.output or (None if options.quick or options.only or len(options.tools) < 4 else _DOCUMENT)
    if output is not None:
        write_document(output, results, setting)
        print(f"bench: wrote {output}", file=sys.stderr)
    return 1 if results.failures else 0


def _describe(options: argparse.Namespace, work: Path, data: DataSets, rounds: int) -> Setting:
    cores = len(os.sched_getaffinity(0))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    file_system = _file_system(work)
    borg_rounds = min(rounds, options.borg_rounds) if BORG in options.tools else 0
    command = shlex.join(["scripts/bench", *_without_work(sys.argv[1:])])
    lines = (
        f"Machine: {cores} cores ({_processor()}), {memory_gb:.0f} GB of memory, {file_system}",
        f"System: Linux {platform.release()}, Python {platform.python_version()}",
        f"Tools: {', '.join(version(name) for name in options.tools if name != PLAIN)}",
        f"Tree: {data.origin}, {data.contents.files:,} files, {data.contents.entries:,} entries, {data.contents.size_bytes / 1e6:,.0f} MB",
        f"Run: `{command}` on {dt.datetime.now(dt.UTC):%Y-%m-%d}, {_count_rounds(rounds)}, with borg {_count_rounds(borg_rounds)}",
    )
    return Setting(lines, file_system, {str(work): "WORK", str(ROOT): "."})


def _count_rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _without_work(arguments: list[str]) -> list[str]:
    """The command line without where the work folder is, which is nobody's business."""
    kept = []
    words = iter(arguments)
    for word in words:
        if word in ("--work", "--output"):
            next(words, None)
        elif not word.startswith(("--work=", "--output=")):
            kept.append(word)
    return kept


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    words = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "an unknown file system"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

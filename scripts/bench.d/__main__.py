# SPDX-License-Identifier: MIT
"""Compare yester with restic and borg: `scripts/bench`, which see."""

import argparse
import os
import signal
import sys
from pathlib import Path

import encryption
import live.command
import store.command
from datasets import prepare
from report import BACKUP_TABLE, write_document
from rows import BORG, FIRST_ROUND_ROWS, PLAIN, RESTIC, ROWS, YESTER, Results
from setting import claimed, count_rounds, default_work, describe
from tools import ROOT, install_tools, version
from trial import Record, run_round

_DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """Run the comparison; 1 if something of it failed."""
    options = _parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that mounts are taken away
    work: Path = options.work.resolve()
    with claimed(work):
        return _compare(options, work)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compare yester with restic and borg on this machine, and write docs/benchmarks.md.",
        epilog="For the live folder: scripts/bench live --help; for the life of a store: scripts/bench store --help. Rows: "
        + " ".join(row.id for row in ROWS)
        + ". Without some of the rows or tools, or with --quick, nothing is written"
        " unless --output says where. Exit status: 0 done, 1 some rows failed, 2 wrong usage.",
    )
    parser.add_argument(
        "--work", type=Path, default=default_work(), metavar="DIR", help="where data sets, stores and mounts are; default: %(default)s"
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
    borg_rounds = min(rounds, options.borg_rounds) if BORG in options.tools else 0
    setting = describe(
        work,
        ", ".join(version(name) for name in options.tools if name != PLAIN),
        f"Tree: {data.origin}, {data.contents.files:,} files, {data.contents.entries:,} entries, {data.contents.size_bytes / 1e6:,.0f} MB",
        sys.argv[1:],
        f"{count_rounds(rounds)}, with borg {count_rounds(borg_rounds)}",
    )
    print("\n".join(setting.lines), file=sys.stderr)

    results = Results()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        names = [name for name in options.tools if name != BORG or number < options.borg_rounds]
        rows = wanted if number == 0 else wanted - FIRST_ROUND_ROWS
        if names and rows:
            run_round([Record(name, rows, results) for name in names], work / "runs", data, dict(os.environ, LC_ALL="C.UTF-8"))

    print(BACKUP_TABLE.render(results))
    print(BACKUP_TABLE.render_failures(results, setting))
    output = options.output or (None if options.quick or options.only or len(options.tools) < 4 else _DOCUMENT)
    if output is not None:
        write_document(output, results, setting)
        print(f"bench: wrote {output}", file=sys.stderr)
    return 1 if results.failures else 0


if __name__ == "__main__":
    try:
        others = {"encryption": encryption.main, "live": live.command.main, "store": store.command.main}
        other = others.get(sys.argv[1]) if len(sys.argv) > 1 else None
        sys.exit(other(sys.argv[2:]) if other is not None else main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

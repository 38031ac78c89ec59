# SPDX-License-Identifier: MIT
"""The command line of `scripts/bench store`."""

import argparse
import signal
import sys
from pathlib import Path

from datasets import prepare
from measure import StepError
from rows import RESTIC, YESTER, Results
from setting import claimed, count_rounds, default_work, describe
from tools import ROOT, install_tools, version
from trial import Record

from store.report import STORE_TABLE, write_store_section
from store.rows import COLUMNS, KEPT, STORE_ROWS
from store.session import Life

_DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str]) -> int:
    """Run the comparison; 1 if something of it failed."""
    options = _parse_options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that stores are taken away
    work: Path = options.work.resolve()
    with claimed(work):
        return _compare(options, work, arguments)


def _parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench store",
        description="Compare a store that lived through many rounds of backup, forget and prune with a fresh one and with restic's;"
        " writes a section of docs/benchmarks.md.",
        epilog="With --quick nothing is written unless --output says where. Exit status: 0 done, 1 some rows failed, 2 wrong usage.",
    )
    parser.add_argument(
        "--work", type=Path, default=default_work(), metavar="DIR", help="where data sets and stores are; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="how many rounds the stores live through; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="how often the rest is measured; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a small tree, seven rounds, everything once")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the section to this document")
    return parser.parse_args(arguments)


def _compare(options: argparse.Namespace, work: Path, arguments: list[str]) -> int:
    install_tools([RESTIC])
    data = prepare(work / ("quick" if options.quick else "full"), quick=options.quick)
    rounds, repeats = (KEPT + 2, 1) if options.quick else (options.rounds, options.repeats)
    setting = describe(
        work,
        ", ".join(version(name) for name in (YESTER, RESTIC)),
        f"Tree: {data.origin}, {data.contents.files:,} files, {data.contents.entries:,} entries, {data.contents.size_bytes / 1e6:,.0f} MB",
        ["store", *arguments],
        f"{count_rounds(rounds)} of change, then each step {repeats} times",
    )
    print("\n".join(setting.lines), file=sys.stderr)
    results = Results()
    wanted = frozenset(row.id for row in STORE_ROWS)
    life = None
    try:
        life = Life({name: Record(name, wanted, results) for name in COLUMNS}, data, work / "runs", rounds=rounds, repeats=repeats)
        life.live_through()
        life.look_at_them()
        life.prune_all_at_once()
        life.back_up_encrypted()
        life.compact()
        life.go_on_with_them()
    except StepError as error:
        sys.exit(f"bench: {error}")
    finally:
        if life is not None:
            life.take_away()
    print(STORE_TABLE.render(results))
    print(STORE_TABLE.render_failures(results, setting))
    output = options.output or (None if options.quick else _DOCUMENT)
    if output is not None:
        write_store_section(output, results, setting)
        print(f"bench: wrote {output}", file=sys.stderr)
    return 1 if results.failures else 0

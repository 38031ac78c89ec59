# SPDX-License-Identifier: MIT
"""The command line of `scripts/bench live`, and its rounds."""

import argparse
import os
import signal
import sys
from pathlib import Path

from datasets import prepare
from measure import StepError
from rows import PLAIN, Results
from setting import claimed, count_rounds, default_work, describe
from tools import ROOT
from trial import Record

from live.data import FULL, QUICK, LiveData, prepare_live
from live.installing import Installed, install_system
from live.report import LIVE_TABLE, write_live_section
from live.rows import COLUMNS, LIVE_ROWS
from live.session import session_of
from live.work import ALL_WORK, Work, do_work

_DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: list[str]) -> int:
    """Run the comparison; 1 if something of it failed."""
    options = _parse_options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that mounts are taken away
    work: Path = options.work.resolve()
    with claimed(work):
        return _compare(options, work, arguments)


def _parse_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench live",
        description="Compare yester's live folder with S3QL, JuiceFS, bindfs and a plain folder; writes a section of docs/benchmarks.md.",
        epilog="Rows: " + " ".join(row.id for row in LIVE_ROWS) + ". Without some of the rows or systems, or with --quick, nothing is"
        " written unless --output says where. A system that cannot be installed is left out, and the output says why."
        " Exit status: 0 done, 1 some rows failed, 2 wrong usage.",
    )
    parser.add_argument(
        "--work", type=Path, default=default_work(), metavar="DIR", help="where data sets, stores and mounts are; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often everything is measured; default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=[row.id for row in LIVE_ROWS], metavar="ROW", help="measure only these rows")
    parser.add_argument(
        "--systems", type=_system_names, default=list(COLUMNS), metavar="NAME,…", help=f"which to compare; default: {','.join(COLUMNS)}"
    )
    parser.add_argument("--quick", action="store_true", help="few and small files, one round")
    parser.add_argument(
        "--s3ql-from",
        default="s3ql",
        metavar="SOURCE",
        help="what pip installs S3QL from where Debian has none: a folder, say",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the section to this document")
    return parser.parse_args(arguments)


def _system_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(COLUMNS):
        message = f"no such system: {', '.join(sorted(unknown))}"
        raise argparse.ArgumentTypeError(message)
    return names


def _compare(options: argparse.Namespace, work: Path, arguments: list[str]) -> int:
    size = "quick" if options.quick else "full"
    results = Results()
    wanted = frozenset(options.only or (row.id for row in LIVE_ROWS))
    installed = _install(options, work, wanted, results)
    data = prepare_live(prepare(work / size, quick=options.quick), work / f"{size}-live", QUICK if options.quick else FULL)
    rounds = 1 if options.quick else options.rounds
    setting = describe(
        work,
        ", ".join(each.version for name, each in installed.items() if name != PLAIN),
        f"Files: of {data.linux.origin}, {data.small_contents.files:,} small ones with {data.small_contents.size_bytes / 1e6:,.0f} MB",
        ["live", *arguments],
        count_rounds(rounds),
    )
    print("\n".join(setting.lines), file=sys.stderr)

    for number in range(rounds):
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        records = {name: Record(name, wanted, results) for name in installed}
        for each in ALL_WORK:
            _do_with_each(each, records, installed, work / "runs", data)

    print(LIVE_TABLE.render(results))
    print(LIVE_TABLE.render_failures(results, setting))
    output = options.output or (None if options.quick or options.only or set(options.systems) != set(COLUMNS) else _DOCUMENT)
    if output is not None:
        write_live_section(output, results, setting)
        print(f"bench: wrote {output}", file=sys.stderr)
    return 1 if results.failures else 0


def _install(options: argparse.Namespace, work: Path, wanted: frozenset[str], results: Results) -> dict[str, Installed]:
    """The systems that are to be had. What the others would have measured has failed."""
    installed = {}
    for name in options.systems:
        try:
            installed[name] = install_system(name, work / "systems", s3ql_from=options.s3ql_from)
        except (StepError, OSError) as error:
            rows = {row for work_ in ALL_WORK if work_.is_for(name) for row in work_.all_rows}
            Record(name, wanted, results).fail(rows, str(error))
    return installed


def _do_with_each(work: Work, records: dict[str, Record], installed: dict[str, Installed], folder: Path, data: LiveData) -> None:
    """Do a piece of work with one system after the other, if somebody wants to know what it measures."""
    for name, record in records.items():
        if not work.is_for(name) or not record.wants(work.all_rows):
            continue

        def do(name: str = name, record: Record = record) -> None:
            with session_of(name, folder / name, installed[name]) as session:
                do_work(work, session, record, data)

        record.attempt(work.all_rows if name != PLAIN else work.rows, do)

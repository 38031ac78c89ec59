# SPDX-License-Identifier: MIT
"""`yester check`."""

import secrets
import sys
from pathlib import Path
from threading import Lock

import click

from yester.cli.memory import replaced_problem
from yester.cli.options import REPLACED_HINT, json_option, store_option
from yester.cli.output import json_name, json_time, print_json, show_name, show_size, show_text
from yester.cli.passphrases import Unlocker
from yester.cli.progress import show_progress, show_steps
from yester.core.share import parse_share
from yester.engine.check import Sample, check_path
from yester.engine.check_report import Affected, CheckReport, Finding, FindingKind
from yester.engine.steps import StepProgress
from yester.errors import UsageError


class Percentage(click.ParamType[float]):
    """`5%`, or `5`: more than nothing and at most all."""

    name = "percentage"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share it stands for."""
        try:
            return parse_share(str(value))
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


@click.command("check")
@click.option("--read-data", is_flag=True, help="Also read every byte and compare it with its hash.")
@click.option("--sample", metavar="PERCENT", type=Percentage(), help="As --read-data, but read only such a share, chosen at random.")
@click.option("--seed", type=int, help="Choose the sample that a run with this seed chose.")
@store_option
@json_option
def command(read_data: bool, sample: float | None, seed: int | None, store_path: Path, as_json: bool) -> int:
    """Look for damage: that every snapshot, folder and chunk is there, and with --read-data that every byte is right.

    Damage is named with the files and snapshots it touches; `yester repair` puts back what it can. Nothing is changed; backups
    and mounts may go on meanwhile.

    \b
    Examples:
      yester check
      yester check --read-data
      yester check --sample 5%       some of it each week: in time, all

    Exit status: 0 nothing wrong, 1 damage found or failed, 2 wrong usage.
    """
    if sample is None and seed is not None:
        message = "--seed chooses a sample, and none is asked for"
        raise UsageError(message, hint="say how much with --sample 5%")
    if sample is not None and read_data:
        message = "--read-data reads everything, --sample only a part"
        raise UsageError(message, hint="give one of the two")
    chosen = None if sample is None else Sample(sample, secrets.randbits(31) if seed is None else seed)
    progress = StepProgress()
    drawing = Lock()

    def line(_elapsed_s: float) -> str:
        with drawing:  # not while a passphrase is asked for, which comes after LMDB's pages were found to be sound
            return show_steps(progress)

    with show_progress(line):
        report = check_path(
            store_path,
            read_data=chosen or read_data,
            progress=progress,
            unlock=Unlocker(while_asking=drawing),
            judge_history=replaced_problem,
        )
    if as_json:
        print_json(_report_json(report))
    else:
        _print_report(report)
        if any(finding.kind is FindingKind.HISTORY for finding in report.findings):
            print(f"hint: {REPLACED_HINT}", file=sys.stderr)
    return 0 if report.is_whole else 1


def _print_report(report: CheckReport) -> None:
    for finding in report.findings:
        print(f"{finding.kind.value}: {show_text(finding.what)}")
        for affected in finding.affected:
            print(f"  {show_affected(affected)}")
        if finding.affected_more:
            print(f"  and {finding.affected_more} more")
    if report.findings_more:
        print(f"and {report.findings_more} more findings")
    print(
        f"{report.snapshots} snapshots, {report.trees} folders, {report.files} files; {report.chunks} chunks in {report.segments} segments"
    )
    if report.seed is not None:
        share = f"{report.read_segments} of {report.segments} segments (--seed {report.seed})"
        print(f"{share}, {show_size(report.read_bytes)}, read and hashed; the pages of the database and all other data were not")
    elif report.read_segments:
        print(f"{show_size(report.read_bytes)} read and hashed")
    if report.unneeded_chunks:
        unneeded = f"{report.unneeded_chunks} chunks ({show_size(report.unneeded_bytes)})"
        whole = f"{report.unneeded_segments} segments, {show_size(report.unneeded_stored_bytes)} on the disk, hold nothing else"
        print(f"{unneeded} belong to no snapshot: left by interrupted backups or repairs, no harm; {whole}")
    print(_verdict(report))


def _verdict(report: CheckReport) -> str:
    if report.is_whole:
        return "nothing wrong"
    if report.is_as_known:
        return "no damage but what `yester repair` has told of; everything not named above is whole"
    if all(finding.kind is FindingKind.HISTORY for finding in report.findings):
        return "no damage, but the store is not what it was"
    rest = "" if any(finding.kind is FindingKind.DATABASE for finding in report.findings) else "; everything not named above is whole"
    return f"damage found{rest}; `yester repair` puts back what it can"


def show_affected(affected: Affected) -> str:
    """A path that damage touches, and the snapshots."""
    path = f"{show_text(affected.source)}:{show_name(affected.path)}{'/ and all below it' if affected.is_folder else ''}"
    if affected.count == 1:
        return f"{path}  in {affected.first.snapshot.name}"
    return f"{path}  in {affected.count} snapshots, {affected.first.snapshot.name} to {affected.last.snapshot.name}"


def _report_json(report: CheckReport) -> dict[str, object]:
    return {
        "whole": report.is_whole,
        "as_known": report.is_as_known,
        "findings": [finding_json(finding) for finding in report.findings],
        "findings_more": report.findings_more,
        "snapshots": report.snapshots,
        "trees": report.trees,
        "files": report.files,
        "chunks": report.chunks,
        "segments": report.segments,
        "unneeded_chunks": report.unneeded_chunks,
        "unneeded_bytes": report.unneeded_bytes,
        "unneeded_segments": report.unneeded_segments,
        "unneeded_stored_bytes": report.unneeded_stored_bytes,
        "read_segments": report.read_segments,
        "read_bytes": report.read_bytes,
        "seed": report.seed,
    }


def finding_json(finding: Finding) -> dict[str, object]:
    """A finding for JSON."""
    return {
        "kind": finding.kind.value,
        "what": finding.what,
        "chunk": finding.chunk.hex() if finding.chunk is not None else None,
        "known_since": json_time(finding.known_since_ns) if finding.known_since_ns else None,
        "affected": [
            {
                "source": affected.source,
                "path": json_name(affected.path),
                "is_folder": affected.is_folder,
                "first": affected.first.snapshot.name,
                "last": affected.last.snapshot.name,
                "snapshots": affected.count,
            }
            for affected in finding.affected
        ],
        "affected_more": finding.affected_more,
    }

# SPDX-License-Identifier: MIT
"""`yester check`."""

from pathlib import Path
from threading import Lock

import click

from yester.cli.options import json_option, store_option
from yester.cli.output import json_name, print_json, show_name, show_size
from yester.cli.passphrases import Unlocker
from yester.cli.progress import show_progress
from yester.engine.check import Affected, CheckProgress, CheckReport, Finding, check_path


@click.command("check")
@click.option("--read-data", is_flag=True, help="Also read every byte and compare it with its hash.")
@store_option
@json_option
def command(read_data: bool, store_path: Path, as_json: bool) -> int:
    """Look for damage: that every snapshot, folder and chunk is there, and with --read-data that every byte is right.

    Damage is named with the files and snapshots it touches. Nothing is changed; backups and mounts may go on meanwhile.

    \b
    Examples:
      yester check
      yester check --read-data

    Exit status: 0 nothing wrong, 1 damage found or failed, 2 wrong usage.
    """
    progress = CheckProgress()
    drawing = Lock()

    def line(_elapsed_s: float) -> str:
        with drawing:  # not while a passphrase is asked for, which comes after LMDB's pages were found to be sound
            return _progress_line(progress)

    with show_progress(line):
        report = check_path(store_path, read_data=read_data, progress=progress, unlock=Unlocker(while_asking=drawing))
    if as_json:
        print_json(_report_json(report))
    else:
        _print_report(report, read_data=read_data)
    return 0 if report.is_whole else 1


def _progress_line(progress: CheckProgress) -> str:
    done = f"{progress.done} of {progress.total}" if progress.total else f"{progress.done}"
    return f"{progress.step}: {done}"


def _print_report(report: CheckReport, *, read_data: bool) -> None:
    for finding in report.findings:
        print(f"{finding.kind.value}: {finding.what}")
        for affected in finding.affected:
            print(f"  {_where(affected)}")
        if finding.affected_more:
            print(f"  and {finding.affected_more} more")
    if report.findings_more:
        print(f"and {report.findings_more} more findings")
    print(
        f"{report.snapshots} snapshots, {report.trees} folders, {report.files} files; {report.chunks} chunks in {report.segments} segments"
    )
    if read_data:
        print(f"{show_size(report.read_bytes)} read and hashed")
    if report.unneeded_chunks:
        unneeded = f"{report.unneeded_chunks} chunks ({show_size(report.unneeded_bytes)})"
        print(f"{unneeded} belong to no snapshot: left by interrupted backups, no harm")
    print("nothing wrong" if report.is_whole else "damage found; everything not named above is whole")


def _where(affected: Affected) -> str:
    path = f"{affected.source}:{show_name(affected.path)}{'/ and all below it' if affected.is_folder else ''}"
    if affected.count == 1:
        return f"{path}  in {affected.first.snapshot.name}"
    return f"{path}  in {affected.count} snapshots, {affected.first.snapshot.name} to {affected.last.snapshot.name}"


def _report_json(report: CheckReport) -> dict[str, object]:
    return {
        "whole": report.is_whole,
        "findings": [_finding_json(finding) for finding in report.findings],
        "findings_more": report.findings_more,
        "snapshots": report.snapshots,
        "trees": report.trees,
        "files": report.files,
        "chunks": report.chunks,
        "segments": report.segments,
        "unneeded_chunks": report.unneeded_chunks,
        "unneeded_bytes": report.unneeded_bytes,
        "read_bytes": report.read_bytes,
    }


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind.value,
        "what": finding.what,
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

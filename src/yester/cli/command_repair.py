# SPDX-License-Identifier: MIT
"""`yester repair`."""

from pathlib import Path
from threading import Lock
from typing import assert_never

import click

from yester.cli.command_check import finding_json, show_affected
from yester.cli.options import HostPath, json_option, store_option
from yester.cli.output import json_name, print_json, show_name, show_size, show_text
from yester.cli.passphrases import Unlocker
from yester.cli.progress import show_progress, show_steps
from yester.engine.check_report import CheckReport
from yester.engine.repair import RepairOptions, RepairReport, repair
from yester.engine.repair_live import LiveLoss, Outcome
from yester.engine.repair_pages import PagesReport
from yester.engine.repair_records import RecordAction, RecordChange
from yester.engine.steps import StepProgress
from yester.errors import UsageError
from yester.store.lmdb import Table
from yester.store.snapshots import StoredSnapshot

SOME_STAYS_DAMAGED = 3
_FILES_SHOWN = 20
_PROBLEMS_SHOWN = 5


@click.command("repair")
@click.option(
    "--copy-to", metavar="DIR", type=HostPath(), help="Copy the store there before anything is written: a missing or empty folder."
)
@click.option("--no-copy", is_flag=True, help="Make no copy: there is one already, or none is wanted.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be done, and do nothing.")
@store_option
@json_option
def command(copy_to: Path | None, no_copy: bool, dry_run: bool, store_path: Path, as_json: bool) -> int:
    """Put back what is damaged in the store, as far as it is anywhere to be had, and keep everything else.

    Reads all data. Looks for damaged chunks in the rest of the store, and in the files that were backed up if they are on this
    computer; a file is only read, and what it holds is taken only if it is what was stored. What is found nowhere is noted: the files
    that need it give an error when they are read, never other bytes, and are named. A backup of a source that has the same bytes puts
    them back later. Backups and live folders must not run meanwhile. It can be interrupted and run again.

    \b
    Examples:
      yester repair --dry-run
      yester repair --copy-to /mnt/disk/store-before-repair
      yester repair --no-copy

    Exit status: 0 done and nothing is damaged (any more), 1 failed, 2 wrong usage, 3 done but some files stay damaged, or the record of
    a snapshot, or something of a live folder, is lost.
    """
    if copy_to is not None and no_copy:
        message = "--copy-to asks for a copy and --no-copy for none; nothing was changed"
        raise UsageError(message, hint="give one of the two")
    if copy_to is None and not no_copy and not dry_run:
        message = "a repair changes the store, and was not told where to copy it before; nothing was changed"
        raise UsageError(message, hint="name a folder with --copy-to, best on another disk, or say --no-copy; --dry-run only looks")
    progress = StepProgress()
    drawing = Lock()

    def line(_elapsed_s: float) -> str:
        with drawing:  # not while a passphrase is asked for
            return show_steps(progress)

    with show_progress(line):
        report = repair(store_path, RepairOptions(copy_to, is_dry_run=dry_run), progress, Unlocker(while_asking=drawing))
    if as_json:
        print_json(_report_json(report, dry_run=dry_run))
    else:
        _print_report(report, copy_to, dry_run=dry_run)
    return 0 if report.is_whole else SOME_STAYS_DAMAGED


def _print_report(report: RepairReport, copy_to: Path | None, *, dry_run: bool) -> None:
    if dry_run:
        print("dry run, nothing was changed; this is what a repair would do:")
    if report.copied_bytes:
        print(f"the store as it was, {show_size(report.copied_bytes)}, is in {copy_to}")
    if report.pages is not None:
        _print_pages(report.pages, dry_run=dry_run)
        if dry_run:
            return
    print(f"{show_size(report.read_bytes)} read and hashed")
    _print_changes(report)
    print(f"put back: {report.from_segments} chunks from elsewhere in the store, {report.from_files} from files of this computer")
    for found in report.found_in[:_FILES_SHOWN]:
        print(f"  {found.chunks} from {show_name(found.path)}")
    if len(report.found_in) > _FILES_SHOWN:
        print("  and more")
    if report.is_whole:
        print("nothing would stay damaged" if dry_run else "nothing is damaged any more")
        return
    if report.after.is_whole:
        print("what is said above would be lost" if dry_run else "what is said above is lost; everything else is whole")
        return
    noted = f"{report.newly_lost} chunks more than before are" if report.newly_lost else "no more chunks than before are"
    print(f"{noted} lost; this stays damaged, and everything else is whole:")
    _print_damage(report.after)


def _print_changes(report: RepairReport) -> None:
    """What was done to records, segments and the index."""
    if report.pages is not None and report.pages.recovered is not None:
        print(_show_recovered(report.pages.recovered, report.pages.recovered_folders))
    for record in report.records:
        print(show_text(_show_record(record)))
    if report.recovered_folders:
        print(_show_recovered(report.recovered, report.recovered_folders))
    for name in report.mended_folders:
        print(f"live folder {show_text(name)}: damaged rows are taken out, after which it can be used again")
        for loss in report.live_losses:
            if loss.folder == name:
                print(f"  {_show_loss(loss)}")
    if report.mended_segments:
        print(f"{report.mended_segments} segments had a damaged header, which was made again")
    if report.foreign_segments:
        print(f"{report.foreign_segments} segments were left alone: they say that a newer release wrote them")
    if report.dropped_segments:
        print(f"{report.dropped_segments} segments of which nothing can be read were taken away")
    if report.dropped_entries:
        print(f"{report.dropped_entries} entries of the chunk index that led to something else were taken away")
    if report.forgotten_folders:
        print(f"{report.forgotten_folders} folders will be read anew by the next backup")


def _print_pages(pages: PagesReport, *, dry_run: bool) -> None:
    for problem in pages.problems[:_PROBLEMS_SHOWN]:
        print(f"database: {show_text(problem)}")
    if len(pages.problems) > _PROBLEMS_SHOWN:
        print(f"and {len(pages.problems) - _PROBLEMS_SHOWN} more problems of its pages")
    if dry_run:
        print("the data file would be read page by page, and all that can be read of it put into a new one; the old one would be kept")
        return
    print("the data file was read page by page, and what can be read of it is in a new one")
    print(f"the old one is kept as {pages.kept_as}: remove it when all is well")
    stray = f", {pages.stray_segments} of them by their bytes alone" if pages.stray_segments else ""
    print(f"{pages.segments} segments were found{stray}; {pages.unreadable_segments} cannot be read")
    stray = f", {pages.stray_snapshots} of them by their bytes alone: some may have been forgotten before" if pages.stray_snapshots else ""
    print(f"{pages.snapshots} snapshots were found{stray}")
    if pages.is_listing_doubtful:
        print("these are not the snapshots that were recorded: some are lost by the damage, or somebody without the key has changed them;")
        print("if they are all that can be (`yester snapshots`), take them as they are with `yester key accept`")
    for name in pages.lost_live_folders:
        version = f"live/{show_text(name)}"
        print(f"live folder {show_text(name)}: what was in no version yet is lost; `yester live MNT --from {version}` begins with the last")
    if pages.has_new_parameters:
        print("the parameters of the store were lost: files may be cut into other chunks from now on, which takes space and does no harm")
    if pages.unreadable_bytes:
        print(f"the disk did not give {show_size(pages.unreadable_bytes)} of the file")


def _print_damage(after: CheckReport) -> None:
    """Each path once, whatever number of its chunks is lost; in full what touches no path."""
    for line in dict.fromkeys(show_affected(affected) for finding in after.findings for affected in finding.affected):
        print(f"  {line}")
    if more := sum(finding.affected_more for finding in after.findings):
        print(f"  and {more} more: `yester check` names them by chunk")
    for finding in after.findings:
        if not finding.affected:
            print(f"{finding.kind.value}: {show_text(finding.what)}")
    if after.findings_more:
        print(f"and {after.findings_more} more findings")


def _report_json(report: RepairReport, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "whole": report.is_whole,
        "copied_bytes": report.copied_bytes,
        "read_bytes": report.read_bytes,
        "pages": _pages_json(report.pages) if report.pages is not None else None,
        "from_segments": report.from_segments,
        "from_files": report.from_files,
        "found_in": [{"path": json_name(found.path), "chunks": found.chunks} for found in report.found_in],
        "newly_lost": report.newly_lost,
        "dropped_entries": report.dropped_entries,
        "dropped_segments": report.dropped_segments,
        "mended_segments": report.mended_segments,
        "foreign_segments": report.foreign_segments,
        "records": [_record_json(record) for record in report.records],
        "mended_live_folders": report.mended_folders,
        "live_losses": [
            {"live_folder": loss.folder, "path": json_name(loss.path) if loss.path is not None else None, "outcome": loss.outcome.value}
            for loss in report.live_losses
        ],
        "recovered": report.recovered.snapshot.name if report.recovered is not None else None,
        "recovered_folders": report.recovered_folders,
        "forgotten_folders": report.forgotten_folders,
        "findings": [finding_json(finding) for finding in report.after.findings],
        "findings_more": report.after.findings_more,
    }


def _show_record(change: RecordChange) -> str:
    id_ = change.id.hex()[:12] if change.id is not None else ""
    what = "a forgotten snapshot" if change.table is Table.FORGOTTEN else "a snapshot"
    match change.action:
        case RecordAction.TAKEN_AWAY:
            return f"the record of {what} of {change.source!r} was taken away: {change.problem}"
        case RecordAction.FILED:
            return f"{what} of {change.source!r}, {id_}, was filed as what it says that it is"
        case RecordAction.LISTED:
            return f"snapshot {id_} of {change.source!r} was listed again under its id"
        case RecordAction.UNLISTED:
            return f"snapshot {id_} of {change.source!r} was listed, and there is no such record: it is not any more"
        case RecordAction.FORGOTTEN_SEEN:
            return "what backups remember of a folder was taken away"
        case _:
            assert_never(change.action)


def _show_loss(loss: LiveLoss) -> str:
    shown = "something whose name is not known" if loss.path is None else show_name(loss.path) if loss.path else "its root"
    match loss.outcome:
        case Outcome.AS_IN_BASE:
            return f"{shown}: is as in the last version again; what was done to it since is lost"
        case Outcome.GONE:
            return f"{shown}: is gone; it was in no version"
        case Outcome.MADE_AGAIN:
            return f"{shown}: the folder was made again, with all that is in it; its owner and mode may be wrong"
        case Outcome.RENAMED:
            return f"{shown}: its name was lost"
        case _:
            assert_never(loss.outcome)


def _show_recovered(recovered: StoredSnapshot | None, count: int) -> str:
    folders = "1 folder" if count == 1 else f"{count} folders"
    if recovered is None:
        return f"{folders} to which no snapshot leads would be kept in a snapshot of the source `recovered`"
    name = f"{recovered.snapshot.source}@{recovered.snapshot.name}"
    return f"{folders} to which no snapshot leads any more: `yester ls {name}` shows them; that snapshot is pinned"


def _record_json(change: RecordChange) -> dict[str, object]:
    return {
        "table": change.table.value.decode(),
        "source": change.source,
        "id": change.id.hex() if change.id is not None else None,
        "action": change.action.value,
        "problem": change.problem,
    }


def _pages_json(pages: PagesReport) -> dict[str, object]:
    return {
        "problems": pages.problems,
        "kept_as": str(pages.kept_as) if pages.kept_as is not None else None,
        "segments": pages.segments,
        "stray_segments": pages.stray_segments,
        "unreadable_segments": pages.unreadable_segments,
        "snapshots": pages.snapshots,
        "stray_snapshots": pages.stray_snapshots,
        "recovered": pages.recovered.snapshot.name if pages.recovered is not None else None,
        "recovered_folders": pages.recovered_folders,
        "lost_live_folders": pages.lost_live_folders,
        "listing_doubtful": pages.is_listing_doubtful,
        "has_new_parameters": pages.has_new_parameters,
        "unreadable_bytes": pages.unreadable_bytes,
    }

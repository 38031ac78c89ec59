# SPDX-License-Identifier: MIT
"""`yester prune`."""

import sys
from pathlib import Path

import click

from yester.cli.options import Duration, json_option, open_store, store_option
from yester.cli.output import print_json, show_count, show_size, show_text
from yester.cli.progress import show_progress, show_steps
from yester.cli.records import snapshot_json
from yester.core.retention import GRACE_NS
from yester.core.times import show_duration
from yester.engine.prune import PruneReport, prune
from yester.engine.steps import StepProgress

_PAYS_SHARE = 0.25
_PAYS_BYTES = 64 * 1024 * 1024
"""`yester compact` is recommended where it makes the file smaller by more than both."""


@click.command("prune")
@click.option(
    "--grace",
    "grace_ns",
    metavar="TIME",
    type=Duration(),
    default=GRACE_NS,
    help=f"Keep what was forgotten in this time ({show_duration(GRACE_NS)}).",
)
@click.option("--accept-loss", "accepts_loss", is_flag=True, help="Go on where folders are known to be lost, without what was in them.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be freed, and free nothing.")
@store_option
@json_option
def command(grace_ns: int, accepts_loss: bool, dry_run: bool, store_path: Path, as_json: bool) -> None:
    """Free the space of what no snapshot and no live folder needs any more.

    Snapshots that were forgotten less than --grace ago are kept, and can be had back until then (`yester undelete`). Backups, mounts
    and live folders may go on meanwhile. A prune that is interrupted harms nothing: the next one goes on.

    What is freed is written again by later backups; the file stays as large as it is until `yester compact`.

    \b
    Examples:
      yester prune --dry-run
      yester prune
      yester prune --grace 0

    Exit status: 0 done, 1 failed (nothing was lost), 2 wrong usage.
    """
    progress = StepProgress()
    with open_store(store_path, is_written=not dry_run) as store, show_progress(lambda _elapsed_s: show_steps(progress)):
        report = prune(store, grace_ns=grace_ns, accepts_loss=accepts_loss, dry_run=dry_run, progress=progress, on_wait=_tell_waiting)
    if as_json:
        print_json(_report_json(report))
    else:
        _print_report(report, dry_run=dry_run)


def _tell_waiting(holder: str) -> None:
    print(f"waiting for another prune of this store ({holder})", file=sys.stderr)


def _print_report(report: PruneReport, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for forgotten in report.removed:
        snapshot = forgotten.stored.snapshot
        print(f"{show_text(snapshot.source)}@{snapshot.name} {would}removed for good")
    print(
        f"{show_count(report.dead_chunks, 'chunk')} that nothing needs ({show_size(report.dead_bytes)} before compression) {would}removed"
    )
    if not dry_run:
        segments = (
            f"{show_count(report.removed_segments, 'segment')} removed, {report.rewritten_segments} rewritten as {report.new_segments}"
        )
        print(f"freed {show_size(report.freed_bytes)}: {segments}")
    if report.in_grace:
        print(f"{show_count(report.in_grace, 'forgotten snapshot')} can still be had back with `yester undelete`")
    if report.leased:
        kept = show_count(report.leased, "forgotten snapshot")
        print(f"for processes that may still read them, {kept} can not go yet: {_processes(report)}")
    elif report.leases:
        print(f"what was stored since these processes began is kept for them: {_processes(report)}")
    if report.damaged_segments:
        print(f"{show_count(report.damaged_segments, 'segment')} with damage left as found: run `yester check --read-data`")
    if report.reusable_bytes > max(_PAYS_BYTES, _PAYS_SHARE * report.file_bytes):
        room = f"{show_size(report.reusable_bytes)} of the file's {show_size(report.file_bytes)} are free to be written again"
        print(f"{room}; `yester compact` would give them back to the disk")


def _processes(report: PruneReport) -> str:
    return ", ".join(str(lease.process) for lease in report.leases)


def _report_json(report: PruneReport) -> dict[str, object]:
    return {
        "removed": [snapshot_json(forgotten.stored) for forgotten in report.removed],
        "in_grace": report.in_grace,
        "leased": report.leased,
        "lease_processes": [lease.process for lease in report.leases],
        "dead_chunks": report.dead_chunks,
        "dead_bytes": report.dead_bytes,
        "removed_segments": report.removed_segments,
        "rewritten_segments": report.rewritten_segments,
        "new_segments": report.new_segments,
        "freed_bytes": report.freed_bytes,
        "damaged_segments": report.damaged_segments,
        "file_bytes": report.file_bytes,
        "reusable_bytes": report.reusable_bytes,
    }

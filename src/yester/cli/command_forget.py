# SPDX-License-Identifier: MIT
"""`yester forget`."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from yester.cli.config import read_config
from yester.cli.configured_policies import configured_policies
from yester.cli.keep_options import keep_options
from yester.cli.options import SnapshotName, current_config_path, json_option, open_store, store_option
from yester.cli.output import json_time, print_json, print_table, show_size, show_text, show_time
from yester.cli.records import snapshot_json
from yester.core.retention import GRACE_NS, Policy
from yester.engine.forget import ForgottenSource, Verdict, find_policies, forget_named, forget_source, judge, thin
from yester.engine.select import label
from yester.errors import UsageError


@dataclass(slots=True)
class _Outcome:
    """What was, or would be, done: verdicts, the policies that they come from, and live folders that went."""

    verdicts: list[Verdict] = field(default_factory=list)
    policies: dict[str, Policy] = field(default_factory=dict)
    removed: list[ForgottenSource] = field(default_factory=list)

    @property
    def forgotten(self) -> int:
        return sum(not verdict.is_kept for verdict in self.verdicts)


@click.command("forget")
@click.argument("names", metavar="[SOURCE|SNAP]...", nargs=-1, type=SnapshotName())
@keep_options
@click.option("--all", "forget_all", is_flag=True, help="Forget all snapshots of each SOURCE.")
@click.option("--remove-folder", is_flag=True, help="The same of live folders, and take the folders away.")
@click.option("--yes", "-y", "is_meant", is_flag=True, help="Forget even the last snapshot of a source.")
@click.option("--dry-run", "-n", is_flag=True, help="Only show what would be kept, and why.")
@store_option
@json_option
def command(
    names: tuple[str, ...],
    policy: Policy | None,
    forget_all: bool,
    remove_folder: bool,
    is_meant: bool,
    dry_run: bool,
    store_path: Path,
    as_json: bool,
) -> None:
    """Thin snapshots out: keep what the --keep options say of each SOURCE, or of all, and forget the rest.

    Kept is what any of these options keeps, and always the newest snapshot of a source and what is pinned (`yester pin`).
    Without any of them, sources are thinned by the policies of the configuration (`yester policy`). Versions of live folders that have
    none there: all of the last hour, hourly for a day, daily for a month, weekly for a year, then monthly; and those with a remark.
    Single snapshots can be named by SOURCE@NAME or id.

    A forgotten snapshot can be had back for at least 7 days with `yester undelete`, and seen in `forgotten/` of a mount. Its space
    is given back after that.

    \b
    Examples:
      yester forget Documents --keep-daily 7 --keep-weekly 5 --keep-yearly all --dry-run
      yester forget --keep-within 30d
      yester forget Documents@2026-11-22_10-00-00
      yester forget live/Work --remove-folder --yes

    Exit status: 0 done (also where there is nothing to forget), 1 failed, 2 wrong usage.
    """
    now_ns = time.time_ns()
    if (forget_all or remove_folder) and (policy is not None or not names):
        message = "--all and --remove-folder forget everything of the sources that are named; nothing was forgotten"
        raise UsageError(message, hint="name sources, and leave the --keep options out")
    outcome = _Outcome()
    left_alone: list[str] = []
    with open_store(store_path, is_written=not dry_run) as store:
        sources = store.sources()
        if forget_all or remove_folder:
            for name in dict.fromkeys(names):
                done = forget_source(store, name, remove_folder=remove_folder, is_meant=is_meant, now_ns=now_ns, dry_run=dry_run)
                outcome.verdicts += map(Verdict, done.snapshots)
                outcome.removed += [done] if done.removed_folder else []
        elif names and policy is None and not set(names) & set(sources):
            named = forget_named(store, names, is_last_meant=is_meant, now_ns=now_ns, dry_run=dry_run)
            outcome.verdicts += map(Verdict, named)
        else:
            outcome.policies = find_policies(
                store, names, policy, configured_policies(read_config(current_config_path())) if policy is None else None
            )
            left_alone = [] if names else [source for source in sources if source not in outcome.policies]
            decide = judge if dry_run else thin
            for source, its_policy in outcome.policies.items():
                outcome.verdicts += decide(store, source, its_policy, now_ns=now_ns)
    if as_json:
        print_json(_outcome_json(outcome, now_ns, dry_run=dry_run))
        return
    _print_outcome(outcome, now_ns, dry_run=dry_run)
    if left_alone:
        click.echo(f"left alone, since nothing says what to keep of them: {', '.join(map(show_text, left_alone))}", err=True)


def _print_outcome(outcome: _Outcome, now_ns: int, *, dry_run: bool) -> None:
    rows = [
        [
            verdict.stored.id.hex()[:12],
            show_text(label(verdict.stored)),
            "keep" if verdict.is_kept else "forget",
            show_text(", ".join(map(str, verdict.reasons))),
        ]
        for verdict in outcome.verdicts
    ]
    if rows:
        print_table(["ID", "SNAPSHOT", "", "BECAUSE"], rows)
    for removed in outcome.removed:
        lost = f"{removed.lost_nodes} changed files and folders, {show_size(removed.lost_bytes)}"
        lost = f"; in no version, and so lost: {lost}" if removed.lost_nodes else ""
        if removed.problem:
            lost = f"; what was in no version is lost, and how much that is, is not known: {show_text(removed.problem)}"
        print(f"{'would remove' if dry_run else 'removed'} the live folder {show_text(removed.removed_folder)}{lost}")
    of_all = f"{outcome.forgotten} of {len(rows)} snapshots"
    if dry_run:
        print(f"dry run, nothing was changed: {of_all} would be forgotten")
    elif outcome.forgotten:
        print(f"forgot {of_all}; `yester undelete` brings them back until {show_time(now_ns + GRACE_NS)} UTC at least")
    elif not outcome.removed:
        print(f"nothing to forget: all {len(rows)} snapshots are kept")


def _outcome_json(outcome: _Outcome, now_ns: int, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "forgotten": outcome.forgotten,
        "recoverable_until": json_time(now_ns + GRACE_NS) if outcome.forgotten and not dry_run else None,
        "policies": {source: policy.options() for source, policy in outcome.policies.items()},
        "removed_folders": [
            {
                "name": removed.removed_folder,
                "lost_nodes": removed.lost_nodes if not removed.problem else None,
                "lost_bytes": removed.lost_bytes if not removed.problem else None,
                "problem": removed.problem or None,
            }
            for removed in outcome.removed
        ],
        "snapshots": [
            {
                **snapshot_json(verdict.stored),
                "action": "keep" if verdict.is_kept else "forget",
                "reasons": [{"rule": str(reason.rule), "detail": reason.detail or None} for reason in verdict.reasons],
            }
            for verdict in outcome.verdicts
        ],
    }

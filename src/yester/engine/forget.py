# SPDX-License-Identifier: MIT
"""Forgetting snapshots: by a policy, one by one, or a whole source; and having them back.

A forgotten snapshot is out of the list of snapshots, and all that it needs stays until `prune` finds that its grace is over.

What must hold, whatever other processes publish, forget or pin meanwhile: the newest snapshot of a source stays unless somebody
said that he means it, what is pinned stays, and so does the last version of a live folder, on which the folder is based. So
what is decided is decided in the transaction that does it. Decisions that are only shown (`judge`, dry runs) may be out of date.

Threads: as `Store`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from yester.core.ids import SnapshotId
from yester.core.records import RECORD_VERSION, Pin
from yester.core.retention import LIVE_POLICY, Candidate, Policy, Reason, decide
from yester.engine.live_rows import waiting
from yester.engine.select import find_exact, label, may_be_exact, source_not_found
from yester.errors import BusyError, ConflictError, CorruptionError, NotFoundError, UsageError, YesterError
from yester.store.live import LiveFolders, live_name_of, removal
from yester.store.lmdb import WriteTransaction
from yester.store.snapshots import Listing, StoredSnapshot
from yester.store.store import Store

_NAMED_MAX = 3
"""Snapshots that a message names; more are only counted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a snapshot: it is kept for these reasons, or forgotten if there are none."""

    stored: StoredSnapshot
    reasons: tuple[Reason, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether there is a reason."""
        return bool(self.reasons)


def default_policies(sources: Iterable[str]) -> dict[str, Policy]:
    """The policies of those of these sources that have one without being given any: live folders."""
    return {source: LIVE_POLICY for source in sources if live_name_of(source) is not None}


def find_policies(
    store: Store, sources: Sequence[str], given: Policy | None, configured: Mapping[str, Policy] | None = None
) -> dict[str, Policy]:
    """Which policy each of these sources is thinned by, of all sources if none is named.

    It is the one that is given, else what is configured for it, else its own if it has one without that.

    Raises:
        NotFoundError: there is no such source. UsageError: one that is named, or all there are, would have none.
    """
    known = store.sources()
    for source in sources:
        if "@" in source:
            message = f"{source!r} is a snapshot, and a policy is for whole sources; nothing was forgotten"
            raise UsageError(message, hint="to forget single snapshots, name nothing else, and leave the --keep options out")
        if source not in known:
            raise source_not_found(store, source)
    if given is not None:
        return dict.fromkeys(sources or known, given)
    policies = default_policies(sources or known)
    policies |= {source: policy for source, policy in (configured or {}).items() if source in (sources or known)}
    if without := [source for source in sources if source not in policies]:
        raise _nothing_says(without[0])
    if not policies:
        message = "nothing says which snapshots to keep; nothing was forgotten"
        raise UsageError(message, hint="say it, such as --keep-last 5 --keep-monthly 12; or name single snapshots")
    return policies


def judge(store: Store, source: str, policy: Policy, *, now_ns: int) -> tuple[Verdict, ...]:
    """What a policy would keep of a source, and why, oldest first. Changes nothing. About 30 µs a snapshot."""
    return _judge(store.listing(source), policy, now_ns)


def thin(store: Store, source: str, policy: Policy, *, now_ns: int) -> tuple[Verdict, ...]:
    """Forget what a policy does not keep of a source; returns what was decided of each snapshot, oldest first.

    One transaction, durable on return; none if there is nothing to forget. It takes 0.7 s where 10,000 are forgotten.
    """
    verdicts = judge(store, source, policy, now_ns=now_ns)
    if all(verdict.is_kept for verdict in verdicts):
        return verdicts

    def choose(listing: Listing) -> list[SnapshotId]:
        nonlocal verdicts
        verdicts = _judge(listing, policy, now_ns)
        return [verdict.stored.id for verdict in verdicts if not verdict.is_kept]

    store.forget_chosen(choose, source=source, now_ns=now_ns)
    return verdicts


def forget_named(
    store: Store, names: Sequence[str], *, is_last_meant: bool, now_ns: int, dry_run: bool = False
) -> tuple[StoredSnapshot, ...]:
    """Forget single snapshots, named by id or `SOURCE@NAME`; all or none. Returns them in that order, each once.

    With `is_last_meant` a source may be left without any.

    Raises:
        NotFoundError: one is not there. UsageError: a name fits several, or is that of a source.
        ConflictError: one is pinned, the last of its source, or what a live folder is based on. Nothing was changed.
    """
    sources = store.sources()
    for name in names:
        if name in sources:
            raise _nothing_says(name)
        if not may_be_exact(name):
            raise source_not_found(store, name)
    folders = LiveFolders(store.environment).names()
    forgotten = [found.stored for found in store.forgotten_snapshots()]

    def choose(listing: Listing) -> tuple[StoredSnapshot, ...]:
        chosen = tuple({found.id: found for found in (_find_listed(listing, forgotten, name) for name in names)}.values())
        _refuse_pinned(listing, chosen)
        _refuse_bases(listing, chosen, folders)
        if not is_last_meant:
            _refuse_last(listing, chosen)
        return chosen

    return _forget_chosen(store, choose, now_ns=now_ns, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class ForgottenSource:
    """The snapshots of a source that were forgotten. `lost_nodes` and `lost_bytes` went with a live folder, and were in no version."""

    snapshots: tuple[StoredSnapshot, ...]
    removed_folder: str = ""
    lost_nodes: int = 0
    lost_bytes: int = 0
    problem: str = ""
    """Why it is not known how much that is: the folder was damaged."""


def forget_source(store: Store, source: str, *, remove_folder: bool, is_meant: bool, now_ns: int, dry_run: bool = False) -> ForgottenSource:
    """Forget all snapshots of a source, and with `remove_folder` take its live folder away, with what is in no version: for good.

    One transaction does both. Without `is_meant` only a dry run is allowed.

    Raises:
        NotFoundError: there is no such source, or no such folder. BusyError: the folder is in use.
        ConflictError: it is not meant, one is pinned, or a live folder is there and shall not be removed. Nothing was changed.
    """
    folders = LiveFolders(store.environment)
    name = live_name_of(source)
    has_folder = name is not None and name in folders.names()
    if not has_folder and source not in store.sources():
        raise source_not_found(store, source)
    if remove_folder and not has_folder:
        message = f"{source!r} has no live folder that could be removed; nothing was changed"
        raise NotFoundError(message, hint="`yester status` lists live folders; leave --remove-folder out for a source without one")
    if has_folder and not remove_folder:
        message = f"the live folder {name!r} is based on its last version; nothing was changed"
        raise ConflictError(message, hint="to take the folder away as well, with what is in no version yet, add --remove-folder")

    def choose(listing: Listing) -> tuple[StoredSnapshot, ...]:
        chosen = tuple(listing.snapshots)
        _refuse_pinned(listing, chosen)
        return chosen

    def refuse(holder: str) -> None:
        message = f"the live folder {name!r} is in use by {holder}; nothing was changed"
        raise BusyError(message, hint="unmount it first: `yester status` says where it is mounted")

    if name is None or not has_folder:
        if not is_meant and not dry_run:
            what = f"all {len(store.snapshots(source))} snapshots of {source!r}"
            raise _not_meant(what)
        return ForgottenSource(_forget_chosen(store, choose, source=source, now_ns=now_ns, dry_run=dry_run))
    with nullcontext() if dry_run else _folder_lock(folders, name, refuse):
        problem, lost_nodes, lost_bytes = "", 0, 0
        try:
            lost_nodes, lost_bytes = waiting(folders.load(name))
        except CorruptionError as error:
            problem = error.message
        if not is_meant and not dry_run:
            lost = f", and lose for good what is in no version yet (changed files and folders: {lost_nodes})" if lost_nodes else ""
            lost = f", and lose for good what is in no version yet ({problem})" if problem else lost
            what = f"all {len(store.snapshots(source))} versions of the live folder {name!r}{lost}"
            raise _not_meant(what)
        forgotten = _forget_chosen(store, choose, source=source, now_ns=now_ns, dry_run=dry_run, also=removal(name))
    return ForgottenSource(forgotten, name, lost_nodes, lost_bytes, problem)


def _folder_lock(folders: LiveFolders, name: str, on_busy: Callable[[str], None]) -> AbstractContextManager[None]:
    """Its lock; none of a folder whose head is damaged, which nobody can use."""
    try:
        return folders.lock(folders.load_head(name), on_busy)
    except CorruptionError:
        return nullcontext()


def undelete(store: Store, names: Sequence[str], *, pin: bool, now_ns: int) -> tuple[StoredSnapshot, ...]:
    """Have forgotten snapshots back, named by id or `SOURCE@NAME`, or by SOURCE for all of it that are forgotten; all or none.

    With `pin` they are pinned, so that the policy that forgot them does not do so again.

    Raises:
        NotFoundError: one is not among the forgotten ones. UsageError: a name fits several. Nothing was changed.
    """
    forgotten = [found.stored for found in store.forgotten_snapshots()]
    wanted: dict[SnapshotId, None] = {}
    for name in names:
        of_source = [stored.id for stored in forgotten if stored.snapshot.source == name]
        found = None if of_source else find_exact(forgotten, name)
        if not of_source and found is None:
            raise _not_forgotten(store, name)
        wanted |= dict.fromkeys(of_source if found is None else [found.id])
    pinned = Pin(RECORD_VERSION, now_ns, "had back after it was forgotten") if pin else None
    return tuple(store.undelete(wanted, pin=pinned))


def _nothing_says(source: str) -> UsageError:
    message = f"nothing says which snapshots of {source!r} to keep; nothing was forgotten"
    return UsageError(message, hint=f"say it, such as --keep-last 5 --keep-monthly 12; or name single snapshots: {source}@NAME")


def _judge(listing: Listing, policy: Policy, now_ns: int) -> tuple[Verdict, ...]:
    by_id = {stored.id: stored for stored in listing.snapshots}
    candidates = [
        Candidate(
            stored.id,
            stored.snapshot.time_ns,
            stored.snapshot.tags,
            is_pinned=stored.id in listing.pins,
            has_remark=bool(stored.snapshot.message),
        )
        for stored in listing.snapshots
    ]
    return tuple(Verdict(by_id[decision.id], decision.reasons) for decision in decide(policy, candidates, now_ns))


def _forget_chosen(
    store: Store,
    choose: Callable[[Listing], tuple[StoredSnapshot, ...]],
    *,
    source: str | None = None,
    now_ns: int,
    dry_run: bool,
    also: Callable[[WriteTransaction], None] | None = None,
) -> tuple[StoredSnapshot, ...]:
    if dry_run:
        return choose(store.listing(source))
    chosen: tuple[StoredSnapshot, ...] = ()

    def note(listing: Listing) -> list[SnapshotId]:
        nonlocal chosen
        chosen = choose(listing)
        return [stored.id for stored in chosen]

    store.forget_chosen(note, source=source, now_ns=now_ns, also=also)
    return chosen


def _find_listed(listing: Listing, forgotten: Sequence[StoredSnapshot], name: str) -> StoredSnapshot:
    found = find_exact(listing.snapshots, name)
    if found is not None:
        return found
    if find_exact(forgotten, name) is not None:
        message = f"the snapshot {name!r} was forgotten already; nothing was changed"
        raise NotFoundError(message, hint="`yester snapshots --forgotten` lists those that can be had back")
    message = f"there is no snapshot {name!r}; nothing was changed"
    raise NotFoundError(message, hint="name it by its id, or as SOURCE@NAME, as `yester snapshots` shows them; a time will not do here")


def _not_forgotten(store: Store, name: str) -> NotFoundError:
    if find_exact(store.snapshots(), name) is not None or name in store.sources():
        message = f"{name!r} is not forgotten; nothing was changed"
        return NotFoundError(message, hint="`yester snapshots --forgotten` lists what can be had back")
    message = f"there is no forgotten snapshot {name!r} in {store.path}; nothing was changed"
    return NotFoundError(message, hint="`yester snapshots --forgotten` lists those there are; what prune has removed is gone")


def _refuse_pinned(listing: Listing, chosen: Collection[StoredSnapshot]) -> None:
    pinned = [label(stored) for stored in chosen if stored.id in listing.pins]
    if pinned:
        what = "a pinned snapshot" if len(pinned) == 1 else f"{len(pinned)} pinned snapshots"
        message = f"{what} would be forgotten: {_shown(pinned)}; nothing was changed"
        raise ConflictError(message, hint=f"take the pin away first: yester unpin {pinned[0]}")


def _refuse_bases(listing: Listing, chosen: Collection[StoredSnapshot], folders: Collection[str]) -> None:
    newest = {stored.snapshot.source: stored for stored in listing.snapshots}
    for stored in chosen:
        name = live_name_of(stored.snapshot.source)
        if newest[stored.snapshot.source] == stored and name in folders:
            message = f"{label(stored)} is the last version of the live folder {name!r}, which is based on it; nothing was changed"
            raise ConflictError(message, hint=f"make a newer version first: yester snapshot {name}")


def _refuse_last(listing: Listing, chosen: Collection[StoredSnapshot]) -> None:
    left = Counter(stored.snapshot.source for stored in listing.snapshots)
    left.subtract(stored.snapshot.source for stored in chosen)
    emptied = sorted({stored.snapshot.source for stored in chosen if left[stored.snapshot.source] == 0})
    if emptied:
        what = f"the last snapshot of {_shown([repr(source) for source in emptied])}"
        raise _not_meant(what)


def _not_meant(what: str) -> YesterError:
    message = f"this would forget {what}; nothing was changed"
    return ConflictError(message, hint="if you mean it, say --yes")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more

# SPDX-License-Identifier: MIT
"""How sources are: what their snapshots, their runs on this computer and what is wanted of them say together. Looks; changes nothing."""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo

from yester.engine.runs import Outcome, RunBook, RunRecord, is_too_old, newest_of, next_due_ns
from yester.engine.source_plan import Source
from yester.store.snapshots import StoredSnapshot

Times = Mapping[str, Mapping[str, list[int]]]
"""When snapshots of each source were begun, by the computer that made them."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source."""

    name: str
    source: Source | None
    """None: nobody has said what is wanted of it."""
    record: RunRecord | None
    is_running: bool
    good_ns: int | None
    """When the last good backup began, of this computer if the source is one that this computer backs up."""
    other_host: str
    """Which other computer made the newest snapshot, if one did."""
    next_ns: int | None
    """When it is due; now or earlier if it is. None: never by itself."""
    is_too_old: bool

    def problem(self) -> str:
        """What went wrong in the last run; empty if nothing did, or if there was a good backup since."""
        if self.record is None or self.is_running or self.record.outcome is Outcome.DONE:
            return ""
        if self.good_ns is not None and self.good_ns > (self.record.ended_ns or self.record.started_ns):
            return ""
        return self.record.message or "it was interrupted"


def snapshot_times(snapshots: Iterable[StoredSnapshot]) -> Times:
    """Of these snapshots."""
    times: dict[str, dict[str, list[int]]] = {}
    for stored in snapshots:
        times.setdefault(stored.snapshot.source, {}).setdefault(stored.snapshot.host, []).append(stored.snapshot.time_ns)
    return times


def find_states(sources: Mapping[str, Source], times: Times, book: RunBook, *, now_ns: int, zone: tzinfo) -> list[SourceState]:
    """The state of each of these sources that is backed up, and of those that only have snapshots, by name."""
    wanted = {source.name for source in sources.values() if source.paths}
    return [
        find_state(name, sources.get(name), times.get(name, {}), book, now_ns=now_ns, zone=zone) for name in sorted(wanted | times.keys())
    ]


def find_state(
    name: str, source: Source | None, times_by_host: Mapping[str, list[int]], book: RunBook, *, now_ns: int, zone: tzinfo
) -> SourceState:
    """The state of one source, `source` if somebody wants it; of which these computers made snapshots at these times."""
    record, host = book.read(name), socket.gethostname()
    newest = {maker: newest_of(times_ns, now_ns) or 0 for maker, times_ns in times_by_host.items()}
    is_of_here = source is not None and bool(source.paths)
    own = [newest.get(host, 0), record.good_ns if record is not None else 0]
    good_ns = newest_of(own if is_of_here else newest.values(), now_ns)
    last_maker = max(newest, key=lambda maker: newest[maker], default=host)
    next_ns = None
    if source is not None and source.recurrence is not None:
        next_ns = next_due_ns(source.recurrence, record, now_ns, zone)
    return SourceState(
        name,
        source,
        record,
        book.is_running(name),
        good_ns,
        last_maker if last_maker != host else "",
        next_ns,
        is_of_here and source is not None and is_too_old(good_ns, source.max_age_ns, now_ns),
    )

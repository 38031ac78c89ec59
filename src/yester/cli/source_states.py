# SPDX-License-Identifier: MIT
"""How sources are: what their snapshots, their runs on this computer and the configuration say together.

For `yester schedule list` and `yester status`. Looks, and changes nothing.
"""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo

from yester.cli.config import Config, Source
from yester.cli.local_time import show_local_time
from yester.cli.output import json_time, show_text
from yester.engine.runs import Outcome, RunBook, RunRecord, is_too_old, newest_of, next_due_ns
from yester.store.snapshots import StoredSnapshot

Times = Mapping[str, Mapping[str, list[int]]]
"""When snapshots of each source were begun, by the computer that made them."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """One source."""

    name: str
    source: Source | None
    """None: the configuration does not know it."""
    record: RunRecord | None
    is_running: bool
    good_ns: int | None
    """When the last good backup began, of this computer if the source is one that this computer backs up."""
    other_host: str
    """Which other computer made the newest snapshot, if one did."""
    next_ns: int | None
    """When it is due; now or earlier if it is. None: never by itself."""
    is_too_old: bool

    def show_next(self, now_ns: int, zone: tzinfo) -> str:
        """For people."""
        if self.next_ns is None:
            return ""
        return "due now" if self.next_ns <= now_ns else show_local_time(self.next_ns, zone)

    def show_last_run(self, zone: tzinfo) -> str:
        """When it began and how it ended, for people."""
        if self.record is None:
            return "never"
        return f"{show_local_time(self.record.started_ns, zone)}, {self.show_outcome()}"

    def show_outcome(self) -> str:
        """How the last run ended."""
        if self.record is None:
            return ""
        if self.record.outcome is Outcome.UNFINISHED:
            return "under way" if self.is_running else "interrupted"
        return self.record.outcome.value

    def show_state(self) -> str:
        """In a word, what matters most."""
        if self.is_running:
            return "under way"
        return "too old" if self.is_too_old else self.show_outcome() if self.problem() else "good" if self.good_ns is not None else ""

    def problem(self) -> str:
        """What went wrong in the last run; empty if nothing did, or if there was a good backup since."""
        if self.record is None or self.is_running or self.record.outcome is Outcome.DONE:
            return ""
        if self.good_ns is not None and self.good_ns > (self.record.ended_ns or self.record.started_ns):
            return ""
        return self.record.message or "it was interrupted"

    def as_json(self) -> dict[str, object]:
        """Keys are stable: programs read them."""
        record = self.record
        return {
            "source": self.name,
            "every": self.source.every or None if self.source is not None else None,
            "next": _json_time(self.next_ns),
            "last_good": _json_time(self.good_ns),
            "last_from_other_host": self.other_host or None,
            "max_age_s": self.source.max_age_ns // 10**9 if self.source is not None and self.source.max_age_ns is not None else None,
            "is_too_old": self.is_too_old,
            "is_running": self.is_running,
            "last_start": _json_time(record.started_ns) if record is not None else None,
            "last_end": _json_time(record.ended_ns or None) if record is not None else None,
            "last_outcome": record.outcome.value if record is not None else None,
            "problem": self.problem() or None,
            "failures": record.failures if record is not None else 0,
        }


_ENDED = {
    Outcome.SKIPPED: "left something out",
    Outcome.TROUBLED: "had trouble",
    Outcome.FAILED: "failed",
    Outcome.UNFINISHED: "did not end",
}


def snapshot_times(snapshots: Iterable[StoredSnapshot]) -> Times:
    """Of these snapshots."""
    times: dict[str, dict[str, list[int]]] = {}
    for stored in snapshots:
        times.setdefault(stored.snapshot.source, {}).setdefault(stored.snapshot.host, []).append(stored.snapshot.time_ns)
    return times


def find_states(config: Config, times: Times, book: RunBook, *, now_ns: int, zone: tzinfo) -> list[SourceState]:
    """The state of every source that the configuration backs up, and of those that only have snapshots, by name."""
    configured = {source.name for source in config.sources.values() if source.paths}
    return [find_state(config, name, times.get(name, {}), book, now_ns=now_ns, zone=zone) for name in sorted(configured | times.keys())]


def find_state(
    config: Config, name: str, times_by_host: Mapping[str, list[int]], book: RunBook, *, now_ns: int, zone: tzinfo
) -> SourceState:
    """The state of one source."""
    source, record, host = config.sources.get(name), book.read(name), socket.gethostname()
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


def warnings(state: SourceState, now_ns: int) -> list[str]:
    """What somebody should be told of a source."""
    name, found = show_text(state.name), []
    if state.is_too_old and state.source is not None and state.source.max_age_ns is not None:
        limit = f"it should not be older than {_show_span(state.source.max_age_ns)}"
        if state.good_ns is None:
            elsewhere = f" on this computer, only on {show_text(state.other_host)}" if state.other_host else ""
            found.append(f"{name} was never backed up{elsewhere}")
        else:
            found.append(f"the last good backup of {name} is {_show_span(now_ns - state.good_ns)} old; {limit}")
    if state.record is not None and (problem := state.problem()):
        times = f", like {state.record.failures - 1} before" if state.record.failures > 1 else ""
        found.append(f"the last run of {name} {_ENDED[state.record.outcome]}{times}: {show_text(problem)}")
    return found


def _show_span(duration_ns: int) -> str:
    """A duration roughly: what matters is whether it is hours or weeks."""
    hours = duration_ns / (3600 * 10**9)
    if hours < 1:
        return f"{round(hours * 60)} minutes"
    return f"{round(hours)} hours" if hours < 48 else f"{round(hours / 24)} days"


def _json_time(time_ns: int | None) -> str | None:
    return json_time(time_ns) if time_ns is not None else None

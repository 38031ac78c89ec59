# SPDX-License-Identifier: MIT
"""How a source is (`engine.source_states`), in words for `yester schedule list` and `yester status`, and as JSON."""

from datetime import tzinfo

from yester.cli.local_time import show_local_time
from yester.cli.output import json_time, show_text
from yester.engine.runs import Outcome
from yester.engine.source_states import SourceState

_ENDED = {
    Outcome.SKIPPED: "left something out",
    Outcome.TROUBLED: "had trouble",
    Outcome.FAILED: "failed",
    Outcome.UNFINISHED: "did not end",
}


def show_next(state: SourceState, now_ns: int, zone: tzinfo) -> str:
    """When it is due, for people."""
    if state.next_ns is None:
        return ""
    return "due now" if state.next_ns <= now_ns else show_local_time(state.next_ns, zone)


def show_last_run(state: SourceState, zone: tzinfo) -> str:
    """When it began and how it ended, for people."""
    if state.record is None:
        return "never"
    return f"{show_local_time(state.record.started_ns, zone)}, {show_outcome(state)}"


def show_outcome(state: SourceState) -> str:
    """How the last run ended."""
    if state.record is None:
        return ""
    if state.record.outcome is Outcome.UNFINISHED:
        return "under way" if state.is_running else "interrupted"
    return state.record.outcome.value


def show_state(state: SourceState) -> str:
    """In a word, what matters most."""
    if state.is_running:
        return "under way"
    return "too old" if state.is_too_old else show_outcome(state) if state.problem() else "good" if state.good_ns is not None else ""


def state_json(state: SourceState) -> dict[str, object]:
    """Keys are stable: programs read them."""
    record = state.record
    return {
        "source": state.name,
        "every": state.source.every or None if state.source is not None else None,
        "next": _json_time(state.next_ns),
        "last_good": _json_time(state.good_ns),
        "last_from_other_host": state.other_host or None,
        "max_age_s": state.source.max_age_ns // 10**9 if state.source is not None and state.source.max_age_ns is not None else None,
        "is_too_old": state.is_too_old,
        "is_running": state.is_running,
        "last_start": _json_time(record.started_ns) if record is not None else None,
        "last_end": _json_time(record.ended_ns or None) if record is not None else None,
        "last_outcome": record.outcome.value if record is not None else None,
        "problem": state.problem() or None,
        "failures": record.failures if record is not None else 0,
    }


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

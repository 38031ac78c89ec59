# SPDX-License-Identifier: MIT
"""Which snapshots of a source a policy keeps, and why.

    last 5         the five newest
    hourly 24      the newest of each of the 24 newest hours that have a snapshot; daily, weekly, monthly and yearly likewise
    within 30d     all that are not older, against the newest, than 30 days
    tags x, y      all that have one of these tags
    remarked       all that were made with a remark

Rules of the decision:
1. What any rule keeps is kept. A snapshot that is kept has every reason listed, one that is not has none.
2. The newest of a source is always kept, and what is pinned, whatever the policy says.
3. A snapshot whose time is after `now_ns` was made, or is looked at, with a wrong clock. It is kept, and counts for nothing, so that it
   cannot push others out. That is the only use of the clock: a year in which nothing is backed up costs nothing.
4. A rule that has more periods to give than there are also keeps the oldest, so that `yearly 10` reaches back to the
   beginning before there are ten years.
5. Hours, days, weeks (from Monday), months and years are those of UTC, as in names of snapshots: two computers agree, and
   no day has 23 hours.

A period keeps its newest, so what it keeps once it is over never changes: thinning after each snapshot comes to the same as
thinning once at the end.

Everything is pure, and callable from any thread. Snapshots are given as `Candidate`; nothing here knows the store.
"""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from yester.core.ids import SnapshotId
from yester.core.times import parse_duration, show_duration
from yester.errors import UsageError

_SECOND_NS = 10**9
_HOUR_NS = 3600 * _SECOND_NS
_DAY_NS = 24 * _HOUR_NS

GRACE_NS = 7 * _DAY_NS
"""So long a forgotten snapshot can be had back for certain: a mistake is noticed at the next working week's end, if not at once."""

UNLIMITED = 2**63 - 1
"""A count that no source reaches; written `all`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MIN_NS = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * _SECOND_NS
_TIME_MAX_NS = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * _SECOND_NS


class Rule(StrEnum):
    """What keeps a snapshot. The first three hold under every policy."""

    NEWEST = "newest"
    PINNED = "pinned"
    FUTURE = "future"
    LAST = "last"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    WITHIN = "within"
    TAG = "tag"
    REMARKED = "remarked"


class Reason(NamedTuple):
    """Why a snapshot is kept: the rule, and for whom several may be, which period, duration or tag."""

    rule: Rule
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.rule} {self.detail}" if self.detail else str(self.rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to keep of a source. A count of 0, a `within_ns` of 0, no tags: no such rule.

    Raises:
        UsageError: a count or the duration is negative.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within_ns: int = 0
    tags: frozenset[str] = frozenset()
    remarked: bool = False

    def __post_init__(self) -> None:
        if min(self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly, self.within_ns) < 0:
            message = "a policy cannot keep a negative number of snapshots"
            raise UsageError(message)

    @property
    def says_nothing(self) -> bool:
        """Whether it has no rule: only what rule 2 and 3 of this module name would be kept."""
        return self == Policy()

    def options(self) -> dict[str, int | str | bool | list[str]]:
        """The mapping that `parse_policy` makes this policy of; rules that are not there are left out."""
        options: dict[str, int | str | bool | list[str]] = {}
        for name, count in self._counts():
            if count:
                options[name] = "all" if count == UNLIMITED else count
        if self.within_ns:
            options["within"] = show_duration(self.within_ns)
        if self.tags:
            options["tags"] = sorted(self.tags)
        if self.remarked:
            options["remarked"] = True
        return options

    def _counts(self) -> Iterator[tuple[str, int]]:
        for name in _COUNTED:
            yield name, getattr(self, name)


KEEP_ALL = Policy(last=UNLIMITED)

LIVE_POLICY = Policy(within_ns=_HOUR_NS, hourly=24, daily=30, weekly=52, monthly=UNLIMITED, remarked=True)
"""For the versions of a live folder: all of the last hour, hourly for a day, daily for a month, weekly for a year, then monthly for ever.

Counts are of periods in which there was something to keep: of a folder that is used once a week, 24 hours reach back half a
year. A month a version costs little, and nobody was asked whether the folder's past may end. Whoever wrote a remark wants to
find the version again.
"""

_COUNTED = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
OPTIONS = (*_COUNTED, "within", "tags", "remarked")
"""The names that `parse_policy` knows."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a decision needs to know of a snapshot."""

    id: SnapshotId
    time_ns: int
    tags: tuple[str, ...] = ()
    is_pinned: bool = False
    has_remark: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a snapshot. It is kept if there are reasons, and forgotten if there are none."""

    id: SnapshotId
    reasons: tuple[Reason, ...]
    """In the order of `Rule`, and tags sorted."""

    @property
    def is_kept(self) -> bool:
        """Whether there is a reason."""
        return bool(self.reasons)


def parse_policy(options: Mapping[str, object]) -> Policy:
    """The policy of options by name, as they stand in a configuration: `{"last": 5, "daily": "all", "within": "30d", "tags": ["x"]}`.

    Raises:
        UsageError: an unknown name, a value that cannot be, or nothing to keep by; it names the option.
    """
    values: dict[str, object] = {}
    for name, value in options.items():
        if name in _COUNTED:
            values[name] = _parse_count(name, value)
        elif name == "within":
            values["within_ns"] = _parse_within(value)
        elif name == "tags":
            values["tags"] = _parse_tags(value)
        elif name == "remarked":
            values["remarked"] = _parse_remarked(value)
        else:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            message = f"a policy has no {name!r}"
            raise UsageError(message, hint=f"is it {near[0]}?" if near else f"it may have {', '.join(OPTIONS)}")
    policy = Policy(**values)  # type: ignore[arg-type]  # each was parsed to what its field takes
    if policy.says_nothing:
        message = "a policy must say what to keep, and this one does not"
        raise UsageError(message, hint='to keep everything say --keep-last all, or last = "all" in the configuration')
    return policy


def decide(policy: Policy, snapshots: Collection[Candidate], now_ns: int) -> list[Decision]:
    """What becomes of the snapshots of one source: a decision for each, oldest first; those of one time by id.

    The order in which they are given does not matter. Deciding again about those that were kept keeps all of them, for
    the same reasons. A policy that has more in any of its rules, and no less, keeps at least the same. A snapshot that comes after
    all others takes the place of at most one in each counted rule, and of the newest; beyond that only what falls out of
    `within_ns` can go. About 5 µs a snapshot.
    """
    oldest_first = sorted(snapshots, key=lambda snapshot: (snapshot.time_ns, snapshot.id))
    reasons: dict[SnapshotId, list[Reason]] = {snapshot.id: [] for snapshot in oldest_first}
    if oldest_first:
        reasons[oldest_first[-1].id].append(Reason(Rule.NEWEST))
    for snapshot in oldest_first:
        if snapshot.is_pinned:
            reasons[snapshot.id].append(Reason(Rule.PINNED))
        if snapshot.time_ns > now_ns:
            reasons[snapshot.id].append(Reason(Rule.FUTURE))
    newest_first = [snapshot for snapshot in reversed(oldest_first) if snapshot.time_ns <= now_ns]
    if newest_first and newest_first[0] is not oldest_first[-1]:
        reasons[newest_first[0].id].insert(0, Reason(Rule.NEWEST, "of this time"))
    for rule, period_of in _PERIODS.items():
        _keep_counted(reasons, newest_first, rule, getattr(policy, rule), period_of)
    for snapshot in newest_first:
        reasons[snapshot.id] += _own_reasons(policy, snapshot, newest_first[0].time_ns)
    return [Decision(snapshot.id, tuple(reasons[snapshot.id])) for snapshot in oldest_first]


def _keep_counted(
    reasons: dict[SnapshotId, list[Reason]],
    newest_first: list[Candidate],
    rule: Rule,
    count: int,
    period_of: Callable[[Candidate], str],
) -> None:
    """Give a reason to the newest of each of the `count` newest periods, and to the oldest if there are fewer."""
    period: str | None = None
    for snapshot in newest_first:
        if count == 0:
            return
        if (its_period := period_of(snapshot)) != period:
            period = its_period
            count -= 1
            reasons[snapshot.id].append(Reason(rule, "" if rule is Rule.LAST else period))
        elif snapshot is newest_first[-1]:
            reasons[snapshot.id].append(Reason(rule, "oldest"))


def _own_reasons(policy: Policy, snapshot: Candidate, newest_ns: int) -> Iterator[Reason]:
    """Those that a snapshot has whatever others there are, but for the newest."""
    if policy.within_ns and snapshot.time_ns >= newest_ns - policy.within_ns:
        yield Reason(Rule.WITHIN, show_duration(policy.within_ns))
    for tag in sorted(policy.tags.intersection(snapshot.tags)):
        yield Reason(Rule.TAG, tag)
    if policy.remarked and snapshot.has_remark:
        yield Reason(Rule.REMARKED)


def _moment(snapshot: Candidate) -> datetime:
    """Its time, or the nearest that a calendar has: a record may say anything."""
    return _EPOCH + timedelta(seconds=min(max(snapshot.time_ns, _TIME_MIN_NS), _TIME_MAX_NS) // _SECOND_NS)


def _week(snapshot: Candidate) -> str:
    year, week, _ = _moment(snapshot).isocalendar()
    return f"{year:04}-W{week:02}"


_PERIODS: Mapping[Rule, Callable[[Candidate], str]] = {
    Rule.LAST: lambda snapshot: snapshot.id.hex(),  # each is a period of its own
    Rule.HOURLY: lambda snapshot: _moment(snapshot).isoformat(sep="_")[:13],
    Rule.DAILY: lambda snapshot: _moment(snapshot).isoformat()[:10],
    Rule.WEEKLY: _week,
    Rule.MONTHLY: lambda snapshot: _moment(snapshot).isoformat()[:7],
    Rule.YEARLY: lambda snapshot: _moment(snapshot).isoformat()[:4],
}


def _parse_count(name: str, value: object) -> int:
    if value == "all":
        return UNLIMITED
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < UNLIMITED:
        message = f"{name} of a policy is {value!r}, which is no number of snapshots"
        raise UsageError(message, hint=f'write {name} = 7, or {name} = "all"')
    return value


def _parse_within(value: object) -> int:
    if not isinstance(value, str):
        message = f"within of a policy is {value!r}, which is no duration"
        raise UsageError(message, hint='write within = "30d"')
    try:
        return parse_duration(value)
    except UsageError as error:
        message = f"within of a policy cannot be: {error.message}"
        raise UsageError(message, hint=error.hint) from error


def _parse_tags(value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(tag, str) and tag for tag in value):
        is_empty = isinstance(value, Collection) and not isinstance(value, str) and "" in value
        message = (
            "tags of a policy have an empty one among them" if is_empty else f"tags of a policy are {value!r}, which is no list of tags"
        )
        raise UsageError(message, hint='write tags = ["keep", "release"]')
    return frozenset(value)


def _parse_remarked(value: object) -> bool:
    if not isinstance(value, bool):
        message = f"remarked of a policy is {value!r}, which is neither true nor false"
        raise UsageError(message, hint="write remarked = true to keep every snapshot that was made with a remark")
    return value

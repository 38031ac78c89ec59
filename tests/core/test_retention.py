# SPDX-License-Identifier: MIT
"""What a policy keeps: each rule by example, and what holds for every policy and history."""

import dataclasses
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yester.core.ids import SnapshotId
from yester.core.retention import (
    KEEP_ALL,
    LIVE_POLICY,
    OPTIONS,
    UNLIMITED,
    Candidate,
    Decision,
    Policy,
    Reason,
    Rule,
    decide,
    parse_policy,
)
from yester.core.times import parse_time
from yester.errors import UsageError

SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
NOW = "2026-11-26"
COUNTED = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def at(when: str) -> int:
    return parse_time(when, now_ns=0)


def snapshot(when: str | int, *, tags: tuple[str, ...] = (), is_pinned: bool = False, has_remark: bool = False) -> Candidate:
    time_ns = at(when) if isinstance(when, str) else when
    return Candidate(SnapshotId(time_ns.to_bytes(32, "big", signed=True)), time_ns, tags, is_pinned, has_remark)


def kept(policy: Policy, *times: str, now: str = NOW) -> list[str]:
    """Those of these times that are kept, oldest first."""
    decisions = decide(policy, [snapshot(when) for when in times], at(now))
    names = {snapshot(when).id: when for when in times}
    return [names[decision.id] for decision in decisions if decision.is_kept]


def kept_ids(decisions: list[Decision]) -> set[SnapshotId]:
    return {decision.id for decision in decisions if decision.is_kept}


# --- each rule --------------------------------------------------------------------------------------------------------


def test_last_keeps_the_newest() -> None:
    assert kept(Policy(last=2), "2026-11-01", "2026-11-02", "2026-11-03") == ["2026-11-02", "2026-11-03"]
    assert kept(KEEP_ALL, "2024", "2025") == ["2024", "2025"]
    assert kept(Policy(last=1)) == []


@pytest.mark.parametrize(
    ("rule", "older", "newer", "next_period"),
    [
        ("hourly", "2026-11-22_10-00", "2026-11-22_10-58", "2026-11-22_11-00"),
        ("daily", "2026-11-22_00-00", "2026-11-22_23-58", "2026-11-23_00-00"),
        ("weekly", "2026-11-16_00-00", "2026-11-22_23-58", "2026-11-23_00-00"),
        ("weekly", "2020-12-28_00-00", "2021-01-03_23-58", "2021-01-04_00-00"),
        ("monthly", "2026-10-01_00-00", "2026-10-31_23-58", "2026-11-01_00-00"),
        ("yearly", "2025-01-01_00-00", "2025-12-31_23-58", "2026-01-01_00-00"),
    ],
)
def test_a_period_keeps_its_newest_and_ends_where_the_calendar_says(rule: str, older: str, newer: str, next_period: str) -> None:
    policy = Policy(**{rule: 2})  # type: ignore[arg-type]  # a count
    assert kept(policy, older, newer, next_period) == [newer, next_period]
    assert kept(Policy(**{rule: 1}), older, newer, next_period) == [next_period]  # type: ignore[arg-type]  # as above


def test_periods_without_a_snapshot_do_not_count() -> None:
    assert kept(Policy(daily=2), "2026-01-01_10", "2026-01-01_11", "2026-11-01") == ["2026-01-01_11", "2026-11-01"]


def test_a_rule_that_has_more_to_give_keeps_the_oldest_until_it_has_not() -> None:
    first, *others = ("2026-01-01", "2026-01-02", "2026-01-03")
    assert kept(Policy(yearly=2), first, *others) == [first, others[-1]]
    assert kept(Policy(yearly=1), first, *others) == [others[-1]]
    decisions = decide(Policy(yearly=2), [snapshot(when) for when in (first, *others)], at(NOW))
    assert decisions[0].reasons == (Reason(Rule.YEARLY, "oldest"),)


def test_within_is_measured_from_the_newest_whatever_the_clock_says() -> None:
    times = ("2020-01-01_00-00-00", "2020-01-02_00-00-00", "2020-01-31_00-00-00")
    policy = Policy(within_ns=29 * DAY_NS)
    assert kept(policy, *times, now="2020-02") == kept(policy, *times) == list(times[1:])


def test_tags_and_remarks_keep_what_has_them() -> None:
    old = [snapshot("2025", tags=("a", "b")), snapshot("2024", has_remark=True), snapshot("2023", tags=("c",))]
    decisions = decide(Policy(tags=frozenset({"b", "a", "x"})), [*old, snapshot("2026")], at("2027"))
    assert [decision.reasons for decision in decisions] == [(), (), (Reason(Rule.TAG, "a"), Reason(Rule.TAG, "b")), (Reason(Rule.NEWEST),)]
    decisions = decide(Policy(remarked=True), [*old, snapshot("2026")], at("2027"))
    assert [decision.is_kept for decision in decisions] == [False, True, False, True]


def test_the_newest_and_the_pinned_are_kept_whatever_the_policy_says() -> None:
    decisions = decide(Policy(), [snapshot("2024", is_pinned=True), snapshot("2025"), snapshot("2026")], at("2027"))
    assert [[str(reason) for reason in decision.reasons] for decision in decisions] == [["pinned"], [], ["newest"]]


def test_snapshots_of_the_future_are_kept_and_push_nobody_out() -> None:
    """A computer whose clock was wrong for a day must not cost everything that was made before and after."""
    wrong = ("2099-01-01", "2099-01-02", "2099-01-03")
    assert kept(Policy(last=2), "2026-11-01", "2026-11-02", "2026-11-03", *wrong) == ["2026-11-02", "2026-11-03", *wrong]
    assert kept(Policy(), "2026-11-01", "2026-11-02", *wrong) == ["2026-11-02", *wrong]
    assert kept(Policy(last=1), "2026-11-01", "2026-11-02", now="1970") == ["2026-11-01", "2026-11-02"], "a clock that was set back"


def test_all_reasons_are_told() -> None:
    policy = Policy(last=1, hourly=1, daily=1, weekly=1, monthly=1, yearly=1, within_ns=HOUR_NS, tags=frozenset({"t"}), remarked=True)
    only = snapshot("2026-11-22_10-30-00", tags=("t",), is_pinned=True, has_remark=True)
    [decision] = decide(policy, [only], at(NOW))
    assert [str(reason) for reason in decision.reasons] == [
        "newest", "pinned", "last", "hourly 2026-11-22_10", "daily 2026-11-22", "weekly 2026-W47", "monthly 2026-11", "yearly 2026",
        "within 1h", "tag t", "remarked",
    ]  # fmt: skip


@pytest.mark.parametrize("time_ns", [-(2**63), 2**63 - 1, -(10**30), 10**30])
def test_a_time_that_no_calendar_has_is_no_error(time_ns: int) -> None:
    odd = Candidate(SnapshotId(bytes(32)), time_ns)
    assert [decision.is_kept for decision in decide(LIVE_POLICY, [odd, snapshot("2026")], 10**30)] == [True, True]


def test_live_folders_keep_all_of_an_hour_then_less_and_less() -> None:
    """A version every ten minutes for three years."""
    now_ns = at("2026-11-22_10-00-00")
    versions = [snapshot(now_ns - number * 600 * SECOND_NS) for number in range(3 * 365 * 24 * 6)]
    kept_ns = kept_ids(decide(LIVE_POLICY, versions, now_ns))
    ages_ns = sorted(now_ns - version.time_ns for version in versions if version.id in kept_ns)

    def count(younger_than_ns: int) -> int:
        return sum(age < younger_than_ns for age in ages_ns)

    assert count(HOUR_NS + 1) == 7
    assert count(DAY_NS) - count(HOUR_NS + 1) == 22
    assert 28 <= count(30 * DAY_NS) - count(DAY_NS) <= 30
    assert 46 <= count(364 * DAY_NS) - count(30 * DAY_NS) <= 60, "weeks, and ends of months between them"
    assert 24 <= len(ages_ns) - count(364 * DAY_NS) <= 26, "months, and the first of all"


# --- what holds for all -----------------------------------------------------------------------------------------------

# Few distinct times, close together and far apart, so that periods are shared and rules run out.
times = st.builds(
    lambda day, hour, second: at("2024-02-27_00-00-00") // SECOND_NS * SECOND_NS + (day * 86400 + hour * 3600 + second) * SECOND_NS,
    st.sampled_from([0, 1, 2, 3, 8, 30, 31, 300, 307, 308, 366, 700]),
    st.sampled_from([0, 1, 2, 23]),
    st.integers(0, 3),
)
# Equal times are what no store has and no policy may stumble over.
candidates = st.builds(
    Candidate,
    st.binary(min_size=32, max_size=32).map(SnapshotId),
    times,
    st.sampled_from([(), (), ("a",), ("b", "c")]),
    st.booleans(),
    st.booleans(),
)
histories = st.lists(candidates, max_size=30, unique_by=lambda candidate: candidate.id)
counts = st.sampled_from([0, 0, 1, 2, 3, 5, UNLIMITED])
policies = st.builds(
    Policy,
    **dict.fromkeys(COUNTED, counts),
    within_ns=st.sampled_from([0, 0, HOUR_NS, DAY_NS, 31 * DAY_NS]),
    tags=st.frozensets(st.sampled_from("abc")),
    remarked=st.booleans(),
)
nows = times | st.just(at("2026"))


@given(policies, histories, nows)
def test_deciding_again_about_what_was_kept_changes_nothing(policy: Policy, history: list[Candidate], now_ns: int) -> None:
    first = decide(policy, history, now_ns)
    again = decide(policy, [candidate for candidate in history if candidate.id in kept_ids(first)], now_ns)
    assert again == [decision for decision in first if decision.is_kept]


@given(policies, policies, histories, nows)
def test_a_more_generous_policy_keeps_at_least_the_same(one: Policy, other: Policy, history: list[Candidate], now_ns: int) -> None:
    more = Policy(
        **{name: max(getattr(one, name), getattr(other, name)) for name in COUNTED},
        within_ns=max(one.within_ns, other.within_ns),
        tags=one.tags | other.tags,
        remarked=one.remarked or other.remarked,
    )
    assert kept_ids(decide(more, history, now_ns)) >= kept_ids(decide(one, history, now_ns)) | kept_ids(decide(other, history, now_ns))


@given(policies, histories, nows, st.randoms(use_true_random=False))
def test_the_order_in_which_snapshots_are_given_does_not_matter(
    policy: Policy, history: list[Candidate], now_ns: int, rng: random.Random
) -> None:
    shuffled = history.copy()
    rng.shuffle(shuffled)
    assert decide(policy, shuffled, now_ns) == decide(policy, history, now_ns)


@given(policies, histories, nows)
def test_protected_snapshots_are_kept_for_a_reason_that_is_told(policy: Policy, history: list[Candidate], now_ns: int) -> None:
    decisions = decide(policy, history, now_ns)
    assert [decision.id for decision in decisions] == [
        candidate.id for candidate in sorted(history, key=lambda found: (found.time_ns, found.id))
    ]
    reasons = {decision.id: {reason.rule for reason in decision.reasons} for decision in decisions}
    for candidate in history:
        told = reasons[candidate.id]
        is_future = candidate.time_ns > now_ns
        assert (Rule.PINNED in told) == candidate.is_pinned
        assert (Rule.FUTURE in told) == is_future
        assert (Rule.TAG in told) == (not is_future and bool(policy.tags & set(candidate.tags)))
        assert (Rule.REMARKED in told) == (not is_future and policy.remarked and candidate.has_remark)
    if history:
        assert Rule.NEWEST in reasons[decisions[-1].id]
    for name in COUNTED:
        keepers = [decision for decision in decisions for reason in decision.reasons if reason.rule == name and reason.detail != "oldest"]
        assert len(keepers) <= getattr(policy, name)


@given(policies, histories, candidates)
def test_a_newer_snapshot_takes_the_place_of_one_a_rule_at_most(policy: Policy, history: list[Candidate], newcomer: Candidate) -> None:
    now_ns = at("2026")
    newer = dataclasses.replace(newcomer, time_ns=now_ns, id=SnapshotId(b"\xff" * 32))
    before, after = decide(policy, history, now_ns), decide(policy, [*history, newer], now_ns)
    lost = kept_ids(before) - kept_ids(after)
    by_age = {found.id for found in history if policy.within_ns and found.time_ns < now_ns - policy.within_ns}
    rules_that_count = sum(getattr(policy, name) > 0 for name in COUNTED)
    fell_out = {decision.id for decision in before if Rule.WITHIN in {reason.rule for reason in decision.reasons}} & by_age
    assert len(lost - fell_out) <= rules_that_count + 1


@given(policies, histories)
def test_thinning_after_each_snapshot_comes_to_the_same_as_thinning_once(policy: Policy, history: list[Candidate]) -> None:
    now_ns = at("2026")
    left: list[Candidate] = []
    for newcomer in sorted(history, key=lambda candidate: (candidate.time_ns, candidate.id)):
        left.append(newcomer)
        kept_now = kept_ids(decide(policy, left, now_ns))
        left = [candidate for candidate in left if candidate.id in kept_now]
    assert {candidate.id for candidate in left} == kept_ids(decide(policy, history, now_ns))


# --- options ----------------------------------------------------------------------------------------------------------


def test_a_policy_is_made_of_options() -> None:
    assert parse_policy({"last": 5, "daily": "all", "within": "1d12h", "tags": ["x"], "remarked": True, "weekly": 0}) == Policy(
        last=5, daily=UNLIMITED, within_ns=36 * HOUR_NS, tags=frozenset({"x"}), remarked=True
    )


@given(policies)
def test_the_options_of_a_policy_make_it_again(policy: Policy) -> None:
    if policy.says_nothing:
        assert policy.options() == {}
    else:
        assert parse_policy(policy.options()) == policy


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dayly": 1}, "dayly"), ({"last": -1}, "last"), ({"last": "5"}, "last"), ({"last": True}, "last"), ({"last": 1.5}, "last"),
        ({"hourly": None}, "hourly"), ({"hourly": 2**70}, "hourly"), ({"within": "soon"}, "within"), ({"within": 30}, "within"),
        ({"within": ""}, "within"), ({"tags": "x"}, "tags"), ({"tags": [1]}, "tags"), ({"tags": [""]}, "tags"), ({"tags": 3}, "tags"),
        ({"remarked": 1}, "remarked"), ({}, "must say what to keep"), ({"last": 0}, "must say what to keep"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        parse_policy(options)
    assert raised.value.hint


def test_a_misspelt_option_is_told_what_was_meant() -> None:
    with pytest.raises(UsageError) as raised:
        parse_policy({"houry": 1})
    assert "hourly" in raised.value.hint
    assert set(itertools.chain(COUNTED, ["within", "tags", "remarked"])) == set(OPTIONS)


def test_a_policy_cannot_count_backwards() -> None:
    with pytest.raises(UsageError, match="negative"):
        Policy(last=-1)

# SPDX-License-Identifier: MIT
"""When a store is looked after, and what that comes to. What is said of it: `tests/cli/test_upkeep.py`."""

import pytest

from yester.engine.runs import Outcome, RunRecord
from yester.engine.source_plan import Upkeep
from yester.engine.upkeep import is_upkeep_due

DAY_NS = 24 * 3600 * 10**9
WEEKLY = Upkeep(7 * DAY_NS, 0.02)


@pytest.mark.parametrize(
    ("days_ago", "outcome", "expected"),
    [
        (None, Outcome.DONE, True),
        (6.9, Outcome.DONE, False),
        (7, Outcome.DONE, True),
        (0.9, Outcome.FAILED, False),
        (1, Outcome.FAILED, True),
        (1, Outcome.UNFINISHED, True),
        (-300, Outcome.DONE, True),
    ],
)
def test_a_store_is_looked_after_each_week_and_the_day_after_damage(days_ago: float | None, outcome: Outcome, expected: bool) -> None:
    now_ns = 400 * DAY_NS
    record = None if days_ago is None else RunRecord(source="/s", started_ns=now_ns - int(days_ago * DAY_NS), outcome=outcome)
    assert is_upkeep_due(record, WEEKLY, now_ns) is expected
    assert not is_upkeep_due(record, Upkeep(None, 0.02), now_ns)

# SPDX-License-Identifier: MIT
"""The time zone of this computer."""

from datetime import datetime, timedelta

import pytest

from yester.cli.local_time import local_zone, show_local_time


@pytest.mark.parametrize("name", ["Europe/Berlin", ":Europe/Berlin"])
def test_a_named_zone_has_its_changes_of_the_clock(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TZ", name)
    zone = local_zone()
    assert datetime(2026, 1, 1, tzinfo=zone).utcoffset() == timedelta(hours=1)
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=2)
    assert show_local_time(1_767_225_600 * 10**9, zone) == "Thu 2026-01-01 01:00"


@pytest.mark.parametrize("name", ["", "CET-1CEST", "/nowhere/at/all", "No/Such"])
def test_any_other_is_some_zone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TZ", name)
    assert datetime(2026, 1, 1, tzinfo=local_zone()).utcoffset() is not None

# SPDX-License-Identifier: MIT
"""Percentages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yester.core.share import parse_share
from yester.errors import UsageError


@given(st.integers(1, 10_000))
def test_a_percentage_is_the_share_it_says_with_or_without_its_sign(hundredths: int) -> None:
    text = f"{hundredths // 100}.{hundredths % 100:02}"
    for written in (text, f"{text}%", f" {text} % "):
        assert parse_share(written) == pytest.approx(hundredths / 10_000)


@pytest.mark.parametrize("text", ["", "0", "0%", "0.0 %", "101", "100.1%", "-5%", "nan", "inf", "1e1%", "5%%", "5 percent", "\u0665%", "%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no share of the data"):
        parse_share(text)

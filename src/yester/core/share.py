# SPDX-License-Identifier: MIT
"""Shares of something, as people write them: `5%`."""

import re

from yester.errors import UsageError

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%?")


def parse_share(text: str) -> float:
    """The share that a percentage stands for, more than 0 and at most 1. The sign may be left out.

    Raises:
        UsageError: it is none.
    """
    matched = _PERCENT.fullmatch(text.strip())
    if matched is None or not 0 < float(matched[1]) <= 100:
        message = f"{text!r} is no share of the data"
        raise UsageError(message, hint="write it as 5%; it is more than nothing, and at most all")
    return float(matched[1]) / 100

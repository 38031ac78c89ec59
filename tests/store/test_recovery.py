# SPDX-License-Identifier: MIT
"""Recovery keys: what is printed can be typed again, and typing errors are told."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yester.errors import UsageError
from yester.store.recovery import looks_like_recovery_key, read_recovery_key, show_recovery_key

KEYS = st.binary(min_size=32, max_size=32)


@given(key=KEYS)
def test_a_printed_key_is_read_again(key: bytes) -> None:
    text = show_recovery_key(key)
    assert re.fullmatch("[A-Z2-7]{4}(-[A-Z2-7]{4}){13}", text)
    lookalikes = text.replace("O", "0").replace("I", "1").replace("B", "8")
    for typed in (text, text.lower(), text.replace("-", ""), text.replace("-", " "), f"  {text}\n", lookalikes):
        assert read_recovery_key(typed) == key
    assert looks_like_recovery_key(text)


@given(key=KEYS, at=st.integers(0, 55), other=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_wrong_character_is_told(key: bytes, at: int, other: str) -> None:
    text = show_recovery_key(key).replace("-", "")
    wrong = text[:at] + other + text[at + 1 :]
    if wrong != text:
        with pytest.raises(UsageError, match="typing error"):
            read_recovery_key(wrong)


def test_two_groups_that_changed_places_are_told() -> None:
    groups = show_recovery_key(bytes(range(32))).split("-")
    groups[2], groups[3] = groups[3], groups[2]
    with pytest.raises(UsageError, match="typing error"):
        read_recovery_key("-".join(groups))


@pytest.mark.parametrize(("typed", "said"), [("", "of 0 letters"), ("ABCD-EFGH", "of 8 letters"), ("?" * 56, "character that none has")])
def test_what_is_no_recovery_key_is_told(typed: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_recovery_key(typed)
    assert not looks_like_recovery_key(typed)

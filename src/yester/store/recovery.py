# SPDX-License-Identifier: MIT
"""Recovery keys: 256 random bits as a person can print, keep in a drawer, and type again (docs/format.md §11.1).

14 groups of 4 characters, of the letters and digits that base32 has (RFC 4648: no 0, 1, 8 and 9, which look like others): a version, the
key, and two bytes that tell nearly every typing error.
"""

import base64
import os

from blake3 import blake3

from yester.errors import UsageError

RECOVERY_KEY_BYTES = 32
_VERSION = b"\x01"
_CHECK_BYTES = 2
_CHARACTERS = 56
_GROUP_CHARACTERS = 4
_LOOKALIKES = str.maketrans("018", "OIB")


def random_recovery_key() -> bytes:
    """A new one."""
    return os.urandom(RECOVERY_KEY_BYTES)


def show_recovery_key(key: bytes) -> str:
    """The text that is printed, without a line break."""
    body = _VERSION + key
    text = base64.b32encode(body + _check(body)).decode("ascii")
    return "-".join(text[at : at + _GROUP_CHARACTERS] for at in range(0, _CHARACTERS, _GROUP_CHARACTERS))


def read_recovery_key(text: str) -> bytes:
    """The key that a person typed, in either case, with or without hyphens and spaces.

    Raises:
        UsageError: it is none, or has a typing error.
    """
    typed = "".join(text.split()).replace("-", "").upper().translate(_LOOKALIKES)
    hint = f"it has {_CHARACTERS} letters and digits, {_CHARACTERS // _GROUP_CHARACTERS} groups of {_GROUP_CHARACTERS}"
    if len(typed) != _CHARACTERS:
        message = f"a recovery key of {len(typed)} letters and digits is not whole; nothing was changed"
        raise UsageError(message, hint=hint)
    try:
        data = base64.b32decode(typed)
    except ValueError as error:
        message = "the recovery key has a character that none has; nothing was changed"
        raise UsageError(message, hint="it is made of the letters A to Z and the digits 2 to 7") from error
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if check != _check(body):
        message = "the recovery key has a typing error in it; nothing was changed"
        raise UsageError(message, hint="compare it with what was printed, group by group")
    if body[:1] != _VERSION:
        message = "the recovery key is of a newer release; nothing was changed"
        raise UsageError(message, hint="use a newer yester with it")
    return body[1:]


def looks_like_recovery_key(text: str) -> bool:
    """Whether a text is a recovery key without an error: nobody has such a passphrase."""
    try:
        read_recovery_key(text)
    except UsageError:
        return False
    return True


def _check(body: bytes) -> bytes:
    return blake3(body, derive_key_context="yester 2026-11-26 check of a recovery key").digest(length=_CHECK_BYTES)

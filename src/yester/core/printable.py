# SPDX-License-Identifier: MIT
"""Text of others, made fit for a terminal or a log."""


def printable(text: str) -> str:
    r"""The text with whatever is not printable escaped as Python writes it (`\x1b`, `\n`), so that no name or output can move a cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

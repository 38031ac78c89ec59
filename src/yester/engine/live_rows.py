# SPDX-License-Identifier: MIT
"""What the rows of a live folder say to those who only look: how much waits for its next version."""

from yester.core.node_row import ROOT_NUMBER, NodeRow, decode_row, is_trash
from yester.store.live import LiveRows


def waiting(rows: LiveRows) -> tuple[int, int]:
    """How many nodes, and written bytes, are in no version yet. What has no name any more, or is in the trash, does not count.

    Raises:
        CorruptionError: a row is damaged.
    """
    nodes = {number: decode_row(number, stored) for number, stored in rows.nodes.items()}
    changed = [number for number, row in nodes.items() if not row.is_published and _is_outside(nodes, number)]
    return len(changed), sum(extent.length for number in changed for extent in rows.extents.get(number, ()))


def _is_outside(nodes: dict[int, NodeRow], number: int) -> bool:
    """Whether a node is in the folder, by one of its names, and not in its trash."""
    if number == ROOT_NUMBER:
        return True
    passed: set[int] = set()
    waiting = [number]
    while waiting:
        row = nodes.get(waiting.pop())
        for parent, name in row.links if row is not None else ():
            if parent == ROOT_NUMBER and not is_trash(parent, name):
                return True
            if parent not in passed and parent != ROOT_NUMBER:
                passed.add(parent)
                waiting.append(parent)
    return False

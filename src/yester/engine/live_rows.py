# SPDX-License-Identifier: MIT
"""What the rows of a live folder say, for those who only look: how much is in no version yet, and which chunks they need."""

from yester.core.node_row import decode_row
from yester.store.live import LiveRows


def unpublished(rows: LiveRows) -> int:
    """How many of a folder's nodes differ from its last version; what has no name any more does not count.

    Raises:
        CorruptionError: a row is damaged.
    """
    nodes = (decode_row(number, stored) for number, stored in rows.nodes.items())
    return sum(not node.is_published for node in nodes if node.links)


def dirty_bytes(rows: LiveRows) -> int:
    """How many written bytes files consist of that are in no version yet."""
    return sum(extent.length for extents in rows.extents.values() for extent in extents)

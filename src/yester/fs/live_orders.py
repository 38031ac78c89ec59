# SPDX-License-Identifier: MIT
"""What a live folder can be asked for, and what it answers (`fs.live_control`)."""

import msgspec

ORDER_XATTR, REPORT_XATTR, STATUS_XATTR = "user.yester.order", "user.yester.report", "user.yester.status"
"""Attributes of a mount's root that carry these, as JSON."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a version, with this remark. With `snapshot`, the hex id of one, rewind a path to it in between, and make another."""

    message: str = ""
    even_if_same: bool = False
    """Also where nothing changed since the last."""
    snapshot: str = ""
    path_hex: str = ""
    """In hex, since JSON has no text for names that are not UTF-8."""

    @property
    def path(self) -> bytes:
        """The path to rewind, below the root; empty for all."""
        return bytes.fromhex(self.path_hex)


class Report(msgspec.Struct, frozen=True):
    """How far an order is. `published` is the name of the version that was made, if anything had changed."""

    is_running: bool
    changes: int = 0
    """Operations of a rewinding so far."""
    published: str = ""
    error: str = ""
    hint: str = ""


class LiveStatus(msgspec.Struct, frozen=True):
    """How a live folder is. `problem` is why its last version, or its last commit, failed; `number` is the folder's in its store."""

    dirty_bytes: int
    changed_nodes: int
    pending_bytes: int
    problem: str
    number: int = 0

# SPDX-License-Identifier: MIT
"""Names of users and groups on this machine, as trees keep them beside the numbers."""

import grp
import pwd
from collections.abc import Sequence

from yester.core.records import RECORD_VERSION, Entry, Tree


class OwnerNames:
    """Looks names up once each: a look-up may ask a server. Not thread-safe."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def user(self, uid: int) -> str:
        """The user's name here, or nothing."""
        if uid not in self._users:
            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                self._users[uid] = ""
        return self._users[uid]

    def group(self, gid: int) -> str:
        """The group's name here, or nothing."""
        if gid not in self._groups:
            try:
                self._groups[gid] = grp.getgrgid(gid).gr_name
            except KeyError:
                self._groups[gid] = ""
        return self._groups[gid]

    def tree_of(self, entries: Sequence[Entry]) -> Tree:
        """The tree of these entries, which are sorted, with the names of their owners."""
        users = {uid: name for uid in sorted({entry.uid for entry in entries}) if (name := self.user(uid))}
        groups = {gid: name for gid in sorted({entry.gid for entry in entries}) if (name := self.group(gid))}
        return Tree(RECORD_VERSION, users, groups, tuple(entries))

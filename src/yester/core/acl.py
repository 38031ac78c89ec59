# SPDX-License-Identifier: MIT
"""POSIX access lists as Linux keeps them in extended attributes, and how they go together with a file's mode.

The mode and the access list of a file say the same of its owner and of others; the group bits of the mode are the list's mask if
it has one, else what it says of the file's group. Whoever changes one changes the other. A list that says no more than a mode can
is not kept. What is made in a folder with a default list begins with that, cut down by the mode it is made with; the umask does
not count then.

Reference: acl(5); IEEE Std 1003.1e draft 17, 23.1; linux/posix_acl_xattr.h.
"""

import struct
from typing import NamedTuple

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"

_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NAMED = (_USER, _GROUP)
_TAGS = (_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER)


class AclEntry(NamedTuple):
    """What one user or group may do, as the bits of `rwx`. `id` counts for named ones only."""

    tag: int
    permissions: int
    id: int


Acl = tuple[AclEntry, ...]


def parse_acl(value: bytes) -> Acl:
    """The list of an attribute's value; empty for one that takes the list away.

    Raises:
        ValueError: it is none.
    """
    if value[:4] != _VERSION or (len(value) - 4) % _ENTRY.size:
        message = "not an access list"
        raise ValueError(message)
    acl = tuple(AclEntry(*fields) for fields in _ENTRY.iter_unpack(value[4:]))
    tags = [entry.tag for entry in acl]
    is_complete = all(tags.count(tag) == 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)) and tags.count(_MASK) <= 1
    is_masked = _MASK in tags or not any(tag in _NAMED for tag in tags)
    if acl and not (is_complete and is_masked and tags == sorted(tags) and all(tag in _TAGS for tag in tags)):
        message = "an access list lacks an entry, or has one twice or out of order"
        raise ValueError(message)
    if any(entry.permissions > 0o7 for entry in acl):
        message = "an access list permits what there is not"
        raise ValueError(message)
    return acl


def encode_acl(acl: Acl) -> bytes:
    """The value of the attribute."""
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in acl)


def mode_of(acl: Acl) -> int:
    """The permission bits that go with a list."""
    found = {entry.tag: entry.permissions for entry in acl if entry.tag not in _NAMED}
    return found[_USER_OBJ] << 6 | found.get(_MASK, found[_GROUP_OBJ]) << 3 | found[_OTHER]


def is_plain(acl: Acl) -> bool:
    """Whether a list says no more than its mode."""
    return all(entry.tag in (_USER_OBJ, _GROUP_OBJ, _OTHER) for entry in acl)


def with_mode(acl: Acl, mode: int) -> Acl:
    """The list after the file was given another mode."""
    group = _MASK if any(entry.tag == _MASK for entry in acl) else _GROUP_OBJ
    bits = {_USER_OBJ: mode >> 6 & 0o7, group: mode >> 3 & 0o7, _OTHER: mode & 0o7}
    return tuple(entry._replace(permissions=bits.get(entry.tag, entry.permissions)) for entry in acl)


def inherited(default: Acl, mode: int) -> Acl:
    """The access list of what is made with this mode in a folder with a default list: no more than both permit."""
    return with_mode(default, mode & mode_of(default))

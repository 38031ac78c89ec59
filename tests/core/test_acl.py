# SPDX-License-Identifier: MIT
"""Access lists and modes: each says what the other does, as the kernel has it on a file system of the host."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yester.core.acl import ACCESS, DEFAULT, AclEntry, encode_acl, inherited, is_plain, mode_of, parse_acl, with_mode

NOBODY = 2**32 - 1
PERMISSIONS = st.integers(0, 7)
MODES = st.integers(0, 0o777)


@st.composite
def acls(draw: st.DrawFn) -> tuple[AclEntry, ...]:
    users, groups = (sorted(draw(st.sets(st.integers(0, 9), max_size=2))) for _ in range(2))
    has_mask = draw(st.booleans())
    found = [AclEntry(0x01, draw(PERMISSIONS), NOBODY), *(AclEntry(0x02, draw(PERMISSIONS), user) for user in users)]
    found += [AclEntry(0x04, draw(PERMISSIONS), NOBODY), *(AclEntry(0x08, draw(PERMISSIONS), group) for group in groups)]
    if users or groups or has_mask:
        found.append(AclEntry(0x10, draw(PERMISSIONS), NOBODY))
    return (*found, AclEntry(0x20, draw(PERMISSIONS), NOBODY))


@given(acl=acls())
def test_what_is_encoded_is_parsed(acl: tuple[AclEntry, ...]) -> None:
    assert parse_acl(encode_acl(acl)) == acl


OWNER, GROUP, OTHER = AclEntry(1, 7, 0), AclEntry(4, 0, 0), AclEntry(0x20, 0, 0)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\3\0\0\0",
        encode_acl((OWNER,)),
        encode_acl((AclEntry(1, 8, 0), GROUP, OTHER)),
        encode_acl((GROUP, OWNER, OTHER)),
        encode_acl((OWNER, AclEntry(2, 0, 3), GROUP, OTHER)),
        encode_acl((OWNER, GROUP, OTHER)) + b"x",
    ],
)
def test_what_is_no_list_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="access list"):
        parse_acl(value)


@given(acl=acls(), default=acls(), mode=MODES, new_mode=MODES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_it_is_what_the_kernel_does(
    tmp_path: Path, acl: tuple[AclEntry, ...], default: tuple[AclEntry, ...], mode: int, new_mode: int
) -> None:
    file, folder, made = tmp_path / "file", tmp_path / "folder", tmp_path / "folder" / "made"
    file.write_bytes(b"")
    try:
        os.setxattr(file, ACCESS, encode_acl(acl))
    except OSError:
        pytest.skip("this file system has no access lists")
    assert stat.S_IMODE(os.stat(file).st_mode) == mode_of(acl)
    assert kept(file, ACCESS) == (None if is_plain(acl) else acl)
    file.chmod(new_mode)
    assert kept(file, ACCESS) == (None if is_plain(acl) else with_mode(acl, new_mode))
    folder.mkdir(exist_ok=True)
    os.setxattr(folder, DEFAULT, encode_acl(default))
    made.unlink(missing_ok=True)
    os.close(os.open(made, os.O_CREAT | os.O_WRONLY, mode))
    expected = inherited(default, mode)
    assert stat.S_IMODE(os.stat(made).st_mode) == mode_of(expected)
    assert kept(made, ACCESS) == (None if is_plain(expected) else expected)


def kept(path: Path, name: bytes) -> tuple[AclEntry, ...] | None:
    return parse_acl(os.getxattr(path, name)) if os.fsdecode(name) in os.listxattr(path) else None

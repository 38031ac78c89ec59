# SPDX-License-Identifier: MIT
"""What people use on folders, used on snapshots: each sees there what it sees in the folder itself."""

import mmap
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Place, Rich, environment
from tests.mount.richness import SPARSE_BYTES, describe, differences


def tool(*command: str | bytes | Path, cwd: Path, expect: int = 0, **variables: str) -> bytes:
    """What a command prints; it must end with this exit status, and say nothing else."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(cwd, **variables), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (expect, b"")
    return done.stdout


def test_ls_shows_the_same(rich: Rich, rich_mount: Path) -> None:
    def listed(folder: Path) -> list[bytes]:
        lines = tool("ls", "-lRAn", "--time-style=full-iso", "--quoting-style=c", ".", cwd=folder).splitlines()
        # A folder's own size and link count, and so the total, are its file system's.
        return [re.sub(rb"^(d\S+) +\d+ +(\d+ +\d+) +\d+ ", rb"\1 \2 ", line) for line in lines if not line.startswith(b"total ")]

    shown = listed(rich_mount)
    assert [re.sub(rb" +", b" ", line) for line in shown] == [re.sub(rb" +", b" ", line) for line in listed(rich.place.folder)]
    assert any(line.startswith(b"-rw-rwxr--+") or b"+ " in line.split(b'"')[0] for line in shown), "no ACL is shown"


def test_cp_copies_all_of_it_out(rich: Rich, rich_mount: Path, tmp_path: Path) -> None:
    tool("cp", "-a", "--sparse=always", rich_mount, tmp_path / "copy", cwd=tmp_path)
    copy = describe(tmp_path / "copy")
    assert not differences(rich.described, copy)
    assert copy.blocks[b"./files/sparse"] == rich.described.blocks[b"./files/sparse"]


def test_rsync_sees_no_difference(rich: Rich, rich_mount: Path, tmp_path: Path) -> None:
    options = ["-aHAX", "--dry-run", "--itemize-changes", "--delete", "--checksum", "--modify-window=-1"]
    assert tool("rsync", *options, f"{rich_mount}/", f"{rich.place.folder}/", cwd=tmp_path) == b""
    assert tool("rsync", *options, f"{rich.place.folder}/", f"{rich_mount}/", cwd=tmp_path) == b""


def test_tar_packs_all_of_it_but_sockets(rich: Rich, rich_mount: Path, tmp_path: Path) -> None:
    archive, out = tmp_path / "archive.tar", tmp_path / "out"
    out.mkdir()
    options = ["--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]
    pack = [
        *options,
        "--sparse",
        "--hole-detection=raw",
        "--warning=no-file-ignored",
        "--warning=no-timestamp",
        "--create",
        "--file",
        str(archive),
    ]
    tool("tar", *pack, "-C", rich_mount, ".", cwd=tmp_path)
    assert archive.stat().st_size < SPARSE_BYTES // 2
    tool(
        "tar",
        *options,
        "--same-permissions",
        "--same-owner",
        "--warning=no-timestamp",
        "--extract",
        "--file",
        archive,
        "-C",
        out,
        cwd=tmp_path,
    )
    found = differences(rich.described, describe(out))
    assert [text for text in found if "socket" not in text] == []


def test_find_finds_the_same(rich: Rich, rich_mount: Path) -> None:
    for test in (
        ["-type", "f"],
        ["-perm", "-4000"],
        ["-links", "3", "-type", "f"],
        ["-empty"],
        ["-newermt", "2050-01-01"],
        ["-size", "+1M"],
        ["-name", "*\n*"],
    ):
        command = ["find", ".", *test, "-printf", r"%y %p %l %#m %U:%G %T@\0"]
        shown = sorted(tool(*command, cwd=rich_mount).split(b"\0"))
        assert shown == sorted(tool(*command, cwd=rich.place.folder).split(b"\0")), test
        assert len(shown) > 1, test


def test_find_knows_hard_links(rich_mount: Path) -> None:
    found = tool("find", ".", "-samefile", "links/hard 1", cwd=rich_mount).splitlines()
    assert sorted(found) == [b"./links/folder/hard 3", b"./links/hard 1", b"./links/hard 2"]


def test_du_agrees_within_rounding(rich: Rich, rich_mount: Path) -> None:
    def usage(folder: Path, *options: str) -> int:
        return int(tool("du", "-s", *options, ".", cwd=folder).split()[0])

    entries = len(rich.described.facts)
    assert abs(usage(rich_mount, "-k") - usage(rich.place.folder, "-k")) <= 8 * entries
    assert usage(rich_mount / "files", "-k") < SPARSE_BYTES // 1024 // 2
    apparent = usage(rich_mount / "files", "-b")
    assert abs(apparent - usage(rich.place.folder / "files", "-b")) <= 4096  # the folder itself


def test_diff_sees_no_difference(rich: Rich, rich_mount: Path, tmp_path: Path) -> None:
    # It calls any two FIFOs and devices different.
    assert tool("diff", "-r", "--no-dereference", "--exclude=special", rich.place.folder, rich_mount, cwd=tmp_path) == b""


def test_diff_of_two_snapshots_shows_what_changed(place: Place) -> None:
    for name in ("a", "folder/b", "folder/c"):
        place.write(name, f"this is {name}\n".encode())
    os.mkfifo(place.folder / "fifo")
    old = place.shown(place.back_up())
    place.mount()
    same = place.shown(place.back_up("other"))
    assert tool("diff", "-r", old, same, cwd=place.path) == b""
    place.write("folder/b", b"this is new\n")
    place.write("d")
    new = place.shown(place.back_up())
    shown = tool("diff", "-r", old, new, cwd=place.path, expect=1).decode().splitlines()
    assert [line for line in shown if not line.startswith("diff ")] == [
        f"Only in {new}: d",
        "1c1",
        "< this is folder/b",
        "---",
        "> this is new",
    ]
    place.unmount()


def test_grep_finds_the_same(rich: Rich, rich_mount: Path) -> None:
    found = tool("grep", "-r", "needle", cwd=rich_mount)
    assert found == b"files/text:needle in a line\n"
    assert sorted(tool("grep", "-rLZ", "needle", cwd=rich_mount).split(b"\0")) == sorted(
        tool("grep", "-rLZ", "needle", cwd=rich.place.folder).split(b"\0")
    )


def test_a_file_can_be_mapped(rich: Rich, rich_mount: Path) -> None:
    for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
        with open(rich_mount / "files" / "many chunks", "rb") as file, mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as mapped:
            assert mapped[:] == (rich.place.folder / "files" / "many chunks").read_bytes()


def test_a_file_can_be_read_past_the_page_cache(rich: Rich, rich_mount: Path) -> None:
    file = os.open(rich_mount / "files" / "many chunks", os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 20)  # aligned, as O_DIRECT wants it
    data = bytearray()
    while count := os.preadv(file, [buffer], len(data)):
        data += buffer[:count]
    os.close(file)
    assert data == (rich.place.folder / "files" / "many chunks").read_bytes()


@pytest.fixture
def repository(place: Place) -> Iterator[Path]:
    """A git repository with a commit, in a snapshot."""
    git("init", "--quiet", cwd=place.folder)
    place.write("a.txt", b"first\n")
    place.write("folder/b.txt", b"second\n")
    git("add", ".", cwd=place.folder)
    git("commit", "--quiet", "--message", "a commit", cwd=place.folder)
    place.write("folder/b.txt", b"changed\n")
    stored = place.back_up()
    place.mount()
    yield place.shown(stored)
    place.unmount()


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "safe.directory=*"]
    return tool(
        "git", *identity, *arguments, cwd=cwd, GIT_OPTIONAL_LOCKS="0", GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull
    ).decode()


def test_git_works_in_a_snapshot(repository: Path) -> None:
    assert git("status", "--porcelain", cwd=repository) == " M folder/b.txt\n"
    assert git("log", "--format=%s", cwd=repository) == "a commit\n"
    assert "+changed" in git("diff", cwd=repository)
    assert git("show", "HEAD:folder/b.txt", cwd=repository) == "second\n"
    git("fsck", "--strict", "--no-progress", cwd=repository)

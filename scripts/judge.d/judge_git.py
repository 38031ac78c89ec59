# SPDX-License-Identifier: MIT
"""Judge `git`: a repository with history is cloned, worked with, repacked and checked; every hash must be the host's."""

import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

from chores import Chore, Place, compare
from commands import first_line, must_run, run
from folders import remove
from judging import Bench, Verdict

_WHO = "Judge <judge@example.org>"
_BEGIN_S = 1_700_000_000
_LARGE_BYTES = 5000
"""A file in which lines that are added at its beginning and at its end do not meet."""
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "Judge",
    "GIT_AUTHOR_EMAIL": "judge@example.org",
    "GIT_AUTHOR_DATE": f"{_BEGIN_S} +0000",
    "GIT_COMMITTER_NAME": "Judge",
    "GIT_COMMITTER_EMAIL": "judge@example.org",
    "GIT_COMMITTER_DATE": f"{_BEGIN_S} +0000",
    "GIT_EDITOR": "true",
}


def make_history(target: Path, commits: int) -> None:
    """Make a bare repository: Python's standard library coming in file by file, with lines changing in what is there.

    Its hashes depend on the Python that runs this only.
    """
    sources = [path for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")) if "site-packages" not in path.parts]
    each = max(len(sources) // commits, 1)
    root = Path(sysconfig.get_path("stdlib"))
    stream: list[bytes] = []
    for number in range(commits):
        message = f"Step {number}\n".encode()
        stream.append(f"commit refs/heads/main\nmark :{number + 1}\ncommitter {_WHO} {_BEGIN_S + number * 3600} +0000\n".encode())
        stream.append(b"data %d\n%s" % (len(message), message))
        if number:
            stream.append(b"from :%d\n" % number)
        stream += [_modify(path.relative_to(root), path.read_bytes()) for path in sources[number * each : (number + 1) * each]]
        old = sources[zlib.crc32(message) % (number * each + 1)]
        stream.append(_modify(old.relative_to(root), old.read_bytes() + b"# changed in step %d\n" % number))
        if number % 50 == 10:
            stream.append(f"R {sources[number].relative_to(root)} renamed/{number}.py\n".encode() if number * each > number else b"")
    stream.append(b"reset refs/heads/old\nfrom :%d\n\ndone\n" % max(commits // 2, 1))
    stream_file = target.with_suffix(".stream")
    stream_file.write_bytes(b"".join(stream))
    must_run(["git", "init", "-q", "--bare", "--initial-branch=main", target], folder=target.parent)
    must_run(["sh", "-c", f"git fast-import --quiet --done <'{stream_file}'"], folder=target)
    stream_file.unlink()


def _modify(path: Path, data: bytes) -> bytes:
    return f"M 644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n"


def _clone(place: Place) -> str:
    return place.tell("git", "clone", "-q", "--no-local", f"file://{place.material}", "work")


def _state(place: Place) -> Iterator[str]:
    """What git thinks of the work tree, by what it noted of files and by reading them."""
    yield place.tell("git", "diff-files", "--name-only", within="work")  # what would have to be read again
    for words in (["status", "--porcelain=v2", "--branch"], ["rev-parse", "HEAD^{tree}"], ["fsck", "--full", "--strict", "--no-progress"]):
        yield place.tell("git", *words, within="work")


def clone(place: Place) -> Iterator[str]:
    """All of history comes along, and the files are what the last commit says."""
    yield _clone(place)
    yield from _state(place)
    yield place.tell("git", "log", "--format=%H %T %s", "--all", within="work")
    yield place.tell("git", "ls-files", "-s", within="work")
    yield from place.describe("work/renamed")


def switch_branches(place: Place) -> Iterator[str]:
    """Back and forth through history; each time the tree is that of the commit, and clean."""
    yield _clone(place)
    for back in ("~10", "~100", "", "~50", "~3", ""):
        yield place.tell("git", "checkout", "-q", f"origin/main{back}", within="work")
        yield from _state(place)
    yield place.tell("git", "switch", "-q", "-c", "mine", "origin/old", within="work")
    yield from _state(place)


def commit_and_rebase(place: Place) -> Iterator[str]:
    """Work on an older branch, carried over to the newest; a merge; work put aside and taken back."""
    yield _clone(place)
    yield place.tell("git", "switch", "-q", "-c", "mine", "origin/old", within="work")
    for number in range(3 if place.is_quick else 15):
        changed = sorted(path for path in (place.folder / "work").rglob("*.py") if path.stat().st_size > _LARGE_BYTES)[number]
        changed.write_text(f"# line {number}\n" + changed.read_text())
        (place.folder / "work" / f"new-{number}").write_text("new\n" * number)
        yield place.tell("git", "add", "-A", within="work")
        yield place.tell("git", "commit", "-q", "-m", f"Mine {number}", within="work")
    yield place.tell("git", "rebase", "-q", "origin/main", within="work")
    yield from _state(place)
    yield place.tell("git", "switch", "-q", "-c", "theirs", "origin/main~20", within="work")
    yield place.tell("git", "merge", "-q", "--no-ff", "-m", "Together", "mine", within="work")
    (place.folder / "work" / "new-1").write_text("put aside\n")
    for words in (["stash", "-q"], ["stash", "pop", "-q"], ["reset", "-q", "--hard", "mine"], ["clean", "-qfdx"]):
        yield place.tell("git", *words, within="work")
    yield from _state(place)
    yield place.tell("git", "log", "-20", "--format=%H %T %s", within="work")


def repack(place: Place) -> Iterator[str]:
    """Loose objects become packs, and what nothing refers to goes."""
    yield _clone(place)
    for number in range(2 if place.is_quick else 10):
        (place.folder / "work" / "big").write_bytes(bytes(range(256)) * 1000 + b"%d" % number)
        yield place.tell("git", "add", "big", within="work")
        yield place.tell("git", "commit", "-q", "--amend", "-m", f"Big {number}", within="work")
    yield place.tell("git", "reflog", "expire", "--expire=now", "--all", within="work")
    yield place.tell("git", "gc", "-q", "--prune=now", within="work")
    yield place.tell("git", "repack", "-q", "-a", "-d", "-f", "--write-bitmap-index", within="work")
    yield place.tell("git", "count-objects", within="work")
    yield place.tell("git", "commit-graph", "verify", "--no-progress", within="work")
    yield from _state(place)


def several_work_trees(place: Place) -> Iterator[str]:
    """Work trees beside each other, fetching from one another, through hard links where git makes them."""
    yield _clone(place)
    yield place.tell("git", "worktree", "add", "-q", "../second", "origin/old", within="work")
    yield place.tell("git", "status", "--porcelain", within="second")
    yield place.tell("git", "clone", "-q", "--local", "work", "third")
    yield place.tell("git", "fsck", "--full", "--no-progress", within="third")
    yield place.tell("git", "-c", "protocol.file.allow=always", "fetch", "-q", "../work", "main", within="third")
    yield place.tell("git", "worktree", "remove", "../second", within="work")
    yield from _state(place)


def add_everything(place: Place) -> Iterator[str]:
    """A new repository of a tree of files: the hash of the tree tells of all of their bytes and modes."""
    yield place.tell("git", "init", "-q", "--initial-branch=main", "work")
    yield place.tell("cp", "-a", Path(sysconfig.get_path("stdlib"), "email"), Path(sysconfig.get_path("stdlib"), "asyncio"), "work")
    remove(place.folder / "work" / "email" / "__pycache__")
    remove(place.folder / "work" / "asyncio" / "__pycache__")
    (place.folder / "work" / "link").symlink_to("email")
    (place.folder / "work" / "email" / "parser.py").chmod(0o755)
    yield place.tell("git", "add", ".", within="work")
    yield place.tell("git", "write-tree", within="work")
    yield place.tell("git", "commit", "-q", "-m", "All", within="work")
    yield from _state(place)
    yield place.tell("git", "bundle", "create", "-q", "../bundle", "main", within="work")
    yield place.tell("git", "clone", "-q", "bundle", "again", "-b", "main")
    yield place.tell("git", "rev-parse", "HEAD^{tree}", within="again")


_CHORES: tuple[Chore, ...] = (clone, switch_branches, commit_and_rebase, repack, several_work_trees, add_everything)


class Git:
    """Work with a repository."""

    name = "git"
    title = "clone with history, switch, rebase, gc, fsck; all hashes compared"
    packages = {"git": "git"}  # noqa: RUF012 # as in the Protocol
    limit_s = 1800.0

    def judge(self, bench: Bench) -> Verdict:
        """Do all with a history of some hundred commits, with --quick a shorter one."""
        commits = bench.pick(quick=120, full=600)
        material = bench.scratch / f"history-{commits}"
        if not material.exists() or run(["git", "fsck"], folder=material).status != 0:
            remove(material)
            make_history(material, commits)
        chores = _CHORES[: bench.pick(quick=3, full=len(_CHORES))]
        findings = compare(chores, bench, material=material, environment=_ENVIRONMENT)
        return Verdict(f"{first_line(['git', 'version'], bench.host)}, {commits} commits", len(chores), findings)

# SPDX-License-Identifier: MIT
"""Judge `tree`: long random sequences of calls on few names, the same in the judged folder and in one of the host."""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from folders import remove
from judge_posix import show_difference, without_names
from judging import Bench, Finding, Verdict
from steps import ROOT, USERS, Actor, Step, step

_Make = Callable[[], Step]
_LOOK_EACH = 25
_SHRINK_RUNS = 300
"""Runs in which a sequence is made shorter that led to a difference."""
_PATHS = ("a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a", "f/e", "f/e/b")


def _random_step(numbers: random.Random) -> Step:
    """A call on some of the names, which may be anything or nothing by then."""
    path, other = numbers.choice(_PATHS), numbers.choice(_PATHS)
    number = numbers.randrange(6)
    # None with setuid or setgid: whether those go on writing is for `posix` to say, and would end most sequences.
    mode = numbers.choice((0o755, 0o700, 0o777, 0o1777, 0o775, 0o644, 0o600, 0o666))
    user = numbers.choice((ROOT, ROOT, *USERS)) if os.geteuid() == 0 else ROOT
    data = numbers.randbytes(numbers.choice((1, 10, 4096, 70_000)))
    size = numbers.choice((0, 1, 4095, 4096, 5000, 140_000))
    flags = numbers.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR | os.O_APPEND))
    flags |= numbers.choice((0, 0, 0, os.O_TRUNC, os.O_NOFOLLOW))
    choices: list[tuple[int, _Make]] = [
        (10, lambda: step("open", number, path, flags, mode, user=user)),
        (3, lambda: step("close", number)),
        (10, lambda: step("write", number, data)),
        (6, lambda: step("pwrite", number, data, size)),
        (8, lambda: step("pread", number, 200_000, size)),
        (4, lambda: step("ftruncate", number, size)),
        (4, lambda: step("truncate", path, size, user=user)),
        (8, lambda: step("mkdir", path, mode, user=user)),
        (4, lambda: step("rmdir", path, user=user)),
        (6, lambda: step("unlink", path, user=user)),
        (10, lambda: step("renameat2", path, other, numbers.choice((0, 0, 1, 2)), user=user)),
        (5, lambda: step("link", path, other, user=user)),
        (4, lambda: step("symlink", numbers.choice(("a", "../a", "d", "e", "nothing")), path, user=user)),
        (2, lambda: step("mkfifo", path, mode, user=user)),
        (4, lambda: step("chmod", path, mode, user=user)),
        (3, lambda: step("chown", path, numbers.choice((-1, 65501, 65503)), numbers.choice((-1, 65501, 65502)), user=user)),
        (3, lambda: step("setxattr", path, f"user.{number}", data[:100], numbers.choice((0, 0, 1, 2)), user=user)),
        (2, lambda: step("removexattr", path, f"user.{number}", user=user)),
        (4, lambda: step("stat", path, user=user)),
        (2, lambda: step("fstat", number)),
        (3, lambda: step("list", path, user=user)),
        (2, lambda: step("fsync", number)),
        (2, lambda: step("map_read", number)),
        (2, lambda: step("utimens", path, 10**9 + number, 10**9, 1, user=user)),
        (1, lambda: step("access", path, numbers.randrange(8), user=user)),
    ]
    [make] = numbers.choices([make for _, make in choices], [weight for weight, _ in choices])
    return make()


class Tree:
    """Random work on a tree."""

    name = "tree"
    title = "random calls on few names, compared after each"
    packages: dict[str, str] = {}  # noqa: RUF012 # as in the Protocol
    limit_s = 900.0

    def judge(self, bench: Bench) -> Verdict:
        """Begin anew after some hundred steps, or at the first difference."""
        sequences = bench.pick(quick=10, full=100)
        length = bench.pick(quick=150, full=400)
        findings = []
        for number in range(sequences):
            numbers = bench.random(f"tree {number}")
            steps = [_random_step(numbers) for _ in range(length)]
            if (found := _find_difference(bench, steps)) is not None:
                findings.append(_shrink(bench, steps[: found.place + 1], f"sequence {number}"))
        return Verdict(f"{sequences} sequences of {length} random calls, seed {bench.seed}", sequences * length, findings)


@dataclass(frozen=True, slots=True)
class _Difference:
    """What differs, and after which step that was seen."""

    place: int
    text: str


def _find_difference(bench: Bench, steps: Sequence[Step]) -> _Difference | None:
    """Carry steps out in a new folder on both sides; stop at the first difference."""
    actors = [Actor(_make_folder(folder / "tree")) for folder in (bench.judged, bench.host)]
    try:
        for place, one in enumerate(steps):
            judged, host = ([f"{one} = {actor.do(one)}"] for actor in actors)
            if judged == host and (place % _LOOK_EACH == 0 or place == len(steps) - 1):
                judged, host = (list(actor.describe()) for actor in actors)
            if judged != host:
                return _Difference(place, show_difference(judged, host))
    finally:
        os.chdir("/")
        for actor in actors:
            actor.close()
            remove(actor.folder)
    return None


def _shrink(bench: Bench, steps: Sequence[Step], name: str) -> Finding:
    """Leave steps out as long as there is a difference: half of them, a quarter, down to each."""
    runs = 0
    size = len(steps) // 2
    while size and runs < _SHRINK_RUNS:
        begin = 0
        while begin < len(steps) and runs < _SHRINK_RUNS:
            fewer = [*steps[:begin], *steps[begin + size :]]
            runs += 1
            if (found := _find_difference(bench, fewer)) is not None:
                steps = fewer[: found.place + 1]
            else:
                begin += size
        size //= 2
    found = _find_difference(bench, steps)
    text = "it does not come again" if found is None else found.text
    return Finding(name, "\n".join([*map(str, steps), text]), without_names(text))


def _make_folder(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o777)
    return path

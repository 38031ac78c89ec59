# SPDX-License-Identifier: MIT
"""Judge `tree`: long random sequences of calls on few names, the same in the judged folder and in one of the host."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from folders import remove
from judge_posix import show_difference
from judging import Bench, Finding, Verdict
from steps import ROOT, USERS, Actor, Step, step

_Make = Callable[[], Step]
_LOOK_EACH = 25
_KEPT_STEPS = 60
_PATHS = ("a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a", "f/e", "f/e/b")


def _random_step(numbers: random.Random) -> Step:
    """A call on some of the names, which may be anything or nothing by then."""
    path, other = numbers.choice(_PATHS), numbers.choice(_PATHS)
    number = numbers.randrange(6)
    mode = numbers.choice((0o755, 0o700, 0o777, 0o1777, 0o2775, 0o644, 0o600, 0o4755))
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
            finding = _run_sequence(bench, number, length)
            findings += [] if finding is None else [finding]
        return Verdict(f"{sequences} sequences of {length} random calls, seed {bench.seed}", sequences * length, findings)


def _run_sequence(bench: Bench, number: int, length: int) -> Finding | None:
    numbers = bench.random(f"tree {number}")
    actors = [Actor(_make_folder(folder / f"tree-{number}")) for folder in (bench.judged, bench.host)]
    done: list[str] = []
    try:
        for place in range(length):
            one = _random_step(numbers)
            judged, host = [[actor.do(one)] for actor in actors]
            done.append(f"{one} = {host[0]}"[:300])
            if judged == host and place % _LOOK_EACH == 0:
                judged, host = [list(actor.describe()) for actor in actors]
            if judged != host:
                text = [f"seed {bench.seed}, sequence {number}, step {place}: {done[-1]}", show_difference(judged, host), "before:"]
                return Finding(f"sequence {number}", "\n".join([*text, *done[-_KEPT_STEPS:]]))
    finally:
        os.chdir("/")
        for actor in actors:
            actor.close()
            remove(actor.folder)
    return None


def _make_folder(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o777)
    return path

# SPDX-License-Identifier: MIT
"""What encryption costs: first backups into plain and encrypted stores by turns, `scripts/bench encryption FOLDER`, which see.

Besides the time on the clock the processor time is shown, which other programs on the machine disturb less.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from setting import default_work
from tools import ROOT

_PASSPHRASE = "what encryption costs"  # noqa: S105 (of a store that is removed again)


def main(arguments: list[str]) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="scripts/bench encryption", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", metavar="FOLDER", help="what is backed up, each by itself")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    options = parser.parse_args(arguments)
    print("| folder | plain | encrypted | ratio | processor: plain | encrypted | ratio | store: ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for folder in options.folder:
        runs: dict[bool, list[tuple[float, float, int]]] = {False: [], True: []}
        _back_up(folder, is_encrypted=False)  # reads all of it into the page cache
        for number in range(options.rounds):
            for is_encrypted in (False, True) if number % 2 else (True, False):
                runs[is_encrypted].append(_back_up(folder, is_encrypted=is_encrypted))
        plain, encrypted = ([statistics.median(values) for values in zip(*runs[kind], strict=True)] for kind in (False, True))
        ratios = [other / one for one, other in zip(plain, encrypted, strict=True)]
        print(
            f"| {folder.name} | {plain[0]:.2f} s | {encrypted[0]:.2f} s | {ratios[0]:.2f} "
            f"| {plain[1]:.2f} s | {encrypted[1]:.2f} s | {ratios[1]:.2f} | {ratios[2]:.3f} |"
        )
    return 0


def _back_up(folder: Path, *, is_encrypted: bool) -> tuple[float, float, int]:
    """Back a folder up into a new store: seconds on the clock, of the processor, and bytes of the store."""
    work = default_work() / "encryption"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700, parents=True)
    own = {"YESTER_STORE": str(work / "store"), "XDG_STATE_HOME": str(work), "PYTHONPATH": str(ROOT / "src")}
    environment = {**os.environ, **own, **({"YESTER_PASSPHRASE": _PASSPHRASE} if is_encrypted else {})}
    yester = [sys.executable, "-P", "-m", "yester"]
    subprocess.run([*yester, "init", *(["--encrypt"] if is_encrypted else [])], env=environment, check=True, stderr=subprocess.DEVNULL)
    os.sync()
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*yester, "backup", folder], env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    size_bytes = (work / "store" / "data.mdb").stat().st_size
    shutil.rmtree(work)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, size_bytes

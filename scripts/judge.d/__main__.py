# SPDX-License-Identifier: MIT
"""Run the judges: `scripts/judge`, which see."""

import argparse
import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from commands import JudgeError, install
from document import Result, render_findings, render_table, write_section
from folders import file_system, judged_folder, remove
from judge_fio import Fio
from judge_fsx import Fsx
from judge_git import Git
from judge_limits import Limits
from judge_posix import Posix
from judge_programs import Programs
from judge_sqlite import Sqlite
from judge_stress import StressNg
from judge_tree import Tree
from judging import Bench, Finding, Judge, Verdict

_ROOT = Path(__file__).resolve().parents[2]
_DOCUMENT = _ROOT / "docs" / "testing.md"


def _all_judges() -> list[Judge]:
    return [Posix(), Tree(), Fsx(), Git(), Programs(), Limits(), Fio(), Sqlite(), StressNg()]


def main() -> int:
    """Run what was asked for; 1 if a judge found something."""
    judges = _all_judges()
    options = _parse_options(judges)
    if options.list:
        print("\n".join(f"{judge.name:<12}{judge.title}" for judge in judges))
        return 0
    chosen = [judge for judge in judges if not options.names or judge.name in options.names]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the mount is taken away
    work: Path = options.work.resolve()
    work.mkdir(mode=0o755, parents=True, exist_ok=True)
    if work.stat().st_uid != os.geteuid():
        sys.exit(f"judge: {work} is somebody else's: name another folder with --work")
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"judge: another run uses {work}")
        try:
            for judge in chosen:
                install(judge.packages)
            complaints: list[Finding] = []
            with judged_folder(work, options.against, complaints) as folder:
                results, setting = _run_all(chosen, folder, work, options)
            if options.against is None:
                results.append(
                    Result("after it", Verdict("what judges left: mounted again, restored; `yester check`; the logs", 5, complaints), 0)
                )
        except JudgeError as error:
            sys.exit(f"judge: {error}")
    print(render_table(results))
    print(render_findings(results, limit=options.show))
    if not (options.names or options.quick or options.against):
        write_section(_DOCUMENT, setting, results)
        print(f"judge: wrote {_DOCUMENT.relative_to(_ROOT)}", file=sys.stderr)
    return 1 if any(result.verdict.findings for result in results) else 0


def _parse_options(judges: Sequence[Judge]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/judge",
        description="Let programs of others, and long tests of our own, judge a live folder beside a plain folder of the host.",
        epilog="Exit status: 0 nothing found, 1 something found, 2 wrong usage.",
    )
    default = Path(os.environ.get("TMPDIR") or "/var/tmp", "yester-judge")  # noqa: S108 # main checks whose it is
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only these judges; default: all")
    parser.add_argument("--list", action="store_true", help="list the judges")
    parser.add_argument("--quick", action="store_true", help="seconds each; nothing is written")
    parser.add_argument("--against", type=_folder, metavar="FOLDER", help="judge this folder instead of a new live folder")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="other random tests; default: %(default)s")
    parser.add_argument("--show", type=int, default=50, metavar="N", help="print so many findings of each judge; default: %(default)s")
    parser.add_argument(
        "--work", type=Path, default=default, metavar="DIR", help="where stores, mounts and builds are; default: %(default)s"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - {judge.name for judge in judges}:
        parser.error(f"no such judge: {', '.join(sorted(unknown))}")
    return options


def _folder(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        message = f"no such folder: {text}"
        raise argparse.ArgumentTypeError(message)
    return path


def _run_all(judges: Sequence[Judge], folder: Path, work: Path, options: argparse.Namespace) -> tuple[list[Result], str]:
    """Run judges one after another, each in folders of its own."""
    host = Path(tempfile.mkdtemp(prefix="host-", dir=work))
    host.chmod(0o755)
    scratch = work / "scratch"
    scratch.mkdir(exist_ok=True)
    what = "a live folder" if options.against is None else file_system(folder)
    setting = f"{what} beside {file_system(host)}, seed {options.seed}"
    results = []
    try:
        for judge in judges:
            print(f"judge: {judge.name}", file=sys.stderr)
            bench = Bench(folder / judge.name, host / judge.name, scratch, options.seed, options.quick)
            begin = time.monotonic()
            try:
                bench.judged.mkdir(mode=0o755)
                bench.host.mkdir(mode=0o755)
                verdict = _in_a_process(judge, bench)
            except OSError as error:  # the mount is gone
                verdict = Verdict("did not begin", 1, [Finding(judge.name, str(error))])
            results.append(Result(judge.name, verdict, time.monotonic() - begin))
            print(f"judge: {judge.name}: {verdict.cases} cases, {len(verdict.findings)} findings", file=sys.stderr)
            remove(bench.host)
            if options.against is not None:
                remove(bench.judged)  # what is left in a live folder is looked at when it is mounted again
    finally:
        remove(host)
    return results, setting


def _in_a_process(judge: Judge, bench: Bench) -> Verdict:
    """Run a judge in a process group of its own, which is killed when it takes too long; that is a finding, too."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_judge, args=(judge, bench, theirs))
    process.start()
    theirs.close()
    try:
        with contextlib.suppress(EOFError):
            if ours.poll(judge.limit_s):
                verdict: Verdict = ours.recv()
                return verdict
            return Verdict("did not end", 1, [Finding(judge.name, f"took longer than {judge.limit_s:.0f} s")])
        return Verdict("did not end", 1, [Finding(judge.name, "the process of the judge died")])
    finally:
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.join(30)  # one that hangs in a request cannot be killed before the mount is gone


def _judge(judge: Judge, bench: Bench, answer: Connection) -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        verdict = judge.judge(bench)
    except JudgeError as error:
        verdict = Verdict("could not run", 0, [Finding(judge.name, str(error))])
    except Exception:  # noqa: BLE001 # told as a finding, since a broken mount shows so
        verdict = Verdict("did not end", 1, [Finding(judge.name, traceback.format_exc())])
    answer.send(verdict)
    answer.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

# SPDX-License-Identifier: MIT
"""Judge `posix`: some thousands of small cases, each carried out in the judged folder and in one of the host, and compared."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from folders import remove
from judging import Bench, Finding, Verdict
from posix_cases import all_cases
from steps import ROOT, Case, run_cases

_TOGETHER = 100
"""Cases that are prepared before the first of them is judged: the clock's tick is waited for once for all of them."""
_EACH_QUICK = 10


class Posix:
    """System calls by group."""

    name = "posix"
    title = "system calls by group, as several users, compared call by call"
    packages: dict[str, str] = {}  # noqa: RUF012 # as in the Protocol
    limit_s = 1200.0

    def judge(self, bench: Bench) -> Verdict:
        """Compare all cases, with --quick each tenth."""
        cases = list(islice(all_cases(), 0, None, bench.pick(quick=_EACH_QUICK, full=1)))
        findings = []
        for begin in range(0, len(cases), _TOGETHER):
            findings += _compare(cases[begin : begin + _TOGETHER], bench)
        groups = Counter(group for group, _ in cases)
        found = Counter(finding.case.partition(":")[0] for finding in findings)
        notes = ["Cases of `posix`:", "", "| group | cases | differences |", "|---|---:|---:|"]
        notes += [f"| {group} | {count:,} | {found[group]:,} |" for group, count in sorted(groups.items())]
        who = "root and three other users" if os.geteuid() == 0 else "one user"
        return Verdict(f"{len(groups)} groups of system calls, as {who}", len(cases), findings, notes)


def _compare(cases: Sequence[tuple[str, Case]], bench: Bench) -> list[Finding]:
    findings = []
    traces = []
    for folder in (bench.judged, bench.host):
        work = folder / "posix"
        work.mkdir()
        traces.append(run_cases([case for _, case in cases], work))
        os.chdir("/")
        remove(work)
    for (group, case), judged, host in zip(cases, *traces, strict=True):
        if judged != host:
            difference = show_difference(judged, host)
            last = case.acts[-1]
            kind = f"{last.call} {'by root' if last.user == ROOT else ''}\n{without_names(difference)}"
            findings.append(Finding(f"{group}: {case.name}", f"{case}\n{difference}", kind))
    return findings


def without_names(difference: str) -> str:
    """What two differences have in common that come from one mistake: calls and results, not paths, modes, numbers and users."""
    lines = (re.sub(r"^(\w+: +)[^(]*?: ", r"\1: ", line) for line in difference.splitlines())
    return "\n".join(re.sub(r"\([^=]*\)|# as \w+|[-dlpscb][-rwxsStT]{9}|b['\"].*|\d+", "", line) for line in lines)


def show_difference(judged: Sequence[str], host: Sequence[str]) -> str:
    """The lines that only one of two has."""
    here, there = Counter(judged), Counter(host)
    lines = [f"judged: {line}" for line in judged if line not in there]
    lines += [f"host:   {line}" for line in host if line not in here]
    return "\n".join(line if len(line) < 400 else f"{line[:200]} … {line[-150:]}" for line in lines) or "the same lines in another order"

# SPDX-License-Identifier: MIT
"""Judge `stress-ng`: each of its stressors of file systems, with --verify, for some seconds.

Verification by stress-ng only looks at what a stressor itself did, and its stressors know of differences between file systems, so
what one of them says also on the host's is no finding.
"""

import shutil
from pathlib import Path

from commands import first_line, run
from folders import remove
from judging import Bench, Finding, Verdict

_STRESSORS = (
    *(
        "access",
        "aio",
        "aiol",
        "chattr",
        "chdir",
        "chmod",
        "chown",
        "chroot",
        "copy-file",
        "dentry",
        "dir",
        "dirdeep",
        "dirmany",
        "dnotify",
    ),
    *("fallocate", "fcntl", "fiemap", "file-ioctl", "filename", "flock", "fpunch", "fsize", "fstat", "getdent", "handle", "hdd"),
    *(
        "inode-flags",
        "inotify",
        "io",
        "iomix",
        "io-uring",
        "lease",
        "link",
        "locka",
        "lockf",
        "lockofd",
        "metamix",
        "mknod",
        "mmap",
        "msync",
    ),
    *(
        "msyncmany",
        "open",
        "readahead",
        "rename",
        "revio",
        "seek",
        "sendfile",
        "splice",
        "symlink",
        "sync-file",
        "touch",
        "unlink",
        "utime",
    ),
    *("verity", "xattr"),
)
"""Those that work on files below --temp-path; a release of stress-ng need not have all."""
_OPTIONS = {
    "aiol": ("--aiol-requests", "16"),
    "copy-file": ("--copy-file-bytes", "16m"),
    "fallocate": ("--fallocate-bytes", "64m"),
    "fiemap": ("--fiemap-bytes", "16m"),
    "hdd": ("--hdd-bytes", "32m"),
    "iomix": ("--iomix-bytes", "32m"),
    "mmap": ("--mmap-file", "--mmap-bytes", "16m"),
    "msync": ("--msync-bytes", "16m"),
    "readahead": ("--readahead-bytes", "16m"),
    "revio": ("--revio-bytes", "16m"),
    "seek": ("--seek-size", "16m"),
    "sync-file": ("--sync-file-bytes", "16m"),
}
"""Sizes that a run of some seconds gets through."""
_PROBLEMS = ("fail:", "error:", "unsuccessful", "terminated on signal")


class StressNg:
    """Stressors of file systems."""

    name = "stress-ng"
    title = "Debian's stress-ng: its stressors of file systems with --verify"
    packages = {"stress-ng": "stress-ng"}  # noqa: RUF012 # as in the Protocol
    limit_s = 3600.0

    def judge(self, bench: Bench) -> Verdict:
        """Run one stressor after another; the host is asked only where the judged folder has a problem."""
        known = set(run(["stress-ng", "--stressors"], folder=bench.host).output.split())
        names = [name for name in _STRESSORS if name in known]
        names = names[:: bench.pick(quick=6, full=1)]
        seconds = bench.pick(quick=1, full=5)
        findings = []
        skipped = []
        for name in names:
            problem, output = _run(name, bench.judged, seconds)
            if "skipped" in output or "not implemented" in output:
                skipped.append(name)
            if problem is not None:
                host, _ = _run(name, bench.host, seconds)
                if host is None:
                    findings.append(
                        Finding(name, f"stress-ng --{name} 2 --timeout {seconds}s --verify\njudged: {problem}\nhost:   no problem")
                    )
        ran = f"{' '.join(first_line(['stress-ng', '--version'], bench.host).split()[:3]).rstrip(',')}, {seconds} s each"
        notes = [f"stress-ng skipped as not supported: {', '.join(skipped)}."] if skipped else []
        return Verdict(ran, len(names), findings, notes)


def _run(name: str, parent: Path, seconds: int) -> tuple[str | None, str]:
    """What a stressor complains of, None if of nothing, and all that it printed."""
    folder = parent / "stress"
    folder.mkdir()
    words = ["stress-ng", f"--{name}", "2", "--timeout", f"{seconds}s", "--verify", "--temp-path", str(folder), "--oom-avoid"]
    outcome = run([*words, *_OPTIONS.get(name, ())], folder=folder, limit_s=60 + 10 * seconds)
    remove(folder)
    if folder.exists():
        shutil.rmtree(folder)  # says why it stays
    lines = [line.replace(str(folder), "FOLDER") for line in outcome.output.splitlines()]
    complaints = [line for line in lines if any(word in line for word in _PROBLEMS)]
    if outcome.status == 0 and not complaints:
        return None, outcome.output
    ending = "took too long" if outcome.status is None else f"exit status {outcome.status}"
    return "\n        ".join([*(complaints or lines)[:12], ending]), outcome.output

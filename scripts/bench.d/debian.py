# SPDX-License-Identifier: MIT
"""Installing the Debian packages that the comparison needs."""

import os
import shutil
import subprocess
import sys


def install(packages: list[str]) -> None:
    """Install packages, or end the program saying which are missing."""
    if failure := try_install(packages):
        sys.exit(f"bench: {failure}")


def try_install(packages: list[str]) -> str:
    """Install packages; why that is not possible, or nothing."""
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *packages]
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if shutil.which("apt-get") is None or (sudo and shutil.which("sudo") is None):
        return f"missing packages; as root run: apt-get update && apt-get install -y {' '.join(packages)}"
    print(f"bench: installing Debian packages: {' '.join(packages)}", file=sys.stderr)
    subprocess.run([*sudo, "apt-get", "update", "-q"], stdout=sys.stderr, check=False)
    done = subprocess.run([*sudo, "env", "DEBIAN_FRONTEND=noninteractive", *command], stdout=sys.stderr, check=False)
    return "" if done.returncode == 0 else f"apt-get could not install {' '.join(packages)}"


def has_package(name: str) -> bool:
    """Whether a package is installed; True where there is no dpkg to ask."""
    if shutil.which("dpkg-query") is None:
        return True
    done = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], capture_output=True, text=True, check=False)
    return done.stdout == "installed"

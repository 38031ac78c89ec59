# SPDX-License-Identifier: MIT
"""Whether the computer runs on its battery, as systemd's ConditionACPower= sees it."""

from contextlib import suppress
from pathlib import Path

POWER_SUPPLIES = Path("/sys/class/power_supply")


def is_on_battery(supplies: Path = POWER_SUPPLIES) -> bool:
    """True if there are mains adapters and none of them has power. A computer without any is taken to be plugged in."""
    found_mains = False
    for supply in supplies.glob("*") if supplies.is_dir() else ():
        with suppress(OSError):
            if (supply / "type").read_text(encoding="ascii").strip() == "Mains":
                found_mains = True
                if (supply / "online").read_text(encoding="ascii").strip() == "1":
                    return False
    return found_mains

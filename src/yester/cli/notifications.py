# SPDX-License-Identifier: MIT
"""Telling somebody who looks at a screen, and has no terminal that would say it."""

import os
import shutil
import subprocess
from contextlib import suppress
from html import escape

_WAIT_S = 2.0
"""A notification service answers within milliseconds; one that hangs must not keep a command alive."""


def notify(title: str, text: str, *, icon: str = "dialog-warning") -> bool:
    """Show a notification on the desktop of whoever runs this; whether that was done. There may be no desktop, or nothing to do it with."""
    environment = dict(os.environ)
    bus = f"/run/user/{os.getuid()}/bus"
    if "DBUS_SESSION_BUS_ADDRESS" not in environment:
        if os.path.exists(bus):
            environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"  # cron does not say where it is
        elif not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
            return False
    if shutil.which("notify-send") is None:
        return False
    words = ["notify-send", "--app-name=yester", f"--icon={icon}", "--", title, escape(text, quote=False)]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_WAIT_S)
        return done.returncode == 0
    return False

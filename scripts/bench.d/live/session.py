# SPDX-License-Identifier: MIT
"""A system that is mounted for one piece of work, and that leaves no mount, no process and no file behind."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from measure import StepError, run, status_bytes
from mounting import find_servers, unmount_below, wait_end

from live.installing import Installed
from live.systems import System, make_system

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Session:
    """A mounted system with a folder to work in.

    `peak_bytes` is the most resident memory that one of its processes had, `anonymous_bytes` what it had without mapped files when
    `note_memory` looked; both 0 if no process serves it.
    """

    def __init__(self, system: System, mount_point: Path) -> None:
        self._system = system
        self._mount_point = mount_point
        self.peak_bytes = 0
        self.anonymous_bytes = 0

    @property
    def folder(self) -> Path:
        """Where to work."""
        return self._mount_point / "work"

    @property
    def environment(self) -> dict[str, str]:
        """The environment for the commands that work there."""
        return self._system.environment

    def mount(self) -> None:
        """Mount it."""
        self._mount_point.mkdir(exist_ok=True)
        self._system.mount(self._mount_point)
        self.folder.mkdir(exist_ok=True)

    def remount_cold(self) -> None:
        """Unmount it and mount it again, with nothing in the page cache of what was written.

        Raises:
            StepError: the page cache may not be dropped, which only root may do.
        """
        self.note_memory()
        self.unmount()
        os.sync()
        try:
            _DROP_CACHES.write_text("3")
        except OSError as error:
            message = f"cannot drop the page cache: {error.strerror}"
            raise StepError(message) from error
        finally:
            self.mount()

    def settle(self) -> None:
        """Have it do now what it would do later with what was written: upload it, make a version of it.

        By unmounting it, after which all have done that.
        """
        self.note_memory()
        self.unmount()
        self.mount()

    def publish(self) -> float:
        """Make a version now; how many seconds that took."""
        return run(self._system.publish(), self.environment).seconds

    def stored_bytes(self) -> int:
        """What it takes on the disk."""
        os.sync()  # the file system counts blocks when it has given them
        return self._system.stored_bytes()

    def note_memory(self) -> None:
        """Look at the memory of the processes that serve it; what they had before they were mounted anew counts, too."""
        for pid in find_servers(self._mount_point):
            self.peak_bytes = max(self.peak_bytes, status_bytes(pid, "VmHWM"))
            self.anonymous_bytes = max(self.anonymous_bytes, status_bytes(pid, "RssAnon"))

    def unmount(self) -> None:
        """Unmount it; all is in the store."""
        self._system.unmount(self._mount_point)

    def take_away(self) -> None:
        """Unmount it, whatever state it is in, and end what serves it; does nothing after `unmount`."""
        servers = find_servers(self._mount_point)
        unmount_below(self._mount_point)
        for pid in servers:
            wait_end(pid)


@contextlib.contextmanager
def session_of(name: str, folder: Path, installed: Installed) -> Iterator[Session]:
    """A system with a new store below `folder`, mounted; in the end the folder is gone.

    Raises:
        StepError: it cannot be made, mounted or unmounted.
    """
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        session = Session(make_system(name, folder, installed), folder / "mnt")
        stack.callback(session.take_away)
        session.mount()
        yield session
        session.unmount()

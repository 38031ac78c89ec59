# SPDX-License-Identifier: MIT
"""Every error that yester raises on purpose.

    YesterError
    ├── UsageError          the request makes no sense as written
    ├── NotFoundError       no such store, snapshot, source or path
    ├── ConflictError       the thing exists already, or differs from what was asked for
    ├── BusyError           somebody else holds it; trying again later may work
    │   └── SweptError      a prune removed what was about to be used again
    ├── LockedError         the store is encrypted, and what was given does not open it
    ├── CorruptionError     stored bytes are not what was written
    ├── FormatError         stored by a release that writes something this one cannot read
    ├── LimitError          too large, too long, too deep
    │   └── StoreFullError  the disk under the store has no room
    ├── StoreAccessError    the operating system refuses the store: permissions, I/O errors
    ├── MountError          FUSE is missing, not permitted, or refuses the mount point
    ├── HookError           a command that had to run before a backup failed
    └── TimerError          systemd or cron refuses what should start backups

Families follow what a caller can do about it. Missing is not corrupt: `NotFoundError` is raised where a person named
something that is not there, `CorruptionError` where the store itself refers to it. Nothing parses the messages.
"""


class YesterError(Exception):
    """What failed, on what, and in which state things are now; `hint` says what to do next.

    `exit_code` is the process exit status of a command that ends with this error (docs/cli.md).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(YesterError):
    """The request makes no sense as written. Nothing was read or changed."""

    exit_code = 2


class NotFoundError(YesterError):
    """A store, snapshot, source or path that a person named does not exist."""


class ConflictError(YesterError):
    """The thing exists already, or is not what the request supposes."""


class BusyError(YesterError):
    """Somebody else holds it. Trying again later may work."""


class SweptError(BusyError):
    """A prune removed what was about to be used again. Nothing was published; doing it again stores what is missing."""


class LockedError(YesterError):
    """The store is encrypted, and no passphrase or key was given, or a wrong one. Nothing was read but what every copy shows."""


class CorruptionError(YesterError):
    """Stored bytes are not what was written. Never raised for something that merely is not there."""


class FormatError(YesterError):
    """Written in a format this release does not know. The data may be perfectly whole."""


class LimitError(YesterError):
    """Too large, too long or too deep for the format or the machine."""


class StoreFullError(LimitError):
    """The disk under the store has no room. What was committed before is whole and readable."""


class StoreAccessError(YesterError):
    """The operating system refuses the store: permissions, read-only disk, I/O errors."""


class MountError(YesterError):
    """FUSE is missing or not permitted, or the mount point cannot be used."""


class HookError(YesterError):
    """A command that a person has run before a backup failed, and so nothing was backed up."""


class TimerError(YesterError):
    """systemd or cron refuses what should start backups."""

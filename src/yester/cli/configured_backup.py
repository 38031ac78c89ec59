# SPDX-License-Identifier: MIT
"""Backing up a source as the configuration says, and what is given to a command on top of that."""

from dataclasses import replace

from yester.cli.config import Config
from yester.engine.backup import BackupOptions
from yester.engine.hooks import TIMEOUT_S, Hooks
from yester.engine.source_plan import Source
from yester.errors import UsageError


def source_to_back_up(config: Config, name: str) -> Source:
    """A source of the configuration that says what to back up.

    Raises:
        UsageError, NotFoundError: there is none.
    """
    if not name:
        message = "no folder to back up was named"
        raise UsageError(message, hint="name one, or with --name a source of the configuration: yester backup --name Documents")
    source = config.source(name)
    if not source.paths:
        message = f"{config.path} does not say what to back up of {name!r}; nothing was backed up"
        raise UsageError(message, hint="name the folder, or give the source paths: yester config edit")
    return source


def options_on_top(configured: BackupOptions, given: BackupOptions) -> BackupOptions:
    """What is configured, and what is given besides: nothing that is configured can be taken away."""
    return replace(
        configured,
        exclude=configured.exclude + given.exclude,
        exclude_from=configured.exclude_from + given.exclude_from,
        exclude_caches=configured.exclude_caches or given.exclude_caches,
        one_file_system=configured.one_file_system or given.one_file_system,
        tags=tuple(dict.fromkeys(configured.tags + given.tags)),
        message=given.message,
        only_if_changed=given.only_if_changed,
    )


def hooks_on_top(configured: Hooks, given: Hooks) -> Hooks:
    """The same of hooks; those given run inside those that are configured."""
    return Hooks(
        before=configured.before + given.before,
        after=given.after + configured.after,
        on_failure=given.on_failure + configured.on_failure,
        timeout_s=configured.timeout_s if given.timeout_s == TIMEOUT_S else given.timeout_s,
        goes_on_after_failure=configured.goes_on_after_failure or given.goes_on_after_failure,
    )

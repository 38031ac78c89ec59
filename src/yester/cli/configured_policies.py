# SPDX-License-Identifier: MIT
"""Which policies the configuration gives to sources."""

from yester.cli.config import Config
from yester.core.retention import Policy
from yester.engine.forget import default_policies


def configured_policies(config: Config) -> dict[str, Policy]:
    """Those of all sources that have one there."""
    return {name: source.policy for name, source in config.sources.items() if source.policy is not None}


def find_policy(config: Config, source: str) -> Policy | None:
    """The policy of a source: that of the configuration, else the usual one of a live folder, else none."""
    return (default_policies([source]) | configured_policies(config)).get(source)

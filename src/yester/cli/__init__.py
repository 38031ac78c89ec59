# SPDX-License-Identifier: MIT
"""The `yester` command: one module a subcommand, each parses, calls the engine, and renders.

Decides nothing that a library user would miss. Environment variables are read here and nowhere else.
"""

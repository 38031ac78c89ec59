# SPDX-License-Identifier: MIT
"""What can be done with a store: back up, browse, compare, restore, check.

Knows files and stores; does not know FUSE, trio or terminals.
"""

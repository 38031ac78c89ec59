# SPDX-License-Identifier: MIT
"""Stored trees as a filesystem: what they mean (`view`), how FUSE is told (`driver`), mounting (`mounting`).

Does not know commands. Only `driver` and `mounting` know pyfuse3 and trio.
"""

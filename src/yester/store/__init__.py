# SPDX-License-Identifier: MIT
"""Where chunks, trees and snapshots are kept: one directory with one LMDB environment.

Knows ids, bytes and records; does not know files, FUSE or commands.
"""

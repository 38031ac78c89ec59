# SPDX-License-Identifier: MIT
"""What stored things are: ids, chunking, records, tree comparison, rules, time expressions.

Takes bytes and values and returns values. Never touches disk, clock, randomness or threads.
"""

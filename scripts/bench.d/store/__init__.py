# SPDX-License-Identifier: MIT
"""`scripts/bench store`: a store that was used for a month beside one that was not, and beside restic's with the same history."""

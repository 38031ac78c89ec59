# SPDX-License-Identifier: MIT
"""`scripts/bench live`: the live folder beside other writable folders of the same kind, doing the same work."""

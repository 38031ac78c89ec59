# SPDX-License-Identifier: MIT
"""yester: every version of your files in one store, shown as ordinary folders.

Layers, top to bottom: `cli`, `fs`, `engine`, `store`, `core`, `errors`. Each imports only from those below it
(docs/ARCHITECTURE.md).
"""

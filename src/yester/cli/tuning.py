# SPDX-License-Identifier: MIT
"""Settings of the whole process for commands that move much data. Each was measured (docs/adr/0005); none changes a result."""

import ctypes
import gc
import sys

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while another waits: those that compress need it rarely, but then at once."""

_GC_THRESHOLDS = (50_000, 20, 100)
"""Records and nodes are many, and in no cycles: looking through all of them often is only a stutter."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
MIB = 1024 * 1024


def tune_process(*, kept_bytes: int) -> None:
    """Prepare this process for moving much data. Harmless to call twice.

    `kept_bytes` of freed memory glibc keeps. Buffers of 1 MiB come and go all the time, and each fresh page costs a fault: a
    sixth of the system time of a backup.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # only glibc has it
        mallopt(_M_MMAP_THRESHOLD, kept_bytes)
        mallopt(_M_TRIM_THRESHOLD, kept_bytes)

# SPDX-License-Identifier: MIT
"""`free_pages.py STORE` prints how many bytes of a yester store's file nothing uses.

The file never shrinks: what is freed in it is used again. So by its size alone, writing into a store that has just freed much seems to
cost nothing.
"""

import sys
from pathlib import Path

from yester.store.store import Store

with Store.open(Path(sys.argv[1]), readonly=True) as store:
    print(store.environment.reusable_bytes())

# SPDX-License-Identifier: MIT
"""`python -m yester`."""

from yester.cli.main import main

main()

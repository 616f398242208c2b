"""`python -m dudi` is `dudi`."""

from __future__ import annotations

import sys

from dudi.program.cli import main

if __name__ == "__main__":
    sys.exit(main())

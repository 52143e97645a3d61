"""The agent where the rest of the project is not: ``python -m tuning.preemption``."""

from __future__ import annotations

import sys

from tuning.preemption.agent import main

if __name__ == "__main__":
    sys.exit(main())

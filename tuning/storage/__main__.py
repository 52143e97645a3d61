"""``python -m tuning.storage STORAGE NAME``: whether an experiment has begun, for scripts.

Prints ``yes`` or ``no``. A storage that is away is waited for, and one that cannot be read is an
error: no script should take it for an empty one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from model.cli import run_main
from model.files import storage_errors
from tuning.storage.experiments import MANIFEST
from tuning.storage.patience import patiently
from tuning.storage.place import place


def main(argv: Sequence[str] | None = None) -> int:
    """Prints whether it has begun."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning.storage", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("storage", help="directory or URI of all experiments")
    parser.add_argument("name", help="of the experiment")
    arguments = parser.parse_args(argv)
    manifest = place(arguments.storage) / arguments.name / MANIFEST
    with storage_errors(manifest, "read"):
        print("yes" if patiently(manifest.is_file) else "no")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

"""``python -m tuning.study``: where the study of an experiment is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tuning.study
from model.cli import run_main
from tuning.experiment import LATEST, Experiment
from tuning.study import bring_up_to_date


def main(argv: Sequence[str] | None = None) -> int:
    """Prints where the study is."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning.study", description=tuning.study.__doc__
    )
    parser.add_argument("name", nargs="?", default=LATEST, help="experiment (the newest one)")
    parser.add_argument("--storage", default="runs", help="of all experiments (%(default)s)")
    arguments = parser.parse_args(argv)
    print(bring_up_to_date(Experiment.open(arguments.name, arguments.storage)))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

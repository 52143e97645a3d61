"""`sync`: sends to Weights & Biases what it lacks of an experiment."""

from __future__ import annotations

import argparse
import sys

from tuning.commands.common import Subcommands, add_name
from tuning.experiment import Experiment


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    sync = commands.add_parser(
        "sync",
        help="send an experiment to Weights & Biases",
        description="Sends to Weights & Biases what its server lacks of an experiment that was "
        "logged offline, online in part, or not at all. May be repeated. Needs a key.",
    )
    add_name(sync)
    sync.add_argument("--storage", default="runs", help="directory of experiments (%(default)s)")
    sync.set_defaults(run=_sync)


def _sync(arguments: argparse.Namespace) -> int:
    from tuning.tracking.wandb_send import send

    experiment = Experiment.open(arguments.name, arguments.storage)
    problems = send(experiment)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"sent: {experiment.name}")
    return 1 if problems else 0

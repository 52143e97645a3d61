"""`logs`: what the worker of a trial wrote."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model.cli import natural, positive
from tuning.commands.common import Subcommands, add_name
from tuning.experiment import Experiment


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    logs = commands.add_parser(
        "logs",
        help="what the worker of a trial wrote",
        description="Prints the attempts at a trial, with why they failed, and what the worker of "
        "the last one wrote: its part of Ray's log files. These are read on this machine; for a "
        "trial of another node, run it there.",
        epilog="example: python -m tuning logs demo 3",
    )
    add_name(logs)
    logs.add_argument("trial", type=natural, help="number of the trial")
    logs.add_argument("--attempt", type=positive, help="which; default the last")
    logs.add_argument("--storage", default="runs", help="directory of experiments (%(default)s)")
    logs.add_argument(
        "--ray-logs",
        type=Path,
        metavar="DIRECTORY",
        help="Ray's log directory; default those of every session under RAY_TMPDIR or /tmp/ray",
    )
    logs.set_defaults(run=_logs)


def _logs(arguments: argparse.Namespace) -> int:
    from tuning.journal import read_journal
    from tuning.worker_logs import choose_attempt, heading, written

    experiment = Experiment.open(arguments.name, arguments.storage)
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    attempts, chosen = choose_attempt(experiment, rows, arguments.trial, arguments.attempt)
    for attempt in attempts:
        print(attempt)
    directories = [arguments.ray_logs] if arguments.ray_logs else None
    found = written(heading(experiment.path, arguments.trial, chosen.number), directories)
    for file, text in found.items():
        print(f"\n{file}\n{text.rstrip() or '(nothing)'}")
    if not found:
        where = f"look on {chosen.worker.rsplit(':', 1)[0]}" if chosen.worker else "it had none"
        print(
            f"attempt {chosen.number}: no log of its worker is on this machine; {where}. "
            "Ray's files go when its temporary directory is cleaned.",
            file=sys.stderr,
        )
        return 1
    return 0

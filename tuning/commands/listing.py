"""`list`: the experiments there are."""

from __future__ import annotations

import argparse

from model.cli import table
from tuning.commands.common import Subcommands
from tuning.experiment import list_experiments
from tuning.storage.place import place


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    listing = commands.add_parser("list", help="list the experiments", description="Lists them.")
    listing.add_argument("--storage", default="runs", help="directory of experiments (%(default)s)")
    listing.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    from tuning.status import status_of

    paths = list_experiments(place(arguments.storage))
    if not paths:
        print(f"{arguments.storage}: no experiments yet; start one with 'python -m tuning run'.")
        return 0
    rows = [status_of(path) for path in paths]
    headers = ("name", "state", "trials", "best", "created")
    print(table([[getattr(row, h) for h in headers] for row in rows], headers))
    return 0

"""`extend`: more trials for a search, with all that it learned."""

from __future__ import annotations

import argparse

from model.cli import positive
from tuning.commands.common import Subcommands, add_name, add_resources, report_end, resources


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    extend = commands.add_parser(
        "extend",
        help="add trials to a finished or interrupted search",
        description="Adds trials to a finished or interrupted search, with all that searcher and "
        "scheduler learned; what was interrupted is gone on with too.",
        epilog="example: python -m tuning extend demo --trials 12",
    )
    add_name(extend)
    extend.add_argument("--trials", type=positive, required=True, help="how many more")
    add_resources(extend)
    extend.set_defaults(run=_extend)


def _extend(arguments: argparse.Namespace) -> int:
    from tuning.going_on import extend

    experiment = extend(arguments.name, trials=arguments.trials, **resources(arguments))
    return report_end(experiment, arguments)

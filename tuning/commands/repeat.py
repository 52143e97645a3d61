"""`repeat`: an experiment once more, from its manifest."""

from __future__ import annotations

import argparse
import sys

from tuning.commands.common import Subcommands, add_name, add_resources, report_end, resources


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    repeat = commands.add_parser(
        "repeat",
        help="run an experiment again, from its manifest",
        description="Runs an experiment again as a new one: the same sweep, seed, data and number "
        "of trials. Says first what differs: versions, commit, machine, data.",
    )
    add_name(repeat)
    repeat.add_argument(
        "--name",
        dest="new_name",
        metavar="NAME",
        help="of the new experiment; default the old name and -repeat",
    )
    add_resources(repeat)
    repeat.set_defaults(run=_repeat)


def _repeat(arguments: argparse.Namespace) -> int:
    from tuning.launch import repeat

    experiment = repeat(
        arguments.name,
        name=arguments.new_name,
        say=lambda line: print(line, flush=True),
        command=["python", "-m", "tuning", *sys.argv[1:]],
        **resources(arguments),
    )
    return report_end(experiment, arguments)

"""`retry`: failed trials once more."""

from __future__ import annotations

import argparse

from tuning.commands.common import Subcommands, add_name, add_resources, report_end, resources


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    retry = commands.add_parser(
        "retry",
        help="run failed trials again",
        description="Runs the failed trials of a search again, from their newest checkpoint or "
        "from the start, as further attempts; what was interrupted is gone on with too.",
    )
    add_name(retry)
    retry.add_argument(
        "--diverged",
        action="store_true",
        help="those that diverged too, from the start; on the same machine they diverge again",
    )
    add_resources(retry)
    retry.set_defaults(run=_retry)


def _retry(arguments: argparse.Namespace) -> int:
    from tuning.going_on import retry

    experiment = retry(arguments.name, diverged=arguments.diverged, **resources(arguments))
    return report_end(experiment, arguments)

"""`resume`: going on with an interrupted search."""

from __future__ import annotations

import argparse

from tuning.commands.common import Subcommands, add_name, add_resources, report_end, resources


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    resume = commands.add_parser(
        "resume",
        help="go on with an interrupted search",
        description="Goes on with an interrupted search; nothing that finished is run again.",
    )
    add_name(resume)
    add_resources(resume)
    resume.set_defaults(run=_resume)


def _resume(arguments: argparse.Namespace) -> int:
    from tuning.going_on import resume

    return report_end(resume(arguments.name, **resources(arguments)), arguments)

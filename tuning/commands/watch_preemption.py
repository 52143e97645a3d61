"""`watch-preemption`: what runs beside Ray on a machine that its cloud may take back."""

from __future__ import annotations

from tuning.commands.common import Subcommands
from tuning.preemption import agent


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    watch = commands.add_parser(
        "watch-preemption",
        help="on a node: let trials leave before the cloud takes it back",
        description=agent.DESCRIPTION,
        epilog=agent.EPILOG,
    )
    agent.add_options(watch)
    watch.set_defaults(run=agent.run)

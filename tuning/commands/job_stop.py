"""`stop`: a search that was submitted to a cluster, as Ctrl-C stops one that runs here."""

from __future__ import annotations

import argparse

from tuning.commands.common import Subcommands
from tuning.commands.job_options import add_address, connect


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    stop = commands.add_parser(
        "stop",
        help="stop a search that was submitted to a cluster",
        description="Stops a search that was submitted to a cluster, cleanly: 'submit --resume' "
        "goes on with it.",
    )
    stop.add_argument("name", help="the experiment's name, or a job's id")
    add_address(stop)
    stop.set_defaults(run=_stop)


def _stop(arguments: argparse.Namespace) -> int:
    from tuning.jobs.following import report, stop

    client = connect(arguments.address)
    job = client.find(arguments.name)
    if not job.is_over:
        print(f"stopping job {job.id}; everything is kept")
        job = stop(client, job)
    report(client, job)
    return 0

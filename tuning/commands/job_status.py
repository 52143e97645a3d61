"""`status`: the searches that were submitted to a cluster, or one of them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model.cli import table
from tuning.commands.common import Subcommands
from tuning.commands.job_options import add_address, connect

if TYPE_CHECKING:
    from tuning.jobs.client import Client

#: Lines of a job's log that are shown.
_LINES = 5


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    status = commands.add_parser(
        "status",
        help="how searches that were submitted to a cluster stand",
        description="Lists the searches that were submitted to a cluster, or says how one stands.",
    )
    status.add_argument("name", nargs="?", help="the experiment's name, or a job's id")
    add_address(status)
    status.add_argument("--follow", action="store_true", help="show its log, up to its end")
    status.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    from tuning.jobs.following import follow_and_report, report

    client = connect(arguments.address)
    if arguments.name is None:
        return _list(client)
    job = client.find(arguments.name)
    if arguments.follow:
        return follow_and_report(client, job)
    print("\n".join(client.last_lines(job.id, _LINES)))
    report(client, job)
    return 0


def _list(client: Client) -> int:
    from tuning.jobs.submission import command

    jobs = [job for job in client.jobs() if job.verb != "fetch"]
    if not jobs:
        print(f"no searches yet; start one: {command('submit', client, 'FILE')}")
        return 0
    rows = [
        [job.experiment, job.verb, job.state, _time(job.started), _time(job.ended), job.storage]
        for job in jobs
    ]
    print(table(rows, ("experiment", "job", "state", "started", "ended", "storage")))
    return 0


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"

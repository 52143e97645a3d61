"""`submit`: a search on a cluster, started from elsewhere."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ConfigurationError
from tuning.commands import run
from tuning.commands.common import Subcommands
from tuning.commands.job_options import add_address, connect
from tuning.commands.run_options import add_run_options, parser_of, resume_options, run_options

if TYPE_CHECKING:
    from tuning.jobs.client import Client, Job


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    submit = commands.add_parser(
        "submit",
        help="run a search on a cluster, started from elsewhere",
        description="Starts a search on a Ray cluster through its dashboard, and follows what it "
        "prints; Ctrl-C stops following, and the search goes on. Takes the options of 'run'.",
        epilog="example: python -m tuning submit configs/demo.yaml --trials 12 --name demo "
        "--address http://127.0.0.1:8265",
    )
    submit.add_argument("file", nargs="?", help="sweep file (a W&B sweep configuration)")
    add_address(submit)
    submit.add_argument("--resume", metavar="NAME", help="go on with this experiment instead")
    submit.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="send this corpus or prepared data set along; by default no data are sent",
    )
    submit.add_argument(
        "--storage",
        help="directory of experiments that every node reaches; default /mnt/runs, or where the "
        "resumed one lies",
    )
    submit.add_argument(
        "--no-follow", dest="follow", action="store_false", help="start it and return"
    )
    add_run_options(submit)
    submit.set_defaults(run=_submit)


def _submit(arguments: argparse.Namespace) -> int:
    return _resume(arguments) if arguments.resume is not None else _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from tuning.jobs.checking import check
    from tuning.jobs.submission import DEFAULT_STORAGE, check_place, name_of, start_run

    if arguments.file is None:
        raise ConfigurationError("submit", ["name a sweep file, or --resume NAME."])
    storage = arguments.storage or DEFAULT_STORAGE
    check_place(arguments.name, storage)
    options = run_options(arguments)
    tried = [f"--try={reference}" for reference in arguments.try_first]
    given = parser_of(run, "run").parse_args([*options, *tried, "--", arguments.file])
    checked = check(given, arguments.data)
    for note in checked.sweep.notes:
        print(f"note: {note}", file=sys.stderr)
    client = connect(arguments.address)
    name = arguments.name or name_of(checked.sweep)
    file, *files = checked.words
    job = start_run(client, name, storage, [file, *options, *files], checked.files)
    return _started(client, job, follow=arguments.follow)


def _resume(arguments: argparse.Namespace) -> int:
    from tuning.jobs.submission import DEFAULT_STORAGE, check_place, start_resume

    words, others = resume_options(arguments)
    others += ["--data"] * (arguments.data is not None)
    if others:
        raise ConfigurationError(
            "submit --resume",
            [f"goes on with what was asked for: leave out {', '.join(others)}."],
        )
    check_place(arguments.resume, arguments.storage or DEFAULT_STORAGE)
    client = connect(arguments.address)
    job = start_resume(client, arguments.resume, arguments.storage, words)
    return _started(client, job, follow=arguments.follow)


def _started(client: Client, job: Job, *, follow: bool) -> int:
    from tuning.jobs.following import follow_and_report, later

    print(f"experiment {job.experiment}, in {job.storage} of the cluster: job {job.id}")
    if not follow:
        print(later(client, job))
        return 0
    return follow_and_report(client, job)

"""`logs`: what the worker of a trial wrote."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.cli import natural, positive
from tuning.commands.common import Subcommands, add_name
from tuning.experiment import Experiment

if TYPE_CHECKING:
    from tuning.worker_logs import AttemptSaid

#: Texts by where they lie, and what else there is to say.
_Found = tuple[dict[str, str], list[str]]


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    logs = commands.add_parser(
        "logs",
        help="what the worker of a trial wrote",
        description="Prints the attempts at a trial, with why they failed, and what the worker of "
        "the last one wrote: its part of Ray's log files. These are read on this machine; with "
        "--address on the node of the cluster where the worker ran.",
        epilog="example: python -m tuning logs demo 3 --address auto --storage /mnt/runs",
    )
    add_name(logs)
    logs.add_argument("trial", type=natural, help="number of the trial")
    logs.add_argument("--attempt", type=positive, help="which; default the last")
    logs.add_argument("--storage", default="runs", help="directory of experiments (%(default)s)")
    where = logs.add_mutually_exclusive_group()
    where.add_argument(
        "--address", help="Ray cluster ('auto', HOST:PORT) whose nodes have the worker's files"
    )
    where.add_argument(
        "--ray-logs",
        type=Path,
        metavar="DIRECTORY",
        help="Ray's log directory; default those of all sessions that are found here",
    )
    logs.set_defaults(run=_logs)


def _logs(arguments: argparse.Namespace) -> int:
    from tuning.journal import read_journal
    from tuning.worker_logs import choose_attempt, heading

    experiment = Experiment.open(arguments.name, arguments.storage)
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    attempts, chosen = choose_attempt(experiment, rows, arguments.trial, arguments.attempt)
    for attempt in attempts:
        print(attempt)
    mark = heading(experiment.place, arguments.trial, chosen.number)
    if arguments.address is None:
        found, problems = _here(mark, chosen, arguments.ray_logs)
    else:
        found, problems = _on_nodes(mark, chosen, arguments.address)
    for file, text in found.items():
        print(f"\n{file}\n{text.rstrip() or '(nothing)'}")
    sys.stdout.flush()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 0 if found else 1


def _here(mark: str, chosen: AttemptSaid, ray_logs: Path | None) -> _Found:
    """What this machine has of a log, and what else there is to say."""
    from tuning.worker_logs import written

    found = written(mark, [ray_logs] if ray_logs else None)
    if found:
        return found, []
    where = f"it ran on {chosen.host}" if chosen.host else "it never reported from anywhere"
    return {}, [
        f"attempt {chosen.number}: no log of its worker is on this machine; {where}. To read it "
        "on the nodes of a cluster: --address auto. Ray's files go when its temporary directory "
        "is cleaned."
    ]


def _on_nodes(mark: str, chosen: AttemptSaid, address: str) -> _Found:
    """What the nodes of a cluster have of a log, and what else there is to say."""
    from tuning.cluster import connected
    from tuning.node_logs import written_on_nodes

    with connected(address):
        logs = written_on_nodes(mark, chosen.host)
    found = {f"{node}: {file}": text for (node, file), text in logs.files.items()}
    if found or logs.problems:
        return found, logs.problems
    where = f"on node {chosen.host}" if chosen.host else "on any node of the cluster"
    return {}, [f"attempt {chosen.number}: there is no log of its worker {where}."]

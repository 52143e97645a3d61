"""What the commands share: naming an experiment, resources, and saying how a search ended."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.cli import EXIT_INTERRUPTED, positive
from tuning.experiment import Experiment
from tuning.storage.place import place
from tuning.time_budget import parse_duration

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subcommands = argparse._SubParsersAction


def add_set(parser: argparse.ArgumentParser) -> None:
    """Adds the option that fixes fields."""
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="fix a field, whatever the file says (repeatable)",
    )


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose searcher and scheduler."""
    parser.add_argument(
        "--searcher",
        metavar="NAME",
        help="random, grid, tpe, gp, cmaes or sobol, whatever the file's method",
    )
    parser.add_argument(
        "--scheduler",
        metavar="NAME",
        help="asha (W&B's hyperband), hyperband (its brackets), median, pbt or none, whatever the "
        "file says",
    )


def add_name(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that names an experiment."""
    parser.add_argument("name", help="the experiment's name or directory, or 'latest'")


def add_resources(parser: argparse.ArgumentParser) -> None:
    """Adds where to run, where to keep it, and who else is told; `resources` reads them."""
    parser.add_argument("--concurrency", type=positive, help="trials at once; default what fits")
    parser.add_argument(
        "--time-budget",
        type=_duration,
        metavar="DURATION",
        help="end the search after so long (90s, 45m, 1h30m) as Ctrl-C would, with exit status 0",
    )
    parser.add_argument(
        "--address", help="existing Ray cluster ('auto', HOST:PORT); default starts Ray here"
    )
    parser.add_argument(
        "--storage",
        default="runs",
        help="directory of experiments, on a cluster one that every node reaches, or "
        "s3://BUCKET/PREFIX (%(default)s)",
    )
    parser.add_argument(
        "--wandb",
        choices=("offline", "online", "disabled"),
        help="Weights & Biases; default online if there is a key, else offline",
    )


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def resources(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_resources` was given, as keywords of the functions of `tuning.launch`."""
    names = ("concurrency", "time_budget", "address", "storage", "wandb")
    return {name: getattr(arguments, name) for name in names}


def _storage_option(experiment: Experiment, storage: str) -> str:
    """How later commands find the experiment, which may have been named by its directory."""
    home = experiment.place.parent
    if home == Path("runs").resolve():
        return ""
    return f" --storage {shlex.quote(storage if home == place(storage).resolve() else str(home))}"


def report_end(experiment: Experiment, arguments: argparse.Namespace) -> int:
    """Says how a search ended and what to do next; returns the exit status."""
    from tuning.journal import read_journal
    from tuning.journal.row import TARGET_REACHED, TIME_BUDGET
    from tuning.status import status

    option = _storage_option(experiment, arguments.storage)
    address = f" --address {arguments.address}" if arguments.address else ""
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    if rows and rows[-1].reason == TIME_BUDGET and rows[-1].kind == "ended":
        return _report_end_of_time(experiment, arguments.time_budget, option, address)
    if not rows or not rows[-1].completes:
        print(
            f"stopped; everything is kept in {experiment.place}\n"
            f"go on: python -m tuning resume {experiment.name}{option}{address}"
        )
        return EXIT_INTERRUPTED
    if status(experiment).best is None:
        print(
            f"finished without a result: {experiment.place}\n"
            f"why: python -m analysis results {experiment.name}{option} --csv trials.csv"
        )
        return 1
    if experiment.manifest["settings"]["wandb"] == "offline":
        print(f"W&B, offline; to send: python -m tuning sync {experiment.name}{option}")
    why = ", since its target was reached" if rows[-1].reason == TARGET_REACHED else ""
    print(
        f"finished{why}: {experiment.place}\n"
        f"results: python -m analysis results {experiment.name}{option}\n"
        f"promote the best: python -m analysis promote {experiment.name}{option}"
    )
    return 0


def _report_end_of_time(
    experiment: Experiment, budget: float | None, storage: str, address: str
) -> int:
    """The same where the time was over; 0, so that a script goes on, but 1 without a result."""
    from tuning.status import status
    from tuning.view import duration

    of = "" if budget is None else f" of {duration(budget)}"
    print(
        f"the time budget{of} is over; everything is kept in {experiment.place}\n"
        f"go on: python -m tuning resume {experiment.name}{storage}{address}"
    )
    if status(experiment).best is None:
        print("no trial has a result yet")
        return 1
    print(f"promote the best so far: python -m analysis promote {experiment.name}{storage}")
    return 0

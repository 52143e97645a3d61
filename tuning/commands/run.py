"""`run`: a search from its beginning."""

from __future__ import annotations

import argparse
import sys

from model.cli import positive
from model.config import parse_assignments
from tuning.commands.common import (
    Subcommands,
    add_choices,
    add_resources,
    add_set,
    report_end,
    resources,
)


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    run = commands.add_parser(
        "run",
        help="run a search",
        description="Runs a hyper-parameter search. Ctrl-C stops it cleanly; 'resume' goes on.",
        epilog="example: python -m tuning run configs/demo.yaml --trials 12 --name demo",
    )
    run.add_argument("file", help="sweep file (a W&B sweep configuration)")
    run.add_argument(
        "--trials", type=positive, help="how many; default the file's run_cap, else 25"
    )
    add_choices(run)
    _add_starting_points(run)
    add_resources(run)
    run.add_argument("--name", help="the experiment's name; default the sweep's name and the time")
    run.add_argument(
        "--seed", type=int, default=0, help="seed of searcher and scheduler (%(default)s)"
    )
    run.add_argument(
        "--max-failures",
        type=positive,
        default=3,
        help="give a trial up after this many failures without progress (%(default)s)",
    )
    run.add_argument(
        "--cpus-per-trial", type=_share, default=1.0, help="CPU cores of each trial (%(default)g)"
    )
    run.add_argument(
        "--gpus-per-trial",
        type=_share,
        default=0.0,
        help="GPUs of each trial; a fraction shares one (%(default)g)",
    )
    add_set(run)
    run.set_defaults(run=_run)


def _add_starting_points(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--try",
        dest="try_first",
        action="append",
        default=[],
        metavar="FILE|EXPERIMENT:N",
        help="try these first: a YAML or JSON list of mappings from field to value, or an "
        "experiment's N best configurations (repeatable)",
    )
    parser.add_argument(
        "--warm-start",
        action="append",
        default=[],
        metavar="EXPERIMENT",
        help="let the searcher begin with what this experiment found, over the same space and "
        "data (repeatable)",
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, but got {text!r}")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from tuning.choices import load_chosen
    from tuning.launch import run

    overrides = parse_assignments(arguments.assignments)
    sweep = load_chosen(arguments.file, arguments.searcher, overrides)
    for note in sweep.notes:
        print(f"note: {note}", file=sys.stderr)
    experiment = run(
        sweep,
        trials=arguments.trials,
        cpus_per_trial=arguments.cpus_per_trial,
        gpus_per_trial=arguments.gpus_per_trial,
        name=arguments.name,
        seed=arguments.seed,
        searcher=arguments.searcher,
        scheduler=arguments.scheduler,
        try_first=arguments.try_first,
        warm_start=arguments.warm_start,
        max_failures=arguments.max_failures,
        command=["python", "-m", "tuning", *sys.argv[1:]],
        **resources(arguments),
    )
    return report_end(experiment, arguments)

"""`ranking`: what choosing by training loss would have cost."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from analysis.commands.common import Subcommands, add_experiment, frame_table, note, plain
from analysis.commands.importance import add_trials, counted
from analysis.importance.ranking import Ranking, ranking
from analysis.results import Results
from model.cli import positive
from model.files import finite


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    ranks = commands.add_parser(
        "ranking",
        help="rank of the trials by training loss against rank by the objective",
        description="Prints how differently training loss ranks the trials, which of them change "
        "places most, and what choosing by training loss would have cost.",
    )
    add_experiment(ranks)
    add_trials(ranks, "finished")
    ranks.add_argument(
        "--top", type=positive, default=5, help="show so many that changed places (%(default)s)"
    )
    ranks.add_argument("--json", action="store_true", help="print JSON instead of a table")
    ranks.set_defaults(run=_ranking)


def _ranking(arguments: argparse.Namespace) -> int:
    results = Results.open(arguments.experiment, arguments.storage)
    note(results.problems)
    found = ranking(results, rule=arguments.trials)
    print(_json(results, found) if arguments.json else _text(results, found, arguments.top))
    return 0


def _json(results: Results, found: Ranking) -> str:
    trials = [
        {str(name): plain(value) for name, value in row.items()}
        for row in found.frame.to_dict("records")
    ]
    others = {name: value for name, value in vars(found).items() if name != "frame"}
    others |= {"at_end": asdict(found.at_end), "at_best": asdict(found.at_best)}
    document = {"experiment": results.experiment.name, **others, "ranked": trials}
    return json.dumps(finite(document), indent=2)


def _text(results: Results, found: Ranking, top: int) -> str:
    lines = [f"{results.experiment.name}: {counted(found.trials)} ranked", found.rule, ""]
    lines += found.words
    moved = found.moved_most(top)
    if len(moved):
        lines += ["", "Those that change places most:", frame_table(moved)]
    elif found.trials > 1:
        lines += ["", "No trial changes its place."]
    return "\n".join([*lines, "", *(f"note: {said}" for said in found.warnings)]).rstrip()

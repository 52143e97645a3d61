"""`results` and `best`: the trials of an experiment, and the best of them."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.commands.common import (
    Subcommands,
    add_experiment,
    add_output,
    add_selection,
    give,
    note,
    output_format,
    plain,
    selection,
    write,
)
from analysis.completeness import named
from analysis.results import Results
from model.cli import table
from model.wording import listing, plural


def register(commands: Subcommands) -> None:
    """Adds the commands to the command line."""
    results = commands.add_parser(
        "results",
        help="table of the trials, the best first",
        description="Prints the trials of an experiment, the best first; of a running one too. "
        "CSV, Parquet and JSON have all columns, in the order of proposal.",
    )
    add_experiment(results)
    results.add_argument("--history", action="store_true", help="the reports instead of the trials")
    results.add_argument(
        "--verify", action="store_true", help="read every file of weights: which are damaged?"
    )
    results.add_argument(
        "--pareto",
        action="store_true",
        help="of several objectives, only the trials that no other one beats by all of them",
    )
    add_selection(results)
    add_output(results)
    results.add_argument("--csv", type=Path, metavar="FILE", help="write all columns as CSV")
    results.add_argument("--parquet", type=Path, metavar="FILE", help="write them as Parquet")
    results.set_defaults(run=_results)

    best = commands.add_parser(
        "best", help="the best trial", description="Prints the best trial, every field of it."
    )
    add_experiment(best)
    best.set_defaults(run=_best)


def _results(arguments: argparse.Namespace) -> int:
    name = output_format(arguments)  # before anything is read
    results = Results.open(arguments.experiment, arguments.storage)
    note(results.problems)
    if arguments.verify:
        note(damage := results.verify())
        print(f"verified: {len(damage)} damaged")
    files = [(arguments.csv, "csv"), (arguments.parquet, "parquet")]
    files = [(file, kind) for file, kind in files if file]
    if files:
        frame = results.select(**_asked(arguments), history=arguments.history)
        for file, kind in files:
            write(file, frame, kind)
    if arguments.out or not files:
        _show(results, arguments, name)
    return 0


def _show(results: Results, arguments: argparse.Namespace, name: str) -> None:
    for_people = name in ("table", "markdown") and not arguments.history
    if not for_people:
        give(results.select(**_asked(arguments), history=arguments.history), arguments)
    elif results.trials.empty:
        print(f"{results.experiment.name}: no trials yet.")
    else:
        give(_short(results, arguments), arguments)
        if name == "table" and not arguments.out:
            print("\n" + "\n".join(_summary(results)))


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    return selection(arguments) | {"pareto": arguments.pareto}


def _short(results: Results, arguments: argparse.Namespace) -> pd.DataFrame:
    """The columns that matter most, the best trial first, where nothing else was asked for."""
    asked = _asked(arguments)
    if asked["sort"] is None and not asked["descending"]:
        asked |= {"sort": results.objective, "descending": not results.ascending}
    if asked["columns"] is None:
        asked["columns"] = [
            *("trial", "state", *_objectives(results), "best_iteration", "iteration", "seconds"),
            *(*results.searched, "attempts"),
        ]
    return results.select(**asked)


def _objectives(results: Results) -> list[str]:
    """Columns of what was optimised, and who is on the Pareto front."""
    return results.objectives + (["pareto"] if len(results.objectives) > 1 else [])


def _summary(results: Results) -> list[str]:
    trials = results.trials
    words = {"stopped": "stopped early"}
    states = ", ".join(f"{n} {words.get(s, s)}" for s, n in Counter(trials["state"]).items())
    lines = [f"{plural(len(trials), 'trial')}: {states}"]
    ranked = results.ranked()
    if len(results.objectives) > 1:
        front = results.pareto()["trial"].tolist()
        lines.append(f"Pareto front of {listing(results.objectives)}: {named(front) or 'none'}")
    if not ranked.empty and results.objective == "val_loss":
        lines.append(_against_unigram(results, float(ranked.iloc[0]["val_loss"])))
    return lines


def _against_unigram(results: Results, best: float) -> str:
    unigram = results.experiment.manifest["data"]["unigram_val_loss"]
    side = "below" if best <= unigram else "above"
    return (
        f"best val_loss {best:.4f} nats a token, "
        f"{100 * abs(1 - best / unigram):.0f} % {side} a unigram model's {unigram:.4f}"
    )


def _best(arguments: argparse.Namespace) -> int:
    results = Results.open(arguments.experiment, arguments.storage)
    note(results.problems)
    best = results.best()
    print(table([[name, plain(value)] for name, value in best.items()], ("field", "value")))
    return 0

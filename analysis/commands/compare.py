"""`compare`: several experiments together."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from analysis.commands.common import (
    Subcommands,
    add_output,
    add_selection,
    give,
    note,
    output_format,
    selection,
)
from analysis.comparison import Comparison, compare


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    comparison = commands.add_parser(
        "compare",
        help="several experiments together",
        description="Prints a summary of several experiments, or, with --trials or any choice of "
        "them, their trials in one table with the column 'experiment'. Says where their values "
        "cannot be compared.",
    )
    comparison.add_argument("experiments", nargs="+", metavar="EXPERIMENT", help="name, directory")
    comparison.add_argument("--storage", default="runs", help="of experiments (%(default)s)")
    comparison.add_argument("--trials", action="store_true", help="the trials, not the summary")
    add_selection(comparison)
    add_output(comparison)
    comparison.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    name = output_format(arguments)
    both = compare(arguments.experiments, arguments.storage)
    note(both.problems)
    for warning in both.warnings:
        note([f"not comparable: {warning}"])
    asked = selection(arguments)
    if arguments.trials or any(asked.values()):
        give(_trials(both, asked, for_people=name in ("table", "markdown")), arguments)
    elif name in ("table", "markdown"):
        give(_beside(both.summary), arguments)
    else:
        give(both.summary, arguments)
    return 0


def _trials(both: Comparison, asked: dict[str, Any], *, for_people: bool) -> pd.DataFrame:
    first = next(iter(both.results.values()))
    if asked["sort"] is None and not asked["descending"] and (for_people or asked["top"]):
        asked |= {"sort": first.objective, "descending": not first.ascending}
    if asked["columns"] is None and for_people:
        searched = [name for one in both.results.values() for name in one.searched]
        objectives = [one.objective for one in both.results.values()]
        names = ["experiment", "trial", "state", *objectives, "iteration", "seconds", *searched]
        asked["columns"] = list(dict.fromkeys(names))
    return both.select(**asked)


def _beside(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary for people: a column for each experiment, a row for each figure."""
    columns = {
        str(row["experiment"]): [row[name] for name in summary.columns[1:]]
        for _, row in summary.iterrows()
    }
    return pd.DataFrame({"": summary.columns[1:], **columns}, dtype="object")

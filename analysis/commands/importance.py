"""`importance`: which hyper-parameters mattered."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from analysis.commands.common import Subcommands, add_experiment, note, plain
from analysis.importance.budgets import RULES
from analysis.importance.estimates import METHODS, Importance, importances
from analysis.results import Results
from model.cli import natural, table
from model.files import finite

#: Characters of the bar of an importance of 1.
_BAR = 30


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    importance = commands.add_parser(
        "importance",
        help="which hyper-parameters mattered, by three methods",
        description="Prints how important each searched hyper-parameter was, by up to three "
        "methods that answer different questions, with 90 % bootstrap intervals.",
    )
    add_experiment(importance)
    importance.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="only this method; may be given several times (default: all)",
    )
    add_trials(importance, "equal-budget")
    importance.add_argument(
        "--bootstraps",
        type=natural,
        default=100,
        help="bootstrap samples behind the intervals; 0 for none (%(default)s)",
    )
    importance.add_argument("--seed", type=int, default=0, help="of samples and forests (0)")
    importance.add_argument("--json", action="store_true", help="print JSON instead of tables")
    importance.set_defaults(run=_importance)


def add_trials(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds the option that says which trials are compared."""
    rules = "; ".join(f"{rule}: {meaning}" for rule, meaning in RULES.items())
    parser.add_argument(
        "--trials", choices=tuple(RULES), default=default, help=f"{rules} (default: {default})"
    )


def counted(trials: int) -> str:
    """A number of trials, in words."""
    return f"{trials} trial{'' if trials == 1 else 's'}"


def _importance(arguments: argparse.Namespace) -> int:
    results = Results.open(arguments.experiment, arguments.storage)
    note(results.problems)
    found = importances(
        results,
        arguments.method or METHODS,
        bootstraps=arguments.bootstraps,
        seed=arguments.seed,
        rule=arguments.trials,
        progress=True,
    )
    print(_json(results, found) if arguments.json else _text(results, found))
    return 0


def _json(results: Results, found: Sequence[Importance]) -> str:
    methods = [
        {
            "method": one.method,
            "question": one.question,
            "trials": one.trials,
            "rule": one.rule,
            "first": one.first,
            "warnings": one.warnings,
            "importances": [
                {str(name): plain(value) for name, value in row.items()}
                for row in one.frame.to_dict("records")
            ],
        }
        for one in found
    ]
    document = {
        "experiment": results.experiment.name,
        "objective": results.objective,
        "methods": methods,
    }
    return json.dumps(finite(document), indent=2)


def _text(results: Results, found: Sequence[Importance]) -> str:
    shared = [said for said in found[0].warnings if all(said in one.warnings for one in found)]
    begin = f"{results.experiment.name}: {counted(found[0].trials)} compared"
    lines = [begin, found[0].rule, ""]
    for one in found:
        lines += [f"{one.method}: {one.question}", *_table(one)]
        lines += [f"note: {said}" for said in one.warnings if said not in shared]
        lines.append("")
    return "\n".join([*lines, *(f"note: {said}" for said in shared)]).rstrip()


def _table(one: Importance) -> list[str]:
    if one.frame.empty:
        return []
    linear = "correlation" in one.frame
    rows = [_row(record, linear) for record in one.frame.to_dict("records")]
    headers = ["parameter", "importance", "90 % interval"]
    headers += ["correlation"] if linear else []
    lines = table(rows, [*headers, ""]).splitlines()
    if math.isfinite(one.first):
        first = one.frame["parameter"].iloc[0]
        lines.append(f"{first} comes out first in {100 * one.first:.0f} % of bootstrap samples")
    return lines


def _row(record: dict[Any, Any], linear: bool) -> list[Any]:
    """A row of the table; categories stand below their hyper-parameter, without a bar."""
    whole = not linear or plain(record["category"]) is None
    known = math.isfinite(record["low"])
    return [
        record["parameter"] if whole else f"  {record['parameter']}",
        f"{record['importance']:.3f}",
        f"{record['low']:.3f} to {record['high']:.3f}" if known else None,
        *([_signed(record["correlation"])] if linear else []),
        "#" * round(_BAR * record["importance"]) if whole else "",
    ]


def _signed(correlation: float) -> str | None:
    return f"{correlation:+.2f}" if math.isfinite(correlation) else None

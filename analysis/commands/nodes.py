"""`nodes`: what each node did for a search, and hours of each type of node."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from analysis.commands.common import Subcommands, add_experiment
from analysis.nodes import Use, by_node, by_type
from analysis.results import Results
from model.cli import table

_UNKNOWN = "not known"


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    nodes = commands.add_parser(
        "nodes",
        help="what each node did, and hours of each type of node",
        description="Prints for each node how many trials and attempts it had, for how many hours "
        "at least one ran there, and worker and GPU hours; then the same for each type of node.",
    )
    add_experiment(nodes)
    nodes.add_argument("--json", action="store_true", help="print JSON instead of tables")
    nodes.set_defaults(run=_nodes)


def _nodes(arguments: argparse.Namespace) -> int:
    results = Results.open(arguments.experiment, arguments.storage)
    nodes, kinds = by_node(results), by_type(results)
    if arguments.json:
        found = {"nodes": list(map(asdict, nodes)), "types": list(map(asdict, kinds))}
        print(json.dumps(found, indent=2))
    elif not nodes:
        print(f"{results.experiment.name}: no trial has reported yet.")
    else:
        print(_node_table(nodes), "", _type_table(kinds), sep="\n")
    return 0


def _node_table(uses: list[Use]) -> str:
    headers = ("node", "type", "devices", "trials", "attempts")
    figures = ("hours", "worker hours", "GPU hours", "peak MB")
    rows = []
    for use in uses:
        devices = ", ".join(use.devices) or _UNKNOWN
        what = (use.node, use.kind or _UNKNOWN, devices, use.trials, use.attempts)
        rows.append([*what, *_hours(use), use.peak_memory_mb])
    return table(rows, (*headers, *figures))


def _type_table(uses: list[Use]) -> str:
    headers = ("type", "nodes", "trials", "hours", "worker hours", "GPU hours")
    rows = [[use.kind or _UNKNOWN, use.nodes, use.trials, *_hours(use)] for use in uses]
    return table(rows, headers)


def _hours(use: Use) -> list[float]:
    return [round(hours, 4) for hours in (use.hours, use.worker_hours, use.gpu_hours)]

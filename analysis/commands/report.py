"""`report`: everything about an experiment in one HTML file."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path

from analysis.commands.common import Subcommands, add_experiment
from analysis.results import Results
from model.cli import natural


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    report = commands.add_parser(
        "report",
        help="one HTML file about an experiment",
        description="Writes one HTML file about an experiment, finished or running, which any "
        "browser opens without a network: the answer and how sure it is, what mattered, curves, "
        "every trial, and how to repeat it.",
    )
    add_experiment(report)
    report.add_argument("--out", type=Path, metavar="FILE", help="default report.html beside it")
    report.add_argument(
        "--bootstraps",
        type=natural,
        default=100,
        metavar="N",
        help="samples for the intervals of importance, 0 for none (%(default)s)",
    )
    report.add_argument("--open", action="store_true", help="show it in a browser")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from analysis.report import write_report

    results = Results.open(arguments.experiment, arguments.storage)
    file = write_report(
        results,
        arguments.out,
        bootstraps=arguments.bootstraps,
        progress=sys.stderr.isatty(),
    )
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")
    if arguments.open and not webbrowser.open(file.resolve().as_uri()):
        print("no browser could be started; open the file yourself")
    return 0

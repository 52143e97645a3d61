"""The command line of the analysis: what a search found, and what to make of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from analysis.commands import (
    benchmark,
    compare,
    export,
    importance,
    models,
    nodes,
    overhead,
    profile,
    promote,
    ranking,
    report,
    results,
)
from model.cli import run_main

#: In the order of ``--help``.
_COMMANDS = (
    results,
    compare,
    importance,
    ranking,
    report,
    overhead,
    nodes,
    promote,
    models,
    profile,
    export,
    benchmark,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))

"""The command line of the search: check, run, go on, repeat, list; on a cluster from elsewhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from model.cli import run_main
from tuning.commands import (
    check,
    extend,
    fetch,
    job_status,
    job_stop,
    listing,
    logs,
    repeat,
    resume,
    retry,
    run,
    submit,
    sync,
    watch_preemption,
)

#: In the order of ``--help``.
_COMMANDS = (
    check,
    run,
    resume,
    extend,
    retry,
    repeat,
    sync,
    listing,
    logs,
    submit,
    job_status,
    job_stop,
    fetch,
    watch_preemption,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuning", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main))

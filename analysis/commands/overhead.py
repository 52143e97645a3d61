"""`overhead`: where the time of a search went."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from analysis.commands.common import Subcommands, add_experiment
from analysis.overhead import PARTS, Session, overhead, total
from analysis.results import Results
from model.cli import table


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    spent = commands.add_parser(
        "overhead",
        help="where the time of a search went",
        description="Prints where the time of a search went, worker second by worker second; of a "
        "running or interrupted one too.",
    )
    add_experiment(spent)
    spent.add_argument("--json", action="store_true", help="print JSON instead of a table")
    spent.set_defaults(run=_overhead)


def _overhead(arguments: argparse.Namespace) -> int:
    results = Results.open(arguments.experiment, arguments.storage)
    sessions = overhead(results)
    if arguments.json:
        found = [asdict(session) for session in sessions]
        print(json.dumps({"sessions": found, "total": total(sessions)}, indent=2))
    elif not sum(session.worker_seconds for session in sessions):
        print(f"{results.experiment.name}: no trials yet.")
    else:
        print(_overhead_table(sessions))
    return 0


def _overhead_table(sessions: Sequence[Session]) -> str:
    workers = sum(session.worker_seconds for session in sessions)
    trials = sum(session.trials for session in sessions)
    parts = {**total(sessions), "all": workers}
    what = {**PARTS, "all": "wall time times workers"}
    rows = [
        [part, round(s, 2), round(100 * s / workers, 1), round(s / trials, 3) if trials else None]
        for part, s in parts.items()
    ]
    rows = [[*row, what[str(row[0])]] for row in rows]
    headers = ("part", "worker seconds", "%", "a trial", "what")
    lines = [_session_line(i, session) for i, session in enumerate(sessions, start=1)]
    return "\n".join([*lines, "", table(rows, headers)])


def _session_line(number: int, session: Session) -> str:
    covered = {"running": ", up to the last row", "killed": ", known up to its last row"}
    first, each = session.first_step_seconds, session.overhead_per_trial
    return (
        f"session {number}: {session.state}{covered.get(session.state, '')}; {session.trials} "
        f"trials ended, {session.workers} workers, {session.wall_seconds:.1f} s; first training "
        f"step {'not reported' if first is None else f'after {first:.1f} s'}"
        + ("" if each is None else f"; overhead {each:.3f} s a trial")
    )

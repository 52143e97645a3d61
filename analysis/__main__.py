"""The command line of the analysis: results, best, overhead, promote."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.overhead import PARTS, Session, overhead, total
from analysis.registry import promote
from analysis.results import Results
from model.cli import positive, run_main, table
from model.files import atomic_write, storage_errors
from model.model_directory import verify


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    results = commands.add_parser(
        "results",
        help="table of the trials, the best first",
        description="Prints the trials of an experiment, the best first; of a running one too.",
    )
    _add_experiment(results)
    results.add_argument("--top", type=positive, help="only this many trials")
    results.add_argument("--csv", type=Path, metavar="FILE", help="write all columns as CSV")
    results.add_argument("--parquet", type=Path, metavar="FILE", help="write them as Parquet")
    results.add_argument("--history", action="store_true", help="the reports instead of the trials")
    results.set_defaults(run=_results)

    best = commands.add_parser(
        "best", help="the best trial", description="Prints the best trial, every field of it."
    )
    _add_experiment(best)
    best.set_defaults(run=_best)

    spent = commands.add_parser(
        "overhead",
        help="where the time of a search went",
        description="Prints where the time of a search went, worker second by worker second; of a "
        "running or interrupted one too.",
    )
    _add_experiment(spent)
    spent.add_argument("--json", action="store_true", help="print JSON instead of a table")
    spent.set_defaults(run=_overhead)

    promotion = commands.add_parser(
        "promote",
        help="put a trial's model into the registry",
        description="Copies the best trial's model into the registry, as the next version.",
    )
    _add_experiment(promotion)
    promotion.add_argument("--name", help="of the model; default the experiment's name")
    promotion.add_argument("--trial", type=int, help="promote this trial instead of the best")
    promotion.add_argument("--registry", default="registry", help="directory (%(default)s)")
    promotion.add_argument("--alias", default="production", help="alias to set (%(default)s)")
    promotion.set_defaults(run=_promote)
    return parser


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="the experiment's name or directory, or 'latest'")
    parser.add_argument("--storage", default="runs", help="directory of experiments (%(default)s)")


def _results(arguments: argparse.Namespace) -> int:
    results = Results.open(arguments.experiment, arguments.storage)
    frame = results.history if arguments.history else results.trials
    if arguments.csv:
        with storage_errors(arguments.csv):
            atomic_write(arguments.csv, frame.to_csv(index=False).encode())
        print(f"wrote {arguments.csv}")
    if arguments.parquet:
        with storage_errors(arguments.parquet):
            atomic_write(arguments.parquet, frame.to_parquet(index=False))
        print(f"wrote {arguments.parquet}")
    if not (arguments.csv or arguments.parquet):
        print(_frame(frame) if arguments.history else _table(results, arguments.top))
    return 0


def _table(results: Results, top: int | None) -> str:
    trials = results.trials
    if trials.empty:
        return f"{results.experiment.name}: no trials yet."
    objective = results.objective
    ranked = results.ranked()
    shown = ranked if len(ranked) == len(trials) else _with_unvalued(ranked, trials)
    columns = ["trial", "state", objective, "best_iteration", "iteration", "seconds"]
    columns += [*results.searched, "attempts"]
    shown = shown.head(top or len(shown))
    words = {"stopped": "stopped early"}
    states = ", ".join(f"{n} {words.get(s, s)}" for s, n in Counter(trials["state"]).items())
    lines = [_frame(shown[columns]), "", f"{len(trials)} trials: {states}"]
    if not ranked.empty and objective == "val_loss":
        lines.append(_against_unigram(results, float(ranked.iloc[0][objective])))
    lines += [f"note: skipped the torn last line of {file}" for file in results.torn]
    return "\n".join(lines)


def _with_unvalued(ranked: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([ranked, trials.drop(ranked.index)])


def _frame(frame: pd.DataFrame) -> str:
    columns = [frame[name].to_list() for name in frame]  # by column: a row has but one dtype
    rows = [[_plain(value) for value in row] for row in zip(*columns, strict=True)]
    return table(rows, [str(name) for name in frame])


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value


def _against_unigram(results: Results, best: float) -> str:
    unigram = results.experiment.manifest["data"]["unigram_val_loss"]
    side = "below" if best <= unigram else "above"
    return (
        f"best val_loss {best:.4f} nats a token, "
        f"{100 * abs(1 - best / unigram):.0f} % {side} a unigram model's {unigram:.4f}"
    )


def _best(arguments: argparse.Namespace) -> int:
    best = Results.open(arguments.experiment, arguments.storage).best()
    print(table([[name, _plain(value)] for name, value in best.items()], ("field", "value")))
    return 0


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


def _promote(arguments: argparse.Namespace) -> int:
    results = Results.open(arguments.experiment, arguments.storage)
    directory = promote(
        results,
        arguments.name,
        trial=arguments.trial,
        registry=arguments.registry,
        alias=arguments.alias,
    )
    name, version = directory.parent.name, directory.name
    model = verify(directory)
    metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    chosen = results.trials.set_index("trial").loc[model["lineage"]["trial"]]
    if chosen["state"] in ("running", "interrupted"):
        print(f"note: trial {model['lineage']['trial']} is {chosen['state']}; it may get better")
    print(
        f"trial {model['lineage']['trial']}, iteration {model['lineage']['iteration']}: "
        f"val_loss {metrics['val_loss']:.4f} over all of validation, test_loss "
        f"{metrics['test_loss']:.4f} (perplexity {metrics['test_perplexity']:.2f})\n"
        f"promoted to {directory} ({name}:{version}, {name}@{arguments.alias})\n"
        f"talk to it: python -m model chat {name}"
        + ("" if arguments.alias == "production" else f"@{arguments.alias}")
        + ("" if arguments.registry == "registry" else f" --registry {arguments.registry}")
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

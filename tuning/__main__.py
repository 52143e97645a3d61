"""The command line of the search: check, run, resume, list."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from model.cli import EXIT_INTERRUPTED, positive, run_main, table
from model.config import parse_assignments
from tuning.experiment import Experiment, list_experiments
from tuning.sweep_file import Sweep, load_sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuning", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check",
        help="check a sweep file",
        description="Reports everything wrong with a sweep file at once, or prints what it "
        "searches and a few samples.",
    )
    check.add_argument("file", help="sweep file (a W&B sweep configuration)")
    check.add_argument("--samples", type=positive, default=3, help="samples to print (%(default)s)")
    check.add_argument("--seed", type=int, default=0, help="seed of the samples (%(default)s)")
    _add_set(check)
    check.set_defaults(run=_check)

    run = commands.add_parser(
        "run",
        help="run a search",
        description="Runs a hyper-parameter search. Ctrl-C stops it cleanly; 'resume' goes on.",
        epilog="example: python -m tuning run configs/demo.yaml --trials 12 --name demo",
    )
    run.add_argument("file", help="sweep file (a W&B sweep configuration)")
    run.add_argument(
        "--trials", type=positive, help="how many; default the file's run_cap, else 25"
    )
    _add_resources(run)
    run.add_argument("--name", help="the experiment's name; default the sweep's name and the time")
    run.add_argument("--seed", type=int, default=0, help="seed of the searcher (%(default)s)")
    run.add_argument(
        "--max-failures",
        type=positive,
        default=3,
        help="give a trial up after this many failures without progress (%(default)s)",
    )
    run.add_argument(
        "--cpus-per-trial", type=_share, default=1.0, help="CPU cores of each trial (%(default)g)"
    )
    run.add_argument(
        "--gpus-per-trial",
        type=_share,
        default=0.0,
        help="GPUs of each trial; a fraction shares one (%(default)g)",
    )
    _add_set(run)
    run.set_defaults(run=_run)

    resume = commands.add_parser(
        "resume",
        help="go on with an interrupted search",
        description="Goes on with an interrupted search; nothing that finished is run again.",
    )
    resume.add_argument("name", help="the experiment's name or directory, or 'latest'")
    _add_resources(resume)
    resume.set_defaults(run=_resume)

    listing = commands.add_parser("list", help="list the experiments", description="Lists them.")
    listing.add_argument("--storage", default="runs", help="directory of experiments (%(default)s)")
    listing.set_defaults(run=_list)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="fix a field, whatever the file says (repeatable)",
    )


def _add_resources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrency", type=positive, help="trials at once; default what fits")
    parser.add_argument(
        "--address", help="existing Ray cluster ('auto', HOST:PORT); default starts Ray here"
    )
    parser.add_argument(
        "--storage",
        default="runs",
        help="directory of experiments, on a cluster one that every node reaches (%(default)s)",
    )
    parser.add_argument(
        "--wandb",
        choices=("offline", "online", "disabled"),
        help="Weights & Biases; default online if there is a key, else offline",
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, but got {text!r}")
    return value


def _check(arguments: argparse.Namespace) -> int:
    from model.data_source import open_or_prepare
    from tuning.launch import trial_count

    sweep = load_sweep(arguments.file).with_overrides(parse_assignments(arguments.assignments))
    for note in sweep.notes:
        print(f"note: {note}")
    print(
        f"{trial_count(sweep, None)} trials, method {sweep.method}, {sweep.goal} {sweep.metric}\n"
        f"early stopping: {_stopping(sweep)}"
    )
    print("\n".join(sweep.space.describe()))
    _print_samples(sweep, arguments.samples, arguments.seed)
    data = open_or_prepare(sweep.space.constants, progress=True)
    examples = ", ".join(f"{len(pairs)} {split}" for split, pairs in data.examples.items())
    print(f"data {data.settings['corpus']}: {examples} examples, {len(data.vocabulary)} words")
    return 0


def _stopping(sweep: Sweep) -> str:
    """Where early stopping judges the trials, in words."""
    if not sweep.rungs or sweep.early_terminate is None:
        return "none"
    rungs = ", ".join(map(str, sweep.rungs))
    reports = "" if sweep.reports is None else f" of {sweep.reports}"
    return (
        f"at reports {rungs}{reports}, the best 1/{sweep.early_terminate.eta:g} of the trials "
        f"there go on{' (strict)' if sweep.early_terminate.strict else ''}"
    )


def _print_samples(sweep: Sweep, count: int, seed: int) -> None:
    size = sweep.space.size()
    if size == 1:
        print("one configuration; nothing is searched")
        return
    print(f"{'infinitely many' if size is None else size} configurations; a few of them:")
    generator = random.Random(seed)
    few = size is not None and size <= count
    samples = (
        sweep.space.grid_points() if few else (sweep.space.sample(generator) for _ in range(count))
    )
    for sample in samples:
        print("  " + ", ".join(f"{name}={sample[name]}" for name in sweep.space.searched))


def _run(arguments: argparse.Namespace) -> int:
    from tuning.launch import run

    sweep = load_sweep(arguments.file).with_overrides(parse_assignments(arguments.assignments))
    for note in sweep.notes:
        print(f"note: {note}", file=sys.stderr)
    experiment = run(
        sweep,
        trials=arguments.trials,
        concurrency=arguments.concurrency,
        cpus_per_trial=arguments.cpus_per_trial,
        gpus_per_trial=arguments.gpus_per_trial,
        address=arguments.address,
        storage=arguments.storage,
        name=arguments.name,
        seed=arguments.seed,
        wandb=arguments.wandb,
        max_failures=arguments.max_failures,
        command=["python", "-m", "tuning", *sys.argv[1:]],
    )
    return _report_end(experiment, arguments)


def _resume(arguments: argparse.Namespace) -> int:
    from tuning.launch import resume

    experiment = resume(
        arguments.name,
        storage=arguments.storage,
        address=arguments.address,
        concurrency=arguments.concurrency,
        wandb=arguments.wandb,
    )
    return _report_end(experiment, arguments)


def _report_end(experiment: Experiment, arguments: argparse.Namespace) -> int:
    """Says how a search ended and what to do next."""
    from tuning.launch import is_complete
    from tuning.status import status

    option = "" if arguments.storage == "runs" else f" --storage {arguments.storage}"
    address = f" --address {arguments.address}" if arguments.address else ""
    if not is_complete(experiment):
        print(
            f"stopped; everything is kept in {experiment.path}\n"
            f"go on: python -m tuning resume {experiment.name}{option}{address}"
        )
        return EXIT_INTERRUPTED
    if status(experiment).best is None:
        print(
            f"finished without a result: {experiment.path}\n"
            f"why: python -m analysis results {experiment.name}{option} --csv trials.csv"
        )
        return 1
    if experiment.manifest["settings"]["wandb"] == "offline":
        print(f"W&B, offline; to send: wandb sync {experiment.path}/wandb/offline-run-*")
    print(
        f"finished: {experiment.path}\n"
        f"results: python -m analysis results {experiment.name}{option}\n"
        f"promote the best: python -m analysis promote {experiment.name}{option}"
    )
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from tuning.status import status_of

    paths = list_experiments(Path(arguments.storage))
    if not paths:
        print(f"{arguments.storage}: no experiments yet; start one with 'python -m tuning run'.")
        return 0
    rows = [status_of(path) for path in paths]
    headers = ("name", "state", "trials", "best", "created")
    print(table([[getattr(row, h) for h in headers] for row in rows], headers))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

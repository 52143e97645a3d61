"""`check`: what is wrong with a sweep file, or what it searches."""

from __future__ import annotations

import argparse
import random

from model.cli import positive
from model.config import parse_assignments
from tuning.commands.common import Subcommands, add_choices, add_set
from tuning.sweeps.sweep_file import Sweep, load_sweep


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    check = commands.add_parser(
        "check",
        help="check a sweep file",
        description="Reports everything wrong with a sweep file at once, or prints what it "
        "searches and a few samples.",
    )
    check.add_argument("file", help="sweep file (a W&B sweep configuration)")
    check.add_argument("--samples", type=positive, default=3, help="samples to print (%(default)s)")
    check.add_argument("--seed", type=int, default=0, help="seed of the samples (%(default)s)")
    add_choices(check)
    add_set(check)
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from model.data_source import open_or_prepare
    from tuning.choices import with_choices
    from tuning.launch import trial_count
    from tuning.scheduling import make_scheduler
    from tuning.searchers import make_searcher

    sweep = load_sweep(arguments.file).with_overrides(parse_assignments(arguments.assignments))
    sweep = with_choices(sweep, arguments.searcher, arguments.scheduler)
    searcher = make_searcher(sweep, arguments.seed)
    scheduler = make_scheduler(sweep, arguments.seed)
    for note in sweep.notes:
        print(f"note: {note}")
    method = f"method {sweep.method}" + (f" ({searcher.name})" if sweep.searcher else "")
    print(
        f"{trial_count(sweep, None)} trials, {method}, {sweep.goal} {sweep.metric}"
        + ("" if sweep.target is None else f", ends at {sweep.target:g}")
        + f"\nearly stopping: {scheduler.describe()}"
        + ("" if sweep.reports is None else f"\neach trial makes {sweep.reports} reports")
    )
    print("\n".join(sweep.space.describe()))
    _print_samples(sweep, arguments.samples, arguments.seed)
    data = open_or_prepare(sweep.space.constants, progress=True)
    examples = ", ".join(f"{len(pairs)} {split}" for split, pairs in data.examples.items())
    print(f"data {data.settings['corpus']}: {examples} examples, {len(data.vocabulary)} words")
    return 0


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

"""`check`: what is wrong with a sweep file, or what it searches."""

from __future__ import annotations

import argparse
import random

from model.cli import positive
from model.config import parse_assignments
from model.wording import plural
from tuning.commands.common import Subcommands, add_choices, add_set
from tuning.spaces.search_space import SearchSpace
from tuning.sweeps.sweep_file import Sweep


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
    from tuning.choices import load_chosen, with_choices
    from tuning.launch import trial_count
    from tuning.scheduling import make_scheduler
    from tuning.searchers import make_searcher

    overrides = parse_assignments(arguments.assignments)
    sweep = load_chosen(arguments.file, arguments.searcher, overrides)
    sweep = with_choices(sweep, arguments.searcher, arguments.scheduler)
    searcher = make_searcher(sweep, arguments.seed)
    scheduler = make_scheduler(sweep, arguments.seed)
    for note in sweep.notes:
        print(f"note: {note}")
    method = f"method {sweep.method}" + (f" ({searcher.name})" if sweep.searcher else "")
    print(
        f"{plural(trial_count(sweep, None), 'trial')}, {method}, "
        + ", ".join(map(str, sweep.objectives))
        + f"\nearly stopping: {scheduler.describe()}"
        + ("" if sweep.reports is None else f"\neach trial makes {plural(sweep.reports, 'report')}")
    )
    print("\n".join(sweep.space.describe()))
    _print_samples(sweep, arguments.samples, arguments.seed)
    data = open_or_prepare(sweep.space.constants, progress=True)
    examples = ", ".join(f"{len(pairs)} {split}" for split, pairs in data.examples.items())
    print(f"data {data.settings['corpus']}: {examples} examples, {len(data.vocabulary)} words")
    return 0


def _print_samples(sweep: Sweep, count: int, seed: int) -> None:
    space = sweep.space
    if space.size() == 1:
        print("one configuration; nothing is searched")
        return
    few = space.count is not None and space.count <= count
    print(f"{_configurations(space)}{'' if few else '; a few of them'}:")
    generator = random.Random(seed)
    samples = space.grid_points() if few else (space.sample(generator) for _ in range(count))
    for sample in samples:
        print("  " + ", ".join(f"{name}={sample[name]}" for name in sweep.space.searched))


def _configurations(space: SearchSpace) -> str:
    """How many there are, as far as they can be counted."""
    size = space.size()
    if size is None:
        return "infinitely many configurations"
    if space.count is None:
        return f"at most {plural(size, 'configuration')}"
    return plural(space.count, "configuration")

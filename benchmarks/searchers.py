"""Every searcher on test functions with known optima, side by side.

    python benchmarks/searchers.py --seeds 20 --trials 50

    branin       two real fields, three equal optima (Dixon and Szego 1978)
    hartmann     three real fields, one optimum among four bowls (Hartmann 1972)
    mixed        a learning rate (logarithmic), four clips in order and two optimizers

The figure is the regret: how far the best of all trials is from the optimum, the median over the
seeds; and beside it with how many of the seeds a searcher ended better than random search did. One
worker, no early stopping, no noise. The time is of a proposal, in ms of one processor, the mean
over all trials of all seeds.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import add_output_options, make_parser, shown, write_json  # noqa: E402
from model.cli import positive, run_main  # noqa: E402
from tuning.distributions import Categorical, LogUniform, Ordinal, Uniform  # noqa: E402
from tuning.searchers import SEARCHERS, Outcome  # noqa: E402
from tuning.spaces.search_space import SearchSpace  # noqa: E402

NAMES = tuple(name for name in SEARCHERS if name != "grid")
Point = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """A function to minimise.

    Attributes:
        space: Over which fields.
        loss: Of a configuration.
        optimum: The least loss.
    """

    space: SearchSpace
    loss: Callable[[Point], float]
    optimum: float


def branin(point: Point) -> float:
    x, y = 15 * point["dropout"] - 5, 15 * point["teacher_forcing_ratio"]
    valley = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


#: Weight, centre and steepness of each bowl of Hartmann's function.
BOWLS = (
    (1.0, (0.3689, 0.1170, 0.2673), (3.0, 10, 30)),
    (1.2, (0.4699, 0.4387, 0.7470), (0.1, 10, 35)),
    (3.0, (0.1091, 0.8732, 0.5547), (3.0, 10, 30)),
    (3.2, (0.0381, 0.5743, 0.8828), (0.1, 10, 35)),
)


def hartmann(point: Point) -> float:
    place = list(point.values())
    return -sum(
        weight
        * math.exp(-sum(s * (x - c) ** 2 for x, c, s in zip(place, centre, steepness, strict=True)))
        for weight, centre, steepness in BOWLS
    )


def mixed(point: Point) -> float:
    """Least at a rate of 5e-4, a clip of 50 and adam; sgd wants a rate thirty times as high."""
    adam = point["optimizer"] == "adam"
    rate = math.log10(point["learning_rate"]) - math.log10(5e-4 if adam else 1.5e-2)
    clip = {10: 0.3, 25: 0.1, 50: 0.0, 100: 0.2}[point["clip"]]
    return rate**2 + clip + (0.0 if adam else 0.2)


UNIT = Uniform(0, 1)
PROBLEMS = {
    "branin": Problem(
        SearchSpace({"dropout": UNIT, "teacher_forcing_ratio": UNIT}), branin, 0.39788736
    ),
    "hartmann": Problem(
        SearchSpace({"dropout": UNIT, "clip": UNIT, "teacher_forcing_ratio": UNIT}),
        hartmann,
        -3.86278215,
    ),
    "mixed": Problem(
        SearchSpace(
            {
                "learning_rate": LogUniform(1e-5, 1e-1),
                "clip": Ordinal((10, 25, 50, 100)),
                "optimizer": Categorical(("adam", "sgd")),
            }
        ),
        mixed,
        0.0,
    ),
}


def regret(name: str, problem: Problem, seed: int, trials: int) -> tuple[float, float]:
    """The best trial's distance from the optimum, and the processor's seconds for a proposal."""
    searcher = SEARCHERS[name](problem.space, seed)
    best, seconds = math.inf, 0.0
    for trial in range(trials):
        begun = time.process_time()
        configuration = searcher.ask()
        seconds += time.process_time() - begun
        assert configuration is not None
        loss = problem.loss(configuration)
        searcher.tell(trial, Outcome("finished", loss, 1))
        best = min(best, loss)
    return best - problem.optimum, seconds / trials


def measure(seeds: int, trials: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Regrets and times of each searcher on each problem."""
    found: dict[str, dict[str, Any]] = {}
    for title, problem in PROBLEMS.items():
        found[title] = {}
        for name in names:
            runs = [regret(name, problem, seed, trials) for seed in range(seeds)]
            found[title][name] = {
                "regrets": [run[0] for run in runs],
                "ms": 1000 * statistics.fmean(run[1] for run in runs),
            }
    return found


def rows_of(found: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    """The table: a row for each searcher on each problem."""
    rows = []
    for title, by_name in found.items():
        drawn = by_name["random"]["regrets"]
        for name, figures in by_name.items():
            wins = sum(a < b for a, b in zip(figures["regrets"], drawn, strict=True))
            median = f"{statistics.median(figures['regrets']):.2g}"
            better = "" if name == "random" else f"{wins} of {len(drawn)}"
            rows.append([title, name, median, better, f"{figures['ms']:.2g}"])
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison."""
    parser: argparse.ArgumentParser = make_parser(__doc__ or "")
    parser.add_argument("--seeds", type=positive, default=20, help="of each searcher (%(default)s)")
    parser.add_argument("--trials", type=positive, default=50, help="of each search (%(default)s)")
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    SEARCHERS["gp"](PROBLEMS["mixed"].space, startup_trials=1)  # loads Optuna before it is timed
    found = measure(arguments.seeds, arguments.trials, NAMES)
    headers = ("function", "searcher", "median regret", "better than random", "ms a proposal")
    print(shown(rows_of(found), headers, arguments.markdown))
    write_json(arguments.json, {"trials": arguments.trials, "functions": found})
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

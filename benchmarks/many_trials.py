"""A thousand trivial trials: the driver's memory and time, trial by trial, in one picture.

    python benchmarks/many_trials.py --json many.json --out docs/images

Sides, each in a process of its own:

    random, sobol, ...   the coordinator with that searcher and a real journal, without Ray: every
                         trial makes one report of a made-up loss
    ray                  a whole search by random draws: real trials of one training iteration of a
                         tiny model through Ray Tune, with journal and Optuna study
    ray-tpe, ray-gp      the same by a searcher that learns
    ray-wandb            the first one with Weights & Biases offline

A Gaussian process, whose time grows with the cube of the trials, gets 300 of them at most.

For each side, of trials in the order in which they ended:

    first, last          milliseconds a trial of the first and of the last hundred (a quarter, where
                         there are fewer than 400), not counting the very first trial, with which
                         libraries and workers are loaded; the target is a ratio of at most 1.5
    kB a trial           by how much the resident set of the driver grows with each trial beyond the
                         first hundred: the slope of a line through it; the target is at most 100.
                         (When the last trial has ended pyarrow is loaded to compact the journal,
                         once and of one size; that is not counted.)
    kept                 without Ray: what of it stays when the C library gives back the memory that
                         it holds in reserve for the next large arrays

Searchers that learn fit a model of all trials for each proposal. Without Ray a trial costs nothing
else, and the ratio is that of two fits: of the fifty trials that there are on average in the first
hundred, and of 950.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import (  # noqa: E402
    add_output_options,
    environment,
    make_parser,
    run_alone,
    shown,
    write_json,
)
from model.cli import positive, run_main  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEARCHERS = ("random", "grid", "sobol", "tpe", "cmaes", "gp")
#: Searcher and mode of Weights & Biases of the searches through Ray.
RAY = {
    "ray": {"searcher": "random", "wandb": "disabled"},
    "ray-tpe": {"searcher": "tpe", "wandb": "disabled"},
    "ray-gp": {"searcher": "gp", "wandb": "disabled"},
    "ray-wandb": {"searcher": "random", "wandb": "offline"},
}
SIDES = (*SEARCHERS, *RAY)
#: The most trials of a side.
MOST = {"gp": 300, "ray-gp": 300}
#: The targets.
RATIO, KILOBYTES = 1.5, 100.0
_WINDOW = 100
_SAMPLE_SECONDS = 0.2
_DOTS_PER_INCH = 130

_RANGES: dict[str, Any] = {
    "learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2},
    "clip": {"min": 1.0, "max": 100.0},
    "decoder_learning_ratio": {"min": 1.0, "max": 10.0},
    "teacher_forcing_ratio": {"min": 0.0, "max": 1.0},
    "optimizer": {"values": ["adam", "sgd"]},
}
_TINY = {
    **{"corpus": "everyday", "hidden_size": 16, "encoder_layers": 1, "decoder_layers": 1},
    **{"iterations": 1, "report_every": 1, "val_examples": 64, "threads": 1, "device": "cpu"},
}


# Measuring: what runs in a side's process


def resident() -> int:
    """The resident set of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def kept() -> int:
    """The resident set when the C library (glibc) holds nothing in reserve, in bytes."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


def without_ray(searcher: str, trials: int) -> dict[str, Any]:
    """Trials by the coordinator alone.

    Returns:
        ``ends``: seconds after the start at which each trial ended; ``memory``: pairs of trials
        ended and resident bytes; ``kept``: two such pairs with nothing in reserve, of the first
        trials and of all.
    """
    from tuning.coordinator import Coordinator
    from tuning.journal import Journal
    from tuning.objective import Objective
    from tuning.scheduling import FifoScheduler
    from tuning.searchers import make_searcher
    from tuning.sweeps.sweep_file import parse_sweep

    parameters = _grid(trials) if searcher == "grid" else _RANGES
    sweep = parse_sweep({"method": "random", "parameters": parameters})
    ends: list[float] = []
    memory: list[list[float]] = []
    kept_of: list[list[float]] = []
    with tempfile.TemporaryDirectory() as directory:
        coordinator = Coordinator(
            make_searcher(sweep, 0, searcher),
            FifoScheduler(),
            Journal(Path(directory) / "journal"),
            [Objective("val_loss", "minimize")],
            trials=trials,
        )
        started = time.perf_counter()
        while (assignment := coordinator.next_assignment()) is not None:
            loss = made_up_loss(assignment.config)
            coordinator.report(assignment.trial, 1, {"val_loss": loss}, state="finished")
            ends.append(time.perf_counter() - started)
            memory.append([len(ends), resident()])
            # It takes time, and the next trial more: after the first trials, whose time is taken.
            if len(ends) in (window_of(trials) + 1, trials):
                kept_of.append([len(ends), kept()])
        coordinator.journal.close()
    return {"ends": ends, "memory": memory, "kept": kept_of}


def _grid(trials: int) -> dict[str, Any]:
    """At least so many points, in three fields."""
    side = int(np.ceil(trials ** (1 / 3)))
    names = ("learning_rate", "clip", "decoder_learning_ratio")
    return {name: {"values": [float(i + 1) for i in range(side)]} for name in names}


def made_up_loss(config: Mapping[str, Any]) -> float:
    """Smooth, with its least value somewhere inside of the space."""
    rate = np.log10(config["learning_rate"]) + 3.5
    return float(rate**2 + (config["clip"] / 50 - 1) ** 2 + config["decoder_learning_ratio"] / 10)


def with_ray(searcher: str, wandb: str, trials: int) -> dict[str, Any]:
    """A whole search; see `without_ray`, but that ``kept`` is empty.

    Args:
        searcher: As in `tuning.run`.
        wandb: Likewise.
        trials: How many.
    """
    import tuning
    from tuning.journal import read_journal
    from tuning.sweeps.sweep_file import parse_sweep

    fixed = {name: {"value": value} for name, value in _TINY.items()}
    sweep = parse_sweep({"method": "random", "parameters": {**fixed, **_RANGES}})
    samples: list[tuple[float, int]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append((time.time(), resident()))

    thread = threading.Thread(target=sample, daemon=True)
    with tempfile.TemporaryDirectory() as storage:
        started = time.time()
        thread.start()
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
            experiment = tuning.run(
                sweep, searcher=searcher, trials=trials, storage=storage, wandb=wandb
            )
        ended.set()
        thread.join()
        rows = read_journal(experiment.journal).rows
    times = [row.time for row in rows if row.state == "finished"]
    assert len(times) == trials, "every trial finishes"
    during = [(moment, size) for moment, size in samples if times[0] < moment <= times[-1]]
    counts = np.searchsorted(times, [moment for moment, _ in during])
    memory = [[int(n), size] for n, (_, size) in zip(counts, during, strict=True)]
    return {"ends": [moment - started for moment in times], "memory": memory, "kept": []}


# Figures


def figures(
    ends: Sequence[float], memory: Sequence[Sequence[float]], kept: Sequence[Sequence[float]] = ()
) -> dict[str, float]:
    """A side's figures; see the module's description.

    Args:
        ends: Seconds at which the trials ended, rising.
        memory: Pairs of trials ended and resident bytes.
        kept: Two such pairs, or none; then that figure is NaN.
    """
    window = window_of(len(ends))
    first = (ends[window] - ends[0]) / window
    last = (ends[-1] - ends[-1 - window]) / window
    return {
        "first_milliseconds": 1e3 * first,
        "last_milliseconds": 1e3 * last,
        "ratio": last / first,
        "kilobytes_a_trial": _slope([pair for pair in memory if pair[0] >= window]),
        "kept_kilobytes_a_trial": _slope(kept),
    }


def _slope(memory: Sequence[Sequence[float]]) -> float:
    """Kilobytes a trial, by a line through the pairs; NaN where there is none."""
    if len(memory) < 2:
        return math.nan
    trials, sizes = np.array(memory, dtype=float).T
    return float(np.polyfit(trials, sizes, 1)[0]) / 1e3


def window_of(trials: int) -> int:
    """How many trials are the first ones, and the last ones."""
    return max(1, min(_WINDOW, trials // 4))


def measure(
    sides: Sequence[str], trials: int, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Measures one side after another.

    Args:
        sides: Of `SIDES`.
        trials: Of each, up to its `MOST`.
        save: Hears of the results after each side.
    """
    results: dict[str, Any] = {
        "benchmark": "many_trials",
        "trials": trials,
        "environment": environment("cpu", 1),
        "sides": {},
    }
    for side in sides:
        some = min(trials, MOST.get(side, trials))
        print(f"{side}: {some} trials", file=sys.stderr, flush=True)
        if side in RAY:
            found = run_alone(side, with_ray, **RAY[side], trials=some)
        else:
            found = run_alone(side, without_ray, searcher=side, trials=some)
        measured = {name: found[name] for name in ("ends", "memory", "kept")}
        results["sides"][side] = {**figures(**measured), **found}
        save(results)
    return results


def report(results: Mapping[str, Any], markdown: bool = False) -> str:
    """The results as a table."""
    rows = [
        (
            side,
            len(found["ends"]),
            round(found["first_milliseconds"], 2),
            round(found["last_milliseconds"], 2),
            round(found["ratio"], 2),
            "yes" if found["ratio"] <= RATIO else "no",
            round(found["kilobytes_a_trial"], 1),
            "yes" if found["kilobytes_a_trial"] <= KILOBYTES else "no",
            round(found["kept_kilobytes_a_trial"], 1),
        )
        for side, found in results["sides"].items()
    ]
    headers = ["side", "trials", "first ms", "last ms", "ratio", f"<= {RATIO}", "kB a trial"]
    return shown(rows, [*headers, f"<= {KILOBYTES:g}", "kept"], markdown)


# Drawing


def draw(results: Mapping[str, Any], directory: Path) -> Path:
    """Draws time and memory of all sides over the trials; returns the file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    figure, (times, memory) = pyplot.subplots(1, 2, figsize=(12.8, 4.8), layout="constrained")
    for side, found in results["sides"].items():
        _draw_side(times, memory, side, found)
    times.set(title="Time of a trial (running mean)", xlabel="trial", ylabel="ms", yscale="log")
    times.yaxis.set_major_formatter("{x:g}")
    memory.set(title="Growth of the driver's resident set", xlabel="trials ended", ylabel="MB")
    at = np.array([0, results["trials"]])
    memory.plot(at, at * KILOBYTES / 1e3, "k:", label=f"{KILOBYTES:g} kB a trial")
    for axis in (times, memory):
        axis.grid(True, color="#dddddd")
        axis.set_axisbelow(True)
    figure.legend(*memory.get_legend_handles_labels(), loc="outside right center", frameon=False)
    file = directory / "many-trials.png"
    figure.savefig(file, dpi=_DOTS_PER_INCH, facecolor="white")
    pyplot.close(figure)
    return file


def _draw_side(times: Axes, memory: Axes, side: str, found: Mapping[str, Any]) -> None:
    seconds = np.array([later - earlier for earlier, later in pairwise(found["ends"])])
    width = max(1, window_of(len(found["ends"])) // 4)
    mean = np.convolve(seconds, np.ones(width) / width, mode="valid")
    style = {"linestyle": "-" if side in RAY else "--", "label": side}
    times.plot(np.arange(len(mean)) + width, 1e3 * mean, **style)
    sizes = np.array(found["memory"], dtype=float).reshape(-1, 2)
    memory.plot(sizes[:, 0], (sizes[:, 1] - sizes[:1, 1]) / 1e6, **style)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, draws and prints."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--trials", type=positive, default=1000, help="of each side (%(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE", help="which sides"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="draw many-trials.png there")
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    results = measure(
        arguments.only, arguments.trials, save=lambda found: write_json(arguments.json, found)
    )
    print(report(results, arguments.markdown))
    if arguments.out is not None:
        print(f"\n{draw(results, arguments.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

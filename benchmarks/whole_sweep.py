"""A whole sweep of the published space, against the baseline trial by trial and stock Ray Tune.

    python benchmarks/whole_sweep.py --data data/cornell.safetensors --json sweep.json

Every side trains the same configurations, drawn once by this project's random search from the space
of configs/cornell_random.yaml, on the same batches, and validates on the same examples (nats a
token, teacher-forced) at every report. Each side is a fresh process; its time begins with the
process and ends with the last result. Sides:

    ours         tuning.run, W&B offline, every trial to its end
    stopping     the same with the early stopping of configs/cornell_random.yaml
    baseline     one trial after another in one process, torch's own number of threads
    stock        stock Ray Tune: the baseline in a function trainable, Ray's W&B callback offline,
                 a checkpoint at every report, as Ray's documentation shows

With "clip: 0" the published code trains nothing; here it means no clipping, for the baseline too.
Ratios are given twice: as measured, and with the baseline's time for validation taken off, which
the published code does not spend. A search knows its best trial when it has ended, so a search with
early stopping is also timed to its first validation loss within 0.5 % of the full search's best.

Results are saved side by side: the same command with the same --json goes on after an interruption.
At the default size a round of all sides takes about an hour on two cores.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import (  # noqa: E402
    BenchmarkError,
    Progress,
    add_output_options,
    duration,
    environment,
    make_parser,
    shown,
    write_json,
)
from model.cli import EXIT_INTERRUPTED, positive, run_main  # noqa: E402

SIDES = ("ours", "stopping", "baseline", "stock")
#: The sweep file whose space and early stopping are used.
SWEEP = ROOT / "configs" / "cornell_random.yaml"
#: A loss counts as good as the best up to this much above it.
NEAR = 0.005
#: What must be reached, and what would be good: (our side, the other): (floor, aim).
FLOORS = {
    ("ours", "baseline"): (2.3, None),
    ("ours", "stock"): (1.7, None),
    ("stopping", "baseline"): (5.0, 8.0),
    ("stopping", "stock"): (4.0, 6.0),
}
_STOP_SECONDS = 60.0
#: File descriptor; what a side prints is progress, and standard output is for the results.
_STANDARD_ERROR = 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured.

    Attributes:
        data: A prepared data set or a corpus.
        trials: Of the search.
        hidden_size: H.
        batch_size: B.
        iterations: Of a trial.
        report_every: Iterations between reports.
        val_examples: Evaluated at each report.
        precision: Of ours.
        concurrency: Trials at once, of ours and of stock Ray Tune.
        seed: Of the searcher.
        min_iter: First rung of early stopping, in reports. The sweep file's own, 2, would leave one
            rung in trials of five reports.
        eta: Its reduction factor; None as in the sweep file.
    """

    data: str
    trials: int = 24
    hidden_size: int = 128
    batch_size: int = 64
    iterations: int = 500
    report_every: int = 100
    val_examples: int = 1024
    precision: str = "auto"
    concurrency: int = 2
    seed: int = 0
    min_iter: int = 1
    eta: float | None = None

    def sweep(self, *, stopping: bool) -> dict[str, Any]:
        """The sweep as a mapping, with or without early stopping."""
        from tuning.sweeps.sweep_file import load_sweep

        sweep = load_sweep(SWEEP).to_mapping()
        fields: dict[str, Any] = {
            "corpus": self.data,
            **{name: getattr(self, name) for name in ("hidden_size", "batch_size", "iterations")},
            **{name: getattr(self, name) for name in ("report_every", "val_examples")},
            "device": "cpu",
            "precision": self.precision,
        }
        for name in ("max_length", "min_count"):  # decided when the data were prepared
            sweep["parameters"].pop(name, None)
        sweep["parameters"] |= {name: {"value": value} for name, value in fields.items()}
        asked = {name: getattr(self, name) for name in ("min_iter", "eta")}
        sweep["early_terminate"] |= {k: v for k, v in asked.items() if v is not None}
        if not stopping:
            del sweep["early_terminate"]
        return sweep

    def configurations(self) -> list[dict[str, Any]]:
        """The configurations of all trials, in the order of the search."""
        from tuning.searchers import make_searcher
        from tuning.sweeps.sweep_file import parse_sweep

        searcher = make_searcher(parse_sweep(self.sweep(stopping=False)), self.seed)
        return [dict(searcher.ask() or {}) for _ in range(self.trials)]


# What a side returns


def outcome(
    started: float,
    *,
    wall: float,
    first_step: float,
    reports: Sequence[Mapping[str, Any]],
    validation_seconds: float = 0.0,
) -> dict[str, Any]:
    """A side's result.

    Args:
        started: When the side's process began, in seconds since 1970.
        wall: Seconds from there to the last result.
        first_step: Time of the first training step, in seconds since 1970.
        reports: Mappings of ``time`` (seconds since 1970), ``trial``, ``iteration``, ``val_loss``.
        validation_seconds: Of the wall time, spent on validation.
    """
    history = sorted(
        [round(r["time"] - started, 3), r["trial"], r["iteration"], r["val_loss"]] for r in reports
    )
    trials = sorted({trial for _, trial, _, _ in history})
    best = {t: lowest(row[3] for row in history if row[1] == t) for t in trials}
    return {
        "wall": wall,
        "validation_seconds": validation_seconds,
        "wall_without_validation": wall - validation_seconds,
        "first_step": first_step - started,
        "best_val_loss": lowest(best.values()),
        "trials": [
            {
                "trial": trial,
                "best_val_loss": best[trial],
                "iterations": max(row[2] for row in history if row[1] == trial),
            }
            for trial in trials
        ],
        "reports": history,
    }


def lowest(values: Any) -> float | None:
    """The smallest figure, or None where there is none; what is not a number is passed over."""
    return min((v for v in values if v is not None and v == v), default=None)  # noqa: PLR0124


# The sides


def run_ours(settings: Settings, started: float, *, stopping: bool) -> dict[str, Any]:
    """One search of this project."""
    import tuning
    from analysis import Results
    from tuning.sweeps.sweep_file import parse_sweep

    with tempfile.TemporaryDirectory() as storage:
        experiment = tuning.run(
            parse_sweep(settings.sweep(stopping=stopping), "sweep"),
            trials=settings.trials,
            concurrency=settings.concurrency,
            storage=storage,
            seed=settings.seed,
            wandb="offline",
        )
        wall = time.time() - started
        rows = Results.open(experiment.path).rows
    proposed = [row.config for row in rows if row.kind == "proposed"]
    if proposed != settings.configurations():
        raise BenchmarkError("the search did not try the configurations of the other sides.")
    reports = [row for row in rows if row.kind == "report" and "val_loss" in row.metrics]
    # A little late: the report also waited to be written. That only adds to our time.
    first = min(r.time - r.metrics["train_seconds"] - r.metrics["eval_seconds"] for r in reports)
    return outcome(
        started,
        wall=wall,
        first_step=first,
        reports=[
            {
                "time": row.time,
                "trial": row.trial,
                "iteration": row.iteration,
                "val_loss": row.metrics["val_loss"],
            }
            for row in reports
        ],
    ) | {"states": [row.state for row in rows if row.kind == "report" and row.state != "running"]}


def train_baseline(
    data: Any, config: dict[str, Any], on_report: Callable[[Any, dict[str, Any]], None]
) -> float:
    """Trains the baseline on one configuration.

    Args:
        data: The prepared data set.
        config: As of `model.config.Config`.
        on_report: Called at every report with the baseline and ``time``, ``iteration``,
            ``val_loss`` and ``validation_seconds``.

    Returns:
        When the first step began, in seconds since 1970.
    """
    import torch

    from benchmarks.baseline import build_batch
    from benchmarks.same_work import (
        PairStream,
        make_baseline,
        validation_batches,
        validation_loss,
    )

    torch.manual_seed(config.get("seed", 0))
    model = make_baseline(config, len(data.vocabulary))
    stream = PairStream(data, config["batch_size"], config.get("seed", 0))
    held_out = validation_batches(data, config["val_examples"])
    first_step = time.time()
    for iteration in range(1, config["iterations"] + 1):
        model.train(build_batch(stream.at(iteration - 1)))
        if iteration % config["report_every"] == 0 or iteration == config["iterations"]:
            began = time.perf_counter()
            loss = validation_loss(model, held_out)
            report = {"val_loss": loss, "validation_seconds": time.perf_counter() - began}
            on_report(model, report | {"iteration": iteration, "time": time.time()})
    return first_step


def run_baseline(settings: Settings, started: float) -> dict[str, Any]:
    """The trials one after another in this process."""
    from benchmarks.same_work import open_data

    data = open_data(settings.data)
    reports: list[dict[str, Any]] = []
    first_steps = []
    progress = Progress("baseline, trials", settings.trials)
    for trial, config in enumerate(settings.configurations()):

        def on_report(_: Any, report: dict[str, Any], trial: int = trial) -> None:
            reports.append(report | {"trial": trial})

        first_steps.append(train_baseline(data, config, on_report))
        progress.step()
    wall = time.time() - started
    progress.close()
    return outcome(
        started,
        wall=wall,
        first_step=first_steps[0],
        reports=reports,
        validation_seconds=sum(r["validation_seconds"] for r in reports),
    )


def run_stock(settings: Settings, started: float) -> dict[str, Any]:
    """The trials by stock Ray Tune with its own Weights & Biases callback."""
    os.environ |= {"WANDB_MODE": "offline", "RAY_USAGE_STATS_ENABLED": "0", "WANDB_SILENT": "true"}
    import ray
    from ray import tune
    from ray.air.integrations.wandb import WandbLoggerCallback

    from model.data_source import open_or_prepare

    data = open_or_prepare({"corpus": settings.data}).as_bytes()
    configurations = settings.configurations()

    def train(config: dict[str, Any], data: bytes | None = None) -> None:
        import tempfile
        import time
        from pathlib import Path

        import torch
        from ray import tune

        from benchmarks.whole_sweep import train_baseline
        from model.prepared_data import PreparedData

        assert data is not None
        began = time.time()

        def report(model: Any, metrics: dict[str, Any]) -> None:
            state = {
                "en": model.encoder.state_dict(),
                "de": model.decoder.state_dict(),
                "en_opt": model.encoder_optimizer.state_dict(),
                "de_opt": model.decoder_optimizer.state_dict(),
            }
            with tempfile.TemporaryDirectory() as directory:
                torch.save(state, Path(directory) / "checkpoint.pt")
                tune.report(
                    {**metrics, "trial": config["trial"]["number"], "began": began},
                    checkpoint=tune.Checkpoint.from_directory(directory),
                )

        train_baseline(PreparedData.from_buffer(data), config["trial"]["config"], report)

    class Ended(tune.Callback):  # type: ignore[misc]
        """Says how many trials have ended."""

        def __init__(self) -> None:
            self.progress = Progress("stock Ray Tune, trials", settings.trials)

        def on_trial_complete(self, *arguments: Any, **options: Any) -> None:
            self.progress.step()

    # Our own searches turn Ray Tune's loggers off, in whatever process they run in.
    os.environ.pop("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", None)
    with tempfile.TemporaryDirectory() as storage:
        os.chdir(storage)
        modules = [str(ROOT / name) for name in ("model", "benchmarks")]
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"py_modules": modules, "excludes": ["__pycache__"]},
        )
        trials = [{"number": i, "config": config} for i, config in enumerate(configurations)]
        ended = Ended()
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(train, data=data), {"cpu": 1}),
            param_space={"trial": tune.grid_search(trials)},
            tune_config=tune.TuneConfig(max_concurrent_trials=settings.concurrency),
            run_config=tune.RunConfig(
                storage_path=storage,
                verbose=0,
                callbacks=[WandbLoggerCallback(project="whole-sweep"), ended],
            ),
        )
        found = tuner.fit()
        ray.shutdown()
        wall = time.time() - started
        if found.errors:
            raise BenchmarkError(f"{len(found.errors)} trials of stock Ray Tune failed: {found[0]}")
        names = ["time", "trial", "iteration", "val_loss", "validation_seconds", "began"]
        reports = [
            row for result in found for row in result.metrics_dataframe[names].to_dict("records")
        ]
        os.chdir(ROOT)
        ended.progress.close()
    return outcome(
        started,
        wall=wall,
        first_step=min(r["began"] for r in reports),
        reports=reports,
        validation_seconds=sum(r["validation_seconds"] for r in reports) / settings.concurrency,
    )


def run_side(side: str, settings: Settings, started: float) -> dict[str, Any]:
    """One side, in this process."""
    if side in ("ours", "stopping"):
        return run_ours(settings, started, stopping=side == "stopping")
    return {"baseline": run_baseline, "stock": run_stock}[side](settings, started)


def in_fresh_process(side: str, settings: Settings) -> dict[str, Any]:
    """One side by itself, so that nothing is warm for the next.

    Raises:
        BenchmarkError: where it failed; what it said is on standard error.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "result.json"
        job = {"side": side, "settings": asdict(settings), "started": time.time(), "out": str(out)}
        process = subprocess.Popen(
            [sys.executable, __file__, "--job", json.dumps(job)], stdout=_STANDARD_ERROR, cwd=ROOT
        )
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the side has heard it too, and puts its house in order
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise
        if status == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if status != 0:
            raise BenchmarkError(f"{side}: failed with exit status {status}; see above.")
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result


# What it comes to


def time_to(reports: Sequence[Sequence[Any]], target: float) -> float | None:
    """Seconds to the first report whose validation loss is at most the target, or None."""
    return lowest(seconds for seconds, _, _, loss in reports if loss is not None and loss <= target)


def summary(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Compares the sides.

    Args:
        runs: For each side its results, as of `outcome`, one for each round.

    Returns:
        ``sides``: medians over the rounds, and ``seconds_to_near_best``, the time to a validation
        loss within `NEAR` of the full search's best (by ours where it ran, else by any side);
        ``ratios``: for each pair of `FLOORS` of which both ran, the ratio of wall times
        (``ratio``), the same with the other's validation taken off, with early stopping also that
        to the near-best loss (``to_near_best``, and ``both_to_near_best`` where the other is timed
        to the same loss too), with ``floor``, ``aim`` and whether the floor is ``met``.
    """
    full = [
        r["best_val_loss"] for side in ("ours", "baseline", "stock") for r in runs.get(side, ())
    ]
    best = lowest(r["best_val_loss"] for r in runs.get("ours", ())) or lowest(full)
    sides = {side: _side_summary(found, best) for side, found in runs.items() if found}
    ratios = [
        _pair_summary(ours, other, sides)
        for ours, other in FLOORS
        if ours in sides and other in sides
    ]
    return {"full_search_best": best, "sides": sides, "ratios": ratios}


def _side_summary(runs: Sequence[Mapping[str, Any]], best: float | None) -> dict[str, Any]:
    names = ("wall", "wall_without_validation", "first_step")
    found: dict[str, Any] = {n: statistics.median(r[n] for r in runs) for n in names}
    found["best_val_loss"] = lowest(r["best_val_loss"] for r in runs)
    found["iterations"] = sum(t["iterations"] for t in runs[0]["trials"])
    times = [] if best is None else [time_to(r["reports"], best * (1 + NEAR)) for r in runs]
    reached = [seconds for seconds in times if seconds is not None]
    # A round that never came near has no time; then the side has none.
    all_reached = bool(times) and len(reached) == len(times)
    found["seconds_to_near_best"] = statistics.median(reached) if all_reached else None
    return found


def _pair_summary(ours: str, other: str, sides: Mapping[str, Any]) -> dict[str, Any]:
    floor, aim = FLOORS[ours, other]
    own, theirs = sides[ours], sides[other]
    near, theirs_near = own["seconds_to_near_best"], theirs["seconds_to_near_best"]
    found = {
        "sides": [other, ours],
        "ratio": theirs["wall"] / own["wall"],
        "ratio_without_validation": theirs["wall_without_validation"] / own["wall"],
        "floor": floor,
        "aim": aim,
    }
    judged: float | None = found["ratio"]
    if ours == "stopping":
        judged = None if near is None else theirs["wall"] / near
        found["to_near_best"] = judged
        found["to_near_best_without_validation"] = (
            None if near is None else theirs["wall_without_validation"] / near
        )
        found["both_to_near_best"] = (
            None if near is None or theirs_near is None else theirs_near / near
        )
    found["met"] = judged is not None and judged >= floor
    found["aim_met"] = None if aim is None else judged is not None and judged >= aim
    return found


def report(results: dict[str, Any], markdown: bool = False) -> str:
    """The results as text: a table of the sides, and one of the ratios."""
    found = results["summary"]
    sides = [
        (
            side,
            round(s["wall"], 1),
            round(s["wall_without_validation"], 1),
            round(s["first_step"], 1),
            s["iterations"],
            s["best_val_loss"],
            s["seconds_to_near_best"],
        )
        for side, s in found["sides"].items()
    ]
    headers = ["side", "wall s", "without its validation s", "first step after s", "iterations"]
    headers += ("best val_loss", f"s to within {NEAR:.1%} of best")
    ratios = [
        (
            " / ".join(pair["sides"]),
            _figure(pair["ratio"]),
            _figure(pair["ratio_without_validation"]),
            _figure(pair.get("to_near_best")),
            _figure(pair.get("to_near_best_without_validation")),
            _figure(pair.get("both_to_near_best")),
            f"{pair['floor']:g}: {'met' if pair['met'] else 'NOT met'}",
            "-" if pair["aim"] is None else f"{pair['aim']:g}: {_yes(pair['aim_met'])}",
        )
        for pair in found["ratios"]
    ]
    ratio_headers = ["ratio", "wall", "without validation", f"to within {NEAR:.1%}"]
    ratio_headers += ("without validation", "both to there", "floor", "aim")
    settings, where = results["settings"], results["environment"]
    return (
        f"{settings['trials']} trials, hidden {settings['hidden_size']}, "
        f"{settings['iterations']} iterations, {settings['concurrency']} at a time; "
        f"{where['processor']}, {where['cores']} cores, torch {where['torch']}\n\n"
        f"{shown(sides, headers, markdown)}\n\n"
        + (f"{shown(ratios, ratio_headers, markdown)}\n" if ratios else "")
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _yes(value: bool | None) -> str:
    return "met" if value else "not met"


# The command


def load_results(path: Path | None, settings: Settings) -> dict[str, Any]:
    """The results in a file so far, or none yet.

    Raises:
        BenchmarkError: where the file is of other settings, or of something else.
    """
    fresh = {
        "benchmark": "whole_sweep",
        "settings": asdict(settings),
        "environment": environment(),
        "runs": {},
    }
    if path is None or not path.exists():
        return fresh
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        before = found["settings"] if found["benchmark"] == "whole_sweep" else None
    except (OSError, ValueError, KeyError, TypeError):
        before = None
    if not isinstance(before, dict):
        raise BenchmarkError(f"{path}: is there already, and is no result of this benchmark.")
    differing = [
        f"{name} was {before.get(name)!r}, is {value!r}"
        for name, value in asdict(settings).items()
        if before.get(name) != value
    ]
    if differing:
        raise BenchmarkError(
            f"{path}: holds results of other settings ({', '.join(differing)}); name another file."
        )
    return found


def run(settings: Settings, sides: Sequence[str], repeats: int, path: Path | None) -> Any:
    """Runs what is missing, one side after another, and saves after each.

    Args:
        settings: What is measured.
        sides: Of `SIDES`.
        repeats: Rounds of all sides.
        path: Where results are kept, or None.
    """
    results = load_results(path, settings)
    runs: dict[str, list[dict[str, Any]]] = results["runs"]
    missing = [
        (repeat, side)
        for repeat in range(repeats)
        for side in sides
        if repeat >= len(runs.get(side, ()))
    ]
    for number, (repeat, side) in enumerate(missing):
        left = _left(runs, [s for _, s in missing[number:]])
        print(f"{side}, round {repeat + 1} of {repeats}{left}", file=sys.stderr, flush=True)
        runs.setdefault(side, []).append(in_fresh_process(side, settings))
        results["summary"] = summary(runs)
        write_json(path, results)
        print(f"{side}: {runs[side][-1]['wall']:.1f} s", file=sys.stderr, flush=True)
    results["summary"] = summary(runs)
    return results


def _left(runs: Mapping[str, Sequence[Mapping[str, Any]]], sides: Sequence[str]) -> str:
    """How long these sides take, where each has run before."""
    if any(not runs.get(side) for side in sides):
        return ""
    seconds = sum(statistics.median(run["wall"] for run in runs[side]) for side in sides)
    return f", about {duration(seconds)} left"


def _run_job(text: str) -> int:
    """One side, in the process of `in_fresh_process`."""
    job = json.loads(text)
    result = run_side(job["side"], Settings(**job["settings"]), job["started"])
    write_json(Path(job["out"]), result)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sides, each in a fresh process, and prints what it comes to."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--job"]:
        return _run_job(argv[1])
    parser = make_parser(__doc__ or "")
    parser.add_argument("--data", required=True, help="prepared data set, or a corpus")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="SIDE")
    parser.add_argument("--repeats", type=positive, default=1, help="rounds (%(default)s)")
    defaults = Settings(data="")
    numbers = ("trials", "hidden_size", "batch_size", "iterations", "report_every")
    for name in (*numbers, "val_examples", "concurrency"):
        default = getattr(defaults, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=positive, default=default, help="(%(default)s)")
    parser.add_argument("--precision", default="auto", help="of ours (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the search (%(default)s)")
    parser.add_argument(
        "--min-iter",
        type=positive,
        default=defaults.min_iter,
        help="first report that early stopping judges (%(default)s)",
    )
    parser.add_argument("--eta", type=float, help="its reduction factor (sweep file's)")
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    data = arguments.data
    if Path(data).exists():
        data = str(Path(data).resolve())  # the sides work in directories of their own
    names = ("precision", "seed", "min_iter", "eta", "val_examples", "concurrency")
    settings = Settings(data=data, **{n: getattr(arguments, n) for n in (*numbers, *names)})
    settings.configurations()  # complains now, not after an hour
    results = run(settings, arguments.sides, arguments.repeats, arguments.json)
    print(report(results, arguments.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

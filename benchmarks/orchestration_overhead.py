"""Orchestration overhead per trial: ours, and stock Ray Tune's beside it, in one run.

    overhead = (wall time - time to the first step - total step time / concurrency) / trials

Both sides run trials of one training step of the same model on the same data, save a checkpoint
of about 1 MB, and log to Weights & Biases offline, two at a time. "Step time" is the training
iteration and the evaluation alone: building the model, saving, reporting and starting the next
trial all count as overhead. Stock Ray Tune is a function trainable with Ray's own
``WandbLoggerCallback``, each trial in a fresh process, as its documentation shows.

    python benchmarks/orchestration_overhead.py [--repeats 5] [--trials 50] [--stock-trials 8]

The two sides alternate; medians are printed, and written as JSON with ``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FIELDS = {
    "corpus": "everyday",
    "hidden_size": 40,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "iterations": 1,
    "report_every": 1,
    "val_examples": 64,
    "threads": 1,
    "device": "cpu",
}
CONCURRENCY = 2


def overhead(wall: float, first_step: float, steps: list[float]) -> float:
    """Seconds a trial beyond the steps themselves; see the module's description."""
    return (wall - first_step - sum(steps) / CONCURRENCY) / len(steps)


def ours(trials: int) -> dict[str, float]:
    """One search of this project."""
    import tuning
    from analysis import Results
    from tuning.sweeps.sweep_file import parse_sweep

    parameters: dict[str, Any] = {name: {"value": value} for name, value in FIELDS.items()}
    parameters["learning_rate"] = {"min": 0.0001, "max": 0.001}
    sweep = parse_sweep({"method": "random", "parameters": parameters})
    with tempfile.TemporaryDirectory() as storage:
        started = time.time()
        experiment = tuning.run(
            sweep, trials=trials, concurrency=CONCURRENCY, storage=storage, wandb="offline"
        )
        wall = time.time() - started
        results = Results.open(experiment.path)
        reports = [row for row in results.rows if row.kind == "report"]
        assert len(reports) == trials, "every trial makes one report"
        # A little late: the report also waited to be written. That only adds to our overhead.
        first_step = min(r.time - r.metrics["step_seconds"] for r in reports) - started
        steps = [r.metrics["train_seconds"] + r.metrics["eval_seconds"] for r in reports]
        sizes = [p.stat().st_size for p in (experiment.path / "trials").rglob("best.pt")]
    return {
        "overhead": overhead(wall, first_step, steps),
        "first_step": first_step,
        "wall": wall,
        "weights_bytes": statistics.mean(sizes),
    }


def stock(trials: int) -> dict[str, float]:
    """The same trials by a function trainable with Ray's own Weights & Biases callback."""
    os.environ |= {"WANDB_MODE": "offline", "RAY_USAGE_STATS_ENABLED": "0", "WANDB_SILENT": "true"}
    import ray
    from ray import tune
    from ray.air.integrations.wandb import WandbLoggerCallback

    from model.config import Config
    from model.data_source import open_or_prepare

    sys.path.insert(0, str(ROOT))
    data = open_or_prepare({"corpus": "everyday"}).as_bytes()

    def train(config: dict[str, Any], data: bytes | None = None) -> None:
        import tempfile
        import time
        from pathlib import Path

        import torch

        from model.prepared_data import PreparedData
        from model.training import Trainer

        torch.set_num_threads(1)
        assert data is not None
        trainer = Trainer(PreparedData.from_buffer(data), Config.from_mapping(config))
        step_started = time.time()
        report = trainer.train_interval()
        metrics = dict(report.metrics) | {"step_started": step_started}
        with tempfile.TemporaryDirectory() as directory:
            trainer.save(Path(directory) / "checkpoint.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(directory))

    with tempfile.TemporaryDirectory() as storage:
        os.chdir(storage)
        started = time.time()
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"py_modules": [str(ROOT / "model")]},
        )
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(train, data=data), {"cpu": 1}),
            param_space=FIELDS | {"learning_rate": tune.uniform(0.0001, 0.001)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=CONCURRENCY),
            run_config=tune.RunConfig(
                storage_path=storage,
                verbose=0,
                callbacks=[WandbLoggerCallback(project="overhead")],
            ),
        )
        results = [result.metrics for result in tuner.fit()]
        wall = time.time() - started
        ray.shutdown()
    steps = [m["train_seconds"] + m["eval_seconds"] for m in results]
    first_step = min(m["step_started"] for m in results) - started
    return {"overhead": overhead(wall, first_step, steps), "first_step": first_step, "wall": wall}


def in_fresh_process(side: str, trials: int) -> dict[str, float]:
    """Runs one side by itself, so that nothing is warm for the next."""
    result = subprocess.run(
        [sys.executable, __file__, "--side", side, "--trials", str(trials)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise SystemExit(f"{side} failed:\n{result.stdout}{result.stderr}")
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Alternates the two sides and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (%(default)s)")
    parser.add_argument("--trials", type=int, default=50, help="trials of a run (%(default)s)")
    parser.add_argument(
        "--stock-trials", type=int, default=8, help="trials of a stock run; 0 leaves it out"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--side", choices=("ours", "stock"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side = ours if arguments.side == "ours" else stock
        print("\n" + json.dumps(side(arguments.trials)))
        return
    counts = {"ours": arguments.trials, "stock": arguments.stock_trials}
    runs: dict[str, list[dict[str, float]]] = {side: [] for side, n in counts.items() if n}
    for repeat in range(arguments.repeats):
        for side, found in runs.items():
            found.append(in_fresh_process(side, counts[side]))
            print(f"run {repeat + 1}, {side}: {found[-1]['overhead']:.3f} s a trial", flush=True)
    medians = {s: statistics.median(r["overhead"] for r in found) for s, found in runs.items()}
    for side, found in runs.items():
        first = statistics.median(r["first_step"] for r in found)
        print(
            f"{side}: median overhead {medians[side]:.3f} s a trial over {len(found)} runs of "
            f"{counts[side]} trials; first step after {first:.1f} s"
        )
    if "stock" in medians:
        print(f"ratio stock / ours: {medians['stock'] / medians['ours']:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": runs, "medians": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()

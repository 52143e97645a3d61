"""Searches that were never run: journals written at once, with times, workers and every state."""

import json
import math
import random
from pathlib import Path

from tests.analysis.conftest import make_experiment
from tuning.experiment import Experiment
from tuning.journal import Row

#: A parameter of every kind; the learning rate decides most, then the optimizer.
SWEEP = {
    "method": "random",
    "parameters": {
        "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "clip": {"values": [0, 10, 25, 50]},
        "optimizer": {"values": ["sgd", "adam"]},
        "teacher_forcing_ratio": {"min": 0.5, "max": 1.0},
        "decoder_learning_ratio": {"values": [1, 3, 5]},
        "hidden_size": {"min": 32, "max": 256},
        "corpus": {"value": "tiny"},
        "report_every": {"value": 50},
        "iterations": {"value": 5000},
    },
    "early_terminate": {"type": "hyperband", "min_iter": 1},
}
#: Seconds since 1970 at which every search here began.
BEGUN = 1_750_000_000.0


def search(
    storage: Path,
    data,
    *,
    trials: int = 30,
    reports: int = 20,
    workers: int = 4,
    states: str | tuple[str, ...] = "mixed",
    metric: dict | None = None,
    name: str = "synthetic",
    reason: str = "ValueError: on purpose",
    ended: bool = True,
    sweep: dict = SWEEP,
) -> Experiment:
    """Writes an experiment.

    `states` is ``mixed``, the state of every trial, or states that the trials take in turn. A
    failed trial with an odd number never reports.
    """
    sweep = sweep | ({"metric": metric} if metric else {})
    experiment = make_experiment(storage, data, sweep, name, trials=trials)
    rows = _rows(experiment, trials, reports, workers, states, reason, ended)
    rows.sort(key=lambda row: row.time)
    experiment.journal.mkdir()
    lines = [json.dumps({"format": 1})]
    lines += [Row(**(vars(row) | {"seq": seq})).to_json() for seq, row in enumerate(rows)]
    (experiment.journal / "000001.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return experiment


def _rows(experiment, trials, reports, workers, states, reason, ended):
    rng = random.Random(0)
    space = experiment.sweep().space
    free = [BEGUN + 5.0] * workers
    rows = [Row(kind="session", time=BEGUN, metrics={"startup_seconds": 4.0})]
    for trial in range(trials):
        worker = min(range(workers), key=free.__getitem__)
        config = space.sample(rng)
        drawn = rng.choices(_STATES, _WEIGHTS)[0]
        turns = (drawn,) if states == "mixed" else (states,) if isinstance(states, str) else states
        state = turns[trial % len(turns)]
        made, end = _of_trial(
            trial, config, state, reports, free[worker], f"node{worker}:{100 + worker}", rng, reason
        )
        rows += made
        free[worker] = end + 0.5
    if ended:
        end = max(row.time for row in rows) + 1
        rows.append(Row(kind="ended", time=end, reason="complete"))
    return rows


_STATES = ("finished", "stopped", "diverged", "failed")
_WEIGHTS = (45, 45, 5, 5)


def _of_trial(trial, config, state, reports, time, worker, rng, reason):
    said = {"trial": trial, "attempt": 1}
    rows = [Row(kind="proposed", time=time, config=config, state="running", **said)]
    made = {"finished": reports, "running": max(1, reports // 2)}.get(state, max(1, reports // 3))
    made = 0 if state == "failed" and trial % 2 else made
    for report in range(1, made + 1):
        time += rng.uniform(0.8, 1.2)
        last = report == made and state not in ("running", "failed")
        value = (
            float("nan") if last and state == "diverged" else _value(config, report / reports, rng)
        )
        rows.append(
            Row(
                kind="report",
                time=round(time, 3),
                iteration=50 * report,
                config=config,
                metrics=_metrics(value, 50 * report),
                values=[value],
                decision="stop" if last else "continue",
                state=state if last else "running",
                worker=worker,
                **said,
            )
        )
    if state == "failed":
        rows.append(
            Row(kind="failed", time=round(time + 0.2, 3), state="failed", reason=reason, **said)
        )
    return rows, time


def _value(config, done, rng):
    """A loss that falls and then rises a little: best near a learning rate of 1e-3, with adam."""
    last = 2 + 0.6 * (math.log10(config.get("learning_rate", 1e-3)) + 3) ** 2
    last += 0.25 * (config.get("optimizer") == "sgd")
    last += 0.1 * config.get("teacher_forcing_ratio", 0)
    return last + 3 * math.exp(-6 * done) + 0.15 * max(0.0, done - 0.7) + rng.gauss(0, 0.01)


def _metrics(value, iteration):
    """Both metrics that can be minimised and one that can be maximised move together."""
    known = math.isfinite(value)
    return {
        "iteration": iteration,
        "val_loss": value,
        "val_perplexity": math.exp(value),
        "val_token_accuracy": 1 / (1 + value) if known else value,
        "loss": 0.9 * value,
        "step_seconds": 0.7,
        "train_seconds": 0.5,
        "eval_seconds": 0.1,
        "build_seconds": 0.0,
        "save_seconds": 0.02,
    }

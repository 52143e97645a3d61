"""Experiments whose objective is a known function of the configuration, made without training."""

import json
import math
import random

from tests.analysis.conftest import make_experiment
from tuning.journal import FORMAT, Row

#: A log range, categories, whole numbers, and a range on which nothing depends.
PARAMETERS = {
    "teacher_forcing_ratio": {"min": 0.0, "max": 1.0},
    "clip": {"min": 0, "max": 100},
    "optimizer": {"values": ["adam", "sgd"]},
    "learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
}
#: From the most important to the least.
ORDER = ["learning_rate", "optimizer", "clip", "teacher_forcing_ratio"]


def planted(config):
    """10 a + 3 b + 1 c + 0 d, with a, c and d even in [0, 1], and b a coin."""
    a = math.log10(config["learning_rate"] / 1e-5) / 4
    b = config["optimizer"] == "sgd"
    return 10 * a + 3 * b + 1 * config["clip"] / 100


#: The variance of a uniform variable in [0, 1] is 1/12, and that of a coin 1/4.
VARIANCES = {
    "learning_rate": 100 / 12,
    "optimizer": 9 / 4,
    "clip": 1 / 12,
    "teacher_forcing_ratio": 0.0,
}


def write_journal(experiment, rows):
    """Writes rows as one segment, a second apart."""
    experiment.journal.mkdir()
    numbered = [
        Row(**{**vars(row), "seq": seq, "time": 1_700_000_000.0 + seq})
        for seq, row in enumerate(rows)
    ]
    lines = [json.dumps({"format": FORMAT}), *(row.to_json() for row in numbered)]
    (experiment.journal / "000001.jsonl").write_text("\n".join(lines) + "\n")
    return experiment


def rows_of_trial(trial, config, curve, state="finished", metric="val_loss"):
    """A trial that reports a curve, {iteration: (objective, training loss)}."""
    yield Row(kind="proposed", trial=trial, attempt=1, config=config, state="running")
    last = max(curve, default=None)
    for iteration, (value, loss) in curve.items():
        metrics = {"iteration": iteration, metric: value, "loss": loss}
        yield Row(
            kind="report",
            trial=trial,
            attempt=1,
            iteration=iteration,
            config=config,
            metrics={name: figure for name, figure in metrics.items() if figure is not None},
            decision="continue" if iteration < last else "stop",
            state="running" if iteration < last else state,
            worker="host:1",
        )


def make_planted(
    storage,
    data,
    function=planted,
    *,
    trials=100,
    noise=0.0,
    seed=0,
    parameters=PARAMETERS,
    name="planted",
    metric=None,
    method="random",
    order=None,
):
    """An experiment of trials that report the function's value, and finish at once."""
    sweep = {"method": method, "parameters": {**parameters, "corpus": {"value": "tiny"}}}
    sweep |= {"metric": metric} if metric else {}
    experiment = make_experiment(storage, data, sweep, name, trials=trials)
    rng, space = random.Random(seed), experiment.sweep().space
    configs = [space.sample(rng) for _ in range(trials)]
    values = [function(config) + rng.gauss(0.0, noise) for config in configs]
    rows = [
        row
        for trial, i in enumerate(order or range(trials))
        for row in rows_of_trial(
            trial,
            configs[i],
            {4: (values[i], values[i])},
            metric=metric["name"] if metric else "val_loss",
        )
    ]
    return write_journal(experiment, rows)

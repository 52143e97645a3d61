"""Confirming a choice: the best configurations trained again with fresh seeds, and compared.

The best value of a search is the luckiest of many. Training the few best configurations again,
each with the same few seeds that the search never saw, says what they give on average and how
sure that is. Everything is judged on the whole validation split; the test split is not read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from analysis.promotion.fresh_runs import DIRECTORY, FreshRun, configuration_key, figures
from analysis.promotion.run_processes import train_runs
from analysis.promotion.verdict import Confirmation, Confirmed, SoFar, compared, so_far
from analysis.results import Results
from model.batching import Batches
from model.checkpoint import read_checkpoint
from model.config import Config, DataConfig
from model.errors import CheckpointError, ConfigurationError, ExperimentError
from model.evaluation import evaluate
from model.files import storage_errors
from model.machine import usable_cores
from model.prepared_data import PreparedData
from model.randomness import stream_seed
from model.seq2seq import Seq2Seq
from tuning.coordinator import Objective
from tuning.storage.place import AnyPath, place


@dataclass(frozen=True)
class Candidate:
    """One of the best configurations of a search.

    Attributes:
        config: The configuration, with the seed of its best trial.
        trials: Trials that had it, the best first; more where one was drawn twice.
        seeds: The seeds that they had.
        state: State of the best of them.
        searched: The objective at that trial's best report, as the search ranked it.
        weights: Its best weights, or None where they are gone.
    """

    config: Config
    trials: tuple[int, ...]
    seeds: frozenset[int]
    state: str
    searched: float
    weights: AnyPath | None


def confirm(
    results: Results,
    *,
    seeds: int = 3,
    top: int = 3,
    workers: int | None = None,
    progress: bool = False,
) -> Confirmation:
    """Trains the best configurations of a search again with fresh seeds, and compares them.

    Each run is a fresh process, so that a script must call this below
    ``if __name__ == "__main__":``. Finished runs are kept under ``confirmation/`` of the
    experiment and not made again, whether the call is repeated, was killed, or asks for more.

    Args:
        results: Of the experiment, which may still be running.
        seeds: Runs of each configuration, at least 2.
        top: How many configurations; one that several trials had counts once.
        workers: Runs at a time; None for one a core, or one alone where a GPU trains.
        progress: Show a bar on standard error.

    Raises:
        ConfigurationError: where a number is too small.
        ExperimentError: where no trial has a result, another command confirms the same
            experiment, or a run failed.
    """
    _check(seeds=(seeds, 2), top=(top, 1), workers=(1 if workers is None else workers, 1))
    experiment, data = results.experiment, results.experiment.data()
    chosen = candidates(results, data, top)
    runs = [_fresh_runs(results, candidate, seeds) for candidate in chosen]
    workers = min(workers or _default_workers(chosen), sum(map(len, runs)))
    directory = experiment.path / DIRECTORY
    with storage_errors(directory):
        directory.mkdir(exist_ok=True)
    with replace(experiment, path=directory).lock():  # the same lock, of this directory
        each = [run for of_one in runs for run in of_one]
        threads = max(1, usable_cores() // workers)
        train_runs(each, workers=workers, threads=threads, progress=progress)
    found = [
        replace(
            _confirmed(candidate, of_one),
            searched_whole=_on_the_whole_split(candidate, data, experiment.objective),
        )
        for candidate, of_one in zip(chosen, runs, strict=True)
    ]
    assert all(len(each.outcomes) == seeds for each in found)
    return compared(found, experiment.objective, seeds, experiment.path)


def _check(**numbers: tuple[int, int]) -> None:
    problems = [
        f"{name}: must be a whole number of at least {low}, but got {value!r}."
        for name, (value, low) in numbers.items()
        if type(value) is not int or value < low
    ]
    if problems:
        raise ConfigurationError("confirm", problems)


def _confirmed(candidate: Candidate, runs: Sequence[FreshRun]) -> Confirmed:
    """What those runs that have finished say of a configuration."""
    found = [outcome for run in runs if (outcome := run.outcome()) is not None]
    return Confirmed.of(candidate.trials, candidate.state, candidate.searched, found)


def confirmed_so_far(results: Results) -> SoFar:
    """What confirmations of an experiment have left, judged as `confirm` does; trains nothing.

    Neither the data nor weights are read. What is damaged is left out, and said.

    Raises:
        ExperimentError: where no trial's configuration is known.
        ConfigurationError: where a trial's configuration is not valid.
    """
    if results.ranked().empty or not (results.experiment.path / DIRECTORY).is_dir():
        return SoFar()
    found, problems = [], list[str]()
    about = results.experiment.manifest["data"]
    for candidate in _candidates(results, about["settings"], about["fingerprint"]):
        readable = []
        for run in _begun_runs(results, candidate):
            try:
                run.outcome()
                readable.append(run)
            except ExperimentError as error:
                problems.append(str(error))
        if readable:
            found.append(_confirmed(candidate, readable))
    return so_far(found, results.experiment.objective, problems)


def _begun_runs(results: Results, candidate: Candidate) -> list[FreshRun]:
    """The fresh runs of a configuration that have a directory, by their seeds."""
    some = _run(results, candidate, candidate.config.training.seed)
    home = some.files.directory.parent
    names = [path.name for path in home.iterdir()] if home.is_dir() else []
    seeds = sorted(int(name) for name in names if name.isdecimal())
    return [_run(results, candidate, seed) for seed in seeds]


def candidates(results: Results, data: PreparedData, top: int) -> list[Candidate]:
    """The best configurations, the best first; trials with the same one are one candidate.

    Raises:
        ExperimentError: where no trial has a value yet.
    """
    return _candidates(results, data.settings, data.fingerprint, top)


def _candidates(
    results: Results, settings: Mapping[str, Any], fingerprint: str, top: int | None = None
) -> list[Candidate]:
    """The same from what is known of the data; all of them where `top` is None."""
    results.best()  # raises
    configs = _configurations(results)
    found: dict[str, Candidate] = {}
    for row in results.ranked().to_dict("records"):
        trial = int(row["trial"])
        if trial not in configs:  # its row of the journal is damaged
            continue
        config = Config.from_mapping(configs[trial], f"trial {trial}")
        config = replace(config, data=DataConfig(**settings))
        key = configuration_key(config, fingerprint)
        if key in found:
            known = found[key]
            seeds = known.seeds | {config.training.seed}
            found[key] = replace(known, trials=(*known.trials, trial), seeds=seeds)
        elif top is None or len(found) < top:
            weights = place(row["weights"]) if isinstance(row["weights"], str) else None
            searched = float(row[results.objective])
            seeds = frozenset({config.training.seed})
            state = str(row["state"])
            found[key] = Candidate(config, (trial,), seeds, state, searched, weights)
    if not found:
        raise ExperimentError(f"{results.experiment.place}: no trial's configuration is known.")
    return list(found.values())


def _configurations(results: Results) -> Mapping[int, Mapping[str, Any]]:
    """The configuration of each trial as it was proposed, where it is known."""
    if results.journal is not None:
        return results.journal.configs
    rows = [row for row in results.rows if row.kind == "proposed"]
    return {row.trial: row.config for row in rows if row.trial is not None}


def fresh_seeds(experiment_seed: int, count: int, taken: Collection[int]) -> list[int]:
    """The first seeds of an experiment's own stream, 31 bits each, without those taken."""
    found: list[int] = []
    number = 0
    while len(found) < count:
        seed = stream_seed(experiment_seed, "confirmation", number) >> 32
        if seed not in taken and seed not in found:
            found.append(seed)
        number += 1
    return found


def _fresh_runs(results: Results, candidate: Candidate, seeds: int) -> list[FreshRun]:
    """The same seeds for every configuration: they start alike and see the same batches."""
    fresh = fresh_seeds(results.experiment.manifest["seed"], seeds, candidate.seeds)
    return [_run(results, candidate, seed) for seed in fresh]


def _run(results: Results, candidate: Candidate, seed: int) -> FreshRun:
    experiment, config = results.experiment, candidate.config
    return FreshRun(
        experiment.path,
        replace(config, training=replace(config.training, seed=seed)),
        experiment.objective,
        experiment.manifest["data"]["fingerprint"],
    )


def _default_workers(chosen: Sequence[Candidate]) -> int:
    on_gpu = any(candidate.config.training.device != "cpu" for candidate in chosen)
    return 1 if on_gpu and torch.cuda.is_available() else usable_cores()


def _on_the_whole_split(
    candidate: Candidate, data: PreparedData, objective: Objective
) -> float | None:
    """The search's weights judged as the fresh ones are: its reports used a part of the split."""
    if candidate.weights is None:
        return None
    try:
        weights = read_checkpoint(candidate.weights)["weights"]
    except CheckpointError:
        return None
    model = Seq2Seq(candidate.config.model, len(data.vocabulary))
    model.load_state_dict(weights)
    value: float | None = figures("val", evaluate(model, Batches(data, "validation")))[
        objective.name
    ]
    return value

"""Promoting a trial: from an experiment into the registry of immutable model versions."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.results import Results
from model.batching import Batches
from model.checkpoint import read_checkpoint
from model.config import Config, DataConfig
from model.errors import ExperimentError, ModelDirectoryError
from model.evaluation import Evaluation, evaluate
from model.files import atomic_write, storage_errors
from model.model_directory import (
    FORMAT,
    canonical_json,
    read_aliases,
    valid_name,
    versions,
    write_model_directory,
)
from model.prepared_data import PreparedData
from model.seq2seq import Seq2Seq


def promote(
    results: Results | str | Path,
    name: str | None = None,
    *,
    trial: int | None = None,
    registry: str | Path = "registry",
    alias: str = "production",
) -> Path:
    """Copies a trial's best weights into the registry as the next version of a model.

    The whole validation split and the test split are evaluated here, once; reports during the
    search used a subset of the first and nothing of the second.

    Args:
        results: The experiment's results, or its name or directory.
        name: Of the model; None takes the experiment's name.
        trial: Which trial; None takes the best.
        registry: Directory of the named models.
        alias: Name that will stand for the new version.

    Returns:
        The new model directory, ``registry/NAME/VERSION``.

    Raises:
        ExperimentError: where there is no such trial, or it has no weights.
        CheckpointError: where its weights are damaged.
        ModelDirectoryError: where the name cannot be one.
        StorageError: where the registry cannot be written.
    """
    if not isinstance(results, Results):
        results = Results.open(results)
    name = name or results.experiment.name
    for text, what in ((name, "a model"), (alias, "an alias")):
        if not valid_name(text):
            raise ModelDirectoryError(
                f"{text!r}: cannot name {what}; use letters, digits and ._- only, 200 at most."
            )
    chosen = _trial_row(results, trial)
    checkpoint = read_checkpoint(Path(chosen["weights"]))
    data = results.experiment.data()
    config = Config.from_mapping(checkpoint["config"], str(chosen["weights"]))
    config = replace(config, data=DataConfig(**data.settings))  # what the data were made with
    model = Seq2Seq(config.model, len(data.vocabulary))
    model.load_state_dict(checkpoint["weights"])
    contents = {
        "weights": checkpoint["weights"],
        "config": config,
        "vocabulary": data.vocabulary,
        "metrics": _metrics(model, data, results),
        "lineage": _lineage(results, int(chosen["trial"]), checkpoint),
    }
    home = Path(registry) / name
    with _made(home):
        directory = _write_next_version(home, **contents)
    set_alias(home, alias, int(directory.name))
    return directory


def _trial_row(results: Results, trial: int | None) -> Mapping[str, Any]:
    if trial is None:
        row = results.best()
    else:
        trials = results.trials
        rows = trials[trials["trial"] == trial]
        if rows.empty:
            known = f"trials 0 to {len(trials) - 1}" if len(trials) else "no trials yet"
            raise ExperimentError(
                f"{results.experiment.path}: no trial {trial}; there are {known}."
            )
        row = rows.iloc[0]
    if not isinstance(row["weights"], str):
        raise ExperimentError(
            f"{results.experiment.path}: trial {row['trial']} ({row['state']}) has no weights."
        )
    return {str(column): value for column, value in row.items()}


def _metrics(model: Seq2Seq, data: PreparedData, results: Results) -> dict[str, Any]:
    validation = evaluate(model, Batches(data, "validation"))
    test = evaluate(model, Batches(data, "test"))
    unigram = results.experiment.manifest["data"]["unigram_val_loss"]
    return _figures("val", validation) | _figures("test", test) | {"unigram_val_loss": unigram}


def _figures(prefix: str, evaluation: Evaluation) -> dict[str, Any]:
    return {
        f"{prefix}_loss": evaluation.loss,
        f"{prefix}_perplexity": evaluation.perplexity,
        f"{prefix}_token_accuracy": evaluation.token_accuracy,
        f"{prefix}_examples": evaluation.examples,
    }


def _lineage(results: Results, trial: int, checkpoint: dict[str, Any]) -> dict[str, Any]:
    manifest = results.experiment.manifest
    return {
        "experiment": results.experiment.name,
        "trial": trial,
        "iteration": checkpoint["iteration"],
        "best_val_loss": checkpoint["best_val_loss"],
        "data_fingerprint": checkpoint["fingerprint"],
        "commit": manifest["commit"],
        "versions": manifest["versions"],
        "sweep_file": manifest["sweep_file"],
    }


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Makes a directory, and takes away what it made where its block fails."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty: another process has put something there
            for path in missing:
                path.rmdir()
        raise


def _write_next_version(home: Path, **contents: Any) -> Path:
    """Writes the next free version; another process may take a number before us."""
    while True:
        number = max([0, *versions(home)]) + 1
        try:
            return write_model_directory(home / str(number), **contents)
        except ModelDirectoryError:
            if number not in versions(home):
                raise


def set_alias(home: Path, alias: str, version: int) -> None:
    """Lets an alias of a named model stand for one of its versions.

    Raises:
        ModelDirectoryError: where there is no such version.
        StorageError: where it cannot be written.
    """
    if version not in versions(home):
        raise ModelDirectoryError(f"{home}: has no version {version}.")
    with _one_at_a_time(home):
        aliases = read_aliases(home) | {alias: version}
        atomic_write(home / "aliases.json", canonical_json({"format": FORMAT, "aliases": aliases}))


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Keeps other processes out, where the file system can."""
    with storage_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

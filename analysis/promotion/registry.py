"""Promoting a trial: from an experiment into the registry of immutable model versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.promotion.aliases import PRODUCTION, set_alias_locked
from analysis.promotion.fresh_runs import figures
from analysis.promotion.locks import one_at_a_time
from analysis.promotion.versions import read_metrics
from analysis.results import Results
from model.batching import Batches
from model.checkpoint import read_checkpoint
from model.config import Config, DataConfig
from model.errors import ExperimentError, ModelDirectoryError, StorageError
from model.evaluation import evaluate
from model.files import storage_errors
from model.model_directory import (
    read_aliases,
    read_manifest,
    valid_name,
    versions,
    write_model_directory,
)
from model.seq2seq import Seq2Seq
from tuning.coordinator import Objective
from tuning.storage.place import AnyPath, place

if TYPE_CHECKING:
    from analysis.promotion.verdict import Confirmation

Note = Callable[[str], None]
#: Relative difference of two figures that the arithmetic of another machine can make.
_SAME = 1e-5


def promote(
    results: Results | str | Path,
    name: str | None = None,
    *,
    trial: int | None = None,
    confirmed: Confirmation | None = None,
    registry: str | Path = "registry",
    alias: str = PRODUCTION,
    force: bool = False,
    on_note: Note = lambda text: None,
) -> Path:
    """Copies a trial's best weights into the registry as the next version of a model.

    The whole validation split is evaluated first: the search's reports used a part of it. Then the
    test split is, once, for these weights alone, which nothing before has read.

    Args:
        results: The experiment's results, or its name or directory.
        name: Of the model; None takes the experiment's name.
        trial: Which trial; None takes the best.
        confirmed: What `confirm` found; its weights are promoted instead of a trial's.
        registry: Directory of the named models.
        alias: Name that will stand for the new version.
        force: Let ``production`` move to a version that is worse on the same validation split.
        on_note: Called with what a person should know, in words.

    Returns:
        The new model directory, ``registry/NAME/VERSION``.

    Raises:
        ExperimentError: where there is no such trial, or it has no weights.
        CheckpointError: where its weights are damaged.
        ModelDirectoryError: where the name cannot be one, or production is better.
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
    chosen = _chosen(results, trial, confirmed)
    checkpoint = read_checkpoint(chosen.weights)
    data = results.experiment.data()
    config = Config.from_mapping(checkpoint["config"], str(chosen.weights))
    config = replace(config, data=DataConfig(**data.settings))  # what the data were made with
    model = Seq2Seq(config.model, len(data.vocabulary))
    model.load_state_dict(checkpoint["weights"])
    metrics = figures("val", evaluate(model, Batches(data, "validation")))
    home = Path(registry) / name
    rivals = _Rivals.read(home, data.fingerprint)
    if alias == PRODUCTION and not force:
        rivals.check(metrics, results.experiment.objective, on_note)
    rivals.tell_of_test(on_note)
    metrics |= figures("test", evaluate(model, Batches(data, "test")))
    with _made(home), one_at_a_time(home):
        rivals = _Rivals.read(home, data.fingerprint)  # another promotion may have ended meanwhile
        if alias == PRODUCTION and not force:
            rivals.check(metrics, results.experiment.objective, lambda text: None)
        directory = _write_next_version(
            home,
            weights=checkpoint["weights"],
            config=config,
            vocabulary=data.vocabulary,
            metrics=metrics | _context(results, confirmed),
            lineage=_lineage(results, chosen, checkpoint, rivals),
        )
        set_alias_locked(home, alias, int(directory.name))
    return directory


@dataclass(frozen=True)
class _Chosen:
    """Whose weights are promoted."""

    trial: int
    weights: AnyPath
    confirmed: Confirmation | None


def _chosen(results: Results, trial: int | None, confirmed: Confirmation | None) -> _Chosen:
    if confirmed is not None:
        assert trial is None, "a confirmation has chosen already"
        return _Chosen(confirmed.winner.trials[0], confirmed.promoted.weights, confirmed)
    row = _trial_row(results, trial)
    return _Chosen(int(row["trial"]), place(row["weights"]), None)


def _trial_row(results: Results, trial: int | None) -> Mapping[str, Any]:
    if trial is None:
        row = results.best()
    else:
        trials = results.trials
        rows = trials[trials["trial"] == trial]
        if rows.empty:
            known = f"trials 0 to {len(trials) - 1}" if len(trials) else "no trials yet"
            raise ExperimentError(
                f"{results.experiment.place}: no trial {trial}; there are {known}."
            )
        row = rows.iloc[0]
    if not isinstance(row["weights"], str):
        raise ExperimentError(
            f"{results.experiment.place}: trial {row['trial']} ({row['state']}) has no weights."
        )
    return {str(column): value for column, value in row.items()}


def _context(results: Results, confirmed: Confirmation | None) -> dict[str, Any]:
    """Figures that say what the others are worth."""
    context = {"unigram_val_loss": results.experiment.manifest["data"]["unigram_val_loss"]}
    if confirmed is not None:
        name, winner = confirmed.objective.name, confirmed.winner
        context |= {
            f"confirmed_{name}": winner.mean,
            f"confirmed_{name}_low": winner.low,
            f"confirmed_{name}_high": winner.high,
            "confirmed_seeds": confirmed.seeds,
        }
    return context


def _lineage(
    results: Results, chosen: _Chosen, checkpoint: dict[str, Any], rivals: _Rivals
) -> dict[str, Any]:
    manifest = results.experiment.manifest
    lineage = {
        "experiment": results.experiment.name,
        "trial": chosen.trial,
        "iteration": checkpoint["iteration"],
        "best_val_loss": checkpoint["best_val_loss"],
        "data_fingerprint": checkpoint["fingerprint"],
        "commit": manifest["commit"],
        "versions": manifest["versions"],
        "sweep_file": manifest["sweep_file"],
        "test_seen_by_versions": rivals.of_same_data,
    }
    if chosen.confirmed is not None:
        lineage["confirmation"] = chosen.confirmed.to_mapping()
    return lineage


@dataclass(frozen=True)
class _Rivals:
    """The versions that a model has already.

    Attributes:
        home: ``registry/NAME``.
        fingerprint: Of the data of the version to come.
        production: The version that ``production`` stands for, if it stands for one.
        of_same_data: Versions of the same data, whose test split was evaluated for them.
    """

    home: Path
    fingerprint: str
    production: int | None
    of_same_data: list[int]

    @classmethod
    def read(cls, home: Path, fingerprint: str) -> _Rivals:
        """Looks at what is there.

        Raises:
            ModelDirectoryError: where the aliases are damaged.
        """
        if not home.is_dir():
            return cls(home, fingerprint, None, [])
        same = [v for v in versions(home) if _fingerprint(home / str(v)) == fingerprint]
        return cls(home, fingerprint, read_aliases(home).get(PRODUCTION), same)

    def check(self, metrics: Mapping[str, Any], objective: Objective, on_note: Note) -> None:
        """Compares with production, on the whole validation split of the same data.

        Raises:
            ModelDirectoryError: where production is better.
        """
        if self.production is None:
            return None
        held = f"{self.home.name}@{PRODUCTION} is version {self.production}"
        try:
            theirs = read_metrics(self.home / str(self.production)).get(objective.name)
        except (ModelDirectoryError, StorageError) as error:
            return on_note(f"{held}, which is damaged and cannot be compared: {error}")
        if self.production not in self.of_same_data:
            return on_note(f"{held}, which is of other data: the two cannot be compared")
        ours = metrics[objective.name]
        if ours is not None and theirs is not None and math.isclose(theirs, ours, rel_tol=_SAME):
            return None
        if objective.better(theirs, ours):
            shown = "infinite" if ours is None else f"{ours:.4f}"
            raise ModelDirectoryError(
                f"{held} with {objective.name} {theirs:.4f} over all of validation, and this would "
                f"be worse, {shown}; promote it beside, --alias candidate, or --force it."
            )
        return None

    def tell_of_test(self, on_note: Note) -> None:
        """Says where the test split has been looked at before."""
        if self.of_same_data:
            listed = ", ".join(map(str, self.of_same_data))
            plural = "s" if len(self.of_same_data) > 1 else ""
            on_note(
                f"the same test split was evaluated for version{plural} {listed}; "
                "do not choose between versions by test_loss"
            )


def _fingerprint(directory: Path) -> str | None:
    try:
        return str(read_manifest(directory)["lineage"]["data_fingerprint"])
    except (ModelDirectoryError, KeyError, TypeError):
        return None


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

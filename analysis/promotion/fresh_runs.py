"""One configuration trained again with a fresh seed, without Ray.

    confirmation/KEY/trials/SEED/run.json       what a finished run gave; its presence ends the run
    confirmation/KEY/trials/SEED/best.pt        weights at its best report
    confirmation/KEY/trials/SEED/checkpoint-*   where a killed run goes on; removed at its end

KEY stands for a configuration on its data. Everything is written whole or not at all, so that a
command that was killed at any moment loses one report of the runs that it had under way.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.promotion.locks import one_at_a_time
from analysis.promotion.verdict import Outcome
from model.checkpoint import read_checkpoint
from model.config import DATA_FIELDS, Config
from model.errors import CheckpointError, ExperimentError
from model.evaluation import Evaluation, evaluate
from model.files import atomic_write, finite, storage_errors
from model.model_directory import canonical_json
from model.prepared_data import PreparedData
from model.training import Report, Trainer
from tuning.coordinator import Objective
from tuning.trials.trial_files import TrialFiles

#: Number of the format of ``run.json``; a newer one is refused.
FORMAT = 1
#: Of an experiment's directory.
DIRECTORY = "confirmation"
#: Fields that do not make another configuration: they change how it is run, or are the data's.
_NOT_THE_CONFIGURATION = DATA_FIELDS | {
    *("seed", "device", "threads", "checkpoint_when", "checkpoint_every")
}


def configuration_key(config: Config, fingerprint: str) -> str:
    """Twelve hexadecimal digits that a configuration on a data set has whatever its seed."""
    fields = {k: v for k, v in config.to_mapping().items() if k not in _NOT_THE_CONFIGURATION}
    return hashlib.sha256(canonical_json(fields | {"data": fingerprint})).hexdigest()[:12]


@dataclass(frozen=True)
class FreshRun:
    """One configuration to be trained with one seed.

    Attributes:
        experiment: The experiment's directory, which the data are read from.
        config: The configuration, with the fresh seed.
        objective: What the best report is chosen by.
        fingerprint: Of the data.
    """

    experiment: Path
    config: Config
    objective: Objective
    fingerprint: str

    @property
    def files(self) -> TrialFiles:
        """Where the run keeps its files."""
        home = self.experiment / DIRECTORY / configuration_key(self.config, self.fingerprint)
        return TrialFiles(home, self.config.training.seed)

    @property
    def directory(self) -> Path:
        """Where these files are: always on this machine."""
        directory = self.files.directory
        assert isinstance(directory, Path)
        return directory

    def result(self) -> dict[str, Any] | None:
        """What the run gave, or None where it has not finished.

        Raises:
            ExperimentError: where the file is damaged or of a newer format.
        """
        file = self.directory / "run.json"
        try:
            row = json.loads(file.read_text(encoding="utf-8"))
            number = int(row["format"])
            if number <= FORMAT:
                _check(row, self.objective.name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise ExperimentError(
                f"{file}: is damaged; remove {file.parent}, and the run is made again."
            ) from None
        if number > FORMAT:
            raise ExperimentError(f"{file}: has format {number}, written by a newer version.")
        return dict(row)

    def outcome(self) -> Outcome | None:
        """The same as far as it is compared; None where the run has not finished.

        Raises:
            ExperimentError: where the file is damaged or of a newer format.
        """
        row = self.result()
        if row is None:
            return None
        value = row.get(self.objective.name)
        return Outcome(self.config.training.seed, row["state"], value, self.files.best)


def _check(row: dict[str, Any], objective: str) -> None:
    """Raises `ValueError`, `KeyError` or `TypeError` where a row lacks what is read of it."""
    value = row.get(objective)
    if row["state"] not in ("finished", "diverged"):
        raise ValueError(row["state"])
    if value is not None and (isinstance(value, bool) or not math.isfinite(value)):
        raise ValueError(value)


def figures(prefix: str, evaluation: Evaluation) -> dict[str, Any]:
    """The figures of an evaluation as they are stored; what is not finite is None."""
    found = {
        f"{prefix}_loss": evaluation.loss,
        f"{prefix}_perplexity": evaluation.perplexity,
        f"{prefix}_token_accuracy": evaluation.token_accuracy,
        f"{prefix}_examples": evaluation.examples,
    }
    return {name: finite(value) for name, value in found.items()}


def train_run(
    run: FreshRun, data: PreparedData, tell: Callable[[int], None] = lambda iteration: None
) -> None:
    """Trains a run to its end, from its newest checkpoint where there is one.

    The whole budget of iterations is trained, whatever a scheduler did in the search. The weights
    of the best report are kept, as the search did; they are judged on the whole validation split.
    The test split is not read.

    Args:
        run: Which run.
        data: The experiment's data.
        tell: Called with the iteration where it begins, and at each report.
    """
    with storage_errors(run.directory):
        run.directory.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(run.directory):  # a killed command's process may be at its last report
        if run.result() is not None:
            return
        trainer, best = _begin(run, data)
        tell(trainer.iteration)
        while (report := trainer.last_report) is None or report.state == "running":
            report = trainer.train_interval()
            best = _keep(run, trainer, report, best)
            tell(report.iteration)
        _finish(run, trainer, report)


def _begin(run: FreshRun, data: PreparedData) -> tuple[Trainer, float | None]:
    """A trainer where the run's files are, and the best value there; anew where they are not."""
    trainer = Trainer(data, run.config)
    report, _ = run.files.restore(trainer)
    if report is not None:
        with suppress(CheckpointError):
            metrics = run.files.best_metrics()
            if metrics:
                return trainer, metrics.get(run.objective.name)
        trainer = Trainer(data, run.config)  # the best weights so far are lost
    run.files.remove_checkpoints()
    run.files.best.unlink(missing_ok=True)
    return trainer, None


def _keep(run: FreshRun, trainer: Trainer, report: Report, best: float | None) -> float | None:
    """Writes what a report is worth, the best weights before the checkpoint; returns the best."""
    value = report.metrics.get(run.objective.name)
    if report.state != "diverged" and run.objective.better(value, best):
        run.files.save_best(trainer.weights())
        best = value
    if report.state == "running":
        run.files.save(trainer.state())
    return best


def _finish(run: FreshRun, trainer: Trainer, report: Report) -> None:
    row: dict[str, Any] = {
        "format": FORMAT,
        "config": run.config.to_mapping(),
        "data_fingerprint": run.fingerprint,
        "state": report.state,
        "iteration": report.iteration,
        "best_iteration": None,
        "device": str(trainer.device),
        "dtype": str(trainer.dtype).removeprefix("torch."),
    }
    if run.files.best.exists():  # not where it diverged before its first report
        best = read_checkpoint(run.files.best, trainer.device)
        trainer.model.load_state_dict(best["weights"])
        row["best_iteration"] = best["iteration"]
        row |= figures("val", evaluate(trainer.model, trainer.val_batches))
    atomic_write(run.directory / "run.json", canonical_json(row))
    run.files.remove_checkpoints()

"""The files of one trial: checkpoints to go on from, and the weights of its best report.

    trials/0007/checkpoint-00000300.pt   everything training needs, at iteration 300
    trials/0007/best.pt                  weights and figures at the best report so far

The trial's process writes them while it trains on, so that they may be a report behind the
journal; but where the journal says that a trial has ended, the weights of its best report are
there (see ``tuning.trainable``). The two newest checkpoints are kept while a trial runs, in case
the newest is damaged; when the trial has ended, the driver removes both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from model.checkpoint import read_checkpoint, write_checkpoint
from model.errors import CheckpointError
from model.files import storage_errors
from model.training import Report, Trainer

_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.pt")
_KEPT = 2


class TrialFiles:
    """Where a trial keeps its files.

    Args:
        experiment: The experiment's directory, reachable by every worker.
        trial: Number of the trial.
    """

    def __init__(self, experiment: Path, trial: int) -> None:
        self.directory = experiment / "trials" / f"{trial:04d}"

    @property
    def best(self) -> Path:
        """Weights at the best report so far."""
        return self.directory / "best.pt"

    def checkpoints(self) -> list[Path]:
        """Checkpoints there are, the newest first."""
        if not self.directory.is_dir():
            return []
        found = [p for p in self.directory.iterdir() if _CHECKPOINT.fullmatch(p.name)]
        return sorted(found, reverse=True)

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint, of `Trainer.state`, and removes all but the newest two.

        Raises:
            StorageError: where it cannot be written; the older ones are left as they were.
        """
        self._make_directory()
        write_checkpoint(self.directory / f"checkpoint-{state['iteration']:08d}.pt", state)
        with storage_errors(self.directory, "removed"):
            for old in self.checkpoints()[_KEPT:]:
                old.unlink(missing_ok=True)

    def save_best(self, weights: Mapping[str, Any]) -> None:
        """Writes weights, of `Trainer.weights`, as the best ones.

        Raises:
            StorageError: where they cannot be written; the older ones are left as they were.
        """
        self._make_directory()
        write_checkpoint(self.best, weights)

    def best_metrics(self) -> dict[str, Any]:
        """The figures that the best weights have; none where there are no weights.

        Raises:
            CheckpointError: where the file is damaged.
        """
        return dict(read_checkpoint(self.best)["metrics"]) if self.best.exists() else {}

    def _make_directory(self) -> None:
        with storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)

    def restore(self, trainer: Trainer) -> tuple[Report | None, list[str]]:
        """Brings a trainer to the newest whole checkpoint.

        Returns:
            The report made there, or None where training begins anew; and, in words, which
            checkpoints were refused as damaged.
        """
        refused: list[str] = []
        for checkpoint in self.checkpoints():
            try:
                return trainer.restore(checkpoint), refused
            except CheckpointError as error:
                refused.append(str(error))
        return None, refused

    def remove_checkpoints(self) -> None:
        """Removes what is only needed to go on; the best weights stay."""
        with suppress(OSError):  # they are in nobody's way
            for leftover in (*self.checkpoints(), *self.directory.glob(".tmp-*")):
                leftover.unlink(missing_ok=True)


def best_file(experiment: Path, trial: int) -> Path:
    """Where the best weights of a trial are, if it has any."""
    return TrialFiles(experiment, trial).best

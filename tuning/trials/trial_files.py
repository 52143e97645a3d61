"""The files of one trial: checkpoints to go on from, and the weights of its best report.

    trials/0007/checkpoint-00000300.pt   everything training needs, at iteration 300
    trials/0007/best.pt                  weights and figures at the best report so far
    trials/0007/clone-00000300.pt        the checkpoint of another trial, to go on from at 300
    trials/0007/attempt                  number of the attempt that may write; none for the first

The trial's process writes them while it trains on, so that they may be a report behind the
journal; but where the journal says that a trial has ended, the weights of its best report are
there (see `trainable`). The two newest checkpoints are kept while a trial runs, in case
the newest is damaged; when the trial has ended, the driver removes both, but not those of a failed
trial, which may be run again (``python -m tuning retry``).

A worker that was given up, because its host was cut off or its storage hung, may come back and
write on. So an attempt takes the trial over by its number, and an earlier one is refused from there
on, just before a file of its would take its name (a fence, as locks of distributed systems have).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from model.checkpoint import read_checkpoint, write_checkpoint
from model.errors import CheckpointError, StorageError
from model.files import atomic_write, storage_errors
from model.training import Report, Trainer

_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.pt")
_KEPT = 2


class TrialFiles:
    """Where a trial keeps its files.

    Args:
        experiment: The experiment's directory, reachable by every worker.
        trial: Number of the trial.
        attempt: Which attempt at it writes here, from 1; None where there are no others.
    """

    def __init__(self, experiment: Path, trial: int, attempt: int | None = None) -> None:
        self.attempt = attempt
        self.directory = experiment / "trials" / f"{trial:04d}"

    @property
    def best(self) -> Path:
        """Weights at the best report so far."""
        return self.directory / "best.pt"

    def take_over(self) -> None:
        """Keeps earlier attempts from writing, if there were any.

        Raises:
            StorageError: where that cannot be written, or a later attempt has taken over before.
        """
        if self.attempt is not None and self.attempt > 1:
            self._refuse_if_superseded()
            atomic_write(self._owner, str(self.attempt).encode())

    @property
    def _owner(self) -> Path:
        return self.directory / "attempt"

    def _refuse_if_superseded(self) -> None:
        if self.attempt is None:
            return
        try:
            owner = int(self._owner.read_text(encoding="ascii"))
        except (OSError, ValueError):  # none, or not to be read: then nobody is kept out
            return
        if owner > self.attempt:
            raise StorageError(
                f"{self.directory}: attempt {owner} goes on with this trial; attempt "
                f"{self.attempt} was given up, and writes nothing any more."
            )

    def checkpoint(self, iteration: int) -> Path:
        """Where the checkpoint of an iteration is, if there is one."""
        return self.directory / f"checkpoint-{iteration:08d}.pt"

    def clone(self, iteration: int) -> Path:
        """Another trial's checkpoint, kept to go on from at an iteration of this one."""
        return self.directory / f"clone-{iteration:08d}.pt"

    def checkpoints(self) -> list[Path]:
        """Checkpoints there are, the newest first."""
        if not self.directory.is_dir():
            return []
        found = [p for p in self.directory.iterdir() if _CHECKPOINT.fullmatch(p.name)]
        return sorted(found, reverse=True)

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint, of `Trainer.state`, and removes all but the newest two.

        Raises:
            StorageError: where it cannot be written, or a later attempt has taken over; the older
                ones are left as they were.
        """
        self._make_directory()
        path = self.checkpoint(state["iteration"])
        write_checkpoint(path, state, self._refuse_if_superseded)
        with storage_errors(self.directory, "removed"):
            for old in self.checkpoints()[_KEPT:]:
                old.unlink(missing_ok=True)

    def save_best(self, weights: Mapping[str, Any]) -> None:
        """Writes weights, of `Trainer.weights`, as the best ones.

        Raises:
            StorageError: where they cannot be written, or a later attempt has taken over; the older
                ones are left as they were.
        """
        self._make_directory()
        write_checkpoint(self.best, weights, self._refuse_if_superseded)

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

    def keep_clone(self, source: TrialFiles, iteration: int) -> bool:
        """Keeps the newest checkpoint of another trial, to go on from at an iteration of this one.

        Returns:
            Whether there was one.

        Raises:
            StorageError: where it cannot be kept.
        """
        self._make_directory()
        kept = self.clone(iteration)
        for checkpoint in source.checkpoints():
            with storage_errors(kept), suppress(FileNotFoundError):  # replaced by a newer one
                kept.unlink(missing_ok=True)
                _link(checkpoint, kept)
                return True
        return False

    def remove_checkpoints(self) -> None:
        """Removes what is only needed to go on; the best weights stay."""
        with suppress(OSError):  # they are in nobody's way
            others = (*self.directory.glob("clone-*.pt"), *self.directory.glob(".tmp-*"))
            for leftover in (*self.checkpoints(), *others):
                leftover.unlink(missing_ok=True)


def _link(existing: Path, new: Path) -> None:
    """Gives a file a second name; where the file system has no such thing, a copy."""
    try:
        os.link(existing, new)
    except FileNotFoundError:
        raise
    except OSError:
        atomic_write(new, existing.read_bytes())


def best_file(experiment: Path, trial: int) -> Path:
    """Where the best weights of a trial are, if it has any."""
    return TrialFiles(experiment, trial).best

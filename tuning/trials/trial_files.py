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

While the storage is away, everything here waits for it, within the bounds of `patiently`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from model.checkpoint import read_checkpoint, write_checkpoint
from model.errors import CheckpointError, StorageError
from model.files import atomic_write, storage_errors
from model.training import Report, Trainer
from tuning.experiment import MANIFEST
from tuning.storage.patience import answers, is_transient, patiently
from tuning.storage.place import AnyPath
from tuning.storage.remote_path import RemotePath

T = TypeVar("T")

_CHECKPOINT = re.compile(r"checkpoint-(\d+)\.pt")
_LEFTOVER = re.compile(rf"{_CHECKPOINT.pattern}|clone-.*\.pt|\.tmp-.*")
_KEPT = 2
#: More than a trial ever has in one session.
_ATTEMPTS = 1_000_000


class TrialFiles:
    """Where a trial keeps its files.

    Args:
        experiment: The experiment's directory, reachable by every worker.
        trial: Number of the trial.
        attempt: Which attempt at it writes here, from 1; None where there are no others.
        session: Number of the driver's session, where a driver may be lost with its newest rows:
            the next one may give out the same attempt again.
    """

    def __init__(
        self, experiment: AnyPath, trial: int, attempt: int | None = None, session: int = 0
    ) -> None:
        self.attempt = attempt
        self._turn = session * _ATTEMPTS + (attempt or 0)
        self.directory = experiment / "trials" / f"{trial:04d}"
        # An attempt is one of a search, which has its manifest there.
        self._anchor = None if attempt is None else experiment / MANIFEST

    def patiently(self, action: Callable[[], T]) -> T:
        """Does something with these files, however often the storage is away meanwhile."""
        return patiently(action, anchor=self._anchor)

    @property
    def best(self) -> AnyPath:
        """Weights at the best report so far."""
        return self.directory / "best.pt"

    def take_over(self) -> None:
        """Keeps earlier attempts from writing, if there were any.

        Raises:
            StorageError: where that cannot be written, or a later attempt has taken over before.
        """
        if self._turn > 1:
            self.patiently(self._take_over)

    def _take_over(self) -> None:
        self._refuse_if_superseded()
        self._make_directory()
        atomic_write(self._owner, str(self._turn).encode(), parents=False)

    @property
    def _owner(self) -> AnyPath:
        return self.directory / "attempt"

    def _refuse_if_superseded(self) -> None:
        if self.attempt is None:
            return
        owner = 0
        with storage_errors(self._owner, "read"), suppress(FileNotFoundError, ValueError):
            owner = int(self._owner.read_text(encoding="ascii"))
        if owner > self._turn:
            raise StorageError(
                f"{self.directory}: attempt {owner % _ATTEMPTS} goes on with this trial; attempt "
                f"{self.attempt} was given up, and writes nothing any more."
            )

    def checkpoint(self, iteration: int) -> AnyPath:
        """Where the checkpoint of an iteration is, if there is one."""
        return self.directory / f"checkpoint-{iteration:08d}.pt"

    def clone(self, iteration: int) -> AnyPath:
        """Another trial's checkpoint, kept to go on from at an iteration of this one."""
        return self.directory / f"clone-{iteration:08d}.pt"

    def checkpoints(self) -> list[AnyPath]:
        """Checkpoints there are, the newest first."""
        return checkpoints_among(self._contents())

    def _contents(self) -> list[AnyPath]:
        try:
            return list(self.directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a checkpoint, of `Trainer.state`, and removes all but the newest two.

        Raises:
            StorageError: where it cannot be written, or a later attempt has taken over; the older
                ones are left as they were.
        """
        self.patiently(lambda: self._save(state))

    def _save(self, state: Mapping[str, Any]) -> None:
        self._write(self.checkpoint(state["iteration"]), state)
        with storage_errors(self.directory, "removed"):
            for old in self.checkpoints()[_KEPT:]:
                old.unlink(missing_ok=True)

    def _write(self, path: AnyPath, contents: Mapping[str, Any]) -> None:
        self._make_directory()
        write_checkpoint(path, contents, self._refuse_if_superseded, parents=False)

    def _make_directory(self) -> None:
        """Makes no more than ours and the trials': the storage may have gone away meanwhile."""
        with storage_errors(self.directory):
            try:
                self.directory.mkdir(exist_ok=True)
            except FileNotFoundError:
                self.directory.parent.mkdir(parents=self._anchor is None, exist_ok=True)
                self.directory.mkdir(exist_ok=True)

    def save_best(self, weights: Mapping[str, Any]) -> None:
        """Writes weights, of `Trainer.weights`, as the best ones.

        Raises:
            StorageError: where they cannot be written, or a later attempt has taken over; the older
                ones are left as they were.
        """
        self.patiently(lambda: self._write(self.best, weights))

    def best_metrics(self) -> dict[str, Any]:
        """The figures that the best weights have; none where there are no weights.

        Raises:
            CheckpointError: where the file is damaged.
        """
        there = self.patiently(self.best.exists)
        return dict(self.read(self.best)["metrics"]) if there else {}

    def read(self, path: AnyPath) -> dict[str, Any]:
        """The contents of one of these files, see `read_checkpoint`.

        Raises:
            CheckpointError: where it is missing or damaged; also where its device cannot read it,
                but the rest of the storage.
            StorageError: where the storage is away, or we may not read it.
        """
        return self._read(lambda: read_checkpoint(path))

    def _read(self, action: Callable[[], T]) -> T:
        """Reads a file: one that we may not read now is not damaged."""
        try:
            return patiently(action, anchor=self._anchor, others=self._others)
        except CheckpointError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and not self._is_damage(cause):
                raise StorageError(str(error)) from cause
            raise

    @property
    def _others(self) -> Callable[[], object] | None:
        return None if self._anchor is None else self._anchor.read_bytes

    def _is_damage(self, error: OSError) -> bool:
        """Whether an error is of one file alone, so that others will do."""
        if isinstance(error, FileNotFoundError):
            return True
        others = self._others
        return is_transient(error) and others is not None and answers(others)

    def restore(self, trainer: Trainer) -> tuple[Report | None, list[str]]:
        """Brings a trainer to the newest whole checkpoint.

        Returns:
            The report made there, or None where training begins anew; and, in words, which
            checkpoints were refused as damaged.

        Raises:
            StorageError: as `read`.
        """
        refused: list[str] = []
        for checkpoint in self.patiently(self.checkpoints):
            try:
                return self._read(partial(trainer.restore, checkpoint)), refused
            except CheckpointError as error:
                refused.append(str(error))
        return None, refused

    def begin_anew(self) -> None:
        """Removes all that a driver left which was lost before anybody knew of this trial."""
        self.remove_checkpoints()
        with storage_errors(self.best, "removed"):
            self.patiently(lambda: self.best.unlink(missing_ok=True))

    def keep_clone(self, source: TrialFiles, iteration: int) -> bool:
        """Keeps the newest checkpoint of another trial, to go on from at an iteration of this one.

        Returns:
            Whether there was one.

        Raises:
            StorageError: where it cannot be kept.
        """
        return self.patiently(lambda: self._keep_clone(source, self.clone(iteration)))

    def _keep_clone(self, source: TrialFiles, kept: AnyPath) -> bool:
        with storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        for checkpoint in source.checkpoints():
            with storage_errors(kept), suppress(FileNotFoundError):  # replaced by a newer one
                _link(checkpoint, kept)
                return True
        return False

    def remove_checkpoints(self) -> None:
        """Removes what is only needed to go on; the best weights stay."""
        with suppress(OSError):  # they are in nobody's way
            for path in leftovers_among(self._contents()):
                path.unlink(missing_ok=True)


def _link(existing: AnyPath, new: AnyPath) -> None:
    """Gives a file a second name; where the storage has no such thing, a copy."""
    if isinstance(existing, RemotePath) or isinstance(new, RemotePath):
        assert isinstance(existing, RemotePath) and isinstance(new, RemotePath)
        existing.copy_to(new)
        return
    new.unlink(missing_ok=True)
    try:
        os.link(existing, new)
    except FileNotFoundError:
        raise
    except OSError:
        atomic_write(new, existing.read_bytes())


def checkpoints_among(files: Iterable[AnyPath]) -> list[AnyPath]:
    """The checkpoints among files of a trial, the newest first."""
    found = [path for path in files if _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.name, reverse=True)


def leftovers_among(files: Iterable[AnyPath]) -> list[AnyPath]:
    """What of a trial's files is only needed to go on with it."""
    return [path for path in files if _LEFTOVER.fullmatch(path.name)]


def contents_of_trials(experiment: AnyPath) -> Callable[[int], list[AnyPath]]:
    """Gives the files of one trial after another; on an object store all are listed at once.

    Raises:
        StorageError: where an object store cannot be read.
    """
    if isinstance(experiment, RemotePath):
        listed: dict[RemotePath, list[AnyPath]] = defaultdict(list)
        with storage_errors(experiment, "read"):
            for path, _ in (experiment / "trials").walk():
                listed[path.parent].append(path)
        return lambda trial: listed[experiment / "trials" / f"{trial:04d}"]

    def listed_here(trial: int) -> list[AnyPath]:
        try:
            return TrialFiles(experiment, trial)._contents()
        except OSError:  # a directory that we may not look into
            return []

    return listed_here


def best_file(experiment: AnyPath, trial: int) -> AnyPath:
    """Where the best weights of a trial are, if it has any."""
    return TrialFiles(experiment, trial).best

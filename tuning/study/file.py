"""The file of an Optuna study, in the format of Optuna's `JournalStorage`.

Optuna reads it as any study of its own, and so does optuna-dashboard, while it is written too. The
driver alone writes trials into it; what the dashboard adds (notes, say) is left alone.

The search's own journal is the truth. This file is a reading of it, which is brought up to date by
appending, and is written anew, whole or not at all, only where it says something else.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import StorageError
from model.files import atomic_write, storage_errors
from tuning.study.trials import StudyTrial, StudyTrials

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

#: Where Optuna keeps the names of the objectives (`Study.set_metric_names`).
_METRIC_NAMES = "study:metric_names"
#: Others hold the file's lock for milliseconds; older than this, its owner is dead.
_LOCK_SECONDS = 1.0


class MismatchError(Exception):
    """The file says something that the journal does not; caught here and in `tuning.study`."""


class StudyFile:
    """The study on file.

    Args:
        path: The file.
        name: Of the study.
        trials: What should be on file.
    """

    def __init__(self, path: Path, name: str, trials: StudyTrials) -> None:
        self.path = path
        self.name = name
        self.trials = trials
        self._log = _Log(path)
        self._storage: JournalStorage
        self._study = -1
        self._ids: list[int] = []  # Optuna's, by the trials' numbers

    def open(self) -> bool:
        """Brings the file up to date, or writes it anew where it does not fit.

        Returns:
            Whether it fitted.

        Raises:
            StorageError: where it cannot be written.
        """
        try:
            self._read()
            for trial in self.trials:
                self.write(trial)
        except StorageError:
            raise
        except Exception:  # whatever is wrong with it, it can be written anew
            self._write_anew()
            return False
        self.flush()
        return True

    def _read(self) -> None:
        """Reads what is there.

        Raises:
            Exception: of any kind, where it is not the study of this experiment.
        """
        from optuna.storages import JournalStorage

        with storage_errors(self.path):
            _drop_torn_line(self.path)
            _break_stale_lock(self.path)
        self._storage = JournalStorage(self._log)
        self._study = self._storage.get_study_id_from_name(self.name)
        names = self._storage.get_study_system_attrs(self._study).get(_METRIC_NAMES)
        directions = list(self._storage.get_study_directions(self._study))
        stored = self._storage.get_all_trials(self._study, deepcopy=False)
        if names != self._names() or directions != self._directions():
            raise MismatchError("objectives")
        if len(stored) > len(self.trials.trials):
            raise MismatchError("trials")
        self._ids = [trial._trial_id for trial in stored]

    def _write_anew(self) -> None:
        from optuna.storages import JournalStorage

        self._log, self._ids = _Log(None), []
        self._storage = JournalStorage(self._log)
        with _unannounced():
            self._study = self._storage.create_new_study(self._directions(), self.name)
        self._storage.set_study_system_attr(self._study, _METRIC_NAMES, self._names())
        for trial in self.trials:
            self.write(trial)
        self._log.write_whole(self.path)

    def _names(self) -> list[str]:
        return [objective.name for objective in self.trials.objectives]

    def _directions(self) -> list[Any]:
        from optuna.study import StudyDirection

        return [StudyDirection[o.goal.upper()] for o in self.trials.objectives]

    def write(self, trial: StudyTrial) -> None:
        """Writes what is new of a trial; it is on file after the next `flush`.

        Raises:
            MismatchError: where something is on file that cannot be changed.
        """
        wanted = self.trials.frozen(trial)
        if trial.number == len(self._ids):
            self._ids.append(self._storage.create_new_trial(self._study, wanted))
            return
        stored = self._storage.get_trial(self._ids[trial.number])
        if _fixed(stored) != _fixed(wanted) or not stored.intermediate_values.keys() <= (
            wanted.intermediate_values.keys()
        ):
            raise MismatchError(f"trial {trial.number}")
        if not stored.state.is_finished():
            self._add(stored, wanted, trial)
        elif _changing(stored) != _changing(wanted):
            raise MismatchError(f"trial {trial.number}")

    def _add(self, stored: FrozenTrial, wanted: FrozenTrial, trial: StudyTrial) -> None:
        """Writes the differences of a trial that has not ended on file; its state comes last."""
        from optuna.trial import TrialState

        number, storage = stored._trial_id, self._storage
        for step, value in wanted.intermediate_values.items():
            if stored.intermediate_values.get(step) != value:
                storage.set_trial_intermediate_value(number, step, value)
        for name, value in wanted.user_attrs.items():
            if name not in stored.user_attrs or stored.user_attrs[name] != value:
                storage.set_trial_user_attr(number, name, value)
        if wanted.state is stored.state:
            return
        if stored.state is TrialState.WAITING:  # what was never RUNNING would have no beginning
            with self._log.at(trial.started):
                storage.set_trial_state_values(number, TrialState.RUNNING)
        if wanted.state is not TrialState.RUNNING:
            with self._log.at(trial.updated):
                storage.set_trial_state_values(number, wanted.state, wanted.values)

    def flush(self) -> None:
        """Puts what was written on file.

        Raises:
            StorageError: where that cannot be done.
        """
        self._log.flush()


def _fixed(trial: FrozenTrial) -> Any:
    """What can never be changed in a study."""
    return trial.params, trial.distributions


def _changing(trial: FrozenTrial) -> Any:
    """What cannot be changed once the trial has ended; others may add attributes."""
    names = ("state", "iteration", "worker", "changed")
    attributes = {name: trial.user_attrs.get(name) for name in names}
    return trial.state, trial.values, trial.intermediate_values, attributes


class _Log:
    """Where Optuna's storage reads and writes: the file, in batches.

    A backend of `optuna.storages.JournalStorage`. Optuna's own one locks, flushes and reads the
    file for every figure of a trial. Here it is read once, since nobody else writes trials, and
    the operations of a batch are appended at once, under Optuna's own lock.

    Args:
        path: The file, which is read; None for one that is still to be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unread = path is not None
        self._batch: list[dict[str, Any]] = []
        self._before = 0  # number of the batch's first operation
        self._moment: str | None = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Called by Optuna: the operations from a number on."""
        if self._unread:
            from optuna.storages.journal import JournalFileBackend

            self._unread = False
            if not Path(str(self._path)).is_file():  # Optuna would make it
                return
            for log in JournalFileBackend(str(self._path)).read_logs(0):
                self._before += 1
                yield log
        yield from self._batch[max(log_number_from - self._before, 0) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Called by Optuna: adds operations to the batch."""
        for log in logs:
            for name in ("datetime_start", "datetime_complete"):
                if self._moment is not None and name in log:
                    log[name] = self._moment
        self._batch.extend(logs)

    @contextmanager
    def at(self, seconds: float) -> Iterator[None]:
        """Lets the operations of a block have happened at a time (seconds since 1970), not now."""
        self._moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
        try:
            yield
        finally:
            self._moment = None

    def flush(self) -> None:
        """Appends the batch to the file."""
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        if not self._batch:
            return
        file = str(self._path)
        with storage_errors(file):
            JournalFileBackend(file, JournalFileOpenLock(file)).append_logs(self._batch)
        self._next_batch()

    def write_whole(self, path: Path) -> None:
        """Puts everything so far into a file, whole or not at all."""
        lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in self._batch)
        atomic_write(path, "".join(lines).encode())
        self._path = path
        self._next_batch()

    def _next_batch(self) -> None:
        self._before += len(self._batch)
        self._batch = []


def _drop_torn_line(path: Path) -> None:
    """Cuts off a last line without its end, of a driver that was killed as it wrote."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _break_stale_lock(path: Path) -> None:
    """Removes Optuna's lock of the file where its owner was killed with it."""
    lock = path.with_name(f"{path.name}.lock")
    until = time.monotonic() + _LOCK_SECONDS
    while os.path.lexists(lock):
        if time.monotonic() > until:
            lock.unlink(missing_ok=True)
            return
        time.sleep(0.05)


@contextmanager
def _unannounced() -> Iterator[None]:
    """Holds back the line that Optuna logs about a new study.

    By a filter of the one logger: `optuna.logging` and `warnings` are the whole process's, and
    this is not its main thread.
    """
    from optuna.storages import JournalStorage

    logger = logging.getLogger(JournalStorage.__module__)
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False

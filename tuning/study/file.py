"""The file of an Optuna study, in the format of Optuna's `JournalStorage`.

Optuna reads it as any study of its own, and so does optuna-dashboard, while it is written too. The
driver alone writes trials into it; what the dashboard adds (notes, say) is left alone.

The search's own journal is the truth. This file is a reading of it, which is brought up to date by
appending, and is written anew, whole or not at all, only where it says something else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import StorageError
from model.files import storage_errors
from tuning.storage.patience import check_there, is_away
from tuning.study.log import Log, break_stale_lock, drop_torn_line
from tuning.study.trials import StudyTrial, StudyTrials

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

#: Where Optuna keeps the names of the objectives (`Study.set_metric_names`).
_METRIC_NAMES = "study:metric_names"


class MismatchError(Exception):
    """The file says something that the journal does not; caught here and in `tuning.study`."""


class StudyFile:
    """The study on file.

    Args:
        path: The file.
        name: Of the study.
        trials: What should be on file.
        anchor: What is there as long as the storage is; None for the file's directory.
    """

    def __init__(
        self, path: Path, name: str, trials: StudyTrials, anchor: Path | None = None
    ) -> None:
        self.path = path
        self._anchor = anchor or path.parent
        self.name = name
        self.trials = trials
        self._log = Log(path)
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
        self._log.flush()
        return True

    def _read(self) -> None:
        """Reads what is there.

        Raises:
            Exception: of any kind, where it is not the study of this experiment.
        """
        from optuna.storages import JournalStorage

        with storage_errors(self.path):
            drop_torn_line(self.path)
            break_stale_lock(self.path)
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

        self._log, self._ids = Log(None), []
        self._storage = JournalStorage(self._log)
        with _unannounced():
            self._study = self._storage.create_new_study(self._directions(), self.name)
        self._storage.set_study_system_attr(self._study, _METRIC_NAMES, self._names())
        for trial in self.trials:
            self.write(trial)
        check_there(self._anchor)  # or directories would be made below its mount point
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
            MismatchError: where the storage is away, so that nobody knows what is on file of it;
                open it again.
        """
        try:
            self._log.flush()
        except StorageError as error:
            if not is_away(error, self._anchor):
                raise
            raise MismatchError("storage") from error


def _fixed(trial: FrozenTrial) -> Any:
    """What can never be changed in a study."""
    return trial.params, trial.distributions


def _changing(trial: FrozenTrial) -> Any:
    """What cannot be changed once the trial has ended; others may add attributes."""
    names = ("state", "iteration", "worker", "changed")
    attributes = {name: trial.user_attrs.get(name) for name in names}
    return trial.state, trial.values, trial.intermediate_values, attributes


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

"""What the journal says of the trials, as Optuna has trials: the study that should be on file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tuning.journal import Row
from tuning.journal.clock import SteadyClock
from tuning.objective import Objective
from tuning.study.space import containing, study_distributions, study_params

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from tuning.spaces.search_space import SearchSpace

#: What a trial is in Optuna's words. One that waits for another attempt is WAITING, by this driver
#: or by the next one: a study in which nobody works has nothing that is RUNNING.
STUDY_STATES = {
    "running": "RUNNING",
    "waiting": "WAITING",
    "interrupted": "WAITING",
    "finished": "COMPLETE",
    "stopped": "PRUNED",
    "diverged": "FAIL",
    "failed": "FAIL",
}


def study_state(state: str, values: Sequence[float | None]) -> str:
    """The name of Optuna's state; what finished without a figure has FAILed there.

    Args:
        state: A key of `STUDY_STATES`.
        values: Best of each objective.
    """
    complete = bool(values) and all(map(_is_figure, values))
    return "FAIL" if state == "finished" and not complete else STUDY_STATES[state]


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass
class StudyTrial:
    """A trial, as far as the rows heard until now say.

    Attributes:
        number: Of the trial.
        configuration: As it was proposed.
        started: Time of its first row, in seconds since 1970; ``updated`` of its last one. Both are
            steady, see `tuning.journal.clock`: to Optuna their difference is a duration.
        state: A key of `STUDY_STATES`.
        values: Best so far of each objective.
        reports: The first objective's figure by iteration.
        iteration: The highest that was reported.
        worker: Where it ran last, ``host:pid``.
        changed: Hyper-parameters that were changed since the proposal, with their last values.
    """

    number: int
    configuration: dict[str, Any]
    started: float
    updated: float
    state: str = "running"
    values: list[float | None] = field(default_factory=list)
    reports: dict[int, float] = field(default_factory=dict)
    iteration: int = 0
    worker: str | None = None
    changed: dict[str, Any] = field(default_factory=dict)

    def take(self, row: Row, time: float, objective: str) -> None:
        """Takes in a row of this trial.

        Args:
            row: Not its first one.
            time: Its time, as `started`.
            objective: Name of the first objective.
        """
        self.updated = time
        if row.kind == "report":
            self._take_report(row, objective)
        if row.kind == "retried" or (row.kind == "failed" and row.state == "running"):
            self.state = "waiting"
        elif row.state is not None:
            self.state = row.state
        self.values = row.values or self.values
        config = self.configuration
        self.changed = {k: v for k, v in row.config.items() if v != config.get(k, v)}

    def _take_report(self, row: Row, objective: str) -> None:
        assert row.iteration is not None
        self.iteration = max(self.iteration, row.iteration)
        self.worker = row.worker or self.worker
        if _is_figure(row.metrics.get(objective)):
            self.reports[row.iteration] = row.metrics[objective]

    def interrupt(self) -> None:
        """Nobody works on it any more, until it is restarted."""
        if self.state in ("running", "waiting"):
            self.state = "interrupted"

    @property
    def ended(self) -> bool:
        """Whether no row of it is expected any more."""
        return STUDY_STATES[self.state] not in ("RUNNING", "WAITING")


class StudyTrials:
    """The trials of an experiment: hears rows, and shows trials as Optuna's.

    Args:
        space: What is searched.
        objectives: The first one's figures are the trials' intermediate values.
    """

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective]) -> None:
        self.space = space
        self.objectives = objectives
        self.trials: dict[int, StudyTrial] = {}
        self._distributions: dict[str, Any] | None = None
        self._clock = SteadyClock()
        self._begun: float | None = None

    def take(self, row: Row) -> list[int]:
        """Takes in the journal's next row; returns the numbers of the trials that it tells of."""
        self._begun = row.time if self._begun is None else self._begun
        time = self._begun + self._clock.time_of(row)
        if row.kind in ("session", "ended"):
            return self.interrupt()  # what an earlier driver left, or this one
        if row.trial is None:
            return []
        if row.kind == "proposed":
            config = dict(row.config)
            self.trials[row.trial] = StudyTrial(row.trial, config, time, time)
        elif row.trial in self.trials:
            self.trials[row.trial].take(row, time, self.objectives[0].name)
        else:
            return []  # an ended one that was forgotten; its worker was late
        return [row.trial]

    def interrupt(self) -> list[int]:
        """Nobody works on any trial any more; returns those that have not ended."""
        left = [number for number, trial in self.trials.items() if not trial.ended]
        for number in left:
            self.trials[number].interrupt()
        return left

    def forget_ended(self) -> None:
        """Frees the memory of trials that have ended."""
        for number in [number for number, trial in self.trials.items() if trial.ended]:
            del self.trials[number]

    def frozen(self, trial: StudyTrial) -> FrozenTrial:
        """The trial as Optuna has it, of the local time as Optuna's own trials.

        With several objectives there are no intermediate values: Optuna has none there.
        """
        from optuna.trial import TrialState, create_trial

        state = TrialState[study_state(trial.state, trial.values)]
        has_values = state in (TrialState.COMPLETE, TrialState.PRUNED)
        values = trial.values if has_values and all(map(_is_figure, trial.values)) else None
        params = study_params(self.space, trial.configuration)
        frozen = create_trial(
            state=state,
            values=[float(value) for value in values if value is not None] if values else None,
            params=params,
            distributions=self._distributions_of(params),
            user_attrs=_attributes(trial),
            intermediate_values=dict(trial.reports) if len(self.objectives) == 1 else {},
        )
        frozen.datetime_start = datetime.fromtimestamp(trial.started)
        if state.is_finished():
            frozen.datetime_complete = datetime.fromtimestamp(trial.updated)
        return frozen

    def _distributions_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if self._distributions is None:
            self._distributions = study_distributions(self.space)
        return {
            name: containing(self._distributions[name], self.space.searched[name], value)
            for name, value in params.items()
        }

    def __iter__(self) -> Iterator[StudyTrial]:
        return iter([self.trials[number] for number in sorted(self.trials)])


def _attributes(trial: StudyTrial) -> dict[str, Any]:
    said = {"state": trial.state, "iteration": trial.iteration, "worker": trial.worker}
    return {**said, "changed": trial.changed} if trial.changed else said


def trials_of(
    rows: Iterable[Row], space: SearchSpace, objectives: Sequence[Objective]
) -> StudyTrials:
    """The trials that a journal's rows tell of."""
    trials = StudyTrials(space, objectives)
    for row in rows:
        trials.take(row)
    return trials

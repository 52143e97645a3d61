"""Runs a search without knowing who trains: asks, reports, decides, and writes the journal.

The coordinator stands between the plain objects (searcher, scheduler) and whoever runs the trials
(Ray Tune through ``tuning.adapters``, or a loop in a test). Everything that happens goes through
one of its methods, is written to the journal before it takes effect, and is told to listeners
(live view, tracking). `Coordinator.replay` brings searcher and scheduler to the state they had
when the journal's last row was written.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from model.errors import ExperimentError
from tuning.journal import Journal, Row
from tuning.scheduling import Decision, Scheduler
from tuning.search import Outcome, Searcher

_LOGGER = logging.getLogger(__name__)
#: A search ends when this many trials failed and none ever reported.
HOPELESS = 3


@dataclass(frozen=True)
class Objective:
    """What is optimised.

    Attributes:
        name: A metric of the trainer, such as ``val_loss``.
        goal: ``minimize`` or ``maximize``.
    """

    name: str
    goal: str

    def better(self, value: float | None, than: float | None) -> bool:
        """Whether a value improves on another; nothing improves by being NaN or absent."""
        if value is None or not math.isfinite(value):
            return False
        if than is None:
            return True
        return value < than if self.goal == "minimize" else value > than


@dataclass(frozen=True)
class Assignment:
    """An attempt at a trial, to be run.

    Attributes:
        trial: Number of the trial.
        attempt: From 1; beyond 1 the trial goes on from its newest checkpoint.
        config: Searched and fixed fields.
    """

    trial: int
    attempt: int
    config: dict[str, Any]


class Listener(Protocol):
    """Hears of every row after it was written and taken in."""

    def heard(self, row: Row) -> None:
        """Called with each new row of the journal."""


@dataclass
class TrialRecord:
    """What the coordinator knows of a trial.

    Attributes:
        config: Searched and fixed fields.
        attempt: The current or last attempt.
        failures: Attempts that failed since the last new iteration; interruptions do not count.
        iteration: Highest iteration reported.
        value: Best so far of the objective.
        state: As in `Row.state`; ``running`` until it ends.
        decisions: Decision at each iteration reported, to be given again to a restarted trial.
    """

    config: dict[str, Any]
    attempt: int = 1
    failures: int = 0
    iteration: int = 0
    value: float | None = None
    state: str = "running"
    decisions: dict[int, str] = field(default_factory=dict)


class Coordinator:
    """Wires searcher, scheduler and journal; see the module's description.

    Args:
        searcher: Proposes configurations.
        scheduler: Decides which trials go on.
        journal: Written before anything takes effect.
        objective: What is optimised.
        trials: How many trials to run, or None for as many as the searcher has.
        max_failures: Failed attempts without progress after which a trial is given up.
    """

    def __init__(
        self,
        searcher: Searcher,
        scheduler: Scheduler,
        journal: Journal,
        objective: Objective,
        *,
        trials: int | None,
        max_failures: int = 3,
    ) -> None:
        self.searcher = searcher
        self.scheduler = scheduler
        self.journal = journal
        self.objective = objective
        self.target = trials
        self.max_failures = max_failures
        self.trials: dict[int, TrialRecord] = {}
        self.listeners: list[Listener] = []
        self._to_restart: deque[int] = deque()
        self._exhausted = False

    # What the runner of trials calls

    def next_assignment(self) -> Assignment | None:
        """The next attempt to run: trials to restart first, then a new proposal.

        Returns:
            None where there is nothing to start now; see `done`.
        """
        if self._to_restart:
            return self._restart(self._to_restart.popleft())
        if self._exhausted or (self.target is not None and len(self.trials) >= self.target):
            return None
        config = self.searcher.ask()
        if config is None:
            self._exhausted = True
            return None
        trial = len(self.trials)
        self.trials[trial] = TrialRecord(dict(config))
        row = Row(kind="proposed", trial=trial, attempt=1, config=config, state="running")
        self._tell(self._write(row))
        return Assignment(trial, 1, config)

    def _restart(self, trial: int) -> Assignment:
        record = self.trials[trial]
        record.attempt += 1
        row = Row(
            kind="restarted",
            trial=trial,
            attempt=record.attempt,
            config=record.config,
            state="running",
        )
        self._tell(self._write(row))
        return Assignment(trial, record.attempt, record.config)

    def report(
        self,
        trial: int,
        iteration: int,
        metrics: dict[str, Any],
        *,
        state: str = "running",
        worker: str | None = None,
        note: str | None = None,
    ) -> Decision:
        """Takes a trial's report and decides whether it goes on.

        A restarted trial reports again what its checkpoint held, and perhaps more: iterations
        that were reported before get the decision that was given then, and searcher and scheduler
        do not hear of them twice.

        Args:
            trial: Number of the trial.
            iteration: Training iterations done.
            metrics: What the trainer measured.
            state: ``running``, ``finished`` (no iterations left) or ``diverged``.
            worker: Where it runs.
            note: What went wrong without ending it: a damaged checkpoint that was passed over.
        """
        record = self.trials[trial]
        known = iteration in record.decisions
        row = Row(
            kind="report",
            trial=trial,
            attempt=record.attempt,
            iteration=iteration,
            config=record.config,
            metrics=metrics,
            worker=worker,
            values=[self._best(record, metrics)],
            state=state,
            reason=note,
        )
        decision = Decision(record.decisions[iteration]) if known else self._decide(row)
        stopped = decision is Decision.STOP and state == "running"
        row = self._write(_decided(row, decision, "stopped" if stopped else state))
        if not known:
            self._take_in(row)
        self._tell(row)
        return decision

    def _best(self, record: TrialRecord, metrics: dict[str, Any]) -> float | None:
        value = metrics.get(self.objective.name)
        return value if self.objective.better(value, record.value) else record.value

    def _decide(self, row: Row) -> Decision:
        assert row.trial is not None
        if row.state != "running":
            return Decision.STOP
        value = row.values[0] if row.values[0] is not None else math.nan
        return self.scheduler.report(row.trial, self._report_number(row.trial), value)

    def _report_number(self, trial: int) -> int:
        """Number from 1 of the report being made; rungs are counted in reports."""
        return len(self.trials[trial].decisions) + 1

    def _take_in(self, row: Row) -> None:
        """Updates the trial's record and tells the searcher, after a report was decided."""
        assert row.trial is not None and row.iteration is not None and row.decision is not None
        record = self.trials[row.trial]
        record.decisions[row.iteration] = row.decision
        record.failures = 0
        record.iteration = max(record.iteration, row.iteration)
        record.value = row.values[0]
        if record.value is not None:
            self.searcher.report(row.trial, row.iteration, record.value)
        assert row.state is not None
        if row.state != "running":
            self._end(row.trial, row.state)

    def failed(self, trial: int, reason: str, *, retry: bool = True) -> None:
        """Notes that an attempt failed; the trial is restarted while it may fail again.

        Args:
            trial: Number of the trial.
            reason: Why, in words.
            retry: Whether another attempt could end otherwise.

        Raises:
            ExperimentError: where the first trials all failed without a report: whatever it is,
                the others would fail too.
        """
        record = self.trials[trial]
        if record.state != "running":
            return
        final = record.failures + 1 >= self.max_failures or not retry
        row = Row(
            kind="failed",
            trial=trial,
            attempt=record.attempt,
            iteration=record.iteration,
            config=record.config,
            values=[record.value],
            state="failed" if final else "running",
            reason=reason,
        )
        row = self._write(row)
        self._take_in_failure(row)
        if not final:
            self._to_restart.append(trial)
        self._tell(row)
        self._check_not_hopeless(reason)

    def _check_not_hopeless(self, reason: str) -> None:
        records = self.trials.values()
        failed = sum(record.state == "failed" for record in records)
        if failed >= HOPELESS and not any(record.decisions for record in records):
            raise ExperimentError(
                f"the first {failed} trials that ended all failed without a report: {reason}"
            )

    def _take_in_failure(self, row: Row) -> None:
        assert row.trial is not None
        self.trials[row.trial].failures += 1
        if row.state == "failed":
            self._end(row.trial, "failed")

    def _end(self, trial: int, state: str) -> None:
        record = self.trials[trial]
        record.state = state
        outcome = Outcome(state=state, value=record.value, iteration=record.iteration)
        self.searcher.tell(trial, outcome)
        self.scheduler.tell(trial, outcome)

    @property
    def live(self) -> list[int]:
        """Trials that have not ended."""
        return [trial for trial, record in self.trials.items() if record.state == "running"]

    @property
    def done(self) -> bool:
        """Whether every requested trial has ended."""
        full = self.target is not None and len(self.trials) >= self.target
        return not self.live and (full or self._exhausted)

    @property
    def best(self) -> tuple[int, float] | None:
        """The trial with the best value so far, running ones included, and that value."""
        chosen: tuple[int, float] | None = None
        for trial, record in self.trials.items():
            value = record.value
            if value is not None and self.objective.better(value, chosen[1] if chosen else None):
                chosen = trial, value
        return chosen

    # Sessions and replay

    def session(self, kind: str, reason: str, **metrics: float) -> None:
        """Notes that a driver began (``session``) or left (``ended``), and what it measured."""
        self._tell(self._write(Row(kind=kind, reason=reason, metrics=metrics)))

    def replay(self, rows: Sequence[Row]) -> None:
        """Rebuilds everything from the rows of an earlier driver, without writing any.

        Trials that had not ended are restarted, in the order of their numbers.
        """
        for row in rows:
            if row.kind == "proposed":
                self._replay_proposal(row)
            elif row.kind == "restarted" and row.trial is not None and row.attempt is not None:
                self.trials[row.trial].attempt = row.attempt
            elif row.kind == "report":
                self._replay_report(row)
            elif row.kind == "failed":
                self._take_in_failure(row)
        self._to_restart.extend(sorted(self.live))

    def _replay_proposal(self, row: Row) -> None:
        assert row.trial == len(self.trials), "trials are numbered in the order of proposal"
        self.searcher.replay(row.config)
        self.trials[row.trial] = TrialRecord(dict(row.config))

    def _replay_report(self, row: Row) -> None:
        assert row.trial is not None and row.iteration is not None
        if row.iteration in self.trials[row.trial].decisions:
            return
        if row.metrics and row.state in ("running", "stopped"):
            value = row.values[0] if row.values[0] is not None else math.nan
            self.scheduler.report(row.trial, self._report_number(row.trial), value)
        self._take_in(row)

    def _write(self, row: Row) -> Row:
        return self.journal.append(row)

    def _tell(self, row: Row) -> None:
        """Tells the listeners; one that fails is heard no more, and the search goes on."""
        for listener in list(self.listeners):
            try:
                listener.heard(row)
            except Exception:
                _LOGGER.exception("%s failed and is left out from here on", type(listener).__name__)
                self.listeners.remove(listener)


def _decided(row: Row, decision: Decision, state: str) -> Row:
    return replace(row, decision=decision.value, state=state)

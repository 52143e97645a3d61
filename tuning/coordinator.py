"""Runs a search without knowing who trains: asks, reports, decides, and writes the journal.

The coordinator stands between the plain objects (searcher, scheduler) and whoever runs the trials
(Ray Tune through ``tuning.adapters``, or a loop in a test). Everything that happens goes through
one of its methods, is written to the journal before it takes effect, and is told to listeners
(live view, tracking). `Coordinator.replay` brings searcher and scheduler to the state they had
when the journal's last row was written: the methods ``_take_in...`` are what both have in common.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from model.errors import ExperimentError
from tuning.journal import Journal, Row
from tuning.journal.row import (
    COMPLETE,
    INTERRUPTED,
    OUT_OF_GPU_MEMORY,
    TARGET_REACHED,
    is_blameless,
)
from tuning.objective import Objective, all_reached, best_values
from tuning.scheduling import Decision, Scheduler
from tuning.searchers import Outcome, Searcher
from tuning.trial_record import Assignment, Copy, TrialRecord

__all__ = ["Assignment", "Coordinator", "Listener", "Objective", "TrialRecord"]

_LOGGER = logging.getLogger(__name__)
#: Attempts lost with their nodes, without progress, after which a trial is given up.
MOST_LOSSES = 10
#: A search ends when this many trials failed and none ever reported.
HOPELESS = 3


class Listener(Protocol):
    """Hears of every row after it was written and taken in."""

    def heard(self, row: Row) -> None:
        """Called with each new row of the journal."""


class Coordinator:
    """Wires searcher, scheduler and journal; see the module's description.

    Args:
        searcher: Proposes configurations.
        scheduler: Decides which trials go on.
        journal: Written before anything takes effect.
        objectives: What is optimised; the first decides which report of a trial is its best.
        trials: How many trials to run, or None for as many as the searcher has.
        max_failures: Failed attempts without progress after which a trial is given up.

    Attributes:
        target: How many trials to run, extensions included.
        target_reached: Whether a trial is as good as the objectives' targets.
        check: Called before every row is written; raises where the search must not go on.
        keep_safe: Called where the rows written so far must outlive this machine: before a trial
            whose files are of one configuration goes on with another's weights and configuration.
        keep_weights: Called with (source, trial, iteration) before a trial takes over another's
            weights: it is to keep the source's newest checkpoint for the trial.
    """

    def __init__(
        self,
        searcher: Searcher,
        scheduler: Scheduler,
        journal: Journal,
        objectives: Sequence[Objective],
        *,
        trials: int | None,
        max_failures: int = 3,
    ) -> None:
        self.searcher = searcher
        self.scheduler = scheduler
        self.journal = journal
        self.objectives = tuple(objectives)
        self.target = trials
        self.max_failures = max_failures
        self.trials: dict[int, TrialRecord] = {}
        self.listeners: list[Listener] = []
        self.target_reached = False
        self.keep_weights: Callable[[int, int, int], None] = lambda source, trial, iteration: None
        self.check: Callable[[], None] = lambda: None
        self.keep_safe: Callable[[], None] = lambda: None
        self._to_restart: deque[int] = deque()
        self._exhausted = False

    # What the runner of trials calls

    def next_assignment(self) -> Assignment | None:
        """The next attempt to run: trials to restart first, then a new proposal.

        Returns:
            None where there is nothing to start now; see `done`.
        """
        if self.target_reached:
            self._stop_waiting()
            return None
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
        self.scheduler.started(trial, config)
        row = Row(kind="proposed", trial=trial, attempt=1, config=config, state="running")
        self._tell(self._write(row))
        return Assignment(trial, 1, config)

    def _restart(self, trial: int) -> Assignment:
        record = self.trials[trial]
        row = replace(self._row("restarted", trial), attempt=record.attempt + 1, values=[])
        if record.copy is None:
            row = replace(row, iteration=None)
        else:
            row = replace(
                row,
                config=record.copy.config,
                source=record.copy.source,
                source_iteration=record.copy.source_iteration,
            )
        row = self._write(row)
        if row.source is not None:
            self.keep_safe()
        self._take_in_restart(row)
        self._tell(row)
        return Assignment(trial, record.attempt, record.config, record.cloned_at, record.iteration)

    def _take_in_restart(self, row: Row) -> None:
        assert row.trial is not None and row.attempt is not None
        record = self.trials[row.trial]
        record.attempt = row.attempt
        if row.source is not None and row.iteration is not None:
            record.config, record.copy, record.cloned_at = dict(row.config), None, row.iteration
            # The new attempt repeats that report, and then goes on.
            record.decisions[row.iteration] = Decision.CONTINUE.value

    def _stop_waiting(self) -> None:
        """Ends the trials that wait to be restarted: the search has what it was asked for."""
        while self._to_restart:
            row = self._row("stopped", self._to_restart.popleft())
            row = self._write(replace(row, state="stopped", reason=TARGET_REACHED))
            self._take_in_stop(row)
            self._tell(row)

    def _take_in_stop(self, row: Row) -> None:
        assert row.trial is not None
        self._end(row.trial, "stopped")

    def report(
        self,
        trial: int,
        iteration: int,
        metrics: dict[str, Any],
        *,
        state: str = "running",
        worker: str | None = None,
        note: str | None = None,
        worker_device: str | None = None,
        worker_type: str | None = None,
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
            worker_device: As in `Row`.
            worker_type: As in `Row`.
        """
        record = self.trials[trial]
        known = record.decisions.get(iteration)
        row = replace(
            self._row("report", trial),
            iteration=iteration,
            metrics=metrics,
            worker=worker,
            worker_device=worker_device,
            worker_type=worker_type,
            values=best_values(self.objectives, metrics, record.values),
            state=state,
            reason=note,
        )
        row = self._decided(row) if known is None else _with_decision(row, Decision(known))
        row = self._write(row)
        if known is None:
            self._take_in(row)
        self._tell(row)
        assert row.decision is not None
        return Decision(row.decision)

    def _decided(self, row: Row) -> Row:
        """A new report with the scheduler's decision, or the end where the target is reached."""
        decision = self._decide(row)
        if decision is not Decision.STOP and self._good_enough(row.values):
            row = replace(row, reason=row.reason or TARGET_REACHED)
            decision = Decision.STOP
        if decision is Decision.CLONE:
            assert row.trial is not None and row.iteration is not None
            copy = self._copy_of(row.trial)
            self.keep_weights(copy.source, row.trial, row.iteration)
            self.trials[row.trial].copy = copy
        return _with_decision(row, decision)

    def _decide(self, row: Row) -> Decision:
        assert row.trial is not None
        if row.state != "running":
            return Decision.STOP
        return self._ask_scheduler(row)

    def _ask_scheduler(self, row: Row) -> Decision:
        """The scheduler's decision on a new report; figures that are none are NaN to it."""
        assert row.trial is not None
        best, latest = row.values[0], row.metrics.get(self.objective.name)
        return self.scheduler.report(
            row.trial,
            self._report_number(row.trial),
            math.nan if best is None else best,
            latest=math.nan if latest is None else latest,
        )

    def _report_number(self, trial: int) -> int:
        """Number from 1 of the report being made; rungs are counted in reports."""
        return len(self.trials[trial].decisions) + 1

    def _good_enough(self, values: Sequence[float | None]) -> bool:
        return self.target_reached or all_reached(self.objectives, values)

    def _copy_of(self, trial: int) -> Copy:
        """What the scheduler's decision to clone, just made, asks for."""
        clone = self.scheduler.clone_of(trial)
        source = self.trials[clone.source]
        return Copy(clone.source, source.iteration, dict(clone.configuration))

    def _take_in(self, row: Row) -> None:
        """Updates the trial's record and tells the searcher, after a report was decided."""
        assert row.trial is not None and row.iteration is not None and row.decision is not None
        record = self.trials[row.trial]
        record.decisions[row.iteration] = row.decision
        record.failures = record.losses = 0
        record.iteration = max(record.iteration, row.iteration)
        record.values = row.values
        self.target_reached = self._good_enough(record.values)
        if record.value is not None:
            self.searcher.report(row.trial, row.iteration, record.value)
        assert row.state is not None
        if row.state != "running":
            self._end(row.trial, row.state)
        elif row.decision == Decision.CLONE:
            self._to_restart.append(row.trial)

    def failed(self, trial: int, reason: str, *, retry: bool = True) -> None:
        """Notes that an attempt failed; the trial is restarted while it may fail again.

        Args:
            trial: Number of the trial.
            reason: Why, in words; one that `is_blameless` knows does not count as a failure, but
                after `MOST_LOSSES` without progress it may be the trial that ends its nodes.
            retry: Whether another attempt could end otherwise.

        Raises:
            ExperimentError: where the first trials all failed without a report: whatever it is,
                the others would fail too.
        """
        record = self.trials[trial]
        if record.state != "running" or trial in self._to_restart:
            return  # that attempt had ended before
        if is_blameless(reason):
            enough = record.losses + 1 >= MOST_LOSSES
        else:
            enough = record.failures + 1 >= self.max_failures
        final = enough or not retry
        state = "failed" if final else "running"
        row = self._write(replace(self._row("failed", trial), state=state, reason=reason))
        self._take_in_failure(row)
        if not final:
            self._to_restart.append(trial)
        self._tell(row)
        if not reason.startswith(OUT_OF_GPU_MEMORY):  # a smaller configuration may fit
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
        if is_blameless(row.reason):
            self.trials[row.trial].losses += 1
        else:
            self.trials[row.trial].failures += 1
        if row.state == "failed":
            self._end(row.trial, "failed")

    def _end(self, trial: int, state: str) -> None:
        record = self.trials[trial]
        record.state = state
        outcome = Outcome(
            state=state,
            value=record.value,
            iteration=record.iteration,
            others=tuple(record.values[1:]),
        )
        self.searcher.tell(trial, outcome)
        self.scheduler.tell(trial, outcome)

    @property
    def live(self) -> list[int]:
        """Trials that have not ended."""
        return [trial for trial, record in self.trials.items() if record.state == "running"]

    @property
    def done(self) -> bool:
        """Whether every requested trial has ended, or the target is reached and none is live."""
        full = self.target is not None and len(self.trials) >= self.target
        return (full or self._exhausted or self.target_reached) and not self.live

    @property
    def exhausted(self) -> bool:
        """Whether the searcher has no other configuration."""
        return self._exhausted

    @property
    def objective(self) -> Objective:
        """The first objective, which trials are ranked by."""
        return self.objectives[0]

    @property
    def best(self) -> tuple[int, float] | None:
        """The trial with the best value of the first objective so far, running ones included."""
        chosen: tuple[int, float] | None = None
        for trial, record in self.trials.items():
            value = record.value
            if value is not None and self.objective.better(value, chosen[1] if chosen else None):
                chosen = trial, value
        return chosen

    # Asking for more

    def extend(self, trials: int) -> None:
        """Asks for more trials, with all that was learned so far."""
        row = self._write(Row(kind="extended", metrics={"trials": trials}))
        self._take_in_extension(row)
        self._tell(row)

    def _take_in_extension(self, row: Row) -> None:
        if self.target is not None:
            self.target += int(row.metrics["trials"])

    def ended_badly(self, *, diverged: bool = False) -> list[int]:
        """Trials that failed, and those that diverged where these are asked for."""
        states = ("failed", "diverged") if diverged else ("failed",)
        return [trial for trial, record in self.trials.items() if record.state in states]

    def retry(self, trials: Iterable[int]) -> None:
        """Lets trials that failed or diverged run again, as further attempts."""
        for trial in trials:
            row = self._write(self._row("retried", trial))
            self._take_in_retry(row)
            self._to_restart.append(trial)
            self._tell(row)
        self._to_restart = deque(sorted(self._to_restart))  # as after a replay

    def _take_in_retry(self, row: Row) -> None:
        assert row.trial is not None
        record = self.trials[row.trial]
        record.state, record.failures, record.losses = "running", 0, 0
        # Where it ended it may go on this time: that report is judged anew.
        for iteration, decision in list(record.decisions.items()):
            if decision == Decision.STOP:
                del record.decisions[iteration]
        self.searcher.retried(row.trial)

    # Sessions and replay

    def session(self, kind: str, reason: str, **metrics: float) -> None:
        """Notes that a driver began (``session``) or left (``ended``), and what it measured."""
        self._tell(self._write(Row(kind=kind, reason=reason, metrics=metrics)))

    def end_session(self, otherwise: str = INTERRUPTED) -> None:
        """Notes that the driver leaves, and whether the search has all that was asked for.

        Args:
            otherwise: Why it leaves where the search has not.
        """
        reason = TARGET_REACHED if self.target_reached else COMPLETE
        self.session("ended", reason if self.done else otherwise)

    def replay(self, rows: Sequence[Row]) -> None:
        """Rebuilds everything from the rows of an earlier driver, without writing any.

        Trials that had not ended are restarted, in the order of their numbers.
        """
        readers: dict[str, Callable[[Row], None]] = {
            "proposed": self._replay_proposal,
            "restarted": self._take_in_restart,
            "report": self._replay_report,
            "failed": self._take_in_failure,
            "stopped": self._take_in_stop,
            "extended": self._take_in_extension,
            "retried": self._take_in_retry,
        }
        for row in rows:
            if row.kind in readers:
                readers[row.kind](row)
        self._to_restart = deque(sorted(self.live))

    def _replay_proposal(self, row: Row) -> None:
        assert row.trial == len(self.trials), "trials are numbered in the order of proposal"
        self.searcher.replay(row.config)
        self.trials[row.trial] = TrialRecord(dict(row.config))
        self.scheduler.started(row.trial, row.config)

    def _replay_report(self, row: Row) -> None:
        assert row.trial is not None and row.iteration is not None
        record = self.trials[row.trial]
        if row.iteration in record.decisions:
            return
        if row.metrics and row.state in ("running", "stopped"):
            self._ask_scheduler(row)
        if row.decision == Decision.CLONE:
            record.copy = self._copy_of(row.trial)
        self._take_in(row)

    def _row(self, kind: str, trial: int) -> Row:
        """A row that says how a trial stands."""
        record = self.trials[trial]
        return Row(
            kind=kind,
            trial=trial,
            attempt=record.attempt,
            iteration=record.iteration,
            config=record.config,
            values=list(record.values) or [None] * len(self.objectives),
            state="running",
        )

    def _write(self, row: Row) -> Row:
        self.check()
        return self.journal.append(row)

    def _tell(self, row: Row) -> None:
        """Tells the listeners; one that fails is heard no more, and the search goes on."""
        for listener in list(self.listeners):
            try:
                listener.heard(row)
            except Exception:
                _LOGGER.exception("%s failed and is left out from here on", type(listener).__name__)
                self.listeners.remove(listener)


def _with_decision(row: Row, decision: Decision) -> Row:
    """The row with a decision; a running trial that it stops is stopped."""
    stopped = decision is Decision.STOP and row.state == "running"
    return replace(row, decision=decision.value, state="stopped" if stopped else row.state)

"""How a search goes, for Prometheus, through Ray's own metrics.

Every node of a Ray with its dashboard (``ray[default]``) serves them, beside Ray's own, at its
metrics port, and Ray writes the list of these for Prometheus into its temporary directory. Without
it nothing is served, and nothing goes wrong. There are as many series as states and nodes, however
many trials there are.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from tuning.coordinator import Coordinator
from tuning.journal import Row
from tuning.journal.row import is_blameless
from tuning.outcome import STATES

_PREFIX = "dialogue_tune"
_STATES = ("running", *STATES)


class SearchMetrics:
    """Listens to a coordinator, with Ray connected, and keeps the metrics up to date.

    - ``dialogue_tune_trials{experiment, state}``: how many trials are in each state.
    - ``dialogue_tune_best{experiment, objective}``: the best value of the first objective so far.
    - ``dialogue_tune_reports{experiment, node}``: reports that came from each node, counted.
    - ``dialogue_tune_failed_attempts{experiment}``: attempts that failed, counted.

    Args:
        coordinator: Its trials are counted.
        name: The experiment's name.
    """

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        from ray.util.metrics import Counter as RayCounter
        from ray.util.metrics import Gauge

        self.coordinator = coordinator
        self.experiment = {"experiment": name}
        self.states = {trial: record.state for trial, record in coordinator.trials.items()}
        self.counts = Counter(self.states.values())
        self.trials = self._metric(Gauge, "trials", "Trials in each state.", "state")
        self.best = self._metric(Gauge, "best", "Best value of the objective so far.", "objective")
        self.reports = self._metric(RayCounter, "reports", "Reports from each node.", "node")
        self.failures = self._metric(RayCounter, "failed_attempts", "Attempts that failed.")
        self._show_states()
        self._best: float | None = None
        if coordinator.best is not None:
            self._take_value(coordinator.best[1])

    def _metric(self, kind: Any, name: str, description: str, *tags: str) -> Any:
        metric = kind(f"{_PREFIX}_{name}", description, tag_keys=("experiment", *tags))
        metric.set_default_tags(self.experiment)
        return metric

    def heard(self, row: Row) -> None:
        """Takes a row of the journal."""
        if row.trial is None:
            return
        if row.kind == "report":
            self._take_report(row)
        elif row.kind == "failed" and not is_blameless(row.reason):
            self.failures.inc()
        self._take_state(row.trial, row.state or "running")

    def _take_report(self, row: Row) -> None:
        node = row.worker.rsplit(":", 1)[0] if row.worker else "unknown"
        self.reports.inc(tags={"node": node})
        if row.values and row.values[0] is not None:
            self._take_value(row.values[0])

    def _take_value(self, value: float) -> None:
        objective = self.coordinator.objective
        if math.isfinite(value) and objective.better(value, self._best):
            self._best = value
            self.best.set(value, tags={"objective": objective.name})

    def _take_state(self, trial: int, state: str) -> None:
        before = self.states.get(trial)
        if before == state:
            return
        self.counts[before or ""] -= 1
        self.counts[state] += 1
        self.states[trial] = state
        self._show_states()

    def _show_states(self) -> None:
        for state in _STATES:
            self.trials.set(self.counts[state], tags={"state": state})

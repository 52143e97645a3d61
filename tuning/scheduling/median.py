"""The median stopping rule: a trial stops when it is worse than the others were on average."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from model.validation import setting
from tuning.scheduling.base import (
    Decision,
    Scheduler,
    SchedulerSettings,
    cost,
    finite_or_none,
    or_infinity,
)
from tuning.scheduling.fifo import stops_nothing
from tuning.searchers import Outcome, check_goal, check_state

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep


@dataclass
class _Curve:
    """The reports of one trial from `MedianScheduler.min_reports` on.

    Attributes:
        reports: Their numbers, ascending.
        sums: Sum of the costs up to each.
    """

    reports: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)

    def add(self, report: int, cost: float) -> None:
        self.reports.append(report)
        self.sums.append(cost + (self.sums[-1] if self.sums else 0.0))

    def average(self, report: int) -> float:
        """Average cost up to a report; NaN where the trial made none, or has not come so far."""
        if not self.reports or self.reports[-1] < report:
            return math.nan
        count = bisect_right(self.reports, report)
        return self.sums[count - 1] / count if count else math.nan


class MedianScheduler(Scheduler):
    """Stops a trial whose best value is worse than the median of the others' running averages.

    The median stopping rule of Golovin et al. 2017, "Google Vizier: A Service for Black-Box
    Optimization", in its section on automated early stopping: a trial is stopped at report s if
    its best value by then is strictly worse than the median of the other trials' values, averaged
    over their reports up to s. As in Ray's `MedianStoppingRule`:

    - "the other trials" are those that came as far as report s, whether they have ended or not.
    - Nothing is judged before report `min_reports`, and averages are taken from there on: the
      first values of a training curve, alike for all, would hide the differences. With 1 this is
      the paper's average over all reports.
    - Nothing is judged while fewer than `min_trials` others came so far. An average that is not
      finite is none.

    A trial that has no finite best value when it is judged stops, whatever the others did.

    Args:
        min_reports: The first report at which a trial may be stopped, at least 1.
        min_trials: Other trials that a median needs, at least 1.
        goal: ``minimize`` or ``maximize``.
        reports: Reports that a trial makes, the last of which is not judged; None where unknown.
    """

    def __init__(
        self,
        min_reports: int = 3,
        min_trials: int = 3,
        goal: str = "minimize",
        *,
        reports: int | None = None,
    ) -> None:
        for name, number in (("min_reports", min_reports), ("min_trials", min_trials)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, but got {number!r}.")
        self.min_reports, self.min_trials = min_reports, min_trials
        self.goal = check_goal(goal)
        self.reports = reports
        self.stops_at = None if reports is None else frozenset(range(min_reports, reports))
        self._curves: dict[int, _Curve] = {}
        self._stopped: set[int] = set()

    def report(
        self, trial: int, report_number: int, value: float, *, latest: float | None = None
    ) -> Decision:
        """Notes what the report itself measured, and judges the trial by its best value."""
        if trial not in self._stopped and self._is_new(trial, report_number):
            measured = cost(value if latest is None else latest, self.goal)
            self._curves.setdefault(trial, _Curve()).add(report_number, measured)
            if not self._passes(trial, report_number, cost(value, self.goal)):
                self._stopped.add(trial)
        return Decision.STOP if trial in self._stopped else Decision.CONTINUE

    def _is_new(self, trial: int, report: int) -> bool:
        """Whether a report counts: a restarted trial may come with an earlier one."""
        if report < self.min_reports or (self.reports is not None and report >= self.reports):
            return False
        return trial not in self._curves or report > self._curves[trial].reports[-1]

    def _passes(self, trial: int, report: int, best: float) -> bool:
        if not math.isfinite(best):
            return False
        averages = [
            average
            for other, curve in self._curves.items()
            if other != trial and math.isfinite(average := curve.average(report))
        ]
        return len(averages) < self.min_trials or best <= statistics.median(averages)

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Keeps the trial's curve: later trials are compared with it."""

    def describe(self) -> str:
        """From when, and against what."""
        return (
            f"median stopping from report {self.min_reports} on, once {self.min_trials} other "
            "trials came as far: the best value must not be worse than the median of their averages"
        )

    def state_dict(self) -> dict[str, Any]:
        """Settings, the sum of each trial's costs at each report (None: not finite), who stopped.

        Sums, and not costs, because adding up again could round otherwise.
        """
        return {
            "format": 1,
            "scheduler": "median",
            "min_reports": self.min_reports,
            "min_trials": self.min_trials,
            "goal": self.goal,
            "reports": self.reports,
            "sums": [
                [trial, report, finite_or_none(total)]
                for trial, curve in self._curves.items()
                for report, total in zip(curve.reports, curve.sums, strict=True)
            ],
            "stopped": sorted(self._stopped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces everything recorded so far."""
        settings = ("min_reports", "min_trials", "goal", "reports")
        check_state(state, self.state_dict(), ("format", "scheduler", *settings))
        self._curves = {}
        for trial, report, total in state["sums"]:
            curve = self._curves.setdefault(trial, _Curve())
            curve.reports.append(report)
            curve.sums.append(or_infinity(total))
        self._stopped = set(state["stopped"])


@dataclass(frozen=True, kw_only=True)
class MedianSettings(SchedulerSettings):
    """``type: median`` of the ``dialogue_tune.scheduler`` block, see `MedianScheduler`."""

    kind: ClassVar[str] = "median"
    min_reports: int = setting(3, int, low=1, help="the first report at which a trial may stop")
    min_trials: int = setting(3, int, low=1, help="other trials that must have come as far")

    def make(self, sweep: Sweep, seed: int) -> Scheduler:  # noqa: D102
        if sweep.reports is not None and self.min_reports >= sweep.reports:
            return stops_nothing("median stopping", self.min_reports, sweep.reports)
        return MedianScheduler(
            self.min_reports, self.min_trials, sweep.objective.goal, reports=sweep.reports
        )

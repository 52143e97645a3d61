"""HyperBand: several brackets of asynchronous halving, from early judgement to none.

One bracket that judges early wastes little on bad trials, but loses slow starters; one that judges
late does the reverse. HyperBand runs both and everything between (Li et al. 2017, "Hyperband: A
Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 18(185)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from model.validation import setting
from model.wording import plural
from tuning.scheduling.asha import AshaScheduler
from tuning.scheduling.base import (
    Decision,
    Fault,
    Scheduler,
    SchedulerSettings,
)
from tuning.scheduling.fifo import stops_nothing
from tuning.searchers import Outcome, check_goal, check_state

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep


class HyperbandScheduler(Scheduler):
    """Brackets of `AshaScheduler`, each trial in one of them by its number.

    With r the first judgement, R the reports of a whole trial, and s_max = floor(log_eta(R / r)),
    the paper's bracket s = s_max, ..., 0 trains n_s = ceil((s_max + 1) / (s + 1) * eta^s) trials
    and judges them first at report R * eta^-s (Algorithm 1). As in Optuna's `HyperbandPruner`, the
    brackets here run without waiting and without an end, numbered 0, ..., s_max from the one that
    judges first, at reports r * eta^b, r * eta^(b + 1), ...; n_s gives the proportions in which
    trials are spread over them. Optuna hashes the trial's number; here the trials take turns
    (smooth weighted round robin), so that of any n_0 + ... + n_(s_max) trials on end exactly n_s
    are in each bracket. The last bracket judges at R only, that is never.

    Args:
        min_reports: r, the first report at which a trial may be judged, at least 1.
        max_reports: R, the reports of a whole trial; nothing is judged at or after it.
        eta: Reduction factor, at least 2.
        goal: ``minimize`` or ``maximize``.
        strict: The top 1/eta of a rung goes on, as in the paper; False lets one more trial go on,
            as `AshaScheduler` does by default.
    """

    def __init__(
        self,
        min_reports: int,
        max_reports: int,
        eta: float = 3,
        goal: str = "minimize",
        *,
        strict: bool = True,
    ) -> None:
        if not 1 <= min_reports <= max_reports:
            raise ValueError(
                f"min_reports must be from 1 to max_reports ({max_reports}), but got {min_reports}."
            )
        if not eta >= 2:
            raise ValueError(f"eta must be at least 2, but got {eta!r}.")
        self.min_reports, self.max_reports, self.eta = min_reports, max_reports, eta
        self.goal, self.strict = check_goal(goal), strict
        self.brackets = tuple(self._bracket(rungs) for rungs in self._rungs())
        #: n_s of each bracket: trials in it of each ``sum(shares)`` on end.
        self.shares = tuple(_shares(len(self.brackets), eta))
        judging = [bracket.rungs for bracket in self.brackets if bracket is not None]
        self.stops_at = frozenset(rung for rungs in judging for rung in rungs)
        self._taken: list[int] = []  # the bracket of each trial, as far as it was asked for
        self._credits = [0] * len(self.shares)

    def _rungs(self) -> list[list[int]]:
        """Report numbers at which each bracket judges; none for the last."""
        # By multiplication: a floating-point logarithm makes 4 of log_3(243).
        reached = [float(self.min_reports)]
        while reached[-1] * self.eta <= self.max_reports:
            reached.append(reached[-1] * self.eta)
        before = [int(report) for report in reached if int(report) < self.max_reports]
        return [before[first:] for first in range(len(reached))]

    def _bracket(self, rungs: list[int]) -> AshaScheduler | None:
        if not rungs:
            return None
        return AshaScheduler(rungs, self.eta, self.goal, strict=self.strict)

    def bracket_of(self, trial: int) -> int:
        """Number of a trial's bracket: 0 judges first and most."""
        while len(self._taken) <= trial:
            self._credits = [
                credit + share for credit, share in zip(self._credits, self.shares, strict=True)
            ]
            chosen = self._credits.index(max(self._credits))
            self._credits[chosen] -= sum(self.shares)
            self._taken.append(chosen)
        return self._taken[trial]

    def report(
        self, trial: int, report_number: int, value: float, *, latest: float | None = None
    ) -> Decision:
        """Judges the trial within its bracket."""
        bracket = self.brackets[self.bracket_of(trial)]
        if bracket is None:
            return Decision.CONTINUE
        return bracket.report(trial, report_number, value)

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Keeps what the trial left at its rungs, as `AshaScheduler` does."""

    def describe(self) -> str:
        """Where each bracket judges first, and its share of the trials."""
        parts = [
            f"{share} from report {bracket.rungs[0]}" if bracket else f"{share} never"
            for share, bracket in zip(self.shares, self.brackets, strict=True)
        ]
        strict = "" if self.strict else " and one more"
        return (
            f"{plural(len(parts), 'bracket')}; of {plural(sum(self.shares), 'trial')} judged: "
            f"{', '.join(parts)}; "
            f"the best 1/{self.eta:g}{strict} of a bracket's trials there go on"
        )

    def state_dict(self) -> dict[str, Any]:
        """Settings and the state of each bracket; which trial is in which follows from them."""
        return {
            "format": 1,
            "scheduler": "hyperband",
            "min_reports": self.min_reports,
            "max_reports": self.max_reports,
            "eta": self.eta,
            "goal": self.goal,
            "strict": self.strict,
            "brackets": [b.state_dict() if b is not None else None for b in self.brackets],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces everything recorded so far."""
        settings = ("min_reports", "max_reports", "eta", "goal", "strict")
        check_state(state, self.state_dict(), ("format", "scheduler", *settings))
        for bracket, saved in zip(self.brackets, state["brackets"], strict=True):
            if bracket is not None:
                bracket.load_state_dict(saved)


def _shares(brackets: int, eta: float) -> Iterator[int]:
    """n_s of Algorithm 1, from s_max down to 0."""
    for s in reversed(range(brackets)):
        # In this order whole numbers stay exact: 5 * 3^4 / 5 is 81.
        yield math.ceil(brackets * eta**s / (s + 1))


@dataclass(frozen=True, kw_only=True)
class BracketSettings(SchedulerSettings):
    """``type: hyperband`` of the ``dialogue_tune.scheduler`` block, see `HyperbandScheduler`."""

    kind: ClassVar[str] = "hyperband"
    min_reports: int = setting(1, int, low=1, help="r, the first judgement of the first bracket")
    max_reports: int | None = setting(
        None, int, low=2, optional=True, help="R; none means the reports that a trial makes"
    )
    eta: float = setting(3, float, low=2, help="about 1 in eta trials passes a rung")
    strict: bool = setting(True, bool, help="the best 1/eta, rounded down; else one more goes on")

    @classmethod
    def faults(cls, block: Mapping[str, Any]) -> Iterator[Fault]:
        """Yields what is wrong with the values, and with the two ends."""
        found = list(super().faults(block))
        yield from found
        low, high = block.get("min_reports", 1), block.get("max_reports")
        if not found and high is not None and low >= high:
            yield "min_reports", f"must be less than max_reports ({high}), but got {low}."

    def misfits(self, sweep: Sweep) -> Iterator[Fault]:
        """Yields where the reports of a whole trial are not known."""
        if self.max_reports is None and sweep.reports is None:
            yield (
                "max_reports",
                "is required: how many reports a trial makes is not known where iterations or "
                "report_every is searched.",
            )

    def make(self, sweep: Sweep, seed: int) -> Scheduler:
        """R is max_reports, but never more than the reports that a trial makes."""
        known = [n for n in (self.max_reports, sweep.reports) if n is not None]
        whole = min(known)
        if self.min_reports >= whole:
            return stops_nothing("hyperband", self.min_reports, whole)
        return HyperbandScheduler(
            self.min_reports, whole, self.eta, sweep.objective.goal, strict=self.strict
        )

"""Asynchronous successive halving, the rule that Weights & Biases calls ``hyperband``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from model.validation import setting
from tuning.scheduling.base import (
    Decision,
    Fault,
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

#: Rungs beyond this many reports are not listed; no trial gets there.
_LAST_RUNG = 10**9


class AshaScheduler(Scheduler):
    """Asynchronous successive halving that stops trials at rungs and never waits.

    Li et al. 2018, "A System for Massively Parallel Hyperparameter Tuning" (arXiv:1810.05934),
    Algorithm 2 in its stopping variant, which W&B calls ``hyperband``. The values that trials had
    when they reached a rung are recorded there, one per trial. A trial that reaches a rung as the
    n-th to do so goes on if fewer than k recorded values are better than its own, so that ties
    favour the newcomer:

    - by default k = floor(n / eta) + 1, W&B's own cut-off (it compares with the value in that
      place): the first trial goes on, of two the better one, of three (eta 3) the best two.
    - ``strict``: k = max(1, floor(n / eta)), the top 1/eta of the paper's ``top_k``. With fewer
      than eta values the paper promotes none, but there a trial only pauses; here the best one
      goes on, or no trial would ever pass.

    A trial with several rungs between two reports is recorded at the highest only. Reports
    between rungs continue. A NaN or infinite value at a rung is recorded as the worst, and stops.

    Args:
        rungs: Report numbers at which trials are judged.
        eta: Reduction factor, greater than 1; about 1 in eta trials passes a rung.
        goal: ``minimize`` or ``maximize``.
        strict: See above.
    """

    def __init__(
        self, rungs: Sequence[int], eta: float, goal: str = "minimize", *, strict: bool = False
    ) -> None:
        if not rungs or any(rung < 1 for rung in rungs):
            raise ValueError(f"rungs must be report numbers of at least 1, but got {rungs!r}.")
        if not eta > 1:
            raise ValueError(f"eta must be greater than 1, but got {eta!r}.")
        self.rungs = tuple(sorted(set(rungs)))
        self.stops_at = frozenset(self.rungs)
        self.eta = eta
        self.goal = check_goal(goal)
        self.strict = strict
        self._recorded: dict[int, dict[int, float]] = {rung: {} for rung in self.rungs}
        self._stopped: set[int] = set()

    def report(
        self, trial: int, report_number: int, value: float, *, latest: float | None = None
    ) -> Decision:
        """Records and judges the trial if this report reaches a rung that is new to it."""
        rung = self._reached(report_number)
        if trial not in self._stopped and rung is not None and rung > self._highest(trial):
            self._recorded[rung][trial] = cost(value, self.goal)
            if not self._passes(trial, rung):
                self._stopped.add(trial)
        return Decision.STOP if trial in self._stopped else Decision.CONTINUE

    def _reached(self, report_number: int) -> int | None:
        return max((rung for rung in self.rungs if rung <= report_number), default=None)

    def _highest(self, trial: int) -> int:
        return max((rung for rung in self.rungs if trial in self._recorded[rung]), default=0)

    def _passes(self, trial: int, rung: int) -> bool:
        costs = self._recorded[rung]
        better = sum(other < costs[trial] for other in costs.values())
        return math.isfinite(costs[trial]) and better < self._kept(len(costs))

    def _kept(self, recorded: int) -> int:
        share = math.floor(recorded / self.eta)
        return max(1, share) if self.strict else share + 1

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Keeps what the trial left at its rungs: later trials are compared with it."""

    def describe(self) -> str:
        """The rungs and the share that passes."""
        rungs = ", ".join(map(str, self.rungs))
        strict = " (strict)" if self.strict else ""
        return f"at reports {rungs}, the best 1/{self.eta:g} of the trials there go on{strict}"

    def state_dict(self) -> dict[str, Any]:
        """Settings, the values at every rung (None for the worst), and the stopped trials."""
        return {
            "format": 1,
            "scheduler": "asha",
            "rungs": list(self.rungs),
            "eta": self.eta,
            "goal": self.goal,
            "strict": self.strict,
            "recorded": [
                [rung, trial, finite_or_none(recorded)]
                for rung, costs in self._recorded.items()
                for trial, recorded in costs.items()
            ],
            "stopped": sorted(self._stopped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces everything recorded so far."""
        settings = ("format", "scheduler", "rungs", "eta", "goal", "strict")
        check_state(state, self.state_dict(), settings)
        self._recorded = {rung: {} for rung in self.rungs}
        for rung, trial, recorded in state["recorded"]:
            self._recorded[rung][trial] = or_infinity(recorded)
        self._stopped = set(state["stopped"])


@dataclass(frozen=True, kw_only=True)
class HyperbandSettings(SchedulerSettings):
    """W&B's ``early_terminate`` of type hyperband, which is ``asha`` here.

    Its iterations are reports. Where neither min_iter nor max_iter is given, the first rung is
    the first report; W&B's own block needs one of them.

    Attributes:
        min_iter: The first rung; the next ones are eta times as far each.
        max_iter: With ``s``, the rungs are max_iter / eta, max_iter / eta^2 and so on.
        s: How many rungs there are below max_iter.
        eta: Reduction factor, greater than 1.
        strict: Stop more trials, see `AshaScheduler`.
    """

    kind: ClassVar[str] = "asha"
    min_iter: int | None = setting(None, int, low=1, help="the first rung")
    max_iter: int | None = setting(None, int, low=1, help="with s: rungs from here downwards")
    s: int | None = setting(None, int, low=1, help="how many rungs there are below max_iter")
    eta: float = setting(3, float, above=1, help="about 1 in eta trials passes a rung")
    strict: bool = setting(False, bool, help="stop more: the best 1/eta, rounded down")

    @classmethod
    def faults(cls, block: Mapping[str, Any]) -> Iterator[Fault]:
        """Yields what is wrong with the values, and with max_iter and s one without the other."""
        for key in ("min_iter", "max_iter", "s"):
            if key in block and (type(block[key]) is not int or block[key] < 1):
                yield key, f"must be a whole number of at least 1, but got {block[key]!r}."
        eta = block.get("eta", 3)
        if type(eta) not in (int, float) or not 1 < eta < math.inf:
            yield "eta", f"must be a number greater than 1, but got {eta!r}."
        if type(block.get("strict", False)) is not bool:
            yield "strict", f"must be true or false, but got {block['strict']!r}."
        if "max_iter" in block and "s" not in block:
            yield "", "max_iter needs s, the number of rungs below it; or give min_iter alone."
        elif "max_iter" not in block and "s" in block:
            yield "", "s needs max_iter; or give min_iter alone."

    def rungs(self) -> tuple[int, ...]:
        """Report numbers of the rungs as W&B computes them: rounded down, each one once.

        Where max_iter is given, W&B uses it and no min_iter. The rungs from min_iter have no end
        in W&B (100 are made); here they end at 10^9.
        """
        bands = self._below_max_iter() if self.max_iter is not None else self._from_min_iter()
        return tuple(sorted({int(band) for band in bands}))

    def _below_max_iter(self) -> Iterator[float]:
        assert self.max_iter is not None and self.s is not None
        band: float = self.max_iter
        for _ in range(self.s):
            band /= self.eta
            if band < 1:
                return
            yield band

    def _from_min_iter(self) -> Iterator[float]:
        band: float = self.min_iter or 1
        for _ in range(100):
            if band > _LAST_RUNG:
                return
            yield band
            band *= self.eta

    def misfits(self, sweep: Sweep) -> Iterator[Fault]:
        """Yields where there is no rung at all."""
        if not self.rungs():
            yield "", "has no rung; raise max_iter, or lower eta."

    def make(self, sweep: Sweep, seed: int) -> Scheduler:
        """Rungs before a trial's last report, after which there is nothing left to stop."""
        rungs = self.rungs()
        within = [rung for rung in rungs if sweep.reports is None or rung < sweep.reports]
        if not within:
            return stops_nothing("asha", rungs[0], sweep.reports)
        return AshaScheduler(within, self.eta, sweep.objective.goal, strict=self.strict)

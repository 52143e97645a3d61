"""Schedulers: plain objects that say, report by report, which trials go on.

A scheduler sees each trial's best value so far, not its last, so that a curve that passed its
minimum (overfitting) is judged by the minimum. Schedulers hold no random state and no clock:
the same reports in the same order give the same decisions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from model.validation import Problems, did_you_mean
from tuning.search import Outcome, check_goal, check_state

if TYPE_CHECKING:
    from tuning.sweep_file import Sweep

#: Rungs beyond this many reports are not listed; no trial gets there.
_LAST_RUNG = 10**9


class Decision(StrEnum):
    """What becomes of a trial after a report."""

    CONTINUE = "continue"
    STOP = "stop"
    #: Wait, keep the checkpoint, and perhaps go on later (synchronous HyperBand). Not used yet.
    PAUSE = "pause"
    #: Go on from another trial's checkpoint (population-based training). Not used yet.
    CLONE = "clone"


class Scheduler(ABC):
    """Answers every report of a trial with a `Decision`.

    Attributes:
        stops_at: Numbers of the reports at which a trial that makes every report may be stopped;
            None for any.
    """

    stops_at: frozenset[int] | None = None

    @abstractmethod
    def report(self, trial: int, report_number: int, value: float) -> Decision:
        """Decides whether a trial goes on.

        Args:
            trial: Number of the trial, from 0.
            report_number: Number of this report of the trial, from 1; it may skip some.
            value: The trial's best value so far; NaN where it has none.
        """

    @abstractmethod
    def tell(self, trial: int, outcome: Outcome) -> None:
        """Hears that a trial has ended, for whatever reason."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that later decisions depend on, ready for JSON."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state of `state_dict`.

        Raises:
            ExperimentError: where the state is of a scheduler with other settings.
        """


class FifoScheduler(Scheduler):
    """Lets every trial train to its end."""

    stops_at = frozenset()

    def report(self, trial: int, report_number: int, value: float) -> Decision:
        """Always goes on, even from NaN: ending a diverged trial is the trainer's business."""
        return Decision.CONTINUE

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Needs to know nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Has no state but its name."""
        return {"format": 1, "scheduler": "fifo"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Checks the name only."""
        check_state(state, self.state_dict(), ("format", "scheduler"))


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

    def report(self, trial: int, report_number: int, value: float) -> Decision:
        """Records and judges the trial if this report reaches a rung that is new to it."""
        rung = self._reached(report_number)
        if trial not in self._stopped and rung is not None and rung > self._highest(trial):
            self._recorded[rung][trial] = self._cost(value)
            if not self._passes(trial, rung):
                self._stopped.add(trial)
        return Decision.STOP if trial in self._stopped else Decision.CONTINUE

    def _reached(self, report_number: int) -> int | None:
        return max((rung for rung in self.rungs if rung <= report_number), default=None)

    def _highest(self, trial: int) -> int:
        return max((rung for rung in self.rungs if trial in self._recorded[rung]), default=0)

    def _cost(self, value: float) -> float:
        """The value with less being better, and infinity for what is no number."""
        if not math.isfinite(value):
            return math.inf
        return value if self.goal == "minimize" else -value

    def _passes(self, trial: int, rung: int) -> bool:
        costs = self._recorded[rung]
        better = sum(cost < costs[trial] for cost in costs.values())
        return math.isfinite(costs[trial]) and better < self._kept(len(costs))

    def _kept(self, recorded: int) -> int:
        share = math.floor(recorded / self.eta)
        return max(1, share) if self.strict else share + 1

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Keeps what the trial left at its rungs: later trials are compared with it."""

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
                [rung, trial, cost if math.isfinite(cost) else None]
                for rung, costs in self._recorded.items()
                for trial, cost in costs.items()
            ],
            "stopped": sorted(self._stopped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces everything recorded so far."""
        settings = ("format", "scheduler", "rungs", "eta", "goal", "strict")
        check_state(state, self.state_dict(), settings)
        self._recorded = {rung: {} for rung in self.rungs}
        for rung, trial, cost in state["recorded"]:
            self._recorded[rung][trial] = math.inf if cost is None else cost
        self._stopped = set(state["stopped"])


@dataclass(frozen=True, kw_only=True)
class HyperbandSettings:
    """W&B's ``early_terminate`` of type hyperband. Its iterations are reports.

    Attributes:
        min_iter: The first rung; the next ones are eta times as far each.
        max_iter: With ``s``, the rungs are max_iter / eta, max_iter / eta^2 and so on.
        s: How many rungs there are below max_iter.
        eta: Reduction factor, greater than 1.
        strict: Stop more trials, see `AshaScheduler`.
    """

    min_iter: int | None = None
    max_iter: int | None = None
    s: int | None = None
    eta: float = 3
    strict: bool = False

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
        assert self.min_iter is not None
        band: float = self.min_iter
        for _ in range(100):
            if band > _LAST_RUNG:
                return
            yield band
            band *= self.eta


_HYPERBAND_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")


def parse_early_terminate(block: Any, problems: Problems) -> HyperbandSettings | None:
    """Reads the ``early_terminate`` block of a sweep file.

    Returns:
        The settings, or None where problems were noted.
    """
    path, noted = "early_terminate", len(problems.found)
    if not isinstance(block, Mapping):
        problems.add(path, f"must be a mapping with type and min_iter, but got {block!r}.")
        return None
    for key in block:
        if key not in _HYPERBAND_KEYS:
            problems.unknown_key(path, key, _HYPERBAND_KEYS)
    for key, problem in _block_faults(block):
        problems.add(f"{path}.{key}" if key else path, problem)
    if len(problems.found) > noted:
        return None
    return HyperbandSettings(**{key: block[key] for key in block if key != "type"})


def _block_faults(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = block.get("type")
    if "type" not in block:
        yield "type", "is required; supported: hyperband."
    elif kind != "hyperband":
        yield "type", f"unknown type {kind!r}{did_you_mean(str(kind), ['hyperband'])}"
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
    elif "min_iter" not in block and "max_iter" not in block:
        yield "", "needs min_iter, or max_iter and s."


def make_scheduler(sweep: Sweep) -> Scheduler:
    """The scheduler that a sweep file asks for: none without an ``early_terminate`` block.

    None too where every rung is beyond the reports that a trial makes; the sweep's notes say so.
    """
    settings = sweep.early_terminate
    if settings is None or not sweep.rungs:
        return FifoScheduler()
    return AshaScheduler(sweep.rungs, settings.eta, sweep.goal, strict=settings.strict)

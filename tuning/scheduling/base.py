"""What a scheduler is: it hears of trials and their reports, and says which go on.

A scheduler sees each trial's best value so far, not its last, so that a curve that passed its
minimum (overfitting) is judged by the minimum. Rules that are defined on the value of the report
itself (running averages, the fitness of a population's member) get it beside, as ``latest``.
Schedulers hold no random state and no clock: the same calls in the same order give the same
decisions, in another process too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from model.validation import rules_of
from tuning.searchers import Outcome

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep

#: What is wrong with a key of a block; the key is empty where it is the whole.
Fault = tuple[str, str]


class Decision(StrEnum):
    """What becomes of a trial after a report."""

    CONTINUE = "continue"
    STOP = "stop"
    #: Wait, keep the checkpoint, and perhaps go on later (synchronous HyperBand). Not used yet.
    PAUSE = "pause"
    #: Go on from another trial's checkpoint; `Scheduler.clone_of` says from which.
    CLONE = "clone"


@dataclass(frozen=True)
class Clone:
    """How a trial goes on after `Decision.CLONE`.

    It takes the weights and the optimizer's moments of the source's newest checkpoint, with a
    configuration of its own. Its count of reports and iterations goes on where it was: what is
    copied are weights and hyper-parameters, not the step (Jaderberg et al. 2017, Algorithm 1).

    Attributes:
        source: Number of the trial whose checkpoint is taken; it has not ended.
        configuration: Searched and fixed fields from here on.
    """

    source: int
    configuration: dict[str, Any]


class Scheduler(ABC):
    """Answers every report of a trial with a `Decision`.

    Attributes:
        stops_at: Numbers of the reports at which a trial that makes every report may be stopped,
            or be told to go on from another; None for any.
    """

    stops_at: frozenset[int] | None = None

    def started(  # noqa: B027
        self, trial: int, configuration: Mapping[str, Any]
    ) -> None:
        """Hears of a new trial, before its first report; most schedulers need not know."""

    @abstractmethod
    def report(
        self, trial: int, report_number: int, value: float, *, latest: float | None = None
    ) -> Decision:
        """Decides whether a trial goes on.

        Args:
            trial: Number of the trial, from 0.
            report_number: Number of this report of the trial, from 1; it may skip some.
            value: The trial's best value so far; NaN where it has none.
            latest: The value of this report itself; None where it is no other than `value`.
        """

    def clone_of(self, trial: int) -> Clone:
        """What a trial that was just answered `Decision.CLONE` goes on from.

        Raises:
            LookupError: where it was not.
        """
        raise LookupError(f"trial {trial} was not told to go on from another.")

    @abstractmethod
    def tell(self, trial: int, outcome: Outcome) -> None:
        """Hears that a trial has ended, for whatever reason."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people: when it judges and who goes on."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that later decisions depend on, ready for JSON."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state of `state_dict`.

        Raises:
            ExperimentError: where the state is of a scheduler with other settings.
        """


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings(ABC):
    """The options of one kind of scheduler, as the ``dialogue_tune.scheduler`` block names them.

    Fields are declared with `model.validation.setting`; their rules check the block.
    """

    kind: ClassVar[str]

    @classmethod
    def faults(cls, block: Mapping[str, Any]) -> Iterator[Fault]:
        """Yields (key, what is wrong) for the values of a block; unknown keys are not looked at."""
        for key, rule in rules_of(cls).items():
            problem = rule.problem_with(block[key]) if key in block else None
            if problem is not None:
                yield key, problem

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The options there are."""
        return tuple(rules_of(cls))

    def misfits(self, sweep: Sweep) -> Iterator[Fault]:
        """Yields (key, what is wrong) where the settings cannot be used on a sweep."""
        return iter(())

    @abstractmethod
    def make(self, sweep: Sweep, seed: int) -> Scheduler:
        """The scheduler for a sweep in which `misfits` finds nothing.

        It may stop nothing, where every judgement is beyond the reports that a trial makes; its
        description says so.
        """


def cost(value: float, goal: str) -> float:
    """The value with less being better, and infinity for what is no number."""
    if not math.isfinite(value):
        return math.inf
    return value if goal == "minimize" else -value


def finite_or_none(number: float) -> float | None:
    """A number as JSON can hold it: None for infinity, which stands for the worst."""
    return number if math.isfinite(number) else None


def or_infinity(number: float | None) -> float:
    """What `finite_or_none` was made from."""
    return math.inf if number is None else number

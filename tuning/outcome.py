"""How a trial ended, as searchers and schedulers hear it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuning.distributions import Scalar

#: How a trial can end.
STATES = ("finished", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: ``finished`` (no iterations left), ``stopped`` (early, by the scheduler),
            ``diverged`` (its loss became NaN or exploded) or ``failed`` (gave no result).
        value: Best so far of the objective, or None where it never had one.
        iteration: Training iterations done.
    """

    state: str
    value: float | None
    iteration: int

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, but got {self.state!r}.")


@dataclass(frozen=True)
class PastTrial:
    """A trial of another experiment that had the same objective and data.

    Attributes:
        configuration: A point of the search space.
        outcome: How it ended.
        reports: (training iterations, best value so far), in order.
    """

    configuration: Mapping[str, Scalar]
    outcome: Outcome
    reports: Sequence[tuple[int, float]] = ()

"""How a trial ended, as searchers and schedulers hear it."""

from __future__ import annotations

import math
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
        value: Best so far of the (first) objective, or None where it never had one.
        iteration: Training iterations done.
        others: Values of further objectives, of the report where the first was best.
    """

    state: str
    value: float | None
    iteration: int
    others: tuple[float | None, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it finished with a finite value of every objective."""
        return self.state == "finished" and self.has_values

    @property
    def has_values(self) -> bool:
        """Whether there is a finite value of every objective."""
        return all(v is not None and math.isfinite(v) for v in (self.value, *self.others))

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

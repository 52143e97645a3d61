"""What the coordinator knows of a trial, and what it hands to whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Assignment:
    """An attempt at a trial, to be run.

    Attributes:
        trial: Number of the trial.
        attempt: From 1; beyond 1 the trial goes on from its newest checkpoint.
        config: Searched and fixed fields.
        cloned_at: The trial's iteration at which it last took over another trial's weights; None
            where it never did.
        reported: The trial's newest iteration whose report is known.
    """

    trial: int
    attempt: int
    config: dict[str, Any]
    cloned_at: int | None = None
    reported: int = 0


@dataclass(frozen=True)
class Copy:
    """What a trial takes over from another (population-based training).

    Attributes:
        source: Number of the trial whose weights it takes.
        source_iteration: Iterations that the source had reported then.
        config: Searched and fixed fields from here on.
    """

    source: int
    source_iteration: int
    config: dict[str, Any]


@dataclass
class TrialRecord:
    """What the coordinator knows of a trial.

    Attributes:
        config: Searched and fixed fields.
        attempt: The current or last attempt.
        failures: Attempts that failed since the last new iteration; interruptions do not count.
        losses: Attempts that were lost with their node since then.
        iteration: Highest iteration reported.
        values: Of each objective at the trial's best report, see `tuning.objective.best_values`;
            none before the first report.
        state: As in `Row.state`; ``running`` until it ends.
        decisions: Decision at each iteration reported, to be given again to a restarted trial.
        copy: What its next attempt is to take over from another trial, if anything.
        cloned_at: As in `Assignment`.
    """

    config: dict[str, Any]
    attempt: int = 1
    failures: int = 0
    losses: int = 0
    iteration: int = 0
    values: list[float | None] = field(default_factory=list)
    state: str = "running"
    decisions: dict[int, str] = field(default_factory=dict)
    copy: Copy | None = None
    cloned_at: int | None = None

    @property
    def value(self) -> float | None:
        """The first of `values`: the best so far of the first objective."""
        return self.values[0] if self.values else None

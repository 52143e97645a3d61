"""What a search optimises, and when that is good enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Objective:
    """What is optimised.

    Attributes:
        name: A metric of the trainer, such as ``val_loss``.
        goal: ``minimize`` or ``maximize``.
        target: The search ends once a trial has this value or a better one (with several
            objectives: all that are given); None for never.
    """

    name: str
    goal: str
    target: float | None = None

    def __str__(self) -> str:
        """In words, such as ``minimize val_loss, ends at 2.5``."""
        end = "" if self.target is None else f", ends at {self.target:g}"
        return f"{self.goal} {self.name}{end}"

    def better(self, value: float | None, than: float | None) -> bool:
        """Whether a value improves on another; nothing improves by being NaN or absent."""
        if value is None or not math.isfinite(value):
            return False
        if than is None:
            return True
        return value < than if self.goal == "minimize" else value > than

    def reached(self, value: float | None) -> bool:
        """Whether a value is as good as the target; never where there is none."""
        if self.target is None or value is None or not math.isfinite(value):
            return False
        return value == self.target or self.better(value, self.target)

    def to_mapping(self) -> dict[str, Any]:
        """The objective as a manifest has it; a target only where there is one."""
        target = {} if self.target is None else {"target": self.target}
        return {"name": self.name, "goal": self.goal, **target}


def best_values(
    objectives: Sequence[Objective],
    metrics: Mapping[str, Any],
    before: Sequence[float | None] = (),
) -> list[float | None]:
    """A trial's value of each objective: that of the report where the first one was best.

    So the values are those of one model, whose weights are kept.

    Args:
        objectives: What is optimised.
        metrics: Of a new report.
        before: The values before it.

    Returns:
        One for each objective; None where there is none yet.
    """
    first = objectives[0]
    if not first.better(metrics.get(first.name), before[0] if before else None):
        return list(before) or [None] * len(objectives)
    return [metrics.get(objective.name) for objective in objectives]


def all_reached(objectives: Sequence[Objective], values: Sequence[float | None]) -> bool:
    """Whether a trial's values are as good as every target there is; never where there is none."""
    asked = [
        objective.reached(value)
        for objective, value in zip(objectives, values, strict=True)
        if objective.target is not None
    ]
    return bool(asked) and all(asked)

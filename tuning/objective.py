"""What a search optimises, and when that is good enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Objective:
    """What is optimised.

    Attributes:
        name: A metric of the trainer, such as ``val_loss``.
        goal: ``minimize`` or ``maximize``.
        target: The search ends once a trial has this value or a better one; None for never.
    """

    name: str
    goal: str
    target: float | None = None

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

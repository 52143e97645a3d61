"""What a tracker knows of a trial: what the journal says of it, and what W&B has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tuning.journal import Row
from tuning.tracking.wandb_log import Segment

#: What the run of a trial ends with, by the trial's state.
EXIT_CODES = {"finished": 0, "stopped": 0, "diverged": 1, "failed": 1}


@dataclass
class TrackedTrial:
    """What a tracker knows of a trial.

    Attributes:
        config: The configuration in force.
        value: Best so far of the objective.
        reports: Reports of earlier sessions, some of which W&B may have missed.
        end: The row that ended it, in an earlier session.
        logged: The highest iteration that W&B has; -1 for none.
        segments: Its W&B files of earlier sessions.
        run: Its open run.
        failed: Whether W&B failed its run; it is left alone.
    """

    config: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    reports: list[Row] = field(default_factory=list)
    end: Row | None = None
    logged: int = -1
    segments: list[Segment] = field(default_factory=list)
    run: Any = None
    failed: bool = False

    def is_whole(self, *, online: bool) -> bool:
        """Whether it has ended, and W&B has its end and all its reports.

        Args:
            online: Whether its server must have them, not only its files.
        """
        if self.end is None or self.end.state is None or not self.segments:
            return False
        last = self.segments[-1]
        if online and not last.is_synced:
            return False
        ended = last.exit_code == EXIT_CODES[self.end.state]
        return ended and all((row.iteration or 0) <= self.logged for row in self.reports)


def known_trials(past: Iterable[Row]) -> dict[int, TrackedTrial]:
    """What the journal knows of each trial."""
    trials: dict[int, TrackedTrial] = {}
    for row in past:
        if row.trial is None:
            continue
        trial = trials.setdefault(row.trial, TrackedTrial())
        trial.config = row.config or trial.config
        if row.kind == "report":
            trial.reports.append(row)
        trial.end = row if row.state in EXIT_CODES else None
    return trials

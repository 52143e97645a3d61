"""No early stopping: every trial trains to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tuning.scheduling.base import Decision, Scheduler, SchedulerSettings
from tuning.searchers import Outcome, check_state

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep


class FifoScheduler(Scheduler):
    """Lets every trial train to its end.

    Args:
        why: Why it stands where another scheduler was asked for; empty where none was.
    """

    stops_at = frozenset()

    def __init__(self, why: str = "") -> None:
        self.why = why

    def report(
        self, trial: int, report_number: int, value: float, *, latest: float | None = None
    ) -> Decision:
        """Always goes on, even from NaN: ending a diverged trial is the trainer's business."""
        return Decision.CONTINUE

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Needs to know nothing."""

    def describe(self) -> str:
        """None, and why."""
        return f"none ({self.why})" if self.why else "none"

    def state_dict(self) -> dict[str, Any]:
        """Has no state but its name."""
        return {"format": 1, "scheduler": "fifo"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Checks the name only."""
        check_state(state, self.state_dict(), ("format", "scheduler"))


@dataclass(frozen=True, kw_only=True)
class FifoSettings(SchedulerSettings):
    """``type: none``; it has no options."""

    kind: ClassVar[str] = "none"

    def make(self, sweep: Sweep, seed: int) -> Scheduler:  # noqa: D102
        return FifoScheduler()


def stops_nothing(what: str, first: int | None, reports: int | None) -> FifoScheduler:
    """Stands in for a scheduler whose first judgement is beyond a trial's last report but one.

    Args:
        what: The scheduler, in words.
        first: The report at which it would judge first, or None where it never would.
        reports: Reports that a trial makes.
    """
    begins = "has no report to judge at" if first is None else f"judges first at report {first}"
    made = "" if reports is None else f", but a trial makes {reports}"
    return FifoScheduler(f"{what} {begins}{made}")

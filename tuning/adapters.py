"""Thin adapters that show the coordinator to Ray Tune as a searcher and a scheduler.

Ray Tune starts, places and restarts the processes; what to run and what to decide comes from the
`Coordinator` alone. The adapters hold no state worth keeping, and are pickled empty: Ray writes a
``tuner.pkl``, and nothing of ours should be in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.tune import Stopper
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher as RaySearcher

from model.errors import DialogueTuneError, GpuMemoryError, ResourceError, StorageError
from model.files import is_no_space
from model.training import Report
from tuning.coordinator import Coordinator
from tuning.journal.row import (
    CONNECTION_LOST,
    NODE_LOST,
    OUT_OF_GPU_MEMORY,
    PREEMPTED,
    STORAGE_LOST,
)
from tuning.scheduling import Decision
from tuning.time_budget import TimeBudget

# Ray Tune would put the driver's AWS credentials into the runtime environment of every trial, which
# Ray writes to its logs and shows to whoever lists actors. Nodes have credentials of their own;
# processes of a Ray on this machine inherit ours.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
    {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
)

# All that Ray writes of a worker which ended with a drained node; of others it names the cause.
# (Its exception says `preempted`, but Ray Tune hands over the text alone.)
_NO_CAUSE = re.compile(
    r"The actor died unexpectedly before finishing this task\.\s+"
    r"class_name:\s+actor_id: [0-9a-f]+\s*\Z"
)

_DECISIONS = {
    Decision.CONTINUE: TrialScheduler.CONTINUE,
    Decision.STOP: TrialScheduler.STOP,
    Decision.CLONE: TrialScheduler.STOP,  # the next attempt at it begins as the clone
}


class SearchAdapter(RaySearcher):  # type: ignore[misc]
    """Hands Ray the coordinator's assignments, at most `concurrency` at a time.

    Args:
        coordinator: Asked for assignments, and told of failed attempts.
        concurrency: Asked how many trials may be live at once.
        on_assignment: Called, within Ray's loop, whenever one is handed out.
        storage_works: Whether the driver can write where the trials do; asked when a worker could
            not.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        concurrency: Callable[[], int],
        on_assignment: Callable[[], None] = lambda: None,
        storage_works: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.storage_works = storage_works
        self.storage_losses = 0  # since the last report of any trial
        self.on_assignment = on_assignment
        self.coordinator = coordinator
        self.concurrency = concurrency
        self.running: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        self.error: DialogueTuneError | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next assignment; None for "not now", and Ray's FINISHED when all is done."""
        if self.coordinator.done or self.error is not None:
            return str(RaySearcher.FINISHED)
        if len(self.running) >= self.concurrency():
            return None
        with self.ending_on_error():
            assignment = self.coordinator.next_assignment()
        if self.error is not None:
            return str(RaySearcher.FINISHED)
        if assignment is None:
            return str(RaySearcher.FINISHED) if self.coordinator.done else None
        self.running[trial_id] = assignment.trial
        self.on_assignment()
        return asdict(assignment)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the coordinator has heard of the report through the scheduler."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The attempt has left its process; an error is the coordinator's to judge."""
        trial = self.running.pop(trial_id, None)
        if not error or trial is None:
            return
        reason = self.reasons.pop(trial_id, "unknown error")
        if "StorageError: " in reason:
            reason = reason.partition("StorageError: ")[2]
            if self._every_trial_would_meet(reason):  # they can go on later
                self.error = self.error or StorageError(reason)
            reason = f"{STORAGE_LOST}: {reason}"
        if "ResourceError: " in reason:  # so would every trial that is placed on that node
            self.error = self.error or ResourceError(reason.partition("ResourceError: ")[2])
        if self.error is None:
            with self.ending_on_error():
                # A configuration that a worker refuses, or that is too large, would be so again.
                refused = "ConfigurationError: " in reason or reason.startswith(OUT_OF_GPU_MEMORY)
                self.coordinator.failed(trial, reason, retry=not refused)

    def _every_trial_would_meet(self, reason: str) -> bool:
        """Whether a storage that failed one worker fails all: it is full, or away from us too.

        Or from all nodes but ours, which shows when many in a row lose it and none reports.
        """
        self.storage_losses += 1
        if self.storage_losses > 2 * (len(self.running) + 1) or is_no_space(reason):
            return True
        return not self.storage_works()

    @contextmanager
    def ending_on_error(self) -> Iterator[None]:
        """Keeps an error of ours, a full disk say, and lets the search end on it.

        Ray would wrap it in one of its own and lose its message; whoever started Ray raises
        `error` afterwards.
        """
        try:
            yield
        except DialogueTuneError as error:
            self.error = self.error or error

    def save(self, checkpoint_path: str) -> None:
        """Ray asks now and then; the journal is our state."""

    def restore(self, checkpoint_path: str) -> None:
        """Never used, see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class ScheduleAdapter(FIFOScheduler):  # type: ignore[misc]
    """Passes each report to the coordinator, and its decision back."""

    def __init__(self, search: SearchAdapter) -> None:
        super().__init__()
        self.search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Ray with each report, before anything is done about it."""
        report: Report = result["report"]
        decision = Decision.STOP
        self.search.storage_losses = 0
        with self.search.ending_on_error():
            decision = self.search.coordinator.report(
                trial.config["trial"],
                report.iteration,
                report.metrics,
                state=report.state,
                worker=result["worker"],
                note=result.get("note"),
                worker_device=result.get("worker_device"),
                worker_type=result.get("worker_type"),
            )
        return str(_DECISIONS[Decision.STOP if self.search.error else decision])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keeps the reason, for `SearchAdapter.on_trial_complete`, which Ray calls next."""
        file = trial.error_file  # Ray appends to it, failure after failure
        text = Path(file).read_text(encoding="utf-8") if file and Path(file).exists() else ""
        self.search.reasons[trial.trial_id] = reason_in(text)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class BudgetStopper(Stopper):  # type: ignore[misc]
    """Ends the search when its time is over, as Ctrl-C does.

    Args:
        budget: Is told so, by its `ended_search`.
        announce: Called once, then.
    """

    def __init__(self, budget: TimeBudget, announce: Callable[[], None]) -> None:
        self.budget = budget
        self.announce = announce

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Called by Ray in each turn of its loop."""
        if self.budget.over and not self.budget.ended_search:
            self.budget.ended_search = True
            self.announce()
        return self.budget.ended_search

    def __getstate__(self) -> dict[str, Any]:
        return {}


def reason_in(text: str) -> str:
    """Why an attempt failed, in one line, from what Ray wrote about it."""
    if "PreemptedError: " in text or _NO_CAUSE.search(text):  # it left its node, or was too late
        return PREEMPTED
    if "because its node has died" in text:  # broken, or cut off for too long
        return NODE_LOST
    if "node running low on memory" in text:
        return _short_of_memory(text)
    if "ActorUnavailableError" in text or "The actor is temporarily unavailable" in text:
        return CONNECTION_LOST
    if not text or "The actor died" in text or "ActorDiedError" in text:
        return "the worker process died (killed, out of memory, or crashed)"
    last = [line.strip() for line in text.splitlines() if line.strip()][-1]
    return last.removeprefix(f"{GpuMemoryError.__module__}.{GpuMemoryError.__name__}: ")


def _short_of_memory(text: str) -> str:
    """What Ray's memory monitor did; it says how much was used."""
    found = re.search(r"was ([\d.]+ ?GB) used / ([\d.]+ ?GB) limit", text)
    used = f" ({found.group(1)} of {found.group(2)} used)" if found else ""
    return (
        f"out of memory: Ray ended the worker because its node ran low on memory{used}; let fewer "
        "trials run there at once (--cpus-per-trial, --concurrency)."
    )

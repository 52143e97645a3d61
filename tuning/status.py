"""How an experiment stands, read from its files alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from model.errors import DialogueTuneError
from tuning.experiment import Experiment
from tuning.journal import current_reports, read_journal, trials_asked_for
from tuning.storage.place import AnyPath


@dataclass(frozen=True)
class Status:
    """One line of ``python -m tuning list``.

    Attributes:
        name: The experiment's name.
        state: ``running``, ``complete``, ``interrupted``, or ``unreadable: REASON``.
        trials: How many ended of how many, ``3/12``.
        best: Best value of the objective so far, or None.
        created: When, in UTC.
    """

    name: str
    state: str
    trials: str
    best: float | None
    created: str


def status_of(path: AnyPath) -> Status:
    """Reads how the experiment in a directory stands; a damaged one is said to be unreadable."""
    try:
        return status(Experiment.open(str(path)))
    except DialogueTuneError as error:
        return Status(path.name, f"unreadable: {error}", "-", None, "-")


def status(experiment: Experiment) -> Status:
    """Reads how an experiment stands.

    Raises:
        ExperimentError: where its journal is damaged or of a newer format.
    """
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    states = {row.trial: row.state for row in rows if row.trial is not None}
    ended = sum(n for state, n in Counter(states.values()).items() if state != "running")
    best: float | None = None
    for row in current_reports(rows):
        if experiment.objective.better(row.metrics.get(experiment.objective.name), best):
            best = row.metrics[experiment.objective.name]
    complete = any(row.completes for row in rows[-1:])
    state = "complete" if complete else "running" if experiment.is_running() else "interrupted"
    target = trials_asked_for(experiment.manifest["trials"], rows)
    return Status(
        name=experiment.name,
        state=state,
        trials=f"{ended}/{target if target is not None else len(states)}",
        best=best,
        created=str(experiment.manifest["created"]),
    )

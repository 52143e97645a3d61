"""Starting a search: a new one, or an earlier one once more.

Everything that can be checked is checked before the first trial starts. What can be done with a
search that there is already is in ``tuning.going_on``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from model.data_source import open_or_prepare
from model.files import storage_errors
from model.prepared_data import PreparedData
from tuning.choices import load_chosen, with_choices
from tuning.cluster import Resources, connected
from tuning.driving import Driver
from tuning.experiment import Experiment
from tuning.going_on import extend, is_complete, resume, retry
from tuning.preflight.gpu_demand import Demand
from tuning.preflight.needs import Needs
from tuning.preflight.preflight import preflight
from tuning.repetition import plan_repetition
from tuning.scheduling import make_scheduler
from tuning.searchers import make_searcher
from tuning.starting.starting_points import StartingPoints
from tuning.starting.try_first import points_to_try
from tuning.starting.warm_start import past_trials_of
from tuning.storage.place import AnyPath, place
from tuning.sweeps.sweep_file import Sweep
from tuning.time_budget import TimeBudget
from tuning.tracking import choose_mode

__all__ = ["DEFAULT_TRIALS", "extend", "is_complete", "repeat", "resume", "retry", "run"]

#: Trials where neither ``--trials`` nor ``run_cap`` says how many, but for a grid: all points.
DEFAULT_TRIALS = 25


def run(
    sweep: Sweep | str | Path,
    *,
    trials: int | None = None,
    concurrency: int | None = None,
    cpus_per_trial: float = 1,
    gpus_per_trial: float = 0,
    address: str | None = None,
    storage: str | Path = "runs",
    name: str | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    searcher: str | None = None,
    scheduler: str | None = None,
    try_first: Sequence[str | Path] = (),
    warm_start: Sequence[str | Path] = (),
    wandb: str | None = None,
    max_failures: int = 3,
    time_budget: float | None = None,
    command: Sequence[str] = (),
) -> Experiment:
    """Runs a hyper-parameter search.

    Args:
        sweep: A sweep, or the sweep file to load.
        trials: How many; None takes the sweep's ``run_cap``, else 25, or all points of a grid.
        concurrency: Trials at once; None for as many as fit.
        cpus_per_trial: CPU cores that each trial holds.
        gpus_per_trial: GPUs that each trial holds; a fraction shares one.
        address: Of an existing Ray cluster; None starts Ray on this machine.
        storage: Directory of all experiments; on a cluster, one that every node can reach.
        name: The experiment's name; None makes one of the sweep's name and the time.
        seed: Seed of searcher and scheduler. Two runs with the same seed propose the same.
        overrides: Fields set to one value, whatever the sweep says.
        searcher: Who proposes, whatever the sweep says; one of `tuning.searchers.SEARCHERS`.
        scheduler: Who stops trials, likewise; one of `tuning.scheduling.SCHEDULERS`.
        try_first: Known good points to try first: files, or ``EXPERIMENT:N``; see
            `tuning.starting.try_first`.
        warm_start: Experiments over the same space, which searchers that learn begin with.
        wandb: ``online``, ``offline`` or ``disabled``; None for online if there is a key.
        max_failures: Failed attempts after which a trial is given up.
        time_budget: Seconds from this call after which the search is ended, as by Ctrl-C; None for
            no limit.
        command: The command line, for the record.

    Returns:
        The experiment; it may be incomplete after Ctrl-C, see `is_complete`.

    Raises:
        DialogueTuneError: for anything wrong with the sweep, the data, the storage or the cluster.
    """
    budget, home = TimeBudget(time_budget, time.monotonic()), place(storage)
    if isinstance(sweep, Sweep):
        sweep = sweep.with_overrides(overrides or {})
    else:
        sweep = load_chosen(sweep, searcher, overrides)
    sweep = with_choices(sweep, searcher, scheduler)
    chosen = make_searcher(sweep, seed)
    make_scheduler(sweep, seed)
    mode = choose_mode(wandb)
    tried = points_to_try(try_first, sweep.space, storage)
    data = open_or_prepare(sweep.space.constants, progress=True)
    starting = StartingPoints(tried, past_trials_of(warm_start, sweep, data, storage))
    starting.give_to(chosen)  # is refused here, rather than once there is an experiment
    count = trial_count(sweep, trials)
    for note in starting.notes(chosen, count):
        print(f"note: {note}", flush=True)
    return _Start(
        sweep=sweep,
        data=data,
        storage=home,
        name=name or _default_name(sweep, home),
        seed=seed,
        trials=count,
        settings={
            "resources": asdict(Resources(cpus_per_trial, gpus_per_trial)),
            "concurrency": concurrency,
            "wandb": mode,
            "max_failures": max_failures,
            "address": address,
        },
        command=command,
        starting=starting,
    ).go(budget)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A new experiment, about to begin; its fields are as `Experiment.create` takes them."""

    sweep: Sweep
    data: PreparedData
    storage: AnyPath
    name: str
    seed: int
    trials: int | None
    settings: dict[str, Any]
    command: Sequence[str] = ()
    starting: StartingPoints = field(default_factory=StartingPoints)
    repeats: Mapping[str, str] | None = None

    def go(self, budget: TimeBudget) -> Experiment:
        """Makes the directory and runs the search, with Ray connected."""
        with connected(self.settings["address"]):
            room = preflight(
                Resources(**self.settings["resources"]),
                self.storage,
                self.settings["address"],
                Needs.of(self.sweep, self.data, self.trials),
                demand=lambda: Demand.of(self.sweep.space, self.data),
            )
            experiment = Experiment.create(
                self.storage,
                self.name,
                self.sweep,
                self.data,
                seed=self.seed,
                trials=self.trials,
                settings={**self.settings, "resources": asdict(room.resources)},
                command=self.command,
                starting=self.starting,
                repeats=self.repeats,
            )
            with experiment.hold() as mirror:
                Driver(experiment, budget, mirror).drive(self.data, room)
        return experiment


def repeat(
    reference: str | Path,
    *,
    name: str | None = None,
    storage: str | Path = "runs",
    address: str | None = None,
    concurrency: int | None = None,
    wandb: str | None = None,
    time_budget: float | None = None,
    say: Callable[[str], None] = print,
    command: Sequence[str] = (),
) -> Experiment:
    """Runs an experiment again from its manifest, as a new one, and says first what differs.

    Sweep, seed, number of trials (extensions included), resources, and what it began with are
    those of the manifest; the data are its own copy, or prepared again where that is gone.

    Args:
        reference: The experiment's name or directory.
        name: Of the new one; None for the old name and ``-repeat``.
        storage: Directory of all experiments.
        address: Of an existing Ray cluster; None starts Ray on this machine.
        concurrency: Trials at once; None as before.
        wandb: As in `run`; None as before.
        time_budget: As in `run`.
        say: Hears what differs, line by line, before anything starts.
        command: The command line, for the record.

    Raises:
        DialogueTuneError: where it is unknown or damaged, or its data cannot be had.
    """
    budget = TimeBudget(time_budget, time.monotonic())
    plan = plan_repetition(reference, storage)
    for line in plan.said:
        say(line)
    old = plan.experiment
    settings = dict(old.manifest["settings"])
    settings["address"] = address
    settings["wandb"] = choose_mode(wandb) if wandb else settings["wandb"]
    if concurrency is not None:
        settings["concurrency"] = concurrency
    return _Start(
        sweep=plan.sweep,
        data=plan.data,
        storage=place(storage),
        name=name or _free_name(f"{old.name}-repeat", place(storage)),
        seed=old.manifest["seed"],
        trials=plan.trials,
        settings=settings,
        command=command,
        starting=old.starting_points(),
        repeats={"name": old.name, "id": str(old.manifest["id"])},
    ).go(budget)


def _default_name(sweep: Sweep, storage: AnyPath) -> str:
    """The sweep's name and the time, and a number where that is taken."""
    stem = sweep.name or Path(sweep.source).stem
    allowed = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem) or "sweep"
    return _free_name(f"{allowed}-{datetime.now():%Y%m%d-%H%M%S}", storage)


def _free_name(name: str, storage: AnyPath) -> str:
    names = (name if i == 1 else f"{name}-{i}" for i in count(1))
    with storage_errors(storage, "read"):
        return next(name for name in names if not (storage / name).exists())


def trial_count(sweep: Sweep, trials: int | None) -> int:
    """How many trials to run; a grid has no more than its points, where they can be counted."""
    asked = trials if trials is not None else sweep.run_cap
    if (sweep.searcher or sweep.method) != "grid":
        return DEFAULT_TRIALS if asked is None else asked
    points = sweep.space.size() if sweep.space.count is None else sweep.space.count
    assert points is not None, "a grid is finite"
    return points if asked is None else min(points, asked)

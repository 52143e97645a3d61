"""Going on with a search that there is already: resume, extend, retry."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from model.errors import ConfigurationError, ExperimentError
from tuning.cluster import Resources, connected
from tuning.coordinator import Coordinator
from tuning.driving import Driver
from tuning.experiment import Experiment
from tuning.journal import read_journal
from tuning.preflight.gpu_demand import Demand
from tuning.preflight.needs import Needs
from tuning.preflight.preflight import preflight
from tuning.storage.working_copy import has_unsent
from tuning.time_budget import TimeBudget
from tuning.tracking import choose_mode

Request = Callable[[Coordinator], None]


def _nothing(coordinator: Coordinator) -> None:
    """What a resume asks for beyond what was asked for before."""


def is_complete(experiment: Experiment) -> bool:
    """Whether every requested trial has ended, or the target was reached."""
    if not experiment.journal.is_dir():
        return False
    rows = read_journal(experiment.journal).rows
    return bool(rows) and rows[-1].completes


def resume(
    name: str | Path,
    *,
    storage: str | Path = "runs",
    address: str | None = None,
    concurrency: int | None = None,
    wandb: str | None = None,
    time_budget: float | None = None,
) -> Experiment:
    """Goes on with an interrupted search: nothing that finished is run again.

    Args:
        name: The experiment's name or directory.
        storage: Directory of all experiments.
        address: Of an existing Ray cluster; None starts Ray on this machine.
        concurrency: Trials at once; None as before.
        wandb: As in `tuning.run`; None as before.
        time_budget: As in `tuning.run`.

    Raises:
        DialogueTuneError: where it is unknown, damaged, or being run by another driver.
    """
    budget = TimeBudget(time_budget, time.monotonic())
    experiment = Experiment.open(name, storage)
    if is_complete(experiment):
        if experiment.remote is not None and has_unsent(experiment.remote):
            with experiment.hold():  # which sends it
                pass
        return experiment
    return _go_on(experiment, budget, address=address, concurrency=concurrency, wandb=wandb)


def extend(
    name: str | Path,
    *,
    trials: int,
    storage: str | Path = "runs",
    address: str | None = None,
    concurrency: int | None = None,
    wandb: str | None = None,
    time_budget: float | None = None,
) -> Experiment:
    """Adds trials to a finished or interrupted search, with all that it learned.

    The new trials are those that a search asked for so many at once would have gone on to, with
    one worker. What was interrupted is gone on with too.

    Args:
        name: The experiment's name or directory.
        trials: How many more.
        storage: Directory of all experiments.
        address: Of an existing Ray cluster; None starts Ray on this machine.
        concurrency: Trials at once; None as before.
        wandb: As in `tuning.run`; None as before.
        time_budget: As in `tuning.run`.

    Raises:
        DialogueTuneError: as `resume`; and where the search reached its target.
    """
    budget = TimeBudget(time_budget, time.monotonic())
    if trials < 1:
        raise ConfigurationError("--trials", [f"must be at least 1, but got {trials}."])

    def ask_for_more(coordinator: Coordinator) -> None:
        coordinator.extend(trials)

    experiment = Experiment.open(name, storage)
    return _go_on(
        experiment,
        budget,
        ask_for_more,
        _check_open,
        address=address,
        concurrency=concurrency,
        wandb=wandb,
    )


def retry(
    name: str | Path,
    *,
    diverged: bool = False,
    storage: str | Path = "runs",
    address: str | None = None,
    concurrency: int | None = None,
    wandb: str | None = None,
    time_budget: float | None = None,
) -> Experiment:
    """Runs the failed trials of a search again, from their newest checkpoints or their start.

    What was interrupted is gone on with too.

    Args:
        name: The experiment's name or directory.
        diverged: Those that diverged too; the same run on the same machine diverges again.
        storage: Directory of all experiments.
        address: Of an existing Ray cluster; None starts Ray on this machine.
        concurrency: Trials at once; None as before.
        wandb: As in `tuning.run`; None as before.
        time_budget: As in `tuning.run`.

    Raises:
        DialogueTuneError: as `resume`; and where no trial failed, or the search reached its target.
    """
    budget = TimeBudget(time_budget, time.monotonic())

    def run_again(coordinator: Coordinator) -> None:
        coordinator.retry(coordinator.ended_badly(diverged=diverged))

    def check(coordinator: Coordinator) -> None:
        _check_open(coordinator)
        if not coordinator.ended_badly(diverged=diverged):
            failed = "failed or diverged" if diverged else "failed"
            others = len(coordinator.ended_badly(diverged=True))
            hint = f"; {others} diverged, see --diverged" if others else ""
            raise ExperimentError(f"{name}: no trial {failed}{hint}; there is nothing to retry.")

    experiment = Experiment.open(name, storage)
    return _go_on(
        experiment, budget, run_again, check, address=address, concurrency=concurrency, wandb=wandb
    )


def _check_open(coordinator: Coordinator) -> None:
    """Refuses to run more where the search has found what it was to find."""
    if coordinator.target_reached:
        targets = [f"{o.name} {o.target:g}" for o in coordinator.objectives if o.target is not None]
        raise ExperimentError(
            f"the search reached its target, {' and '.join(targets)}; it has ended."
        )


def _go_on(
    experiment: Experiment,
    budget: TimeBudget,
    begin: Request = _nothing,
    check: Request = _nothing,
    *,
    address: str | None,
    concurrency: int | None,
    wandb: str | None,
) -> Experiment:
    """Goes on with an experiment, after a check and with a request to its coordinator."""
    settings = experiment.manifest["settings"]
    if concurrency is not None:
        settings["concurrency"] = concurrency
    settings["wandb"] = choose_mode(wandb) if wandb else settings["wandb"]
    with experiment.hold() as mirror:
        driver = Driver(experiment, budget, mirror)
        check(driver.coordinator)
        with connected(address):
            data = experiment.data()
            left = (experiment.manifest["trials"] or 0) - len(driver.coordinator.trials)
            needs = Needs.of(driver.sweep, data, left)
            resources = Resources(**settings["resources"])
            room = preflight(
                resources,
                experiment.place,
                address,
                needs,
                demand=lambda: Demand.of(driver.sweep.space, data),
            )
            driver.drive(data, room, begin)
    return experiment

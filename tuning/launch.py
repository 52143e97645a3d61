"""Launching a search on Ray Tune, and going on with an interrupted one."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import count
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from model.data_source import open_or_prepare
from model.prepared_data import PreparedData
from tuning.cluster import Resources, connected, fitting
from tuning.coordinator import Coordinator
from tuning.experiment import Experiment
from tuning.journal import Journal, Row, compact, read_journal
from tuning.scheduling import make_scheduler
from tuning.search import STATES, make_searcher
from tuning.sweep_file import Sweep, load_sweep
from tuning.tracking import WandbTracker, choose_mode
from tuning.trial_files import TrialFiles
from tuning.view import LiveView

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
    wandb: str | None = None,
    max_failures: int = 3,
    command: Sequence[str] = (),
) -> Experiment:
    """Runs a hyper-parameter search.

    Everything that can be checked is checked before the first trial starts.

    Args:
        sweep: A sweep, or the sweep file to load.
        trials: How many; None takes the sweep's ``run_cap``, else 25, or all points of a grid.
        concurrency: Trials at once; None for as many as fit.
        cpus_per_trial: CPU cores that each trial holds.
        gpus_per_trial: GPUs that each trial holds; a fraction shares one.
        address: Of an existing Ray cluster; None starts Ray on this machine.
        storage: Directory of all experiments; on a cluster, one that every node can reach.
        name: The experiment's name; None makes one of the sweep's name and the time.
        seed: Seed of the searcher. Two runs with the same seed propose the same.
        overrides: Fields set to one value, whatever the sweep says.
        wandb: ``online``, ``offline`` or ``disabled``; None for online if there is a key.
        max_failures: Failed attempts after which a trial is given up.
        command: The command line, for the record.

    Returns:
        The experiment; it may be incomplete after Ctrl-C, see `is_complete`.

    Raises:
        DialogueTuneError: for anything wrong with the sweep, the data, the storage or the cluster.
    """
    started = time.monotonic()
    if not isinstance(sweep, Sweep):
        sweep = load_sweep(sweep)
    sweep = sweep.with_overrides(overrides or {})
    mode = choose_mode(wandb)
    data = open_or_prepare(sweep.space.constants, progress=True)
    with connected(address):
        resources = Resources(cpus_per_trial, gpus_per_trial)
        fitting(resources)
        settings = {
            "resources": asdict(resources),
            "concurrency": concurrency,
            "wandb": mode,
            "max_failures": max_failures,
            "address": address,
        }
        experiment = Experiment.create(
            Path(storage),
            name or _default_name(sweep, Path(storage)),
            sweep,
            data,
            seed=seed,
            trials=trial_count(sweep, trials),
            settings=settings,
            command=command,
        )
        with experiment.lock():
            return _drive(experiment, data, started)


def resume(
    name: str | Path,
    *,
    storage: str | Path = "runs",
    address: str | None = None,
    concurrency: int | None = None,
    wandb: str | None = None,
) -> Experiment:
    """Goes on with an interrupted search: nothing that finished is run again.

    Args:
        name: The experiment's name or directory.
        storage: Directory of all experiments.
        address: Of an existing Ray cluster; None starts Ray on this machine.
        concurrency: Trials at once; None as before.
        wandb: As in `run`; None as before.

    Raises:
        DialogueTuneError: where it is unknown, damaged, or being run by another driver.
    """
    started = time.monotonic()
    experiment = Experiment.open(name, storage)
    settings = experiment.manifest["settings"]
    if concurrency is not None:
        settings["concurrency"] = concurrency
    settings["wandb"] = choose_mode(wandb) if wandb else settings["wandb"]
    if is_complete(experiment):
        return experiment
    with experiment.lock(), connected(address):
        return _drive(experiment, experiment.data(), started)


def is_complete(experiment: Experiment) -> bool:
    """Whether every requested trial has ended."""
    if not experiment.journal.is_dir():
        return False
    rows = read_journal(experiment.journal).rows
    ended = [row for row in rows if row.kind == "ended"]
    return bool(ended) and ended[-1].reason == "complete"


def _default_name(sweep: Sweep, storage: Path) -> str:
    """The sweep's name and the time, and a number where that is taken."""
    stem = sweep.name or Path(sweep.source).stem
    allowed = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem) or "sweep"
    name = f"{allowed}-{datetime.now():%Y%m%d-%H%M%S}"
    names = (name if i == 1 else f"{name}-{i}" for i in count(1))
    return next(name for name in names if not (storage / name).exists())


def trial_count(sweep: Sweep, trials: int | None) -> int:
    """How many trials to run; a grid has no more than its points."""
    asked = trials if trials is not None else sweep.run_cap
    if sweep.method != "grid":
        return DEFAULT_TRIALS if asked is None else asked
    points = sweep.space.size()
    assert points is not None, "a grid is finite"
    return points if asked is None else min(points, asked)


def _drive(experiment: Experiment, data: PreparedData, started: float) -> Experiment:
    """Runs or goes on with an experiment, with Ray connected, up to its end or Ctrl-C.

    Args:
        experiment: What to run.
        data: Its data.
        started: When we were asked to, by `time.monotonic`.
    """
    settings = experiment.manifest["settings"]
    resources = Resources(**settings["resources"])
    concurrency = min(settings["concurrency"] or sys.maxsize, fitting(resources))
    coordinator = _coordinator(experiment)
    sweep = experiment.sweep()
    searched = list(sweep.space.searched)
    with LiveView(coordinator, experiment.name, concurrency=concurrency, searched=searched) as view:
        tracker = _tracker(experiment, sweep, view)
        coordinator.listeners = [
            view,
            _CheckpointRemover(experiment.path),
            *([tracker] if tracker else []),
        ]
        _remove_leftovers(experiment, coordinator)
        coordinator.session(
            "session",
            f"{len(coordinator.trials)} trials known",
            startup_seconds=time.monotonic() - started,
        )
        try:
            _fit(
                experiment,
                data,
                coordinator,
                resources=resources,
                concurrency=concurrency,
                view=view,
            )
        except KeyboardInterrupt:
            view.note("stopped at once")
        finally:
            if tracker:
                tracker.close()
    _remove_leftovers(experiment, coordinator)
    coordinator.session("ended", "complete" if coordinator.done else "interrupted")
    coordinator.journal.close()
    if coordinator.done:
        compact(experiment.journal)
    return experiment


def _coordinator(experiment: Experiment) -> Coordinator:
    """Searcher, scheduler and journal in the state that the journal's rows left them in."""
    manifest = experiment.manifest
    sweep = experiment.sweep()
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    coordinator = Coordinator(
        make_searcher(sweep, manifest["seed"]),
        make_scheduler(sweep),
        Journal(experiment.journal, next_seq=rows[-1].seq + 1 if rows else 0),
        experiment.objective,
        trials=manifest["trials"],
        max_failures=manifest["settings"]["max_failures"],
    )
    coordinator.replay(rows)
    return coordinator


def _tracker(experiment: Experiment, sweep: Sweep, view: LiveView) -> WandbTracker | None:
    mode = experiment.manifest["settings"]["wandb"]
    if mode == "disabled":
        return None
    return WandbTracker(
        experiment.path,
        experiment.name,
        mode=mode,
        run_id=str(experiment.manifest["id"]),
        project=sweep.project,
        entity=sweep.entity,
        tags=tuple(sweep.tags),
        on_problem=view.note,
    )


def _remove_leftovers(experiment: Experiment, coordinator: Coordinator) -> None:
    """Checkpoints of ended trials: a driver died before it removed them, or a worker was slow."""
    for trial, record in coordinator.trials.items():
        if record.state != "running":
            TrialFiles(experiment.path, trial).remove_checkpoints()


class _Interrupts:
    """Says something at the first Ctrl-C, for Ray takes seconds to stop its workers.

    Ray Tune puts its own handler in place when its loop begins; ours goes before it then.
    """

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self.original: Any = None
        self.announced = False

    def __enter__(self) -> None:
        self.original = signal.getsignal(signal.SIGINT)

    def announce(self) -> None:
        """Called within Ray's loop: puts our handler before Ray's, once."""
        if self.announced or threading.current_thread() is not threading.main_thread():
            return
        self.announced = True
        rays = signal.getsignal(signal.SIGINT)

        def stop(number: int, frame: FrameType | None) -> None:
            self.view.note("stopping, everything is kept; Ctrl-C again stops at once")
            if callable(rays):
                rays(number, frame)  # stops its loop, and gives the signal back to `original`

        signal.signal(signal.SIGINT, stop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread() and self.original is not None:
            signal.signal(signal.SIGINT, self.original)


class _CheckpointRemover:
    """Removes a trial's resume checkpoints once the journal says that it has ended."""

    def __init__(self, experiment: Path) -> None:
        self.experiment = experiment

    def heard(self, row: Row) -> None:
        """Called with every new row."""
        if row.trial is not None and row.state in STATES:
            TrialFiles(self.experiment, row.trial).remove_checkpoints()


def _fit(
    experiment: Experiment,
    data: PreparedData,
    coordinator: Coordinator,
    *,
    resources: Resources,
    concurrency: int,
    view: LiveView,
) -> None:
    """Lets Ray Tune run the coordinator's assignments until there are none, or Ctrl-C."""
    import logging

    from ray import tune

    from tuning.adapters import ScheduleAdapter, SearchAdapter
    from tuning.trainable import DialogueTrainable

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # All workers start at once; how many assignments are out is the adapter's to limit.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrency)
    trainable = tune.with_parameters(
        DialogueTrainable,
        data=np.frombuffer(data.as_bytes(), dtype=np.uint8),  # once to each node, read in place
        experiment=str(experiment.path),
        objective=experiment.objective,
        stops_at=coordinator.scheduler.stops_at,
    )
    trainable = tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus})
    interrupts = _Interrupts(view)
    search = SearchAdapter(coordinator, concurrency, interrupts.announce)
    with tempfile.TemporaryDirectory(prefix="dialogue-tune-") as scratch:  # nothing of ours
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=ScheduleAdapter(search),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
                trial_name_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),  # we restart trials ourselves
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0, checkpoint_at_end=False
                ),
            ),
        )
        with interrupts:
            tuner.fit()
        if search.error is not None:
            raise search.error

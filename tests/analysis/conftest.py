"""Experiments made without Ray: real trainers driven by a loop, and journals written by hand."""

import multiprocessing
import shutil
from collections.abc import Mapping

import pytest
import torch

from analysis.__main__ import main
from model.config import Config
from model.training import Trainer
from tests.conftest import exit_status
from tuning.coordinator import Coordinator
from tuning.experiment import Experiment
from tuning.journal import Journal, Row
from tuning.scheduling import Decision, make_scheduler
from tuning.searchers import make_searcher
from tuning.sweeps.sweep_file import parse_sweep
from tuning.trials.trial_files import TrialFiles

#: Five trials: two that finish, one that early stopping ends, one that diverges, one that fails.
SWEEP = {
    "method": "grid",
    "parameters": {
        "learning_rate": {"values": [0.01, 0.02, 1e-6, 1e6, 0.03]},
        "decoder_learning_ratio": {"value": 1.0},
        "hidden_size": {"value": 16},
        "encoder_layers": {"value": 1},
        "decoder_layers": {"value": 1},
        "batch_size": {"value": 8},
        "iterations": {"value": 12},
        "report_every": {"value": 4},
        "val_examples": {"value": 10},
        "device": {"value": "cpu"},
    },
    "early_terminate": {"type": "hyperband", "min_iter": 1},
}


def run(*arguments):
    """The exit status of `python -m analysis` with these arguments, run in this process."""
    return exit_status(main, *arguments)


class Killed(Exception):
    """Stands for SIGKILL: nothing is cleaned up."""


#: After how many iterations the attempts of a trial fail: trial 1 once, and goes on from
#: iteration 4 though it had reported 8; trial 4 for good.
FAILURES = {(1, 1): 8, (4, 1): 4, (4, 2): 4}


def make_experiment(storage, data, sweep=SWEEP, name="small", trials=None):
    return Experiment.create(
        storage,
        name,
        parse_sweep(sweep, "small.yaml"),
        data,
        seed=0,
        trials=trials,
        settings={"max_failures": 2, "wandb": "disabled"},
        command=["python", "-m", "tuning", "run", "small.yaml"],
    )


def drive(
    experiment: Experiment, data, failures: Mapping = FAILURES, reports: int | None = None
) -> None:
    """Runs an experiment to its end, or until the driver is killed after so many reports."""
    sweep = experiment.sweep()
    coordinator = Coordinator(
        make_searcher(sweep, experiment.manifest["seed"]),
        make_scheduler(sweep),
        Journal(experiment.journal),
        experiment.objectives,
        trials=experiment.manifest["trials"],
        max_failures=experiment.manifest["settings"]["max_failures"],
    )
    coordinator.session("session", "0 trials known")
    left = [reports]
    while (assignment := coordinator.next_assignment()) is not None:
        _run(experiment, coordinator, assignment, data, failures, left)
    coordinator.session("ended", "complete")
    coordinator.journal.close()


def _run(experiment, coordinator, assignment, data, failures, left):
    trainer = Trainer(data, Config.from_mapping(assignment.config))
    files = TrialFiles(experiment.path, assignment.trial)
    report = files.restore(trainer)[0] if assignment.attempt > 1 else None
    while True:
        if report is None:
            report = trainer.train_interval()
            if report.improved:
                files.save_best(trainer.weights())
            if report.state != "diverged":
                files.save(trainer.state())
        if left[0] == 0:
            coordinator.journal.close()
            raise Killed
        left[0] = None if left[0] is None else left[0] - 1
        decision = coordinator.report(
            assignment.trial,
            report.iteration,
            report.metrics,
            state=report.state,
            worker=f"host:{assignment.attempt}",
        )
        if decision is Decision.STOP:
            files.remove_checkpoints()
            return
        if failures.get((assignment.trial, assignment.attempt)) == report.iteration:
            if report.iteration == 8:
                files.checkpoints()[0].unlink()  # the newest was lost
            coordinator.failed(assignment.trial, "ValueError: on purpose")
            return
        report = None


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_data):
    """A finished experiment, not compacted; tests that change it take `experiment`."""
    torch.set_num_threads(1)
    experiment = make_experiment(tmp_path_factory.mktemp("runs"), tiny_data)
    drive(experiment, tiny_data)
    return experiment


@pytest.fixture
def experiment(finished, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(finished.path, tmp_path / "runs" / "small")
    return Experiment.open(tmp_path / "runs" / "small")


@pytest.fixture
def by_hand(tmp_path, tiny_data):
    """Builds an experiment whose journal has exactly these rows."""

    def build(rows, metric=None, name="hand"):
        sweep = {
            "method": "random",
            "parameters": {"clip": {"min": 0.0, "max": 9.0}, "corpus": {"value": "tiny"}},
        } | ({"metric": metric} if metric else {})
        experiment = make_experiment(tmp_path / "runs", tiny_data, sweep, name, trials=9)
        journal = Journal(experiment.journal)
        for row in rows:
            journal.append(row)
        journal.close()
        return experiment

    return build


def proposed(trial, clip=1.0):
    return Row(
        kind="proposed",
        trial=trial,
        attempt=1,
        config={"clip": clip, "corpus": "tiny"},
        state="running",
    )


def reported(trial, iteration, state="running", attempt=1, **metrics):
    return Row(
        kind="report",
        trial=trial,
        attempt=attempt,
        iteration=iteration,
        config={"clip": 1.0, "corpus": "tiny"},
        metrics={"iteration": iteration, **metrics},
        decision="continue" if state == "running" else "stop",
        state=state,
        values=[None],
    )


@pytest.fixture
def locked():
    """Lets another process hold the lock of an experiment until the test ends."""
    context = multiprocessing.get_context("fork")
    leave, processes = context.Event(), []

    def hold(experiment, taken):
        file = experiment.lock()
        taken.set()
        leave.wait(60)
        file.close()

    def lock(experiment):
        taken = context.Event()
        processes.append(context.Process(target=hold, args=(experiment, taken)))
        processes[-1].start()
        assert taken.wait(60)
        return processes[-1].pid

    yield lock
    leave.set()
    for process in processes:
        process.join()

"""What tests of the coordinator share: a loop in place of the workers, which can die anywhere."""

from tuning.coordinator import Coordinator, Objective
from tuning.distributions import Categorical, Uniform
from tuning.journal import Journal, read_journal
from tuning.scheduling import AshaScheduler, Decision, FifoScheduler, MedianScheduler
from tuning.searchers import (
    CMAESSearcher,
    GPSearcher,
    GridSearcher,
    RandomSearcher,
    SobolSearcher,
    TPESearcher,
)
from tuning.spaces.search_space import SearchSpace

SPACE = SearchSpace({"x": Uniform(0.0, 1.0), "y": Categorical((1, 2, 3))})
GOAL = Objective("val_loss", "minimize")
REPORTS = 9

SEARCHERS = {
    "random": lambda: RandomSearcher(SPACE, seed=1),
    "grid": lambda: GridSearcher(
        SearchSpace({"y": Categorical((1, 2, 3)), "z": Categorical(("a", "b"))})
    ),
    "tpe": lambda: TPESearcher(SPACE, seed=1, goal="minimize", startup_trials=4),
    "gp": lambda: GPSearcher(SPACE, seed=1, goal="minimize", startup_trials=6),
    "sobol": lambda: SobolSearcher(SPACE, seed=1),
    "cmaes": lambda: CMAESSearcher(SPACE, seed=1, goal="minimize"),
}
SCHEDULERS = {
    "fifo": FifoScheduler,
    "asha": lambda: AshaScheduler(rungs=(1, 3), eta=3, goal="minimize"),
    "median": lambda: MedianScheduler(goal="minimize"),
}


def coordinator(
    directory, searcher="random", scheduler="fifo", trials=12, max_failures=3, goal=GOAL
):
    rows = read_journal(directory).rows if directory.exists() else []
    result = Coordinator(
        SEARCHERS[searcher](),
        SCHEDULERS[scheduler](),
        Journal(directory, next_seq=len(rows)),
        [goal],
        trials=trials,
        max_failures=max_failures,
    )
    result.replay(rows)
    return result


def loss(config, iteration):
    """A curve that falls towards a floor given by the configuration."""
    return config.get("x", 0.5) + config["y"] / 10 + 1 / iteration


class Killed(Exception):
    """Stands for SIGKILL: nothing is cleaned up."""


def drive(coordinator, checkpoints, kill_after=None):
    """Runs the assignments one at a time, as a worker would; dies after so many reports."""
    reports = 0
    while (assignment := coordinator.next_assignment()) is not None:
        trial = assignment.trial
        iteration = checkpoints.get(trial, 0) if assignment.attempt > 1 else 0
        again = iteration > 0  # a restored trial first repeats its last report
        while True:
            iteration += 0 if again else 1
            again = False
            checkpoints[trial] = iteration  # written before the report
            if kill_after is not None and reports == kill_after:
                raise Killed
            reports += 1
            decision = coordinator.report(
                trial,
                iteration,
                {"val_loss": loss(assignment.config, iteration), "iteration": iteration},
                state="finished" if iteration == REPORTS else "running",
            )
            if decision is Decision.STOP:
                break
    return reports


def summary(coordinator):
    return {
        trial: (record.config, record.state, record.iteration, record.value)
        for trial, record in coordinator.trials.items()
    }

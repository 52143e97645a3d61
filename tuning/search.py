"""Searchers: plain objects that propose configurations and hear what became of them.

Trials are numbered 0, 1, 2, ... in the order of `Searcher.ask` and `Searcher.replay`. A proposal
depends on nothing but the seed, the number of the trial, and what was proposed and told before:
randomness is drawn afresh for every trial from a hash of seed and number. A searcher that is
replayed what a journal holds thus goes on exactly as if it had never been interrupted.
"""

from __future__ import annotations

import hashlib
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.errors import ExperimentError
from tuning.search_space import Categorical, IntUniform, LogUniform, Scalar, SearchSpace, Uniform

if TYPE_CHECKING:
    import optuna

    from tuning.sweep_file import Sweep

#: How a trial can end.
STATES = ("finished", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: ``finished`` (no iterations left), ``stopped`` (early, by the scheduler),
            ``diverged`` (its loss became NaN or exploded) or ``failed`` (gave no result).
        value: Best so far of the objective, or None where it never had one.
        iteration: Training iterations done.
    """

    state: str
    value: float | None
    iteration: int

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, but got {self.state!r}.")


class Searcher(ABC):
    """Proposes configurations of a search space.

    Args:
        space: What to search.

    Attributes:
        asked: How many trials there are so far; the number of the next one.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.asked = 0

    def ask(self) -> dict[str, Scalar] | None:
        """Proposes the next trial.

        Returns:
            Searched fields and constants as plain Python scalars, or None where every point of a
            grid has been proposed.
        """
        configuration = self._propose(self.asked)
        if configuration is not None:
            self.asked += 1
        return configuration

    def replay(self, configuration: Mapping[str, Scalar]) -> None:
        """Takes a proposal from a journal instead of making it, with the same effect.

        Raises:
            ExperimentError: where the configuration is not a point of the search space.
        """
        if not self.space.contains(configuration):
            raise ExperimentError(
                f"trial {self.asked} of the journal is outside the search space: "
                f"{dict(configuration)!r}; was the sweep changed since?"
            )
        self._accept(self.asked, configuration)
        self.asked += 1

    def report(self, trial: int, iteration: int, value: float) -> None:
        """Hears a running trial's best value so far; one that is not finite is ignored."""
        self._check_asked(trial)

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Hears how a trial ended; called once for each trial."""
        self._check_asked(trial)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later proposals depend on, ready for JSON."""
        return {"format": 1, "searcher": type(self).__name__, "asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state of `state_dict`.

        Raises:
            ExperimentError: where the state is of another kind of searcher, or another seed.
        """
        check_state(state, self.state_dict(), ("format", "searcher"))
        self.asked = state["asked"]

    @abstractmethod
    def _propose(self, number: int) -> dict[str, Scalar] | None:
        """Makes the proposal for a trial."""

    def _accept(self, number: int, configuration: Mapping[str, Scalar]) -> None:  # noqa: B027
        """Notes a proposal that was made earlier; most searchers need not."""

    def _check_asked(self, trial: int) -> None:
        if not 0 <= trial < self.asked:
            raise ValueError(f"trial {trial} was never asked for; there are {self.asked} so far.")


class GridSearcher(Searcher):
    """Every point of the space once, in the order of the sweep file, the last field fastest.

    Raises:
        ValueError: where a range is continuous.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        size = space.size()
        if size is None:
            raise ValueError("a grid cannot enumerate a continuous range; name its values.")
        self.points = size

    def _propose(self, number: int) -> dict[str, Scalar] | None:
        return self.space.grid_point(number) if number < self.points else None


class RandomSearcher(Searcher):
    """Independent draws from the space (Bergstra and Bengio 2012)."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space)
        self.seed = seed

    def _propose(self, number: int) -> dict[str, Scalar] | None:
        return self.space.sample(random.Random(derived_seed(self.seed, number)))

    def state_dict(self) -> dict[str, Any]:
        """The seed and the number of trials."""
        return {**super().state_dict(), "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Searcher.load_state_dict`."""
        check_state(state, self.state_dict(), ("format", "searcher", "seed"))
        super().load_state_dict(state)


class TPESearcher(Searcher):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna's `TPESampler`.

    The first trials are random. Then two densities are estimated, of the best tenth of the trials
    and of the rest, over all fields jointly, and the candidate with the largest ratio is proposed.
    Running trials count as bad ones (the constant liar), so that parallel trials spread out.

    Finished trials are COMPLETE in the study with their best value. Stopped trials are PRUNED with
    every report, so that Optuna ranks them behind the finished ones, by the iteration they reached
    and by value only among those that reached the same: budgets are not mixed. Diverged and failed
    trials are FAIL, which TPE leaves out.

    Args:
        space: What to search.
        seed: Seed of all proposals.
        goal: ``minimize`` or ``maximize``.
        startup_trials: How many finished or stopped trials are needed before TPE begins.

    Attributes:
        study: The Optuna study, in memory.
    """

    def __init__(
        self, space: SearchSpace, seed: int, goal: str = "minimize", startup_trials: int = 10
    ) -> None:
        super().__init__(space)
        self.seed = seed
        self.goal = check_goal(goal)
        self.startup_trials = startup_trials
        self._distributions = optuna_distributions(space)
        self._start_study()

    def _start_study(self) -> None:
        import optuna

        with _quiet_optuna():
            self.study = optuna.create_study(direction=self.goal)
        self._running: dict[int, optuna.Trial] = {}
        self._reported: dict[int, set[int]] = {}

    def _propose(self, number: int) -> dict[str, Scalar] | None:
        from optuna.samplers import TPESampler

        self.study.sampler = TPESampler(
            seed=derived_seed(self.seed, number),
            n_startup_trials=self.startup_trials,
            multivariate=True,
            constant_liar=True,
        )
        trial = self.study.ask(self._distributions)
        self._running[number] = trial
        return self.space.complete(trial.params)

    def _accept(self, number: int, configuration: Mapping[str, Scalar]) -> None:
        from optuna.samplers import RandomSampler

        # The parameters are given, so the sampler is not asked; TPE would fit its densities first.
        self.study.sampler = RandomSampler(seed=0)
        self.study.enqueue_trial({name: configuration[name] for name in self._distributions})
        self._running[number] = self.study.ask(self._distributions)

    def report(self, trial: int, iteration: int, value: float) -> None:
        """Keeps the report for the case that the trial is stopped early."""
        super().report(trial, iteration, value)
        running = self._running.get(trial)
        reported = self._reported.setdefault(trial, set())
        if running is not None and math.isfinite(value) and iteration not in reported:
            reported.add(iteration)
            running.report(value, iteration)

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Ends the trial in the study."""
        from optuna.trial import TrialState

        value = outcome.value
        if value is not None and not math.isfinite(value):
            value = None
        if outcome.state == "stopped" and value is not None:
            self.report(trial, outcome.iteration, value)
        super().tell(trial, outcome)
        self._running.pop(trial, None)
        self._reported.pop(trial, None)
        if outcome.state == "finished" and value is not None:
            self.study.tell(trial, value, state=TrialState.COMPLETE)
        elif outcome.state == "stopped":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def state_dict(self) -> dict[str, Any]:
        """The settings, and every trial with its parameters, reports and outcome."""
        trials = [_trial_state(trial) for trial in self.study.get_trials(deepcopy=False)]
        return {**super().state_dict(), **self._settings(), "trials": trials}

    def _settings(self) -> dict[str, Any]:
        return {"seed": self.seed, "goal": self.goal, "startup_trials": self.startup_trials}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Builds the study anew from a saved state."""
        check_state(state, self.state_dict(), ("format", "searcher", *self._settings()))
        self._start_study()
        self.asked = 0
        for trial in state["trials"]:
            self._load_trial(trial)

    def _load_trial(self, trial: Mapping[str, Any]) -> None:
        number = self.asked
        self.replay(self.space.complete(trial["params"]))
        for iteration, value in trial["reports"]:
            self.report(number, iteration, value)
        if trial["state"] is not None:
            last = trial["reports"][-1][0] if trial["reports"] else 0
            self.tell(number, Outcome(trial["state"], trial["value"], last))


def _trial_state(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    states = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed"}
    return {
        "params": trial.params,
        "reports": sorted(trial.intermediate_values.items()),
        "state": states.get(trial.state.name),
        "value": trial.value,
    }


def optuna_distributions(
    space: SearchSpace,
) -> dict[str, optuna.distributions.BaseDistribution]:
    """The searched fields of a space as Optuna's distributions, in the space's order."""
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    made: dict[str, BaseDistribution] = {}
    for name, distribution in space.searched.items():
        match distribution:
            case Categorical(values):
                made[name] = CategoricalDistribution(values)
            case IntUniform(low, high):
                made[name] = IntDistribution(low, high)
            case Uniform(low, high):
                made[name] = FloatDistribution(low, high)
            case LogUniform(low, high):
                made[name] = FloatDistribution(low, high, log=True)
            case _:
                raise ValueError(f"{name}: TPE cannot search {distribution.describe()}.")
    return made


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Holds back the line that Optuna logs about each new study, and nothing else."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def derived_seed(seed: int, number: int) -> int:
    """A seed of 32 bits for one trial; the same in every process, unlike ``hash``."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def make_searcher(sweep: Sweep, seed: int) -> Searcher:
    """The searcher that a sweep file's ``method`` asks for."""
    if sweep.method == "grid":
        return GridSearcher(sweep.space)
    if sweep.method == "random":
        return RandomSearcher(sweep.space, seed)
    return TPESearcher(sweep.space, seed, sweep.goal)


def check_goal(goal: str) -> str:
    """Returns the goal.

    Raises:
        ValueError: where it is neither of the two.
    """
    if goal not in ("minimize", "maximize"):
        raise ValueError(f"goal must be minimize or maximize, but got {goal!r}.")
    return goal


def check_state(state: Mapping[str, Any], own: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Compares the settings in a saved state with those of the object that is to load it.

    Raises:
        ExperimentError: naming the first setting that differs.
    """
    for key in settings:
        if state.get(key) != own[key]:
            raise ExperimentError(
                f"this saved state is of another search: its {key} is {state.get(key)!r}, "
                f"but must be {own[key]!r}."
            )

"""Bayesian search: Optuna's tree-structured Parzen estimator behind our `Searcher`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuning.distributions import Categorical, IntUniform, LogUniform, Scalar, Uniform
from tuning.optuna_log import quiet_optuna
from tuning.search import Outcome, Searcher, check_goal, check_state, derived_seed
from tuning.search_space import SearchSpace

if TYPE_CHECKING:
    import optuna


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

        with quiet_optuna():
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

"""Searchers that learn by Optuna's samplers: Parzen estimators and Gaussian processes.

Every proposal is made by a fresh sampler, seeded from the trial's number, and the study holds one
fixed form of each configuration. So the study is a function of what was proposed and told, and
so are the proposals.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tuning.distributions import Scalar
from tuning.optuna_log import quiet_optuna
from tuning.outcome import Outcome, PastTrial
from tuning.searchers.base import Configuration, Searcher, derived_seed
from tuning.searchers.optuna_space import OptunaSpace
from tuning.spaces.points import conditional_problems
from tuning.spaces.search_space import SearchSpace

if TYPE_CHECKING:
    import optuna

#: Values are cut here, so that a Gaussian process can still square them.
_LARGEST = 1e100


class OptunaSearcher(Searcher):
    """Proposes what one of Optuna's samplers does, having seen every trial so far.

    The first trials are random. Finished trials are COMPLETE in the study with their best value,
    stopped ones PRUNED with the iteration that they reached and their best value there. Diverged
    and failed trials are FAIL, which samplers leave out.

    Samplers are asked for samples directly, not through `optuna.Study.ask`, which would look
    through all trials for what is searched, and leave in the study a trial for every sample.

    Args:
        space: What to search.
        seed: Of all proposals.
        goal: ``minimize`` or ``maximize``.
        other_goals: Those of further objectives.
        startup_trials: How many trials to learn from are needed before the sampler is asked.

    Attributes:
        study: The Optuna study, in memory, in internal values (see `optuna_space`). Its first trial
            is WAITING and never runs.
    """

    learns = True
    #: Trials that ended so can be learned from.
    learned_states: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        goal: str = "minimize",
        other_goals: Sequence[str] = (),
        startup_trials: int = 10,
    ) -> None:
        if startup_trials < 1:
            raise ValueError(f"startup_trials must be at least 1, but got {startup_trials}.")
        self.startup_trials = startup_trials
        super().__init__(space, seed, goal, other_goals)

    def _restart(self) -> None:
        import optuna

        super()._restart()
        self._optuna_space = OptunaSpace(self.space)
        with quiet_optuna():
            self.study = optuna.create_study(directions=[self.goal, *self.other_goals])
        # Samplers note a sample at the trial that it is for. This one is for all samples: waiting
        # trials say nothing to samplers, so none sees what was noted for another.
        self.study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING))
        (self._draft,) = self.study.trials
        self._running: dict[int, optuna.Trial] = {}
        self._learned = 0

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "startup_trials": self.startup_trials}

    @abstractmethod
    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """A fresh sampler."""

    def _propose(self, number: int) -> Configuration | None:
        rng = random.Random(derived_seed(self.seed, number))
        proposal = self._sampled(number, rng) if self._learned >= self.startup_trials else None
        return proposal or self.points.draw(rng)

    def _sampled(self, number: int, rng: random.Random) -> Configuration | None:
        """The sampler's proposal, or a point near it where it is forbidden or known already."""
        params: dict[str, Any] = {}
        with quiet_optuna(but_for_errors=True):
            sampler = self._sampler(derived_seed(self.seed, number))
            for group in self._optuna_space.groups:
                params |= sampler.sample_relative(self.study, self._draft, group)
        quantiles = self._optuna_space.quantiles(params)
        point = self.space.point(quantiles)
        if point is not None and self.points.is_new(point):
            return point
        return self.points.near(quantiles, rng)

    def _accept(self, number: int, configuration: Configuration) -> None:
        import optuna

        self._add("RUNNING", configuration)
        added = self.study.get_trials(deepcopy=False)[-1]
        self._running[number] = optuna.Trial(self.study, added._trial_id)

    def _add(self, state: str, configuration: Mapping[str, Scalar], **values: Any) -> None:
        """Adds a trial to the study."""
        from optuna.trial import TrialState, create_trial

        params = self._optuna_space.params(configuration)
        distributions = {name: self._optuna_space.distributions[name] for name in params}
        self.study.add_trial(
            create_trial(
                state=TrialState[state], params=params, distributions=distributions, **values
            )
        )

    def _learn(self, trial: int, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        running = self._running.pop(trial)
        self._learned += self._is_learned(outcome)
        if outcome.complete:
            self.study.tell(running, _values(outcome), state=TrialState.COMPLETE)
        elif outcome.state == "stopped":
            if outcome.value is not None and not self.other_goals:  # Optuna has none with several
                running.report(_cut(outcome.value), outcome.iteration)
            self.study.tell(running, state=TrialState.PRUNED)
        else:
            self.study.tell(running, state=TrialState.FAIL)

    def _is_learned(self, outcome: Outcome) -> bool:
        return outcome.has_values and outcome.state in self.learned_states

    def _forget(self, trial: int) -> None:
        # The failed trial stays in the study, where it says nothing, and runs again in a new one.
        self._accept(trial, self._configurations[trial])

    def _learn_past(self, past: PastTrial) -> None:
        if not self._is_learned(past.outcome):
            return
        assert past.outcome.value is not None
        self._learned += 1
        finished = past.outcome.state == "finished"
        curve = {step: _cut(reported) for step, reported in past.reports}
        curve[past.outcome.iteration] = _cut(past.outcome.value)
        self._add(
            "COMPLETE" if finished else "PRUNED",
            past.configuration,
            values=_values(past.outcome) if finished else None,
            intermediate_values={} if self.other_goals else curve,
        )


class TPESearcher(OptunaSearcher):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna's `TPESampler`.

    Two densities are estimated, of the best tenth of the trials and of the rest, over all fields
    jointly, and the candidate with the largest ratio is proposed. In a conditional space fields
    with the same condition form a group, each with densities of its own. Running trials count as
    bad ones (the constant liar), so that parallel trials spread out.

    Optuna ranks stopped trials behind the finished ones, by the iteration they reached and by
    value only among those that reached the same: budgets are not mixed.
    """

    name = "tpe"
    learned_states = ("finished", "stopped")

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(
            seed=seed,
            n_startup_trials=self.startup_trials,
            multivariate=True,
            constant_liar=True,
        )


class GPSearcher(OptunaSearcher):
    """Gaussian process with a Matérn 5/2 kernel and log expected improvement, by `GPSampler`.

    It learns from finished trials alone, so that no two budgets are compared; with early stopping
    few trials teach it anything, and TPE is the better choice. Running trials are taken as unknown
    (q-batch expected improvement), so that parallel trials spread out.
    """

    name = "gp"
    learned_states = ("finished",)

    @classmethod
    def problems(cls, space: SearchSpace) -> list[str]:
        """Its kernel compares configurations field by field, so each needs them all."""
        return conditional_problems(space, cls.name)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        from optuna.samplers import GPSampler

        return GPSampler(
            seed=seed, n_startup_trials=self.startup_trials, warn_independent_sampling=False
        )


def _values(outcome: Outcome) -> list[float]:
    """Those of a complete outcome."""
    return [_cut(value) for value in (outcome.value, *outcome.others) if value is not None]


def _cut(value: float) -> float:
    return max(-_LARGEST, min(value, _LARGEST))

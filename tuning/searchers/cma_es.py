"""CMA-ES: a normal distribution over the space that moves and stretches towards good points."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tuning.outcome import Outcome, PastTrial
from tuning.searchers.base import Configuration, Searcher, derived_seed
from tuning.spaces.points import conditional_problems, unordered_problems
from tuning.spaces.search_space import SearchSpace

if TYPE_CHECKING:
    import cmaes
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float64]

#: Samples before a trial is drawn at random instead.
SAMPLES = 20
#: Standard deviation of the first generation in each direction of the unit cube (Hansen 2016).
FIRST_SIGMA = 0.3
#: Part of the past trials, the best, that a warm start begins from.
BEST_PART = 0.1


class CMAESSearcher(Searcher):
    """Covariance matrix adaptation evolution strategy (Hansen 2016), by the package `cmaes`.

    It works in the unit cube of the quantiles of those fields that have an order; the others are
    drawn at random. A generation is as many finished trials as the population has, all sampled
    from the same distribution. Trials that end after their generation, that ended early or badly,
    and those given from outside teach it nothing. Past trials set where it begins, by the rule of
    warm-starting CMA-ES (Nomura et al. 2021).
    """

    name = "cmaes"
    learns = True
    several_objectives = False

    @classmethod
    def problems(cls, space: SearchSpace) -> list[str]:
        """A normal distribution needs numbers, and always the same ones."""
        return [*conditional_problems(space, cls.name), *unordered_problems(space, cls.name)]

    def _restart(self) -> None:
        super()._restart()
        searched = self.space.searched.items()
        self._fields = {name: d for name, d in searched if d.ordered}
        self._others = [name for name, d in searched if not d.ordered]
        self._past: list[tuple[Vector, float]] = []
        self._model: cmaes.CMA | None = None
        self._generations: dict[int, int] = {}
        self._solutions: list[tuple[Vector, float]] = []

    def _propose(self, number: int) -> Configuration | None:
        return self._sampled(number) or self.points.draw(self._rng(number))

    def _sampled(self, number: int) -> Configuration | None:
        """A new point for a trial, from the distribution; None where samples give none."""
        if not self._fields:
            return None
        rng, model = self._rng(number), self._optimizer()
        model.reseed_rng(derived_seed(self.seed, number))
        for _ in range(SAMPLES):
            quantiles = dict(zip(self._fields, model.ask().tolist(), strict=True))
            quantiles |= {name: rng.random() for name in self._others}
            point = self.space.point(quantiles)
            if point is not None and self.points.is_new(point):
                return point
        return None

    def _accept(self, number: int, configuration: Configuration) -> None:
        # Sampling again tells whether this point is from the distribution: one that somebody gave
        # is not, and could throw it far off. A replayed journal does not say who proposed.
        if self._sampled(number) == configuration:
            self._generations[number] = self._optimizer().generation

    def _learn(self, trial: int, outcome: Outcome) -> None:
        if outcome.state != "finished" or outcome.value is None or trial not in self._generations:
            return
        model = self._optimizer()
        if self._generations.pop(trial) != model.generation:
            return
        self._solutions.append((self._place(self._configurations[trial]), self._loss(outcome)))
        if len(self._solutions) == model.population_size:
            model.tell(self._solutions)
            self._solutions = []

    def _learn_past(self, past: PastTrial) -> None:
        if past.outcome.state == "finished" and past.outcome.value is not None:
            self._past.append((self._place(dict(past.configuration)), self._loss(past.outcome)))

    def _optimizer(self) -> cmaes.CMA:
        if self._model is None:
            import cmaes
            import numpy as np

            bounds = np.array([[0.0, 1.0]] * len(self._fields))
            self._model = cmaes.CMA(**self._start(), bounds=bounds, seed=0)
        return self._model

    def _start(self) -> dict[str, Any]:
        """Where the first generation lies, and how wide."""
        import cmaes
        import numpy as np

        if not self._past:
            return {"mean": np.full(len(self._fields), 0.5), "sigma": FIRST_SIGMA}
        best_part = max(BEST_PART, 1 / len(self._past))
        mean, sigma, covariance = cmaes.get_warm_start_mgd(self._past, gamma=best_part)
        return {"mean": mean, "sigma": sigma, "cov": covariance}

    def _place(self, configuration: Configuration) -> Vector:
        """Where a configuration lies in the unit cube."""
        import numpy as np

        places = [d.cdf(configuration[name]) for name, d in self._fields.items()]
        return np.array(places, dtype=np.float64)

    def _loss(self, outcome: Outcome) -> float:
        assert outcome.value is not None
        return outcome.value if self.goal == "minimize" else -outcome.value

    def _rng(self, number: int) -> random.Random:
        return random.Random(derived_seed(self.seed, number))

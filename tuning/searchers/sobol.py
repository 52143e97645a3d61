"""Quasi-random search: a Sobol sequence, which fills the space more evenly than random draws."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tuning.searchers.base import Configuration, Searcher, derived_seed
from tuning.spaces.points import conditional_problems, unordered_problems
from tuning.spaces.search_space import SearchSpace

if TYPE_CHECKING:
    from scipy.stats.qmc import Sobol

#: Points of the sequence that may be passed over for each trial.
POINTS_A_TRIAL = 100


class SobolSearcher(Searcher):
    """A scrambled Sobol sequence (Sobol 1967, Owen 1998), by SciPy.

    Point n of the sequence depends on the seed alone. A trial is the first point that is allowed
    and was not proposed yet, each point being the quantiles of the searched fields.
    """

    name = "sobol"

    @classmethod
    def problems(cls, space: SearchSpace) -> list[str]:
        """Every point has all fields, and evenness means something only where there is order."""
        return [*conditional_problems(space, cls.name), *unordered_problems(space, cls.name)]

    def _restart(self) -> None:
        super()._restart()
        self._names = list(self.space.searched)
        self._engine: Sobol | None = None
        self._first = 0  # points of the sequence before this one are not allowed or not new

    def _propose(self, number: int) -> Configuration | None:
        # The last point to try depends on the number of the trial, not on where the search for
        # earlier trials ended, or a replayed search would go on elsewhere.
        while self._names and self._first < POINTS_A_TRIAL * (number + 1):
            point = self.space.point(dict(zip(self._names, self._quantiles(), strict=True)))
            if point is not None and self.points.is_new(point):
                return point
            self._first += 1
        return self.points.draw(random.Random(derived_seed(self.seed, number)))

    def _quantiles(self) -> list[float]:
        """The first point of the sequence that may be new, in [0, 1)."""
        if self._engine is None:
            from scipy.stats.qmc import Sobol

            self._engine = Sobol(d=len(self._names), scramble=True, rng=derived_seed(self.seed))
        self._engine.reset()
        if self._first:
            self._engine.fast_forward(self._first)
        quantiles: list[float] = self._engine.random(1)[0].tolist()
        return quantiles

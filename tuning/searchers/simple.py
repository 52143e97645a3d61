"""Searchers that do not learn: independent draws, and every point in turn."""

from __future__ import annotations

import random

from tuning.searchers.base import Configuration, Searcher, derived_seed
from tuning.spaces.search_space import SearchSpace

#: What W&B's grid search takes, and values in order, which are our own.
GRID_DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "q_uniform", "ordinal")


class RandomSearcher(Searcher):
    """Independent draws from the space (Bergstra and Bengio 2012), none of them twice."""

    name = "random"

    def _propose(self, number: int) -> Configuration | None:
        return self.points.draw(random.Random(derived_seed(self.seed, number)))


class GridSearcher(Searcher):
    """Every allowed point once, in the order of the sweep file, the last field fastest."""

    name = "grid"

    @classmethod
    def problems(cls, space: SearchSpace) -> list[str]:
        """W&B's rule: a grid is of separate values, and none of them is likelier than another."""
        return [
            f"parameters.{name}: a grid cannot enumerate {distribution.name}; "
            "name its values, or use random, tpe, gp or sobol."
            for name, distribution in space.searched.items()
            if distribution.name not in GRID_DISTRIBUTIONS or distribution.size() is None
        ]

    def _restart(self) -> None:
        super()._restart()
        self._points = self.space.grid_points()

    def _propose(self, number: int) -> Configuration | None:
        return next((point for point in self._points if self.points.is_new(point)), None)

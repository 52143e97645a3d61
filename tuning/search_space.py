"""Search spaces: the hyper-parameters of a search, each with its distribution."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuning.distributions import Distribution, Scalar


@dataclass(frozen=True)
class SearchSpace:
    """The hyper-parameters of a search, in the order of the sweep file.

    Attributes:
        parameters: Distribution of each configuration field, by its name.
    """

    parameters: Mapping[str, Distribution]

    @property
    def constants(self) -> dict[str, Scalar]:
        """Fields that can take one value only, with that value."""
        return {name: d.grid()[0] for name, d in self.parameters.items() if d.size() == 1}

    @property
    def searched(self) -> dict[str, Distribution]:
        """Fields that can take more than one value."""
        return {name: d for name, d in self.parameters.items() if d.size() != 1}

    def complete(self, searched: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Joins values of the searched fields with the constants, in the space's order."""
        values = {**self.constants, **searched}
        return {name: values[name] for name in self.parameters}

    def sample(self, rng: random.Random) -> dict[str, Scalar]:
        """Draws a configuration; constants use up no random number."""
        return self.complete({name: d.sample(rng) for name, d in self.searched.items()})

    def contains(self, configuration: Mapping[str, Any]) -> bool:
        """Whether a configuration is a point: every field and no other, each in its range."""
        return configuration.keys() == self.parameters.keys() and all(
            d.contains(configuration[name]) for name, d in self.parameters.items()
        )

    def size(self) -> int | None:
        """Number of points, or None where there are infinitely many."""
        sizes = [d.size() for d in self.parameters.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def grid_point(self, index: int) -> dict[str, Scalar]:
        """The point at a place of the grid, counted from 0; the last field varies fastest.

        Raises:
            ValueError: where a range is continuous.
        """
        values: dict[str, Scalar] = {}
        for name, distribution in reversed(self.searched.items()):
            grid = distribution.grid()
            index, place = divmod(index, len(grid))
            values[name] = grid[place]
        return self.complete(values)

    def grid_points(self) -> Iterator[dict[str, Scalar]]:
        """Every point, in the order of `grid_point`.

        Raises:
            ValueError: where a range is continuous.
        """
        for distribution in self.parameters.values():
            distribution.grid()
        return (self.grid_point(index) for index in range(self.size() or 0))

    def describe(self) -> list[str]:
        """One line for each field: its name and what it can be."""
        width = max((len(name) for name in self.parameters), default=0)
        return [f"{name:<{width}}  {d.describe()}" for name, d in self.parameters.items()]

    def to_mapping(self) -> dict[str, Any]:
        """The ``parameters`` of a sweep file."""
        return {name: d.to_mapping() for name, d in self.parameters.items()}

"""The points of a search space: which were proposed, which are left, what is wrong with some."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from model.errors import ExperimentError
from model.validation import did_you_mean
from tuning.distributions import Scalar
from tuning.spaces.search_space import LISTED, SearchSpace

#: Draws before a finite space is listed, and before a point of an infinite one may come twice.
DRAWS = 100
#: Draws after which constraints are taken to leave nothing.
MOST_DRAWS = 100_000
#: Width of the first step to a point near another, as a part of the space, and how it grows.
NEAREST, WIDER = 0.01, 1.1

_Key = tuple[tuple[bool, Scalar], ...]


class Points:
    """The points of a space that were proposed, and those that are left.

    Drawing is a function of what was proposed and of the random numbers alone, whatever was
    looked up before, so that a search which is replayed draws the same.

    Args:
        space: Whose points.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._names = tuple(space.parameters)
        self._searched = space.searched
        self._size = space.size()
        self._proposed: set[_Key] = set()
        self._left: dict[_Key, tuple[Scalar, ...]] | None = None

    def add(self, configuration: Mapping[str, Scalar]) -> None:
        """Notes that a point was proposed."""
        key = self._key(configuration)
        self._proposed.add(key)
        if self._left is not None:
            self._left.pop(key, None)

    def is_new(self, configuration: Mapping[str, Scalar]) -> bool:
        """Whether a point was not proposed yet."""
        return self._key(configuration) not in self._proposed

    @property
    def exhausted(self) -> bool:
        """Whether every allowed point is known to have been proposed."""
        if self._left is not None:
            return not self._left
        return self._size is not None and len(self._proposed) >= self._size

    def draw(self, rng: random.Random) -> dict[str, Scalar] | None:
        """Draws an allowed point that was not proposed yet.

        The draws follow the fields' distributions. Where they find nothing new, points of a finite
        space are listed and one of those left is drawn, all being equally likely; a point of an
        infinite space then comes twice, which can only be where ranges are next to nothing.

        Returns:
            The point, or None where every allowed one was proposed.

        Raises:
            ExperimentError: where the constraints leave nothing that can be found.
        """
        point = self._drawn(rng, DRAWS)
        if point is not None:
            return point
        if self._size is not None and self._size <= LISTED:
            return self._drawn_of_those_left(rng)
        point = self._drawn(rng, MOST_DRAWS, twice=self._size is None)
        if point is None:
            raise ExperimentError(
                f"{MOST_DRAWS:,} draws found no configuration that is allowed and was not "
                "proposed yet; the constraints leave too few."
            )
        return point

    def near(self, quantiles: Mapping[str, float], rng: random.Random) -> dict[str, Scalar] | None:
        """Draws a new and allowed point close to a place, looking ever further away.

        Numbers move by a normal deviate of their quantile; what has no order changes as often as
        that is wide.

        Args:
            quantiles: The place, in [0, 1] for each searched field.
            rng: Where random numbers come from.

        Returns:
            The point, or None where none was found up to the width of the space.
        """
        width = NEAREST
        while width < 1:
            moved = {name: self._moved(name, u, width, rng) for name, u in quantiles.items()}
            point = self.space.point(moved)
            if point is not None and self.is_new(point):
                return point
            width *= WIDER
        return None

    def _moved(self, name: str, quantile: float, width: float, rng: random.Random) -> float:
        if not self._searched[name].ordered:
            return rng.random() if rng.random() < width else quantile
        moved = (quantile + rng.gauss(0, width)) % 2  # a step beyond an end is reflected there
        return min(moved, 2 - moved)

    def _drawn(
        self, rng: random.Random, draws: int, *, twice: bool = False
    ) -> dict[str, Scalar] | None:
        """The first draw that is allowed, and new unless points may come twice."""
        for _ in range(draws):
            point = self.space.point({name: rng.random() for name in self._searched})
            if point is not None and (twice or self.is_new(point)):
                return point
        return None

    def _drawn_of_those_left(self, rng: random.Random) -> dict[str, Scalar] | None:
        if self._left is None:
            listed = {self._key(point): tuple(point.values()) for point in self.space.grid_points()}
            self._left = {k: values for k, values in listed.items() if k not in self._proposed}
        if not self._left:
            return None
        return dict(zip(self._names, rng.choice(list(self._left.values())), strict=True))

    def _key(self, configuration: Mapping[str, Scalar]) -> _Key:
        """The values in order, telling True from 1."""
        values = (configuration[name] for name in self._names)
        return tuple((isinstance(value, bool), value) for value in values)


def faults_of(space: SearchSpace, configuration: Mapping[str, Any]) -> Iterator[str]:
    """Yields what keeps a configuration from being a point of a space, field by field."""
    known = space.parameters
    for name in (name for name in configuration if name not in known):
        yield f"{name}: is no field of the search space{did_you_mean(name, known)}"
    missing = [name for name in known if name not in configuration]
    yield from (f"{name}: is missing." for name in missing)
    if missing:
        return
    active = space.active(configuration)
    wrong = [
        f"{name}: must be {distribution.describe()}, but got {configuration[name]!r}."
        for name, distribution in known.items()
        if name in active and not distribution.contains(configuration[name])
    ]
    yield from wrong
    if not wrong and configuration.keys() == known.keys() and not space.contains(configuration):
        yield from _whole_faults(space, configuration)


def _whole_faults(space: SearchSpace, configuration: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a configuration whose active fields are each in range."""
    broken = [str(rule) for rule in space.constraints if not rule.true_of(configuration)]
    yield from (f"breaks the constraint {rule}." for rule in broken)
    if not broken:
        unsearched = [name for name in space.when if name not in space.active(configuration)]
        yield (
            f"{', '.join(unsearched)}: not searched where the rest is so, and then must have "
            "its default."
        )


def conditional_problems(space: SearchSpace, searcher: str) -> list[str]:
    """A problem for each field that is not searched in every configuration."""
    return [
        f"parameters.{name}: is searched only when {condition}, which {searcher} cannot do; "
        "use tpe, random or grid."
        for name, condition in space.when.items()
    ]


def unordered_problems(space: SearchSpace, searcher: str) -> list[str]:
    """A problem for each searched field, where not one of them is a number with an order."""
    if any(distribution.ordered for distribution in space.searched.values()):
        return []
    return [
        f"parameters.{name}: has no order, and {searcher} needs a field that has one: give a "
        "range, or dialogue_tune.parameters with ordinal: true; or use tpe, random or grid."
        for name in space.searched
    ]

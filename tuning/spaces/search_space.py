"""Search spaces: the hyper-parameters of a search, each with its distribution.

A field may have a condition: where it is false the field is not searched (not active) and has the
configuration's default. And there may be constraints, which every configuration must fulfil.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from model.config import DEFAULTS
from model.errors import ExperimentError
from tuning.distributions import Distribution, Scalar, same
from tuning.spaces.expressions import Expression

#: Finite spaces up to this size are listed: to see whether constraints leave a point, and how
#: many; and to find those left, when drawing finds nothing new.
LISTED = 100_000
#: Draws that are tried to see it in any other space.
_DRAWS = 10_000
#: Draws that are tried for one sample: twenty times as many, since a few may be bad luck.
_SAMPLE_DRAWS = 20 * _DRAWS


@dataclass(frozen=True)
class SearchSpace:
    """The hyper-parameters of a search, in the order of the sweep file.

    Attributes:
        parameters: Distribution of each configuration field, by its name.
        when: Conditions of searched fields; the others are always searched.
        constraints: What every configuration must fulfil.

    Raises:
        ValueError: where a field's condition depends on the field itself.
    """

    parameters: Mapping[str, Distribution]
    when: Mapping[str, Expression] = field(default_factory=dict)
    constraints: tuple[Expression, ...] = ()

    def __post_init__(self) -> None:
        _ = self._conditional

    @cached_property
    def _constants(self) -> dict[str, Scalar]:
        return {name: d.grid()[0] for name, d in self.parameters.items() if d.size() == 1}

    @cached_property
    def _searched(self) -> dict[str, Distribution]:
        return {name: d for name, d in self.parameters.items() if d.size() != 1}

    @cached_property
    def _conditional(self) -> tuple[str, ...]:
        """The fields with conditions, each behind those that its own condition names."""
        found: dict[str, None] = {}
        for name in self.when:
            self._visit(name, (), found)
        return tuple(found)

    def _visit(self, name: str, path: tuple[str, ...], found: dict[str, None]) -> None:
        if name in path:
            circle = " needs ".join((*path[path.index(name) :], name))
            raise ValueError(f"the conditions go round in a circle: {circle}.")
        for other in sorted(self.when[name].names & self.when.keys()):
            self._visit(other, (*path, name), found)
        found[name] = None

    @property
    def constants(self) -> dict[str, Scalar]:
        """Fields that can take one value only, with that value."""
        return dict(self._constants)

    @property
    def searched(self) -> dict[str, Distribution]:
        """Fields that can take more than one value."""
        return dict(self._searched)

    @property
    def conditional(self) -> bool:
        """Whether there are fields that are searched only under a condition."""
        return bool(self.when)

    def complete(self, searched: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Joins values of the searched fields with the constants, in the space's order.

        Fields that are not active get their defaults, whatever is given for them, if anything.
        """
        values = {**self._constants, **searched}
        for name in self._conditional:
            if not self.when[name].true_of(values):
                values[name] = DEFAULTS[name]
        return {name: values[name] for name in self.parameters}

    def active(self, configuration: Mapping[str, Any]) -> frozenset[str]:
        """The fields, constants included, that have no condition or a true one."""
        waiting = {name for name in self.when if not self.when[name].true_of(configuration)}
        return frozenset(self.parameters.keys() - waiting)

    def allows(self, configuration: Mapping[str, Any]) -> bool:
        """Whether a configuration fulfils all constraints."""
        return all(constraint.true_of(configuration) for constraint in self.constraints)

    def point(self, quantiles: Mapping[str, float]) -> dict[str, Scalar] | None:
        """The configuration at a quantile, in [0, 1], of each searched field.

        Returns:
            The configuration, or None where the constraints do not allow it.
        """
        configuration = self.complete(
            {name: d.quantile(quantiles[name]) for name, d in self._searched.items()}
        )
        return configuration if self.allows(configuration) else None

    def sample(self, rng: random.Random) -> dict[str, Scalar]:
        """Draws an allowed configuration; constants use up no random number.

        Raises:
            ExperimentError: where the constraints leave too little to be found by drawing.
        """
        for draw in range(_SAMPLE_DRAWS):
            configuration = self.point({name: rng.random() for name in self._searched})
            if configuration is not None:
                return configuration
            if draw == _DRAWS and self._is_listed:
                allowed = list(self.grid_points())
                if allowed:
                    return rng.choice(allowed)
        raise ExperimentError(
            f"no configuration that the constraints allow in {_SAMPLE_DRAWS:,} draws."
        )

    def contains(self, configuration: Mapping[str, Any]) -> bool:
        """Whether a configuration is a point of the space.

        It must have every field and no other, each in its range or, where it is not active, at
        its default, and be allowed.
        """
        if configuration.keys() != self.parameters.keys():
            return False
        active = self.active(configuration)
        return all(
            d.contains(configuration[name])
            if name in active
            else same(configuration[name], DEFAULTS[name])
            for name, d in self.parameters.items()
        ) and self.allows(configuration)

    def size(self) -> int | None:
        """Number of points, or None where there are infinitely many.

        Points that the constraints forbid are counted too, and so are those that differ only in
        fields that are not active; see `count`.
        """
        sizes = [d.size() for d in self.parameters.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    @cached_property
    def count(self) -> int | None:
        """Number of different points that are allowed.

        None where there are infinitely many, or too many to try each: with conditions or
        constraints more than `LISTED`.
        """
        if not (self.when or self.constraints):
            return self.size()
        return sum(1 for _ in self.grid_points()) if self._is_listed else None

    @property
    def _is_listed(self) -> bool:
        size = self.size()
        return size is not None and size <= LISTED

    def grid_point(self, index: int) -> dict[str, Scalar]:
        """The point at a place of the whole grid, from 0; the last field varies fastest.

        Raises:
            ValueError: where a range is continuous.
        """
        return self._at(self._places(index))

    def _places(self, index: int) -> dict[str, int]:
        """Place in its grid of each searched field, the last one first."""
        places: dict[str, int] = {}
        for name, distribution in reversed(self._searched.items()):
            index, places[name] = divmod(index, len(distribution.grid()))
        return places

    def _at(self, places: Mapping[str, int]) -> dict[str, Scalar]:
        return self.complete({name: self._searched[name].grid()[i] for name, i in places.items()})

    def grid_points(self) -> Iterator[dict[str, Scalar]]:
        """Every allowed point once, in the order of `grid_point`.

        Raises:
            ValueError: where a range is continuous.
        """
        for distribution in self.parameters.values():
            distribution.grid()
        return self._grid_points()

    def _grid_points(self) -> Iterator[dict[str, Scalar]]:
        for index in range(self.size() or 0):
            places = self._places(index)
            point = self._at(places)
            # Of points that differ only in fields that are not active, the first one stands.
            idle = self.when.keys() - self.active(point)
            if not any(places[name] for name in idle) and self.allows(point):
                yield point

    def emptiness(self) -> str | None:
        """What forbids every configuration, or None where one is allowed.

        Up to `LISTED` points are all tried; of larger spaces, 10,000 draws.
        """
        if not self.constraints:
            return None
        held = dict.fromkeys(self.constraints, False)
        tried = 0
        for point in self._tried():
            tried += 1
            fulfilled = [constraint for constraint in held if constraint.true_of(point)]
            if len(fulfilled) == len(held):
                return None
            held.update(dict.fromkeys(fulfilled, True))
        what = f"all {tried:,} configurations" if self._is_listed else f"{tried:,} draws"
        never = [str(constraint) for constraint in held if not held[constraint]]
        detail = f"; never true: {'; '.join(never)}" if never else "; each is true of some"
        return f"none of {what} fulfils the constraints together{detail}."

    def _tried(self) -> Iterator[dict[str, Scalar]]:
        """Configurations of the space as if there were no constraints."""
        free = SearchSpace(self.parameters, self.when)
        if self._is_listed:
            return free.grid_points()
        rng = random.Random(0)
        return (free.sample(rng) for _ in range(_DRAWS))

    def describe(self) -> list[str]:
        """One line for each field: its name and what it can be; then one for each constraint."""
        width = max((len(name) for name in self.parameters), default=0)
        fields = [f"{name:<{width}}  {self._described(name)}" for name in self.parameters]
        return fields + [f"{'only if':<{width}}  {constraint}" for constraint in self.constraints]

    def _described(self, name: str) -> str:
        text = self.parameters[name].describe()
        if name not in self.when:
            return text
        return f"{text}; only if {self.when[name]}, else {DEFAULTS[name]}"

    def to_mapping(self) -> dict[str, Any]:
        """The ``parameters`` of a sweep file."""
        return {name: d.to_mapping() for name, d in self.parameters.items()}

    def extension(self) -> dict[str, Any]:
        """The rest of the space as ``dialogue_tune`` of a sweep file states it; may be empty."""
        fields: dict[str, dict[str, Any]] = {}
        for name, distribution in self.parameters.items():
            if distribution.name == "ordinal":
                fields.setdefault(name, {})["ordinal"] = True
            if name in self.when:
                fields.setdefault(name, {})["when"] = str(self.when[name])
        stated: dict[str, Any] = {"parameters": fields} if fields else {}
        if self.constraints:
            stated["constraints"] = [str(constraint) for constraint in self.constraints]
        return stated

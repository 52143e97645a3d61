"""Distributions over values that are listed one by one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, ClassVar

from tuning.distributions.base import (
    Distribution,
    Fault,
    Scalar,
    is_number,
    number_fault,
    raise_first,
    same,
)

#: Probabilities may miss a sum of 1 by this much: people write 0.33 three times.
_SUM_TOLERANCE = 0.0101
#: A probability that is not 0 is at least this, so that floats can tell the values apart.
_SMALLEST = 1e-9


@dataclass(frozen=True)
class Constant(Distribution):
    """A single value."""

    value: Scalar
    name: ClassVar[str] = "constant"
    keys: ClassVar[tuple[str, ...]] = ("value",)
    ordered: ClassVar[bool] = False

    def quantile(self, u: float) -> Scalar:  # noqa: D102
        return self.value

    def cdf(self, value: Any) -> float:  # noqa: D102
        return 0.5

    def contains(self, value: Any) -> bool:  # noqa: D102
        return same(self.value, value)

    def size(self) -> int:  # noqa: D102
        return 1

    def grid(self) -> Sequence[Scalar]:  # noqa: D102
        return (self.value,)

    def describe(self) -> str:  # noqa: D102
        return f"{self.value}"

    def to_mapping(self) -> dict[str, Any]:  # noqa: D102
        return {"value": self.value}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Constant:  # noqa: D102
        return cls(mapping["value"])

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        return iter(())


@dataclass(frozen=True)
class Categorical(Distribution):
    """Any of several values, equally likely. Numbers among them have no order."""

    values: tuple[Scalar, ...]
    name: ClassVar[str] = "categorical"
    keys: ClassVar[tuple[str, ...]] = ("values",)
    ordered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        raise_first(self.faults(self.to_mapping()))

    def quantile(self, u: float) -> Scalar:  # noqa: D102
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def cdf(self, value: Any) -> float:  # noqa: D102
        return (self.index(value) + 0.5) / len(self.values)

    def index(self, value: Any) -> int:
        """The place of a value in the list, from 0.

        Raises:
            ValueError: where it is not in the list.
        """
        for place, own in enumerate(self.values):
            if same(own, value):
                return place
        raise ValueError(f"{value!r} is not {self.describe()}.")

    def contains(self, value: Any) -> bool:  # noqa: D102
        return any(same(own, value) for own in self.values)

    def size(self) -> int:  # noqa: D102
        return len(self.grid())

    def grid(self) -> Sequence[Scalar]:  # noqa: D102
        return self.values

    def describe(self) -> str:  # noqa: D102
        return f"one of {', '.join(str(value) for value in self.values)}"

    def to_mapping(self) -> dict[str, Any]:  # noqa: D102
        return {"values": list(self.values)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Categorical:  # noqa: D102
        return cls(tuple(mapping["values"]))

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        values = mapping["values"]
        if not isinstance(values, list | tuple):
            yield "values", f"must be a list, but got {values!r} ({type(values).__name__})."
            return
        if not values:
            yield "values", "must name at least one value, but is empty."
        for index, value in enumerate(values):
            if any(same(value, earlier) for earlier in values[:index]):
                yield f"values[{index}]", f"{value!r} is there twice; name each value once."


@dataclass(frozen=True)
class WeightedCategorical(Categorical):
    """Any of several values, each with its probability; one of probability 0 is never drawn.

    Probabilities that do not add up to 1 exactly are taken as shares of their sum.
    """

    probabilities: tuple[float, ...] = ()
    name: ClassVar[str] = "categorical_w_probabilities"
    keys: ClassVar[tuple[str, ...]] = ("values", "probabilities")

    @cached_property
    def _edges(self) -> list[float]:
        """Where the values' intervals of probability end, the last at 1."""
        sums = list(accumulate(self.probabilities))
        return [edge / sums[-1] for edge in sums]

    def quantile(self, u: float) -> Scalar:  # noqa: D102
        place = min(bisect_right(self._edges, u), len(self.values) - 1)
        while not self.probabilities[place]:  # beyond the last value that can be drawn
            place -= 1
        return self.values[place]

    def cdf(self, value: Any) -> float:  # noqa: D102
        low, high = list(pairwise((0.0, *self._edges)))[self.index(value)]
        return (low + high) / 2

    def contains(self, value: Any) -> bool:  # noqa: D102
        return any(same(own, value) for own in self.grid())

    def grid(self) -> Sequence[Scalar]:  # noqa: D102
        pairs = zip(self.values, self.probabilities, strict=True)
        return tuple(value for value, probability in pairs if probability)

    def describe(self) -> str:  # noqa: D102
        pairs = zip(self.values, self.probabilities, strict=True)
        return f"one of {', '.join(f'{value} ({share:g})' for value, share in pairs)}"

    def to_mapping(self) -> dict[str, Any]:  # noqa: D102
        return {"values": list(self.values), "probabilities": list(self.probabilities)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> WeightedCategorical:  # noqa: D102
        return cls(tuple(mapping["values"]), tuple(mapping["probabilities"]))

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        yield from super().faults(mapping)
        values, shares = mapping["values"], mapping["probabilities"]
        if not isinstance(shares, list | tuple):
            yield "probabilities", f"must be a list, but got {shares!r} ({type(shares).__name__})."
            return
        wrong = list(_share_faults(shares))
        yield from wrong
        if isinstance(values, list | tuple) and len(values) != len(shares):
            text = f"must be one for each of {len(values)} values, but there are {len(shares)}."
            yield "probabilities", text
        elif not wrong and abs(sum(shares) - 1) > _SUM_TOLERANCE:
            yield "probabilities", f"must add up to 1, but add up to {sum(shares):g}."


def _share_faults(shares: Sequence[Any]) -> Iterator[Fault]:
    for index, share in enumerate(shares):
        fault = number_fault(share)
        if fault is None and share != 0 and not _SMALLEST <= share <= 1 + _SUM_TOLERANCE:
            fault = f"must be 0, or between {_SMALLEST:g} and 1, but got {share!r}."
        if fault is not None:
            yield f"probabilities[{index}]", fault


@dataclass(frozen=True)
class Ordinal(Categorical):
    """Any of several numbers in rising order, equally likely; searchers learn from the order.

    Our own extension: in a sweep file these are ``values`` with ``ordinal: true`` under
    ``dialogue_tune``.
    """

    name: ClassVar[str] = "ordinal"
    ordered: ClassVar[bool] = True

    def cdf(self, value: Any) -> float:
        """As of other values; of a number between two of them, the probability of those below."""
        if self.contains(value):
            return super().cdf(value)
        return sum(bool(own < value) for own in self.grid()) / len(self.values)

    def describe(self) -> str:  # noqa: D102
        return f"{super().describe()}, in order"

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        noted = list(super().faults(mapping))
        yield from noted
        values = mapping["values"]
        if noted:
            return
        for index, value in enumerate(values):
            if not is_number(value):
                yield f"values[{index}]", f"must be a number to be in order, but got {value!r}."
                return
        for earlier, later in pairwise(values):
            if not earlier < later:
                yield "values", f"must rise to be in order, but {later!r} comes after {earlier!r}."

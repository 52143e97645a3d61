"""What every distribution can do, and the few checks that they share."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

Scalar = bool | int | float | str | None

#: A key of a parameter, and what is wrong with its value.
Fault = tuple[str, str]


class Distribution(ABC):
    """How the values of one hyper-parameter are distributed.

    Attributes:
        name: The ``distribution`` of the sweep format.
        keys: The keys that it needs in a sweep file.
        optional: The keys that it may have, each with its default.
        ordered: Whether its values are numbers whose order means something.
        log: Whether it has its shape in the logarithm of the values: a factor is like any other.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    optional: ClassVar[Mapping[str, Any]] = {}
    ordered: ClassVar[bool]
    log: ClassVar[bool] = False

    @abstractmethod
    def quantile(self, u: float) -> Scalar:
        """The inverse cumulative distribution function at u in [0, 1]."""

    @abstractmethod
    def cdf(self, value: Any) -> float:
        """The cumulative distribution function, in [0, 1].

        Of separate values it is the middle of the value's interval of probability, so that
        ``quantile(cdf(value)) == value``; of a continuous range that holds up to rounding. Where
        there is an order, any number has a place; else only values that can be drawn.
        """

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether a value can be drawn."""

    @abstractmethod
    def size(self) -> int | None:
        """Number of different values, or None where there are infinitely many."""

    @abstractmethod
    def grid(self) -> Sequence[Scalar]:
        """Every value, in order.

        Raises:
            ValueError: where there are infinitely many.
        """

    @abstractmethod
    def describe(self) -> str:
        """One line for people."""

    @abstractmethod
    def to_mapping(self) -> dict[str, Any]:
        """The parameter as a sweep file states it; `parse_distribution` reads it back."""

    @classmethod
    @abstractmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Distribution:
        """Builds the distribution from a parameter in which `faults` finds nothing."""

    @classmethod
    @abstractmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:
        """Yields (key, what is wrong) for the values of a parameter that has all its keys."""

    def sample(self, rng: random.Random) -> Scalar:
        """Draws one value, using up exactly one number of the generator."""
        return self.quantile(rng.random())


class Continuous(Distribution):
    """Real numbers between two ends, both included; equal ends leave one value."""

    ordered: ClassVar[bool] = True

    @abstractmethod
    def quantile(self, u: float) -> float:  # noqa: D102
        ...

    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value that can be drawn."""

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether the ends were asked for, by the sweep file or by the field."""

    def contains(self, value: Any) -> bool:  # noqa: D102
        low, high = self.ends()
        return is_number(value) and bool(low <= value <= high)

    def size(self) -> int | None:  # noqa: D102
        low, high = self.ends()
        return 1 if low == high else None

    def grid(self) -> Sequence[Scalar]:  # noqa: D102
        if self.size() is None:
            raise ValueError(
                "a continuous range has no list of values to enumerate; "
                "name them with values, or search with method random or bayes."
            )
        return (self.quantile(0.0),)


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether a value is written as a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Equality that tells True from 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def number_fault(value: Any) -> str | None:
    """What is wrong with a value that must be a finite number, or None."""
    if not is_number(value):
        return f"must be a number, but got {value!r} ({type(value).__name__})."
    try:
        finite = math.isfinite(value)
    except OverflowError:
        return f"must be less than 1e308 in size, but has {len(str(abs(value)))} digits."
    return None if finite else f"must be a finite number, but got {value!r}."


def raise_first(faults: Iterator[Fault]) -> None:
    """Raises the first fault, of a distribution that is not built from a sweep file.

    Raises:
        ValueError: naming the key and what is wrong.
    """
    for key, fault in faults:
        raise ValueError(f"{key} {fault}")

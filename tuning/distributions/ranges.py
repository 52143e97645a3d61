"""Distributions over a range with two ends: even, even over whole numbers, even in logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tuning.distributions.base import (
    Continuous,
    Distribution,
    Fault,
    is_number,
    is_whole,
    number_fault,
    raise_first,
)

#: Logarithms between these have an exponential that is a positive float.
_LOWEST_LOG, _HIGHEST_LOG = -745.0, 709.0


@dataclass(frozen=True)
class _Range(Distribution):
    """A range with both ends included; ``min == max`` leaves one value, and is allowed.

    Attributes:
        low, high: The ends.
    """

    low: float
    high: float
    keys: ClassVar[tuple[str, ...]] = ("min", "max")
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        raise_first(self.faults({"min": self.low, "max": self.high}))

    def contains(self, value: Any) -> bool:
        return is_number(value) and bool(self.low <= value <= self.high)

    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def bounded(self) -> bool:
        return True

    def describe(self) -> str:
        return f"{self.low} to {self.high}, {self.name}"

    def to_mapping(self) -> dict[str, Any]:
        return {"distribution": self.name, "min": self.low, "max": self.high}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> _Range:
        return cls(mapping["min"], mapping["max"])

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:
        return _order_faults(mapping)


def _order_faults(mapping: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with min and max as two numbers of which the first is not the larger."""
    low, high = mapping["min"], mapping["max"]
    for key, value in (("min", low), ("max", high)):
        fault = number_fault(value)
        if fault is not None:
            yield key, fault
    if is_number(low) and is_number(high) and low > high:
        yield "min", f"must be at most max, but the range {low!r} to {high!r} is empty."


def _between(low: float, high: float, u: float) -> float:
    """The value at share u of the way; written so that it cannot overflow."""
    return (1 - u) * low + u * high


def _share(low: float, high: float, value: float) -> float:
    """How far a value is on the way from one end to the other, in [0, 1]."""
    if low == high and value == low:
        return 0.5
    if value <= low:
        return 0.0
    if value >= high:
        return 1.0
    width = high - low
    # Half the width where the whole is more than a float can be.
    return (
        (value - low) / width
        if math.isfinite(width)
        else (value / 2 - low / 2) / (high / 2 - low / 2)
    )


@dataclass(frozen=True)
class Uniform(_Range, Continuous):
    """Real numbers, every one between the ends equally likely."""

    name: ClassVar[str] = "uniform"

    def quantile(self, u: float) -> float:  # noqa: D102
        # Clamped because rounding may pass an end.
        return float(min(max(_between(self.low, self.high, u), self.low), self.high))

    def cdf(self, value: Any) -> float:  # noqa: D102
        return _share(self.low, self.high, value)


@dataclass(frozen=True)
class IntUniform(_Range):
    """Whole numbers, every one between the ends equally likely."""

    low: int
    high: int
    name: ClassVar[str] = "int_uniform"

    def quantile(self, u: float) -> int:  # noqa: D102
        return min(self.low + int(u * self.size()), self.high)

    def cdf(self, value: Any) -> float:  # noqa: D102
        return float(min(max((value - self.low + 0.5) / self.size(), 0.0), 1.0))

    def contains(self, value: Any) -> bool:  # noqa: D102
        return super().contains(value) and bool(value == int(value))

    def size(self) -> int:  # noqa: D102
        return self.high - self.low + 1

    def grid(self) -> Sequence[int]:  # noqa: D102
        return range(self.low, self.high + 1)

    def describe(self) -> str:  # noqa: D102
        return f"{self.low} to {self.high}, whole numbers"

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        yield from super().faults(mapping)
        for key in cls.keys:
            if is_number(mapping[key]) and not is_whole(mapping[key]):
                yield key, f"must be a whole number for int_uniform, but got {mapping[key]!r}."


@dataclass(frozen=True)
class LogUniform(_Range, Continuous):
    """Positive real numbers whose logarithm is uniform: each factor of ten equally likely."""

    name: ClassVar[str] = "log_uniform_values"
    log: ClassVar[bool] = True

    def quantile(self, u: float) -> float:  # noqa: D102
        value = math.exp(_between(math.log(self.low), math.log(self.high), u))
        return float(min(max(value, self.low), self.high))

    def cdf(self, value: Any) -> float:  # noqa: D102
        if value <= 0:
            return 0.0
        return _share(math.log(self.low), math.log(self.high), math.log(value))

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        yield from super().faults(mapping)
        if is_number(mapping["min"]) and mapping["min"] <= 0:
            yield "min", f"must be greater than 0 for a log range, but got {mapping['min']!r}."


@dataclass(frozen=True)
class InvLogUniform(LogUniform):
    """X where log(1/X) is uniform between log(1/max) and log(1/min).

    That is the distribution of `LogUniform`, by another name.
    """

    name: ClassVar[str] = "inv_log_uniform_values"


@dataclass(frozen=True)
class LogUniformExponent(Continuous):
    """exp(U) where U is uniform: ``min`` and ``max`` are natural logarithms.

    Attributes:
        min_log, max_log: The ends of U, as the sweep file states them.
    """

    min_log: float
    max_log: float
    name: ClassVar[str] = "log_uniform"
    keys: ClassVar[tuple[str, ...]] = ("min", "max")
    log: ClassVar[bool] = True

    def __post_init__(self) -> None:
        raise_first(self.faults({"min": self.min_log, "max": self.max_log}))

    def _logs(self) -> tuple[float, float]:
        """The logarithms of the smallest and of the largest value."""
        return self.min_log, self.max_log

    @property
    def low(self) -> float:
        """The smallest value."""
        return math.exp(self._logs()[0])

    @property
    def high(self) -> float:
        """The largest value."""
        return math.exp(self._logs()[1])

    def ends(self) -> tuple[float, float]:  # noqa: D102
        return self.low, self.high

    @property
    def bounded(self) -> bool:  # noqa: D102
        return True

    def quantile(self, u: float) -> float:  # noqa: D102
        return min(max(math.exp(_between(*self._logs(), u)), self.low), self.high)

    def cdf(self, value: Any) -> float:  # noqa: D102
        return _share(*self._logs(), math.log(value)) if value > 0 else 0.0

    def describe(self) -> str:  # noqa: D102
        return f"{self.low:g} to {self.high:g}, {self.name}"

    def to_mapping(self) -> dict[str, Any]:  # noqa: D102
        return {"distribution": self.name, "min": self.min_log, "max": self.max_log}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> LogUniformExponent:  # noqa: D102
        return cls(mapping["min"], mapping["max"])

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        noted = list(_order_faults(mapping))
        yield from noted
        for key in cls.keys if not noted else ():
            if not _LOWEST_LOG <= mapping[key] <= _HIGHEST_LOG:
                yield (
                    key,
                    (
                        f"is a natural logarithm and must be between {_LOWEST_LOG:g} and "
                        f"{_HIGHEST_LOG:g}, but got {mapping[key]!r}; "
                        f"for values, use {cls.name}_values."
                    ),
                )


@dataclass(frozen=True)
class InvLogUniformExponent(LogUniformExponent):
    """X where log(1/X) is uniform between min and max: from exp(-max) to exp(-min)."""

    name: ClassVar[str] = "inv_log_uniform"

    def _logs(self) -> tuple[float, float]:
        return -self.max_log, -self.min_log

"""Distributions in steps: round(X / q) * q, where X has one of the continuous distributions.

As in Weights & Biases a value may lie up to q / 2 beyond the ends of X, and half of a step is
rounded to the even multiple. Multiples of a decimal q are the nearest floats (0.3, not 0.1 * 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

from tuning.distributions.base import (
    Continuous,
    Distribution,
    Fault,
    is_number,
    number_fault,
    raise_first,
)
from tuning.distributions.ranges import LogUniform, LogUniformExponent, Uniform
from tuning.distributions.shapes import Beta, LogNormal, Normal, Shape

#: More values than this are as good as infinitely many.
MANY = 10_000
#: Whole numbers up to this are floats, too.
_MOST_STEPS = 2.0**53


@dataclass(frozen=True)
class Quantised(Distribution):
    """Multiples of q.

    Attributes:
        base: The distribution of X.
        q: The step.
        whole: Whether values are whole numbers: where q is written as one, or the field is one.
        first, last: Multiples below and above are not drawn, since the field does not accept
            them; None where there is no such bound.
    """

    base: Continuous
    q: float = 1.0
    whole: bool = False
    first: int | None = None
    last: int | None = None
    ordered: ClassVar[bool] = True
    base_class: ClassVar[type[Continuous]]

    def __post_init__(self) -> None:
        raise_first(self.faults({**self.optional, **self.to_mapping()}))

    @cached_property
    def steps(self) -> tuple[int, int]:
        """The smallest and the largest multiple, as numbers of steps."""
        low, high = (end / self.q for end in self.base.ends())
        # X is nearer than half a step to these; at exactly half a step the probability is 0.
        first, last = math.floor(low - 0.5) + 1, math.ceil(high + 0.5) - 1
        if first > last:  # one value only, half-way between two multiples
            first = last = round(low)
        if self.first is not None:
            first = max(first, self.first)
        return first, last if self.last is None else min(last, self.last)

    def multiple(self, step: int) -> float:
        """The value of so many steps: a whole number, or the nearest float to the exact one."""
        return step * int(self.q) if self.whole else float(self._exact_q * step)

    @cached_property
    def _exact_q(self) -> Fraction:
        return Fraction(repr(self.q))

    def quantile(self, u: float) -> float:  # noqa: D102
        first, last = self.steps
        return self.multiple(min(max(round(self.base.quantile(u) / self.q), first), last))

    def cdf(self, value: Any) -> float:  # noqa: D102
        first, last = self.steps
        step = round(min(max(value / self.q, first), last))  # any number has a place
        below = 0.0 if step <= first else self.base.cdf((step - 0.5) * self.q)
        up_to = 1.0 if step >= last else self.base.cdf((step + 0.5) * self.q)
        return (below + up_to) / 2

    def contains(self, value: Any) -> bool:  # noqa: D102
        low, high = (self.multiple(step) for step in self.steps)
        if not is_number(value) or not low <= value <= high:
            return False
        is_multiple = self.multiple(round(value / self.q)) == value
        # Where a shape is so narrow that no float leads to a value, it cannot be drawn.
        return bool(is_multiple and self.quantile(self.cdf(value)) == value)

    @cached_property
    def _values(self) -> tuple[float, ...] | None:
        first, last = self.steps
        if not self.base.bounded or last - first >= MANY:
            return None
        values = (self.multiple(step) for step in range(first, last + 1))
        return tuple(value for value in values if self.contains(value))

    def size(self) -> int | None:
        """Number of values; None where X has no end, or where there are more than `MANY`."""
        return None if self._values is None else len(self._values)

    def grid(self) -> Sequence[float]:  # noqa: D102
        if self._values is None:
            raise ValueError(
                f"{self.name} has no end here, or more than {MANY:,} values: no list of values to "
                "enumerate; name them with values, or search with method random or bayes."
            )
        return self._values

    def within(self, lower: float | None, upper: float | None) -> Quantised:
        """The multiples between two bounds, None for none; X must be a `Shape`."""
        assert isinstance(self.base, Shape)
        # Exactly: 0.7 / 0.1 is less than 7 in floats.
        first = None if lower is None else math.ceil(Fraction(repr(lower)) / self._exact_q)
        last = None if upper is None else math.floor(Fraction(repr(upper)) / self._exact_q)
        base = self.base.within(
            None if first is None else (first - 0.5) * self.q,
            None if last is None else (last + 0.5) * self.q,
        )
        return replace(self, base=base, first=first, last=last)

    def share_within(self, lower: float | None, upper: float | None) -> float:
        """The probability of the multiples between two bounds, in [0, 1]."""
        cut = self.within(lower, upper).base
        assert isinstance(cut, Shape)
        return cut.share_within(cut.lower, cut.upper)

    def describe(self) -> str:  # noqa: D102
        settings = ", ".join(f"{key} {value}" for key, value in self._settings().items())
        text = f"{self.name} ({settings})"
        if self.first is not None:
            text += f" from {self.multiple(self.first)}"
        return text if self.last is None else f"{text} to {self.multiple(self.last)}"

    def _settings(self) -> dict[str, Any]:
        """What the sweep file says, but for the name."""
        return {k: v for k, v in self.to_mapping().items() if k != "distribution"}

    def to_mapping(self) -> dict[str, Any]:  # noqa: D102
        q = int(self.q) if self.whole else self.q
        return {**self.base.to_mapping(), "distribution": self.name, "q": q}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Quantised:  # noqa: D102
        q = mapping.get("q", 1.0)
        base = cls.base_class.from_mapping(mapping)
        assert isinstance(base, Continuous)
        return cls(base, q, whole=isinstance(q, int))

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        noted = list(cls.base_class.faults(mapping))
        yield from noted
        q = mapping["q"]
        fault = number_fault(q)
        if fault is None and q <= 0:
            fault = f"must be greater than 0, but got {q!r}."
        if fault is None and not noted:
            base = cls.base_class.from_mapping(mapping)
            assert isinstance(base, Continuous)
            furthest = max(map(abs, base.ends()))
            if furthest / q >= _MOST_STEPS:
                fault = f"is too small: floats near {furthest:g} cannot be told apart by {q!r}."
        if fault is not None:
            yield "q", fault


class _QuantisedRange(Quantised):
    """Multiples of q over a range with two ends."""

    keys: ClassVar[tuple[str, ...]] = ("min", "max")
    optional: ClassVar[Mapping[str, Any]] = {"q": 1.0}

    @property
    def low(self) -> float:
        """The smallest value."""
        return self.multiple(self.steps[0])

    @property
    def high(self) -> float:
        """The largest value."""
        return self.multiple(self.steps[1])

    def describe(self) -> str:
        return f"{self.low:g} to {self.high:g} in steps of {self.q}, {self.name}"


class QUniform(_QuantisedRange):
    """round(X / q) * q where X is uniform."""

    name: ClassVar[str] = "q_uniform"
    base_class: ClassVar[type[Continuous]] = Uniform


class QLogUniform(_QuantisedRange):
    """round(X / q) * q where log(X) is uniform between log(min) and log(max)."""

    name: ClassVar[str] = "q_log_uniform_values"
    base_class: ClassVar[type[Continuous]] = LogUniform
    log: ClassVar[bool] = True


class QLogUniformExponent(_QuantisedRange):
    """round(X / q) * q where log(X) is uniform between min and max."""

    name: ClassVar[str] = "q_log_uniform"
    base_class: ClassVar[type[Continuous]] = LogUniformExponent
    log: ClassVar[bool] = True


class QNormal(Quantised):
    """round(X / q) * q where X is normal."""

    name: ClassVar[str] = "q_normal"
    keys: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[Mapping[str, Any]] = {**Normal.optional, "q": 1.0}
    base_class: ClassVar[type[Continuous]] = Normal


class QLogNormal(Quantised):
    """round(X / q) * q where X is log-normal."""

    name: ClassVar[str] = "q_log_normal"
    keys: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[Mapping[str, Any]] = {**LogNormal.optional, "q": 1.0}
    base_class: ClassVar[type[Continuous]] = LogNormal
    log: ClassVar[bool] = True


class QBeta(Quantised):
    """round(X / q) * q where X has a beta distribution."""

    name: ClassVar[str] = "q_beta"
    keys: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[Mapping[str, Any]] = {**Beta.optional, "q": 1.0}
    base_class: ClassVar[type[Continuous]] = Beta

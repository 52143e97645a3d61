"""Distributions with a shape: normal, log-normal and beta, which may be cut off at bounds.

The tails of the first two have no end. What lies beyond about six standard deviations, one draw in
a billion on each side, is left out, so that every value has a place that a float can tell from its
neighbours'. A field's bounds cut more: the rest is drawn in the same proportions as before.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any, ClassVar, Self

from tuning.distributions.base import Continuous, Fault, number_fault, raise_first

#: Probability that is left out in a tail without end.
_TAIL = 1e-9
#: Standard deviations from the mean to there.
_REACH = -NormalDist().inv_cdf(_TAIL)
_LARGEST_LOG = 709.0


@dataclass(frozen=True, kw_only=True)
class Shape(Continuous):
    """A distribution that is cut off where it has bounds.

    Attributes:
        lower, upper: Values beyond these are not drawn; None for no such bound.
    """

    lower: float | None = None
    upper: float | None = None
    keys: ClassVar[tuple[str, ...]] = ()
    #: Whether the whole shape ends below and above.
    closed: ClassVar[tuple[bool, bool]] = (False, False)
    #: Probability left out on each side.
    tail: ClassVar[float] = _TAIL

    def __post_init__(self) -> None:
        raise_first(self.faults({**self.optional, **self.to_mapping()}))

    @abstractmethod
    def _probability(self, value: float) -> float:
        """The cumulative distribution function of the whole shape."""

    @abstractmethod
    def _value(self, probability: float) -> float:
        """Its inverse, at a probability between `tail` and 1 - `tail`."""

    @cached_property
    def _cut(self) -> tuple[float, float]:
        """The probabilities of the whole shape up to the bounds."""
        low = 0.0 if self.lower is None else self._probability(self.lower)
        high = 1.0 if self.upper is None else self._probability(self.upper)
        return low, high

    def share_within(self, lower: float | None, upper: float | None) -> float:
        """The probability of the whole shape between two bounds, in [0, 1]."""
        low, high = replace(self, lower=lower, upper=upper)._cut
        return high - low

    def within(self, lower: float | None, upper: float | None) -> Self:
        """The shape cut off at bounds, None for none."""
        return replace(self, lower=lower, upper=upper)

    def quantile(self, u: float) -> float:  # noqa: D102
        low, high = self._cut
        probability = (1 - u) * low + u * high
        value = self._value(min(max(probability, self.tail), 1 - self.tail))
        if self.lower is not None:
            value = max(value, float(self.lower))
        return value if self.upper is None else min(value, float(self.upper))

    def cdf(self, value: Any) -> float:  # noqa: D102
        low, high = self._cut
        return min(max((self._probability(value) - low) / (high - low), 0.0), 1.0)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        return self.quantile(0.0), self.quantile(1.0)

    def ends(self) -> tuple[float, float]:  # noqa: D102
        return self._ends

    @property
    def bounded(self) -> bool:  # noqa: D102
        below, above = self.closed
        return (below or self.lower is not None) and (above or self.upper is not None)

    def describe(self) -> str:  # noqa: D102
        bounds = []
        if self.lower is not None:
            bounds.append(f"from {self.lower:g}")
        if self.upper is not None:
            bounds.append(f"to {self.upper:g}")
        settings = ", ".join(f"{key} {getattr(self, key)}" for key in self.optional)
        return " ".join([f"{self.name} ({settings})", *bounds])

    def to_mapping(self) -> dict[str, Any]:
        """The parameter as a sweep file states it; bounds are the field's and not named."""
        settings = {key: getattr(self, key) for key in self.optional}
        return {"distribution": self.name, **settings}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Shape:  # noqa: D102
        return cls(**{key: mapping.get(key, default) for key, default in cls.optional.items()})


def _gauss(z: float) -> float:
    """The standard normal cumulative distribution function, exact in its lower tail too."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


@dataclass(frozen=True)
class _Gaussian(Shape):
    """What normal and log-normal share: a mean and a standard deviation, of X or of log(X)."""

    mu: float = 0.0
    sigma: float = 1.0
    optional: ClassVar[Mapping[str, Any]] = {"mu": 0.0, "sigma": 1.0}

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:
        wrong = [(key, number_fault(mapping[key])) for key in ("mu", "sigma")]
        noted = [(key, fault) for key, fault in wrong if fault is not None]
        yield from noted
        if noted:
            return
        mu, sigma = float(mapping["mu"]), float(mapping["sigma"])
        if sigma <= 0:
            yield "sigma", f"must be greater than 0, but got {mapping['sigma']!r}."
        else:
            yield from cls._range_faults(mu - _REACH * sigma, mu + _REACH * sigma)

    @classmethod
    def _range_faults(cls, low: float, high: float) -> Iterator[Fault]:
        if not (math.isfinite(low) and math.isfinite(high)):
            yield "sigma", "is too large: values go beyond what a float can be."


@dataclass(frozen=True)
class Normal(_Gaussian):
    """A normal distribution of mean mu and standard deviation sigma."""

    name: ClassVar[str] = "normal"

    def _probability(self, value: float) -> float:
        return _gauss((value - self.mu) / self.sigma)

    def _value(self, probability: float) -> float:
        return self.mu + self.sigma * NormalDist().inv_cdf(probability)


@dataclass(frozen=True)
class LogNormal(_Gaussian):
    """exp(X) where X is normal of mean mu and standard deviation sigma."""

    name: ClassVar[str] = "log_normal"
    log: ClassVar[bool] = True
    closed: ClassVar[tuple[bool, bool]] = (True, False)

    def _probability(self, value: float) -> float:
        return _gauss((math.log(value) - self.mu) / self.sigma) if value > 0 else 0.0

    def _value(self, probability: float) -> float:
        return math.exp(self.mu + self.sigma * NormalDist().inv_cdf(probability))

    @classmethod
    def _range_faults(cls, low: float, high: float) -> Iterator[Fault]:
        if low < -_LARGEST_LOG or high > _LARGEST_LOG:
            yield (
                "sigma",
                (
                    "is too large for this mu: both are of the natural logarithm, and values go "
                    "beyond what a float can be."
                ),
            )


@dataclass(frozen=True)
class Beta(Shape):
    """A beta distribution on [0, 1], of density x^(a-1) (1-x)^(b-1) up to a factor."""

    a: float = 1
    b: float = 1
    name: ClassVar[str] = "beta"
    optional: ClassVar[Mapping[str, Any]] = {"a": 1, "b": 1}
    closed: ClassVar[tuple[bool, bool]] = (True, True)
    tail: ClassVar[float] = 0.0

    def _probability(self, value: float) -> float:
        from scipy.special import betainc

        return float(betainc(self.a, self.b, min(max(value, 0.0), 1.0)))

    def _value(self, probability: float) -> float:
        from scipy.special import betaincinv

        # Which is not a number at some of the smallest probabilities that a float can be.
        return float(betaincinv(self.a, self.b, probability)) if probability > 1e-300 else 0.0

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        for key in ("a", "b"):
            fault = number_fault(mapping[key])
            if fault is None and not 0 < mapping[key] <= 1e6:  # scipy's limits of accuracy
                fault = f"must be greater than 0 and at most 1e6, but got {mapping[key]!r}."
            if fault is not None:
                yield key, fault

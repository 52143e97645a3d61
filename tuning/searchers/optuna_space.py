"""How a search space is told to Optuna's samplers, and their proposals back.

Each searched field has an internal value, made for modelling:

- a category is its place among the values, without an order;
- an ordinal value is its place, with one;
- whole, real and positive numbers from a plain or logarithmic range are themselves;
- everything else is its quantile, a number in [0, 1] in which all draws are equally likely.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuning.distributions import Distribution, IntUniform, LogUniform, Ordinal, Scalar, Uniform
from tuning.spaces.expressions import Expression
from tuning.spaces.search_space import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


#: Whole numbers are told to samplers as such up to so many: Optuna's GP lists them all.
MOST_WHOLE = 10_000


class OptunaSpace:
    """A search space as Optuna's samplers see it.

    Args:
        space: What is searched.

    Attributes:
        distributions: Of the internal value of each searched field, in the space's order.
        groups: The same, by name, apart for each condition under which fields are searched.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._fields = dict(space.searched)
        self.distributions = {name: _internal(d) for name, d in self._fields.items()}
        groups: dict[Expression | None, dict[str, BaseDistribution]] = {}
        for name, distribution in sorted(self.distributions.items()):
            groups.setdefault(space.when.get(name), {})[name] = distribution
        self.groups = list(groups.values())

    def params(self, configuration: Mapping[str, Scalar]) -> dict[str, Any]:
        """The internal values of the fields that are active in a configuration."""
        active = self.space.active(configuration)
        return {
            name: _encoded(distribution, configuration[name])
            for name, distribution in self._fields.items()
            if name in active
        }

    def quantiles(self, params: Mapping[str, Any]) -> dict[str, float]:
        """The quantile, in [0, 1], of each searched field, from its internal value."""
        return {name: _quantile(d, params[name]) for name, d in self._fields.items()}


def _internal(distribution: Distribution) -> BaseDistribution:
    """Optuna's distribution of a field's internal value."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not distribution.ordered:
        return CategoricalDistribution(range(len(distribution.grid())))
    if isinstance(distribution, Ordinal):
        return IntDistribution(0, len(distribution.grid()) - 1)
    if isinstance(distribution, IntUniform) and _is_whole(distribution):
        return IntDistribution(distribution.low, distribution.high)
    if type(distribution) is Uniform:
        return FloatDistribution(distribution.low, distribution.high)
    if type(distribution) is LogUniform:
        return FloatDistribution(distribution.low, distribution.high, log=True)
    return FloatDistribution(0.0, 1.0)


def _is_place(distribution: Distribution) -> bool:
    """Whether the internal value is a place among the values."""
    return not distribution.ordered or isinstance(distribution, Ordinal)


def _is_whole(distribution: Distribution) -> bool:
    """Whether the internal value is the whole number itself."""
    return type(distribution) is IntUniform and distribution.size() <= MOST_WHOLE


def _encoded(distribution: Distribution, value: Any) -> int | float:
    """The internal value of a field's value."""
    if _is_place(distribution):
        return _place(distribution, value)
    if _is_whole(distribution):
        return int(value)
    if type(distribution) in (Uniform, LogUniform):
        return float(value)
    return distribution.cdf(value)


def _quantile(distribution: Distribution, internal: int | float) -> float:
    """The quantile, in [0, 1], at which a field has the value with an internal value."""
    if _is_place(distribution):
        return distribution.cdf(distribution.grid()[int(internal)])
    if _is_whole(distribution) or type(distribution) in (Uniform, LogUniform):
        return distribution.cdf(internal)
    return internal


def _place(distribution: Distribution, value: Scalar) -> int:
    """Where a value stands among a distribution's, telling True from 1."""
    return next(
        place
        for place, known in enumerate(distribution.grid())
        if isinstance(known, bool) == isinstance(value, bool) and known == value
    )

"""The explore step of population-based training: a configuration near another one.

Jaderberg et al. 2017, "Population Based Training of Neural Networks" (arXiv:1711.09846), section
4.1.1: each searched field is drawn anew from its distribution with some probability (0.25 is
Ray's), or else multiplied by 0.8 or 1.2.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from tuning.distributions import Categorical, Distribution, IntUniform, Scalar
from tuning.distributions.base import Continuous
from tuning.spaces.search_space import SearchSpace

#: Numbers are multiplied by one of them.
FACTORS = (0.8, 1.2)
#: Draws after which a space's constraints are taken to leave no other configuration nearby.
_TRIES = 100


def explored(
    space: SearchSpace,
    configuration: Mapping[str, Any],
    rng: random.Random,
    resample_probability: float,
) -> dict[str, Any]:
    """A configuration near a point of the space, and in it.

    Args:
        space: Only its searched fields change; its constraints hold afterwards.
        configuration: A point of the space.
        rng: Draws what is done to each field.
        resample_probability: Of drawing a field anew.

    Returns:
        The configuration itself where no try fulfilled the constraints.
    """
    for _ in range(_TRIES):
        changed = {
            name: _changed(distribution, configuration[name], rng, resample_probability)
            for name, distribution in space.searched.items()
        }
        candidate = {**configuration, **changed}
        if space.allows(candidate):
            return candidate
    return dict(configuration)


def _changed(
    distribution: Distribution, value: Any, rng: random.Random, resample_probability: float
) -> Scalar:
    """A field's next value: drawn anew, a neighbour, multiplied, or (without an order) the same."""
    if rng.random() < resample_probability:
        return distribution.sample(rng)
    if not distribution.ordered:
        return value  # type: ignore[no-any-return]
    if isinstance(distribution, Categorical):
        return _neighbour(distribution.values, value, rng.choice((-1, 1)))
    return multiplied(distribution, value, rng.choice(FACTORS))


def _neighbour(values: Sequence[Scalar], value: Scalar, step: int) -> Scalar:
    """The value that many places on, or the last one on that side."""
    return values[min(max(values.index(value) + step, 0), len(values) - 1)]


def multiplied(distribution: Distribution, value: Any, factor: float) -> Scalar:
    """A number times a factor, within what the distribution can draw.

    Beyond an end it is the end. Of separate values it is the nearest, but at least one place on
    in the factor's direction: 2 times 1.2 would stay 2 for ever.
    """
    target = value * factor
    if isinstance(distribution, Continuous) and not isinstance(distribution, IntUniform):
        low, high = distribution.ends()
        return float(min(max(target, low), high))
    nearest = _nearest(distribution, target)
    if nearest == value and target != value:
        step = getattr(distribution, "q", 1)
        nearest = _nearest(distribution, value + math.copysign(step, target - value))
    return nearest if distribution.contains(nearest) else value


def _nearest(distribution: Distribution, target: float) -> Scalar:
    """The separate value in whose interval of probability a number lies."""
    return distribution.quantile(min(max(distribution.cdf(target), 0.0), 1.0))

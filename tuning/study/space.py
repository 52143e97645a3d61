"""How an experiment's search space is told to Optuna: in values as people know them.

Searchers that are built on Optuna have distributions of their own, made for sampling. These are
made for looking: for a study that people open with optuna-dashboard or Optuna's visualisations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuning.distributions import Continuous, Distribution, Quantised, Scalar, same
from tuning.spaces.search_space import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: Of what has no ends, all but two draws in a million lie between its quantiles here.
_TAIL = 1e-6
#: Optuna's tolerance, in steps, for a value between two steps.
_STEP_TOLERANCE = 1e-8


def study_distributions(
    space: SearchSpace, observed: Mapping[str, Iterable[Scalar]] | None = None
) -> dict[str, BaseDistribution]:
    """The searched fields of a space as Optuna's distributions, in the space's order.

    Args:
        space: What is searched.
        observed: Values of each field that the distributions must contain; see `described`.
    """
    observed = observed or {}
    return {
        name: described(distribution, list(observed.get(name, ())))
        for name, distribution in space.searched.items()
    }


def described(distribution: Distribution, observed: Sequence[Scalar] = ()) -> BaseDistribution:
    """A distribution as Optuna has it.

    Categories stay categories. Numbers in order become a range: between their ends, logarithmic
    where they are drawn so, with steps where they are quantised; Optuna has no steps on a
    logarithmic scale, and leaves them out there. What has no ends gets those of the observed
    values; without any, those of all but two draws in a million.

    Args:
        distribution: Of a searched field.
        observed: Values that must be contained: the range is widened, and categories are added,
            where they are not.
    """
    from optuna.distributions import CategoricalDistribution

    if not distribution.ordered:
        known = list(distribution.grid())
        for value in observed:
            if not any(same(value, other) for other in known):
                known.append(value)
        return CategoricalDistribution(known)
    return _range(distribution, [*_ends(distribution, observed), *observed])


def containing(
    described_as: BaseDistribution, distribution: Distribution, value: Scalar
) -> BaseDistribution:
    """Optuna's distribution, or a wider one where a value is outside of it."""
    if not distribution.ordered or described_as.low <= value <= described_as.high:
        return described_as
    return described(distribution, [described_as.low, described_as.high, value])


def study_params(space: SearchSpace, configuration: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A trial's hyper-parameters in the study: the searched fields that are active in it."""
    active = space.active(configuration)
    return {name: configuration[name] for name in space.searched if name in active}


def _ends(distribution: Distribution, observed: Sequence[Scalar]) -> list[Any]:
    """The least and the greatest value that can be drawn; of what has no ends, see `described`."""
    drawn = distribution.base if isinstance(distribution, Quantised) else distribution
    if isinstance(drawn, Continuous) and not drawn.bounded:
        return [] if observed else [distribution.quantile(_TAIL), distribution.quantile(1 - _TAIL)]
    if isinstance(distribution, Continuous):
        return list(distribution.ends())
    return [distribution.quantile(0.0), distribution.quantile(1.0)]


def _range(distribution: Distribution, values: Sequence[Any]) -> BaseDistribution:
    """The range of Optuna's that holds these numbers, of which there is at least one."""
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = min(values), max(values)
    whole = all(isinstance(value, int) for value in values)
    log = distribution.log and low >= (1 if whole else math.ulp(0.0))
    step = None if log else _step(distribution, values)
    if whole:
        return IntDistribution(low, high, log=log, step=int(step) if step else 1)
    return FloatDistribution(low, high, log=log, step=step)


def _step(distribution: Distribution, values: Sequence[Any]) -> float | None:
    """The width of a quantised distribution's steps, where all the values are on steps."""
    if not isinstance(distribution, Quantised):
        return None
    places = [(value - min(values)) / distribution.q for value in values]
    on_steps = all(abs(place - round(place)) < _STEP_TOLERANCE for place in places)
    return distribution.q if on_steps else None

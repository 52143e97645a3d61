"""What Optuna is told of a space: every distribution by hand, and each draw inside of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuning.distributions import (
    Beta,
    Categorical,
    IntUniform,
    InvLogUniform,
    LogNormal,
    LogUniform,
    LogUniformExponent,
    Normal,
    Ordinal,
    QLogUniform,
    QNormal,
    QUniform,
    Uniform,
    WeightedCategorical,
)
from tuning.spaces.expressions import Expression
from tuning.spaces.search_space import SearchSpace
from tuning.study.space import containing, described, study_distributions, study_params


def quantised(kind, **mapping):
    return kind.from_mapping(mapping)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (Uniform(0.5, 1.0), FloatDistribution(0.5, 1.0)),
        (IntUniform(0, 100), IntDistribution(0, 100)),
        (LogUniform(1e-5, 0.1), FloatDistribution(1e-5, 0.1, log=True)),
        (InvLogUniform(1e-5, 0.1), FloatDistribution(1e-5, 0.1, log=True)),
        (Beta(2.0, 3.0), FloatDistribution(0.0, 1.0)),
        (Categorical(("adam", None, 3)), CategoricalDistribution(("adam", None, 3))),
        (Ordinal((16, 64, 256)), IntDistribution(16, 256)),
        (Ordinal((0.5, 1, 2)), FloatDistribution(0.5, 2.0)),
        (quantised(QUniform, min=16, max=64, q=16), IntDistribution(16, 64, step=16)),
        (quantised(QUniform, min=0.0, max=0.4, q=0.1), FloatDistribution(0.0, 0.4, step=0.1)),
        (quantised(QLogUniform, min=1, max=1000, q=1), IntDistribution(1, 1000, log=True)),
        # Optuna has no steps on a logarithmic scale.
        (quantised(QLogUniform, min=0.5, max=8, q=0.5), FloatDistribution(0.5, 8.0, log=True)),
    ],
)
def test_by_hand(distribution, expected):
    assert described(distribution) == expected


def test_weights_are_left_out():
    weighted = WeightedCategorical(("a", "b"), (0.9, 0.1))
    assert described(weighted) == CategoricalDistribution(("a", "b"))


def test_an_exponent_is_a_value():
    found = described(LogUniformExponent(-3.0, 2.0))
    assert (found.low, found.high) == pytest.approx((0.0497871, 7.3890561))
    assert found.log


class TestWithoutEnds:
    def test_all_but_two_draws_in_a_million(self):
        found = described(Normal(0.0, 1.0))
        assert (found.low, found.high) == pytest.approx((-4.753424, 4.753424), abs=1e-5)
        found = described(LogNormal(0.0, 1.0))
        assert (found.low, found.high, found.log) == pytest.approx(
            (0.00862, 115.98, True), rel=1e-3
        )

    def test_the_ends_of_what_was_observed(self):
        assert described(Normal(0.0, 1.0), [0.5, -1.0, 9.0]) == FloatDistribution(-1.0, 9.0)

    def test_in_steps(self):
        normal = quantised(QNormal, mu=0.0, sigma=1.0, q=0.5)
        assert described(normal, [0.5, -1.0, 2.0]) == FloatDistribution(-1.0, 2.0, step=0.5)

    def test_a_rare_value_widens_the_range(self):
        normal = Normal(0.0, 1.0)
        usual = described(normal)
        assert containing(usual, normal, 1.0) is usual
        wider = containing(usual, normal, 7.0)
        assert (wider.low, wider.high) == (usual.low, 7.0)


class TestObserved:
    """Defaults of fields that were not active may lie anywhere."""

    def test_widens_a_range(self):
        assert described(Uniform(1.0, 3.0), [2.0, 5.0]) == FloatDistribution(1.0, 5.0)

    def test_ends_the_steps_where_it_is_between_two(self):
        steps = quantised(QUniform, min=16, max=64, q=16)
        assert described(steps, [20]) == IntDistribution(16, 64)

    def test_ends_the_logarithm_at_zero(self):
        assert described(LogUniform(0.1, 1.0), [0.0]) == FloatDistribution(0.0, 1.0)

    def test_adds_a_category_once(self):
        found = described(Categorical((True, "a")), [1, "a", 1])
        assert [(choice, type(choice)) for choice in found.choices] == [
            *((True, bool), ("a", str), (1, int)),
        ]


SPACE = SearchSpace(
    {
        "optimizer": Categorical(("adam", "sgd")),
        "learning_rate": LogUniform(1e-5, 0.1),
        "decoder_learning_ratio": Normal(1.0, 0.1),
        "hidden_size": quantised(QUniform, min=16, max=64, q=16),
        "batch_size": IntUniform(1, 512),
    },
    when={"decoder_learning_ratio": Expression.parse("optimizer == 'adam'")},
)


@given(st.integers(0, 2**32))
def test_every_draw_is_inside(seed):
    """As Optuna sees it: `_contains` is what it asks itself."""
    params = study_params(SPACE, SPACE.sample(random.Random(seed)))
    distributions = study_distributions(SPACE)
    for name, value in params.items():
        found = containing(distributions[name], SPACE.searched[name], value)
        assert found._contains(found.to_internal_repr(value))
    assert ("decoder_learning_ratio" in params) == (params["optimizer"] == "adam")

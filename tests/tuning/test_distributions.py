"""Each distribution against its definition, against scipy, and as a sweep file states it."""

import math
import pickle
import random
import re
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from model.validation import Problems
from tuning.distributions import (
    DISTRIBUTIONS,
    Beta,
    Categorical,
    Constant,
    IntUniform,
    InvLogUniform,
    InvLogUniformExponent,
    LogNormal,
    LogUniform,
    LogUniformExponent,
    Normal,
    Ordinal,
    QBeta,
    QLogNormal,
    QLogUniform,
    QLogUniformExponent,
    QNormal,
    QUniform,
    Uniform,
    WeightedCategorical,
    parse_distribution,
)

CONTINUOUS = [
    Uniform(0.5, 1.0),
    Uniform(0.1, 0.1),
    Uniform(-1e308, 1e308),
    LogUniform(1e-4, 1e-3),
    LogUniform(5e-324, 1e308),
    LogUniformExponent(-9.0, -2.5),
    LogUniformExponent(-745.0, 709.0),
    InvLogUniform(1e-4, 1e-3),
    InvLogUniformExponent(2.5, 9.0),
    Normal(0.0, 1.0),
    Normal(50.0, 30.0, lower=0.0),
    Normal(0.5, 1.0, lower=0.0, upper=1.0),
    LogNormal(-7.0, 1.0),
    LogNormal(0.0, 0.5, upper=1.0),
    Beta(1, 1),
    Beta(2.0, 5.0),
    Beta(0.5, 0.5, lower=0.1, upper=0.95),
]
SEPARATE = [
    Constant(128),
    Constant(None),
    Categorical(("adam", "sgd")),
    Categorical((0, 0.5, 1)),
    Categorical((True, 1, "1", None)),
    WeightedCategorical((0, 25, 50), (0.2, 0.5, 0.3)),
    WeightedCategorical(("a", "b", "c"), (0.0, 1.0, 0.0)),
    WeightedCategorical(("a", "b", "c"), (0.33, 0.33, 0.33)),
    WeightedCategorical(("a", "b", "c"), (1e-9, 1 - 1e-9, 0)),
    Ordinal((1, 3, 5, 10)),
    IntUniform(10, 100),
    IntUniform(3, 3),
    QUniform(Uniform(0, 1), 0.1),
    QUniform(Uniform(0, 10), 3, whole=True),
    QUniform(Uniform(0.5, 0.5)),
    QUniform(Uniform(0.5, 1.5)),
    QUniform(Uniform(0, 1), 1e-12),
    QLogUniform(LogUniform(64, 512), 32, whole=True),
    QLogUniformExponent(LogUniformExponent(0.0, 6.0), 0.5),
    QNormal(Normal(0.0, 1.0), 0.1),
    QNormal(Normal(2.0, 1.0), 1, whole=True).within(1, None),
    QNormal(Normal(0.5, 0.2), 0.1).within(0, 1),
    QNormal(Normal(0.5, 0.001), 0.1).within(0, 1),
    QLogNormal(LogNormal(0.0, 1.0), 1.0),
    QLogNormal(LogNormal(3.0, 3.0), 0.25),
    QBeta(Beta(2.0, 5.0), 0.05),
    QBeta(Beta(200.0, 200.0), 0.01),
    QBeta(Beta(0.01, 0.01), 0.1).within(5e-324, 0.95),
]
EVERY = [*CONTINUOUS, *SEPARATE]


def parsed(mapping):
    problems = Problems("here")
    distribution = parse_distribution(mapping, problems, "parameters.x")
    problems.raise_if_any()
    return distribution


def problems_of(mapping):
    problems = Problems("here")
    assert parse_distribution(mapping, problems, "parameters.x") is None
    return problems.found


def draws(distribution, count=4000, seed=0):
    rng = random.Random(seed)
    return [distribution.sample(rng) for _ in range(count)]


@pytest.mark.parametrize("distribution", EVERY, ids=str)
class TestEvery:
    def test_samples_are_contained_plain_and_deterministic(self, distribution):
        samples = draws(distribution, 200)
        assert all(distribution.contains(sample) for sample in samples)
        assert all(type(sample) in (bool, int, float, str, type(None)) for sample in samples)
        assert samples == draws(distribution, 200)

    def test_the_quantile_of_the_cdf_is_the_value(self, distribution):
        for value in draws(distribution, 200):
            place = distribution.cdf(value)
            assert type(place) is float
            assert 0 <= place <= 1
            back = distribution.quantile(place)
            if distribution in SEPARATE:
                assert (type(back), back) == (type(value), value)
            else:
                assert back == pytest.approx(value, rel=1e-9)

    def test_both_ends_of_u_can_be_asked_for(self, distribution):
        for u in (0.0, 5e-324, 2**-53, 1 - 2**-53, 1.0):
            assert distribution.contains(distribution.quantile(u)), u

    def test_quantiles_rise_where_there_is_an_order(self, distribution):
        if distribution.ordered:
            values = [distribution.quantile(u) for u in np.linspace(0, 1, 101)]
            assert values == sorted(values)
        assert distribution.ordered == (
            distribution.name not in ("constant", "categorical", "categorical_w_probabilities")
        )

    def test_ends_are_values(self, distribution):
        if hasattr(distribution, "low"):
            assert distribution.quantile(0.0) == pytest.approx(distribution.low)
            assert distribution.quantile(1.0) == pytest.approx(distribution.high)
            assert distribution.contains(distribution.low)
            assert distribution.contains(distribution.high)

    def test_the_name_says_whether_the_logarithm_has_the_shape(self, distribution):
        assert distribution.log == ("log" in distribution.name)

    def test_grid_or_the_reason_why_not(self, distribution):
        if distribution.size() is None:
            with pytest.raises(ValueError, match=r"no (list of values|end here)"):
                distribution.grid()
            return
        grid = list(distribution.grid())
        assert len(grid) == distribution.size()
        assert len({(type(value), value) for value in grid}) == len(grid)
        assert all(distribution.contains(value) for value in grid)
        assert all(distribution.quantile(distribution.cdf(value)) == value for value in grid)

    def test_uses_one_random_number(self, distribution):
        one, other = random.Random(3), random.Random(3)
        distribution.sample(one)
        other.random()
        assert one.random() == other.random()

    def test_foreign_values_are_not_contained(self, distribution):
        for value in (float("nan"), float("inf"), False, "elsewhere", [1], 10**400, 2e308):
            assert not distribution.contains(value), value

    def test_is_described_in_one_line(self, distribution):
        assert re.fullmatch(r"\S.*\S|\S", distribution.describe())

    def test_survives_pickling_and_is_equal_to_itself_only(self, distribution):
        assert pickle.loads(pickle.dumps(distribution)) == distribution
        assert hash(distribution) == hash(pickle.loads(pickle.dumps(distribution)))
        assert sum(other == distribution for other in EVERY) == 1


@pytest.mark.parametrize(
    "distribution",
    [d for d in EVERY if d.name != "ordinal" and "lower=" not in str(d) and "first=" not in str(d)]
    + [d for d in EVERY if "first=None, last=None" in str(d)],
    ids=str,
)
def test_a_mapping_is_read_back(distribution):
    mapping = distribution.to_mapping()
    assert parsed({"distribution": distribution.name, **mapping}) == distribution
    if distribution.name.startswith(("constant", "categorical")):
        assert parsed(mapping) == distribution


def test_an_ordinal_is_stated_as_its_values():
    assert parsed(Ordinal((1, 2)).to_mapping()) == Categorical((1, 2))


def test_bounds_are_the_fields_and_not_stated():
    cut = Normal(0.5, 1.0, lower=0.0)
    assert parsed(cut.to_mapping()) == Normal(0.5, 1.0)
    assert parsed(QNormal(Normal(2.0), 1, whole=True).within(1, 9).to_mapping()) == QNormal(
        Normal(2.0), 1, whole=True
    )


# By hand


def test_quantiles_by_hand():
    of_four = Categorical((10, 20, 30, 40))
    assert [of_four.quantile(u) for u in (0, 0.24, 0.25, 0.5, 0.99)] == [10, 10, 20, 30, 40]
    assert [IntUniform(1, 3).quantile(u) for u in (0, 0.33, 0.34, 0.67, 0.99)] == [1, 1, 2, 3, 3]
    assert Uniform(10, 20).quantile(0.25) == 12.5
    assert LogUniform(1e-4, 1e-2).quantile(0.5) == pytest.approx(1e-3)
    assert LogUniformExponent(0, 2).quantile(0.5) == pytest.approx(math.e)
    assert InvLogUniformExponent(-2, 0).quantile(0.5) == pytest.approx(math.e)
    assert Normal(5, 2).quantile(0.5) == pytest.approx(5)
    assert LogNormal(1, 2).quantile(0.5) == pytest.approx(math.e)
    assert Beta(3, 3).quantile(0.5) == pytest.approx(0.5)


def test_places_of_separate_values_are_the_middles_of_their_probabilities():
    assert [Categorical("abcd").cdf(v) for v in "abcd"] == [0.125, 0.375, 0.625, 0.875]
    assert [IntUniform(1, 4).cdf(v) for v in (1, 4)] == [0.125, 0.875]
    weighted = WeightedCategorical((7, 8, 9), (0.5, 0.25, 0.25))
    assert [weighted.cdf(v) for v in (7, 8, 9)] == [0.25, 0.625, 0.875]
    thirds = WeightedCategorical(("a", "b"), (0.33, 0.66))  # which add up to 0.99
    assert thirds.cdf("b") == pytest.approx(2 / 3)
    assert [thirds.quantile(u) for u in (0.333, 0.334)] == ["a", "b"]
    # X in (0, 0.5) gives 0, (0.5, 1.5) gives 1, (1.5, 2) gives 2: probabilities 1/4, 1/2, 1/4.
    steps = QUniform(Uniform(0, 2), 1, whole=True)
    assert list(steps.grid()) == [0, 1, 2]
    assert [steps.cdf(v) for v in (0, 1, 2)] == [0.125, 0.5, 0.875]
    assert Constant("x").cdf("x") == 0.5
    assert Uniform(3, 3).cdf(3) == 0.5


@pytest.mark.parametrize("distribution", [d for d in EVERY if d.ordered], ids=str)
def test_numbers_beyond_the_ends_have_a_place_too(distribution):
    """The default of a field that is not searched in a trial may be one."""
    for value in (-1e9, -1, 0, 0.05, 1, 7.5, 1e9):
        assert 0 <= distribution.cdf(value) <= 1
    assert distribution.cdf(-1e300) <= distribution.cdf(1e300)
    assert Ordinal((1, 3, 5, 10)).cdf(4) == 0.5
    assert IntUniform(1, 4).cdf(9) == 1.0


def test_a_bound_just_above_0_leaves_0_out():
    for q in (0.1, 1, 2.0, 64):
        assert QNormal(Normal(0, 1), q).within(5e-324, None).steps[0] == 1
    assert QNormal(Normal(0, 1), 0.1).within(0.3, 0.7).steps == (3, 7)


def test_steps_may_pass_the_ends_as_in_wandb():
    """W&B: round(10 / 4) * 4 is 8, since half is rounded to even, and round(11 / 4) * 4 is 12."""
    assert list(QUniform(Uniform(1, 11), 4, whole=True).grid()) == [0, 4, 8, 12]
    assert list(QUniform(Uniform(2, 10), 4, whole=True).grid()) == [4, 8]
    assert (QUniform(Uniform(1, 11), 4).low, QUniform(Uniform(1, 11), 4).high) == (0.0, 12.0)


def test_multiples_are_the_decimals_that_people_write():
    grid = QUniform(Uniform(0, 1), 0.1).grid()
    assert list(grid) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert 3 * 0.1 != 0.3
    assert not QUniform(Uniform(0, 1), 0.1).contains(3 * 0.1)


def test_whole_steps_are_whole_numbers():
    assert [type(v) for v in parsed(_q(q=5)).grid()] == [int] * 3
    assert [type(v) for v in parsed(_q(q=5.0)).grid()] == [float] * 3
    assert [type(v) for v in parsed(_q()).grid()] == [float] * 11
    assert parsed(_q(q=5)).contains(5.0)


def _q(**q):
    return {"distribution": "q_uniform", "min": 0, "max": 10, **q}


def test_too_many_steps_are_as_good_as_infinitely_many():
    assert QUniform(Uniform(0, 9_999), 1).size() == 10_000
    assert QUniform(Uniform(0, 10_000), 1).size() is None
    assert QNormal(Normal(0, 1), 1).size() is None
    assert QNormal(Normal(0, 1), 1).within(0, None).size() is None
    assert QLogNormal(LogNormal(0, 1), 1).within(0, 9).size() == 10


def test_values_without_probability_are_not_there():
    weighted = WeightedCategorical(("a", "b", "c"), (0.0, 0.25, 0.75))
    assert weighted.size() == 2
    assert not weighted.contains("a")
    assert [weighted.quantile(u) for u in (0, 0.2, 0.25, 1)] == ["b", "b", "c", "c"]
    narrow = QNormal(Normal(0.5, 0.001), 0.1).within(0, 1)
    assert list(narrow.grid()) == [0.5]
    assert not narrow.contains(0.6)


def test_a_shape_is_cut_off_in_proportion():
    """Half a normal distribution: its median is the whole one's third quartile."""
    half = Normal(0, 1, lower=0.0)
    assert half.quantile(0.5) == pytest.approx(0.6744897501960817)
    assert half.quantile(0.0) == 0.0
    assert not half.contains(-0.1)
    assert Normal(0, 1).share_within(0.0, None) == pytest.approx(0.5)
    assert Normal(0, 1).share_within(None, -1.0) == pytest.approx(0.15865525393145707)
    assert QNormal(Normal(0, 1), 1).share_within(1, None) == pytest.approx(1 - _phi(0.5))


def _phi(z):
    return statistics.NormalDist().cdf(z)


@given(mu=st.floats(-5, 5), lower=st.floats(-5, 4), width=st.floats(0.1, 5))
def test_bounds_hold_exactly(mu, lower, width):
    for shape in (Normal(mu, 1.0), LogNormal(mu, 1.0), Beta(1 + abs(mu), 2)):
        if shape.share_within(lower, lower + width) > 1e-6:
            cut = shape.within(lower, lower + width)
            assert cut.quantile(0.0) >= lower
            assert cut.quantile(1.0) <= lower + width


def test_the_tails_end_at_six_deviations():
    assert Normal(0, 1).contains(5.99)
    assert not Normal(0, 1).contains(6.01)
    assert Beta(2, 2).contains(0.0)
    assert Beta(2, 2).contains(1.0)


def test_describe():
    assert [d.describe() for d in SEPARATE[:4]] == [
        *("128", "None", "one of adam, sgd", "one of 0, 0.5, 1"),
    ]
    lines = {
        IntUniform(10, 100): "10 to 100, whole numbers",
        Uniform(0.5, 1.0): "0.5 to 1.0, uniform",
        LogUniform(1e-4, 1e-3): "0.0001 to 0.001, log_uniform_values",
        LogUniformExponent(0, 1): "1 to 2.71828, log_uniform",
        InvLogUniformExponent(0, 1): "0.367879 to 1, inv_log_uniform",
        WeightedCategorical(("a", 3), (0.25, 0.75)): "one of a (0.25), 3 (0.75)",
        Ordinal((1, 3)): "one of 1, 3, in order",
        Normal(0.5, 0.25): "normal (mu 0.5, sigma 0.25)",
        Normal(0.5, 0.25, lower=0.0, upper=1.0): "normal (mu 0.5, sigma 0.25) from 0 to 1",
        QUniform(Uniform(64, 512), 32): "64 to 512 in steps of 32, q_uniform",
        QBeta(Beta(2, 5), 0.1): "q_beta (a 2, b 5, q 0.1)",
        QNormal(Normal(3, 1), 1, whole=True).within(1, 8): (
            "q_normal (mu 3, sigma 1, q 1) from 1 to 8"
        ),
    }
    assert {d: d.describe() for d in lines} == lines


# Against the definitions and scipy


REFERENCES = [
    (Uniform(2.0, 5.0), scipy.stats.uniform(2, 3)),
    (LogUniform(1e-4, 1e-2), scipy.stats.loguniform(1e-4, 1e-2)),
    (LogUniformExponent(-9, -4), scipy.stats.loguniform(math.exp(-9), math.exp(-4))),
    (InvLogUniform(1e-4, 1e-2), scipy.stats.loguniform(1e-4, 1e-2)),
    (InvLogUniformExponent(4, 9), scipy.stats.loguniform(math.exp(-9), math.exp(-4))),
    (Normal(3.0, 2.0), scipy.stats.norm(3, 2)),
    (Normal(0.5, 1.0, lower=0.0, upper=1.0), scipy.stats.truncnorm(-0.5, 0.5, 0.5, 1)),
    (Normal(50.0, 30.0, lower=0.0), scipy.stats.truncnorm(-50 / 30, math.inf, 50, 30)),
    (LogNormal(-7.0, 1.5), scipy.stats.lognorm(1.5, scale=math.exp(-7))),
    (Beta(2.0, 5.0), scipy.stats.beta(2, 5)),
    (Beta(0.5, 0.5), scipy.stats.beta(0.5, 0.5)),
]


@pytest.mark.parametrize(("distribution", "reference"), REFERENCES, ids=lambda d: str(d)[:40])
def test_continuous_ones_are_scipys(distribution, reference):
    shares = np.linspace(0.001, 0.999, 81)
    ours = [distribution.quantile(float(u)) for u in shares]
    np.testing.assert_allclose(ours, reference.ppf(shares), rtol=1e-8)
    np.testing.assert_allclose([distribution.cdf(v) for v in ours], shares, rtol=1e-8)


@pytest.mark.parametrize(("distribution", "reference"), REFERENCES, ids=lambda d: str(d)[:40])
def test_samples_pass_kolmogorov_and_smirnov(distribution, reference):
    """At 1 in 1,000 by chance; the seed is fixed."""
    assert scipy.stats.kstest(draws(distribution), reference.cdf).pvalue > 1e-3


STEPPED = [
    (QUniform(Uniform(0.0, 10.0), 2.5), scipy.stats.uniform(0, 10)),
    (QUniform(Uniform(1.0, 11.0), 4, whole=True), scipy.stats.uniform(1, 10)),
    (QLogUniform(LogUniform(10.0, 50.0), 10, whole=True), scipy.stats.loguniform(10, 50)),
    (QLogUniformExponent(LogUniformExponent(0.0, 2.0)), scipy.stats.loguniform(1, math.e**2)),
    (QNormal(Normal(3.0, 2.0), 1, whole=True), scipy.stats.norm(3, 2)),
    (QLogNormal(LogNormal(1.0, 0.5), 0.5), scipy.stats.lognorm(0.5, scale=math.e)),
    (QBeta(Beta(2.0, 5.0), 0.25), scipy.stats.beta(2, 5)),
]


@pytest.mark.parametrize(("distribution", "reference"), STEPPED, ids=lambda d: str(d)[:40])
def test_stepped_ones_are_rounded_to_the_nearest_multiple(distribution, reference):
    """W&B: round(X / q) * q; and each multiple's share of the samples is its probability."""
    for u in np.linspace(0.0013, 0.9987, 83):
        expected = round(reference.ppf(u) / distribution.q) * distribution.q
        assert distribution.quantile(float(u)) == pytest.approx(expected)
    samples = draws(distribution, 20_000)
    for value in set(samples):
        half = distribution.q / 2
        share = reference.cdf(value + half) - reference.cdf(value - half)
        deviation = math.sqrt(share * (1 - share) / len(samples))
        assert samples.count(value) / len(samples) == pytest.approx(share, abs=4 * deviation + 1e-4)


@pytest.mark.parametrize(
    ("distribution", "probabilities"),
    [
        (Categorical(("a", "b", "c", "d")), {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}),
        (Ordinal((1, 2)), {1: 0.5, 2: 0.5}),
        (WeightedCategorical((0, 25, 50), (0.2, 0.5, 0.3)), {0: 0.2, 25: 0.5, 50: 0.3}),
        (WeightedCategorical("ab", (0.33, 0.66)), {"a": 1 / 3, "b": 2 / 3}),
        (IntUniform(1, 5), dict.fromkeys(range(1, 6), 0.2)),
        (Constant(7), {7: 1.0}),
    ],
    ids=str,
)
def test_values_come_as_often_as_they_should(distribution, probabilities):
    samples = draws(distribution)
    assert set(samples) == set(probabilities)
    for value, probability in probabilities.items():
        assert samples.count(value) / len(samples) == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize(
    ("distribution", "mean", "deviation"),
    [
        (Uniform(2.0, 4.0), 3, 2 / math.sqrt(12)),
        (IntUniform(1, 4), 2.5, math.sqrt(15 / 12)),
        (Normal(-3.0, 2.0), -3, 2),
        (Beta(2.0, 6.0), 0.25, math.sqrt(12 / (64 * 9))),
    ],
    ids=str,
)
def test_moments(distribution, mean, deviation):
    samples = draws(distribution)
    assert statistics.mean(samples) == pytest.approx(mean, abs=0.06 * deviation)
    assert statistics.stdev(samples) == pytest.approx(deviation, rel=0.04)


@pytest.mark.parametrize(
    ("distribution", "mean", "deviation"),
    [
        (LogUniform(1e-4, 1e-2), math.log(1e-3), math.log(100) / math.sqrt(12)),
        (LogUniformExponent(-9, -5), -7, 4 / math.sqrt(12)),
        (InvLogUniform(1e-4, 1e-2), math.log(1e-3), math.log(100) / math.sqrt(12)),
        (InvLogUniformExponent(5, 9), -7, 4 / math.sqrt(12)),
        (LogNormal(-7.0, 1.5), -7, 1.5),
    ],
    ids=str,
)
def test_moments_of_logarithms(distribution, mean, deviation):
    logs = [math.log(value) for value in draws(distribution)]
    assert statistics.mean(logs) == pytest.approx(mean, abs=0.06 * deviation)
    assert statistics.stdev(logs) == pytest.approx(deviation, rel=0.04)


# As a sweep file states them


def test_every_distribution_of_the_format_is_there():
    assert set(DISTRIBUTIONS) == {
        *("constant", "categorical", "categorical_w_probabilities", "uniform", "int_uniform"),
        *("q_uniform", "log_uniform", "log_uniform_values", "q_log_uniform"),
        *("q_log_uniform_values", "inv_log_uniform", "inv_log_uniform_values", "normal"),
        *("q_normal", "log_normal", "q_log_normal", "beta", "q_beta"),
    }
    assert {d.name for d in EVERY} == {*DISTRIBUTIONS, "ordinal"}


def test_omitted_distribution_follows_wandb():
    assert parsed({"value": 3}) == Constant(3)
    assert parsed({"value": None}) == Constant(None)
    assert parsed({"values": [3]}) == Categorical((3,))
    weights = {"values": [1, 2], "probabilities": [0.25, 0.75]}
    assert parsed(weights) == WeightedCategorical((1, 2), (0.25, 0.75))
    assert parsed({"min": 10, "max": 100}) == IntUniform(10, 100)
    assert parsed({"min": 0.5, "max": 1}) == Uniform(0.5, 1)
    assert parsed({"min": 1, "max": 2.0}) == Uniform(1, 2.0)
    assert parsed({"min": 1, "max": 2, "distribution": "uniform"}) == Uniform(1, 2)
    assert type(Uniform(1, 2).sample(random.Random(0))) is float


def test_wandbs_defaults():
    def of(name, **keys):
        return parsed({"distribution": name, **keys})

    assert of("normal") == Normal(0.0, 1.0)
    assert of("normal", mu=100) == Normal(100, 1.0)
    assert of("log_normal", sigma=0.5) == LogNormal(0.0, 0.5)
    assert of("beta") == Beta(1, 1)
    assert of("q_normal") == QNormal(Normal(), 1.0)
    assert of("q_log_normal", q=2) == QLogNormal(LogNormal(), 2, whole=True)
    assert of("q_beta", a=2, q=0.5) == QBeta(Beta(2, 1), 0.5)
    assert of("q_uniform", min=0, max=4) == QUniform(Uniform(0, 4), 1.0)
    assert of("q_log_uniform", min=0, max=4) == QLogUniformExponent(LogUniformExponent(0, 4), 1.0)
    assert of("q_log_uniform_values", min=1, max=4) == QLogUniform(LogUniform(1, 4), 1.0)


def stated(name, **keys):
    return {"distribution": name, **keys}


WEIGHTS = "parameters.x.probabilities"
FAULTS = [
    ({}, "parameters.x: needs value, values, or min and max."),
    ({"min": 1}, "parameters.x: needs min and max, but max is missing."),
    ({"max": 1.5}, "parameters.x: needs min and max, but min is missing."),
    ({"value": 1, "values": [1]}, "parameters.x.values: cannot stand beside value."),
    ({"values": [1], "min": 1}, "parameters.x.min: cannot stand beside values."),
    ({"values": []}, "parameters.x.values: must name at least one value, but is empty."),
    ({"values": 3}, "parameters.x.values: must be a list, but got 3 (int)."),
    ({"values": [1, 2, 1.0]}, "parameters.x.values[2]: 1.0 is there twice; name each"),
    ({"min": 2, "max": 1}, "parameters.x.min: must be at most max, but the range 2 to 1 is"),
    ({"min": "a", "max": 1}, "parameters.x.min: must be a number, but got 'a' (str)."),
    ({"min": 0, "max": math.inf}, "parameters.x.max: must be a finite number, but got inf."),
    ({"min": 0.0, "max": math.nan}, "parameters.x.max: must be a finite number, but got nan."),
    ({"min": 0.0, "max": 10**400}, "parameters.x.max: must be less than 1e308 in size, but has"),
    (
        stated("log_uniform_values", min=0, max=1),
        "parameters.x.min: must be greater than 0 for a log range, but got 0.",
    ),
    (
        stated("inv_log_uniform_values", min=-1, max=1),
        "parameters.x.min: must be greater than 0 for a log range, but got -1.",
    ),
    (
        stated("log_uniform", min=0, max=1000),
        "parameters.x.max: is a natural logarithm and must be between -745 and 709, but got 1000; "
        "for values, use log_uniform_values.",
    ),
    (
        stated("int_uniform", min=1.5, max=2),
        "parameters.x.min: must be a whole number for int_uniform, but got 1.5.",
    ),
    (
        stated("uniformm", min=1, max=2),
        "parameters.x.distribution: unknown distribution 'uniformm', did you mean 'uniform'?",
    ),
    (stated([1], min=1, max=2), "parameters.x.distribution: unknown distribution [1]"),
    (
        stated("ordinal", values=[1, 2]),
        "parameters.x.distribution: unknown distribution 'ordinal': write 'ordinal: true' for the "
        "field under dialogue_tune.parameters.",
    ),
    ({"valuess": [1, 2]}, "parameters.x.valuess: unknown key, did you mean 'values'?"),
    ({"parameters": {"y": {"value": 1}}}, "parameters.x.parameters: unknown key"),
    # Probabilities
    ({"values": [1], "probabilities": 1}, f"{WEIGHTS}: must be a list, but got 1 (int)."),
    (
        {"values": [1, 2], "probabilities": [1]},
        f"{WEIGHTS}: must be one for each of 2 values, but there are 1.",
    ),
    (
        {"values": [1, 2], "probabilities": [0.5, 0.4]},
        f"{WEIGHTS}: must add up to 1, but add up to 0.9.",
    ),
    (
        {"values": [1, 2], "probabilities": [1.5, -0.5]},
        f"{WEIGHTS}[1]: must be 0, or between 1e-09 and 1, but got -0.5.",
    ),
    (
        {"values": [1, 2], "probabilities": ["a", 1]},
        f"{WEIGHTS}[0]: must be a number, but got 'a' (str).",
    ),
    ({"probabilities": [1]}, f"{WEIGHTS}: needs distribution: categorical_w_probabilities."),
    (
        stated("categorical", values=[1], probabilities=[1]),
        f"{WEIGHTS}: cannot stand beside values. For both, use distribution: "
        "categorical_w_probabilities.",
    ),
    # Shapes
    (
        {"mu": 0, "sigma": 1},
        "parameters.x.mu: needs distribution: normal, log_normal, q_normal or q_log_normal.",
    ),
    (stated("normal", min=0), "parameters.x.min: cannot stand beside distribution normal."),
    (stated("normal", sigma=0), "parameters.x.sigma: must be greater than 0, but got 0."),
    (stated("normal", mu=None), "parameters.x.mu: must be a number, but got None (NoneType)."),
    (stated("normal", mu=1e308, sigma=1e308), "parameters.x.sigma: is too large: values go bey"),
    (stated("log_normal", mu=700, sigma=2), "parameters.x.sigma: is too large for this mu: both"),
    (stated("beta", a=0), "parameters.x.a: must be greater than 0 and at most 1e6, but got 0."),
    (stated("beta", b=True), "parameters.x.b: must be a number, but got True (bool)."),
    # Steps
    (
        {"min": 0, "max": 1, "q": 0.1},
        "parameters.x.q: cannot stand beside min. For both, use distribution: q_uniform, "
        "q_log_uniform_values or q_log_uniform.",
    ),
    (stated("q_uniform", min=0, max=1, q=0), "parameters.x.q: must be greater than 0, but got 0."),
    (stated("q_uniform", min=0, max=1, q="a"), "parameters.x.q: must be a number, but got 'a'"),
    (
        stated("q_uniform", min=0, max=1e9, q=1e-9),
        "parameters.x.q: is too small: floats near 1e+09 cannot be told apart by 1e-09.",
    ),
    (stated("q_normal", q=5e-324), "parameters.x.q: is too small: floats near 5.99781 cannot"),
    (stated("q_uniform", q=1), "parameters.x: needs min and max, but min is missing."),
]


@pytest.mark.parametrize(("mapping", "problem"), FAULTS)
def test_faulty_parameters(mapping, problem):
    assert any(found.startswith(problem) for found in problems_of(mapping)), problems_of(mapping)


def test_every_fault_of_a_parameter_is_reported():
    assert len(problems_of({"min": "a", "max": math.inf, "mu": 3, "distributon": "uniform"})) == 4


def test_one_point_range_is_allowed():
    assert parsed({"min": 5, "max": 5}).size() == 1
    assert list(Uniform(0.5, 0.5).grid()) == [0.5]
    assert list(LogUniformExponent(0, 0).grid()) == [1.0]


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (lambda: Uniform(2, 1), "the range 2 to 1 is empty"),
        (lambda: Categorical(()), "values must name at least one value"),
        (lambda: LogUniform(0, 1), "must be greater than 0 for a log range, but got 0"),
        (lambda: WeightedCategorical((1, 2)), "must be one for each of 2 values"),
        (lambda: Ordinal((1, 3, 2)), "values must rise to be in order, but 2 comes after 3."),
        (lambda: Ordinal((1, "a")), "values[1] must be a number to be in order, but got 'a'."),
        (lambda: Ordinal((0, True)), "values[1] must be a number to be in order, but got True."),
        (lambda: Normal(0, -1), "sigma must be greater than 0, but got -1."),
        (lambda: QUniform(Uniform(0, 1), -1), "q must be greater than 0, but got -1."),
    ],
)
def test_building_a_faulty_distribution_raises(build, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        build()


# Properties


@given(
    low=st.integers(-1000, 1000), width=st.integers(0, 1000), u=st.floats(0, 1, exclude_max=True)
)
def test_int_quantile_hits_each_value_equally(low, width, u):
    distribution = IntUniform(low, low + width)
    assert distribution.quantile(u) == min(low + math.floor(u * (width + 1)), low + width)


NUMBERS = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)
POSITIVE = st.floats(1e-6, 1e6) | st.integers(1, 10**6)
LOGS = st.floats(-12, 12)
WIDTHS = st.floats(1e-3, 1e3)
STEPS = st.sampled_from([0.001, 0.01, 0.1, 0.25, 0.3, 1.0, 1, 2, 5, 64])


@st.composite
def ends(draw, numbers):
    low, high = sorted(draw(st.tuples(numbers, numbers)))
    return {"min": low, "max": high}


@st.composite
def any_distribution(draw):
    """A parameter of a sweep file, of any distribution."""
    name = draw(st.sampled_from(sorted(DISTRIBUTIONS)))
    values = draw(st.lists(NUMBERS | st.text(max_size=3), min_size=1, max_size=5, unique=True))
    if name == "constant":
        return {"distribution": name, "value": values[0]}
    if name == "categorical":
        return {"distribution": name, "values": values}
    if name == "categorical_w_probabilities":
        weights = draw(st.lists(st.integers(0, 5), min_size=len(values), max_size=len(values)))
        weights[0] += 1
        shares = [weight / sum(weights) for weight in weights]
        return {"distribution": name, "values": values, "probabilities": shares}
    plain = name.removeprefix("q_")
    if plain in ("uniform", "int_uniform"):
        keys = draw(ends(st.integers(-(10**6), 10**6) if plain == "int_uniform" else NUMBERS))
    elif plain.endswith("_values"):
        keys = draw(ends(POSITIVE))
    elif "uniform" in plain:
        keys = draw(ends(LOGS))
    elif plain == "beta":
        keys = {"a": draw(WIDTHS), "b": draw(WIDTHS)}
    else:
        sigma = draw(st.floats(1e-3, 3) if plain == "log_normal" else WIDTHS)
        keys = {"mu": draw(LOGS), "sigma": sigma}
    if name.startswith("q_"):
        keys["q"] = draw(STEPS)
    return {"distribution": name, **keys}


CONTINUOUS_NAMES = {distribution.name for distribution in CONTINUOUS}


@settings(deadline=None)
@given(mapping=any_distribution(), u=st.floats(0, 1))
def test_any_distribution_draws_what_it_contains_and_leads_back(mapping, u):
    distribution = parsed(mapping)
    value = distribution.quantile(u)
    assert distribution.contains(value)
    back = distribution.quantile(distribution.cdf(value))
    if distribution.name in ("uniform", "normal"):  # which go through 0
        assert back == pytest.approx(value, rel=1e-6, abs=1e-6 * (1 + abs(distribution.ends()[1])))
    elif distribution.name in CONTINUOUS_NAMES:
        assert back == pytest.approx(value, rel=1e-6)
    else:
        assert back == value
    assert parsed({"distribution": distribution.name, **distribution.to_mapping()}) == distribution


@settings(deadline=None)
@given(mapping=any_distribution())
def test_finite_ones_list_their_values_in_order(mapping):
    distribution = parsed(mapping)
    if distribution.size() is None or distribution.size() > 1000:
        return
    grid = list(distribution.grid())
    assert len(grid) == distribution.size() >= 1
    assert all(distribution.quantile(distribution.cdf(value)) == value for value in grid)
    places = [distribution.cdf(value) for value in grid]
    assert places == sorted(places)

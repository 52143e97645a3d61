import json
import math
import random
import re
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.validation import Problems
from tuning.distributions import (
    DISTRIBUTIONS,
    UNSUPPORTED_DISTRIBUTIONS,
    Categorical,
    Constant,
    IntUniform,
    LogUniform,
    Uniform,
    parse_distribution,
)
from tuning.search_space import SearchSpace

EXAMPLES = [
    Constant(128),
    Constant(None),
    Categorical(("adam", "sgd")),
    Categorical((0, 0.5, 1)),
    Uniform(0.5, 1.0),
    Uniform(0.1, 0.1),
    Uniform(-1e308, 1e308),
    IntUniform(10, 100),
    IntUniform(3, 3),
    LogUniform(1e-4, 1e-3),
    LogUniform(5e-324, 1e308),
]


def parsed(mapping):
    problems = Problems("here")
    distribution = parse_distribution(mapping, problems, "parameters.x")
    problems.raise_if_any()
    return distribution


def problems_of(mapping):
    problems = Problems("here")
    assert parse_distribution(mapping, problems, "parameters.x") is None
    return problems.found


@pytest.mark.parametrize("distribution", EXAMPLES, ids=str)
class TestEveryDistribution:
    def test_samples_are_contained_plain_and_deterministic(self, distribution):
        samples = [distribution.sample(random.Random(seed)) for seed in range(200)]
        assert all(distribution.contains(sample) for sample in samples)
        assert all(type(sample) in (int, float, str, type(None)) for sample in samples)
        assert samples == [distribution.sample(random.Random(seed)) for seed in range(200)]

    def test_quantiles_stay_inside_and_rise(self, distribution):
        values = [distribution.quantile(u) for u in (0.0, 0.25, 0.5, 1 - 2**-53)]
        assert all(distribution.contains(value) for value in values)
        if "min" in distribution.keys:
            assert values == sorted(values)
            assert values[0] == pytest.approx(distribution.low)
            assert values[-1] == pytest.approx(distribution.high)

    def test_round_trip(self, distribution):
        mapping = distribution.to_mapping()
        assert parsed(mapping) == distribution
        assert parsed({"distribution": distribution.name, **mapping}) == distribution

    def test_grid_or_the_reason_why_not(self, distribution):
        if distribution.size() is None:
            with pytest.raises(ValueError, match="continuous range has no list of values"):
                distribution.grid()
        else:
            grid = list(distribution.grid())
            assert len(grid) == len(set(grid)) == distribution.size()
            assert all(distribution.contains(value) for value in grid)

    def test_uses_one_random_number(self, distribution):
        one, other = random.Random(3), random.Random(3)
        distribution.sample(one)
        other.random()
        assert one.random() == other.random()

    def test_foreign_values_are_not_contained(self, distribution):
        for value in (float("nan"), float("inf"), True, "elsewhere", [1], 1e309):
            assert not distribution.contains(value)


def test_quantiles_by_hand():
    assert [Categorical((10, 20, 30, 40)).quantile(u) for u in (0, 0.24, 0.25, 0.5, 0.99)] == [
        10,
        10,
        20,
        30,
        40,
    ]
    assert [IntUniform(1, 3).quantile(u) for u in (0, 0.33, 0.34, 0.67, 0.99)] == [1, 1, 2, 3, 3]
    assert Uniform(10, 20).quantile(0.25) == 12.5
    assert LogUniform(1e-4, 1e-2).quantile(0.5) == pytest.approx(1e-3)


def test_moments_of_samples():
    rng = random.Random(0)
    uniform = [Uniform(2.0, 4.0).sample(rng) for _ in range(4000)]
    assert statistics.mean(uniform) == pytest.approx(3, abs=0.05)
    assert statistics.variance(uniform) == pytest.approx(4 / 12, abs=0.03)
    logs = [math.log10(LogUniform(1e-4, 1e-2).sample(rng)) for _ in range(4000)]
    assert statistics.mean(logs) == pytest.approx(-3, abs=0.05)
    whole = [IntUniform(1, 4).sample(rng) for _ in range(4000)]
    assert [whole.count(value) / 4000 for value in (1, 2, 3, 4)] == pytest.approx(
        [0.25] * 4, abs=0.03
    )


def test_describe():
    assert [d.describe() for d in EXAMPLES[:5]] == [
        "128",
        "None",
        "one of adam, sgd",
        "one of 0, 0.5, 1",
        "0.5 to 1.0, uniform",
    ]
    assert IntUniform(10, 100).describe() == "10 to 100, whole numbers"
    assert LogUniform(1e-4, 1e-3).describe() == "0.0001 to 0.001, log_uniform_values"


def test_omitted_distribution_follows_wandb():
    assert parsed({"value": 3}) == Constant(3)
    assert parsed({"value": None}) == Constant(None)
    assert parsed({"values": [3]}) == Categorical((3,))
    assert parsed({"min": 10, "max": 100}) == IntUniform(10, 100)
    assert parsed({"min": 0.5, "max": 1}) == Uniform(0.5, 1)
    assert parsed({"min": 1, "max": 2.0}) == Uniform(1, 2.0)
    assert parsed({"min": 1, "max": 2, "distribution": "uniform"}) == Uniform(1, 2)
    assert type(Uniform(1, 2).sample(random.Random(0))) is float


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
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
        (
            {"min": 0, "max": 1, "distribution": "log_uniform_values"},
            "parameters.x.min: must be greater than 0 for a log range, but got 0.",
        ),
        (
            {"min": 1.5, "max": 2, "distribution": "int_uniform"},
            "parameters.x.min: must be a whole number for int_uniform, but got 1.5.",
        ),
        (
            {"distribution": "normal", "mu": 0, "sigma": 1},
            "parameters.x.distribution: 'normal' is not supported yet; supported: constant, cat",
        ),
        (
            {"distribution": "uniformm", "min": 1, "max": 2},
            "parameters.x.distribution: unknown distribution 'uniformm', did you mean 'uniform'?",
        ),
        ({"distribution": [1], "min": 1, "max": 2}, "parameters.x.distribution: unknown distrib"),
        ({"valuess": [1, 2]}, "parameters.x.valuess: unknown key, did you mean 'values'?"),
        ({"values": [1], "probabilities": [1]}, "parameters.x.probabilities: not supported yet"),
        ({"parameters": {"y": {"value": 1}}}, "parameters.x.parameters: not supported yet"),
    ],
)
def test_faulty_parameters(mapping, problem):
    assert any(found.startswith(problem) for found in problems_of(mapping)), problems_of(mapping)


def test_every_fault_of_a_parameter_is_reported():
    assert len(problems_of({"min": "a", "max": math.inf, "mu": 3, "distributon": "uniform"})) == 4


def test_one_point_range_is_allowed():
    assert parsed({"min": 5, "max": 5}).size() == 1
    assert list(Uniform(0.5, 0.5).grid()) == [0.5]


def test_building_a_faulty_distribution_raises():
    with pytest.raises(ValueError, match=re.escape("the range 2 to 1 is empty")):
        Uniform(2, 1)
    with pytest.raises(ValueError, match="values must name at least one value"):
        Categorical(())
    with pytest.raises(ValueError, match="must be greater than 0 for a log range, but got 0"):
        LogUniform(0, 1)


def test_every_wandb_distribution_is_known():
    assert not UNSUPPORTED_DISTRIBUTIONS & set(DISTRIBUTIONS)
    assert len(UNSUPPORTED_DISTRIBUTIONS) + len(DISTRIBUTIONS) == 18


SPACE = SearchSpace(
    {
        "clip": Categorical((0, 25)),
        "hidden_size": Constant(8),
        "encoder_layers": IntUniform(1, 3),
    }
)


def test_space_grid_is_row_major_in_file_order():
    points = [(p["clip"], p["hidden_size"], p["encoder_layers"]) for p in SPACE.grid_points()]
    assert points == [(0, 8, 1), (0, 8, 2), (0, 8, 3), (25, 8, 1), (25, 8, 2), (25, 8, 3)]
    assert SPACE.size() == 6
    assert list(SPACE.grid_point(4)) == ["clip", "hidden_size", "encoder_layers"]


def test_space_with_a_continuous_range():
    space = SearchSpace({**SPACE.parameters, "dropout": Uniform(0, 0.5)})
    assert space.size() is None
    with pytest.raises(ValueError, match="continuous range"):
        space.grid_points()


def test_space_constants_and_searched():
    space = SearchSpace({"a": Categorical((4,)), "b": IntUniform(2, 2), **SPACE.parameters})
    assert space.constants == {"a": 4, "b": 2, "hidden_size": 8}
    assert list(space.searched) == ["clip", "encoder_layers"]


def test_space_contains_points_only():
    point = {"clip": 0, "hidden_size": 8, "encoder_layers": 2}
    assert SPACE.contains(point)
    assert not SPACE.contains({**point, "clip": 1})
    assert not SPACE.contains({**point, "encoder_layers": 2.5})
    assert not SPACE.contains({**point, "extra": 1})
    assert not SPACE.contains({"clip": 0, "hidden_size": 8})


def test_constants_leave_the_random_numbers_alone():
    fewer = SearchSpace({name: d for name, d in SPACE.parameters.items() if name != "hidden_size"})
    sample = SPACE.sample(random.Random(5))
    assert sample == {**fewer.sample(random.Random(5)), "hidden_size": 8}
    assert list(sample) == list(SPACE.parameters)


def test_empty_space_has_one_point():
    assert SearchSpace({}).size() == 1
    assert list(SearchSpace({}).grid_points()) == [{}]
    assert SearchSpace({}).describe() == []


def test_space_describe():
    assert SPACE.describe()[0] == "clip            one of 0, 25"


@given(
    low=st.integers(-1000, 1000), width=st.integers(0, 1000), u=st.floats(0, 1, exclude_max=True)
)
def test_int_quantile_hits_each_value_equally(low, width, u):
    distribution = IntUniform(low, low + width)
    assert distribution.quantile(u) == min(low + math.floor(u * (width + 1)), low + width)


def test_loads_without_heavy_packages():
    code = (
        "import sys, json, tuning.search_space, tuning.sweep_file, tuning.search, "
        "tuning.scheduling; print(json.dumps(sorted(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"optuna", "ray", "wandb", "pandas", "torch"} & set(json.loads(run.stdout))

"""Search spaces: points, grids, conditions and constraints."""

import itertools
import json
import math
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import DEFAULTS
from model.errors import ExperimentError
from tuning.distributions import (
    Categorical,
    Constant,
    IntUniform,
    LogUniform,
    Normal,
    Ordinal,
    Uniform,
    WeightedCategorical,
)
from tuning.spaces.expressions import Expression
from tuning.spaces.search_space import SearchSpace

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
SPACE = SearchSpace(
    {
        "clip": Categorical((0, 25)),
        "hidden_size": Constant(8),
        "encoder_layers": IntUniform(1, 3),
    }
)


def where(space, *constraints, **when):
    """The space with conditions and constraints."""
    conditions = {name: Expression.parse(text) for name, text in when.items()}
    rules = tuple(Expression.parse(text) for text in constraints)
    return SearchSpace(space.parameters, conditions, rules)


def test_space_grid_is_row_major_in_file_order():
    points = [(p["clip"], p["hidden_size"], p["encoder_layers"]) for p in SPACE.grid_points()]
    assert points == [(0, 8, 1), (0, 8, 2), (0, 8, 3), (25, 8, 1), (25, 8, 2), (25, 8, 3)]
    assert SPACE.size() == 6
    assert list(SPACE.grid_point(4)) == ["clip", "hidden_size", "encoder_layers"]
    assert SPACE.grid_point(4) == {"clip": 25, "hidden_size": 8, "encoder_layers": 2}


def test_space_with_a_continuous_range():
    space = SearchSpace({**SPACE.parameters, "dropout": Uniform(0, 0.5)})
    assert space.size() is None
    with pytest.raises(ValueError, match="continuous range"):
        space.grid_points()


def test_space_constants_and_searched():
    space = SearchSpace(
        {
            "a": Categorical((4,)),
            "b": IntUniform(2, 2),
            "c": WeightedCategorical((5, 6), (0.0, 1.0)),
            **SPACE.parameters,
        }
    )
    assert space.constants == {"a": 4, "b": 2, "c": 6, "hidden_size": 8}
    assert list(space.searched) == ["clip", "encoder_layers"]
    space.constants["a"] = 5  # a copy
    assert space.constants["a"] == 4


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


def test_a_sample_uses_one_number_for_each_searched_field_in_order():
    rng = random.Random(5)
    expected = {name: d.sample(rng) for name, d in SPACE.searched.items()}
    assert SPACE.sample(random.Random(5)) == {**expected, "hidden_size": 8}


def test_point_at_quantiles():
    point = SPACE.point({"clip": 0.6, "encoder_layers": 0.0})
    assert point == {"clip": 25, "hidden_size": 8, "encoder_layers": 1}
    assert where(SPACE, "clip > 25").point({"clip": 0.6, "encoder_layers": 0.0}) is None


def test_empty_space_has_one_point():
    assert SearchSpace({}).size() == 1
    assert list(SearchSpace({}).grid_points()) == [{}]
    assert SearchSpace({}).describe() == []
    assert SearchSpace({}).sample(random.Random(0)) == {}


def test_space_describe():
    assert SPACE.describe()[0] == "clip            one of 0, 25"
    space = where(SPACE, "clip + encoder_layers > 1", clip="encoder_layers > 1")
    assert space.describe() == [
        "clip            one of 0, 25; only if encoder_layers > 1, else 50.0",
        "hidden_size     8",
        "encoder_layers  1 to 3, whole numbers",
        "only if         clip + encoder_layers > 1",
    ]


# Constraints


def test_constraints_leave_points_out():
    space = where(SPACE, "clip > 0 or encoder_layers < 3", "encoder_layers != 2")
    points = [(point["clip"], point["encoder_layers"]) for point in space.grid_points()]
    assert points == [(0, 1), (25, 1), (25, 3)]
    assert space.size() == 6  # an upper bound
    assert space.allows({"clip": 25, "encoder_layers": 3})
    assert not space.allows({"clip": 0, "encoder_layers": 3})
    assert not space.contains({"clip": 0, "hidden_size": 8, "encoder_layers": 3})
    samples = [space.sample(random.Random(seed)) for seed in range(100)]
    assert {(s["clip"], s["encoder_layers"]) for s in samples} == set(points)


def test_constraints_may_name_fields_that_the_space_leaves_out():
    """They have their defaults: the optimizer is adam."""
    assert where(SPACE, "optimizer == 'adam'").emptiness() is None
    assert "all 6 configurations" in where(SPACE, "optimizer == 'sgd'").emptiness()


def test_samples_of_a_continuous_space_fulfil_constraints():
    space = SearchSpace(
        {"learning_rate": LogUniform(1e-4, 1e-2), "decoder_learning_ratio": Uniform(1, 10)},
        constraints=(Expression.parse("learning_rate * decoder_learning_ratio < 0.01"),),
    )
    rng = random.Random(0)
    samples = [space.sample(rng) for _ in range(300)]
    assert all(s["learning_rate"] * s["decoder_learning_ratio"] < 0.01 for s in samples)
    assert all(space.contains(sample) for sample in samples)
    assert len({s["learning_rate"] for s in samples}) == 300


def test_a_needle_in_a_finite_space_is_found():
    """One of 90,000 points: drawing alone would need as many draws."""
    parameters = {"batch_size": IntUniform(1, 300), "hidden_size": IntUniform(1, 300)}
    needle = "batch_size == 7 and hidden_size == 299"
    space = SearchSpace(parameters, constraints=(Expression.parse(needle),))
    assert space.emptiness() is None
    assert space.sample(random.Random(0)) == {"batch_size": 7, "hidden_size": 299}


def test_only_allowed_points_are_counted_where_each_can_be_tried():
    assert SPACE.count == 6
    assert where(SPACE, "clip > 0").count == 3
    # Both clips of one layer; of two and three layers the clip is not searched.
    assert where(SPACE, clip="encoder_layers == 1").count == 4
    assert SearchSpace({"dropout": Uniform(0, 0.5)}).count is None
    large = SearchSpace({"batch_size": IntUniform(1, 400), "hidden_size": IntUniform(1, 400)})
    assert large.count == large.size() == 160_000
    assert where(large, "batch_size > 7").count is None


def test_emptiness_says_which_constraint_is_never_true():
    assert SPACE.emptiness() is None
    assert where(SPACE, "clip > 0").emptiness() is None
    assert where(SPACE, "clip > 25", "encoder_layers > 1").emptiness() == (
        "none of all 6 configurations fulfils the constraints together; never true: clip > 25."
    )
    assert where(SPACE, "clip > 0", "clip < 25").emptiness() == (
        "none of all 6 configurations fulfils the constraints together; each is true of some."
    )
    continuous = SearchSpace({"dropout": Uniform(0, 0.5)})
    assert where(continuous, "dropout > 0.5").emptiness() == (
        "none of 10,000 draws fulfils the constraints together; never true: dropout > 0.5."
    )


def test_a_sample_that_cannot_be_found_is_an_error():
    with pytest.raises(ExperimentError, match=r"constraints allow in 200,000 draws\."):
        where(SPACE, "clip > 25").sample(random.Random(0))


# Conditions

CONDITIONAL = where(
    SearchSpace(
        {
            "optimizer": Categorical(("adam", "sgd")),
            "decoder_learning_ratio": Categorical((1, 3)),
            "clip": Categorical((0, 25)),
        }
    ),
    decoder_learning_ratio="optimizer == 'adam'",
    clip="decoder_learning_ratio == 3 or optimizer == 'sgd'",
)


def test_what_is_not_active_has_its_default():
    assert CONDITIONAL.conditional
    assert not SPACE.conditional
    complete = CONDITIONAL.complete({"optimizer": "sgd", "decoder_learning_ratio": 3, "clip": 0})
    assert complete == {"optimizer": "sgd", "decoder_learning_ratio": 5.0, "clip": 0}
    assert CONDITIONAL.complete({"optimizer": "sgd", "clip": 25}) == {**complete, "clip": 25}
    with pytest.raises(KeyError, match="clip"):
        CONDITIONAL.complete({"optimizer": "sgd"})


def test_active_fields():
    names = frozenset(CONDITIONAL.parameters)
    assert (
        CONDITIONAL.active({"optimizer": "adam", "decoder_learning_ratio": 3, "clip": 0}) == names
    )
    assert CONDITIONAL.active(
        {"optimizer": "sgd", "decoder_learning_ratio": 5.0, "clip": 0}
    ) == names - {"decoder_learning_ratio"}
    assert SPACE.active(SPACE.grid_point(0)) == frozenset(SPACE.parameters)


def test_a_condition_on_a_field_with_a_condition():
    """With adam and ratio 1 the clip is not searched, and neither counts as another point."""
    points = [tuple(point.values()) for point in CONDITIONAL.grid_points()]
    assert points == [
        ("adam", 1, 50.0),
        ("adam", 3, 0),
        ("adam", 3, 25),
        ("sgd", 5.0, 0),
        ("sgd", 5.0, 25),
    ]
    assert CONDITIONAL.size() == 8
    assert all(CONDITIONAL.contains(point) for point in CONDITIONAL.grid_points())


def test_contains_wants_the_default_where_a_field_is_not_active():
    assert CONDITIONAL.contains({"optimizer": "sgd", "decoder_learning_ratio": 5.0, "clip": 0})
    assert CONDITIONAL.contains({"optimizer": "sgd", "decoder_learning_ratio": 5, "clip": 0})
    assert not CONDITIONAL.contains({"optimizer": "sgd", "decoder_learning_ratio": 3, "clip": 0})
    assert not CONDITIONAL.contains({"optimizer": "adam", "decoder_learning_ratio": 5.0, "clip": 0})


def test_samples_are_points_and_all_points_come():
    rng = random.Random(0)
    samples = {tuple(CONDITIONAL.sample(rng).values()) for _ in range(300)}
    assert samples == {tuple(point.values()) for point in CONDITIONAL.grid_points()}


def test_constraints_see_the_defaults_of_fields_that_are_not_active():
    space = SearchSpace(CONDITIONAL.parameters, CONDITIONAL.when, (Expression.parse("clip != 50"),))
    assert ("adam", 1, 50.0) not in [tuple(point.values()) for point in space.grid_points()]
    assert len(list(space.grid_points())) == 4


@pytest.mark.parametrize(
    ("when", "circle"),
    [
        ({"clip": "clip > 0"}, "clip needs clip"),
        ({"clip": "dropout > 0", "dropout": "clip > 0"}, "clip needs dropout needs clip"),
    ],
)
def test_conditions_in_a_circle_are_refused(when, circle):
    space = SearchSpace({"clip": Categorical((0, 1)), "dropout": Uniform(0, 0.5)})
    with pytest.raises(ValueError, match=re.escape(f"go round in a circle: {circle}.")):
        where(space, **when)


def test_spaces_survive_pickling():
    again = pickle.loads(pickle.dumps(CONDITIONAL))
    assert again == CONDITIONAL
    assert again.sample(random.Random(1)) == CONDITIONAL.sample(random.Random(1))


def test_the_extension_states_what_w_and_b_has_no_words_for():
    assert SPACE.extension() == {}
    space = where(
        SearchSpace({"clip": Ordinal((0, 1)), "dropout": Normal(0.1, 0.1)}),
        "clip + dropout < 1",
        clip="dropout > 0.1",
    )
    assert space.extension() == {
        "parameters": {"clip": {"ordinal": True, "when": "dropout > 0.1"}},
        "constraints": ["clip + dropout < 1"],
    }


# Properties

CONDITIONS = ["clip > 0", "optimizer == 'adam'", "dropout < 0.2", "encoder_layers >= 2", "1 < 2"]
FIELDS = {
    "clip": Categorical((0, 25, 50.0)),
    "optimizer": Categorical(("adam", "sgd")),
    "dropout": Categorical((0.0, 0.1, 0.3)),
    "encoder_layers": IntUniform(1, 3),
}


@st.composite
def finite_spaces(draw):
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, unique=True))
    conditions = st.sampled_from(CONDITIONS).map(Expression.parse)
    # A field's condition names earlier fields only, so that there is no circle.
    when = {}
    for place, name in enumerate(names):
        if draw(st.booleans()):
            condition = draw(conditions)
            if not condition.names & set(names[place:]):
                when[name] = condition
    constraints = tuple(draw(st.lists(conditions, max_size=2)))
    shuffled = draw(st.permutations(names))
    return SearchSpace({name: FIELDS[name] for name in shuffled}, when, constraints)


@settings(deadline=None)
@given(space=finite_spaces(), seed=st.integers(0, 1000))
def test_the_grid_is_every_allowed_point_once(space, seed):
    """Against every combination of values and defaults, each looked at by itself."""
    choices = [
        dict.fromkeys((*d.grid(), *([DEFAULTS[name]] if name in space.when else [])))
        for name, d in space.parameters.items()
    ]
    combinations = [
        dict(zip(space.parameters, values, strict=True)) for values in itertools.product(*choices)
    ]
    expected = [point for point in combinations if space.contains(point)]
    points = list(space.grid_points())
    assert sorted(map(repr, points)) == sorted(map(repr, expected))
    assert len(points) == space.count <= space.size()
    assert (space.emptiness() is None) == bool(points)
    if points:
        assert space.sample(random.Random(seed)) in points


def test_loads_without_heavy_packages():
    code = (
        "import sys, json, tuning.spaces.search_space, tuning.sweeps.sweep_file, tuning.searchers, "
        f"tuning.scheduling; tuning.sweeps.sweep_file.load_sweep({str(DEMO)!r}); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"optuna", "ray", "wandb", "pandas", "torch", "scipy", "numpy"}
    assert not heavy & set(json.loads(run.stdout))


def test_the_size_of_a_large_space_is_exact():
    space = SearchSpace({f"x{i}": IntUniform(0, 999) for i in range(7)})
    assert space.size() == 10**21
    assert math.prod(d.size() for d in space.searched.values()) == 10**21
    assert next(space.grid_points()) == dict.fromkeys(space.parameters, 0)

"""Sweep files made up by a machine: valid ones load, print and sample; others are refused."""

import copy
import json
import math
import random
import re

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from model.config import DATA_FIELDS, DEFAULTS, RULES, Config
from model.errors import ConfigurationError
from tuning.sweeps.objectives import COSTS, METRICS
from tuning.sweeps.sweep_file import load_sweep, parse_sweep

RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))
NOT_SEARCHED = DATA_FIELDS | {"val_examples"}


def valid_values(rule):
    """Values that a field accepts, as a sweep file would hold them."""
    if rule.choices:
        values = st.sampled_from(rule.choices)
    elif rule.kind is str:
        values = st.sampled_from(["everyday", "cornell", "a/file.tsv"])
    else:
        low = rule.low if rule.low is not None else rule.above
        high = rule.high if rule.high is not None else 10**6
        if rule.kind is int:
            values = st.integers(int(low), int(high))
        else:
            values = st.floats(low, high, exclude_min=rule.above is not None)
            whole = range(int(low) + 1, int(high) + 1)
            values |= st.sampled_from(whole) if whole else st.nothing()
    return values | st.none() if rule.optional else values


#: YAML turns other line breaks, such as U+0085, into its own.
#: And PyYAML writes 0E0 without quotes, which is text in YAML 1.1 and a number in 1.2.
PRINTED = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=5).filter(
    lambda text: not re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", text)
)


def kinds_of(name, grid):
    """The ways in which a field can be stated."""
    rule = RULES[name]
    kinds = ["value", "one value"]
    if name in NOT_SEARCHED:
        return kinds
    kinds += ["values"] if grid else ["values", "weighted"]
    if rule.kind is int:
        kinds += ["int_uniform", "q_uniform"]
    elif rule.kind is float:
        kinds += ["q_uniform"] if grid else ["uniform", "log", "shape", "q_uniform"]
    if rule.kind in (int, float) and not grid:
        kinds += ["q_log", "q_shape"]
    return kinds


@st.composite
def parameters(draw, name, grid):
    """A valid statement of a field."""
    rule = RULES[name]
    values = valid_values(rule)
    kind = draw(st.sampled_from(kinds_of(name, grid)))
    if kind == "value":
        return {"value": draw(values)}
    if kind == "one value":
        return {"values": [draw(values)]}
    if kind in ("values", "weighted"):
        chosen = draw(st.lists(values, min_size=1, max_size=5, unique=True))
        return {"values": chosen} | (draw(weights(len(chosen))) if kind == "weighted" else {})
    if kind in ("uniform", "int_uniform"):
        low, high = sorted(draw(st.tuples(*[values.filter(lambda v: v is not None)] * 2)))
        named = {"distribution": kind} if draw(st.booleans()) else {}
        return {**named, "min": low, "max": high}
    if kind in ("log", "q_log"):
        return draw(logarithmic(rule, stepped=kind == "q_log"))
    if kind == "q_uniform":
        q = draw(steps(rule))
        low, high = sorted(draw(st.tuples(*[multiples(rule, q)] * 2)))
        return {"distribution": kind, "min": low * q, "max": high * q, "q": q}
    return draw(shapes(rule, stepped=kind == "q_shape"))


@st.composite
def weights(draw, count):
    parts = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    parts[0] += 1
    return {"probabilities": [part / sum(parts) for part in parts]}


def steps(rule):
    return st.sampled_from([1, 2, 2.0, 16] if rule.kind is int else [0.05, 0.125, 0.3])


def multiples(rule, q):
    """How many steps of q a field accepts, at least one."""
    most = 1000 if rule.high is None else int(rule.high / q)
    return st.integers(max(1, math.ceil((rule.low or 0) / q)), most)


@st.composite
def logarithmic(draw, rule, stepped):
    """A range of logarithms, well within what the field accepts."""
    most = 1000.0 if rule.high is None else 0.9 * rule.high
    name = draw(st.sampled_from(["log_uniform", "log_uniform_values"]))
    if stepped:
        q = draw(steps(rule))
        low, high = sorted(draw(st.tuples(*[multiples(rule, q)] * 2)))
        keys, name = {"min": low * q, "max": high * q}, f"q_{name}"
    else:
        low, high = sorted(draw(st.tuples(*[st.floats(1e-6, most)] * 2)))
        keys = {"min": low, "max": high}
        name = draw(st.sampled_from([name, f"inv_{name}"]))
    if not name.endswith("_values"):
        ends = [math.log(end) for end in keys.values()]
        low, high = sorted(-end for end in ends) if name.startswith("inv_") else ends
        keys = {"min": low, "max": high}
    return {"distribution": name, **keys, **({"q": q} if stepped else {})}


@st.composite
def shapes(draw, rule, stepped):
    """A shape of which the field accepts some."""
    name = draw(st.sampled_from(["normal", "log_normal", "beta"]))
    q = draw(steps(rule)) if stepped else 0.01
    if name == "beta":
        assume(q <= 1 or rule.low == 0)  # else all of it is rounded to 0
        assume(rule.high is None or q < rule.high or rule.low == 0)
        keys = {key: draw(st.sampled_from([0.5, 1, 2.5, 8])) for key in ("a", "b")}
    else:
        middle = q * draw(multiples(rule, q))
        spread = draw(st.floats(0.1, 2))
        keys = {"mu": middle, "sigma": q * spread}
        if name == "log_normal":
            keys = {"mu": math.log(middle), "sigma": spread}
    if stepped:
        return {"distribution": f"q_{name}", **keys, "q": q}
    return {"distribution": name, **draw(st.sampled_from([keys, *_without_defaults(keys)]))}


def _without_defaults(keys):
    return [{}] if keys.keys() == {"a", "b"} else []


@st.composite
def objectives(draw):
    """One or several metrics, the first of which training makes better."""
    names = [draw(st.sampled_from(sorted(METRICS)))]
    further = sorted((METRICS | COSTS).keys() - names)
    names += draw(st.lists(st.sampled_from(further), max_size=2, unique=True))
    metrics = [{"name": name, "goal": (METRICS | COSTS)[name]} for name in names]
    for metric in metrics:
        if draw(st.booleans()):
            metric["target"] = draw(st.floats(-10, 10))
    return metrics


@st.composite
def plain_sweeps(draw):
    """A valid sweep without our own part."""
    method = draw(st.sampled_from(["random", "grid", "bayes"]))
    names = draw(st.lists(st.sampled_from(sorted(RULES)), min_size=1, max_size=6, unique=True))
    stated = {name: draw(parameters(name, method == "grid")) for name in names}
    sweep = {"method": method, "parameters": draw(grouped(stated))}
    if draw(st.booleans()):
        metrics = draw(objectives())
        sweep |= {"metric": metrics[0]} if len(metrics) == 1 else {"metrics": metrics}
    optional = {
        "run_cap": st.integers(1, 10**6),
        "name": PRINTED,
        "tags": st.lists(PRINTED, max_size=2),
        "program": st.just("train.py"),
    }
    for key, values in optional.items():
        if draw(st.booleans()):
            sweep[key] = draw(values)
    return sweep


@st.composite
def grouped(draw, stated):
    """Some of the fields in groups, as W&B nests parameters."""
    result, group = {}, {}
    for name, parameter in stated.items():
        (group if draw(st.integers(0, 3)) == 0 else result)[name] = parameter
    if group:
        inner = {"parameters": group}
        result["group"] = {"parameters": {"inner": inner}} if draw(st.booleans()) else inner
    return result


#: Some are true of every configuration, some of none.
CONDITIONS = [
    "clip >= 0",
    "learning_rate > 0 or optimizer == 'adam'",
    "dropout < 0.5",
    "hidden_size / 2 <= 1000 and not embedding_size is None",
    "attention in ('dot', 'general')",
    "0 < batch_size * iterations",
    "seed != 3",
]


@st.composite
def sweeps(draw):
    """A valid sweep, which may have our own part."""
    sweep = draw(plain_sweeps())
    searched = parse_sweep(sweep).space.searched
    block, fields = {}, {}
    for name, distribution in searched.items():
        settings_of = {}
        if distribution.name == "categorical" and _rises(distribution.values):
            settings_of["ordinal"] = draw(st.booleans())
        # Only on what has no condition itself, so that there is no circle.
        if name not in ("optimizer", "dropout") and draw(st.integers(0, 3)) == 0:
            settings_of["when"] = draw(st.sampled_from(["optimizer == 'adam'", "dropout < 0.5"]))
        if settings_of:
            fields[name] = settings_of
    if fields:
        block["parameters"] = fields
    if draw(st.booleans()):
        block["constraints"] = draw(st.lists(st.sampled_from(CONDITIONS), max_size=2))
    if draw(st.booleans()):
        names = ["grid"] if sweep["method"] == "grid" else ["random", "tpe", "gp", "sobol"]
        block["searcher"] = draw(st.sampled_from(names))
    if draw(st.booleans()):
        several = len(sweep.get("metrics", ())) > 1
        stopping = () if several else ({"type": "median"}, "median")
        block["scheduler"] = draw(st.sampled_from([{"type": "none"}, *stopping]))
    if block or draw(st.booleans()):
        sweep["dialogue_tune"] = block
    try:
        parse_sweep(sweep)
    except ConfigurationError as error:
        assume(not all(_is_empty(problem) for problem in error.problems))
        raise
    return sweep


def _rises(values):
    numbers = all(isinstance(value, int | float) for value in values)
    return numbers and list(values) == sorted(values)


def _is_empty(problem):
    return re.match(r"dialogue_tune\.constraints: none of .* fulfils the constraints", problem)


@settings(RELAXED, max_examples=60)
@given(mapping=sweeps(), seed=st.integers(0, 100))
def test_valid_sweeps_parse_print_sample_and_round_trip(mapping, seed):
    sweep = parse_sweep(mapping)
    space = sweep.space
    lines = space.describe()
    assert len(lines) == len(space.parameters) + len(space.constraints)
    assert all(line.strip() for line in lines)
    rng = random.Random(seed)
    for _ in range(3):
        sample = space.sample(rng)
        assert space.contains(sample)
        assert space.allows(sample)
        assert all(type(value) in (int, float, str, type(None)) for value in sample.values())
        Config.from_mapping(sample)
    for u in (0.0, 1.0):
        Config.from_mapping(space.complete({n: d.quantile(u) for n, d in space.searched.items()}))
    assert parse_sweep(sweep.to_mapping()) == sweep
    assert parse_sweep(json.loads(json.dumps(sweep.to_mapping()))) == sweep
    stated = {"parameters": space.to_mapping(), "dialogue_tune": space.extension()}
    assert parse_sweep({"method": "random", **stated}).space == space


@settings(RELAXED, max_examples=25)
@given(mapping=sweeps())
def test_valid_sweeps_round_trip_through_yaml(tmp_path, mapping):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True), encoding="utf-8")
    assert load_sweep(path) == parse_sweep(mapping, str(path))


@settings(RELAXED, max_examples=60)
@given(mapping=sweeps(), data=st.data())
def test_any_field_of_a_valid_sweep_can_be_overridden(mapping, data):
    sweep = parse_sweep(mapping)
    name = data.draw(st.sampled_from(sorted(sweep.space.parameters)))
    value = data.draw(valid_values(RULES[name]))
    try:
        changed = sweep.with_overrides({name: value})
    except ConfigurationError as error:
        assert all(_is_empty(problem) for problem in error.problems)
        return
    assert changed.space.constants[name] == value
    assert list(changed.space.parameters) == list(sweep.space.parameters)


# Faults: a valid sweep with one thing wrong, and the path to it.


def leaves(group, path="parameters"):
    """Every field as (path, name, the mapping that it is in)."""
    for name, stated in group.items():
        if "parameters" in stated:
            yield from leaves(stated["parameters"], f"{path}.{name}.parameters")
        else:
            yield f"{path}.{name}", name, group


def wrong_key(sweep, path, name, group):
    group[name]["zz"] = 1
    return f"{path}.zz"


def wrong_field(sweep, path, name, group):
    group["zz"] = {"value": 1}
    return f"{path.rpartition('.')[0]}.zz"


def wrong_statement(sweep, path, name, group):
    group[name] = 3
    return path


def wrong_value(sweep, path, name, group):
    assume("values" in group[name] and "probabilities" not in group[name])
    group[name]["values"].append(["no scalar"])
    return f"{path}.values[{len(group[name]['values']) - 1}]"


def wrong_constant(sweep, path, name, group):
    group[name] = {"value": ["no scalar"]}
    return f"{path}.value"


def value_twice(sweep, path, name, group):
    assume("values" in group[name] and "probabilities" not in group[name])
    group[name]["values"].append(group[name]["values"][0])
    return f"{path}.values[{len(group[name]['values']) - 1}]"


def two_ways(sweep, path, name, group):
    assume("value" in group[name] or "values" in group[name])
    group[name]["min"] = 1
    return f"{path}.min"


def half_a_range(sweep, path, name, group):
    assume("max" in group[name])
    del group[name]["max"]
    return path


def ends_reversed(sweep, path, name, group):
    assume("max" in group[name])
    stated = group[name]
    assume(stated["min"] < stated["max"])
    stated["min"], stated["max"] = stated["max"], stated["min"]
    return f"{path}.min"


def end_without_end(sweep, path, name, group):
    assume("max" in group[name])
    group[name]["max"] = math.inf
    return f"{path}.max"


def numbers_only(name):
    """Where another field was drawn, the fault is of the wrong kind."""
    assume(RULES[name].kind is float and name not in NOT_SEARCHED)


def step_of_nothing(sweep, path, name, group):
    numbers_only(name)
    group[name] = {"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0}
    return f"{path}.q"


def no_spread(sweep, path, name, group):
    numbers_only(name)
    group[name] = {"distribution": "log_normal", "sigma": 0}
    return f"{path}.sigma"


def shapeless(sweep, path, name, group):
    numbers_only(name)
    group[name] = {"distribution": "beta", "a": -1}
    return f"{path}.a"


def out_of_reach(sweep, path, name, group):
    numbers_only(name)
    group[name] = {"distribution": "normal", "mu": -1000}
    return path


def wrong_sum(sweep, path, name, group):
    group[name] = {"values": [DEFAULTS[name], None], "probabilities": [0.2, 0.7]}
    return f"{path}.probabilities"


def wrong_count(sweep, path, name, group):
    group[name] = {"values": [DEFAULTS[name]], "probabilities": [1, 0]}
    return f"{path}.probabilities"


def wrong_distribution(sweep, path, name, group):
    group[name]["distribution"] = "zz"
    return f"{path}.distribution"


def field_twice(sweep, path, name, group):
    sweep["parameters"]["twice"] = {"parameters": {name: {"values": [1]}}}
    return f"parameters.twice.parameters.{name}"


def nothing_in_a_group(sweep, path, name, group):
    sweep["parameters"]["nothing"] = {"parameters": {}}
    return "parameters.nothing.parameters"


def data_searched(sweep, path, name, group):
    group.pop(name)
    sweep["parameters"]["max_length"] = {"distribution": "q_normal", "mu": 9}
    return "parameters.max_length"


def top(key, value, path_of_fault=None):
    """A fault of a key outside of parameters."""

    def fault(sweep, path, name, group):
        inside, _, last = key.rpartition(".")
        if key.startswith("metric"):  # metric and metrics exclude each other
            sweep.pop("metrics", None)
            sweep.pop("metric", None)
        block = sweep
        for part in inside.split(".") if inside else ():
            block = block.setdefault(part, {})
        block[last] = value
        return path_of_fault or key

    fault.__name__ = f"top_{key}"
    return fault


def ours(key, value, fault=None):
    """A fault of a key of our own part, found at that key or at another one."""
    found = top(f"dialogue_tune.{key}", value)
    return lambda *where: found(*where) and f"dialogue_tune.{fault or key}"


def own_condition(sweep, path, name, group):
    assume(name not in NOT_SEARCHED and parse_sweep(sweep).space.parameters[name].size() != 1)
    block = sweep.setdefault("dialogue_tune", {})
    block["parameters"] = {name: {"when": f"{name} == {name}"}}
    return "dialogue_tune.parameters"


def condition_of_a_constant(sweep, path, name, group):
    assume(parse_sweep(sweep).space.parameters[name].size() == 1)
    block = sweep.setdefault("dialogue_tune", {})
    block["parameters"] = {name: {"when": "1 < 2"}}
    return f"dialogue_tune.parameters.{name}.when"


def order_of_texts(sweep, path, name, group):
    group[name] = {"values": ["a", "b"]}
    if RULES[name].choices is None or name in NOT_SEARCHED:
        any_text = RULES[name].kind is str and RULES[name].choices is None
        return path if any_text else f"{path}.values[0]"
    group[name] = {"values": list(RULES[name].choices)}
    sweep.setdefault("dialogue_tune", {})["parameters"] = {name: {"ordinal": True}}
    return f"dialogue_tune.parameters.{name}.ordinal"


FAULTS = [
    *(wrong_key, wrong_field, wrong_statement, wrong_value, wrong_constant, value_twice, two_ways),
    *(
        half_a_range,
        ends_reversed,
        end_without_end,
        step_of_nothing,
        no_spread,
        shapeless,
        out_of_reach,
    ),
    *(wrong_sum, wrong_count, wrong_distribution, field_twice, nothing_in_a_group, data_searched),
    *(own_condition, condition_of_a_constant, order_of_texts),
    top("zz", 1),
    top("method", "zz"),
    top("run_cap", 0),
    top("name", 3),
    top("tags", "a"),
    top("metrics", []),
    top("metrics.zz", 1, "metrics"),
    top("metric.zz", 1),
    top("metric.name", "zz"),
    top("metric.goal", "up"),
    top("metric.target", "low"),
    top("early_terminate.type", "zz"),
    ours("zz", 1),
    ours("searcher", "zz"),
    ours("scheduler", {"type": "zz"}, "scheduler.type"),
    ours("constraints", "clip > 0"),
    ours("constraints", ["1 < 2", "clop > 0"], "constraints[1]"),
    ours("constraints", ["1 > 2"]),
    ours("parameters", {"zz": {"ordinal": True}}, "parameters.zz"),
    ours("parameters.zz", {"when": "clip >"}, "parameters.zz.when"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@settings(RELAXED, max_examples=4)
@given(data=st.data())
def test_invalid_sweeps_are_refused_with_a_path_to_the_fault(fault, data):
    sweep = copy.deepcopy(data.draw(sweeps()))
    where = data.draw(st.sampled_from(list(leaves(sweep["parameters"]))))
    path = fault(sweep, *where)
    with pytest.raises(ConfigurationError) as caught:
        parse_sweep(sweep, "x.yaml")
    assert any(problem.startswith(f"{path}: ") for problem in caught.value.problems), (
        path,
        caught.value.problems,
    )


# Anything at all

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    [
        *(
            "method",
            "metric",
            "name",
            "goal",
            "target",
            "parameters",
            "clip",
            "corpus",
            "optimizer",
        ),
        *("value", "values", "min", "max", "distribution", "iterations", "run_cap", "tags"),
        *("mu", "sigma", "q", "a", "b", "probabilities", "normal", "q_uniform", "beta"),
        *("early_terminate", "type", "hyperband", "min_iter", "max_iter", "s", "eta"),
        *("dialogue_tune", "ordinal", "when", "constraints", "searcher", "scheduler", "clip > 0"),
    ]
)


@settings(RELAXED, max_examples=60)
@given(
    st.dictionaries(
        KEYS,
        st.recursive(
            SCALARS | KEYS,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
            max_leaves=12,
        ),
        max_size=6,
    )
)
def test_any_mapping_parses_or_is_refused(mapping):
    try:
        parse_sweep(mapping)
    except ConfigurationError as error:
        assert error.problems


@settings(RELAXED, max_examples=60)
@given(text=st.text(alphabet="ab:{}[]-,!&*'\"\n \t#1e.<|?%@~é\x00", max_size=30))
def test_any_text_parses_or_is_refused(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        load_sweep(path)
    except ConfigurationError as error:
        assert error.problems

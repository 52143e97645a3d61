import json
import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from model.config import DATA_FIELDS, RULES, Config, DataConfig
from model.errors import ConfigurationError
from tests.tuning.ray_support import PUBLISHED
from tuning.distributions import Categorical, Constant, IntUniform, LogUniform, Uniform
from tuning.scheduling import HyperbandSettings
from tuning.sweep_file import METRICS, load_sweep, parse_sweep
from tuning.sweep_yaml import read_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def minimal(**keys):
    return {"method": "random", "parameters": {"clip": {"values": [0, 50]}}, **keys}


def with_parameter(name, parameter, **keys):
    return {"method": "random", "parameters": {name: parameter}, **keys}


def problems_of(mapping):
    with pytest.raises(ConfigurationError) as caught:
        parse_sweep(mapping, "x.yaml")
    return caught.value.problems


def written(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Shipped and published files


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_files_are_sound(path):
    sweep = load_sweep(path)
    assert sweep.notes == ()
    assert sweep.metric == "val_loss"
    assert sweep.rungs
    assert set(sweep.space.searched) == {
        "clip",
        "learning_rate",
        "decoder_learning_ratio",
        "optimizer",
        "teacher_forcing_ratio",
    }
    Config.from_mapping(sweep.space.sample(random.Random(0)))


def test_there_are_shipped_files():
    assert {"demo", "cornell_random", "cornell_bayes"} <= {path.stem for path in CONFIGS}


def test_demo_has_enough_trials():
    demo = load_sweep(next(path for path in CONFIGS if path.stem == "demo"))
    assert 12 <= demo.run_cap <= 16
    assert demo.data_config() == DataConfig(corpus="everyday")


def test_cornell_random_is_the_published_space():
    sweep = load_sweep(next(path for path in CONFIGS if path.stem == "cornell_random"))
    assert sweep.method == "random"
    assert sweep.run_cap == 25
    assert sweep.space.searched == {
        "clip": Categorical((0, 25, 50, 100)),
        "decoder_learning_ratio": Categorical((1, 3, 5, 10)),
        "learning_rate": Categorical((1e-4, 2.5e-4, 5e-4, 1e-3)),
        "optimizer": Categorical(("adam", "sgd")),
        "teacher_forcing_ratio": Categorical((0, 0.5, 1)),
    }
    assert sweep.space.size() == 384
    published = Config.from_mapping({"corpus": "cornell", "report_every": 250})
    sampled = Config.from_mapping({**published.to_mapping(), **sweep.space.constants})
    assert sampled == published


def test_cornell_bayes_is_what_the_issue_asks_for():
    sweep = load_sweep(next(path for path in CONFIGS if path.stem == "cornell_bayes"))
    assert sweep.method == "bayes"
    assert sweep.space.parameters["learning_rate"] == Uniform(1e-4, 1e-3)
    assert sweep.space.parameters["clip"] == IntUniform(10, 100)
    assert sweep.space.parameters["teacher_forcing_ratio"] == Uniform(0.5, 1.0)


@pytest.mark.parametrize("overrides", [{"hidden_size": 128, "iterations": 600}])
def test_cornell_random_can_be_made_small(overrides):
    sweep = load_sweep(next(path for path in CONFIGS if path.stem == "cornell_random"))
    smaller = sweep.with_overrides(overrides)
    assert smaller.reports == 3
    assert smaller.rungs == (2,)


def test_published_file_runs_as_it_stands(tmp_path):
    sweep = load_sweep(written(tmp_path, PUBLISHED))
    assert (sweep.method, sweep.metric, sweep.goal) == ("bayes", "val_loss", "minimize")
    assert sweep.space.parameters == {
        "learning_rate": Uniform(0.0001, 0.001),
        "clip": IntUniform(10, 100),
        "teacher_forcing_ratio": Uniform(0.5, 1.0),
    }
    assert sweep.early_terminate is None
    assert sweep.rungs == ()
    assert sweep.notes[0] == "unused: program: means nothing here."
    assert sweep.notes[1].startswith("warning: metric.name: val_loss is used instead of loss: ")
    assert len(sweep.notes) == 2


# What is accepted


def test_defaults():
    sweep = parse_sweep(minimal())
    assert (sweep.metric, sweep.goal, sweep.run_cap) == ("val_loss", "minimize", None)
    assert (sweep.name, sweep.project, sweep.entity, sweep.tags) == (None, None, None, ())
    assert sweep.early_terminate is None
    assert sweep.reports == 40  # 4000 / 100, the configuration's defaults
    assert sweep.data_config() == DataConfig()


def test_everything_is_kept_for_tracking():
    keys = {"name": "n", "project": "p", "entity": "e", "description": "d", "tags": ["a", "b"]}
    sweep = parse_sweep(minimal(**keys, run_cap=7))
    assert (sweep.name, sweep.project, sweep.entity, sweep.description) == ("n", "p", "e", "d")
    assert sweep.tags == ("a", "b")
    assert sweep.run_cap == 7


def test_unused_keys_are_noted():
    keys = {"program": "t.py", "command": ["${env}"], "controller": {"type": "local"}}
    sweep = parse_sweep(minimal(**keys, metric={"name": "val_loss", "target": 2.5}))
    assert [note.split(":")[1].strip() for note in sweep.notes] == [
        "program",
        "command",
        "controller",
        "metric.target",
    ]


def test_missing_goal_is_minimize():
    assert parse_sweep(minimal(metric={"name": "val_perplexity"})).goal == "minimize"


def test_every_supported_distribution():
    sweep = parse_sweep(
        {
            "method": "random",
            "parameters": {
                "corpus": {"value": "cornell"},
                "max_length": {"values": [12]},
                "optimizer": {"distribution": "categorical", "values": ["adam", "sgd"]},
                "hidden_size": {"distribution": "int_uniform", "min": 64, "max": 512},
                "dropout": {"distribution": "uniform", "min": 0, "max": 0.5},
                "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1},
                "embedding_size": {"values": [None, 100]},
                "batch_size": {"distribution": "constant", "value": 32},
            },
        }
    )
    assert list(sweep.space.parameters.values()) == [
        Constant("cornell"),
        Categorical((12,)),
        Categorical(("adam", "sgd")),
        IntUniform(64, 512),
        Uniform(0, 0.5),
        LogUniform(1e-4, 1),
        Categorical((None, 100)),
        Constant(32),
    ]
    assert sweep.data_config() == DataConfig(corpus="cornell", max_length=12)


def test_early_terminate():
    block = {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3, "strict": True}
    sweep = parse_sweep(minimal(early_terminate=block))
    assert sweep.early_terminate == HyperbandSettings(max_iter=27, s=2, eta=3, strict=True)
    assert sweep.rungs == (3, 9)
    both = parse_sweep(minimal(early_terminate={**block, "min_iter": 2}))
    assert both.notes == ("unused: early_terminate.min_iter: max_iter and s decide, as in W&B.",)


def test_rungs_are_not_checked_where_reports_are_searched():
    sweep = parse_sweep(
        with_parameter(
            "iterations",
            {"values": [100, 1000]},
            early_terminate={"type": "hyperband", "min_iter": 50},
        )
    )
    assert sweep.reports is None
    assert sweep.rungs[:2] == (50, 150)


# What is refused


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"parameters": {"clip": {"value": 1}}}, "method: is required; supported: random, grid"),
        (minimal(method="bayesian"), "method: unknown method 'bayesian', did you mean 'bayes'?"),
        (minimal(method=["random"]), "method: unknown method ['random']"),
        (minimal(metod="grid"), "metod: unknown key, did you mean 'method'?"),
        (minimal(parameter={}), "parameter: unknown key, did you mean 'parameters'?"),
        (minimal(metrics=[]), "metrics: several objectives are not supported yet"),
        (minimal(run_cap=0), "run_cap: must be a whole number of at least 1, but got 0."),
        (minimal(run_cap=True), "run_cap: must be a whole number of at least 1, but got True."),
        (minimal(run_cap="5"), "run_cap: must be a whole number of at least 1, but got '5'."),
        (minimal(name=2024), "name: must be text, but got 2024; put it in quotes."),
        (minimal(tags="a"), "tags: must be a list of texts, but got 'a'."),
        (minimal(tags=[1]), "tags: must be a list of texts, but got [1]."),
        ({"method": "random"}, "parameters: is required, a mapping from field to its values."),
        ({"method": "grid", "parameters": []}, "parameters: is required, a mapping from field"),
        ({"method": "grid", "parameters": {}}, "parameters: is required, a mapping from field"),
        (minimal(metric="val_loss"), "metric: must be a mapping with name and goal, but got 'val"),
        (
            minimal(metric={"name": "val_los"}),
            "metric.name: unknown metric 'val_los', did you mean 'val_loss'?",
        ),
        (minimal(metric={"name": 3}), "metric.name: unknown metric 3; valid: val_loss, val_perp"),
        (minimal(metric={"nam": "val_loss"}), "metric.nam: unknown key, did you mean 'name'?"),
        (
            minimal(metric={"name": "val_loss", "goal": "min"}),
            "metric.goal: must be minimize or maximize, but got 'min'.",
        ),
        (
            minimal(metric={"name": "loss", "goal": "maximize"}),
            "metric.goal: must be minimize for val_loss, but is maximize.",
        ),
        (
            minimal(metric={"name": "val_token_accuracy"}),
            "metric.goal: must be maximize for val_token_accuracy, but is minimize, W&B's default.",
        ),
        (
            with_parameter("learning_rte", {"value": 1}),
            "parameters.learning_rte: unknown key, did you mean 'learning_rate'?",
        ),
        (
            with_parameter("batch-size", {"value": 1}),
            "parameters.batch-size: unknown key, did you mean 'batch_size'?",
        ),
        (
            with_parameter("clip", 50),
            "parameters.clip: must be a mapping such as {value: ...}, but",
        ),
        (
            with_parameter("learning_rate", {"values": [0.1, 0.2, -0.3]}),
            "parameters.learning_rate.values[2]: must be greater than 0, but got -0.3.",
        ),
        (
            with_parameter("optimizer", {"values": ["adam", "adan"]}),
            "parameters.optimizer.values[1]: must be one of adam, adamw, sgd, but got 'adan'.",
        ),
        (
            with_parameter("clip", {"value": "1e-4x"}),
            "parameters.clip.value: must be a number, but got '1e-4x' (str).",
        ),
        (
            with_parameter("dropout", {"min": 0.1, "max": 1.5}),
            "parameters.dropout.max: must be between 0 and 0.95, but got 1.5.",
        ),
        (
            with_parameter("hidden_size", {"min": 0, "max": 64}),
            "parameters.hidden_size.min: must be at least 1, but got 0.",
        ),
        (
            with_parameter("hidden_size", {"min": 64.0, "max": 512.0}),
            "parameters.hidden_size: hidden_size is a whole number and cannot have a continuous",
        ),
        (
            with_parameter(
                "hidden_size", {"min": 64, "max": 512, "distribution": "log_uniform_values"}
            ),
            "parameters.hidden_size: hidden_size is a whole number and cannot have a continuous",
        ),
        (
            with_parameter("optimizer", {"min": 1, "max": 2}),
            "parameters.optimizer: a range needs a field with numbers, but optimizer is text",
        ),
        (
            with_parameter("clip", {"min": 100, "max": 10}),
            "parameters.clip.min: must be at most max, but the range 100 to 10 is empty.",
        ),
        (
            with_parameter("clip", {"value": 10**400}),
            "parameters.clip.value: must be less than 2^63 in size, but has 401 digits.",
        ),
        (
            with_parameter("max_length", {"values": [10, 20]}),
            "parameters.max_length: can be set but not searched: it changes examples or "
            "vocabulary, so losses are not comparable",
        ),
        (
            with_parameter("min_count", {"min": 1, "max": 3}),
            "parameters.min_count: can be set but not searched",
        ),
        (
            with_parameter("validation_share", {"min": 0.1, "max": 0.1}),
            "parameters.validation_share: can be set but not searched",
        ),
        (
            with_parameter("learning_rate", {"min": 0.1, "max": 0.2}, method="grid"),
            "parameters.learning_rate: a grid cannot enumerate a continuous range; name its values",
        ),
    ],
)
def test_faults_are_named(mapping, problem):
    assert any(found.startswith(problem) for found in problems_of(mapping)), problems_of(mapping)


def test_every_problem_is_reported_at_once_with_file_and_path():
    mapping = {
        "method": "gird",
        "metric": {"name": "accuracy", "goal": "up"},
        "parameters": {
            "learning_rte": {"value": 1},
            "clip": {"values": [50, "x"], "vales": 3},
            "dropout": {"min": 2.0, "max": 1.0},
        },
        "early_terminate": {"type": "hyperbnd"},
        "run_cup": 5,
    }
    with pytest.raises(ConfigurationError) as caught:
        parse_sweep(mapping, "configs/x.yaml")
    text = str(caught.value)
    assert all(line.startswith("configs/x.yaml: ") for line in text.splitlines())
    for path in (
        *("method", "metric.name", "metric.goal", "parameters.learning_rte", "run_cup"),
        *("parameters.clip.values[1]", "parameters.clip.vales", "early_terminate.type"),
        *("parameters.dropout.min", "parameters.dropout.max", "early_terminate"),
    ):
        assert f"configs/x.yaml: {path}: " in text
    assert "parameters.learning_rte: unknown key, did you mean 'learning_rate'?" in text


def test_a_fault_is_reported_once():
    assert len(problems_of(with_parameter("learning_rate", {"min": 0.0, "max": "x"}))) == 2
    log = {"distribution": "log_uniform_values", "min": 0, "max": 1}
    assert len(problems_of(with_parameter("learning_rate", log))) == 1


def test_invalid_iterations_say_nothing_of_rungs():
    block = {"type": "hyperband", "min_iter": 90}
    assert len(problems_of(with_parameter("iterations", {"value": 0}, early_terminate=block))) == 1


@pytest.mark.parametrize("held", [None, [], "text", 5])
def test_top_level_must_be_a_mapping(held):
    with pytest.raises(
        ConfigurationError, match=r"x: (is empty|holds \w+, not a mapping); it need"
    ):
        parse_sweep(held, "x")


# Overrides


def test_overrides_fix_fields():
    sweep = parse_sweep(minimal(early_terminate={"type": "hyperband", "min_iter": 4}), "x.yaml")
    changed = sweep.with_overrides({"clip": 25.0, "hidden_size": 64, "corpus": "cornell"})
    assert changed.space.constants == {"clip": 25.0, "hidden_size": 64, "corpus": "cornell"}
    assert changed.space.searched == {}
    assert changed.source == "x.yaml"
    assert sweep.space.searched
    assert parse_sweep(changed.to_mapping(), "x.yaml") == changed
    assert sweep.with_overrides({}) is sweep


def test_overrides_are_checked_again():
    sweep = parse_sweep(minimal(early_terminate={"type": "hyperband", "min_iter": 4}), "x.yaml")
    (note,) = sweep.with_overrides({"iterations": 300}).notes
    assert note.startswith("early_terminate: stops nothing: its rungs are the reports 4, 12,")
    assert "but a trial makes 3 " in note
    with pytest.raises(ConfigurationError, match="parameters.clip.value: must be at least 0"):
        sweep.with_overrides({"clip": -1})
    with pytest.raises(ConfigurationError, match="parameters.clop: unknown key, did you mean"):
        sweep.with_overrides({"clop": 1})


# YAML


def test_exponents_without_a_point_are_numbers(tmp_path):
    text = "method: random\nparameters:\n  learning_rate:\n    values: [1e-4, 1E-3, 2.5e-4, 1]\n"
    sweep = load_sweep(written(tmp_path, text))
    assert sweep.space.parameters["learning_rate"] == Categorical((1e-4, 1e-3, 2.5e-4, 1))


def test_scalars_of_yaml(tmp_path):
    text = "[1e3, -1.5, .5, 5., +2, 0x10, 1_000, .inf, true, ~, 1:30, 010, 2020-01-01, 1e, e3, -]"
    assert read_yaml(written(tmp_path, text.replace(", -]", "]"))) == [
        *(1e3, -1.5, 0.5, 5.0, 2, 16, 1000, float("inf"), True, None),
        *("1:30", "010", "2020-01-01", "1e", "e3"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty; it needs the keys method and parameters"),
        ("method: random\nmethod: grid\n", "line 2, column 1: .*the key 'method' is there twice"),
        ("parameters:\n  clip: {value: 1}\n  clip: {value: 2}\n", "line 3, column 3: .*'clip' is"),
        ("method: [random\n", "line 2, column 1: not valid YAML"),
        ("method:\n\t- x", "line 2, column 1: not valid YAML: .*'\\\\t'"),
        ("a: !!python/object:os.system x", "line 1, column 4: not valid YAML: could not determine"),
        ("a: *nowhere", "line 1, column 4: not valid YAML: found undefined alias"),
        ("a: !!int x", "not valid YAML: invalid literal for int"),
        ("{[1]: 2}", "line 1, column 2: not valid YAML: found unhashable key"),
        ("a: \x07", "not valid YAML: .*special characters are not allowed"),
        ("[" * 5000, "not valid YAML: nested too deeply"),
        (b"method: random\nname: caf\xe9\n", "line 2: not UTF-8 text \\(byte 0xe9\\)"),
        (b"\xff\xfem\x00", "line 1: not UTF-8 text"),
    ],
)
def test_files_that_are_no_yaml(tmp_path, text, problem):
    with pytest.raises(ConfigurationError, match=f"sweep.yaml: {problem}"):
        load_sweep(written(tmp_path, text))


def test_byte_order_mark_and_merge_keys(tmp_path):
    text = (
        "\ufeffmethod: random\nparameters:\n  clip: &c {min: 1, max: 2}\n"
        "  dropout: {<<: *c, min: 0.1, max: 0.5}\n"
    )
    assert load_sweep(written(tmp_path, text)).space.parameters["dropout"] == Uniform(0.1, 0.5)


def test_missing_file_suggests_a_near_one(tmp_path):
    written(tmp_path, "")
    with pytest.raises(ConfigurationError, match="no such file, did you mean 'sweep.yaml'?"):
        load_sweep(tmp_path / "sweeep.yaml")
    with pytest.raises(ConfigurationError, match=r"no such file; .*nowhere is no directory\."):
        load_sweep(tmp_path / "nowhere" / "sweep.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_sweep(tmp_path)


# Properties


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
_PRINTED = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=5).filter(
    lambda text: not re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", text)
)


@st.composite
def parameters(draw, name, method):
    rule = RULES[name]
    values = valid_values(rule)
    kinds = ["value", "one value"]
    if name not in DATA_FIELDS | {"val_examples"}:
        kinds.append("values")
        if rule.kind is int or (rule.kind is float and method != "grid"):
            kinds.append("range")
    kind = draw(st.sampled_from(kinds))
    if kind == "value":
        return {"value": draw(values)}
    if kind == "one value":
        return {"values": [draw(values)]}
    if kind == "values":
        return {"values": draw(st.lists(values, min_size=1, max_size=5, unique=True))}
    low, high = sorted(draw(st.tuples(*[values.filter(lambda v: v is not None)] * 2)))
    kinds = ["int_uniform"] if rule.kind is int else ["uniform"]
    if rule.kind is float and low > 0:
        kinds.append("log_uniform_values")
    chosen = {"distribution": draw(st.sampled_from(kinds))} if draw(st.booleans()) else {}
    return {**chosen, "min": low, "max": high}


@st.composite
def sweeps(draw):
    method = draw(st.sampled_from(["random", "grid", "bayes"]))
    names = draw(st.lists(st.sampled_from(sorted(RULES)), min_size=1, max_size=6, unique=True))
    sweep = {"method": method, "parameters": {n: draw(parameters(n, method)) for n in names}}
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(METRICS)))
        sweep["metric"] = {"name": name, "goal": METRICS[name]}
    optional = {
        "run_cap": st.integers(1, 10**6),
        "name": _PRINTED,
        "tags": st.lists(_PRINTED, max_size=2),
        "program": st.just("train.py"),
    }
    for key, values in optional.items():
        if draw(st.booleans()):
            sweep[key] = draw(values)
    return sweep


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mapping=sweeps(), seed=st.integers(0, 100))
def test_valid_sweeps_parse_print_sample_and_round_trip(mapping, seed):
    sweep = parse_sweep(mapping)
    assert len(sweep.space.describe()) == len(mapping["parameters"])
    sample = sweep.space.sample(random.Random(seed))
    assert sweep.space.contains(sample)
    assert all(type(value) in (int, float, str, type(None)) for value in sample.values())
    Config.from_mapping(sample)
    assert parse_sweep(sweep.to_mapping()) == sweep
    assert parse_sweep(json.loads(json.dumps(sweep.to_mapping()))) == sweep
    assert parse_sweep({**mapping, "parameters": sweep.space.to_mapping()}).space == sweep.space


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(mapping=sweeps())
def test_valid_sweeps_round_trip_through_yaml(tmp_path, mapping):
    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)
    path = written(tmp_path, text)
    assert load_sweep(path) == parse_sweep(mapping, str(path))


@st.composite
def broken_sweeps(draw):
    """A valid sweep with one fault, and the path to it."""
    mapping = draw(sweeps())
    name = draw(st.sampled_from(sorted(mapping["parameters"])))
    parameter = mapping["parameters"][name]
    fault = draw(st.sampled_from(["key", "parameter key", "field", "value", "method", "both"]))
    path = f"parameters.{name}"
    if fault == "key":
        mapping["zz"], path = 1, "zz"
    elif fault == "parameter key":
        parameter["zz"], path = 1, f"{path}.zz"
    elif fault == "field":
        mapping["parameters"] |= {"zz": {"value": 1}}
        path = "parameters.zz"
    elif fault == "value":
        assume("values" in parameter)
        parameter["values"].append(["no scalar"])
        path = f"{path}.values[{len(parameter['values']) - 1}]"
    elif fault == "method":
        mapping["method"], path = "zz", "method"
    else:
        assume("value" in parameter)
        parameter["min"], path = 1, f"{path}.min"
    return mapping, path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(broken=broken_sweeps())
def test_invalid_sweeps_are_refused_with_a_path_to_the_fault(broken):
    mapping, path = broken
    with pytest.raises(ConfigurationError, match=re.escape(f"x.yaml: {path}: ")):
        parse_sweep(mapping, "x.yaml")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(
    [
        *("method", "metric", "name", "goal", "parameters", "clip", "corpus", "optimizer"),
        *("value", "values", "min", "max", "distribution", "iterations", "run_cap", "tags"),
        *("early_terminate", "type", "hyperband", "min_iter", "max_iter", "s", "eta"),
    ]
)


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(alphabet="ab:{}[]-,!&*'\"\n \t#1e.<|?%@~é\x00", max_size=30))
def test_any_text_parses_or_is_refused(tmp_path, text):
    try:
        load_sweep(written(tmp_path, text))
    except ConfigurationError as error:
        assert error.problems

import math
import random
import re
from pathlib import Path

import pytest

from model.config import Config, DataConfig
from model.errors import ConfigurationError
from tests.tuning.ray_support import PUBLISHED
from tuning.distributions import (
    DISTRIBUTIONS,
    Beta,
    Categorical,
    Constant,
    IntUniform,
    LogNormal,
    LogUniform,
    LogUniformExponent,
    Normal,
    Ordinal,
    QBeta,
    QLogNormal,
    QNormal,
    QUniform,
    Uniform,
    WeightedCategorical,
)
from tuning.scheduling import HyperbandSettings, MedianSettings
from tuning.spaces.expressions import Expression
from tuning.sweeps.sweep_file import load_sweep, parse_sweep
from tuning.sweeps.yaml_file import read_yaml

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
    assert sweep.objective.name == "val_loss"
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
    assert (sweep.method, sweep.objective.name, sweep.objective.goal) == (
        "bayes",
        "val_loss",
        "minimize",
    )
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


DOCUMENT = CONFIGS[0].parents[1] / "docs" / "sweep-files.md"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_documents_examples_load(tmp_path, place):
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) == 3
    sweep = load_sweep(written(tmp_path, blocks[place]))
    assert sweep.space.contains(sweep.space.sample(random.Random(0)))


def test_the_document_has_every_distribution():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in DISTRIBUTIONS if f"`{name}`" not in text] == []


# What is accepted


def test_defaults():
    sweep = parse_sweep(minimal())
    assert (sweep.objective.name, sweep.objective.goal, sweep.run_cap) == (
        "val_loss",
        "minimize",
        None,
    )
    assert (sweep.objective.target, sweep.searcher, sweep.scheduler) == (None, None, None)
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


def test_launch_queues_are_unused():
    sweep = parse_sweep(minimal(scheduler={"num_workers": 4, "resource": "local-process"}, job="x"))
    assert sweep.notes == (
        "unused: scheduler: means nothing here.",
        "unused: job: means nothing here.",
    )


@pytest.mark.parametrize("stated", [{"distribution": "uniform", "min": 0}, {"min": 0.0}])
def test_a_range_may_begin_where_the_values_do_not(stated):
    """As W&B's own examples do, with learning rates from 0."""
    sweep = parse_sweep(with_parameter("learning_rate", stated | {"max": 0.1}))
    assert sweep.space.searched["learning_rate"] == Uniform(math.nextafter(0, 1), 0.1)
    assert sweep.notes == (
        "parameters.learning_rate.min: 0 itself is left out, for it is no learning_rate.",
    )
    assert sweep.space.point({"learning_rate": 0.0})["learning_rate"] > 0
    with pytest.raises(ConfigurationError, match="learning_rate.min: must be greater than 0"):
        parse_sweep(with_parameter("learning_rate", {"min": -1.0, "max": 0.1}))


def test_unused_keys_are_noted():
    keys = {"program": "t.py", "command": ["${env}"], "controller": {"type": "local"}}
    sweep = parse_sweep(minimal(**keys, metric={"name": "val_loss", "impute": "worst"}))
    assert [note.split(":")[1].strip() for note in sweep.notes] == [
        "program",
        "command",
        "controller",
        "metric.impute",
    ]
    assert sweep.notes[-1].endswith(
        "failed trials are told to the searcher as failed, without a made-up value."
    )


def test_missing_goal_is_minimize():
    assert parse_sweep(minimal(metric={"name": "val_perplexity"})).objective.goal == "minimize"


def test_target():
    assert parse_sweep(minimal(metric={"name": "val_loss", "target": 2.5})).objective.target == 2.5
    assert parse_sweep(minimal(metric={"target": 0})).objective.target == 0


def test_every_distribution():
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
                "clip": {"values": [0, 50], "probabilities": [0.25, 0.75]},
                "teacher_forcing_ratio": {"distribution": "q_beta", "a": 2, "q": 0.1},
                "decoder_learning_ratio": {"distribution": "log_normal", "mu": 1},
                "encoder_layers": {"distribution": "q_normal", "mu": 2},
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
        WeightedCategorical((0, 50), (0.25, 0.75)),
        QBeta(Beta(2, 1), 0.1),
        LogNormal(1, 1.0),
        QNormal(Normal(2, 1.0), 1.0, whole=True).within(1, None),
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
        (
            minimal(metric={"target": "low"}),
            "metric.target: must be a finite number, but got 'low'.",
        ),
        (
            minimal(metric={"target": float("nan")}),
            "metric.target: must be a finite number, but got nan.",
        ),
        (
            minimal(scheduler={"job": "wandb/jobs/Optuna Scheduler Job:latest"}),
            "scheduler: a scheduler job of your own cannot propose here; method or",
        ),
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
    assert len(problems_of(with_parameter("learning_rate", {"min": -1.0, "max": "x"}))) == 2
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


# Shapes and steps over fields


def distribution_of(name, parameter, notes=0):
    """The one distribution of a sweep, which has so many notes."""
    sweep = parse_sweep(with_parameter(name, parameter))
    assert len(sweep.notes) == notes, sweep.notes
    return sweep.space.parameters[name]


def test_shapes_are_cut_off_to_what_a_field_accepts():
    sweep = parse_sweep(with_parameter("dropout", {"distribution": "normal", "mu": 0.1}))
    assert sweep.space.parameters["dropout"] == Normal(0.1, 1.0, lower=0, upper=0.95)
    assert sweep.notes == (
        "parameters.dropout: cut off to what dropout accepts, which is at least 0 and at most "
        "0.95: 66 % of normal lies beyond.",
    )
    samples = [sweep.space.sample(random.Random(seed))["dropout"] for seed in range(200)]
    assert all(0 <= sample <= 0.95 for sample in samples)


def test_what_is_not_cut_off_has_no_note():
    rate = distribution_of("learning_rate", {"distribution": "log_normal", "mu": -7})
    assert rate == LogNormal(-7, 1.0)
    beta = distribution_of("teacher_forcing_ratio", {"distribution": "beta", "a": 2, "b": 5})
    assert beta == Beta(2, 5)
    distribution_of("clip", {"distribution": "normal", "mu": 50, "sigma": 5})
    distribution_of("dropout", {"distribution": "beta", "a": 2, "b": 5}, notes=1)


def test_a_bound_that_is_not_a_value_itself_is_never_drawn():
    beta = distribution_of("learning_rate", {"distribution": "beta", "a": 0.5})
    assert beta == Beta(0.5, 1, lower=5e-324)
    assert 0 < beta.quantile(0.0) < 1e-300
    steps = {"distribution": "q_beta", "q": 0.5}
    assert list(distribution_of("learning_rate", steps, notes=1).grid()) == [0.5, 1.0]


def test_steps_over_whole_numbers():
    sizes = {"distribution": "q_log_uniform_values", "min": 64, "max": 512, "q": 64.0}
    assert list(distribution_of("hidden_size", sizes).grid()) == [*range(64, 513, 64)]
    assert {type(size) for size in distribution_of("hidden_size", sizes).grid()} == {int}
    layers = distribution_of("encoder_layers", {"distribution": "q_log_normal", "q": 1}, notes=1)
    assert layers == QLogNormal(LogNormal(0.0, 1.0), 1, whole=True).within(1, None)
    assert layers.quantile(0.0) == 1
    assert type(layers.quantile(0.9)) is int


def test_steps_over_real_numbers():
    steps = {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}
    assert list(distribution_of("teacher_forcing_ratio", steps).grid()) == [0, 0.25, 0.5, 0.75, 1]
    whole = {"distribution": "q_uniform", "min": 0, "max": 50, "q": 25}
    assert distribution_of("clip", whole) == QUniform(Uniform(0, 50), 25, whole=True)


def test_logarithms_that_look_like_values_are_noted():
    sweep = parse_sweep(
        with_parameter("learning_rate", {"distribution": "log_uniform", "min": 1e-4, "max": 0.1})
    )
    assert sweep.space.parameters["learning_rate"] == LogUniformExponent(1e-4, 0.1)
    assert sweep.notes == (
        "warning: parameters.learning_rate: min and max of log_uniform are natural logarithms, so "
        "learning_rate is 1.0001 to 1.10517, log_uniform; for values, use log_uniform_values.",
    )
    meant = {"distribution": "log_uniform", "min": -9.21, "max": -4.6}
    distribution_of("learning_rate", meant)


def shaped(name, distribution, **keys):
    return with_parameter(name, {"distribution": distribution, **keys})


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        (
            shaped("clip", "normal", mu=-10),
            "parameters.clip: lies outside of what clip accepts, which is at least 0.",
        ),
        (
            shaped("dropout", "q_beta", a=50, b=0.1, q=1),
            "parameters.dropout: lies outside of what dropout accepts, which is at least 0 and at "
            "most 0.95.",
        ),
        (
            shaped("learning_rate", "q_uniform", min=0.01, max=0.1, q=0.05),
            "parameters.learning_rate.min: rounded to steps it is 0, which must be greater than 0, "
            "but got 0.0.",
        ),
        (
            shaped("teacher_forcing_ratio", "q_uniform", min=0, max=1, q=0.7),
            None,
        ),
        (
            shaped("dropout", "q_uniform", min=0, max=0.9, q=0.5),
            "parameters.dropout.max: rounded to steps it is 1, which must be between 0 and 0.95,",
        ),
        (
            shaped("dropout", "log_uniform", min=-3, max=0),
            "parameters.dropout.max: its exponential is 1, which must be between 0 and 0.95, but",
        ),
        (
            shaped("dropout", "inv_log_uniform", min=0, max=3),
            "parameters.dropout.min: its exponential is 1, which must be between 0 and 0.95, but",
        ),
        (
            shaped("dropout", "inv_log_uniform_values", min=0.1, max=1.5),
            "parameters.dropout.max: must be between 0 and 0.95, but got 1.5.",
        ),
        (
            shaped("hidden_size", "normal", mu=100),
            "parameters.hidden_size: hidden_size is a whole number and cannot have a continuous",
        ),
        (
            shaped("hidden_size", "q_uniform", min=1, max=9, q=0.5),
            "parameters.hidden_size: hidden_size is a whole number, and so must q be, but it is 0.",
        ),
        (
            shaped("optimizer", "q_normal"),
            "parameters.optimizer: a range needs a field with numbers, but optimizer is text",
        ),
        (shaped("max_length", "q_normal", mu=9), "parameters.max_length: can be set but not sea"),
        (
            with_parameter("optimizer", {"values": ["adam", "x"], "probabilities": [0.5, 0.5]}),
            "parameters.optimizer.values[1]: must be one of adam, adamw, sgd, but got 'x'.",
        ),
    ],
)
def test_shapes_and_steps_that_do_not_fit(mapping, problem):
    if problem is None:
        parse_sweep(mapping)
    else:
        assert any(found.startswith(problem) for found in problems_of(mapping)), problems_of(
            mapping
        )


@pytest.mark.parametrize(
    ("parameter", "problem"),
    [
        ({"min": 0.1, "max": 0.2}, "a grid cannot enumerate a continuous range; name its values"),
        ({"distribution": "normal"}, "a grid cannot enumerate a continuous range"),
        (
            {"values": [0, 1], "probabilities": [0.5, 0.5]},
            "a grid has no probabilities; leave them out, or use method random or bayes.",
        ),
        (
            {"distribution": "q_log_uniform_values", "min": 1, "max": 9, "q": 1},
            "a grid cannot have q_log_uniform_values; name its values or use q_uniform",
        ),
        (
            {"distribution": "q_uniform", "min": 0, "max": 20000, "q": 1},
            "a grid of more than 10,000 values; raise q",
        ),
        ({"distribution": "q_uniform", "min": 0, "max": 4, "q": 1}, None),
        ({"min": 1, "max": 10**6}, None),
        ({"min": 0.5, "max": 0.5}, None),
        ({"values": [0, 1], "probabilities": [0, 1]}, None),
    ],
)
def test_a_grid_has_wandbs_rule(parameter, problem):
    mapping = with_parameter("clip", parameter, method="grid")
    if problem is None:
        parse_sweep(mapping)
    else:
        assert any(
            found.startswith(f"parameters.clip: {problem}") for found in problems_of(mapping)
        )
    mapping["dialogue_tune"] = {"searcher": "random"}
    parse_sweep(mapping)  # which is then no grid


def test_a_searcher_grid_has_the_rule_too():
    mapping = with_parameter("clip", {"min": 0.5, "max": 1.0}, dialogue_tune={"searcher": "grid"})
    assert problems_of(mapping)[0].startswith("parameters.clip: a grid cannot enumerate")


# Groups


def grouped(**extra):
    """Nested parameters, as in W&B's documentation."""
    return {
        "method": "random",
        "parameters": {
            "clip": {"values": [0, 50]},
            "optimizer": {
                "parameters": {
                    "learning_rate": {"min": 0.0001, "max": 0.001},
                    "sizes": {"parameters": {"hidden_size": {"values": [64, 128]}}},
                }
            },
            "dropout": {"value": 0.1},
        },
        **extra,
    }


def test_groups_are_read_by_their_fields_names():
    sweep = parse_sweep(grouped())
    assert sweep.space.parameters == {
        "clip": Categorical((0, 50)),
        "learning_rate": Uniform(0.0001, 0.001),
        "hidden_size": Categorical((64, 128)),
        "dropout": Constant(0.1),
    }
    assert list(sweep.space.parameters) == ["clip", "learning_rate", "hidden_size", "dropout"]
    assert sweep.to_mapping() == grouped()


def test_overrides_reach_into_groups():
    """The group called optimizer is not the field."""
    sweep = parse_sweep(grouped()).with_overrides({"hidden_size": 32, "optimizer": "sgd"})
    assert sweep.space.constants == {"hidden_size": 32, "dropout": 0.1, "optimizer": "sgd"}
    assert list(sweep.space.searched) == ["clip", "learning_rate"]
    assert parse_sweep(sweep.to_mapping()) == parse_sweep(sweep.to_mapping()).with_overrides({})


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        (
            {"parameters": {"clip": {"value": 1}}},
            "parameters.group.parameters.clip: clip is there already, at parameters.clip.",
        ),
        (
            {"parameters": {"clop": {"value": 1}}},
            "parameters.group.parameters.clop: unknown key, did you mean 'clip'?",
        ),
        (
            {"parameters": {"dropout": {"value": 2}}},
            "parameters.group.parameters.dropout.value: must be between 0 and 0.95, but got 2.",
        ),
        (
            {"parameters": {"dropout": {"value": 0}}, "value": 3},
            "parameters.group.value: cannot stand beside parameters.",
        ),
        ({"parameters": {}}, "parameters.group.parameters: must be a mapping from field to its"),
        ({"parameters": [1]}, "parameters.group.parameters: must be a mapping from field to its"),
        ({"parameters": {"dropout": 3}}, "parameters.group.parameters.dropout: must be a mapping"),
        ({"value": 3}, "parameters.group: unknown key"),
    ],
)
def test_faults_within_groups(group, problem):
    mapping = minimal()
    mapping["parameters"]["group"] = group
    assert any(found.startswith(problem) for found in problems_of(mapping)), problems_of(mapping)


def test_groups_without_end(tmp_path):
    text = "method: random\nparameters: {group: &g {parameters: {group: *g}}}\n"
    with pytest.raises(ConfigurationError, match=r"groups within groups go deeper than 20\."):
        load_sweep(written(tmp_path, text))


# Our own part

EXTENDED = {
    "method": "bayes",
    "parameters": {
        "clip": {"values": [0, 25, 50]},
        "optimizer": {"values": ["adam", "sgd"]},
        "group": {"parameters": {"decoder_learning_ratio": {"values": [1, 3, 5]}}},
        "learning_rate": {"min": 0.0001, "max": 0.001},
    },
    "dialogue_tune": {
        "parameters": {
            "clip": {"ordinal": True},
            "decoder_learning_ratio": {"when": "optimizer == 'adam'", "ordinal": False},
        },
        "constraints": ["clip > 0 or learning_rate < 0.0005"],
        "searcher": "gp",
        "scheduler": {"type": "median", "min_reports": 3},
    },
}


def extended(**keys):
    """The sweep with keys of our own part replaced."""
    block = {**EXTENDED["dialogue_tune"], **keys}
    return {**EXTENDED, "dialogue_tune": {k: v for k, v in block.items() if v is not None}}


def test_our_own_part():
    sweep = parse_sweep(EXTENDED)
    assert sweep.space.parameters["clip"] == Ordinal((0, 25, 50))
    assert sweep.space.parameters["decoder_learning_ratio"] == Categorical((1, 3, 5))
    assert sweep.space.when == {"decoder_learning_ratio": Expression("optimizer == 'adam'")}
    assert sweep.space.constraints == (Expression("clip > 0 or learning_rate < 0.0005"),)
    assert (sweep.method, sweep.searcher) == ("bayes", "gp")
    assert sweep.scheduler == MedianSettings(min_reports=3)
    assert sweep.notes == ()
    assert parse_sweep(sweep.to_mapping()) == sweep
    samples = [sweep.space.sample(random.Random(seed)) for seed in range(50)]
    assert all(s["optimizer"] == "adam" or s["decoder_learning_ratio"] == 5.0 for s in samples)


@pytest.mark.parametrize("searcher", ["random", "grid", "tpe", "gp", "cmaes", "sobol"])
def test_searchers(searcher):
    assert parse_sweep(minimal(dialogue_tune={"searcher": searcher})).searcher == searcher


@pytest.mark.parametrize("block", [None, {}, {"parameters": None, "constraints": []}])
def test_our_own_part_may_be_empty(block):
    assert parse_sweep(minimal(dialogue_tune=block)).space == parse_sweep(minimal()).space


def test_an_overridden_field_has_no_order_and_no_condition():
    sweep = parse_sweep(EXTENDED).with_overrides({"clip": 25, "decoder_learning_ratio": 2})
    assert not sweep.space.conditional
    assert sweep.space.constants == {"clip": 25, "decoder_learning_ratio": 2}
    assert sweep.searcher == "gp"
    with pytest.raises(ConfigurationError, match="with learning_rate=0.01 clip=0: dialogue_tune"):
        parse_sweep(EXTENDED).with_overrides({"learning_rate": 0.01, "clip": 0})


PATH = "dialogue_tune.parameters"


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        (minimal(dialogue_tune=[]), "dialogue_tune: must be a mapping with any of parameters, con"),
        (minimal(dialog_tune={}), "dialog_tune: unknown key, did you mean 'dialogue_tune'?"),
        (extended(sercher="gp"), "dialogue_tune.sercher: unknown key, did you mean 'searcher'?"),
        (extended(searcher="cma"), "dialogue_tune.searcher: unknown searcher 'cma'"),
        (extended(searcher=["gp"]), "dialogue_tune.searcher: unknown searcher ['gp']"),
        (extended(searcher="gpp"), "dialogue_tune.searcher: unknown searcher 'gpp', did you mean"),
        (
            extended(scheduler={"type": "medan"}),
            "dialogue_tune.scheduler.type: unknown type 'medan",
        ),
        (
            {**EXTENDED, "early_terminate": {"type": "hyperband", "min_iter": 2}},
            "early_terminate: cannot stand beside dialogue_tune.scheduler; give one.",
        ),
        (extended(parameters=[1]), f"{PATH}: must be a mapping from field to ordinal or when, but"),
        (extended(parameters={"clip": True}), f"{PATH}.clip: must be a mapping with ordinal or w"),
        (
            extended(parameters={"clip": {"order": True}}),
            f"{PATH}.clip.order: unknown key; valid: ordinal, when.",
        ),
        (
            extended(parameters={"clip": {"ordinal": 1}}),
            f"{PATH}.clip.ordinal: must be true or false, but got 1.",
        ),
        (
            extended(parameters={"clop": {"ordinal": True}}),
            f"{PATH}.clop: is not among the fields of parameters, did you mean 'clip'?",
        ),
        (
            extended(parameters={"optimizer": {"ordinal": True}}),
            f"{PATH}.optimizer.ordinal: values[0] must be a number to be in order, but got 'adam'.",
        ),
        (
            extended(parameters={"learning_rate": {"ordinal": True}}),
            f"{PATH}.learning_rate.ordinal: needs values without probabilities, but the field is "
            "uniform.",
        ),
        (
            extended(parameters={"clip": {"when": True}}),
            f"{PATH}.clip.when: must be a condition in quotes such as \"optimizer == 'adam'\", but",
        ),
        (
            extended(parameters={"clip": {"when": "optimiser == 'adam'"}}),
            f"{PATH}.clip.when: unknown field 'optimiser', did you mean 'optimizer'?",
        ),
        (
            extended(parameters={"clip": {"when": "clip > 0"}}),
            f"{PATH}: the conditions go round in a circle: clip needs clip.",
        ),
        (
            {
                "method": "random",
                "parameters": {"clip": {"value": 3}},
                "dialogue_tune": {"parameters": {"clip": {"when": "dropout > 0"}}},
            },
            f"{PATH}.clip.when: is for fields that are searched, but this one has one value.",
        ),
        (
            extended(constraints="clip > 0"),
            "dialogue_tune.constraints: must be a list of conditions in quotes, but got 'clip > 0'",
        ),
        (
            extended(constraints=["clip > 0", "clip > 'a'"]),
            "dialogue_tune.constraints[1]: cannot compare a number with a text (clip, 'a').",
        ),
        (
            extended(constraints=["clip > 50"]),
            "dialogue_tune.constraints: none of 10,000 draws fulfils the constraints together; "
            "never true: clip > 50.",
        ),
        (
            minimal(dialogue_tune={"constraints": ["clip > 50", "clip > 0"]}),
            "dialogue_tune.constraints: none of all 2 configurations fulfils the constraints toget",
        ),
    ],
)
def test_faults_of_our_own_part(mapping, problem):
    assert any(found.startswith(problem) for found in problems_of(mapping)), problems_of(mapping)


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

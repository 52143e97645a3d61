"""The configuration: every problem at once, with value and bound; strict round trips."""

import dataclasses
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import (
    DATA_FIELDS,
    DEFAULTS,
    RULES,
    SECTIONS,
    Config,
    DataConfig,
    ModelConfig,
    TrainingConfig,
    parse_assignments,
)
from model.errors import ConfigurationError, DialogueTuneError
from model.validation import Problems, Rule, did_you_mean, rules_of, setting


def problems_of(**values):
    with pytest.raises(ConfigurationError) as caught:
        Config.from_mapping(values, "a.yaml")
    return list(caught.value.problems)


def test_defaults_are_those_of_the_published_chatbot():
    config = Config()
    assert config.data == DataConfig(max_length=10, min_count=3, rare_words="drop")
    assert config.model == ModelConfig(
        hidden_size=500, encoder_layers=2, decoder_layers=2, dropout=0.1, attention="dot"
    )
    assert config.training == TrainingConfig(
        batch_size=64,
        iterations=4000,
        learning_rate=1e-4,
        decoder_learning_ratio=5.0,
        clip=50.0,
        optimizer="adam",
        teacher_forcing_ratio=1.0,
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_every_default_keeps_its_own_rule(section):
    for name, rule in rules_of(SECTIONS[section]).items():
        assert rule.problem_with(DEFAULTS[name]) is None, name
        assert rule.help, name


def test_field_names_are_unique_over_the_sections():
    assert len(RULES) == sum(len(rules_of(section)) for section in SECTIONS.values())
    assert set(rules_of(DataConfig)) == DATA_FIELDS


def test_configurations_are_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.clip = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        TrainingConfig(32)  # type: ignore[misc]


class TestProblems:
    def test_every_problem_is_reported_at_once_with_its_source(self):
        with pytest.raises(ConfigurationError) as caught:
            Config.from_mapping(
                {
                    "learning_rte": 0.1,
                    "teacher_forcing_ratio": 1.5,
                    "optimizer": "adagrad",
                    "hidden_size": "big",
                    "clip": 10.0,
                },
                "a.yaml",
            )
        assert str(caught.value).splitlines() == [
            "a.yaml: learning_rte: unknown key, did you mean 'learning_rate'?",
            "a.yaml: teacher_forcing_ratio: must be between 0 and 1, but got 1.5.",
            "a.yaml: optimizer: must be one of adam, adamw, sgd, but got 'adagrad'.",
            "a.yaml: hidden_size: must be a whole number, but got 'big' (str).",
        ]

    def test_it_is_one_of_our_errors_and_survives_pickling(self):
        with pytest.raises(DialogueTuneError) as caught:
            Config.from_mapping({"clipp": 1, "seed": -1}, "a.yaml")
        copy = pickle.loads(pickle.dumps(caught.value))
        assert str(copy) == str(caught.value)
        assert copy.problems == caught.value.problems

    @pytest.mark.parametrize(
        ("field", "value", "text"),
        [
            ("teacher_forcing_ratio", -0.1, "must be between 0 and 1, but got -0.1."),
            ("learning_rate", 0, "must be greater than 0, but got 0."),
            ("learning_rate", -1e-3, "must be greater than 0, but got -0.001."),
            ("validation_share", 0.6, "must be greater than 0 and at most 0.5, but got 0.6."),
            ("clip", -1, "must be at least 0, but got -1."),
            ("clip", math.nan, "must be at least 0, but got nan."),
            ("clip", math.inf, "must be at least 0, but got inf."),
            ("dropout", 1.0, "must be between 0 and 0.95, but got 1.0."),
            ("max_length", 1, "must be between 2 and 1000, but got 1."),
            ("batch_size", 0, "must be at least 1, but got 0."),
            ("batch_size", 8.0, "must be a whole number, but got 8.0 (float)."),
            ("batch_size", True, "must be a whole number, but got True (bool)."),
            ("learning_rate", True, "must be a number, but got True (bool)."),
            ("learning_rate", "1e-4", "must be a number, but got '1e-4' (str)."),
            ("learning_rate", [1e-4], "must be a number, but got [0.0001] (list)."),
            ("optimizer", 3, "must be text, but got 3 (int)."),
            ("attention", "dott", "must be one of dot, general, concat, but got 'dott'."),
            ("hidden_size", None, "must be a whole number, but got None (NoneType)."),
        ],
    )
    def test_a_bad_value_is_shown_with_its_bound(self, field, value, text):
        assert problems_of(**{field: value}) == [f"{field}: {text}"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("teacher_forcing_ratio", 0),
            ("teacher_forcing_ratio", 1),
            ("clip", 0),
            ("validation_share", 0.5),
            ("max_length", 2),
            ("embedding_size", None),
            ("threads", None),
        ],
    )
    def test_bounds_are_inclusive_where_they_say_so(self, field, value):
        assert Config.from_mapping({field: value}).to_mapping()[field] == value

    def test_an_unknown_key_far_from_all_lists_the_valid_ones(self):
        (problem,) = problems_of(zzz=1)
        assert problem.startswith("zzz: unknown key; valid: attention, batch_size, ")
        assert all(name in problem for name in RULES)

    def test_a_key_that_is_no_text_is_a_problem_too(self):
        with pytest.raises(ConfigurationError, match="1: unknown key"):
            Config.from_mapping({1: 2})  # type: ignore[dict-item]


def test_did_you_mean():
    assert did_you_mean("adm", ["adam", "sgd"]) == ", did you mean 'adam'?"
    assert did_you_mean("xyz", ["b", "a"]) == "; valid: a, b."
    assert did_you_mean("xyz", []) == "."


def test_problems_hold_paths_and_are_silent_when_there_are_none():
    problems = Problems("f")
    problems.raise_if_any()
    problems.add("", "is empty.")
    problems.add("a.b", "is wrong.")
    problems.unknown_key("a", "clp", ["clip"])
    with pytest.raises(ConfigurationError) as caught:
        problems.raise_if_any()
    assert str(caught.value).splitlines() == [
        "f: is empty.",
        "f: a.b: is wrong.",
        "f: a.clp: unknown key, did you mean 'clip'?",
    ]


def values_of(rule: Rule) -> st.SearchStrategy:
    if rule.choices:
        values: st.SearchStrategy = st.sampled_from(rule.choices)
    elif rule.kind is int:
        values = st.integers(int(rule.low or 0), int(rule.high or 2**40))
    elif rule.kind is float:
        low = rule.low if rule.above is None else rule.above
        values = st.floats(low, rule.high, exclude_min=rule.above is not None, width=64).filter(
            math.isfinite
        )
    else:
        values = st.text(max_size=20)
    return st.none() | values if rule.optional else values


class TestRoundTrip:
    def test_by_hand(self):
        config = Config.from_mapping(
            {"clip": 7, "embedding_size": 12, "attention": "concat", "corpus": "x.tsv"}
        )
        assert config.training.clip == 7.0
        assert type(config.training.clip) is float  # a whole number becomes the declared type
        assert Config.from_mapping(config.to_mapping()) == config
        assert list(config.to_mapping()) == list(RULES)

    @given(st.fixed_dictionaries({}, optional={n: values_of(r) for n, r in RULES.items()}))
    def test_any_valid_mapping_is_read_back(self, values):
        config = Config.from_mapping(values)
        mapping = config.to_mapping()
        assert Config.from_mapping(mapping) == config
        assert {name: mapping[name] for name in values} == values

    @given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=3)))
    def test_anything_else_is_refused_as_our_own_error(self, values):
        try:
            Config.from_mapping(values)
        except ConfigurationError as error:
            assert error.problems
        else:
            assert set(values) <= set(RULES)


class TestAssignments:
    """What ``--set field=value`` takes."""

    def test_values_take_the_type_of_their_field(self):
        assert parse_assignments(
            ["clip=10", "hidden_size=128", "optimizer=sgd", "corpus=a=b.tsv", "threads=None"]
        ) == {
            "clip": 10.0,
            "hidden_size": 128,
            "optimizer": "sgd",
            "corpus": "a=b.tsv",
            "threads": None,
        }

    def test_the_last_of_several_wins(self):
        assert parse_assignments(["clip=10", "clip=20"]) == {"clip": 20.0}

    def test_every_problem_is_reported_at_once(self):
        with pytest.raises(ConfigurationError) as caught:
            parse_assignments(
                ["clip", "clpi=3", "hidden_size=1e3", "learning_rate=fast", "dropout=2", "seed=-1"]
            )
        assert str(caught.value).splitlines() == [
            "--set: clip: must have the form field=value.",
            "--set: clpi: unknown key, did you mean 'clip'?",
            "--set: hidden_size: must be a whole number, but got '1e3'.",
            "--set: learning_rate: must be a number, but got 'fast'.",
            "--set: dropout: must be between 0 and 0.95, but got 2.0.",
            "--set: seed: must be at least 0, but got -1.",
        ]

    @pytest.mark.parametrize("text", ["learning_rate=nan", "learning_rate=inf", "clip=-inf"])
    def test_a_number_that_is_none_is_refused(self, text):
        with pytest.raises(ConfigurationError, match="must be (greater than|at least) 0, but got"):
            parse_assignments([text])


class TestRule:
    def test_true_and_false(self):
        rule = Rule(kind=bool)
        assert [rule.parse(text) for text in ("true", "No", "1", "FALSE")] == [
            *(True, False),
            *(True, False),
        ]
        with pytest.raises(ValueError, match="must be true or false, but got 'maybe'."):
            rule.parse("maybe")
        assert rule.problem_with(1) == "must be true or false, but got 1 (int)."
        assert rule.problem_with(True) is None

    def test_a_number_without_bounds_must_still_be_finite(self):
        assert Rule(kind=float).problem_with(math.nan) == "must be a finite number, but got nan."

    def test_none_only_where_it_is_valid(self):
        assert Rule(kind=int, optional=True).parse("null") is None
        with pytest.raises(ValueError, match="must be a whole number, but got 'null'."):
            Rule(kind=int).parse("null")

    def test_a_field_without_a_default_is_our_own_mistake(self):
        @dataclasses.dataclass
        class Broken:
            x: int = dataclasses.field(metadata={"rule": Rule(kind=int)})

        from model.validation import defaults_of

        with pytest.raises(AssertionError, match="x needs a default"):
            defaults_of(Broken)
        assert setting(3, int).default == 3

"""The configuration of data, model and training: frozen dataclasses built strictly.

The names are those of the field's published sweeps, and they are unique over the three sections,
so that a configuration is also a flat mapping: what a sweep searches, what a trial stores, and
what ``--set field=value`` changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from model.validation import Problems, Rule, defaults_of, rules_of, setting


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which corpus, and how it becomes examples. Can be set but not searched.

    The defaults are those of the published Cornell chatbot.
    """

    corpus: str = setting(
        "everyday",
        str,
        help="'everyday' (embedded), 'cornell', a corpus file or directory, or a prepared data set",
    )
    max_length: int = setting(
        10, int, low=2, high=1000, help="keep utterances of fewer than this many words"
    )
    min_count: int = setting(
        3, int, low=1, help="a word seen fewer times than this in training is rare"
    )
    rare_words: str = setting(
        "drop",
        str,
        choices=("drop", "unk"),
        help="drop examples with a rare word, or replace the word by <unk>",
    )
    validation_share: float = setting(
        0.05, float, above=0, high=0.5, help="share of dialogues held out for validation"
    )
    test_share: float = setting(
        0.05, float, above=0, high=0.5, help="share of dialogues held out for the final test"
    )
    split_seed: int = setting(0, int, low=0, help="seed of the split into training and held out")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sequence-to-sequence model: GRU encoder and decoder with Luong attention."""

    hidden_size: int = setting(500, int, low=1, help="H, units of every GRU layer and direction")
    embedding_size: int | None = setting(
        None, int, low=1, optional=True, help="E, size of the shared embedding; none means H"
    )
    encoder_layers: int = setting(2, int, low=1, help="bidirectional GRU layers of the encoder")
    decoder_layers: int = setting(2, int, low=1, help="GRU layers of the decoder")
    dropout: float = setting(0.1, float, low=0, high=0.95, help="dropout probability")
    attention: str = setting(
        "dot", str, choices=("dot", "general", "concat"), help="Luong attention score"
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. One iteration is one batch."""

    batch_size: int = setting(64, int, low=1, help="B, examples in a batch")
    iterations: int = setting(4000, int, low=1, help="batches to train on")
    learning_rate: float = setting(1e-4, float, above=0, help="encoder's learning rate")
    decoder_learning_ratio: float = setting(
        5.0, float, above=0, help="decoder's learning rate over the encoder's"
    )
    clip: float = setting(
        50.0,
        float,
        low=0,
        help="largest gradient norm, of encoder and decoder each; 0 means no clipping",
    )
    optimizer: str = setting("adam", str, choices=("adam", "adamw", "sgd"), help="update rule")
    teacher_forcing_ratio: float = setting(
        1.0,
        float,
        low=0,
        high=1,
        help="probability that a batch is decoded from the true previous words",
    )
    embedding_update: str = setting(
        "once",
        str,
        choices=("once", "twice"),
        help="step the shared embedding with the decoder, or (as published) with both optimizers",
    )
    report_every: int = setting(100, int, low=1, help="iterations between two reports")
    val_examples: int = setting(
        1024, int, low=1, help="validation examples (a fixed subset) evaluated at each report"
    )
    checkpoint_when: str = setting(
        "report",
        str,
        choices=("report", "improved", "end"),
        help="in a search, write a checkpoint to go on from every checkpoint_every reports, where "
        "the objective improved, or never: just the best weights, at the end",
    )
    checkpoint_every: int = setting(
        1, int, low=1, help="in a search, reports between two checkpoints (checkpoint_when: report)"
    )
    seed: int = setting(
        0, int, low=0, help="seed of initial weights, data order, teacher forcing and dropout"
    )
    device: str = setting("auto", str, choices=("auto", "cpu", "cuda"), help="where to train")
    precision: str = setting(
        "auto",
        str,
        choices=("auto", "fp32", "tf32", "bf16"),
        help="of products and states in training; auto: bf16 where the processor has it, else fp32",
    )
    threads: int | None = setting(
        None, int, low=1, optional=True, help="CPU threads of the trainer; none means the share"
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a training run.

    Attributes:
        data: Fixed for a whole experiment, for losses to be comparable.
        model: The architecture.
        training: The training run.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "configuration") -> Config:
        """Builds a configuration from a flat mapping of field names; the rest are defaults.

        Raises:
            ConfigurationError: naming every unknown key and every invalid value at once.
        """
        problems = Problems(source)
        check_fields(values, problems)
        problems.raise_if_any()
        return cls(
            **{
                section: section_class(
                    **{
                        name: rule.convert(values[name])
                        for name, rule in rules_of(section_class).items()
                        if name in values
                    }
                )
                for section, section_class in SECTIONS.items()
            }
        )

    def to_mapping(self) -> dict[str, Any]:
        """The flat mapping of every field, which `from_mapping` reads back."""
        return {name: value for section in asdict(self).values() for name, value in section.items()}


SECTIONS: dict[str, type] = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}

#: Rule of every field, by its name; names are unique over the sections.
RULES: dict[str, Rule] = {
    name: rule for section in SECTIONS.values() for name, rule in rules_of(section).items()
}

#: Default of every field, by its name.
DEFAULTS: dict[str, Any] = {
    name: value for section in SECTIONS.values() for name, value in defaults_of(section).items()
}

#: Fields that change examples or vocabulary: losses under two values are not comparable.
DATA_FIELDS: frozenset[str] = frozenset(rules_of(DataConfig))


def check_fields(values: Mapping[str, Any], problems: Problems, path: str = "") -> None:
    """Notes every unknown key and every invalid value of a flat mapping of fields."""
    for name, value in values.items():
        if name not in RULES:
            problems.unknown_key(path, name, RULES)
            continue
        problem = RULES[name].problem_with(value)
        if problem:
            problems.add(f"{path}.{name}" if path else name, problem)


def parse_assignments(assignments: list[str], source: str = "--set") -> dict[str, Any]:
    """Reads ``field=value`` texts, as given to ``--set``, into a flat mapping.

    Raises:
        ConfigurationError: naming every assignment that is malformed, unknown or invalid.
    """
    problems = Problems(source)
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            problems.add(assignment, "must have the form field=value.")
        elif name not in RULES:
            problems.unknown_key("", name, RULES)
        else:
            try:
                values[name] = RULES[name].parse(text)
            except ValueError as error:
                problems.add(name, str(error))
    check_fields(values, problems)
    problems.raise_if_any()
    return values

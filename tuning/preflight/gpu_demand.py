"""Which configuration of a search takes the most memory of a GPU, reckoned from its sizes.

What is reckoned here only chooses among configurations; what the chosen one really takes is
measured (`tuning.preflight.gpu_probe`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from model.config import Config
from tuning.preflight.needs import weight_bytes

if TYPE_CHECKING:
    from model.prepared_data import PreparedData
    from tuning.distributions import Distribution, Scalar
    from tuning.spaces.search_space import SearchSpace

#: Fields that a step's memory depends on, the largest effects first.
_FIELDS = (
    "batch_size",
    "hidden_size",
    "embedding_size",
    "encoder_layers",
    "decoder_layers",
    "attention",
    "teacher_forcing_ratio",
    "optimizer",
    "embedding_update",
    "precision",
    "dropout",
)
#: What is said of a configuration: what one would lower.
_SAID = ("batch_size", "hidden_size", "embedding_size", "encoder_layers", "decoder_layers")
#: Spaces up to this size are tried point by point; of others so many corners and draws.
_LISTED, _CORNERS, _DRAWS = 2_000, 10_000, 200
#: A shape without an end is looked at up to here; what lies beyond is drawn once in a thousand.
_FAR = 0.001
#: Examples in a batch of the evaluation (`model.evaluation`).
_EVALUATED = 128

# Shapes: B batch, S source length, T target length, H hidden, E embedding, V vocabulary.


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Of the data, as every batch on a GPU has them.

    Attributes:
        source: S, tokens of the longest source of training.
        target: T, of the longest target.
        examples: How many there are.
        words: V, special tokens included.
    """

    source: int
    target: int
    examples: int
    words: int

    @classmethod
    def of(cls, data: PreparedData) -> Lengths:
        """Those of a data set's training split."""
        lengths = data.utterance_offsets[1:] - data.utterance_offsets[:-1]
        replies = data.examples["train"][:, 1]
        return cls(
            source=int(lengths[replies - 1].max()),
            target=int(lengths[replies].max()),
            examples=len(replies),
            words=len(data.vocabulary),
        )


@dataclass(frozen=True)
class Demand:
    """What a search asks of a GPU at the most.

    Attributes:
        configuration: The most demanding one, as a trial gets it.
        data: What it is trained on.
    """

    configuration: dict[str, Any]
    data: PreparedData = field(repr=False)

    @classmethod
    def of(cls, space: SearchSpace, data: PreparedData) -> Demand:
        """The configuration of a space that reckons as the most demanding.

        Of a space with constraints that is too large to list, it is the most demanding of the
        allowed corners and of some draws: others may take a little more.
        """
        lengths = Lengths.of(data)
        points = list(_points(space))
        return cls(max(points, key=lambda p: step_bytes(Config.from_mapping(p), lengths)), data)

    def __str__(self) -> str:
        """For people: ``batch_size 256, hidden_size 1000, ..., 41 tokens, 7,826 words``."""
        config, lengths = Config.from_mapping(self.configuration), Lengths.of(self.data)
        values = config.to_mapping()
        said = [f"{name} {values[name]}" for name in _SAID if values[name] is not None]
        longest = max(lengths.source, lengths.target)
        return f"{', '.join(said)}; utterances of up to {longest} tokens, {lengths.words:,} words"


def _points(space: SearchSpace) -> Iterator[dict[str, Scalar]]:
    """Points of a space among which the most demanding one is; at least one."""
    size = space.size()
    if size is not None and size <= _LISTED:
        yield from space.grid_points()
        return
    corners = [c for c in islice(_corners(space), _CORNERS) if space.allows(c)]
    yield from corners
    if space.constraints or not corners:  # the most demanding one may lie between
        draw = random.Random(0)
        yield from (space.sample(draw) for _ in range(_DRAWS))


def _corners(space: SearchSpace) -> Iterator[dict[str, Scalar]]:
    """Every combination of extreme values; fields that do not matter are at their middle."""
    searched = space.searched
    matter = [name for name in _FIELDS if name in searched]
    middle = {name: d.quantile(0.5) for name, d in searched.items()}
    extremes = [_extremes(name, searched[name]) for name in matter]
    for values in product(*extremes):
        yield space.complete({**middle, **dict(zip(matter, values, strict=True))})


def _extremes(name: str, distribution: Distribution) -> Sequence[Scalar]:
    """The values of a field that may take the most memory, the largest first."""
    if not distribution.ordered:
        return distribution.grid()
    shape = getattr(distribution, "base", distribution)  # a quantised one's, before rounding
    far = 0.0 if getattr(shape, "bounded", True) else _FAR
    quantiles = [1 - far, far]
    if name == "teacher_forcing_ratio":  # between the ends both kinds of steps are recorded
        quantiles.append(0.5)
    return [distribution.quantile(u) for u in quantiles]


def step_bytes(config: Config, data: Lengths) -> int:
    """Bytes that training takes at its peak, roughly: weights, optimizer, activations, scores.

    Counted is what grows with a configuration; workspaces of libraries are not.
    """
    weights = weight_bytes(config.model, data.words)
    moments = {"adam": 2, "adamw": 2, "sgd": 0}[config.training.optimizer]
    embedding = 4 * data.words * (config.model.embedding_size or config.model.hidden_size)
    twice = moments * embedding if config.training.embedding_update == "twice" else 0
    fixed = weights * (2 + moments) + twice  # weights and their gradients
    number = 4 if config.training.precision in ("fp32", "tf32") else 2
    batch = min(config.training.batch_size, data.examples)
    recorded = 1 + (0 < config.training.teacher_forcing_ratio < 1)  # graphs, with memory of each
    scores = batch * data.target * data.words * (2 * 4 + 2 * number)  # softmax is in fp32
    training = recorded * (_activations(config, data, batch, number) + scores)
    evaluation = 3 * 4 * _EVALUATED * data.target * data.words
    return fixed + training + evaluation  # a recorded step's memory is its own


def _activations(config: Config, data: Lengths, batch: int, number: int) -> int:
    """Bytes of what the backward pass needs of encoder, decoder and attention."""
    model = config.model
    hidden, dropped = model.hidden_size, 1 + (model.dropout > 0)
    sources, targets = batch * data.source, batch * data.target
    encoder = model.encoder_layers * sources * 2 * hidden * (6 + dropped)
    decoder = model.decoder_layers * targets * hidden * (6 + dropped) + 4 * targets * hidden
    pairs = batch * data.target * data.source
    attention = 3 * pairs + 2 * hidden * (sources + targets)
    if model.attention == "concat":  # (B, T, S, H), before and after the tanh
        attention += 2 * pairs * hidden
    return number * (encoder + decoder) + 4 * attention

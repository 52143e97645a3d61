"""The same work for the baseline as for ours: data, batches, draws, weights and validation.

The baseline keeps its own way of doing the work (see ``benchmarks/baseline.py``); what it is given
to do is what ours is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline import Baseline, Batch, build_batch
from model.batching import Batches
from model.data_source import open_or_prepare
from model.errors import BenchmarkError
from model.prepared_data import SPLITS, PreparedData
from model.randomness import generator, uniform
from model.vocabulary import EOS, SPECIALS, Vocabulary

#: The published vocabulary, near enough; of synthetic data where no size is given.
SYNTHETIC_WORDS = 7_800
#: A gradient norm that no gradient has: how the baseline is told not to clip.
NO_CLIP = 1e9

Pair = tuple[list[int], list[int]]


# Data


def open_data(name: str) -> PreparedData:
    """Opens the data set of a ``--data`` option.

    Args:
        name: A prepared data set or a corpus, or ``synthetic`` or ``synthetic:WORDS``.

    Raises:
        BenchmarkError: where the name cannot be read.
        DialogueTuneError: as `model.data_source.open_or_prepare`.
    """
    match = re.fullmatch(r"synthetic(?::([0-9]+))?", name)
    if match:
        return synthetic_data(int(match[1] or SYNTHETIC_WORDS))
    if name.startswith("synthetic"):
        raise BenchmarkError(f"--data {name}: write synthetic or synthetic:WORDS.")
    return open_or_prepare({"corpus": name})


def synthetic_data(words: int, examples: int = 8_192, seed: int = 0) -> PreparedData:
    """Random word ids, in utterances of 1 to 9 words and ``EOS`` as in the published corpus.

    Made for timing alone: there is nothing to learn but how often each word occurs (Zipf's law).

    Args:
        words: Size of the vocabulary, specials included.
        examples: Of the training split; the others have an eighth each.
        seed: Of all draws.
    """
    if words <= len(SPECIALS):
        raise BenchmarkError(f"synthetic:{words}: needs more than the {len(SPECIALS)} specials.")
    random = torch.Generator().manual_seed(seed)
    sizes = {"train": examples, "validation": examples // 8, "test": examples // 8}
    lengths = torch.randint(1, 10, (2 * sum(sizes.values()),), generator=random)
    ends = (lengths + 1).cumsum(0)
    frequencies = 1.0 / torch.arange(1, words - len(SPECIALS) + 1)
    tokens = torch.multinomial(frequencies, int(ends[-1]), replacement=True, generator=random)
    tokens += len(SPECIALS)
    tokens[ends - 1] = EOS
    replies = 1 + 2 * torch.arange(sum(sizes.values()))
    parts = torch.split(replies, list(sizes.values()))
    split_replies = dict(zip(SPLITS, parts, strict=True))
    return PreparedData.create(
        vocabulary=Vocabulary((*SPECIALS, *(f"w{i}" for i in range(words - len(SPECIALS))))),
        tokens=tokens.int(),
        utterance_offsets=torch.cat([torch.zeros(1, dtype=torch.long), ends]),
        examples={s: torch.stack([r - 1, r], dim=1) for s, r in split_replies.items()},
        settings={"corpus": "synthetic", "max_length": 10},
        counts={},
    )


# Batches and draws


class PairStream:
    """The training pairs as lists, in the batches that `model.training.Trainer` trains on.

    Args:
        data: The prepared data set.
        batch_size: B.
        seed: As ``seed`` of a configuration.
    """

    def __init__(self, data: PreparedData, batch_size: int, seed: int = 0) -> None:
        self.pairs = pairs_of(data, "train", torch.arange(len(data.examples["train"])))
        self.batch_size, self.seed = batch_size, seed
        self._epoch, self._order = -1, list[int]()

    def at(self, iteration: int) -> list[Pair]:
        """The pairs of an iteration, counted from 0."""
        per_epoch = -(-len(self.pairs) // self.batch_size)
        epoch, position = divmod(iteration, per_epoch)
        if epoch != self._epoch:
            stream = generator(self.seed, "order", epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.pairs), generator=stream).tolist()
        start = position * self.batch_size
        return [self.pairs[i] for i in self._order[start : start + self.batch_size]]


def pairs_of(data: PreparedData, split: str, indices: Tensor) -> list[Pair]:
    """The examples of a split with these indices (N,), as lists of word ids with ``EOS``."""
    tokens, offsets = data.tokens.tolist(), data.utterance_offsets.tolist()
    return [
        (tokens[offsets[r - 1] : offsets[r]], tokens[offsets[r] : offsets[r + 1]])
        for r in data.examples[split][indices, 1].tolist()
    ]


class TeacherForcingDraws:
    """Draws as `model.training.Trainer` does, for `Baseline.random`: both force the same batches.

    Args:
        seed: As ``seed`` of a configuration.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.iteration = seed, 0

    def random(self) -> float:
        """The draw of the next iteration, in [0, 1)."""
        draw = uniform(self.seed, "teacher_forcing", self.iteration)
        self.iteration += 1
        return draw


# The baseline


def make_baseline(
    config: Mapping[str, Any], vocabulary_size: int, *, device: str = "cpu"
) -> Baseline:
    """The baseline with the sizes and hyper-parameters of one of our configurations.

    ``clip: 0`` means no clipping here and a gradient of zero there, so the baseline gets `NO_CLIP`.

    Args:
        config: Fields as of `model.config.Config`; a field that is not named has the default of
            the baseline, which is also ours.
        vocabulary_size: V.
        device: Where it lives.
    """
    names = (
        *("hidden_size", "dropout", "learning_rate", "decoder_learning_ratio", "clip"),
        *("teacher_forcing_ratio", "optimizer"),
    )
    fields = {name: config[name] for name in names if name in config}
    if fields.get("clip") == 0:
        fields["clip"] = NO_CLIP
    model = Baseline(vocabulary_size, device=device, **fields)
    model.random = TeacherForcingDraws(config.get("seed", 0))  # type: ignore[assignment]
    return model


def copy_weights(weights: Mapping[str, Tensor], model: Baseline) -> None:
    """Gives the baseline the weights of one of our models.

    Args:
        weights: State of a `model.seq2seq.Seq2Seq` with dot attention and E = H.
        model: Of the same sizes; changed in place.
    """
    encoder, decoder = {}, {}
    for name, value in weights.items():
        side, _, rest = name.partition(".")
        layer = re.fullmatch(r"layers\.(\d+)\.(\w+)_l0(_reverse)?", rest)
        if layer:
            number, parameter, reverse = layer.groups(default="")
            rest = f"gru.{parameter}_l{number}{reverse}"
        if side == "embedding":
            encoder[name] = decoder[name] = value
        elif side == "encoder":
            encoder[rest] = value
        elif side == "output":
            decoder[f"out.{rest}"] = value
        else:
            decoder[rest.replace("combine.", "concat.")] = value
    model.encoder.load_state_dict(encoder)
    model.decoder.load_state_dict(decoder)


def validation_batches(data: PreparedData, examples: int, batch_size: int = 64) -> list[Batch]:
    """The examples that ours validates on, in batches as the baseline builds them."""
    pairs = pairs_of(data, "validation", Batches(data, "validation").subset(examples))
    return [build_batch(pairs[i : i + batch_size]) for i in range(0, len(pairs), batch_size)]


@torch.no_grad()
def validation_loss(model: Baseline, batches: Sequence[Batch]) -> float:
    """The baseline's teacher-forced loss without dropout, in nats a token: its `loss`, as it is."""
    ratio, draws = model.teacher_forcing_ratio, model.random
    model.teacher_forcing_ratio, model.random = 1.0, TeacherForcingDraws()  # type: ignore[assignment]
    model.encoder.eval()
    model.decoder.eval()
    try:
        sums = [model.loss(batch)[1:] for batch in batches]
    finally:
        model.teacher_forcing_ratio, model.random = ratio, draws
    return sum(nll for nll, _ in sums) / sum(tokens for _, tokens in sums)

"""Held-out loss: always teacher-forced, never with dropout, and a mean over tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.batching import Batches
from model.loss import teacher_forced
from model.prepared_data import PreparedData
from model.seq2seq import Seq2Seq
from model.vocabulary import UNK

_BATCH = 128


@dataclass(frozen=True)
class Evaluation:
    """Sums over the tokens of the examples evaluated.

    Attributes:
        nll_sum: Negative log-likelihood in nats, summed over tokens.
        tokens: Real target tokens, EOS included.
        correct: Tokens that had the highest score given the true previous words.
        examples: Number of examples.
    """

    nll_sum: float
    tokens: int
    correct: int
    examples: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nll_sum / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss), or infinity where that overflows."""
        return perplexity(self.loss)

    @property
    def token_accuracy(self) -> float:
        """Share of tokens predicted, in [0, 1]."""
        return self.correct / self.tokens


def perplexity(loss: float) -> float:
    """exp(loss) for a loss in nats a token; infinity where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@torch.inference_mode()
def evaluate(model: Seq2Seq, batches: Batches, indices: Tensor | None = None) -> Evaluation:
    """Evaluates a model on the given examples (N,), or on a whole split."""
    if indices is None:
        indices = batches.subset(len(batches))
    tokens = 0
    nll = torch.zeros((), dtype=torch.float64, device=batches.device)
    correct = torch.zeros((), dtype=torch.int64, device=batches.device)
    for chunk in torch.split(indices, _BATCH):
        losses = teacher_forced(model, batches.take(chunk))
        assert losses.correct is not None
        nll += losses.nll_sum
        correct += losses.correct
        tokens += losses.tokens
    return Evaluation(float(nll), tokens, int(correct), len(indices))


def unigram_loss(data: PreparedData, split: str = "validation") -> float:
    """Nats a token of a unigram model of the replies: what knowing nothing of context costs.

    Estimated on the training replies with one count added to every word of the vocabulary.
    """
    counts = torch.ones(len(data.vocabulary), dtype=torch.float64)
    counts += _reply_counts(data, "train")
    held_out = _reply_counts(data, split)
    log_probability = (counts / counts.sum()).log()
    return float(-(held_out * log_probability).sum() / held_out.sum())


def unknown_words(data: PreparedData, split: str) -> int:
    """How many words of the replies of a split are outside of the vocabulary."""
    return int(_reply_counts(data, split)[UNK])


def _reply_counts(data: PreparedData, split: str) -> Tensor:
    """How often each word occurs in the replies of a split, EOS included: (V,) float64."""
    replies = data.examples[split][:, 1]
    starts, ends = data.utterance_offsets[replies], data.utterance_offsets[replies + 1]
    lengths = ends - starts
    within = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(
        lengths
    )
    tokens = data.tokens[starts.repeat_interleave(lengths) + within]
    return torch.bincount(tokens.long(), minlength=len(data.vocabulary)).double()

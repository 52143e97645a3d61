"""What is minimised, and what is reported.

**Minimised** is the published loss: the sum, over the target steps of a batch, of the mean
negative log-likelihood of the real tokens at that step. A step near the end of the longest target,
where few rows are left, weighs as much as the first.

**Reported** are sums over tokens and token counts, so that any means are token means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batching import Batch
from model.seq2seq import DropoutMasks, Seq2Seq
from model.vocabulary import PAD, SOS


@dataclass(frozen=True)
class Losses:
    """Losses of one batch.

    Attributes:
        published: Scalar to differentiate, in nats: the sum over steps of the mean at each step.
        nll_sum: Scalar, negative log-likelihood in nats summed over all real tokens; detached.
        tokens: Number of real target tokens, EOS included.
        correct: Scalar, how many of them had the highest score; detached.
    """

    published: Tensor
    nll_sum: Tensor
    tokens: int
    correct: Tensor


def previous_words(target: Tensor) -> Tensor:
    """The decoder's inputs under teacher forcing: SOS, then the target without its last word."""
    start = torch.full_like(target[:, :1], SOS)
    return torch.cat([start, target[:, :-1]], dim=1)  # (B, T)


def losses_from_hidden(model: Seq2Seq, hidden: Tensor, batch: Batch) -> Losses:
    """Projects the attentional states (B, T, H) where there are tokens, and scores them."""
    real = batch.target != PAD  # (B, T)
    step_weights = (1.0 / real.sum(dim=0)).expand(real.shape)[real]  # (N,)
    logits = model.project(hidden[real])  # (N, V)
    targets = batch.target[real]  # (N,)
    nll = F.cross_entropy(logits, targets, reduction="none")  # (N,)
    return Losses(
        published=(nll * step_weights).sum(),
        nll_sum=nll.detach().sum(),
        tokens=batch.target_tokens,
        correct=(logits.detach().argmax(dim=-1) == targets).sum(),
    )


def teacher_forced(model: Seq2Seq, batch: Batch, dropout: DropoutMasks | None = None) -> Losses:
    """Decodes the whole target in one pass from the true previous words."""
    encoded = model.encode(batch.source, batch.source_lengths, dropout)
    hidden, _ = model.decode(previous_words(batch.target), encoded.state, encoded, dropout)
    return losses_from_hidden(model, hidden, batch)


def free_running(model: Seq2Seq, batch: Batch, dropout: DropoutMasks | None = None) -> Losses:
    """Decodes word by word from the model's own best previous words.

    The choice of a word passes no gradient; the state from step to step does.
    """
    encoded = model.encode(batch.source, batch.source_lengths, dropout)
    word = torch.full_like(batch.target[:, :1], SOS)  # (B, 1)
    state, hidden = encoded.state, []
    for t in range(batch.target.shape[1]):
        step, state = model.decode(word, state, encoded, dropout.at_step(t) if dropout else None)
        hidden.append(step)
        with torch.no_grad():
            word = model.project(step).argmax(dim=-1)
    return losses_from_hidden(model, torch.cat(hidden, dim=1), batch)

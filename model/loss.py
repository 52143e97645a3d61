"""What is minimised, and what is reported.

**Minimised** is the published loss: the sum, over the target steps of a batch, of the mean
negative log-likelihood of the real tokens at that step. A step near the end of the longest target,
where few rows are left, weighs as much as the first.

**Reported** are sums over tokens and token counts, so that any means are token means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.batching import Batch
from model.decoding import draw_words
from model.linear import linear
from model.packing import Packing
from model.seq2seq import DropoutMasks, Seq2Seq
from model.vocabulary import SOS

# Shapes: B batch, T target length, N positions of the packed targets, H hidden, V vocabulary.


@dataclass(frozen=True)
class Losses:
    """Losses of one batch.

    Attributes:
        published: Scalar to differentiate, in nats: the sum over steps of the mean at each step.
        nll_sum: Scalar, negative log-likelihood in nats summed over all real tokens; detached.
        tokens: Number of real target tokens, EOS included.
        correct: Scalar, how many of them had the highest score; detached. None in training.
    """

    published: Tensor
    nll_sum: Tensor
    tokens: int
    correct: Tensor | None = None


def previous_words(targets: Tensor, packing: Packing) -> Tensor:
    """The decoder's inputs under teacher forcing: SOS, then the target without its last word.

    Args:
        targets: (N,), packed.
        packing: Where they lie.
    """
    start = torch.full_like(packing.order, SOS)
    return torch.cat([start, targets.index_select(0, packing.previous)])  # (N,)


def teacher_forced(
    model: Seq2Seq,
    batch: Batch,
    dropout: DropoutMasks | None = None,
    dtype: torch.dtype = torch.float32,
) -> Losses:
    """Decodes the whole target in one pass from the true previous words."""
    source, target = batch.source_packing, batch.target_packing
    previous = previous_words(target.pack(batch.target), target)
    # One look-up for both sides, for the table's gradient is as large as the table.
    words = torch.cat([source.pack(batch.source), previous])
    sizes = [len(source.flat), len(previous)]
    reads, writes = model.embedding(words).to(dtype).split(sizes)
    encoded = model.encode_packed(reads, source, dropout)
    return _losses(model, model.decode_packed(writes, target, encoded, dropout), batch)


def free_running(
    model: Seq2Seq,
    batch: Batch,
    dropout: DropoutMasks | None = None,
    dtype: torch.dtype = torch.float32,
) -> Losses:
    """Decodes from the model's own best previous words.

    The choice of a word passes no gradient; the state from step to step does. So the words are
    drawn first, without gradients, and the gradient is that of one pass over them.
    """
    source, target = batch.source_packing, batch.target_packing
    reads = model.embedding(source.pack(batch.source)).to(dtype)
    encoded = model.encode_packed(reads, source, dropout)
    previous = draw_words(model, encoded, target, dropout)
    writes = model.embedding(previous).to(dtype)
    return _losses(model, model.decode_packed(writes, target, encoded, dropout), batch)


def _losses(model: Seq2Seq, hidden: Tensor, batch: Batch) -> Losses:
    """Projects the attentional states (N, H) and scores them."""
    packing = batch.target_packing
    targets = packing.pack(batch.target)
    weight, bias = model.output.weight, model.output.bias
    if torch.is_grad_enabled():
        nll: Tensor = _TokenLoss.apply(hidden, weight, bias, targets)  # type: ignore[no-untyped-call]
        correct = None
    else:
        probabilities, nll = _softmax_and_loss(linear(hidden, weight, bias), targets)
        likely = probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)
        # An argmax takes as long as a softmax; words that share the highest score all count.
        correct = ((likely == probabilities.amax(dim=-1)) & packing.real).sum()
    return Losses(
        published=(nll * packing.step_weights).sum(),
        nll_sum=(nll.detach() * packing.real).sum(),
        tokens=batch.target_tokens,
        correct=correct,
    )


def _softmax_and_loss(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (N, V) in fp32 and negative log-likelihoods (N,) of the targets.

    The largest probability is exp(highest score - log-sum-exp), which spares another pass.
    """
    probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32)
    highest = scores.amax(dim=-1).float()
    log_sum = highest - probabilities.amax(dim=-1).log()
    return probabilities, log_sum - scores.gather(1, targets.unsqueeze(1)).squeeze(1).float()


class _TokenLoss(torch.autograd.Function):
    """Negative log-likelihoods of a linear layer's softmax, (N, H) -> (N,).

    The products are those of `linear` and its gradient; between them, the gradient of softmax and
    logarithm is taken in place, where plain autograd passes over (N, V) numbers four more times.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        weight = weight.to(hidden.dtype)
        probabilities, nll = _softmax_and_loss(linear(hidden, weight, bias), targets)
        ctx.save_for_backward(hidden, weight, targets, probabilities)
        return nll

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, scores = ctx.saved_tensors
        scores = scores.mul_(gradient.unsqueeze(1))  # (N, V)
        scores.scatter_add_(1, targets.unsqueeze(1), -gradient.unsqueeze(1))
        bias = scores.sum(dim=0)
        scores = scores.to(hidden.dtype)
        return scores @ weight, (scores.t() @ hidden).float(), bias, None

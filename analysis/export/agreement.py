"""How far a way of decoding says what the model says: one measure for exports and benchmarks.

The reference is the model in fp32, decoded greedily by `model.decoding.Stepper`. Compared are
replies up to and with their EOS, three ways:

next word      given the reference's words up to each position, the share with its next word: the
               fair measure of what rounds, since one word that differs changes the rest of a
               reply that runs free
free-running   given its own words, the share of the reference's positions with the same word
equal replies  of all replies, the share that is the reference's from the first word to the last

Where the reference's two best scores are within `NEAR_TIE` of each other, the order in which
numbers are added decides, and either word is right. A word that differs there is left out and
counted; a reply that leaves the reference's there is compared up to there, counted, and is neither
equal nor unequal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.decoding import NEVER_SAID, Stepper
from model.seq2seq import Seq2Seq
from model.vocabulary import EOS, PAD, SOS

#: Scores (logits, nats) of two words that are nearer than this may change places in fp32.
NEAR_TIE = 1e-4

# Shapes: N replies, S source length, T steps.


@dataclass(frozen=True)
class Reference:
    """What the model says.

    Attributes:
        words: (N, T), each row ending with EOS, if it ended, and then PAD.
        scores: (N, T), log-probabilities among the words that may be said.
        margins: (N, T), the best score less the second best.
    """

    words: Tensor
    scores: Tensor
    margins: Tensor


@torch.inference_mode()
def reference(
    model: Seq2Seq, stepper: Stepper, source: Tensor, lengths: Tensor, max_words: int
) -> Reference:
    """Decodes a batch step by step, as `model.decoding.greedy`, and keeps the scores.

    Args:
        model: The model.
        stepper: Made of it, fp32.
        source: (N, S), padded with PAD, on the model's device.
        lengths: (N,) on the CPU.
        max_words: T.
    """
    encoded = model.encode(source, lengths)
    state = list(encoded.state)
    words = torch.full_like(source[:, 0], SOS)
    ended = torch.zeros_like(words, dtype=torch.bool)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(max_words):
        logits, state = stepper.step(words, state, encoded)
        logits = logits.float()
        logits[:, list(NEVER_SAID)] = float("-inf")
        best, two = logits.topk(2, dim=1)
        words = two[:, 0].masked_fill(ended, PAD)
        kept.append((words, best[:, 0] - logits.logsumexp(1), best[:, 0] - best[:, 1]))
        ended |= words == EOS
    return Reference(*(torch.stack(column, dim=1).cpu() for column in zip(*kept, strict=True)))


def concatenated(parts: Sequence[Reference]) -> Reference:
    """What the model says of several batches, as of one."""
    columns = zip(*((part.words, part.scores, part.margins) for part in parts), strict=True)
    return Reference(*map(torch.cat, columns))


@dataclass(frozen=True)
class Agreement:
    """Shares in [0, 1], NaN of nothing; see the module.

    Attributes:
        replies: N.
        words: Of the reference's replies, EOS included.
        next_word: On the same prefix; NaN where a way of decoding cannot be given one.
        free_running: On its own.
        equal_replies: From the first word to the last.
        tied_words: Left out of `next_word`.
        tied_replies: Left out of `equal_replies`, and of `free_running` from the tie on.
    """

    replies: int
    words: int
    next_word: float
    free_running: float
    equal_replies: float
    tied_words: int
    tied_replies: int


def compare(expected: Reference, words: Tensor, next_words: Tensor | None = None) -> Agreement:
    """Compares replies with the reference's.

    Args:
        expected: Of the same sources.
        words: (N, T') token ids, T' at most T; what follows a row's first EOS does not count.
        next_words: (N, T), each given the reference's words before it; None where that cannot be
            had.
    """
    rows, steps = expected.words.shape
    real = _until_end(expected.words)
    near = expected.margins < NEAR_TIE
    theirs = torch.full((rows, steps), -1)
    theirs[:, : words.shape[1]] = words
    # A reply that has ended says nothing more, whatever it was filled with.
    right = (theirs == expected.words) & _until_end(theirs)
    place = torch.arange(steps).expand(rows, steps)
    parts = torch.where(real & ~right, place, steps).amin(dim=1)  # (N,), T where it does not
    differs = parts < steps
    tied = differs & near.gather(1, parts.clamp(max=steps - 1).unsqueeze(1)).squeeze(1)
    counted = real & ~(tied.unsqueeze(1) & (place >= parts.unsqueeze(1)))
    following = torch.full_like(expected.words, -1) if next_words is None else next_words
    left_out = real & near & (following != expected.words)
    return Agreement(
        replies=rows,
        words=int(real.sum()),
        next_word=_share(following == expected.words, real & ~left_out)
        if next_words is not None
        else float("nan"),
        free_running=_share(right, counted),
        equal_replies=_share(~differs, ~tied),
        tied_words=0 if next_words is None else int(left_out.sum()),
        tied_replies=int(tied.sum()),
    )


def _until_end(words: Tensor) -> Tensor:
    """(N, T), True up to and with the first EOS of each row."""
    ended = (words == EOS).long().cumsum(dim=1)
    return (ended == 0) | ((ended == 1) & (words == EOS))


def _share(of: Tensor, among: Tensor) -> float:
    """Of a mask, the share that another holds for too."""
    return float((of & among).sum()) / float(among.sum()) if bool(among.any()) else float("nan")

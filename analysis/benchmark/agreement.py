"""How far a way of decoding says what eager decoding says.

Compared are replies up to and with their EOS, three ways:

next word      given eager's words up to each position, the share with eager's next word
free-running   given its own words, the share of eager's positions with the same word
equal replies  of all replies, the share that is eager's from the first word to the last

Where eager's two best scores are within `NEAR_TIE` nats of each other, either word is right. A word
that differs there is left out and counted; a reply that leaves eager's there is compared up to
there, counted, and is neither equal nor unequal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.export.parity import NEAR_TIE, Reference
from model.vocabulary import EOS

# Shapes: N replies, T steps.


def concatenated(parts: Sequence[Reference]) -> Reference:
    """What eager decoding says of several batches, as of one."""
    columns = zip(*((part.words, part.scores, part.margins) for part in parts), strict=True)
    return Reference(*map(torch.cat, columns))


@dataclass(frozen=True)
class Agreement:
    """Shares in [0, 1], NaN of nothing; see the module.

    Attributes:
        replies: N.
        words: Of eager's replies, EOS included.
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


def compare(eager: Reference, words: Tensor, next_words: Tensor | None = None) -> Agreement:
    """Compares replies with eager's.

    Args:
        eager: Of the same sources.
        words: (N, T') token ids, T' at most T; what follows a row's first EOS does not count.
        next_words: (N, T), each given eager's words before it; None where that cannot be had.
    """
    rows, steps = eager.words.shape
    real = _until_end(eager.words)
    near = eager.margins < NEAR_TIE
    theirs = torch.full((rows, steps), -1)
    theirs[:, : words.shape[1]] = words
    # A reply that has ended says nothing more, whatever it was filled with.
    right = (theirs == eager.words) & _until_end(theirs)
    place = torch.arange(steps).expand(rows, steps)
    parts = torch.where(real & ~right, place, steps).amin(dim=1)  # (N,), T where it does not
    differs = parts < steps
    tied = differs & near.gather(1, parts.clamp(max=steps - 1).unsqueeze(1)).squeeze(1)
    counted = real & ~(tied.unsqueeze(1) & (place >= parts.unsqueeze(1)))
    following = torch.full_like(eager.words, -1) if next_words is None else next_words
    left_out = real & near & (following != eager.words)
    return Agreement(
        replies=rows,
        words=int(real.sum()),
        next_word=_share(following == eager.words, real & ~left_out)
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

"""Whether an export may be written: it must say what the model says on real inputs.

`analysis.export.agreement` has the measure. Beyond it, an fp32 export must not differ from the
model at one place that is no near tie, given the same beginning or running free, with early exit or
without; and log-probabilities are compared where both name the same word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from analysis.export.agreement import (
    NEAR_TIE,
    Agreement,
    Reference,
    compare,
    concatenated,
    reference,
)
from analysis.export.samples import Samples, pad
from model.decoding import Stepper
from model.errors import ParityError
from model.files import finite
from model.model_directory import DialogueModel
from model.text import normalise
from model.vocabulary import EOS, PAD

#: Share of next words that an export that rounds must agree on; fp32 must agree on all.
MIN_AGREEMENT = 0.99

# Shapes: N replies, B batch, S source length, T target length.


class Search(Protocol):
    """What is compared: the call and the method of `analysis.export.greedy.GreedySearch`."""

    def __call__(
        self, source: Tensor, lengths: Tensor, max_words: int, early_exit: bool
    ) -> tuple[Tensor, Tensor]:
        """Decodes greedily."""
        ...

    def follow(self, source: Tensor, lengths: Tensor, replies: Tensor) -> tuple[Tensor, Tensor]:
        """The best next word after each beginning of given replies."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an export agrees with the model.

    Attributes:
        origin: Where the sources come from.
        agreement: Over all of them.
        near_ties: Words of the model's replies whose score is within `NEAR_TIE` of the next best,
            whether or not the export decides them alike.
        next_words_that_differ: Given the same beginning, where there is no near tie.
        replies_that_differ: Whose first difference, with early exit or without, is no near tie.
        largest_score_difference: Of log-probabilities in nats, where both name the same word.
        required: Share of next words it had to agree on; 1 for all words and replies.
        texts: Texts whose replies were compared too, of an export that takes text.
        texts_that_differ: Of those, replies that differ where no near tie excuses it.
    """

    origin: str
    agreement: Agreement
    near_ties: int
    next_words_that_differ: int
    replies_that_differ: int
    largest_score_difference: float
    required: float
    texts: int = 0
    texts_that_differ: int = 0

    @property
    def passed(self) -> bool:
        """Whether the export may be written."""
        if self.required < 1:
            return not self.agreement.next_word < self.required  # nothing but ties will do
        return not (
            self.next_words_that_differ
            or self.replies_that_differ
            or self.texts_that_differ
            or math.isnan(self.largest_score_difference)
        )

    def rows(self) -> list[tuple[str, str]]:
        """The figures as a table of two columns."""
        found = self.agreement
        return [
            ("inputs", f"{found.replies}"),
            ("words compared", f"{found.words}"),
            ("near ties (two best within 1e-4)", f"{self.near_ties}"),
            ("next words agreed on", f"{found.next_word:.4%}"),
            ("next words that differ, no near tie", f"{self.next_words_that_differ}"),
            ("words agreed on running free", f"{found.free_running:.4%}"),
            ("equal replies", f"{found.equal_replies:.4%}"),
            ("replies that differ, no near tie", f"{self.replies_that_differ}"),
            ("ties decided otherwise, words / replies", _ties(found)),
            ("largest difference of log-probability", f"{self.largest_score_difference:.2e}"),
            ("required of next words", f"{self.required:.2%}"),
            *self._text_rows(),
        ]

    def _text_rows(self) -> list[tuple[str, str]]:
        if not self.texts:
            return []
        differ = f"{self.texts_that_differ}"
        return [("texts replied to", f"{self.texts}"), ("replies to texts that differ", differ)]

    def check(self, what: str) -> None:
        """Refuses an export that did not pass.

        Raises:
            ParityError: with the figures.
        """
        if not self.passed:
            figures = "; ".join(f"{name} {value}" for name, value in self.rows())
            raise ParityError(
                f"{what}: does not say what the model says, so nothing was written: {figures}; "
                f"compared on {self.origin}."
            )

    def to_mapping(self) -> dict[str, Any]:
        """Every figure, and the verdict; null for what there is none of."""
        mapping: dict[str, Any] = finite(asdict(self) | {"passed": self.passed})
        return mapping


def _ties(found: Agreement) -> str:
    return f"{found.tied_words} / {found.tied_replies}"


@dataclass(frozen=True)
class _Said:
    """What an export says, (N, T) each.

    Attributes:
        free: Words running free, with an early exit.
        fixed: The same without.
        next_words: The best word after each beginning of the reference's replies.
        next_scores: Their log-probabilities.
    """

    free: Tensor
    fixed: Tensor
    next_words: Tensor
    next_scores: Tensor


def check_parity(
    model: DialogueModel,
    search: Search,
    samples: Samples,
    *,
    required: float,
    max_words: int | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Parity:
    """Compares an export with the model.

    Args:
        model: The model.
        search: The export.
        samples: What to decode.
        required: Share of next words to agree on: 1 for all but near ties.
        max_words: Longest reply; None for the model's own.
        device: Where the export's inputs must be.
        progress: Show a progress bar, if standard error is a terminal.

    Returns:
        The figures, whether or not they pass.
    """
    max_words = max_words or model.config.data.max_length
    stepper = Stepper(model.model, fold=True)
    home = model.model.output.weight.device
    references, replies = [], []
    batches = list(samples.batches())
    for source, lengths in tqdm(batches, "parity", disable=None if progress else True):
        references.append(reference(model.model, stepper, source.to(home), lengths, max_words))
        replies.append(_said_by(search, source, lengths, references[-1].words, device))
    columns = zip(*((s.free, s.fixed, s.next_words, s.next_scores) for s in replies), strict=True)
    return _judged(concatenated(references), _Said(*map(torch.cat, columns)), samples, required)


@torch.inference_mode()
def _said_by(
    search: Search, source: Tensor, lengths: Tensor, expected: Tensor, device: str
) -> _Said:
    source, lengths = source.to(device), lengths.to(device)
    steps = expected.shape[1]
    free = search(source, lengths, steps, True)[0].cpu()
    words, scores = search.follow(source, lengths, expected.to(device))
    return _Said(
        free=torch.nn.functional.pad(free, (0, steps - free.shape[1]), value=PAD),
        fixed=search(source, lengths, steps, False)[0].cpu(),
        next_words=words.cpu(),
        next_scores=scores.cpu(),
    )


def _judged(expected: Reference, said: _Said, samples: Samples, required: float) -> Parity:
    real, near = expected.words != PAD, expected.margins < NEAR_TIE
    same = said.next_words == expected.words
    wrong = [_differs(words, expected.words, near) for words in (said.free, said.fixed)]
    scores = (said.next_scores - expected.scores).abs()[real & same]
    return Parity(
        origin=samples.described(),
        agreement=compare(expected, said.free, said.next_words),
        near_ties=int((real & near).sum()),
        next_words_that_differ=int((real & ~same & ~near).sum()),
        replies_that_differ=int((wrong[0] | wrong[1]).sum()),
        largest_score_difference=float(scores.max()) if len(scores) else 0.0,  # NaN if any is
        required=required,
    )


def _differs(words: Tensor, expected: Tensor, near: Tensor) -> Tensor:
    """(N,), whether a row's first difference, if it has one, is no near tie."""
    differs = words != expected  # PAD after the end included: nothing else may stand there
    first = differs.float().argmax(dim=1, keepdim=True)
    return differs.any(dim=1) & ~near.gather(1, first).squeeze(1)


def check_text_parity(
    parity: Parity,
    model: DialogueModel,
    reply: Callable[[list[str]], list[str]],
    texts: Sequence[str],
    *,
    progress: bool = False,
) -> Parity:
    """Compares the replies of a text-in text-out export with `DialogueModel.replies`.

    Args:
        parity: The figures of the search within it.
        model: The model.
        reply: The export.
        texts: What to reply to.
        progress: Show a progress bar, if standard error is a terminal.

    Returns:
        The figures with those of the texts.
    """
    wrong = 0
    batches = [list(texts[start : start + 64]) for start in range(0, len(texts), 64)]
    for batch in tqdm(batches, "texts", disable=None if progress else True):
        pairs = zip(batch, model.replies(batch), reply(batch), strict=True)
        wrong += sum(one != other and not _has_near_tie(model, text) for text, one, other in pairs)
    return replace(parity, texts=len(texts), texts_that_differ=wrong)


def _has_near_tie(model: DialogueModel, text: str) -> bool:
    ids = model.vocabulary.encode(normalise(text))
    if not ids:
        return False
    source, lengths = pad([[*ids, EOS]])
    source = source.to(model.model.output.weight.device)
    stepper = Stepper(model.model, fold=True)
    found = reference(model.model, stepper, source, lengths, model.config.data.max_length)
    return bool(((found.words != PAD) & (found.margins < NEAR_TIE)).any())

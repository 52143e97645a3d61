"""Whether an export says what the model says: compared word by word on real inputs.

The reference is the model in fp32, decoded greedily by `model.decoding.Stepper`.

- **Next words given the same beginning**: the export reads the reference's own reply and must name
  the same best word after each beginning of it. This is the fair measure of an export that rounds:
  one word that differs changes the rest of a reply that runs free.
- **Running free**: words that are the same at the same place, and whole replies that are.
- **Scores**: the largest difference of log-probability where both name the same word.
- **Near ties**: where the reference's two best words differ by less than `NEAR_TIE` in score, the
  order in which numbers are added decides. There, and there alone, an fp32 export may differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from analysis.export.samples import Samples, pad
from model.decoding import NEVER_SAID, Stepper
from model.errors import ParityError
from model.model_directory import DialogueModel
from model.seq2seq import Seq2Seq
from model.text import normalise
from model.vocabulary import EOS, PAD, SOS

#: Scores (logits, nats) of two words that are nearer than this may change places in fp32.
NEAR_TIE = 1e-4

#: Share of next words that an export that rounds must agree on; fp32 must agree on all.
MIN_AGREEMENT = 0.99

# Shapes: B batch, S source length, T target length, V vocabulary.


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
        inputs: Sources decoded.
        origin: Where they come from.
        words: Words of the model's replies, EOS included.
        near_ties: Of those, words whose score is within `NEAR_TIE` of the next best.
        next_word_agreement: Share of words agreed on given the same beginning.
        next_word_differences: Words not agreed on, near ties left out.
        free_agreement: Share of words agreed on running free.
        equal_replies: Share of replies that are equal, word for word.
        replies_that_differ: Whose first difference is no near tie.
        largest_score_difference: Of log-probabilities in nats, where both name the same word.
        required_agreement: Share of next words it had to agree on; 1 leaves near ties out.
        texts: Texts whose replies were compared too, of an export that takes text.
        texts_that_differ: Of those, replies that differ where no near tie excuses it.
    """

    inputs: int
    origin: str
    words: int
    near_ties: int
    next_word_agreement: float
    next_word_differences: int
    free_agreement: float
    equal_replies: float
    replies_that_differ: int
    largest_score_difference: float
    required_agreement: float
    texts: int = 0
    texts_that_differ: int = 0

    @property
    def passed(self) -> bool:
        """Whether the export may be written."""
        if self.required_agreement < 1:
            return self.next_word_agreement >= self.required_agreement
        return not (
            self.next_word_differences
            or self.replies_that_differ
            or self.texts_that_differ
            or math.isnan(self.largest_score_difference)
        )

    def rows(self) -> list[tuple[str, str]]:
        """The figures as a table of two columns."""
        return [
            ("inputs", f"{self.inputs}"),
            ("words compared", f"{self.words}"),
            ("near ties (two best within 1e-4)", f"{self.near_ties}"),
            ("next words agreed on", f"{self.next_word_agreement:.4%}"),
            ("next words that differ, no near tie", f"{self.next_word_differences}"),
            ("words agreed on running free", f"{self.free_agreement:.4%}"),
            ("equal replies", f"{self.equal_replies:.4%}"),
            ("replies that differ, no near tie", f"{self.replies_that_differ}"),
            ("largest difference of log-probability", f"{self.largest_score_difference:.2e}"),
            ("required of next words", f"{self.required_agreement:.2%}"),
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
        """Every figure, and the verdict."""
        return asdict(self) | {"passed": self.passed}


@dataclass(frozen=True)
class Reference:
    """What the model says of a batch.

    Attributes:
        words: (B, T), each row ending with EOS, if it ended, and then PAD.
        scores: (B, T), log-probabilities among the words that may be said.
        margins: (B, T), the best score less the second best.
    """

    words: Tensor
    scores: Tensor
    margins: Tensor


@dataclass(frozen=True)
class _Said:
    """What an export says of a batch, (B, T) each.

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


@torch.inference_mode()
def reference(
    model: Seq2Seq, stepper: Stepper, source: Tensor, lengths: Tensor, max_words: int
) -> Reference:
    """Decodes a batch step by step, as `model.decoding.greedy`, and keeps the scores.

    Args:
        model: The model.
        stepper: Made of it, fp32.
        source: (B, S), padded with PAD, on the model's device.
        lengths: (B,) on the CPU.
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


@dataclass
class _Tally:
    words: int = 0
    near_ties: int = 0
    same_next: int = 0
    wrong_next: int = 0
    same_free: int = 0
    replies: int = 0
    equal_replies: int = 0
    wrong_replies: int = 0
    score_difference: float = 0.0

    def add(self, expected: Reference, said: _Said) -> None:
        real, near = expected.words != PAD, expected.margins < NEAR_TIE
        same = said.next_words == expected.words
        self.words += int(real.sum())
        self.near_ties += int((real & near).sum())
        self.same_next += int((real & same).sum())
        self.wrong_next += int((real & ~same & ~near).sum())
        self.same_free += int((real & (said.free == expected.words)).sum())
        self.replies += len(said.free)
        self.equal_replies += int((said.free == expected.words).all(dim=1).sum())
        wrong = [_differs(words, expected.words, near) for words in (said.free, said.fixed)]
        self.wrong_replies += int((wrong[0] | wrong[1]).sum())
        compared = (said.next_scores - expected.scores).abs()[real & same]
        for largest in [float(compared.max())] if len(compared) else []:
            if math.isnan(largest) or largest > self.score_difference:
                self.score_difference = largest


def _differs(words: Tensor, expected: Tensor, near: Tensor) -> Tensor:
    """(B,), whether a row's first difference, if it has one, is no near tie."""
    differs = words != expected  # PAD after the end included: a reply that goes on differs
    first = differs.float().argmax(dim=1, keepdim=True)
    return differs.any(dim=1) & ~near.gather(1, first).squeeze(1)


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
    tally = _Tally()
    batches = list(samples.batches())
    for source, lengths in tqdm(batches, "parity", disable=None if progress else True):
        expected = reference(model.model, stepper, source.to(home), lengths, max_words)
        tally.add(expected, _said_by(search, source, lengths, expected.words, device))
    return Parity(
        inputs=tally.replies,
        origin=samples.described(),
        words=tally.words,
        near_ties=tally.near_ties,
        next_word_agreement=tally.same_next / tally.words,
        next_word_differences=tally.wrong_next,
        free_agreement=tally.same_free / tally.words,
        equal_replies=tally.equal_replies / tally.replies,
        replies_that_differ=tally.wrong_replies,
        largest_score_difference=tally.score_difference,
        required_agreement=required,
    )


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

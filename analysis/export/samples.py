"""Real inputs to compare an export on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from analysis.model_data import find_data
from model.model_directory import DialogueModel
from model.vocabulary import PAD

#: How many different sources a parity check takes, where there are so many.
COUNT = 1000

# Shapes: B batch, S source length.


@dataclass(frozen=True)
class Samples:
    """Sources to decode.

    Attributes:
        sources: Word ids of each source, EOS at the end; all different.
        origin: Where they come from, in words.
        wanted: How many were asked for; fewer are what there is.
        own: Whether they are of the data that the model was trained on.
        note: Why they are not, where nobody asked for others.
    """

    sources: list[list[int]]
    origin: str
    wanted: int = COUNT
    own: bool = False
    note: str | None = None

    def batches(self, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """The sources in order: (B, S) int64 padded with PAD, and lengths (B,)."""
        for start in range(0, len(self.sources), size):
            yield pad(self.sources[start : start + size])

    def within(self, width: int) -> Samples:
        """Those of at most so many tokens."""
        short = [source for source in self.sources if len(source) <= width]
        if len(short) == len(self.sources):
            return self
        return replace(self, sources=short, origin=f"{self.origin}, of at most {width} tokens")

    def texts(self, model: DialogueModel) -> list[str]:
        """The sources as the normalised text that the model reads."""
        return [model.vocabulary.decode(source) for source in self.sources]

    def warnings(self) -> list[str]:
        """What speaks against trusting a comparison on them."""
        found = []
        if len(self.sources) < COUNT:
            number = f"{len(self.sources):,} input{'s' if len(self.sources) != 1 else ''}"
            found.append(f"compared on {number}; a sure verdict takes {COUNT:,}.")
        if not self.own:
            why = f" ({self.note})" if self.note else ""
            found.append(f"the inputs are not the data that the model was trained on{why}.")
        return found

    def described(self) -> str:
        """One phrase: how many, from where, and whether more were wanted."""
        few = f" (all there are; {self.wanted} were wanted)"
        return (
            f"{len(self.sources)} different sources of {self.origin}"
            f"{few if len(self.sources) < self.wanted else ''}"
        )


def pad(sources: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Sources as a batch (B, S), padded with PAD, and their lengths (B,)."""
    lengths = torch.tensor([len(source) for source in sources])
    padded = torch.full((len(sources), int(lengths.max())), PAD)
    for row, source in zip(padded, sources, strict=True):
        row[: len(source)] = torch.tensor(source)
    return padded, lengths


def real_samples(model: DialogueModel, corpus: str | None = None, count: int = COUNT) -> Samples:
    """Sources that people wrote: held-out ones first, then those trained on.

    Args:
        model: Words are read with its vocabulary.
        corpus: As of `analysis.model_data.find_data`.
        count: How many.

    Raises:
        CorpusError: where the corpus that was named is missing, malformed or empty.
        PreparedDataError: where the prepared data set is damaged.
    """
    found = find_data(model, corpus)
    data = found.data
    distinct: dict[tuple[int, ...], None] = {}
    used = []
    for split in ("validation", "test", "train"):
        if len(distinct) < count and len(data.examples[split]):
            used.append(split)
            for reply in data.examples[split][:, 1].tolist():
                distinct.setdefault(tuple(data.utterance(reply - 1).tolist()))
                if len(distinct) == count:
                    break
    where = f"{found.origin} ({', '.join(used)})"
    return Samples([list(source) for source in distinct], where, count, found.own, found.note)


def awkward_texts(model: DialogueModel) -> list[str]:
    """Texts that try normalisation: none, marks, accents, other scripts, long, unknown words."""
    known = " ".join(model.vocabulary.to_list()[4:8]) or "hello"
    return [
        *("", " ", "\t\n", "...", "?!", "123", "<unk>", "a.b!c?d"),
        *(known, known.upper(), f"  {known}  ?!", f"{known}.{known}"),
        *(f"{known} zzyzx qqq", "é" + known, known.replace("e", "é"), known.replace("i", "İ")),
        *("naïve café, señor", "ΣΟΦΟΣ", "日本語", "\u212a\u212b", "e\u0301\u0302", "👍 ok"),
        " ".join([known] * 40),
    ]

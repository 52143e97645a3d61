"""Batches of real sources to decode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.export.samples import Samples, pad, real_samples
from model.model_directory import DialogueModel
from model.vocabulary import Vocabulary

# Shapes: B batch, S source length.


@dataclass(frozen=True)
class SourceBatch:
    """Sources of one batch, the longest first.

    Attributes:
        rows: (B, S) token ids, each row ending with EOS and then PAD.
        columns: (S, B), the same as the published decoder takes them.
        lengths: (B,) on the CPU, EOS included.
        texts: The same as text, for what takes that.
    """

    rows: Tensor
    columns: Tensor
    lengths: Tensor
    texts: list[str]

    @classmethod
    def of(
        cls, sources: list[list[int]], vocabulary: Vocabulary, device: str = "cpu"
    ) -> SourceBatch:
        """Of word ids, EOS at the end of each."""
        sources = sorted(sources, key=len, reverse=True)
        rows, lengths = pad(sources)
        columns = rows.t().contiguous()
        texts = [vocabulary.decode(source) for source in sources]
        return cls(rows.to(device), columns.to(device), lengths, texts)


@dataclass(frozen=True)
class Sources:
    """Sources in a fixed random order, which begins again where it is used up.

    Attributes:
        samples: The sources.
        vocabulary: What reads them.
        note: Why they are not of the data that the model was trained on, where they should be.
    """

    samples: Samples
    vocabulary: Vocabulary
    note: str | None = None

    @classmethod
    def open(cls, model: DialogueModel, corpus: str | None, count: int) -> Sources:
        """Opens different sources for a model: held-out ones first.

        Args:
            model: Its vocabulary reads them, unknown words as ``<unk>``.
            corpus: As of `analysis.model_data.find_data`.
            count: At most how many.

        Raises:
            CorpusError: where the corpus is missing, malformed, or has nothing to decode.
            PreparedDataError: where the prepared data set is damaged.
        """
        samples = real_samples(model, corpus, count)
        return cls(samples, model.vocabulary, samples.note)

    def batches(self, size: int, count: int, device: str = "cpu") -> list[SourceBatch]:
        """The first batches.

        Args:
            size: B.
            count: How many.
            device: Where they are put.
        """
        sources = self.samples.sources
        order = torch.randperm(len(sources), generator=torch.Generator().manual_seed(0))
        order = order.repeat(-(-size * count // len(order)))[: size * count]
        return [
            SourceBatch.of([sources[i] for i in rows.tolist()], self.vocabulary, device)
            for rows in torch.split(order, size)
        ]

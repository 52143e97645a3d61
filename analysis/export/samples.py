"""Real inputs to compare an export on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.corpora import read_corpus
from model.data_source import open_or_prepare
from model.errors import CorpusError, PreparedDataError
from model.model_directory import DialogueModel
from model.preparation import prepare_to_evaluate
from model.prepared_data import SUFFIX, PreparedData
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
    """

    sources: list[list[int]]
    origin: str
    wanted: int = COUNT

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
        corpus: A prepared data set or any other corpus; None for what the model was trained on (in
            ``data/`` or its experiment, or prepared again), or, where that is not at hand, the
            embedded corpus.
        count: How many.

    Raises:
        CorpusError: where the corpus that was named is missing, malformed or empty.
        PreparedDataError: where the prepared data set is damaged.
    """
    data, origin = _open(model, corpus)
    if data.vocabulary.words != model.vocabulary.words:
        data = data.with_vocabulary(model.vocabulary)
    distinct: dict[tuple[int, ...], None] = {}
    used = []
    for split in ("validation", "test", "train"):
        if len(distinct) < count and len(data.examples[split]):
            used.append(split)
            for reply in data.examples[split][:, 1].tolist():
                distinct.setdefault(tuple(data.utterance(reply - 1).tolist()))
                if len(distinct) == count:
                    break
    where = f"{origin} ({', '.join(used)})"
    return Samples([list(source) for source in distinct], where, count)


def _open(model: DialogueModel, corpus: str | None) -> tuple[PreparedData, str]:
    """The data, and what to call them."""
    settings = model.config.data
    if corpus is None:
        found = _trained_on(model)
        if found is not None:
            return found
        corpus = "everyday"
    if corpus.endswith(SUFFIX):
        return open_or_prepare({"corpus": corpus}), corpus
    read = read_corpus(corpus)
    return prepare_to_evaluate(read, replace(settings, corpus=corpus), model.vocabulary), corpus


def _trained_on(model: DialogueModel) -> tuple[PreparedData, str] | None:
    """What the model was trained on, where it lies in a usual place or can be prepared again."""
    lineage = model.manifest.get("lineage", {})
    places = [Path("data"), Path("runs") / str(lineage.get("experiment"))]
    for file in (file for place in places for file in sorted(place.glob(f"*{SUFFIX}"))):
        try:
            data = PreparedData.open(file)
        except PreparedDataError:  # not ours, or not whole: then it is not what we look for
            continue
        if data.fingerprint == lineage.get("data_fingerprint"):
            return data, f"{file}, trained on"
    try:
        settings = model.config.data
        return open_or_prepare(asdict(settings)), f"{settings.corpus}, trained on"
    except CorpusError:
        return None


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

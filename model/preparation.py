"""Preparing a corpus: from raw dialogues to the arrays that a model learns from."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import torch

from model.config import DataConfig
from model.corpora import Corpus, read_corpus
from model.dialogue import Dialogue
from model.errors import EmptyCorpusError
from model.prepared_data import SPLITS, PreparedData
from model.text import normalise
from model.vocabulary import EOS, SPECIALS, UNK, Vocabulary

_T = TypeVar("_T")
#: Why a pair is dropped, in the order in which it is asked.
REASONS = ("empty", "long", "rare", "shared")


def prepare(
    config: DataConfig, *, data_directory: Path = Path("data"), progress: bool = False
) -> PreparedData:
    """Reads, normalises, splits and filters a corpus. The same configuration gives the same result.

    A pair of consecutive turns is kept where both sides have words, both have fewer than
    ``max_length``, none is rare (with ``rare_words: drop``), and, in validation and test, the pair
    does not occur in an earlier split as the model would read it. Dialogues are cut at
    dropped pairs. Splits are by group of dialogues and do not depend on what is dropped.

    Args:
        config: Which corpus, and how it becomes examples.
        data_directory: Where ``corpus: cornell`` is looked for.
        progress: Shows a progress bar, if standard error is a terminal.

    Raises:
        CorpusNotFoundError: where the corpus is not there.
        CorpusFormatError: where a file is not what its format promises.
        EmptyCorpusError: where a split is left without a pair, with what took them.
    """
    return prepare_corpus(read_corpus(config.corpus, data_directory), config, progress=progress)


def prepare_corpus(corpus: Corpus, config: DataConfig, *, progress: bool = False) -> PreparedData:
    """Prepares a corpus that is read already; see `prepare`.

    Raises:
        EmptyCorpusError: where a split is left without a pair, with what took them.
    """
    splits = split_dialogues(corpus.dialogues, config)
    candidates, counts = _within_length(corpus, splits, config, progress)

    word_counts = _count_words(candidates)
    vocabulary = Vocabulary.from_counts(word_counts, config.min_count)
    for candidate in _track(candidates, "encoding", progress):
        candidate.encode(vocabulary)
    if config.rare_words == "drop":
        _drop(candidates, counts, "rare", _Candidate.is_rare)
    _drop_shared(candidates, counts)
    _check_not_empty(corpus.name, counts, config)

    arrays = _Arrays()
    for candidate in _track(candidates, "packing", progress):
        arrays.add(candidate)
    counts |= {"words_seen": len(word_counts), "words": len(vocabulary)}
    return arrays.finish(vocabulary, config, counts)


def prepare_to_evaluate(corpus: Corpus, config: DataConfig, vocabulary: Vocabulary) -> PreparedData:
    """Prepares every pair of a corpus as the ``test`` split, for a model that is trained already.

    Only pairs without words on a side and pairs of `max_length` words or more are left out.
    Words outside of the vocabulary become ``UNK``.

    Raises:
        EmptyCorpusError: where no pair is left.
    """
    splits = ["test"] * len(corpus.dialogues)
    candidates, counts = _within_length(corpus, splits, config, progress=False)
    arrays = _Arrays()
    for candidate in candidates:
        candidate.encode(vocabulary)
        arrays.add(candidate)
    if not arrays.examples["test"]:
        dropped = ", ".join(_dropped_lines(counts, ("test",), vars(config))) or "none"
        raise EmptyCorpusError(f"{corpus.name}: no pair is left to evaluate; dropped: {dropped}.")
    return arrays.finish(vocabulary, config, counts)


def _within_length(
    corpus: Corpus, splits: list[str], config: DataConfig, progress: bool
) -> tuple[list[_Candidate], dict[str, int]]:
    """Normalises every dialogue, and drops the pairs that are empty or too long."""
    work = list(zip(splits, corpus.dialogues, strict=True))
    candidates = [
        _Candidate(split, [normalise(turn) for turn in dialogue.turns])
        for split, dialogue in _track(work, "normalising", progress)
    ]
    counts = _corpus_counts(corpus, candidates)
    _drop(candidates, counts, "empty", _Candidate.is_empty)
    _drop(candidates, counts, "long", lambda pair, i: pair.is_long(i, config.max_length))
    return candidates, counts


def split_dialogues(dialogues: Iterable[Dialogue], config: DataConfig) -> list[str]:
    """Says for each dialogue whether it is for ``train``, ``validation`` or ``test``.

    Groups stay together; a dialogue without a group is one by itself. The shares are of groups,
    and each split has at least one where there are three.
    """
    keys: list[object] = [
        index if dialogue.group is None else dialogue.group
        for index, dialogue in enumerate(dialogues)
    ]
    groups = list(dict.fromkeys(keys))
    Random(config.split_seed).shuffle(groups)
    test = _share(len(groups), config.test_share, leave=2)
    held_out = test + _share(len(groups), config.validation_share, leave=test + 1)
    split_of = dict.fromkeys(groups, "train")
    split_of |= dict.fromkeys(groups[:held_out], "validation")
    split_of |= dict.fromkeys(groups[:test], "test")
    return [split_of[key] for key in keys]


def _share(groups: int, share: float, leave: int) -> int:
    return max(0, min(max(1, round(groups * share)), groups - leave))


# Filtering


@dataclass(slots=True)
class _Candidate:
    """A dialogue on its way: its turns, and which pairs (turn i, turn i + 1) are still kept."""

    split: str
    texts: list[str]
    ids: list[tuple[int, ...]] = field(default_factory=list)
    kept: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = [True] * (len(self.texts) - 1)

    def is_empty(self, i: int) -> bool:
        return not (self.texts[i] and self.texts[i + 1])

    def is_long(self, i: int, max_length: int) -> bool:
        return max(self.texts[i].count(" "), self.texts[i + 1].count(" ")) + 1 >= max_length

    def is_rare(self, i: int) -> bool:
        return UNK in self.ids[i] or UNK in self.ids[i + 1]

    def pair(self, i: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.ids[i], self.ids[i + 1]

    def kept_pairs(self) -> Iterator[int]:
        return (i for i, kept in enumerate(self.kept) if kept)

    def encode(self, vocabulary: Vocabulary) -> None:
        in_pair = {j for i in self.kept_pairs() for j in (i, i + 1)}
        self.ids = [
            tuple(vocabulary.encode(text)) if i in in_pair else ()
            for i, text in enumerate(self.texts)
        ]


def _drop(
    candidates: Iterable[_Candidate],
    counts: dict[str, int],
    reason: str,
    applies: Callable[[_Candidate, int], bool],
) -> None:
    """Drops every kept pair that the reason applies to, and counts it."""
    for candidate in candidates:
        for i in candidate.kept_pairs():
            if applies(candidate, i):
                candidate.kept[i] = False
                counts[f"{candidate.split}_{reason}"] += 1


def _drop_shared(candidates: list[_Candidate], counts: dict[str, int]) -> None:
    """Drops pairs of validation that training has, then pairs of test that either has."""
    earlier: set[object] = set()
    for split in SPLITS:
        own = [candidate for candidate in candidates if candidate.split == split]
        if split != "train":
            _drop(own, counts, "shared", lambda candidate, i: candidate.pair(i) in earlier)
        earlier.update(candidate.pair(i) for candidate in own for i in candidate.kept_pairs())
        counts[f"{split}_examples"] = sum(sum(candidate.kept) for candidate in own)


def _count_words(candidates: Iterable[_Candidate]) -> Counter[str]:
    """Counts the words of both sides of every kept training pair, as published."""
    words: Counter[str] = Counter()
    for candidate in candidates:
        if candidate.split == "train":
            for i in candidate.kept_pairs():
                words.update(candidate.texts[i].split())
                words.update(candidate.texts[i + 1].split())
    return words


def _corpus_counts(corpus: Corpus, candidates: Iterable[_Candidate]) -> dict[str, int]:
    counts = {f"{split}_{reason}": 0 for split in SPLITS for reason in REASONS}
    counts |= {f"{split}_{what}": 0 for split in SPLITS for what in ("dialogues", "pairs")}
    for candidate in candidates:
        counts[f"{candidate.split}_dialogues"] += 1
        counts[f"{candidate.split}_pairs"] += len(candidate.kept)
    return counts | {"missing_lines": corpus.missing_lines}


def _check_not_empty(corpus: str, counts: Mapping[str, int], config: DataConfig) -> None:
    empty = [split for split in SPLITS if not counts[f"{split}_examples"]]
    if not empty:
        return
    split = empty[0]
    pairs, dialogues = (_count(counts[f"{split}_{what}"], what) for what in ("pairs", "dialogues"))
    every = _count(_total(counts, SPLITS, "dialogues"), "dialogues")
    dropped = ", ".join(_dropped_lines(counts, (split,), vars(config))) or "none"
    raise EmptyCorpusError(
        f"{corpus}: nothing is left for {_NAMES[split]}. It had {pairs} in {dialogues}, of {every} "
        f"in all; dropped: {dropped}. Raise max_length, lower min_count, set rare_words to 'unk', "
        "or take a larger corpus: three dialogues (or groups of dialogues) at least."
    )


# Packing


class _Arrays:
    """Collects utterances and examples of the runs between dropped pairs."""

    def __init__(self) -> None:
        self.tokens = array("i")
        self.offsets = array("q", [0])
        self.examples = {split: array("q") for split in SPLITS}

    def add(self, candidate: _Candidate) -> None:
        first = None
        for i, kept in enumerate(candidate.kept):
            if not kept:
                first = None
                continue
            if first is None:
                first = self._add_utterance(candidate.ids[i])
            reply = self._add_utterance(candidate.ids[i + 1])
            self.examples[candidate.split].extend((first, reply))

    def _add_utterance(self, ids: tuple[int, ...]) -> int:
        self.tokens.extend(ids)
        self.tokens.append(EOS)
        self.offsets.append(len(self.tokens))
        return len(self.offsets) - 2

    def finish(
        self, vocabulary: Vocabulary, config: DataConfig, counts: dict[str, int]
    ) -> PreparedData:
        counts |= {"utterances": len(self.offsets) - 1, "tokens": len(self.tokens)}
        return PreparedData.create(
            vocabulary=vocabulary,
            tokens=torch.frombuffer(self.tokens, dtype=torch.int32),
            utterance_offsets=torch.frombuffer(self.offsets, dtype=torch.int64),
            examples={
                split: _int64(numbers).view(-1, 2) for split, numbers in self.examples.items()
            },
            settings=asdict(config),
            counts=counts,
        )


def _int64(numbers: array[int]) -> torch.Tensor:
    if not numbers:  # `frombuffer` refuses an empty buffer
        return torch.empty(0, dtype=torch.int64)
    return torch.frombuffer(numbers, dtype=torch.int64)


# Reporting

_NAMES = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class PreparationReport:
    """What was kept and dropped, and why; in numbers, and in lines to print.

    Attributes:
        counts: For each split its ``dialogues``, ``pairs`` (read), ``examples`` (kept) and the
            pairs dropped for each of `REASONS` (``train_rare``, say); and over all splits
            ``missing_lines``, ``words_seen`` (different words of training), ``words``
            (vocabulary, with the four specials), ``utterances`` and ``tokens`` (stored).
        settings: The `DataConfig` as a mapping.
        fingerprint: Of the prepared data.
    """

    counts: Mapping[str, int]
    settings: Mapping[str, Any]
    fingerprint: str

    @classmethod
    def of(cls, data: PreparedData) -> PreparationReport:
        """The report of a data set, just prepared or opened."""
        return cls(data.counts, data.settings, data.fingerprint)

    def summary_lines(self) -> list[str]:
        """The report as text, one line each."""
        counts, total = self.counts, self._total
        missing = _count(counts["missing_lines"], "lines")
        return [
            f"corpus       {self.settings['corpus']}: {total('pairs')} in {total('dialogues')}",
            *([f"missing      {missing}; dialogues end there"] if counts["missing_lines"] else []),
            *(f"dropped      {line}" for line in _dropped_lines(counts, SPLITS, self.settings)),
            f"kept         {_count(_total(counts, SPLITS, 'examples'), 'pairs')}",
            f"vocabulary   {counts['words'] - len(SPECIALS):,} of {counts['words_seen']:,} words "
            f"in training, and {len(SPECIALS)} special ones",
            *(
                f"{_NAMES[split]:<12} {_count(counts[f'{split}_examples'], 'examples')} "
                f"of {_count(counts[f'{split}_dialogues'], 'dialogues')}"
                for split in SPLITS
            ),
            f"fingerprint  {self.fingerprint}",
        ]

    def _total(self, what: str) -> str:
        return _count(_total(self.counts, SPLITS, what), what)


def _dropped_lines(
    counts: Mapping[str, int], splits: Iterable[str], settings: Mapping[str, Any]
) -> list[str]:
    texts = {
        "empty": "with a side without words",
        "long": f"with a side of {settings['max_length']} words or more (max_length)",
        "rare": f"with a word seen in training less than {settings['min_count']} times (min_count)",
        "shared": "held out, but also in training or validation",
    }
    dropped = {reason: _total(counts, splits, reason) for reason in REASONS}
    return [f"{_count(n, 'pairs')} {texts[reason]}" for reason, n in dropped.items() if n]


def _count(number: int, things: str) -> str:
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def _total(counts: Mapping[str, int], splits: Iterable[str], what: str) -> int:
    return sum(counts[f"{split}_{what}"] for split in splits)


def _track(items: list[_T], label: str, shown: bool) -> Iterable[_T]:
    """Wraps a list in a progress bar, where one is wanted and can be seen."""
    if not (shown and sys.stderr.isatty()):
        return items
    from tqdm import tqdm

    bar: Iterable[_T] = tqdm(items, desc=label, unit=" dialogues", leave=False)
    return bar

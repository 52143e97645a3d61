"""The words that a model knows, and the number of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PAD = 0
SOS = 1
EOS = 2
UNK = 3
#: Padding, start and end of an utterance, and a word that is not in the vocabulary.
SPECIALS = ("<pad>", "<sos>", "<eos>", "<unk>")


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """Words and their ids: the id of a word is its place in `words`. Immutable.

    Args:
        words: Every word, `SPECIALS` first.

    Raises:
        ValueError: where the specials are not first, a word occurs twice, or one is empty or has
            white space inside.
    """

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _check_words(self.words)
        object.__setattr__(self, "_ids", {word: id_ for id_, word in enumerate(self.words)})

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], min_count: int = 1) -> Vocabulary:
        """Builds a vocabulary of the words counted at least `min_count` times.

        The most frequent word comes first, words of equal count in alphabetical order.
        """
        known = (word for word, count in counts.items() if count >= min_count)
        return cls((*SPECIALS, *sorted(known, key=lambda word: (-counts[word], word))))

    @classmethod
    def from_list(cls, words: Iterable[str]) -> Vocabulary:
        """Builds a vocabulary of exactly these words, as `to_list` gives them.

        Raises:
            ValueError: as the class.
        """
        return cls(tuple(words))

    def encode(self, text: str | Iterable[str]) -> list[int]:
        """The ids of normalised text or of words; `UNK` for an unknown word, without `EOS`."""
        words = text.split() if isinstance(text, str) else text
        ids = self._ids
        return [ids.get(word, UNK) for word in words]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids (of a list or a one-dimensional tensor), up to the first `EOS`.

        `PAD` and `SOS` are left out, `UNK` reads ``<unk>``.

        Raises:
            IndexError: for an id outside of the vocabulary.
        """
        words = []
        for id_ in map(int, ids):
            if id_ == EOS:
                break
            if not 0 <= id_ < len(self.words):
                raise IndexError(f"id {id_} is outside of a vocabulary of {len(self)} words.")
            if id_ not in (PAD, SOS):
                words.append(self.words[id_])
        return " ".join(words)

    def to_list(self) -> list[str]:
        """The words as a plain list, which `from_list` reads back."""
        return list(self.words)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words)"


def _check_words(words: tuple[str, ...]) -> None:
    if words[: len(SPECIALS)] != SPECIALS:
        raise ValueError(f"a vocabulary must begin with {' '.join(SPECIALS)}.")
    for word in words:
        if not isinstance(word, str) or word.split() != [word]:
            raise ValueError(f"a word must be text without white space, but got {word!r}.")
    word, count = Counter(words).most_common(1)[0]
    if count > 1:
        raise ValueError(f"a word must occur once, but {word!r} occurs {count} times.")

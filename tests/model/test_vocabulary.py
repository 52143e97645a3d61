import copy
import dataclasses
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.text import normalise
from model.vocabulary import EOS, PAD, SOS, SPECIALS, UNK, Vocabulary


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.from_counts({"you": 5, "are": 2, "how": 2, "zebra": 1}, min_count=2)


def test_words_by_falling_count_then_alphabet(vocabulary: Vocabulary) -> None:
    assert vocabulary.words == ("<pad>", "<sos>", "<eos>", "<unk>", "you", "are", "how")
    assert (PAD, SOS, EOS, UNK) == (0, 1, 2, 3)
    assert len(vocabulary) == 7
    assert "how" in vocabulary
    assert "zebra" not in vocabulary


def test_encode(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode("how are zebra you") == [6, 5, UNK, 4]
    assert vocabulary.encode(["how", "are"]) == [6, 5]
    assert vocabulary.encode("") == []


def test_decode_stops_at_the_end(vocabulary: Vocabulary) -> None:
    assert vocabulary.decode([SOS, 6, PAD, UNK, 4, EOS, 5, 5]) == "how <unk> you"
    assert vocabulary.decode(torch.tensor([6, 5, EOS])) == "how are"
    assert vocabulary.decode([]) == ""


@pytest.mark.parametrize("id_", [7, -1])
def test_decode_refuses_foreign_ids(vocabulary: Vocabulary, id_: int) -> None:
    with pytest.raises(IndexError, match=f"id {id_} is outside of a vocabulary of 7 words"):
        vocabulary.decode([id_])


def test_is_immutable_and_survives_copies(vocabulary: Vocabulary) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.words = ()  # type: ignore[misc]
    for again in (
        pickle.loads(pickle.dumps(vocabulary)),
        copy.deepcopy(vocabulary),
        Vocabulary.from_list(vocabulary.to_list()),
    ):
        assert again == vocabulary
        assert hash(again) == hash(vocabulary)
        assert again.encode("how") == [6]
    assert repr(vocabulary) == "Vocabulary(7 words)"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("a",), "must begin with <pad> <sos> <eos> <unk>"),
        ((*SPECIALS, "a", "b", "a"), "'a' occurs 2 times"),
        ((*SPECIALS, "a", "<pad>"), "'<pad>' occurs 2 times"),
        ((*SPECIALS, ""), "must be text without white space, but got ''"),
        ((*SPECIALS, "a b"), "must be text without white space, but got 'a b'"),
        ((*SPECIALS, "a\n"), "must be text without white space"),
        ((*SPECIALS, 5), "must be text without white space, but got 5"),
    ],
)
def test_refuses_bad_words(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Vocabulary(words)


@settings(deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_what_was_counted_is_read_back(texts: list[str]) -> None:
    texts = [normalise(text) for text in texts]
    vocabulary = Vocabulary.from_counts({word: 1 for text in texts for word in text.split()})
    for text in texts:
        assert vocabulary.decode(vocabulary.encode(text)) == text

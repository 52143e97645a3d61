import re
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.text import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  \t\n ", ""),
        ("Hello, world!", "hello world !"),
        ("Can't we?", "can t we ?"),
        ("Wait...", "wait . . ."),
        ("What?!", "what ? !"),
        ("Hi.You", "hi .you"),  # as published: a space before the mark only
        ("Être à l'heure.", "etre a l heure ."),
        ("İstanbul", "istanbul"),
        ("3 o'clock", "o clock"),
        ("日本語", ""),
        ("naïve\u0085café", "naive cafe"),
        ("a\x00b", "a b"),
        ("A  --  B", "a b"),
    ],
)
def test_normalises_by_hand(text: str, expected: str) -> None:
    assert normalise(text) == expected


def published(text: str) -> str:
    """The tutorial's function, word for word."""
    s = text.lower().strip()
    s = "".join(c for c in unicodedata.normalize("NFD", s) if unicodedata.category(c) != "Mn")
    s = re.sub(r"([.!?])", r" \1", s)
    s = re.sub(r"[^a-zA-Z.!?]+", r" ", s)
    return re.sub(r"\s+", r" ", s).strip()


@settings(deadline=None)
@given(st.text() | st.text(alphabet="aZé.!? '\u0301\u0085\t"))
def test_equals_the_published_function(text: str) -> None:
    assert normalise(text) == published(text)


@settings(deadline=None)
@given(st.text())
def test_is_idempotent_and_leaves_only_known_characters(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert re.fullmatch(r"[a-z.!? ]*", once)
    assert once == " ".join(once.split())


def test_every_character_of_unicode_becomes_known_ones() -> None:
    everything = " ".join(map(chr, range(sys.maxunicode + 1)))
    assert set(normalise(everything)) == set("abcdefghijklmnopqrstuvwxyz.!? ")

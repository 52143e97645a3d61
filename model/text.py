"""Normalising text: what the model sees of an utterance, in training and when talking."""

from __future__ import annotations

import re
import string
import unicodedata

PUNCTUATION = ".!?"

_KEPT = string.ascii_letters + PUNCTUATION
#: Lower case for letters, the mark itself for punctuation, a space for every other ASCII character.
_ASCII_TABLE = {code: chr(code).lower() if chr(code) in _KEPT else " " for code in range(128)}
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def normalise(text: str) -> str:
    """Normalises an utterance as the published PyTorch chatbot tutorial does.

    Lower case, accents stripped (``é`` becomes ``e``), a space before each of ``.!?``, every other
    run of characters that are not letters one space, no space at either end. As published,
    no space is put *after* a mark: ``"Hi.You"`` becomes ``"hi .you"``.

    Args:
        text: Any text.

    Returns:
        Words of ``a-z.!?`` joined by single spaces; empty where nothing of the text is kept.
        Normalising a second time changes nothing.
    """
    if not text.isascii():
        text = _NOT_ASCII.sub(" ", _strip_accents(text.lower()))
    text = text.translate(_ASCII_TABLE)
    for mark in PUNCTUATION:
        text = text.replace(mark, " " + mark)
    return " ".join(text.split())


def _strip_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")

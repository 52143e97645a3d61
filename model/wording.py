"""Words for people: counts and lists as they stand in a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "trial"), plural(0, "trial")
        ('1 trial', '0 trials')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listing(words: Sequence[str]) -> str:
    """Words joined as in a sentence.

    Example:
        >>> listing(["a", "b", "c"])
        'a, b and c'
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"

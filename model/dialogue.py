"""A dialogue as the readers of corpora yield it: text turns, before any filtering."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Consecutive utterances of a conversation.

    Attributes:
        turns: The raw text of each utterance, in order.
        group: Dialogues of one group stay in one split (variants of one template, say);
            None where the dialogue stands alone.
    """

    turns: tuple[str, ...]
    group: str | None = None

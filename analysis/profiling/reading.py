"""What a profile says, in words computed from its figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.profiling.components import ATTENTION, BATCH, DECODER, ENCODER, OPTIMIZER, OTHER
from analysis.profiling.figures import BETWEEN, Operator, Share

#: Components that run in one pass only, so that forward and backward make no sense of them.
_NO_PASS = (BATCH, OPTIMIZER, OTHER)


def share_of(found: Iterable[Share], *components: str) -> float:
    """What some components take together, in [0, 1]."""
    return sum(share.share for share in found if share.component in components)


def where_the_time_goes(found: Sequence[Share], rows: Sequence[Operator], training: bool) -> str:
    """In words: the largest components, the passes, GRU and attention, the first operator."""
    whole = sum(share.milliseconds for share in found)
    first, *others = [share for share in found if share.component != OTHER][:4] or found
    if not whole:
        return "No time was recorded."
    said = [f"the {share.component} {_percent(share.share)}" for share in others]
    sentences = [
        f"The {first.component} takes {_percent(first.share)} of the time"
        f"{', ' if said else ''}{', '.join(said)}."
    ]
    if training:
        sentences += _passes(found, whole)
    operator = next((row for row in rows if row.name != BETWEEN), None)
    if operator is not None:
        sentences.append(
            f"The operator with the most time of its own is {operator.name}: "
            f"{_percent(operator.share)} in {operator.calls:.0f} calls a step."
        )
    return " ".join(sentences)


def _passes(found: Sequence[Share], whole: float) -> list[str]:
    both = [share for share in found if share.component not in _NO_PASS]
    forward, backward = sum(s.forward for s in both) / whole, sum(s.backward for s in both) / whole
    return [
        f"The forward pass takes {_percent(forward)}, the backward pass {_percent(backward)}, "
        f"clipping and updates {_percent(share_of(found, OPTIMIZER))}.",
        f"Encoder and decoder, where the GRU layers are, take "
        f"{_percent(share_of(found, ENCODER, DECODER))}, attention "
        f"{_percent(share_of(found, ATTENTION))}; a published profile of such a chatbot gives the "
        "GRU about 60 % of the training time, and attention about 15 %.",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

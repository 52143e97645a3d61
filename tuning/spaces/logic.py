"""Logic of three values, as in SQL: true, false, and None for neither (Kleene's strong logic)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def computed(compute: Callable[..., Any], *values: Any) -> Any:
    """The result of a function, or None where a value is missing or the result is no number."""
    if None in values:
        return None
    try:
        result = compute(*values)
    except (ZeroDivisionError, OverflowError):
        return None
    return None if isinstance(result, float) and math.isnan(result) else result


def negated(flag: bool | None) -> bool | None:
    """The contrary; of neither it is neither."""
    return None if flag is None else not flag


def conjunction(flags: Sequence[bool | None]) -> bool | None:
    """Whether all are true: false where one is false, else neither where one is neither."""
    if False in flags:
        return False
    return None if None in flags else True


def disjunction(flags: Sequence[bool | None]) -> bool | None:
    """Whether one is true; else neither where one is neither."""
    if True in flags:
        return True
    return None if None in flags else False

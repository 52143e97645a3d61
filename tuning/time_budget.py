"""How long one command may search: a duration in words, and a clock that says when it is over."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from model.errors import ConfigurationError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
#: Each unit at most once, the larger ones first.
_DURATION = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in _UNITS))


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``90s``, ``45m``, ``2h``, ``1h30m`` or ``1.5d``.

    Raises:
        ValueError: where it is none, or not longer than 0, in words.
    """
    match = _DURATION.fullmatch(text)
    seconds = 0.0
    if match is not None:
        numbers = zip(match.groups(), _UNITS.values(), strict=True)
        seconds = sum(float(number) * unit for number, unit in numbers if number is not None)
    if not 0 < seconds < math.inf:
        raise ValueError(
            f"must be a duration longer than 0, such as 90s, 45m, 2h or 1h30m, but got {text!r}"
        )
    return seconds


@dataclass
class TimeBudget:
    """Says when the time of a search is over, by a clock that nobody sets.

    Attributes:
        seconds: How long it may take; None for as long as it likes.
        started: When it began, by `time.monotonic`.
        ended_search: Whether the search was ended because of it.
        clock: What `started` was read from.

    Raises:
        ConfigurationError: where the seconds are not a number above 0.
    """

    seconds: float | None
    started: float
    ended_search: bool = False
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            problem = f"must be a number of seconds greater than 0, but got {self.seconds}."
            raise ConfigurationError("time_budget", [problem])

    @property
    def over(self) -> bool:
        """Whether there is no time left."""
        return self.seconds is not None and self.clock() - self.started >= self.seconds

"""Figures and counts in words, as the report says them."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Directories of a path from the root on, but not those of an address such as https://host/.
_DIRECTORIES = re.compile(r"(?<![\w.~/-])(?<!:/)/(?!/)(?:[^\s/:'\"<>|]+/)+")


def number(value: Any) -> str:
    """A figure in four significant digits; whole numbers whole; `-` for what is missing.

    Example:
        >>> number(0.000512345), number(64), number(12345.6), number(None)
        ('0.0005123', '64', '12346', '-')
    """
    if value is None or pd.isna(value):
        return "-"
    if isinstance(value, bool) or not isinstance(value, float | int):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def loss(value: float) -> str:
    """A value of the objective: four decimals, or four digits where it is small or large."""
    return f"{value:.4f}" if 0.1 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time in its two largest units.

    Example:
        >>> duration(7.04), duration(95), duration(8000)
        ('7 s', '1 min 35 s', '2 h 13 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for unit, size, lower, part in (
        ("d", _DAY, "h", _HOUR),
        ("h", _HOUR, "min", _MINUTE),
        ("min", _MINUTE, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a span of time reads best, and its length in seconds."""
    units = (
        ("days", 3 * _DAY, _DAY),
        ("hours", 3 * _HOUR, _HOUR),
        ("minutes", 3 * _MINUTE, _MINUTE),
    )
    for name, least, length in units:
        if seconds >= least:
            return name, float(length)
    return "seconds", 1.0


def without_directories(text: str) -> str:
    """A text without the directories of absolute paths, which are nobody's business.

    Example:
        >>> without_directories("open /home/ada/runs/demo/best.pt: gone")
        'open best.pt: gone'
    """
    return _DIRECTORIES.sub("", text)

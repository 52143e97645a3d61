"""Checking values that people write: every problem collected, each with a suggestion."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from model.errors import ConfigurationError


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns ``, did you mean 'x'?`` for the nearest valid name, or lists the valid names."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    if near:
        return f", did you mean {near[0]!r}?"
    return f"; valid: {', '.join(names)}." if names else "."


#: Beyond it neither torch nor JSON's other readers keep whole numbers.
_LARGEST = 2.0**63


class Problems:
    """Collects problems of one source and raises them together."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[str] = []

    def add(self, path: str, problem: str) -> None:
        """Notes one problem at a dotted key path ('' for the whole source)."""
        self.found.append(f"{path}: {problem}" if path else problem)

    def unknown_key(self, path: str, key: str, valid: Iterable[str]) -> None:
        """Notes a key that nothing reads, with the nearest valid name."""
        self.add(f"{path}.{key}" if path else str(key), f"unknown key{did_you_mean(key, valid)}")

    def raise_if_any(self) -> None:
        """Raises every problem noted so far, if there is one.

        Raises:
            ConfigurationError: with all of them.
        """
        if self.found:
            raise ConfigurationError(self.source, self.found)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a configuration field accepts.

    Attributes:
        kind: ``int``, ``float``, ``str`` or ``bool``.
        low, high: Inclusive bounds, or None for no bound.
        above: Exclusive lower bound, or None.
        choices: The only valid values, or None.
        optional: Whether None is valid.
        help: One line for ``--help`` and the documentation, with the unit.
    """

    kind: type
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] | None = None
    optional: bool = False
    help: str = ""

    def problem_with(self, value: Any) -> str | None:
        """Says what is wrong with a value, or returns None where it is valid."""
        if value is None and self.optional:
            return None
        wanted = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[
            self.kind
        ]
        if not self._type_fits(value):
            return f"must be {wanted}, but got {value!r} ({type(value).__name__})."
        if self.choices is not None and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, but got {value!r}."
        if isinstance(value, int) and abs(value) >= _LARGEST:
            return f"must be less than 2^63 in size, but has {len(str(abs(value)))} digits."
        if self.kind in (int, float) and not self._in_bounds(value):
            return f"must be {self._bounds_text()}, but got {value!r}."
        return None

    def _type_fits(self, value: Any) -> bool:
        if isinstance(value, bool):
            return self.kind is bool
        if self.kind is float:
            return isinstance(value, int | float)
        return isinstance(value, self.kind)

    def _in_bounds(self, value: float) -> bool:
        return (
            abs(value) < math.inf  # also false for NaN
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )

    def _bounds_text(self) -> str:
        if self.above is not None:
            upper = "" if self.high is None else f" and at most {self.high:g}"
            return f"greater than {self.above:g}{upper}"
        if self.low is not None and self.high is not None:
            return f"between {self.low:g} and {self.high:g}"
        return f"at least {self.low:g}" if self.low is not None else "a finite number"

    def convert(self, value: Any) -> Any:
        """Gives a valid value its declared type (a whole number becomes a float, say)."""
        return self.kind(value) if value is not None else None

    def parse(self, text: str) -> Any:
        """Reads a value typed on a command line.

        Raises:
            ValueError: where the text is not of this kind; bounds are not checked here.
        """
        if self.optional and text.lower() in ("none", "null", ""):
            return None
        if self.kind is bool:
            known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            if text.lower() not in known:
                raise ValueError(f"must be true or false, but got {text!r}.")
            return known[text.lower()]
        if self.kind is int:
            try:
                return int(text)
            except ValueError:
                raise ValueError(f"must be a whole number, but got {text!r}.") from None
        if self.kind is float:
            try:
                return float(text)
            except ValueError:
                raise ValueError(f"must be a number, but got {text!r}.") from None
        return text


def setting(default: Any, kind: type, **rule: Any) -> Any:
    """Declares a dataclass field with its `Rule`."""
    return field(default=default, metadata={"rule": Rule(kind=kind, **rule)})


def rules_of(cls: type) -> dict[str, Rule]:
    """The rule of every field of a configuration dataclass, by field name."""
    return {f.name: f.metadata["rule"] for f in fields(cls)}


def defaults_of(cls: type) -> dict[str, Any]:
    """The default of every field of a configuration dataclass, by field name."""
    return {f.name: _default(f) for f in fields(cls)}


def _default(f: Field[Any]) -> Any:
    assert f.default is not MISSING, f"{f.name} needs a default"
    return f.default

"""Distributions: which values a hyper-parameter may take, and how likely each one is.

They carry the names and keys of the Weights & Biases sweep format. Each is defined by
its inverse cumulative distribution function, ``quantile``, from which sampling follows
(inverse transform sampling), so that any source of uniform numbers, random or quasi-random, can
drive it. A new distribution is a subclass of `Distribution` listed in `DISTRIBUTIONS`.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from model.validation import Problems, did_you_mean

Scalar = bool | int | float | str | None

#: Distributions of the W&B format that are known but not built here.
UNSUPPORTED_DISTRIBUTIONS = frozenset(
    {"categorical_w_probabilities", "q_uniform", "log_uniform", "q_log_uniform"}
    | {"q_log_uniform_values", "inv_log_uniform", "inv_log_uniform_values", "normal", "q_normal"}
    | {"log_normal", "q_log_normal", "beta", "q_beta"}
)

#: Keys of a W&B parameter that are known but not built here.
UNSUPPORTED_KEYS = frozenset({"probabilities", "mu", "sigma", "q", "a", "b", "parameters"})

Fault = tuple[str, str]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _same(one: Any, other: Any) -> bool:
    """Equality that tells True from 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


class Distribution(ABC):
    """How the values of one hyper-parameter are distributed.

    Attributes:
        name: The ``distribution`` of the sweep format.
        keys: The keys that it needs in a sweep file.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]

    @abstractmethod
    def quantile(self, u: float) -> Scalar:
        """The inverse cumulative distribution function at u in [0, 1)."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether a value can be drawn."""

    @abstractmethod
    def size(self) -> int | None:
        """Number of different values, or None where there are infinitely many."""

    @abstractmethod
    def grid(self) -> Sequence[Scalar]:
        """Every value, in order.

        Raises:
            ValueError: where there are infinitely many.
        """

    @abstractmethod
    def describe(self) -> str:
        """One line for people."""

    @abstractmethod
    def to_mapping(self) -> dict[str, Any]:
        """The parameter as a sweep file states it; `parse_distribution` reads it back."""

    @classmethod
    @abstractmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Distribution:
        """Builds the distribution from a parameter in which `faults` finds nothing."""

    @classmethod
    @abstractmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:
        """Yields (key, what is wrong) for the values of a parameter that has all its keys."""

    def sample(self, rng: random.Random) -> Scalar:
        """Draws one value, using up exactly one number of the generator."""
        return self.quantile(rng.random())


@dataclass(frozen=True)
class Constant(Distribution):
    """A single value."""

    value: Scalar
    name: ClassVar[str] = "constant"
    keys: ClassVar[tuple[str, ...]] = ("value",)

    def quantile(self, u: float) -> Scalar:  # noqa: D102
        return self.value

    def contains(self, value: Any) -> bool:  # noqa: D102
        return _same(self.value, value)

    def size(self) -> int:  # noqa: D102
        return 1

    def grid(self) -> Sequence[Scalar]:  # noqa: D102
        return (self.value,)

    def describe(self) -> str:  # noqa: D102
        return f"{self.value}"

    def to_mapping(self) -> dict[str, Any]:  # noqa: D102
        return {"value": self.value}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Constant:  # noqa: D102
        return cls(mapping["value"])

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        return iter(())


@dataclass(frozen=True)
class Categorical(Distribution):
    """Any of several values, equally likely. Numbers among them have no order."""

    values: tuple[Scalar, ...]
    name: ClassVar[str] = "categorical"
    keys: ClassVar[tuple[str, ...]] = ("values",)

    def __post_init__(self) -> None:
        _raise_first(self.faults(self.to_mapping()))

    def quantile(self, u: float) -> Scalar:  # noqa: D102
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def contains(self, value: Any) -> bool:  # noqa: D102
        return any(_same(own, value) for own in self.values)

    def size(self) -> int:  # noqa: D102
        return len(self.values)

    def grid(self) -> Sequence[Scalar]:  # noqa: D102
        return self.values

    def describe(self) -> str:  # noqa: D102
        return f"one of {', '.join(str(value) for value in self.values)}"

    def to_mapping(self) -> dict[str, Any]:  # noqa: D102
        return {"values": list(self.values)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Categorical:  # noqa: D102
        return cls(tuple(mapping["values"]))

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        values = mapping["values"]
        if not isinstance(values, list | tuple):
            yield "values", f"must be a list, but got {values!r} ({type(values).__name__})."
            return
        if not values:
            yield "values", "must name at least one value, but is empty."
        for index, value in enumerate(values):
            if any(_same(value, earlier) for earlier in values[:index]):
                yield f"values[{index}]", f"{value!r} is there twice; name each value once."


@dataclass(frozen=True)
class _Range(Distribution):
    """A range with both ends included; ``min == max`` leaves one value, and is allowed."""

    low: float
    high: float
    keys: ClassVar[tuple[str, ...]] = ("min", "max")

    def __post_init__(self) -> None:
        _raise_first(self.faults({"min": self.low, "max": self.high}))

    def contains(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high

    def size(self) -> int | None:
        return 1 if self.low == self.high else None

    def grid(self) -> Sequence[Scalar]:
        if self.size() is None:
            raise ValueError(
                "a continuous range has no list of values to enumerate; "
                "name them with values, or search with method random or bayes."
            )
        return (self.quantile(0.0),)

    def describe(self) -> str:
        return f"{self.low} to {self.high}, {self.name}"

    def to_mapping(self) -> dict[str, Any]:
        return {"distribution": self.name, "min": self.low, "max": self.high}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> _Range:
        return cls(mapping["min"], mapping["max"])

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:
        low, high = mapping["min"], mapping["max"]
        for key, value in (("min", low), ("max", high)):
            if not _is_number(value):
                yield key, f"must be a number, but got {value!r} ({type(value).__name__})."
            elif isinstance(value, float) and not math.isfinite(value):
                yield key, f"must be a finite number, but got {value!r}."
        if _is_number(low) and _is_number(high) and low > high:
            yield "min", f"must be at most max, but the range {low!r} to {high!r} is empty."


@dataclass(frozen=True)
class Uniform(_Range):
    """Real numbers, every one between the ends equally likely."""

    name: ClassVar[str] = "uniform"

    def quantile(self, u: float) -> float:  # noqa: D102
        # Written so that it cannot overflow; clamped because rounding may pass an end.
        return float(min(max((1 - u) * self.low + u * self.high, self.low), self.high))


@dataclass(frozen=True)
class IntUniform(_Range):
    """Whole numbers, every one between the ends equally likely."""

    low: int
    high: int
    name: ClassVar[str] = "int_uniform"

    def quantile(self, u: float) -> int:  # noqa: D102
        return min(self.low + int(u * self.size()), self.high)

    def contains(self, value: Any) -> bool:  # noqa: D102
        return super().contains(value) and value == int(value)

    def size(self) -> int:  # noqa: D102
        return self.high - self.low + 1

    def grid(self) -> Sequence[int]:  # noqa: D102
        return range(self.low, self.high + 1)

    def describe(self) -> str:  # noqa: D102
        return f"{self.low} to {self.high}, whole numbers"

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        yield from super().faults(mapping)
        for key in cls.keys:
            if _is_number(mapping[key]) and not _is_whole(mapping[key]):
                yield key, f"must be a whole number for int_uniform, but got {mapping[key]!r}."


@dataclass(frozen=True)
class LogUniform(_Range):
    """Positive real numbers whose logarithm is uniform: each factor of ten equally likely."""

    name: ClassVar[str] = "log_uniform_values"

    def quantile(self, u: float) -> float:  # noqa: D102
        value = math.exp((1 - u) * math.log(self.low) + u * math.log(self.high))
        return float(min(max(value, self.low), self.high))

    @classmethod
    def faults(cls, mapping: Mapping[str, Any]) -> Iterator[Fault]:  # noqa: D102
        yield from super().faults(mapping)
        if _is_number(mapping["min"]) and mapping["min"] <= 0:
            yield "min", f"must be greater than 0 for a log range, but got {mapping['min']!r}."


#: The distributions that can be searched, by their name in the sweep format.
DISTRIBUTIONS: dict[str, type[Distribution]] = {
    kind.name: kind for kind in (Constant, Categorical, Uniform, IntUniform, LogUniform)
}

_KEYS = ("value", "values", "min", "max")


def _raise_first(faults: Iterator[Fault]) -> None:
    for key, fault in faults:
        raise ValueError(f"{key} {fault}")


def parse_distribution(
    mapping: Mapping[str, Any], problems: Problems, path: str
) -> Distribution | None:
    """Reads one parameter of a sweep file, by W&B's rules for an omitted ``distribution``.

    ``value`` is a constant, ``values`` are categorical, ``min`` and ``max`` are whole numbers
    where both ends are written as such, and real numbers otherwise.

    Args:
        mapping: The parameter's keys and values.
        problems: Where everything wrong is noted.
        path: Key path of the parameter, ``parameters.clip`` say.

    Returns:
        The distribution, or None where a problem was noted.
    """
    noted = len(problems.found)
    kind = _kind_of(mapping, problems, path)
    _check_keys(mapping, kind, problems, path)
    if kind is None or any(key not in mapping for key in kind.keys):
        return None
    for key, fault in kind.faults(mapping):
        problems.add(f"{path}.{key}", fault)
    return kind.from_mapping(mapping) if len(problems.found) == noted else None


def _kind_of(
    mapping: Mapping[str, Any], problems: Problems, path: str
) -> type[Distribution] | None:
    """The class that a parameter asks for, noting why where there is none."""
    if "distribution" not in mapping:
        return _implied_kind(mapping, problems, path)
    name = mapping["distribution"]
    if isinstance(name, str) and name in DISTRIBUTIONS:
        return DISTRIBUTIONS[name]
    supported = ", ".join(DISTRIBUTIONS)
    if isinstance(name, str) and name in UNSUPPORTED_DISTRIBUTIONS:
        problem = f"{name!r} is not supported yet; supported: {supported}."
    else:
        problem = f"unknown distribution {name!r}{did_you_mean(str(name), DISTRIBUTIONS)}"
    problems.add(f"{path}.distribution", problem)
    return None


def _implied_kind(
    mapping: Mapping[str, Any], problems: Problems, path: str
) -> type[Distribution] | None:
    if "value" in mapping:
        return Constant
    if "values" in mapping:
        return Categorical
    ends = [mapping[key] for key in ("min", "max") if key in mapping]
    if ends:
        return IntUniform if all(_is_whole(end) for end in ends) else Uniform
    if not UNSUPPORTED_KEYS & set(mapping):
        problems.add(path, "needs value, values, or min and max.")
    return None


def _check_keys(
    mapping: Mapping[str, Any], kind: type[Distribution] | None, problems: Problems, path: str
) -> None:
    """Notes keys that are unknown, that do not go together, or that are missing."""
    own = (*_KEYS, "distribution") if kind is None else (*kind.keys, "distribution")
    for key in mapping:
        if key in UNSUPPORTED_KEYS:
            problems.add(f"{path}.{key}", f"not supported yet; supported: {', '.join(_KEYS)}.")
        elif key not in (*_KEYS, "distribution"):
            problems.unknown_key(path, key, (*_KEYS, "distribution"))
        elif key not in own:
            problems.add(f"{path}.{key}", f"cannot stand beside {own[0]}.")
    for key in own[:-1] if kind is not None else ():
        if key not in mapping:
            problems.add(path, f"needs {' and '.join(own[:-1])}, but {key} is missing.")

"""Reading one parameter of a sweep file, by the rules of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.validation import Problems, did_you_mean
from tuning.distributions.base import Distribution, is_whole
from tuning.distributions.discrete import Categorical, Constant, WeightedCategorical
from tuning.distributions.quantised import (
    QBeta,
    QLogNormal,
    QLogUniform,
    QLogUniformExponent,
    QNormal,
    QUniform,
)
from tuning.distributions.ranges import (
    IntUniform,
    InvLogUniform,
    InvLogUniformExponent,
    LogUniform,
    LogUniformExponent,
    Uniform,
)
from tuning.distributions.shapes import Beta, LogNormal, Normal

#: Every distribution of the sweep format, by its name there.
DISTRIBUTIONS: dict[str, type[Distribution]] = {
    kind.name: kind
    for kind in (
        *(Constant, Categorical, WeightedCategorical, Uniform, IntUniform),
        *(LogUniform, LogUniformExponent, InvLogUniform, InvLogUniformExponent),
        *(Normal, LogNormal, Beta, QUniform, QLogUniform, QLogUniformExponent),
        *(QNormal, QLogNormal, QBeta),
    )
}

#: The keys that say which distribution is meant where it has no name.
_TELLING = ("value", "values", "min", "max")
_KNOWN = tuple(
    dict.fromkeys(
        [
            *_TELLING,
            "distribution",
            *(key for kind in DISTRIBUTIONS.values() for key in (*kind.keys, *kind.optional)),
        ]
    )
)


def parse_distribution(
    mapping: Mapping[str, Any], problems: Problems, path: str
) -> Distribution | None:
    """Reads one parameter of a sweep file, by W&B's rules for an omitted ``distribution``.

    ``value`` is a constant, ``values`` are categorical, with ``probabilities`` weighted; ``min``
    and ``max`` are whole numbers where both ends are written as such, and real numbers otherwise.
    All others need their name.

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
    for key, fault in kind.faults({**kind.optional, **mapping}):
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
    hint = did_you_mean(str(name), DISTRIBUTIONS)
    if name == "ordinal":
        hint = ": write 'ordinal: true' for the field under dialogue_tune.parameters."
    problems.add(f"{path}.distribution", f"unknown distribution {name!r}{hint}")
    return None


def _implied_kind(
    mapping: Mapping[str, Any], problems: Problems, path: str
) -> type[Distribution] | None:
    if "value" in mapping:
        return Constant
    if "values" in mapping:
        return WeightedCategorical if "probabilities" in mapping else Categorical
    ends = [mapping[key] for key in ("min", "max") if key in mapping]
    if ends:
        return IntUniform if all(is_whole(end) for end in ends) else Uniform
    if not any(_with_keys([key]) for key in mapping if key != "distribution"):
        problems.add(path, "needs value, values, or min and max.")
    return None


def _check_keys(
    mapping: Mapping[str, Any], kind: type[Distribution] | None, problems: Problems, path: str
) -> None:
    """Notes keys that are unknown, that do not go together, or that are missing."""
    own = _KNOWN if kind is None else (*kind.keys, *kind.optional, "distribution")
    known = [key for key in mapping if key in _KNOWN]
    for key in mapping:
        if key not in _KNOWN:
            problems.unknown_key(path, key, _KNOWN)
        elif kind is None and key not in (*_TELLING, "distribution"):
            if "distribution" not in mapping:
                names = _listing(_with_keys(known) or _with_keys([key]))
                problems.add(f"{path}.{key}", f"needs distribution: {names}.")
        elif kind is not None and key not in own:
            problems.add(f"{path}.{key}", _stranger(mapping, kind))
    needed = () if kind is None else kind.keys
    for key in needed:
        if key not in mapping:
            problems.add(path, f"needs {' and '.join(needed)}, but {key} is missing.")


def _stranger(mapping: Mapping[str, Any], kind: type[Distribution]) -> str:
    """Why a key that is not of a kind cannot stand there, and with which distribution it could."""
    beside = kind.keys[0] if kind.keys else f"distribution {kind.name}"
    text = f"cannot stand beside {beside}."
    others = _with_keys([name for name in mapping if name in _KNOWN and name != "distribution"])
    return f"{text} For both, use distribution: {_listing(others)}." if others else text


def _with_keys(keys: Sequence[str]) -> list[str]:
    """The distributions that have all of these keys."""
    return [
        name
        for name, kind in DISTRIBUTIONS.items()
        if {*keys} <= {*kind.keys, *kind.optional, "distribution"}
    ]


def _listing(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)

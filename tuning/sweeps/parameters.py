"""The ``parameters`` of a sweep file: groups taken apart, each field against its rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from model.config import DATA_FIELDS, RULES
from model.validation import Problems, Rule
from tuning.distributions import (
    Categorical,
    Constant,
    Continuous,
    Distribution,
    IntUniform,
    InvLogUniform,
    LogUniform,
    Ordinal,
    Quantised,
    QUniform,
    Shape,
    Uniform,
    WeightedCategorical,
    parse_distribution,
)

#: Groups within groups.
_DEEPEST_GROUP = 20
#: Whole numbers beyond it are not all floats.
_LARGEST_WHOLE = 2.0**53
#: Less of a shape than this is no search.
_LEAST_SHARE = 1e-6

NOT_SEARCHED = (
    "can be set but not searched: it changes examples or vocabulary, "
    "so losses are not comparable; give one value."
)


@dataclass(frozen=True)
class Leaf:
    """One field as the sweep file states it.

    Attributes:
        path: Where it stands, ``parameters.clip`` say.
        stated: What is there, normally a mapping.
    """

    path: str
    stated: Any


def flatten(parameters: Any, problems: Problems) -> dict[Any, Leaf]:
    """The fields of ``parameters`` by their own names, with those in groups, in order.

    A group is W&B's nested parameter, a mapping with ``parameters``; its name is free.
    """
    leaves: dict[Any, Leaf] = {}
    if not isinstance(parameters, Mapping) or not parameters:
        got = "" if parameters is None else f", but got {parameters!r}"
        problems.add("parameters", f"is required, a mapping from field to its values{got}.")
    else:
        _take_group(parameters, "parameters", 0, leaves, problems)
    return leaves


def _take_group(
    group: Any, path: str, depth: int, leaves: dict[Any, Leaf], problems: Problems
) -> None:
    if not isinstance(group, Mapping) or not group:
        problems.add(path, f"must be a mapping from field to its values, but got {group!r}.")
        return
    if depth == _DEEPEST_GROUP:
        problems.add(path, f"groups within groups go deeper than {_DEEPEST_GROUP}.")
        return
    for name, stated in group.items():
        here = f"{path}.{name}"
        if isinstance(stated, Mapping) and "parameters" in stated:
            for key in stated:
                if key != "parameters":
                    problems.add(f"{here}.{key}", "cannot stand beside parameters.")
            _take_group(stated["parameters"], f"{here}.parameters", depth + 1, leaves, problems)
        elif name in leaves:
            problems.add(here, f"{name} is there already, at {leaves[name].path}.")
        else:
            leaves[name] = Leaf(here, stated)


def parse_field(name: Any, leaf: Leaf, problems: Problems, notes: list[str]) -> Distribution | None:
    """The distribution of one field, as far as the field accepts it.

    Returns:
        The distribution, or None where a problem was noted.
    """
    if name not in RULES:
        problems.unknown_key(leaf.path.rpartition(".")[0], name, RULES)
        return None
    stated, rule = leaf.stated, RULES[name]
    if not isinstance(stated, Mapping):
        problems.add(leaf.path, f"must be a mapping such as {{value: ...}}, but got {stated!r}.")
        return None
    stated = _without_open_end(stated, rule, leaf.path, notes)
    noted = len(problems.found)
    distribution = parse_distribution(stated, problems, leaf.path)
    for key, fault in _stated_faults(stated, rule):
        if not any(found.startswith(f"{leaf.path}.{key}:") for found in problems.found[noted:]):
            problems.add(f"{leaf.path}.{key}", fault)
    if distribution is None or len(problems.found) > noted:
        return None
    if isinstance(distribution, Quantised) and rule.kind is int and distribution.q % 1 == 0:
        distribution = replace(distribution, whole=True)
    misfit = _misfit(name, distribution)
    if misfit is not None:
        problems.add(leaf.path, misfit)
        return None
    distribution = _cut(name, distribution, leaf.path, problems, notes)
    if distribution is not None:
        _check_ends(distribution, rule, leaf.path, problems)
        _note_logarithms(name, distribution, leaf.path, notes)
    return distribution if len(problems.found) == noted else None


def _without_open_end(
    stated: Mapping[str, Any], rule: Rule, path: str, notes: list[str]
) -> Mapping[str, Any]:
    """An even range from where a field's values begin, that place itself not being one.

    W&B's own examples have learning rates from 0. Drawing exactly 0 has no probability.
    """
    low, kinds = stated.get("min"), (None, Uniform.name)
    if rule.above is None or rule.kind is not float or stated.get("distribution") not in kinds:
        return stated
    if type(low) not in (int, float) or low != rule.above:
        return stated
    if "distribution" not in stated and type(low) is type(stated.get("max")) is int:
        return stated  # whole numbers, of which it is one
    notes.append(f"{path}.min: {low:g} itself is left out, for it is no {path.rpartition('.')[2]}.")
    return {**stated, "min": math.nextafter(rule.above, math.inf)}


def _stated_faults(stated: Mapping[str, Any], rule: Rule) -> Iterator[tuple[str, str]]:
    """Yields (key, fault) for every value and end of a range that the field does not accept."""
    values = stated.get("values")
    named = {f"values[{i}]": v for i, v in enumerate(values)} if isinstance(values, list) else {}
    if "value" in stated:
        named["value"] = stated["value"]
    # A fractional end over a field of whole numbers is a matter of the range, see `_misfit`.
    kinds = {float: (int, float), int: (int,)}.get(rule.kind, ())
    plain = (None, *(kind.name for kind in (Uniform, IntUniform, LogUniform, InvLogUniform)))
    if stated.get("distribution") in plain:
        named |= {key: stated[key] for key in ("min", "max") if type(stated.get(key)) in kinds}
    for key, value in named.items():
        fault = rule.problem_with(value)
        if fault is not None:
            yield key, fault


def _misfit(name: str, distribution: Distribution) -> str | None:
    """What is wrong with searching a field by a distribution, its values being valid."""
    if name in DATA_FIELDS and (distribution.size() != 1 or "min" in distribution.keys):
        return NOT_SEARCHED
    if name == "val_examples" and distribution.size() != 1:
        return "can be set but not searched: losses on different examples are not comparable."
    return _kind_misfit(name, RULES[name].kind, distribution)


def _kind_misfit(name: str, kind: type, distribution: Distribution) -> str | None:
    """What is wrong with the numbers of a distribution for a kind of field."""
    if isinstance(distribution, Constant | Categorical) or kind is float:
        return None
    if kind is not int:
        return f"a range needs a field with numbers, but {name} is text; name its values."
    if isinstance(distribution, Continuous):
        return (
            f"{name} is a whole number and cannot have a continuous range; write min and max as "
            "whole numbers (int_uniform), use one with steps (q_...), or name its values."
        )
    if isinstance(distribution, Quantised) and not distribution.whole:
        return f"{name} is a whole number, and so must q be, but it is {distribution.q!r}."
    return None


def _cut(
    name: str, distribution: Distribution, path: str, problems: Problems, notes: list[str]
) -> Distribution | None:
    """A shape without ends of its own, cut off at what the field accepts; a note says so."""
    shape = distribution.base if isinstance(distribution, Quantised) else distribution
    if not isinstance(shape, Shape):
        return distribution
    assert isinstance(distribution, Shape | Quantised)
    lower, upper, words = _accepted(RULES[name])
    low, high = distribution.quantile(0.0), distribution.quantile(1.0)
    lower = None if lower is None or low >= lower else lower
    upper = None if upper is None or high <= upper else upper
    inside = distribution.share_within(lower, upper)
    if inside < _LEAST_SHARE:
        problems.add(path, f"lies outside of what {name} accepts, which is {words}.")
        return None
    if inside < 1 - _LEAST_SHARE:
        notes.append(
            f"{path}: cut off to what {name} accepts, which is {words}: "
            f"{100 * (1 - inside):.2g} % of {distribution.name} lies beyond."
        )
    return distribution.within(lower, upper)


def _accepted(rule: Rule) -> tuple[float | None, float | None, str]:
    """The bounds of a field with numbers, both of them valid, and in words."""
    lower, upper, words = rule.low, rule.high, []
    if lower is not None:
        words.append(f"at least {lower:g}")
    if rule.above is not None:
        lower = math.nextafter(rule.above, math.inf)
        words.append(f"greater than {rule.above:g}")
    if upper is not None:
        words.append(f"at most {upper:g}")
    elif rule.kind is int:
        upper = _LARGEST_WHOLE
    return lower, upper, " and ".join(words)


def _check_ends(distribution: Distribution, rule: Rule, path: str, problems: Problems) -> None:
    """Notes ends of a range that the field does not accept, where they are not as stated."""
    low, high = getattr(distribution, "low", None), getattr(distribution, "high", None)
    if low is None or high is None or isinstance(distribution, Uniform | IntUniform | LogUniform):
        return
    keys = ("max", "min") if distribution.name.startswith("inv_") else ("min", "max")
    how = "rounded to steps it" if isinstance(distribution, Quantised) else "its exponential"
    for key, value in zip(keys, (low, high), strict=True):
        fault = rule.problem_with(value)
        if fault is not None:
            problems.add(f"{path}.{key}", f"{how} is {value:g}, which {fault}")


def _note_logarithms(name: str, distribution: Distribution, path: str, notes: list[str]) -> None:
    """Warns where the ends of a range of logarithms look like values: a common mistake."""
    if "log_uniform" not in distribution.name or distribution.name.endswith("_values"):
        return
    stated = distribution.to_mapping()
    if 0 < stated["min"] <= stated["max"] <= 1:
        notes.append(
            f"warning: {path}: min and max of {distribution.name} are natural logarithms, so "
            f"{name} is {distribution.describe()}; for values, use {distribution.name}_values."
        )


def grid_fault(distribution: Distribution) -> str | None:
    """Why a grid cannot have a distribution, by W&B's rule, or None.

    It takes values without probabilities, whole numbers, and ``q_uniform``; ordinal values too.
    """
    if distribution.size() == 1 or isinstance(distribution, IntUniform):
        return None
    if isinstance(distribution, WeightedCategorical):
        return "a grid has no probabilities; leave them out, or use method random or bayes."
    if isinstance(distribution, Categorical):
        return None
    if isinstance(distribution, QUniform):
        if distribution.size() is not None:
            return None
        return "a grid of more than 10,000 values; raise q, or use method random or bayes."
    return (
        "a grid cannot enumerate a continuous range; "
        "name its values, or use method random or bayes."
        if isinstance(distribution, Continuous)
        else f"a grid cannot have {distribution.name}; name its values or use q_uniform, or use "
        "method random or bayes."
    )


def as_ordinal(distribution: Distribution) -> tuple[Distribution | None, str | None]:
    """A categorical field as an ordinal one, or what is wrong with that."""
    if type(distribution) is not Categorical:
        return None, f"needs values without probabilities, but the field is {distribution.name}."
    for key, fault in Ordinal.faults(distribution.to_mapping()):
        return None, f"{key} {fault}"
    return Ordinal(distribution.values), None

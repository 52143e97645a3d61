"""The search space of a sweep file: its ``parameters`` and what our own part says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.validation import Problems, did_you_mean
from tuning.distributions import Distribution
from tuning.spaces.search_space import SearchSpace
from tuning.sweeps.extension import EXTENSION, Extension
from tuning.sweeps.parameters import Leaf, as_ordinal, flatten, grid_fault, parse_field


def parse_space(
    parameters: Any, extension: Extension, problems: Problems, notes: list[str], *, grid: bool
) -> SearchSpace:
    """Reads the search space; fields with problems are left out.

    Args:
        parameters: What the sweep file says, or None where it says nothing.
        extension: Our own part of the file.
        problems: Where everything wrong is noted.
        notes: Where is noted what people may not expect.
        grid: Whether the space must be one that a grid can enumerate.
    """
    leaves = flatten(parameters, problems)
    space: dict[str, Distribution] = {}
    for name, leaf in leaves.items():
        distribution = parse_field(name, leaf, problems, notes)
        if distribution is not None:
            space[name] = distribution
    _check_extension_names(extension, leaves, problems)
    for name in extension.ordinal:
        if name in space:
            ordinal, fault = as_ordinal(space[name])
            if ordinal is None:
                problems.add(f"{EXTENSION}.parameters.{name}.ordinal", str(fault))
            else:
                space[name] = ordinal
    for name, distribution in space.items() if grid else ():
        fault = grid_fault(distribution)
        if fault is not None:
            problems.add(leaves[name].path, fault)
    return _with_conditions(space, extension, problems)


def _check_extension_names(
    extension: Extension, leaves: Mapping[Any, Leaf], problems: Problems
) -> None:
    for name in dict.fromkeys((*extension.ordinal, *extension.when)):
        if name not in leaves:
            hint = did_you_mean(str(name), map(str, leaves))
            path = f"{EXTENSION}.parameters.{name}"
            problems.add(path, f"is not among the fields of parameters{hint}")


def _with_conditions(
    space: dict[str, Distribution], extension: Extension, problems: Problems
) -> SearchSpace:
    """The space with conditions and constraints, where there were no problems so far."""
    when = {name: rule for name, rule in extension.when.items() if name in space}
    for name in when:
        if space[name].size() == 1:
            path = f"{EXTENSION}.parameters.{name}.when"
            problems.add(path, "is for fields that are searched, but this one has one value.")
    if problems.found:
        return SearchSpace(space)
    try:
        searched = SearchSpace(space, when, extension.constraints)
    except ValueError as error:  # a circle
        problems.add(f"{EXTENSION}.parameters", str(error))
        return SearchSpace(space)
    empty = searched.emptiness()
    if empty is not None:
        problems.add(f"{EXTENSION}.constraints", empty)
    return searched

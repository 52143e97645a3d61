"""What a sweep file optimises: W&B's ``metric``, or ``metrics`` for several objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model.validation import Problems, did_you_mean
from tuning.objective import Objective

#: The metrics that training makes better, each with the goal that makes sense. The first objective
#: is one of them: its best report decides which weights of a trial count.
METRICS = {
    "val_loss": "minimize",
    "val_perplexity": "minimize",
    "val_token_accuracy": "maximize",
}
#: What a model costs; these can stand beside one of the former.
COSTS = {
    "parameters": "minimize",
    "latency_ms": "minimize",
}
_KEYS = ("name", "goal", "target")
#: W&B's keys of the metric that mean nothing here, with the reason.
_UNUSED_KEYS = {
    "impute": "failed trials are told to the searcher as failed, without a made-up value.",
    "impute_while_running": "running trials are known to the searcher as running.",
}


def parse_objectives(
    mapping: Mapping[str, Any], problems: Problems, notes: list[str]
) -> tuple[Objective, ...]:
    """Reads ``metric``, or ``metrics``, of a sweep file; ``val_loss`` where it has neither.

    Args:
        mapping: The whole sweep.
        problems: Hears what is wrong.
        notes: Hears warnings, and what is not used.

    Returns:
        At least one objective; the first one decides which report of a trial is its best.
    """
    block = mapping.get("metrics")
    if block is None:
        metric = {} if mapping.get("metric") is None else mapping["metric"]
        return (_objective(metric, "metric", METRICS, problems, notes),)
    if mapping.get("metric") is not None:
        problems.add("metrics", "cannot stand beside metric; give one.")
    if not isinstance(block, list) or not block:
        problems.add(
            "metrics", f"must be a list of mappings with name and goal, but got {block!r}."
        )
        return (Objective("val_loss", "minimize"),)
    found = [
        _objective(metric, f"metrics[{i}]", METRICS if i == 0 else METRICS | COSTS, problems, notes)
        for i, metric in enumerate(block)
    ]
    names = [objective.name for objective in found]
    for i, name in enumerate(names):
        if name in names[:i]:
            problems.add(f"metrics[{i}].name", f"{name} stands there already.")
    return tuple(found)


def _objective(
    block: Any, path: str, known: Mapping[str, str], problems: Problems, notes: list[str]
) -> Objective:
    """One objective; where something is wrong with it, problems have it."""
    if not isinstance(block, Mapping):
        problems.add(path, f"must be a mapping with name and goal, but got {block!r}.")
        return Objective("val_loss", "minimize")
    for key in block:
        if key in _UNUSED_KEYS:
            notes.append(f"unused: {path}.{key}: {_UNUSED_KEYS[key]}")
        elif key not in _KEYS:
            problems.unknown_key(path, key, _KEYS)
    name = _name(block.get("name", "val_loss"), f"{path}.name", known, problems, notes)
    goal = block.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        problems.add(f"{path}.goal", f"must be minimize or maximize, but got {goal!r}.")
    elif goal != known.get(name, goal):
        default = "" if "goal" in block else ", W&B's default"
        problems.add(f"{path}.goal", f"must be {known[name]} for {name}, but is {goal}{default}.")
    target = block.get("target")
    if target is not None and (type(target) not in (int, float) or not abs(target) < math.inf):
        problems.add(f"{path}.target", f"must be a finite number, but got {target!r}.")
    return Objective(name, str(goal), target)


def _name(
    name: Any, path: str, known: Mapping[str, str], problems: Problems, notes: list[str]
) -> str:
    if name == "loss":
        notes.append(
            f"warning: {path}: val_loss is used instead of loss: the training loss is "
            "confounded by the teacher-forcing ratio and by overfitting."
        )
        return "val_loss"
    if isinstance(name, str) and name in COSTS and name not in known:
        problems.add(
            path,
            f"{name} cannot be the only or first one: which weights of a trial count is decided by "
            f"the first, one of {', '.join(METRICS)}; put {name} after it, under metrics.",
        )
    elif not isinstance(name, str) or name not in known:
        problems.add(path, f"unknown metric {name!r}{did_you_mean(str(name), known)}")
    return str(name)

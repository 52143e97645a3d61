"""Sweep files: Weights & Biases sweep configurations, read strictly and reported on in full.

The format is that of https://docs.wandb.ai/models/sweeps/sweep-config-keys. What is fixed there
and has no meaning here (``program``, ``command``, ...) is accepted and noted as unused; what would
change the search but is not built yet is refused. Every problem of a file is reported at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import DATA_FIELDS, DEFAULTS, RULES, DataConfig
from model.errors import ConfigurationError
from model.validation import Problems, Rule, did_you_mean
from tuning.distributions import Distribution, IntUniform, parse_distribution
from tuning.scheduling import HyperbandSettings, parse_early_terminate
from tuning.search_space import SearchSpace
from tuning.sweep_yaml import read_yaml

METHODS = ("random", "grid", "bayes")

#: The metrics that can be an objective, each with the goal that makes sense.
METRICS = {
    "val_loss": "minimize",
    "val_perplexity": "minimize",
    "val_token_accuracy": "maximize",
}

#: W&B's top-level keys that mean something here.
KEYS = (
    *("method", "metric", "parameters", "early_terminate", "run_cap"),
    *("name", "project", "entity", "description", "tags"),
)
#: W&B's keys that mean nothing here, whatever they hold.
UNUSED_KEYS = ("program", "command", "controller", "apiVersion", "kind", "job", "image_uri")
UNUSED_METRIC_KEYS = ("target", "impute", "impute_while_running")
#: W&B's keys that would change the search, with what to do instead.
REFUSED_KEYS = {
    "metrics": "several objectives are not supported yet; give one as metric.",
    "scheduler": "not supported; method chooses the search and early_terminate the stopping.",
}
TEXT_KEYS = ("name", "project", "entity", "description")

NOT_SEARCHED = (
    "can be set but not searched: it changes examples or vocabulary, "
    "so losses are not comparable; give one value."
)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file that was found to be right.

    Attributes:
        source: The file it was read from, for messages.
        method: ``random``, ``grid`` or ``bayes``.
        metric: The objective, a key of `METRICS`.
        goal: ``minimize`` or ``maximize``.
        space: Searched and fixed fields; fields not named have their defaults.
        early_terminate: Settings of early stopping, or None for none.
        run_cap: Largest number of trials, or None where the file does not say.
        name, project, entity, description, tags: Kept for tracking.
        notes: Warnings, and what the file says that is not used; one line each.
        raw: The mapping as it was read, overrides included.
    """

    source: str
    method: str
    metric: str
    goal: str
    space: SearchSpace
    early_terminate: HyperbandSettings | None
    run_cap: int | None
    name: str | None
    project: str | None
    entity: str | None
    description: str | None
    tags: tuple[str, ...]
    notes: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def reports(self) -> int | None:
        """Reports that a trial makes, ceil(iterations / report_every); None where searched."""
        return _reports(self.space)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Reports at which early stopping judges a trial and can still save work."""
        if self.early_terminate is None:
            return ()
        return _before(self.early_terminate.rungs(), self.reports)

    def data_config(self) -> DataConfig:
        """The data that every trial of the sweep shares."""
        fixed = self.space.constants
        return DataConfig(
            **{name: RULES[name].convert(fixed[name]) for name in DATA_FIELDS if name in fixed}
        )

    def with_overrides(self, values: Mapping[str, Any]) -> Sweep:
        """The sweep with fields set to one value each, whatever the file says of them.

        Raises:
            ConfigurationError: where a value is invalid, or the whole no longer fits together.
        """
        if not values:
            return self
        raw = self.to_mapping()
        fixed = {name: {"value": value} for name, value in values.items()}
        raw["parameters"] = {**raw["parameters"], **fixed}
        try:
            return parse_sweep(raw, self.source)
        except ConfigurationError as error:
            settings = " ".join(f"{name}={value}" for name, value in values.items())
            raise ConfigurationError(f"{self.source} with {settings}", error.problems) from None

    def to_mapping(self) -> dict[str, Any]:
        """The sweep as a mapping that `parse_sweep` reads back to an equal sweep."""
        return deepcopy(dict(self.raw))


def load_sweep(path: str | Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        ConfigurationError: naming everything that is wrong with it.
    """
    return parse_sweep(read_yaml(Path(path)), str(path))


def parse_sweep(mapping: Any, source: str = "sweep") -> Sweep:
    """Reads a sweep from a mapping as a YAML file would hold it.

    Args:
        mapping: The sweep configuration.
        source: What to call it in messages.

    Raises:
        ConfigurationError: naming everything that is wrong with it.
    """
    if not isinstance(mapping, Mapping):
        held = "is empty" if mapping is None else f"holds {type(mapping).__name__}, not a mapping"
        raise ConfigurationError(source, [f"{held}; it needs the keys method and parameters."])
    problems, notes = Problems(source), list[str]()
    _check_keys(mapping, problems, notes)
    method = _method(mapping, problems)
    metric, goal = _metric(mapping, problems, notes)
    space = _space(mapping, method, problems)
    block = mapping.get("early_terminate")
    early = None if block is None else parse_early_terminate(block, problems)
    if early is not None:
        _check_rungs(early, space, problems, notes)
    problems.raise_if_any()
    return Sweep(
        source=source,
        method=method,
        metric=metric,
        goal=goal,
        space=space,
        early_terminate=early,
        run_cap=mapping.get("run_cap"),
        **{key: mapping.get(key) for key in TEXT_KEYS},
        tags=tuple(mapping.get("tags") or ()),
        notes=tuple(notes),
        raw=deepcopy(dict(mapping)),
    )


def _check_keys(mapping: Mapping[str, Any], problems: Problems, notes: list[str]) -> None:
    """Checks which keys there are, and the values of the plain ones."""
    for key in mapping:
        if key in UNUSED_KEYS:
            notes.append(f"unused: {key}: means nothing here.")
        elif key in REFUSED_KEYS:
            problems.add(key, REFUSED_KEYS[key])
        elif key not in KEYS:
            problems.unknown_key("", key, KEYS)
    for key in TEXT_KEYS:
        if mapping.get(key) is not None and not isinstance(mapping[key], str):
            problems.add(key, f"must be text, but got {mapping[key]!r}; put it in quotes.")
    tags = mapping.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(t, str) for t in tags)):
        problems.add("tags", f"must be a list of texts, but got {tags!r}.")
    cap = mapping.get("run_cap")
    if cap is not None and (type(cap) is not int or cap < 1):
        problems.add("run_cap", f"must be a whole number of at least 1, but got {cap!r}.")


def _method(mapping: Mapping[str, Any], problems: Problems) -> str:
    method = mapping.get("method")
    if "method" not in mapping:
        problems.add("method", f"is required; supported: {', '.join(METHODS)}.")
    elif method not in METHODS:
        problems.add("method", f"unknown method {method!r}{did_you_mean(str(method), METHODS)}")
    return str(method)


def _metric(mapping: Mapping[str, Any], problems: Problems, notes: list[str]) -> tuple[str, str]:
    """Name and goal of the objective; ``val_loss`` where the file names none."""
    block = {} if mapping.get("metric") is None else mapping["metric"]
    if not isinstance(block, Mapping):
        problems.add("metric", f"must be a mapping with name and goal, but got {block!r}.")
        return "val_loss", "minimize"
    for key in block:
        if key in UNUSED_METRIC_KEYS:
            notes.append(f"unused: metric.{key}: not supported yet.")
        elif key not in ("name", "goal"):
            problems.unknown_key("metric", key, ("name", "goal"))
    name = _metric_name(block.get("name", "val_loss"), problems, notes)
    goal = block.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        problems.add("metric.goal", f"must be minimize or maximize, but got {goal!r}.")
    elif goal != METRICS.get(name, goal):
        default = "" if "goal" in block else ", W&B's default"
        problems.add("metric.goal", f"must be {METRICS[name]} for {name}, but is {goal}{default}.")
    return name, str(goal)


def _metric_name(name: Any, problems: Problems, notes: list[str]) -> str:
    if name == "loss":
        notes.append(
            "warning: metric.name: val_loss is used instead of loss: the training loss is "
            "confounded by the teacher-forcing ratio and by overfitting."
        )
        return "val_loss"
    if not isinstance(name, str) or name not in METRICS:
        problems.add("metric.name", f"unknown metric {name!r}{did_you_mean(str(name), METRICS)}")
    return str(name)


def _space(mapping: Mapping[str, Any], method: str, problems: Problems) -> SearchSpace:
    """The search space; parameters with problems are left out."""
    parameters = mapping.get("parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        got = f", but got {parameters!r}" if "parameters" in mapping else ""
        problems.add("parameters", f"is required, a mapping from field to its values{got}.")
        return SearchSpace({})
    space: dict[str, Distribution] = {}
    for name, parameter in parameters.items():
        distribution = _parameter(name, parameter, problems)
        if distribution is None:
            continue
        space[name] = distribution
        if method == "grid" and distribution.size() is None:
            problems.add(
                f"parameters.{name}",
                "a grid cannot enumerate a continuous range; "
                "name its values, or use method random or bayes.",
            )
    return SearchSpace(space)


def _parameter(name: Any, parameter: Any, problems: Problems) -> Distribution | None:
    path = f"parameters.{name}"
    if name not in RULES:
        problems.unknown_key("parameters", name, RULES)
        return None
    if not isinstance(parameter, Mapping):
        problems.add(path, f"must be a mapping such as {{value: ...}}, but got {parameter!r}.")
        return None
    noted = len(problems.found)
    distribution = parse_distribution(parameter, problems, path)
    for key, fault in _field_faults(parameter, RULES[name]):
        if not any(found.startswith(f"{path}.{key}:") for found in problems.found[noted:]):
            problems.add(f"{path}.{key}", fault)
    misfit = None if distribution is None else _misfit(name, distribution)
    if misfit is not None:
        problems.add(path, misfit)
    return distribution if len(problems.found) == noted else None


def _field_faults(parameter: Mapping[str, Any], rule: Rule) -> Iterator[tuple[str, str]]:
    """Yields (key, fault) for every value and end of a range that the field does not accept."""
    values = parameter.get("values")
    named = {f"values[{i}]": v for i, v in enumerate(values)} if isinstance(values, list) else {}
    if "value" in parameter:
        named["value"] = parameter["value"]
    # A fractional end over a field of whole numbers is a matter of the range, see `_misfit`.
    kinds = {float: (int, float), int: (int,)}.get(rule.kind, ())
    named |= {key: parameter[key] for key in ("min", "max") if type(parameter.get(key)) in kinds}
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
    kind = RULES[name].kind
    if "min" not in distribution.keys or kind is float:
        return None
    if kind is not int:
        return f"a range needs a field with numbers, but {name} is text; name its values."
    if not isinstance(distribution, IntUniform):
        return (
            f"{name} is a whole number and cannot have a continuous range; "
            "write min and max as whole numbers (int_uniform), or name its values."
        )
    return None


def _reports(space: SearchSpace) -> int | None:
    counts: list[int] = []
    for name in ("iterations", "report_every"):
        if name in space.searched:
            return None
        counts.append(RULES[name].convert(space.constants.get(name, DEFAULTS[name])))
    return math.ceil(counts[0] / counts[1])


def _before(rungs: tuple[int, ...], reports: int | None) -> tuple[int, ...]:
    """The rungs before a trial's last report, after which there is nothing left to stop."""
    return rungs if reports is None else tuple(rung for rung in rungs if rung < reports)


def _check_rungs(
    early: HyperbandSettings, space: SearchSpace, problems: Problems, notes: list[str]
) -> None:
    """Compares the rungs with the reports that a trial makes, where that is known."""
    rungs, reports = early.rungs(), _reports(space)
    if early.max_iter is not None and early.min_iter is not None:
        notes.append("unused: early_terminate.min_iter: max_iter and s decide, as in W&B.")
    if not rungs:
        problems.add("early_terminate", "has no rung; raise max_iter, or lower eta.")
        return
    unsure = ("parameters.iterations", "parameters.report_every")
    if reports is None or any(found.startswith(unsure) for found in problems.found):
        return
    made = f"a trial makes {reports} (iterations / report_every)"
    listed = ", ".join(str(rung) for rung in rungs[:5])
    if not _before(rungs, reports):
        notes.append(
            f"early_terminate: stops nothing: its rungs are the reports {listed}, but {made}; "
            "lower min_iter or report_every."
        )
    elif early.max_iter is not None and rungs[-1] > reports:
        notes.append(
            f"early_terminate.max_iter: counts reports, and {made}; its rungs are {listed}."
        )

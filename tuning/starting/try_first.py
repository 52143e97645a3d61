"""Known good points first: what ``--try`` names, read and checked against a search space.

A file, in YAML or JSON, is a list of mappings of the searched fields. Of a past experiment,
``EXPERIMENT:N`` takes the N best configurations, each once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.config import DEFAULTS, RULES
from model.errors import ConfigurationError
from model.validation import Problems
from tuning.experiment import Experiment
from tuning.journal import Row, read_journal
from tuning.spaces.points import faults_of
from tuning.spaces.search_space import SearchSpace

_FILES = (".yaml", ".yml", ".json")
_BEST = re.compile(r"(?P<experiment>.+):(?P<count>\d+)")

Configuration = dict[str, Any]


def points_to_try(
    references: Sequence[str | Path], space: SearchSpace, storage: str | Path = "runs"
) -> list[Configuration]:
    """The configurations that ``--try`` names, in their order, none twice.

    Args:
        references: Files, or ``EXPERIMENT:N``.
        space: What is searched now.
        storage: Directory of all experiments.

    Returns:
        Searched and fixed fields of each.

    Raises:
        ConfigurationError: naming everything that is wrong with all of them.
        ExperimentError: where an experiment is unknown or damaged.
    """
    found: list[Configuration] = []
    problems: list[str] = []
    for reference in references:
        given = _best_of(reference, space, storage) or _of_file(str(reference))
        for place, values in given:
            configuration, faults = _checked(values, space)
            problems += [f"{place}: {fault}" for fault in faults]
            if configuration not in found:
                found.append(configuration)
    if problems:
        raise ConfigurationError("--try", problems)
    return found


def _of_file(reference: str) -> list[tuple[str, Any]]:
    """The entries of a file, each with its place for messages."""
    from tuning.sweeps.yaml_file import read_yaml

    path = Path(reference)
    if path.suffix not in _FILES and not path.is_file():
        problem = (
            f"{reference}: no such file; name a YAML or JSON file, or EXPERIMENT:N for the N best "
            "configurations of an experiment."
        )
        raise ConfigurationError("--try", [problem])
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        problem = f"must be a list of mappings from field to value, but got {entries!r}."
        raise ConfigurationError(reference, [problem])
    return [(f"{reference}: [{number}]", entry) for number, entry in enumerate(entries)]


def _best_of(
    reference: str | Path, space: SearchSpace, storage: str | Path
) -> list[tuple[str, Any]] | None:
    """What an experiment found best, each with its place for messages; None for a file."""
    asked = _BEST.fullmatch(str(reference))
    if asked is None or Path(reference).is_file():
        return None
    experiment = Experiment.open(asked["experiment"], storage)
    count = int(asked["count"])
    found = best_configurations(experiment, list(space.searched), count)
    best = [(trial, space.complete(values)) for trial, values in found]
    if not best:
        problem = "has no trial with a value." if count else "asks for none; N is at least 1."
        raise ConfigurationError("--try", [f"{reference}: {problem}"])
    return [(f"{experiment.name}: trial {trial}", values) for trial, values in best]


def best_configurations(
    experiment: Experiment, fields: Sequence[str], count: int
) -> list[tuple[int, Configuration]]:
    """The best configurations of an experiment, with the trials that had them.

    Args:
        experiment: Running ones too.
        fields: Those that count; two configurations that agree in them are one.
        count: How many, where there are so many.
    """
    objective, best = experiment.objective, dict[int, tuple[float, Configuration]]()
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    for row in rows:
        value = row.metrics.get(objective.name) if row.kind == "report" else None
        if row.trial is not None and value is not None:
            known = best.get(row.trial)
            if objective.better(value, known[0] if known else None):
                best[row.trial] = value, _values(row, experiment, fields)
    sign = 1 if objective.goal == "minimize" else -1
    chosen: list[tuple[int, Configuration]] = []
    for trial in sorted(best, key=lambda trial: (sign * best[trial][0], trial)):
        if len(chosen) < count and best[trial][1] not in [values for _, values in chosen]:
            chosen.append((trial, best[trial][1]))
    return chosen


def _values(row: Row, experiment: Experiment, fields: Sequence[str]) -> Configuration:
    """The fields as a trial had them; what its experiment did not set had its default."""
    known = DEFAULTS | experiment.manifest["data"]["settings"] | row.config
    return {name: known[name] for name in fields}


def _checked(given: Any, space: SearchSpace) -> tuple[Configuration, list[str]]:
    """A whole configuration, and what is wrong with it."""
    if not isinstance(given, Mapping):
        return {}, [f"must be a mapping from field to value, but got {given!r}."]
    problems = Problems("--try")
    constants = space.constants
    for name, value in given.items():
        if name not in space.parameters:
            problems.unknown_key("", str(name), space.searched)
        elif name in constants and value != constants[name]:
            problems.add(name, f"is fixed to {constants[name]!r} by the sweep; leave it out.")
    typed = {name: _typed(name, given[name]) for name in space.searched if name in given}
    configuration = _with_inactive(constants | typed, space)
    missing = [name for name in space.searched if name not in configuration]
    for name in missing:
        problems.add(name, "is missing; every searched field must be named.")
    if missing:
        problems.found += _out_of_range(typed, space)
    else:
        problems.found += faults_of(space, configuration)
    return configuration, problems.found


def _out_of_range(values: Configuration, space: SearchSpace) -> Iterator[str]:
    for name, value in values.items():
        distribution = space.parameters[name]
        if not distribution.contains(value):
            yield f"{name}: must be {distribution.describe()}, but got {value!r}."


def _typed(name: str, value: Any) -> Any:
    """The value in its field's type, where it has one: a whole number as a float, say."""
    rule = RULES[name]
    return rule.convert(value) if rule.problem_with(value) is None else value


def _with_inactive(configuration: Configuration, space: SearchSpace) -> Configuration:
    """The configuration, with the defaults of fields that are not searched where the rest is so."""
    completed = dict(configuration)
    waiting = [name for name in space.when if name not in completed]
    for _ in waiting:  # a condition may be on a field that has one itself
        for name in waiting:
            condition = space.when[name]
            known = condition.names <= {*completed, *(DEFAULTS.keys() - space.parameters.keys())}
            if name not in completed and known and not condition.true_of(DEFAULTS | completed):
                completed[name] = DEFAULTS[name]
    return {name: completed[name] for name in space.parameters if name in completed}

"""Sweep files: Weights & Biases sweep configurations, read strictly and reported on in full.

The format is that of https://docs.wandb.ai/models/sweeps/sweep-config-keys. What is fixed there
and has no meaning here (``program``, ``command``, ...) is accepted and noted as unused; what would
change the search but is not built is refused. What it has no words for stands under our own key,
``dialogue_tune``. Every problem of a file is reported at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import DATA_FIELDS, DEFAULTS, RULES, DataConfig
from model.errors import ConfigurationError
from model.validation import Problems, did_you_mean
from tuning.objective import Objective
from tuning.scheduling import FifoSettings, HyperbandSettings, parse_early_terminate
from tuning.spaces.search_space import SearchSpace
from tuning.sweeps.extension import EXTENSION, parse_extension
from tuning.sweeps.objectives import parse_objectives
from tuning.sweeps.parameters import flatten
from tuning.sweeps.space import parse_space
from tuning.sweeps.yaml_file import read_yaml

if TYPE_CHECKING:
    from tuning.scheduling import SchedulerSettings

METHODS = ("random", "grid", "bayes")

#: The top-level keys that mean something here: W&B's, and our own.
KEYS = (
    *("method", "metric", "metrics", "parameters", "early_terminate", "run_cap"),
    *("name", "project", "entity", "description", "tags", EXTENSION),
)
#: W&B's keys that mean nothing here, whatever they hold.
UNUSED_KEYS = ("program", "command", "controller", "apiVersion", "kind", "job", "image_uri")
TEXT_KEYS = ("name", "project", "entity", "description")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file that was found to be right.

    Attributes:
        source: The file it was read from, for messages.
        method: ``random``, ``grid`` or ``bayes``.
        objectives: What is optimised; trials are ranked by the first.
        space: Searched and fixed fields; fields not named have their defaults.
        searcher: Who proposes, instead of ``method``; None where the file does not say.
        scheduler: What stops trials, instead of ``early_terminate``; None likewise.
        early_terminate: Settings of early stopping, or None for none.
        run_cap: Largest number of trials, or None where the file does not say.
        name, project, entity, description, tags: Kept for tracking.
        notes: Warnings, and what the file says that is not used; one line each.
        raw: The mapping as it was read, overrides included.
    """

    source: str
    method: str
    objectives: tuple[Objective, ...]
    space: SearchSpace
    searcher: str | None
    scheduler: SchedulerSettings | None
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
    def objective(self) -> Objective:
        """The first objective, and mostly the only one."""
        return self.objectives[0]

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
        try:
            return parse_sweep(overridden(self.raw, values), self.source)
        except ConfigurationError as error:
            settings = " ".join(f"{name}={value}" for name, value in values.items())
            raise ConfigurationError(f"{self.source} with {settings}", error.problems) from None

    def to_mapping(self) -> dict[str, Any]:
        """The sweep as a mapping that `parse_sweep` reads back to an equal sweep."""
        return deepcopy(dict(self.raw))


def overridden(mapping: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep file holds, with fields set to one value each; what is wrong in it stays so.

    Args:
        mapping: The sweep configuration.
        values: Fields and their values.
    """
    raw = deepcopy(dict(mapping))
    problems = Problems("parameters")
    leaves = flatten(raw.get("parameters"), problems)
    if problems.found:
        return raw
    fixed = {name: {"value": value} for name, value in values.items()}
    raw["parameters"] = {name: leaf.stated for name, leaf in leaves.items()} | fixed
    block = raw.get(EXTENSION)
    if isinstance(block, Mapping) and isinstance(block.get("parameters"), Mapping):
        kept = {n: said for n, said in block["parameters"].items() if n not in values}
        raw[EXTENSION] = {**block, "parameters": kept}
    return raw


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
    objectives = parse_objectives(mapping, problems, notes)
    extension = parse_extension(mapping.get(EXTENSION), problems)
    grid = (extension.searcher or method) == "grid"
    space = parse_space(mapping.get("parameters"), extension, problems, notes, grid=grid)
    block = mapping.get("early_terminate")
    early = None if block is None else parse_early_terminate(block, problems)
    if early is not None:
        _check_rungs(early, space, problems, notes)
    if block is not None and extension.scheduler is not None:
        problems.add("early_terminate", f"cannot stand beside {EXTENSION}.scheduler; give one.")
    if len(objectives) > 1:
        _check_stops_nothing(early, extension.scheduler, problems)
    problems.raise_if_any()
    return Sweep(
        source=source,
        method=method,
        objectives=objectives,
        space=space,
        searcher=extension.searcher,
        scheduler=extension.scheduler,
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
        elif key == "scheduler":
            _check_launch(mapping[key], problems, notes)
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


def _check_launch(scheduler: Any, problems: Problems, notes: list[str]) -> None:
    """Looks at W&B's ``scheduler``: where a sweep on its launch queues runs, or who proposes."""
    if isinstance(scheduler, Mapping) and "job" not in scheduler:
        notes.append("unused: scheduler: means nothing here.")
        return
    problems.add(
        "scheduler",
        "a scheduler job of your own cannot propose here; method or dialogue_tune.searcher chooses "
        "the search, early_terminate or dialogue_tune.scheduler the stopping.",
    )


def _method(mapping: Mapping[str, Any], problems: Problems) -> str:
    method = mapping.get("method")
    if "method" not in mapping:
        problems.add("method", f"is required; supported: {', '.join(METHODS)}.")
    elif method not in METHODS:
        problems.add("method", f"unknown method {method!r}{did_you_mean(str(method), METHODS)}")
    return str(method)


def _check_stops_nothing(
    early: HyperbandSettings | None, scheduler: SchedulerSettings | None, problems: Problems
) -> None:
    """Of several objectives no one decides before the end what is to be stopped."""
    stopping = {"early_terminate": early, f"{EXTENSION}.scheduler": scheduler}
    for key, settings in stopping.items():
        if settings is not None and settings.kind != FifoSettings.kind:
            problems.add(
                key,
                "cannot stop trials of several objectives: one that is worse by the first may be "
                "better by another. Leave it out.",
            )


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

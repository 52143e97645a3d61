"""Warm start: what earlier experiments found over the same space, for searchers that learn.

Their trials say something of this search only where the same was searched, by the same measure, on
the same data, with the same of everything that decides a value. What differs is named and refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from model.config import DATA_FIELDS, DEFAULTS
from model.errors import ConfigurationError
from model.prepared_data import PreparedData
from tuning.experiment import Experiment
from tuning.journal import Row, read_journal
from tuning.objective import Objective
from tuning.searchers import STATES, Outcome, PastTrial
from tuning.spaces.search_space import SearchSpace
from tuning.sweeps.sweep_file import Sweep

#: Fields that change where and how a trial runs, but not what it finds beyond chance.
_NO_MATTER = frozenset({"device", "threads", "checkpoint_when", "checkpoint_every", "seed"})


def past_trials_of(
    references: Sequence[str | Path],
    sweep: Sweep,
    data: PreparedData,
    storage: str | Path = "runs",
) -> list[PastTrial]:
    """The ended trials of earlier experiments, in their order.

    Args:
        references: Names or directories of the experiments.
        sweep: What is searched now.
        data: On what.
        storage: Directory of all experiments.

    Raises:
        ConfigurationError: naming everything in which an experiment differs, or that there is
            nothing to learn from.
        ExperimentError: where one is unknown or damaged.
    """
    problems: list[str] = []
    found: list[PastTrial] = []
    for reference in references:
        experiment = Experiment.open(reference, storage)
        differing = [*_differences(experiment, sweep, data)]
        problems += [f"{experiment.name}: {problem}" for problem in differing]
        if differing:
            continue
        trials = past_trials(experiment, sweep.space)
        if not trials:
            problems.append(f"{experiment.name}: none of its trials has ended.")
        found += trials
    if problems:
        raise ConfigurationError("--warm-start", problems)
    return found


def _differences(experiment: Experiment, sweep: Sweep, data: PreparedData) -> Iterator[str]:
    """In what an experiment differs so that its trials say nothing of this search."""
    theirs = experiment.manifest
    if theirs["data"]["fingerprint"] != data.fingerprint:
        yield _other_data(theirs["data"], data)
    then, now = (_goals(each.objectives) for each in (experiment, sweep))
    if then != now:
        yield f"its objective is {then}, but here {now}."
    past_sweep = experiment.sweep()
    yield from _other_space(past_sweep.space, sweep.space)
    for key in ("constraints", "parameters"):
        theirs_of, ours_of = (_extension(each).get(key) for each in (past_sweep, sweep))
        if theirs_of != ours_of:
            yield f"its dialogue_tune.{key} is {theirs_of!r}, but here {ours_of!r}."


def _goals(objectives: Sequence[Objective]) -> str:
    return ", ".join(f"{objective.goal} {objective.name}" for objective in objectives)


def _other_data(theirs: dict[str, Any], data: PreparedData) -> str:
    ours = data.settings
    differing = [
        f"{name} was {value!r}, is {ours.get(name)!r}"
        for name, value in theirs["settings"].items()
        if ours.get(name) != value
    ]
    return (
        f"its data is {theirs['fingerprint'][:12]}, but here {data.fingerprint[:12]}: "
        f"{', '.join(differing) or 'the settings are the same, but the corpus is not'}."
    )


def _other_space(theirs: SearchSpace, ours: SearchSpace) -> Iterator[str]:
    for name in dict.fromkeys([*theirs.parameters, *ours.parameters]):
        if name in DATA_FIELDS or name in _NO_MATTER:  # data are compared by their fingerprint
            continue
        then, now = (_values(space, name) for space in (theirs, ours))
        if then != now:
            yield f"its {name} is {_described(theirs, name)}, but here {_described(ours, name)}."


def _values(space: SearchSpace, name: str) -> Any:
    """A field's distribution, or the one value that it has."""
    if name in space.searched:
        return space.searched[name]
    return space.constants.get(name, DEFAULTS[name])


def _described(space: SearchSpace, name: str) -> str:
    if name in space.searched:
        return space.searched[name].describe()
    return repr(space.constants.get(name, DEFAULTS[name]))


def _extension(sweep: Sweep) -> dict[str, Any]:
    extension: dict[str, Any] = sweep.raw.get("dialogue_tune") or {}
    return extension


def past_trials(experiment: Experiment, space: SearchSpace) -> list[PastTrial]:
    """The ended trials of an experiment, as points of a space with the same searched fields.

    Trials that changed their configuration on the way (population-based training) are left out.
    """
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    trials: dict[int, _Told] = {}
    for row in rows:
        if row.kind == "proposed" and row.trial is not None:
            trials[row.trial] = _Told(row)
        elif row.trial is not None:
            trials[row.trial].take(row)
    return [told.as_past(space) for told in trials.values() if told.usable]


class _Told:
    """What the journal says of a trial."""

    def __init__(self, proposal: Row) -> None:
        self.last = proposal
        self.config = proposal.config
        self.changed = False
        self.iteration = 0
        self.value: float | None = None
        self.others: list[float | None] = []
        self.reports: dict[int, float] = {}

    def take(self, row: Row) -> None:
        self.last = row
        self.changed = self.changed or row.config != self.config
        if row.kind == "report" and row.iteration is not None:
            self.iteration = max(self.iteration, row.iteration)
            self.value, *self.others = row.values
            if self.value is not None:
                self.reports.setdefault(row.iteration, self.value)  # not when it is repeated

    @property
    def usable(self) -> bool:
        return self.last.state in STATES and not self.changed

    def as_past(self, space: SearchSpace) -> PastTrial:
        known = DEFAULTS | self.config
        configuration = space.complete({name: known[name] for name in space.searched})
        assert self.last.state is not None
        outcome = Outcome(self.last.state, self.value, self.iteration, tuple(self.others))
        return PastTrial(configuration, outcome, tuple(sorted(self.reports.items())))

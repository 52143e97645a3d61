"""Repeating an experiment from its manifest: what it takes, and what is different now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.data_source import open_or_prepare
from model.errors import DialogueTuneError, ExperimentError
from model.prepared_data import PreparedData
from tuning.environment import differences, environment
from tuning.experiment import Experiment
from tuning.journal import read_journal, trials_asked_for
from tuning.sweeps.sweep_file import Sweep, parse_sweep


@dataclass(frozen=True)
class Repetition:
    """An experiment that is about to be repeated.

    Attributes:
        experiment: The one to repeat.
        sweep: What it searched.
        data: On what: the same data, or the nearest that there is.
        trials: How many it ran, extensions included.
        said: What differs from then, one line each, for people.
    """

    experiment: Experiment
    sweep: Sweep
    data: PreparedData
    trials: int | None
    said: list[str]


def plan_repetition(reference: str | Path, storage: str | Path = "runs") -> Repetition:
    """Gathers what a repetition takes, and compares.

    Args:
        reference: The experiment's name or directory.
        storage: Directory of all experiments.

    Raises:
        DialogueTuneError: where the experiment is unknown or damaged, or its data cannot be had.
    """
    experiment = Experiment.open(reference, storage)
    manifest = experiment.manifest
    sweep = parse_sweep(manifest["sweep"], manifest["sweep_file"])
    data, about_data = _data(experiment, sweep)
    rows = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
    changed = [*differences(manifest, environment()), *about_data]
    heading = f"repeating {experiment.name} of {manifest['created']}; "
    said = [heading + ("different now:" if changed else "nothing of its environment is different")]
    return Repetition(
        experiment,
        sweep,
        data,
        trials_asked_for(manifest["trials"], rows),
        said + [f"  {line}" for line in changed],
    )


def _data(experiment: Experiment, sweep: Sweep) -> tuple[PreparedData, list[str]]:
    """The experiment's own copy; or the corpus prepared again, with how that differs."""
    try:
        return experiment.data(), []
    except DialogueTuneError as error:
        lost = str(error)
    try:
        data = open_or_prepare(sweep.space.constants, progress=True)
    except DialogueTuneError as error:
        raise ExperimentError(
            f"{experiment.place}: cannot be repeated, for its data cannot be had. {lost} "
            f"Nor can they be prepared again: {error}"
        ) from None
    before = experiment.manifest["data"]["fingerprint"]
    if data.fingerprint == before:
        return data, [f"data: prepared again, the same as before; {lost}"]
    return data, [f"data: fingerprint was {before[:12]}, is {data.fingerprint[:12]}; {lost}"]

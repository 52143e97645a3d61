"""The trials of an experiment as an Optuna study.

Optuna's importance evaluators and its visualisations read a study. `to_study` rebuilds one, in
memory, from the journal's reports; the searcher that ran is not needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.results import Results
from model.errors import ConfigurationError, ExperimentError
from model.validation import did_you_mean
from tuning.distributions import Categorical, Distribution, IntUniform, Scalar
from tuning.optuna_log import quiet_optuna
from tuning.tpe import optuna_distributions

if TYPE_CHECKING:
    import optuna

#: States in the study. A trial whose driver died has no value that stands; Optuna, too, calls it
#: FAIL.
_STATES = {
    "finished": "COMPLETE",
    "stopped": "PRUNED",
    "diverged": "FAIL",
    "failed": "FAIL",
    "interrupted": "FAIL",
    "running": "RUNNING",
}


def to_study(results: Results, *, parameters: Sequence[str] | None = None) -> optuna.Study:
    """Rebuilds an Optuna study from an experiment's trials, in memory.

    Finished trials are COMPLETE with their best value; stopped ones PRUNED, with their best value
    too; diverged, failed and interrupted ones FAIL without a value, and so are finished ones that
    never had one; running ones RUNNING. All keep their objective at each iteration as intermediate
    values. They begin and end at the times (UTC) of their first and last row in the journal, so
    that the same experiment gives the same study. User attributes of a trial: ``trial`` (its
    number in the experiment), ``state``, ``iteration``, ``best_iteration`` and ``worker``.

    Args:
        results: Where the trials come from.
        parameters: Which searched hyper-parameters the trials have; default all. One that never
            varied is left out, since there is nothing to see of it; of a trial whose configuration
            is lost, all are.

    Raises:
        ConfigurationError: where a parameter is not searched.
        ExperimentError: where a trial's configuration is not in the sweep's space.
    """
    import optuna

    values = configurations(results)
    names = _asked_for(results, parameters)
    names = [name for name in names if varies(values[name])]
    distributions = optuna_distributions(results.experiment.sweep().space)
    curves = _curves(results)
    with quiet_optuna():
        study = optuna.create_study(
            study_name=results.experiment.name, direction=results.experiment.objective.goal
        )
        study.set_metric_names([results.objective])
    columns = [values[name].to_list() for name in names]
    for place, record in enumerate(results.trials.to_dict("records")):
        configuration = {n: column[place] for n, column in zip(names, columns, strict=True)}
        params = {name: value for name, value in configuration.items() if value is not pd.NA}
        trial = optuna.trial.create_trial(
            **_state_and_value(record, results.objective),
            params=params,
            distributions={name: distributions[name] for name in params},
            user_attrs=_user_attributes(record),
            intermediate_values=curves.get(record["trial"], {}),
        )
        trial.datetime_start = _moment(record["started"])
        if trial.state.is_finished():
            trial.datetime_complete = _moment(record["updated"])
        study.add_trial(trial)
    return study


def _asked_for(results: Results, parameters: Sequence[str] | None) -> list[str]:
    """The names of searched parameters, in the sweep's order."""
    searched = results.searched
    unknown = [name for name in parameters or () if name not in searched]
    if unknown:
        problems = [f"{name}: is not searched{did_you_mean(name, searched)}" for name in unknown]
        raise ConfigurationError(str(results.experiment.path), problems)
    return [name for name in searched if parameters is None or name in parameters]


def _state_and_value(record: Mapping[Any, Any], objective: str) -> dict[str, Any]:
    from optuna.trial import TrialState

    value = record[objective] if math.isfinite(record[objective]) else None
    state = TrialState[_STATES[record["state"]]]
    if state is TrialState.COMPLETE and value is None:
        state = TrialState.FAIL
    ended = state in (TrialState.COMPLETE, TrialState.PRUNED)
    return {"state": state, "value": value if ended else None}


def _user_attributes(record: Mapping[Any, Any]) -> dict[str, Any]:
    whole = ("trial", "iteration", "best_iteration")
    attributes = {n: None if pd.isna(record[n]) else int(record[n]) for n in whole}
    worker = None if pd.isna(record["worker"]) else record["worker"]
    return {**attributes, "state": record["state"], "worker": worker}


def _curves(results: Results) -> dict[int, dict[int, float]]:
    """The objective by iteration, by trial; what is not a finite number is left out."""
    if results.objective not in results.history:
        return {}
    history = results.history[np.isfinite(results.history[results.objective])]
    curves: dict[int, dict[int, float]] = {}
    columns = (history[name].to_list() for name in ("trial", "iteration", results.objective))
    for trial, iteration, value in zip(*columns, strict=True):
        curves.setdefault(trial, {})[iteration] = value
    return curves


def _moment(time: pd.Timestamp) -> Any:
    """A time as Optuna has it, without a zone; the journal's are in milliseconds."""
    return time.tz_convert(None).round("ms").to_pydatetime()


def configurations(results: Results) -> pd.DataFrame:
    """The searched hyper-parameters of each trial, as the search space has them.

    Returns:
        A frame of objects with the trials' numbers as index: 1 is not turned into 1.0, nor None
        into NaN. What a trial does not have, since its configuration is lost, is ``pandas.NA``.

    Raises:
        ExperimentError: where a trial's configuration is not in the sweep's space.
    """
    numbers = results.trials["trial"].to_list()
    columns = {
        name: [
            _value(value, distribution, f"{results.experiment.path}: trial {number}: {name}")
            for number, value in zip(numbers, results.trials[name].to_list(), strict=True)
        ]
        for name, distribution in results.experiment.sweep().space.searched.items()
    }
    return pd.DataFrame(columns, index=pd.Index(numbers, name="trial"), dtype=object)


def _value(value: Any, distribution: Distribution, source: str) -> Any:
    missing = bool(pd.isna(value))
    if isinstance(distribution, Categorical):
        for choice in distribution.values:
            if choice is None if missing else _same(choice, value):
                return choice
    elif not missing and distribution.contains(value):
        return int(value) if isinstance(distribution, IntUniform) else float(value)
    if missing:
        return pd.NA
    raise ExperimentError(
        f"{source} is {value!r}, which is not in the sweep's space ({distribution.describe()})."
    )


def _same(choice: Scalar, value: Any) -> bool:
    """Equality that tells True from 1."""
    return isinstance(choice, bool) == isinstance(value, bool) and bool(choice == value)


def varies(values: Iterable[Any]) -> bool:
    """Whether there is more than one value, apart from those that are lost."""
    return len({value for value in values if value is not pd.NA}) > 1

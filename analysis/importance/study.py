"""The trials of an experiment as an Optuna study.

Optuna's importance evaluators and its visualisations read a study. `to_study` rebuilds one, in
memory, from the journal's reports; the searcher that ran is not needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.results import Results
from model.config import DEFAULTS
from model.errors import ConfigurationError, ExperimentError
from model.validation import did_you_mean
from tuning.distributions import Categorical, Distribution, same
from tuning.optuna_log import quiet_optuna
from tuning.study.space import study_distributions, study_params
from tuning.study.trials import study_state

if TYPE_CHECKING:
    import optuna


def to_study(results: Results, *, parameters: Sequence[str] | None = None) -> optuna.Study:
    """Rebuilds an Optuna study from an experiment's trials, in memory.

    Finished trials are COMPLETE with their best value; stopped ones PRUNED, with their best value
    too; diverged and failed ones FAIL without a value, and so are finished ones that never had
    one; running ones RUNNING, and interrupted ones WAITING. All have the hyper-parameters that were
    active in them, and their objective at each iteration as intermediate values. They begin and
    end at the times (UTC) of their first and last row in the journal, so that the same experiment
    gives the same study. User attributes of a trial: ``trial`` (its number in the experiment),
    ``state``, ``iteration``, ``best_iteration`` and ``worker``.

    Args:
        results: Where the trials come from.
        parameters: Which searched hyper-parameters the trials have; default all. One that never
            varied is left out, since there is nothing to see of it; of a trial whose configuration
            is lost, all are. Distributions are those of `tuning.study.space`.

    Raises:
        ConfigurationError: where a parameter is not searched.
        ExperimentError: where a trial's configuration is not in the sweep's space.
    """
    import optuna

    names = _asked_for(results, parameters)
    params = _params(results, names)
    curves = _curves(results)
    distributions = study_distributions(
        results.experiment.sweep().space,
        {name: [own[name] for own in params if name in own] for name in names},
    )
    with quiet_optuna():
        study = optuna.create_study(
            study_name=results.experiment.name, direction=results.experiment.objective.goal
        )
        study.set_metric_names([results.objective])
    for record, own in zip(results.trials.to_dict("records"), params, strict=True):
        trial = optuna.trial.create_trial(
            **_state_and_value(record, results.objective),
            params=own,
            distributions={name: distributions[name] for name in own},
            user_attrs=_user_attributes(record),
            intermediate_values=curves.get(record["trial"], {}),
        )
        trial.datetime_start = _moment(record["started"])
        if trial.state.is_finished():
            span = timedelta(seconds=float(results.spans[record["trial"]]))
            trial.datetime_complete = trial.datetime_start + span
        study.add_trial(trial)
    return study


def _params(results: Results, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each trial the active hyper-parameters that ever varied; none where they are lost."""
    values = configurations(results)
    columns = {str(name): values[name].to_list() for name in values}
    varied = [name for name in names if varies(columns[name])]
    space = results.experiment.sweep().space
    found = []
    for place in range(len(values)):
        searched = {name: column[place] for name, column in columns.items()}
        lost = any(value is pd.NA for value in searched.values())
        active = {} if lost else study_params(space, {**space.constants, **searched})
        found.append({name: active[name] for name in varied if name in active})
    return found


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
    state = TrialState[study_state(record["state"], [value])]
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
    space = results.experiment.sweep().space
    columns = {}
    for name, distribution in space.searched.items():
        idle = (DEFAULTS[name],) if name in space.when else ()
        columns[name] = [
            _value(value, distribution, idle, f"{results.experiment.path}: trial {number}: {name}")
            for number, value in zip(numbers, results.trials[name].to_list(), strict=True)
        ]
    return pd.DataFrame(columns, index=pd.Index(numbers, name="trial"), dtype=object)


def _value(value: Any, distribution: Distribution, idle: Sequence[Any], source: str) -> Any:
    """A value as the space has it; `idle` has what the field is where it is not active."""
    missing = bool(pd.isna(value))
    choices = distribution.values if isinstance(distribution, Categorical) else ()
    for choice in (*choices, *idle):
        if choice is None if missing else same(choice, value):
            return choice
    if not missing and distribution.contains(value):
        exact = distribution.quantile(distribution.cdf(value))  # whole where it was written so
        return exact if exact == value else float(value)
    if missing:
        return pd.NA
    raise ExperimentError(
        f"{source} is {value!r}, which is not in the sweep's space ({distribution.describe()})."
    )


def varies(values: Iterable[Any]) -> bool:
    """Whether there is more than one value, apart from those that are lost."""
    return len({value for value in values if value is not pd.NA}) > 1

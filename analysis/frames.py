"""The dataframes of an experiment, from its journal in columns: trials and history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from model.config import RULES
from tuning.coordinator import Objective
from tuning.journal.clock import steady_times
from tuning.journal.columns import METRIC, JournalTable

#: Metrics of a trial's best and of its last report that the table of trials shows.
SHOWN = ("val_loss", "val_perplexity", "val_token_accuracy", "loss")
#: Metrics that are times, summed over all reports of a trial.
_SPENT = ("train_seconds", "eval_seconds", "save_seconds")
#: Metrics of which a trial has the largest of all its reports.
_PEAKS = ("peak_memory_mb", "peak_gpu_memory_mb")
_WHERE = ("worker", "worker_device", "worker_type")
_EVENTS = ("kind", "time", "trial", "attempt", "iteration", "state", "reason", *_WHERE)
_HISTORY = ("trial", "attempt", "iteration", "time", "decision", "worker")
#: Rows that begin an attempt.
_BEGINS = ("proposed", "restarted")
_WHOLE = dict.fromkeys(("trial", "attempt", "iteration"), "Int64")


def standing(trial: pd.Series[Any], iteration: pd.Series[Any]) -> pd.Series[bool]:
    """Which reports stand, as `tuning.journal.current_reports` says, but of all at once.

    A report stands where each later report of its trial is of a later iteration.

    Args:
        trial: Number of the trial of each report, in the journal's order.
        iteration: Its iteration; both without missing values, and with one index.
    """
    backwards, trials = iteration[::-1], trial[::-1]
    # For each report, the earliest iteration that it or a later one has; then without itself.
    earliest = backwards.groupby(trials, sort=False).cummin()
    later = earliest.groupby(trials, sort=False).shift()
    return (later.isna() | (backwards < later))[::-1]


@dataclass(frozen=True)
class Frames:
    """Makes the dataframes of an experiment.

    Attributes:
        journal: What happened.
        objectives: What trials are ranked by: the first decides which report is a trial's best.
    """

    journal: JournalTable
    objectives: Sequence[Objective]

    @property
    def objective(self) -> Objective:
        """The first objective."""
        return self.objectives[0]

    @property
    def _shown(self) -> tuple[str, ...]:
        """Metrics that the table of trials shows: the usual ones and further objectives."""
        others = (objective.name for objective in self.objectives[1:])
        return tuple(dict.fromkeys((*others, *SHOWN)))

    @cached_property
    def _events(self) -> pd.DataFrame:
        """The rows that are of a trial, with their steady times (`tuning.journal.clock`).

        The index is the row's place in the table.
        """
        table = self.journal.table
        events = _pandas(table, _EVENTS).assign(steady=steady_times(table))
        events = events[events["trial"].notna()]
        return events.astype({"trial": "int64"})

    @cached_property
    def _reports(self) -> pd.DataFrame:
        """Trial and iteration of every report, and whether it stands; index as in `_events`."""
        events = self._events
        is_report = (events["kind"] == "report") & events["iteration"].notna()
        reports = events.loc[is_report, ["trial", "iteration"]].astype({"iteration": "int64"})
        return reports.assign(stands=standing(reports["trial"], reports["iteration"]))

    def _metrics(self, names: Iterable[str], places: pd.Index[Any]) -> pd.DataFrame:
        """Some metrics, missing ones as NaN, of the rows at some places."""
        table = self.journal.table
        columns = {
            name: table.column(METRIC + name).to_numpy()[places]
            if METRIC + name in table.column_names
            else np.full(len(places), np.nan)
            for name in names
        }
        return pd.DataFrame(columns, index=places, dtype="float64")

    @property
    def _places_of_history(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        reports = self._reports[self._reports["stands"]].sort_values(["trial", "iteration"])
        places: np.ndarray[Any, np.dtype[np.int64]] = reports.index.to_numpy()
        return places

    def history_seconds(self) -> pd.Series[float]:
        """Seconds from the journal's first row to each row of `history`, by a clock nobody sets."""
        seconds: pd.Series[float] = self._events.loc[self._places_of_history, "steady"]
        return seconds.reset_index(drop=True)

    def spans(self) -> pd.Series[float]:
        """Seconds from each trial's first row to its last, by a clock that nobody sets."""
        steady = self._events.groupby("trial")["steady"]
        return steady.last() - steady.first()

    def history(self) -> pd.DataFrame:
        """One row for each report that stands; see `analysis.results.Results.history`."""
        table = self.journal.table.take(self._places_of_history)
        metrics = [name for name in self.journal.metrics if name not in _HISTORY]
        frame = _pandas(table, _HISTORY)
        frame["time"] = _moment(frame["time"])
        measured = {
            name: column.to_numpy()
            for name in metrics
            if (column := table.column(METRIC + name)).null_count < len(column)
        }
        figures = pd.DataFrame(measured, index=frame.index, dtype="float64")
        return pd.concat([frame.astype(_WHOLE), figures], axis=1)

    def trials(self) -> pd.DataFrame:
        """One row for each trial, without its configuration and files; the index is its number."""
        events = self._events
        first = events.drop_duplicates("trial").set_index("trial").sort_index()
        last = events.drop_duplicates("trial", keep="last").set_index("trial").sort_index()
        best, ends = self._best(), self._ends()
        name = self.objective.name
        columns = {
            "state": last["state"],
            name: best[name],
            "best_iteration": best["iteration"],
            f"last_{name}": ends[name],
            "iteration": ends["iteration"].reindex(last.index, fill_value=0),
            "attempts": last["attempt"],
            "seconds": self._seconds(),
            **{shown: best[shown] for shown in self._shown},
            **{f"last_{shown}": ends[shown] for shown in self._shown},
            **{taken: figures for taken, figures in self._taken().items() if taken != name},
            "started": _moment(first["time"]),
            "updated": _moment(last["time"]),
            **{where: self._last_said(where) for where in _WHERE},
            "reason": self._last_said("reason"),
        }
        frame = pd.DataFrame({c: values.reindex(last.index) for c, values in columns.items()})
        whole = ("best_iteration", "iteration", "attempts", "parameters", "last_parameters")
        return frame.astype({name: "Int64" for name in whole if name in frame})

    @cached_property
    def _measured(self) -> pd.DataFrame:
        """The reports that stand, with the metrics that the table of trials shows."""
        reports = self._reports[self._reports["stands"]]
        names = dict.fromkeys((self.objective.name, *self._shown))
        # A metric `iteration` would say the same as the report.
        return reports.join(self._metrics([n for n in names if n != "iteration"], reports.index))

    def _best(self) -> pd.DataFrame:
        """The best report of each trial that has one: the first of the best value."""
        best: pd.DataFrame = self._measured.loc[self._best_places].set_index("trial")
        return best

    @cached_property
    def _best_places(self) -> pd.Series[int]:
        """The place in the table of each trial's best report."""
        value = self._measured[self.objective.name]
        groups = self._measured[np.isfinite(value)].groupby("trial")[self.objective.name]
        minimize = self.objective.goal == "minimize"
        places: pd.Series[int] = groups.idxmin() if minimize else groups.idxmax()
        return places

    def configurations(self) -> dict[int, dict[str, Any]]:
        """Each trial's configuration; where it changed on the way, that of its best report."""
        seqs, places = self.journal.table.column("seq"), self._best_places
        changed = {
            trial: self.journal.config_at(trial, seqs[int(places[trial])].as_py())
            for trial in self.journal.changes
            if trial in places.index
        }
        return self.journal.configs | changed

    def _ends(self) -> pd.DataFrame:
        """The last report of each trial that has one."""
        return self._measured.drop_duplicates("trial", keep="last").set_index("trial")

    def _seconds(self) -> pd.Series[float]:
        """Time of each trial's attempts, without the time between them."""
        events = self._events
        trial = events["trial"]
        passed = events.groupby("trial")["steady"].diff()
        within = passed.mask(events["kind"].isin(["proposed", "restarted", "retried", "stopped"]))
        return within.groupby(trial).sum()

    def _taken(self) -> dict[str, pd.Series[float]]:
        """Time and memory by what all reports say, superseded ones too: that was spent."""
        reports = self._reports
        metrics = self._metrics((*_SPENT, *_PEAKS), reports.index)
        grouped = metrics.groupby(reports["trial"])
        return {
            **{name: grouped[name].sum(min_count=1) for name in _SPENT},
            "wait_seconds": self._waited(),
            **{name: grouped[name].max() for name in _PEAKS},
        }

    def _waited(self) -> pd.Series[float]:
        """Time from each attempt's proposal or restart to its first step, over all that reported.

        That is what Ray needs to place it and to start a process where there is none, and the wait
        for a place.
        """
        events = self._events
        by_trial = events.groupby("trial")
        first = (events["kind"] == "report") & by_trial["kind"].shift().isin(_BEGINS)
        step = self._metrics(["step_seconds"], events.index)["step_seconds"]
        waited = (by_trial["steady"].diff() - step).clip(lower=0.0)
        return waited[first].groupby(events["trial"]).sum(min_count=1)

    def _last_said(self, name: str) -> pd.Series[Any]:
        """The last text of a column that is not empty, of each trial that has one."""
        events = self._events
        said = events[events[name].notna() & (events[name] != "")]
        return said.drop_duplicates("trial", keep="last").set_index("trial")[name]


def _pandas(table: Any, names: Sequence[str]) -> pd.DataFrame:
    """Columns of an Arrow table, its texts as `str` even where there are none."""
    import pyarrow as pa

    texts = {pa.string(): pd.StringDtype("pyarrow", na_value=np.nan)}
    frame: pd.DataFrame = table.select(list(names)).to_pandas(types_mapper=texts.get)
    return frame


def _moment(seconds: pd.Series[float]) -> pd.Series[Any]:
    """Times in UTC, exact to the millisecond that the journal keeps; seconds since 1970 before."""
    milliseconds = (seconds * 1000).round().astype("Int64")
    return pd.to_datetime(milliseconds, unit="ms", utc=True).dt.as_unit("ns")


def configuration_frame(
    trials: Sequence[int],
    configs: Mapping[int, Mapping[str, Any]],
    fixed: Mapping[str, Any],
    searched: Sequence[str],
) -> pd.DataFrame:
    """The configuration of trials, one column for each field, searched ones first.

    Args:
        trials: Their numbers, the index of the frame.
        configs: Configuration of each trial, where it is known.
        fixed: Fields that a trial's configuration does not have, with their values.
        searched: Names of the searched fields.
    """
    names = dict.fromkeys([*searched, *fixed])
    names |= dict.fromkeys(name for config in configs.values() for name in config)
    empty: dict[str, Any] = {}
    columns = {}
    for name in names:
        default = None if name in searched else fixed.get(name)
        values = [configs.get(trial, empty).get(name, default) for trial in trials]
        columns[name] = _typed(name, values, trials)
    return pd.DataFrame(columns, index=pd.Index(trials, name="trial"))


def _typed(name: str, values: list[Any], trials: Sequence[int]) -> pd.Series[Any]:
    """A column in the type that the field's rule has; as it is where a value does not fit."""
    series: Any = pd.Series(values, index=pd.Index(trials, name="trial"), dtype="object")
    if name not in RULES:
        return cast("pd.Series[Any]", series.infer_objects())
    whole = "Int64" if series.isna().any() else "int64"
    kind = {int: whole, float: "float64", str: "str", bool: "boolean"}[RULES[name].kind]
    try:
        return cast("pd.Series[Any]", series.astype(kind))
    except (TypeError, ValueError):
        return cast("pd.Series[Any]", series.infer_objects())

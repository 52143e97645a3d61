"""What a search found, as pandas dataframes; needs no Ray, and reads a running search too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.completeness import damaged_files, files_of_trials, named, what_is_missing
from analysis.frames import Frames, configuration_frame
from analysis.pareto import on_front
from analysis.selection import choose
from model.config import DEFAULTS
from model.errors import ConfigurationError, ExperimentError
from tuning.experiment import Experiment
from tuning.journal import Row, read_journal
from tuning.journal.clock import steady_rows
from tuning.journal.columns import JournalTable, read_journal_table, table_of_rows


class Results:
    """The results of one experiment, as they were when it was opened.

    Args:
        experiment: Where they come from.
        rows: The journal's rows, for those who have them already.
        torn: Files whose torn last line was skipped.
        journal: The journal in columns, instead of rows.
        running: Whether a driver was at work when it was opened.

    Example:
        >>> results = Results.open("runs/demo")           # doctest: +SKIP
        >>> results.trials.sort_values("val_loss").head() # doctest: +SKIP
        >>> results.select(where="val_loss < 4 and optimizer == 'adam'", top=5) # doctest: +SKIP
    """

    def __init__(
        self,
        experiment: Experiment,
        rows: Iterable[Row] = (),
        torn: Sequence[str] = (),
        *,
        journal: JournalTable | None = None,
        running: bool = False,
    ) -> None:
        self.experiment = experiment
        self.running = running
        self.journal = journal
        self._given = list(rows)
        self.torn = list(torn) if journal is None else journal.torn

    @classmethod
    def open(cls, reference: str | Path, storage: str | Path = "runs") -> Results:
        """Opens an experiment's results, by directory, name, or ``latest``.

        Damaged rows and files are left out and said in `problems`.

        Raises:
            ExperimentError: where it is unknown or of a newer format, or nothing of its manifest
                or of its journal can be read.
        """
        experiment = Experiment.open(reference, storage)
        # Asked before the journal is read: a driver that ends meanwhile leaves no trial that seems
        # to have been interrupted.
        running = experiment.is_running()
        if not experiment.journal.is_dir():
            return cls(experiment, running=running)
        return cls(experiment, journal=read_journal_table(experiment.journal), running=running)

    @cached_property
    def _table(self) -> JournalTable:
        return self.journal or table_of_rows(self._given)

    @cached_property
    def rows(self) -> list[Row]:
        """The journal's rows, one object each: slow and large where there are a million."""
        if self.journal is None:
            return self._given
        numbers = self.journal.table.column("seq")
        last = numbers[-1].as_py() if len(numbers) else -1
        damage: list[str] = []  # known from the reading in columns
        rows = read_journal(self.experiment.journal, damage.append).rows
        return [row for row in rows if row.seq <= last]

    @cached_property
    def steady_rows(self) -> list[Row]:
        """The rows with times for durations, see `tuning.journal.clock`."""
        return steady_rows(self.rows)

    @property
    def objective(self) -> str:
        """The metric that trials are ranked by, such as ``val_loss``."""
        return self.experiment.objective.name

    @property
    def objectives(self) -> list[str]:
        """All metrics that the search optimises; the first is `objective`."""
        return [objective.name for objective in self.experiment.objectives]

    @property
    def ascending(self) -> bool:
        """Whether a smaller objective is better."""
        return self.experiment.objective.goal == "minimize"

    @cached_property
    def searched(self) -> list[str]:
        """The searched hyper-parameters, in the sweep file's order."""
        return list(self.experiment.sweep().space.searched)

    @cached_property
    def problems(self) -> list[str]:
        """What is damaged or missing, in plain words; empty for a whole, finished experiment."""
        torn = [f"skipped the torn last line of {file}" for file in self.torn]
        missing = what_is_missing(self.experiment, self.trials, self.objective)
        return list(dict.fromkeys([*torn, *self._table.problems, *self._unknown(), *missing]))

    def _unknown(self) -> list[str]:
        lost = [trial for trial in self.trials["trial"] if trial not in self._table.configs]
        return [f"the configuration is lost: {named(lost)}."] if lost else []

    def verify(self) -> list[str]:
        """Reads every file of weights and checkpoints, and says which are damaged.

        That takes time; `problems` says only what is missing.
        """
        files = self.trials[["weights", "checkpoint"]].to_numpy().ravel()
        return damaged_files(str(file) for file in files if isinstance(file, str))

    @cached_property
    def _frames(self) -> Frames:
        return Frames(self._table, self.experiment.objectives)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row for each report that stands, in the order of trials and iterations.

        Columns: trial, attempt, iteration, time (UTC), decision, worker, then every metric that
        has a figure.
        """
        return self._frames.history()

    @cached_property
    def history_seconds(self) -> pd.Series[float]:
        """Seconds from the search's first row to each row of `history`, for durations."""
        return self._frames.history_seconds()

    @cached_property
    def spans(self) -> pd.Series[float]:
        """Seconds from each trial's first row to its last, by its number, for durations."""
        return self._frames.spans()

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial, in the order of proposal.

        Columns: trial, state, the objective at its best, the iteration of that best, the
        objective at the last report and its iteration, attempts, the seconds they took, other
        metrics at the best report, the same at the last report (``last_...``), seconds spent
        training, evaluating, saving and waiting to begin, memory at its peak (megabytes, of the
        process and on its GPU), when it started and when it was last heard of (UTC), every
        configuration field (searched ones first), worker (``host:pid``), node (its host), the
        worker's device and its node's type, reason of a failure, and the files of the best
        weights and of the newest checkpoint. What a trial
        does not have is missing (NA, NaN, NaT or None). With several objectives there is
        ``pareto`` too: whether no other trial is as good by all of them and better by one.
        """
        told = self._frames.trials()
        numbers = told.index.tolist()
        if not self.running:
            told["state"] = told["state"].replace("running", "interrupted")
        nodes = [w.rsplit(":", 1)[0] if isinstance(w, str) else None for w in told["worker"]]
        place = list(told.columns).index("worker")
        told.insert(place + 1, "node", pd.Series(nodes, index=told.index, dtype="str"))
        frame = pd.concat(
            [
                told.iloc[:, :place],
                configuration_frame(
                    numbers, self._frames.configurations(), self._fixed, self.searched
                ),
                told.iloc[:, place:],
                files_of_trials(self.experiment.place, numbers),
            ],
            axis=1,
        )
        frame.insert(0, "trial", pd.Series(numbers, index=frame.index, dtype="Int64"))
        if len(self.objectives) > 1:
            goals = [objective.goal for objective in self.experiment.objectives]
            values = frame[self.objectives].to_numpy(dtype=float)
            place = list(frame.columns).index("state") + 1
            frame.insert(place, "pareto", on_front(values, goals))
        return frame.reset_index(drop=True)

    @property
    def _fixed(self) -> dict[str, Any]:
        """Fields that no trial may change, and the defaults of those that the sweep leaves."""
        constants = self.experiment.sweep().space.constants
        settings: dict[str, Any] = self.experiment.manifest["data"]["settings"]
        return DEFAULTS | settings | constants

    def ranked(self) -> pd.DataFrame:
        """The trials that have a value, the best first."""
        valued = self.trials[self.trials[self.objective].notna()]
        return valued.sort_values(self.objective, ascending=self.ascending, kind="stable")

    def pareto(self) -> pd.DataFrame:
        """The Pareto front, the best by the first objective first; see `analysis.pareto`.

        With one objective these are the trials with the best value of it.
        """
        ranked = self.ranked()
        if len(self.objectives) > 1:
            return ranked[ranked["pareto"]]
        return ranked[ranked[self.objective] == ranked[self.objective].head(1).squeeze()]

    def _front(self) -> list[int]:
        if len(self.objectives) == 1:
            problem = f"pareto: the search has one objective, {self.objective}, and so no front."
            raise ConfigurationError("selection", [problem])
        front: list[int] = self.pareto()["trial"].tolist()
        return front

    def best(self) -> pd.Series[Any]:
        """The trial with the best value of the objective.

        Raises:
            ExperimentError: where no trial has a value yet.
        """
        ranked = self.ranked()
        if ranked.empty:
            raise ExperimentError(f"{self.experiment.place}: no trial has a result yet.")
        return ranked.iloc[0]

    def select(
        self,
        *,
        where: str | None = None,
        state: str | Sequence[str] | None = None,
        sort: str | None = None,
        descending: bool = False,
        columns: Sequence[str] | None = None,
        top: int | None = None,
        history: bool = False,
        pareto: bool = False,
    ) -> pd.DataFrame:
        """Some of the trials, or of the reports.

        Args:
            where: A condition on the columns, such as ``val_loss < 4 and optimizer == 'adam'``;
                see `analysis.conditions`.
            state: Trials in this state, or in one of these.
            sort: Column to sort by, the smallest first and missing values last. Without it,
                trials are in the order of proposal, but the best first where `top` is given;
                reports are in the order of trials and iterations.
            descending: Sort the largest first.
            columns: Columns to keep, in this order.
            top: How many rows to keep, after sorting.
            history: Reports instead of trials.
            pareto: Only trials on the Pareto front, or reports of these.

        Raises:
            ConfigurationError: naming what there is no such column or state of, with the nearest;
                or where there is one objective, which has no front.
        """
        frame = self.history if history else self.trials
        if pareto:
            frame = frame[frame["trial"].isin(self._front())]
        trial_states = self.trials.set_index("trial")["state"]
        if top is not None and sort is None and not history:
            sort, descending = self.objective, not self.ascending
        return choose(
            frame,
            states=frame["trial"].map(trial_states),
            state=state,
            where=where,
            sort=sort,
            descending=descending,
            columns=columns,
            top=top,
        )
